//! The global config: store, load, watch.

use proto::pdpb;
use proto::pdpb::{ErrorType, EventType};

use crate::host::Host;

const PATH: &str = "/global/config/";

fn put(name: &str, payload: &'static str) -> pdpb::GlobalConfigItem {
    pdpb::GlobalConfigItem { name: name.into(), payload: payload.into(), ..Default::default() }
}

fn delete(name: &str) -> pdpb::GlobalConfigItem {
    let kind = EventType::Delete.into();
    pdpb::GlobalConfigItem { name: name.into(), kind, ..Default::default() }
}

fn store(host: &mut Host, path: &str, changes: Vec<pdpb::GlobalConfigItem>) {
    let request = pdpb::StoreGlobalConfigRequest { changes, config_path: path.into() };
    let response = host.write(|placement| placement.store_global_config(&request)).unwrap();
    assert!(response.error.is_none());
}

fn load(host: &Host, path: &str, names: &[&str]) -> pdpb::LoadGlobalConfigResponse {
    let names = names.iter().map(|&name| name.to_owned()).collect();
    let request = pdpb::LoadGlobalConfigRequest { names, config_path: path.into() };
    host.placement.load_global_config(&request)
}

fn pairs(items: &[pdpb::GlobalConfigItem]) -> Vec<(&str, &str)> {
    items.iter().map(|i| (i.name.as_str(), std::str::from_utf8(&i.payload).unwrap())).collect()
}

#[test]
fn named_values_come_one_by_one_and_missing_ones_say_so() {
    let mut host = Host::new();
    store(&mut host, "", vec![put("a", "1"), put("b", "2")]);
    let response = load(&host, "", &["b", "c", "a"]);
    assert_eq!(pairs(&response.items), [("b", "2"), ("c", ""), ("a", "1")]);
    let error = response.items[1].error.clone().unwrap();
    assert_eq!(error.r#type(), ErrorType::GlobalConfigNotFound);
    assert!(response.items[0].error.is_none());
}

#[test]
fn without_names_all_under_the_path_come_with_full_names_and_the_revision() {
    let mut host = Host::new();
    store(&mut host, "", vec![put("a", "1")]);
    store(&mut host, "/other", vec![put("x", "9"), put("y", "8")]);
    store(&mut host, "/other/", vec![delete("y")]);
    host.restart();
    let response = load(&host, "", &[]);
    assert_eq!(pairs(&response.items), [("/global/config/a", "1")]);
    assert_eq!(response.revision, 3);
    assert_eq!(pairs(&load(&host, "/other/", &[]).items), [("/other/x", "9")]);
    assert!(load(&host, "/other", &["y"]).items[0].error.is_some());
}

#[test]
fn older_clients_put_text_into_another_field() {
    let mut host = Host::new();
    let item = pdpb::GlobalConfigItem { payload: "".into(), value: "old".into(), ..put("a", "") };
    store(&mut host, "", vec![item]);
    assert_eq!(pairs(&load(&host, "", &["a"]).items), [("a", "old")]);
}

#[test]
fn a_watcher_is_told_what_changed_since_its_revision_also_by_a_new_leader() {
    let mut host = Host::new();
    store(&mut host, "", vec![put("a", "1"), put("b", "1")]);
    store(&mut host, "", vec![put("c", "1")]);
    store(&mut host, "/other", vec![put("a", "1")]);
    store(&mut host, "", vec![put("a", "2"), delete("b")]);
    for _ in 0..2 {
        let changes = host.placement.global_config_changes(PATH, 2);
        assert_eq!(
            pairs(&changes.changes),
            [("/global/config/c", "1"), ("/global/config/a", "2"), ("/global/config/b", "")]
        );
        assert_eq!(changes.changes[2].kind(), EventType::Delete);
        assert_eq!(changes.revision, 4);
        assert!(changes.header.unwrap().error.is_none());
        let later = host.placement.global_config_changes("", changes.revision + 1);
        assert!(later.changes.is_empty());
        host.restart();
    }
    assert_eq!(host.placement.config_revision(), 4);
}
