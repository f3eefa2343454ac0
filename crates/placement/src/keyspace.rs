//! Keyspaces: named parts of the key space of API V2.
//!
//! `DEFAULT` has id 0 and is there from the start, also before its row is written (at bootstrap). A
//! keyspace never goes away, it becomes a tombstone, so the next id is one above the largest.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use proto::keyspacepb::{self, KeyspaceMeta, KeyspaceState, keyspace_meta};
use proto::pdpb::ErrorType;

use crate::rows::{self, RowKey};
use crate::{Change, Placement, PlacementError, RowChanges};

/// The keyspace of clients that name none.
pub const DEFAULT_KEYSPACE_ID: u32 = 0;
/// Its name.
pub const DEFAULT_KEYSPACE_NAME: &str = "DEFAULT";
/// Ids have three bytes in a key.
pub const KEYSPACE_ID_MAX: u32 = 0xff_ffff;

const NAME_LEN_MAX: usize = 20;
/// The config entry, and its value, by which a keyspace asks for safe points of its own.
const GC_TYPE: &str = "gc_management_type";
const GC_TYPE_OWN: &str = "keyspace_level";

#[derive(Debug)]
pub(crate) struct Keyspaces {
    /// Without their config.
    by_id: BTreeMap<u32, Tracked>,
    by_name: BTreeMap<String, u32>,
    config: BTreeMap<(u32, String), String>,
    /// Counts the rows that were applied, for watchers.
    changes: u64,
}

#[derive(Debug)]
struct Tracked {
    meta: KeyspaceMeta,
    /// What `changes` was when it changed last.
    changed: u64,
}

impl Keyspaces {
    pub(crate) fn new(wall_ms: u64) -> Self {
        let created_at = seconds(wall_ms);
        let default = KeyspaceMeta {
            name: DEFAULT_KEYSPACE_NAME.to_owned(),
            state: KeyspaceState::Enabled.into(),
            created_at,
            state_changed_at: created_at,
            keyspace: Some(keyspace_meta::Keyspace::Id(DEFAULT_KEYSPACE_ID)),
            ..Default::default()
        };
        let mut keyspaces = Self {
            by_id: BTreeMap::new(),
            by_name: BTreeMap::new(),
            config: BTreeMap::new(),
            changes: 0,
        };
        keyspaces.put(DEFAULT_KEYSPACE_ID, default).expect("it is the only one");
        keyspaces
    }

    pub(crate) fn apply(&mut self, row: &RowKey, value: &Bytes) -> Result<(), PlacementError> {
        match row {
            RowKey::Keyspace(id) => {
                let meta: KeyspaceMeta = rows::read_message(row, value)?;
                if meta.keyspace != Some(keyspace_meta::Keyspace::Id(*id)) {
                    return Err(row.bad("holds another keyspace"));
                }
                if !meta.config.is_empty() {
                    return Err(row.bad("holds config, which has rows of its own"));
                }
                self.put(*id, meta).map_err(|reason| row.bad(reason))?;
            }
            RowKey::KeyspaceConfig(id, name) => {
                self.config.insert((*id, name.clone()), rows::read_text(row, value)?);
            }
            _ => unreachable!("{row:?} is no row of this module"),
        }
        Ok(())
    }

    fn put(&mut self, id: u32, meta: KeyspaceMeta) -> Result<(), &'static str> {
        let known = self.by_id.get(&id);
        if known.is_some_and(|known| known.meta.name != meta.name) {
            return Err("has another name than before");
        }
        let other = self.by_name.insert(meta.name.clone(), id);
        if other.is_some_and(|other| other != id) {
            return Err("has the name of another keyspace");
        }
        self.changes += 1;
        self.by_id.insert(id, Tracked { meta, changed: self.changes });
        assert_eq!(self.by_name.len(), self.by_id.len(), "the two indexes differ");
        Ok(())
    }

    /// Plans the row of the default keyspace.
    pub(crate) fn plan_default(&self, rows: &mut RowChanges) {
        let default = &self.by_id.get(&DEFAULT_KEYSPACE_ID).expect("it is there always").meta;
        assert_eq!(default.name, DEFAULT_KEYSPACE_NAME, "nobody renames it");
        rows.put(&RowKey::Keyspace(DEFAULT_KEYSPACE_ID), default.encode_to_vec());
    }

    /// Whether the keyspace has safe points of its own; `None` if there is no such keyspace.
    pub(crate) fn has_own_gc(&self, id: u32) -> Option<bool> {
        self.by_id.get(&id)?;
        let gc_type = self.config.get(&(id, GC_TYPE.to_owned()));
        Some(gc_type.is_some_and(|gc_type| gc_type == GC_TYPE_OWN))
    }

    /// The keyspaces with safe points of their own, but for tombstones.
    pub(crate) fn with_own_gc(&self) -> impl Iterator<Item = u32> {
        let live = self
            .by_id
            .iter()
            .filter(|(_, keyspace)| keyspace.meta.state() != KeyspaceState::Tombstone);
        live.map(|(id, _)| *id).filter(|id| self.has_own_gc(*id) == Some(true))
    }

    /// With its config.
    fn get(&self, id: u32) -> Option<KeyspaceMeta> {
        let keyspace = self.by_id.get(&id)?;
        assert!(keyspace.meta.config.is_empty(), "it has rows of its own");
        let config = self.config.range((id, String::new())..).take_while(|((of, _), _)| *of == id);
        Some(KeyspaceMeta {
            config: config.map(|((_, name), value)| (name.clone(), value.clone())).collect(),
            ..keyspace.meta.clone()
        })
    }
}

