//! Keyspaces.

use std::collections::BTreeMap;

use pontoon_placement::{
    DEFAULT_KEYSPACE_ID, DEFAULT_KEYSPACE_NAME, KEYSPACE_ID_MAX, PlacementError,
};
use prost::Message;
use proto::keyspacepb::{
    self, KeyspaceMeta, KeyspaceState, get_all_keyspaces_request, keyspace_meta,
    load_keyspace_by_id_request, update_keyspace_state_request,
};
use proto::pdpb::ErrorType;

use crate::host::{Host, header, kind};

fn load(host: &Host, name: &str) -> Result<KeyspaceMeta, PlacementError> {
    let request = keyspacepb::LoadKeyspaceRequest {
        header: header(),
        name: name.to_owned(),
        namespace: None,
    };
    host.placement.load_keyspace(&request).map(|response| response.keyspace.unwrap())
}

fn create(host: &mut Host, name: &str) -> Result<u32, PlacementError> {
    let wall_ms = host.wall_ms;
    let config =
        BTreeMap::from([("k".to_owned(), "v".to_owned()), ("l".to_owned(), "w".to_owned())]);
    let meta = host.write(|placement| placement.create_keyspace(name, &config, wall_ms))?;
    Ok(id(&meta))
}

fn id(meta: &KeyspaceMeta) -> u32 {
    match meta.keyspace {
        Some(keyspace_meta::Keyspace::Id(id)) => id,
        other => panic!("{other:?}"),
    }
}

fn set_state(host: &mut Host, id: u32, state: i32) -> Result<KeyspaceMeta, PlacementError> {
    let request = keyspacepb::UpdateKeyspaceStateRequest {
        header: header(),
        state,
        keyspace: Some(update_keyspace_state_request::Keyspace::Id(id)),
    };
    let wall_ms = host.wall_ms;
    let response = host.write(|placement| placement.update_keyspace_state(&request, wall_ms))?;
    Ok(response.keyspace.unwrap())
}

#[test]
fn default_is_there_from_the_start() {
    let mut host = Host::new();
    for _ in 0..2 {
        let default = load(&host, DEFAULT_KEYSPACE_NAME).unwrap();
        assert_eq!(id(&default), DEFAULT_KEYSPACE_ID);
        assert_eq!(default.state(), KeyspaceState::Enabled);
        assert_eq!(default.created_at, (host.wall_ms / 1_000) as i64);
        host.restart();
    }
    // From bootstrap on it is a row, and keeps its age.
    let mut host = Host::bootstrapped();
    let created_at = load(&host, "DEFAULT").unwrap().created_at;
    host.wall_ms += 60_000;
    host.restart();
    assert_eq!(load(&host, "DEFAULT").unwrap().created_at, created_at);
}

#[test]
fn an_unknown_keyspace_is_not_found() {
    let host = Host::new();
    assert_eq!(kind(&load(&host, "nope").unwrap_err()), ErrorType::EntryNotFound);
    let request = keyspacepb::LoadKeyspaceByIdRequest {
        header: header(),
        keyspace: Some(load_keyspace_by_id_request::Keyspace::Id(3)),
    };
    let error = host.placement.load_keyspace_by_id(&request).unwrap_err();
    assert_eq!(kind(&error), ErrorType::EntryNotFound);
    let request = keyspacepb::LookupKeyspaceRequest { header: header(), name: "DEFAULT".into() };
    assert_eq!(host.placement.lookup_keyspace(&request).unwrap().keyspaces.len(), 1);
}

