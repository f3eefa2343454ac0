//! What a raft snapshot says about its files: `raft_serverpb.RaftSnapshotData`, and the file in
//! which a receiver keeps it.

use base::{Region, RegionId};
use bytes::Bytes;
use prost::Message;
use proto::raft_serverpb;
use storage::engine::Cf;
use storage::keys;

use super::{SnapshotError, SnapshotKey};
use crate::Absorbed;

/// The layout of the files: one table for each family.
const VERSION: u64 = 2;

/// Bytes behind the record in the file that keeps it.
const CHECKSUM_BYTES: usize = 4;

/// The `data` of a [`raft::Snapshot`]: whose it is, and what its files must be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotData {
    /// The region as of the last entry that is covered.
    pub region: Region,
    /// The regions that it absorbed by then.
    pub absorbed: Absorbed,
    /// Up to where the store that made the files may have collected garbage: see
    /// [`storage::engine::GarbageRule::collected`].
    pub collected: Bytes,
    /// The files, in the order of families; none for a family without keys.
    pub files: Vec<SnapshotFile>,
}

/// What one file must be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// The family whose keys it holds.
    pub cf: Cf,
    /// Its size in bytes.
    pub size: u64,
    /// CRC-32 of all its bytes.
    pub checksum: u32,
}

impl SnapshotData {
    /// Bytes of all files.
    pub fn byte_size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// As the `data` of a raft snapshot.
    pub fn encode(&self) -> Bytes {
        let in_order = self.files.is_sorted_by(|file, next| file.cf < next.cf);
        assert!(in_order, "who decodes it insists on the order of families");
        let file = |file: &SnapshotFile| raft_serverpb::SnapshotCfFile {
            cf: file.cf.name().to_owned(),
            size: file.size,
            checksum: file.checksum,
        };
        let meta = raft_serverpb::SnapshotMeta {
            cf_files: self.files.iter().map(file).collect(),
            ..Default::default()
        };
        // Rows of the store that do not lie in its files.
        let collected = raft_serverpb::KeyValue {
            key: keys::COLLECTED_BELOW.to_vec().into(),
            value: self.collected.clone(),
        };
        let rows = [collected].into_iter().filter(|row| !row.value.is_empty());
        raft_serverpb::RaftSnapshotData {
            data: rows.collect(),
            region: Some(proto::region_to_proto(&self.region)),
            file_size: self.byte_size(),
            version: VERSION,
            meta: Some(meta),
            merged_records: self.absorbed.to_proto(),
            ..Default::default()
        }
        .encode_to_vec()
        .into()
    }

    /// Takes the `data` of a raft snapshot of `region` apart. Files of no bytes are left out.
    pub fn decode(region: RegionId, data: &[u8]) -> Result<Self, SnapshotError> {
        let damaged = |cause: String| {
            let what = format!("the data of a snapshot of region {region}");
            SnapshotError::Data { what, cause }
        };
        let data = raft_serverpb::RaftSnapshotData::decode(data)
            .map_err(|error| damaged(error.to_string()))?;
        if data.version != VERSION {
            return Err(damaged(format!("its version is {}, not {VERSION}", data.version)));
        }
        let proto = data.region.ok_or_else(|| damaged("it has no region".to_owned()))?;
        if proto.id != region.0 {
            return Err(damaged(format!("it describes region {}", proto.id)));
        }
        let files = data.meta.unwrap_or_default().cf_files;
        let files = decode_files(&files, data.file_size).map_err(damaged)?;
        let absorbed = Absorbed::from_proto(&data.merged_records);
        let mut rows = data.data.into_iter();
        let collected = rows.find(|row| *row.key == keys::COLLECTED_BELOW);
        let collected = collected.map(|row| row.value).unwrap_or_default();
        Ok(Self { region: proto::region_from_proto(&proto), absorbed, collected, files })
    }

    /// As the contents of the file that says that a received snapshot is complete.
    pub(super) fn encode_file(&self) -> Vec<u8> {
        let mut bytes = self.encode().to_vec();
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// What [`encode_file`](Self::encode_file) wrote for `key`.
    pub(super) fn decode_file(key: SnapshotKey, bytes: &[u8]) -> Result<Self, SnapshotError> {
        let good = bytes
            .split_last_chunk::<CHECKSUM_BYTES>()
            .filter(|(record, checksum)| crc32fast::hash(record) == u32::from_le_bytes(**checksum));
        let Some((record, _)) = good else {
            let what = format!("the list of files of the snapshot of {key}");
            return Err(SnapshotError::Data { what, cause: "its checksum is wrong".to_owned() });
        };
        Self::decode(key.region, record)
    }
}

fn decode_files(
    protos: &[raft_serverpb::SnapshotCfFile],
    total: u64,
) -> Result<Vec<SnapshotFile>, String> {
    let mut files: Vec<SnapshotFile> = Vec::with_capacity(Cf::DATA.len());
    let mut sum = 0u64;
    for proto in protos {
        let cf = Cf::from_name(&proto.cf)
            .filter(|cf| Cf::DATA.contains(cf))
            .ok_or_else(|| format!("it has a file of family {:?}", proto.cf))?;
        if files.last().is_some_and(|last| last.cf >= cf) {
            return Err(format!("the file of family {} is out of order", cf.name()));
        }
        sum = sum.checked_add(proto.size).ok_or("its sizes are beyond all bounds")?;
        if proto.size > 0 {
            files.push(SnapshotFile { cf, size: proto.size, checksum: proto.checksum });
        }
    }
    if sum != total {
        return Err(format!("its files have {sum} bytes, but {total} are promised"));
    }
    Ok(files)
}
