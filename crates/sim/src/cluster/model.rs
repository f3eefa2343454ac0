//! A model that executes the log of each region by itself, from what its entries say, and knows
//! what the data must be at every index. It shares no code with the applier but the arithmetic of
//! descriptors.

use std::collections::BTreeMap;

use base::{
    Cut, Entry, EntryKind, Epoch, Index, Peer, PeerChange, PeerId, Region, RegionId, TimeStamp,
};
use bytes::Bytes;
use prost::Message;
use proto::{eraftpb, raft_cmdpb};

use super::checks::mix;

/// A number for one pair. Those of all pairs are added up. What stores collect in their own time
/// counts nothing.
pub(crate) fn hash_pair(collects: bool, cf: &str, key: &[u8], value: &[u8]) -> u64 {
    if collects && cf != "lock" && key.starts_with(TXN_KEYS) {
        return 0;
    }
    mix(mix(mix(0x51, cf.as_bytes()), key), value)
}

/// What keys of transactions begin with, also as they are stored.
const TXN_KEYS: &[u8] = b"x";

/// A number for a descriptor.
pub(crate) fn hash_descriptor(region: &Region) -> u64 {
    mix(region.id.0, &proto::region_to_proto(region).encode_to_vec())
}

type Data = BTreeMap<(String, Vec<u8>), Bytes>;

struct ModelRegion {
    region: Region,
    applied: Index,
    data: Data,
    sum: u64,
    /// Old versions of transactions may go unasked.
    collects: bool,
    /// It waits to be taken over.
    merge: Option<Merge>,
}

/// Since which entry, by whom, as what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Merge {
    commit: Index,
    target: (RegionId, Epoch),
    min_index: Index,
}

/// What an entry did to other regions.
enum Effect {
    Nothing,
    Births(Vec<ModelRegion>),
    TookOver(RegionId),
}

type Regions = BTreeMap<RegionId, Option<ModelRegion>>;

/// What the members of a region promised when it began to merge.
pub(crate) struct End {
    /// The entry that began the merge.
    pub(crate) commit: Index,
    /// Each of them has the log up to here, durably, and keeps what is behind it.
    pub(crate) min_index: Index,
    pub(crate) peers: Vec<Peer>,
}

#[derive(Default)]
pub(crate) struct Model {
    /// `None`: it was taken over, or met something that it does not understand.
    regions: Regions,
    pub(crate) merges: u64,
    collects: bool,
    /// What the numbers of descriptor and data are at an index.
    states: BTreeMap<(RegionId, Index), u64>,
    /// The last merge of each region.
    ends: BTreeMap<RegionId, End>,
}

impl Model {
    /// `collects`: old versions of transactions may go unasked.
    pub(crate) fn new(collects: bool) -> Self {
        Self { collects, ..Self::default() }
    }

    /// A region that nobody has cut off another one: a first one.
    pub(crate) fn first(&mut self, region: &Region) {
        let applied = base::limits::RAFT_INIT_LOG_INDEX;
        self.regions.entry(region.id).or_insert_with(|| {
            (region.epoch == base::INIT_EPOCH).then(|| ModelRegion {
                region: region.clone(),
                applied,
                data: Data::new(),
                sum: 0,
                collects: self.collects,
                merge: None,
            })
        });
    }

    pub(crate) fn knows(&self, region: RegionId) -> bool {
        self.regions.contains_key(&region)
    }

    /// What descriptor and data come to at the index, if that is known.
    pub(crate) fn state(&self, region: RegionId, index: Index) -> Option<u64> {
        self.states.get(&(region, index)).copied()
    }

    /// The last merge that the region began.
    pub(crate) fn end(&self, region: RegionId) -> Option<&End> {
        self.ends.get(&region)
    }

    /// A committed entry, seen perhaps for the first time.
    pub(crate) fn commit(&mut self, id: RegionId, entry: &Entry) {
        let Some(Some(region)) = self.regions.get(&id) else { return };
        if entry.index <= region.applied {
            return;
        }
        assert_eq!(entry.index, region.applied + 1, "the model of region {id} sees all entries");
        let mut region = self.regions.remove(&id).flatten().expect("seen above");
        region.applied = entry.index;
        let effect = region.execute(entry, &self.regions);
        if effect.is_some() {
            self.states.insert((id, entry.index), region.state());
        }
        if let Some(Merge { commit, min_index, .. }) = region.merge
            && commit == entry.index
        {
            let peers = region.region.peers.clone();
            self.ends.insert(id, End { commit, min_index, peers });
        }
        self.regions.insert(id, effect.is_some().then_some(region));
        match effect {
            Some(Effect::Births(births)) => {
                for birth in births {
                    self.states.insert((birth.region.id, birth.applied), birth.state());
                    self.regions.insert(birth.region.id, Some(birth));
                }
            }
            Some(Effect::TookOver(source)) => {
                self.merges += 1;
                self.regions.insert(source, None);
            }
            Some(Effect::Nothing) | None => {}
        }
    }
}