#[test]
fn keyspaces_are_created_with_growing_ids_and_keep_their_config() {
    let mut host = Host::bootstrapped();
    assert_eq!(create(&mut host, "first"), Ok(1));
    assert_eq!(create(&mut host, "second-2_B"), Ok(2));
    assert_eq!(kind(&create(&mut host, "first").unwrap_err()), ErrorType::DuplicatedEntry);
    assert_eq!(kind(&create(&mut host, "DEFAULT").unwrap_err()), ErrorType::DuplicatedEntry);
    for name in ["", "a b", "ä", "a/b", "123456789012345678901"] {
        assert_eq!(kind(&create(&mut host, name).unwrap_err()), ErrorType::InvalidValue, "{name}");
    }
    host.restart();
    let first = load(&host, "first").unwrap();
    assert_eq!((id(&first), first.config["k"].as_str(), first.config.len()), (1, "v", 2));
    assert_eq!(create(&mut host, "third"), Ok(3));
    let request = keyspacepb::GetAllKeyspacesRequest {
        header: header(),
        limit: 2,
        start_keyspace: Some(get_all_keyspaces_request::StartKeyspace::StartId(1)),
        namespace: None,
    };
    let response = host.placement.get_all_keyspaces(&request).unwrap();
    assert_eq!(response.keyspaces.iter().map(id).collect::<Vec<_>>(), [1, 2]);
    let request = keyspacepb::GetAllKeyspacesRequest { header: header(), ..Default::default() };
    assert_eq!(host.placement.get_all_keyspaces(&request).unwrap().keyspaces.len(), 4);
}

#[test]
fn the_last_id_fits_three_bytes() {
    let mut host = Host::bootstrapped();
    let last = KeyspaceMeta {
        name: "last".into(),
        keyspace: Some(keyspace_meta::Keyspace::Id(KEYSPACE_ID_MAX)),
        ..Default::default()
    };
    let key = [&b"keyspace/"[..], &KEYSPACE_ID_MAX.to_be_bytes()].concat();
    host.rows.insert(key.into(), last.encode_to_vec().into());
    host.restart();
    assert_eq!(kind(&create(&mut host, "one-more").unwrap_err()), ErrorType::Unknown);
}

#[test]
fn states_change_along_their_path() {
    use KeyspaceState::{Archived, Disabled, Enabled, Tombstone};
    let mut host = Host::bootstrapped();
    let id = create(&mut host, "a").unwrap();
    let path = [Enabled, Disabled, Enabled, Disabled, Archived, Archived, Tombstone];
    for state in path {
        host.wall_ms += 1_000;
        assert_eq!(set_state(&mut host, id, state.into()).unwrap().state(), state);
        host.restart();
        assert_eq!(load(&host, "a").unwrap().state(), state);
    }
    for state in [Enabled, Disabled, Archived] {
        assert_eq!(kind(&set_state(&mut host, id, state.into()).unwrap_err()), ErrorType::Unknown);
    }
    let other = create(&mut host, "b").unwrap();
    assert!(set_state(&mut host, other, Archived.into()).is_err());
    assert!(set_state(&mut host, other, Tombstone.into()).is_err());
    assert_eq!(kind(&set_state(&mut host, other, 77).unwrap_err()), ErrorType::InvalidValue);
    assert!(set_state(&mut host, DEFAULT_KEYSPACE_ID, Disabled.into()).is_err());
    assert_eq!(kind(&set_state(&mut host, 99, 0).unwrap_err()), ErrorType::EntryNotFound);
    assert_eq!(load(&host, "a").unwrap().config.len(), 2, "the config survives");
}

#[test]
fn a_watcher_gets_all_and_then_what_changes() {
    let mut host = Host::bootstrapped();
    let (all, seen) = host.placement.keyspace_changes(0);
    assert_eq!(all.keyspaces.iter().map(id).collect::<Vec<_>>(), [0]);
    let new = create(&mut host, "a").unwrap();
    let (changed, seen) = host.placement.keyspace_changes(seen);
    assert_eq!(changed.keyspaces.iter().map(id).collect::<Vec<_>>(), [new]);
    let (none, now) = host.placement.keyspace_changes(seen);
    assert!(none.keyspaces.is_empty() && now == seen);
}