impl Placement {
    /// LoadKeyspace: by name.
    pub fn load_keyspace(
        &self,
        request: &keyspacepb::LoadKeyspaceRequest,
    ) -> Result<keyspacepb::LoadKeyspaceResponse, PlacementError> {
        self.check_cluster(request.header.as_ref())?;
        let keyspace = self.keyspace_named(&request.name)?;
        let (header, keyspace) = (Some(self.header()), Some(keyspace));
        Ok(keyspacepb::LoadKeyspaceResponse { header, keyspace })
    }

    /// LookupKeyspace: by name, in any namespace. There is one of each name.
    pub fn lookup_keyspace(
        &self,
        request: &keyspacepb::LookupKeyspaceRequest,
    ) -> Result<keyspacepb::LookupKeyspaceResponse, PlacementError> {
        self.check_cluster(request.header.as_ref())?;
        let keyspaces = vec![self.keyspace_named(&request.name)?];
        Ok(keyspacepb::LookupKeyspaceResponse { header: Some(self.header()), keyspaces })
    }

    /// LoadKeyspaceByID.
    pub fn load_keyspace_by_id(
        &self,
        request: &keyspacepb::LoadKeyspaceByIdRequest,
    ) -> Result<keyspacepb::LoadKeyspaceResponse, PlacementError> {
        use keyspacepb::load_keyspace_by_id_request::Keyspace;
        self.check_cluster(request.header.as_ref())?;
        let id = match request.keyspace {
            None => DEFAULT_KEYSPACE_ID,
            Some(Keyspace::Id(id)) => id,
            Some(Keyspace::KeyspaceIdentity(identity)) => identity.keyspace_id,
        };
        let (header, keyspace) = (Some(self.header()), Some(self.keyspace_with(id)?));
        Ok(keyspacepb::LoadKeyspaceResponse { header, keyspace })
    }

    /// GetAllKeyspaces: from an id on, at most `limit` (0 means all).
    pub fn get_all_keyspaces(
        &self,
        request: &keyspacepb::GetAllKeyspacesRequest,
    ) -> Result<keyspacepb::GetAllKeyspacesResponse, PlacementError> {
        use keyspacepb::get_all_keyspaces_request::StartKeyspace;
        self.check_cluster(request.header.as_ref())?;
        let start = match request.start_keyspace {
            None => DEFAULT_KEYSPACE_ID,
            Some(StartKeyspace::StartId(id)) => id,
            Some(StartKeyspace::StartKeyspaceIdentity(identity)) => identity.keyspace_id,
        };
        assert!(!self.keyspaces.by_id.is_empty(), "DEFAULT is there always");
        let limit = if request.limit == 0 { usize::MAX } else { request.limit as usize };
        let ids = self.keyspaces.by_id.range(start..).map(|(id, _)| *id).take(limit);
        let keyspaces = ids.filter_map(|id| self.keyspaces.get(id)).collect();
        Ok(keyspacepb::GetAllKeyspacesResponse { header: Some(self.header()), keyspaces })
    }

    /// WatchKeyspaces: the keyspaces that changed after the point `seen` (0 for all there are) in
    /// the history of this placement driver, and the point reached now.
    pub fn keyspace_changes(&self, seen: u64) -> (keyspacepb::WatchKeyspacesResponse, u64) {
        let changed = self.keyspaces.by_id.iter().filter(|(_, keyspace)| keyspace.changed > seen);
        let keyspaces = changed.filter_map(|(id, _)| self.keyspaces.get(*id)).collect();
        let header = Some(self.header());
        (keyspacepb::WatchKeyspacesResponse { header, keyspaces }, self.keyspaces.changes)
    }