impl ModelRegion {
    fn state(&self) -> u64 {
        self.sum.wrapping_add(hash_descriptor(&self.region))
    }

    fn set(&mut self, cf: &str, key: &[u8], value: Option<Bytes>) {
        let place = (cf.to_owned(), key.to_vec());
        let old = match value {
            Some(value) => {
                self.sum = self.sum.wrapping_add(hash_pair(self.collects, cf, key, &value));
                self.data.insert(place, value)
            }
            None => self.data.remove(&place),
        };
        if let Some(old) = old {
            self.sum = self.sum.wrapping_sub(hash_pair(self.collects, cf, key, &old));
        }
    }

    /// Does what the entry says. `None`: it is not understood.
    fn execute(&mut self, entry: &Entry, others: &Regions) -> Option<Effect> {
        match entry.kind {
            EntryKind::Normal if entry.data.is_empty() => Some(Effect::Nothing),
            EntryKind::ConfChangeV2 => self.change(&entry.data).map(|()| Effect::Nothing),
            _ => self.command(&entry.data, others),
        }
    }

    fn command(&mut self, data: &[u8], others: &Regions) -> Option<Effect> {
        let command = raft_cmdpb::RaftCmdRequest::decode(data).ok()?;
        let header = command.header?;
        let epoch = proto::epoch_from_proto(&header.region_epoch?);
        let Some(admin) = command.admin_request else {
            let flashback = header.flags != 0;
            if epoch.version == self.region.epoch.version
                && self.merge.is_none()
                && flashback == self.region.flashback.is_some()
            {
                command.requests.into_iter().try_for_each(|request| self.write(request))?;
            }
            return Some(Effect::Nothing);
        };
        if admin.compact_log.is_some()
            || admin.compute_hash.is_some()
            || admin.verify_hash.is_some()
        {
            return Some(Effect::Nothing);
        }
        if admin.prepare_flashback.is_some() || admin.finish_flashback.is_some() {
            self.flashback(epoch, admin.prepare_flashback);
            return Some(Effect::Nothing);
        }
        let fits = epoch == self.region.epoch;
        if let Some(rollback) = admin.rollback_merge {
            let waits = self.merge.is_some_and(|merge| merge.commit == rollback.commit);
            if fits && waits {
                self.roll_back(others);
            }
            return Some(Effect::Nothing);
        }
        let fits = fits && self.merge.is_none() && self.region.flashback.is_none();
        if let Some(prepare) = admin.prepare_merge {
            let min_index = prepare.min_index;
            let (target, next) = (prepare.target?, self.region.prepare_merge());
            let target = proto::region_from_proto(&target);
            if fits && target.commit_merge(&next).is_some() {
                self.region = next;
                let target = (target.id, target.epoch);
                self.merge = Some(Merge { commit: self.applied, target, min_index });
            }
            return Some(Effect::Nothing);
        }
        if let Some(commit) = admin.commit_merge {
            return if fits { self.take_over(&commit, others) } else { Some(Effect::Nothing) };
        }
        let splits = admin.splits?;
        let cuts = splits.requests.into_iter().map(|request| Cut {
            key: request.split_key,
            region_id: RegionId(request.new_region_id),
            peer_ids: request.new_peer_ids.into_iter().map(PeerId).collect(),
        });
        let cuts: Vec<Cut> = cuts.collect();
        match fits.then(|| self.region.split(&cuts)).flatten() {
            Some((region, births)) => Some(Effect::Births(self.split(region, births))),
            None => Some(Effect::Nothing),
        }
    }

    fn flashback(&mut self, epoch: Epoch, begin: Option<raft_cmdpb::PrepareFlashbackRequest>) {
        if epoch.version == self.region.epoch.version && self.merge.is_none() {
            let flashback = begin.map(|begin| TimeStamp(begin.start_ts));
            self.region = Region { flashback, ..self.region.clone() };
        }
    }

