//! The global config: values under path-like names, for whoever wants the cluster to keep them.
//!
//! Each change of a batch gets the batch's revision, one above the last. A value that is deleted
//! stays as a mark with its revision, so that a watcher who comes back, also after a change of
//! leader, can be told everything that changed since the revision it knows.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes};
use proto::pdpb;
use proto::pdpb::{ErrorType, EventType};

use crate::rows::RowKey;
use crate::{Change, Placement, PlacementError, RowChanges};

/// Where values live whose request names no path.
const DEFAULT_PATH: &str = "/global/config/";
/// A row begins with the revision (8 bytes) and the kind of event (1).
const HEAD_LEN: usize = 9;

#[derive(Clone, Debug)]
struct Item {
    revision: u64,
    kind: EventType,
    payload: Bytes,
}

/// All values by full name, deleted ones as marks.
#[derive(Debug, Default)]
pub(crate) struct GlobalConfig {
    items: BTreeMap<String, Item>,
    /// Of the last change; 0 before the first.
    revision: u64,
}

impl GlobalConfig {
    pub(crate) fn apply(
        &mut self,
        row: &RowKey,
        name: &str,
        value: &Bytes,
    ) -> Result<(), PlacementError> {
        if value.len() < HEAD_LEN {
            return Err(row.bad("too short"));
        }
        let revision = u64::from_be_bytes(value[..8].try_into().expect("eight bytes"));
        let kind = EventType::try_from(i32::from(value[8]));
        let kind = kind.map_err(|_| row.bad("of an unknown kind"))?;
        let item = Item { revision, kind, payload: value.slice(HEAD_LEN..) };
        self.items.insert(name.to_owned(), item);
        self.revision = self.revision.max(revision);
        Ok(())
    }

    fn live(&self, name: &str) -> Option<&Item> {
        self.items.get(name).filter(|item| item.kind == EventType::Put)
    }

    /// Everything whose full name starts with `path`.
    fn under<'a>(&'a self, path: &'a str) -> impl Iterator<Item = (&'a String, &'a Item)> {
        self.items
            .range::<str, _>((std::ops::Bound::Included(path), std::ops::Bound::Unbounded))
            .take_while(move |(name, _)| name.starts_with(path))
    }
}

impl Placement {
    /// StoreGlobalConfig: puts and deletes values, all or none.
    pub fn store_global_config(
        &self,
        request: &pdpb::StoreGlobalConfigRequest,
    ) -> Result<Change<pdpb::StoreGlobalConfigResponse>, PlacementError> {
        let path = path_of(&request.config_path);
        let revision = self.config.revision + 1;
        let mut rows = RowChanges::default();
        for item in &request.changes {
            // Older clients put text into `value`.
            let payload =
                if item.payload.is_empty() { item.value.as_bytes() } else { &item.payload };
            let kind = item.kind();
            let mut value = Vec::with_capacity(HEAD_LEN + payload.len());
            value.put_u64(revision);
            value.put_u8(kind as u8);
            assert_eq!(value.len(), HEAD_LEN, "the payload begins where readers look for it");
            if kind == EventType::Put {
                value.extend_from_slice(payload);
            }
            rows.put(&RowKey::Config(full_name(path, &item.name)), value);
        }
        Ok(Change { rows, reply: pdpb::StoreGlobalConfigResponse::default() })
    }

    /// LoadGlobalConfig: the named values, or all under the path.
    pub fn load_global_config(
        &self,
        request: &pdpb::LoadGlobalConfigRequest,
    ) -> pdpb::LoadGlobalConfigResponse {
        let path = path_of(&request.config_path);
        if !request.names.is_empty() {
            let items = request.names.iter().map(|name| self.named_item(path, name)).collect();
            let revision = self.config_revision();
            return pdpb::LoadGlobalConfigResponse { items, revision };
        }
        let live = self.config.under(path).filter(|(_, item)| item.kind == EventType::Put);
        let items = live.map(|(name, item)| to_wire(name, item)).collect();
        pdpb::LoadGlobalConfigResponse { items, revision: self.config_revision() }
    }

    /// WatchGlobalConfig: what changed under the path at `from_revision` or later, in the order of
    /// the changes. A value that changed several times is there once, as it is now. A watcher goes
    /// on from the answer's revision plus one.
    pub fn global_config_changes(
        &self,
        path: &str,
        from_revision: i64,
    ) -> pdpb::WatchGlobalConfigResponse {
        let from = u64::try_from(from_revision).unwrap_or(0);
        let mut changed: Vec<_> =
            self.config.under(path_of(path)).filter(|(_, item)| item.revision >= from).collect();
        changed.sort_by_key(|(_, item)| item.revision);
        let newest = changed.last().map_or(0, |(_, item)| item.revision);
        assert!(newest <= self.config.revision, "a change of the future");
        pdpb::WatchGlobalConfigResponse {
            changes: changed.into_iter().map(|(name, item)| to_wire(name, item)).collect(),
            revision: self.config_revision(),
            header: Some(self.header()),
        }
    }

    /// The revision of the last change of the global config; 0 before the first.
    pub fn config_revision(&self) -> i64 {
        i64::try_from(self.config.revision).expect("counted by one")
    }

    fn named_item(&self, path: &str, name: &str) -> pdpb::GlobalConfigItem {
        if let Some(item) = self.config.live(&full_name(path, name)) {
            return to_wire(name, item);
        }
        let error = pdpb::Error {
            r#type: ErrorType::GlobalConfigNotFound.into(),
            message: format!("global config {name} not found"),
        };
        pdpb::GlobalConfigItem { name: name.to_owned(), error: Some(error), ..Default::default() }
    }
}

fn path_of(path: &str) -> &str {
    if path.is_empty() { DEFAULT_PATH } else { path }
}

fn full_name(path: &str, name: &str) -> String {
    format!("{}/{}", path.trim_end_matches('/'), name.trim_start_matches('/'))
}

fn to_wire(name: &str, item: &Item) -> pdpb::GlobalConfigItem {
    pdpb::GlobalConfigItem {
        name: name.to_owned(),
        kind: item.kind.into(),
        payload: item.payload.clone(),
        ..Default::default()
    }
}