    /// UpdateKeyspaceState: enabled and disabled are a switch; from disabled a keyspace can be
    /// archived, and then become a tombstone.
    pub fn update_keyspace_state(
        &self,
        request: &keyspacepb::UpdateKeyspaceStateRequest,
        wall_ms: u64,
    ) -> Result<Change<keyspacepb::UpdateKeyspaceStateResponse>, PlacementError> {
        use keyspacepb::update_keyspace_state_request::Keyspace;
        self.check_cluster(request.header.as_ref())?;
        let id = match request.keyspace {
            None => DEFAULT_KEYSPACE_ID,
            Some(Keyspace::Id(id)) => id,
            Some(Keyspace::KeyspaceIdentity(identity)) => identity.keyspace_id,
        };
        let mut keyspace = self.keyspace_with(id)?;
        let Ok(to) = KeyspaceState::try_from(request.state) else {
            let text = format!("there is no keyspace state {}", request.state);
            return Err(PlacementError::refused_as(ErrorType::InvalidValue, text));
        };
        let from = keyspace.state();
        if id == DEFAULT_KEYSPACE_ID && from != to {
            return Err(PlacementError::refused("the state of DEFAULT cannot change"));
        }
        if !may_become(from, to) {
            let text = format!("keyspace {id} cannot become {to:?}: it is {from:?}");
            return Err(PlacementError::refused(text));
        }
        let mut rows = RowChanges::default();
        if from != to {
            assert!(id != DEFAULT_KEYSPACE_ID, "refused above");
            keyspace.set_state(to);
            keyspace.state_changed_at = seconds(wall_ms);
            rows.put(&RowKey::Keyspace(id), without_config(&keyspace).encode_to_vec());
        }
        let (header, keyspace) = (Some(self.header()), Some(keyspace));
        let reply = keyspacepb::UpdateKeyspaceStateResponse { header, keyspace };
        Ok(Change { rows, reply })
    }

    /// Creates a keyspace. PD's protocol has no call for it; the HTTP API does.
    pub fn create_keyspace(
        &self,
        name: &str,
        config: &BTreeMap<String, String>,
        wall_ms: u64,
    ) -> Result<Change<KeyspaceMeta>, PlacementError> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if name.is_empty() || name.len() > NAME_LEN_MAX || !name.bytes().all(is_allowed) {
            let text = format!("a keyspace cannot be called {name:?}: {NAME_RULE}");
            return Err(PlacementError::refused_as(ErrorType::InvalidValue, text));
        }
        if self.keyspaces.by_name.contains_key(name) {
            let text = format!("keyspace {name} exists");
            return Err(PlacementError::refused_as(ErrorType::DuplicatedEntry, text));
        }
        let (largest, _) = self.keyspaces.by_id.last_key_value().expect("DEFAULT is there");
        let id = largest + 1;
        if id > KEYSPACE_ID_MAX {
            return Err(PlacementError::refused("no keyspace ids are left"));
        }
        assert!(!self.keyspaces.by_id.contains_key(&id), "keyspace {id} is taken");
        let created_at = seconds(wall_ms);
        let keyspace = KeyspaceMeta {
            name: name.to_owned(),
            state: KeyspaceState::Enabled.into(),
            created_at,
            state_changed_at: created_at,
            keyspace: Some(keyspace_meta::Keyspace::Id(id)),
            config: config.clone().into_iter().collect(),
        };
        let mut rows = RowChanges::default();
        rows.put(&RowKey::Keyspace(id), without_config(&keyspace).encode_to_vec());
        for (name, value) in config {
            rows.put(&RowKey::KeyspaceConfig(id, name.clone()), value.clone());
        }
        Ok(Change { rows, reply: keyspace })
    }

    fn keyspace_named(&self, name: &str) -> Result<KeyspaceMeta, PlacementError> {
        let id = self.keyspaces.by_name.get(name);
        let keyspace = id.and_then(|id| self.keyspaces.get(*id));
        keyspace.ok_or_else(|| not_found(format!("keyspace {name:?} not found")))
    }

    fn keyspace_with(&self, id: u32) -> Result<KeyspaceMeta, PlacementError> {
        let keyspace = self.keyspaces.get(id);
        keyspace.ok_or_else(|| not_found(format!("keyspace {id} not found")))
    }
}

const NAME_RULE: &str = "1 to 20 letters, digits, '-' and '_'";

fn may_become(from: KeyspaceState, to: KeyspaceState) -> bool {
    use KeyspaceState::{Archived, Disabled, Enabled, Tombstone};
    from == to
        || matches!(
            (from, to),
            (Enabled, Disabled) | (Disabled, Enabled | Archived) | (Archived, Tombstone)
        )
}

/// What goes into the keyspace's row. Its config has rows of its own: the protocol's map has no
/// order, and equal rows should be equal bytes.
fn without_config(keyspace: &KeyspaceMeta) -> KeyspaceMeta {
    KeyspaceMeta { config: Default::default(), ..keyspace.clone() }
}

fn not_found(text: String) -> PlacementError {
    PlacementError::refused_as(ErrorType::EntryNotFound, text)
}

fn seconds(wall_ms: u64) -> i64 {
    i64::try_from(wall_ms / 1_000).expect("a thousandth fits")
}