    /// The merge is off. Whoever says so knows that the target cannot do it any more, from entries
    /// that are committed.
    fn roll_back(&mut self, others: &Regions) {
        let (id, Merge { target, .. }) = (self.region.id, self.merge.take().expect("it merges"));
        if let Some(Some(now)) = others.get(&target.0) {
            let (named, epoch) = (target.1, now.region.epoch);
            assert!(
                named.is_behind(&epoch),
                "a merge is off when it cannot be any more: region {id} into {} at {named}, which \
                 is at {epoch}",
                target.0
            );
        }
        self.region = self.region.rollback_merge();
    }

    fn take_over(
        &mut self,
        commit: &raft_cmdpb::CommitMergeRequest,
        others: &Regions,
    ) -> Option<Effect> {
        let id = RegionId(commit.source.as_ref()?.id);
        let source = others.get(&id)?.as_ref()?;
        let ours = (commit.commit, (self.region.id, self.region.epoch));
        let waits = source.merge.map(|merge| (merge.commit, merge.target));
        assert_eq!(waits, Some(ours), "what the log says: region {id} is not to be taken over");
        let Some(next) = self.region.commit_merge(&source.region) else {
            return Some(Effect::Nothing);
        };
        self.region = next;
        self.data.extend(source.data.iter().map(|(place, value)| (place.clone(), value.clone())));
        self.sum = self.sum.wrapping_add(source.sum);
        Some(Effect::TookOver(id))
    }

    fn write(&mut self, request: raft_cmdpb::Request) -> Option<()> {
        let name = |cf: String| if cf.is_empty() { "default".to_owned() } else { cf };
        if let Some(put) = request.put {
            self.set(&name(put.cf), &put.key, Some(put.value));
        } else if let Some(delete) = request.delete {
            self.set(&name(delete.cf), &delete.key, None);
        } else {
            let range = request.delete_range?;
            let cf = name(range.cf);
            let range = base::KeyRange::new(range.start_key, range.end_key);
            let gone = self.data.keys().filter(|(c, key)| *c == cf && range.contains(key));
            let gone: Vec<_> = gone.cloned().collect();
            gone.iter().for_each(|(cf, key)| self.set(cf, key, None));
        }
        Some(())
    }

    fn split(&mut self, region: Region, births: Vec<Region>) -> Vec<Self> {
        let (data, collects) = (std::mem::take(&mut self.data), self.collects);
        let part = |region: Region, applied| {
            let inside = data.iter().filter(|((_, key), _)| region.range.contains(key));
            let data: Data = inside.map(|(place, value)| (place.clone(), value.clone())).collect();
            let sums = data.iter().map(|((cf, key), value)| hash_pair(collects, cf, key, value));
            let sum = sums.fold(0, u64::wrapping_add);
            Self { region, applied, data, sum, collects, merge: None }
        };
        let start = base::limits::RAFT_INIT_LOG_INDEX;
        let born = births.into_iter().map(|birth| part(birth, start)).collect();
        *self = part(region, self.applied);
        born
    }

    fn change(&mut self, data: &[u8]) -> Option<()> {
        if data.is_empty() {
            if let Some(next) = self.region.leave_joint().filter(|_| self.merge.is_none()) {
                self.region = next;
            }
            return Some(());
        }
        let change = eraftpb::ConfChangeV2::decode(data).ok()?;
        let command = raft_cmdpb::RaftCmdRequest::decode(change.context).ok()?;
        let epoch = proto::epoch_from_proto(&command.header?.region_epoch?);
        let requests = command.admin_request?.change_peer_v2?.changes;
        let changes = requests.iter().map(|request| {
            let peer: Peer = proto::peer_from_proto(request.peer.as_ref()?);
            Some(match request.change_type() {
                eraftpb::ConfChangeType::AddNode => PeerChange::AddVoter(peer),
                eraftpb::ConfChangeType::AddLearnerNode => PeerChange::AddLearner(peer),
                eraftpb::ConfChangeType::RemoveNode => PeerChange::Remove(peer.id),
            })
        });
        let changes: Vec<PeerChange> = changes.collect::<Option<_>>()?;
        if epoch == self.region.epoch
            && self.merge.is_none()
            && let Some(next) = self.region.change_peers(&changes)
        {
            self.region = next;
        }
        Some(())
    }
}
