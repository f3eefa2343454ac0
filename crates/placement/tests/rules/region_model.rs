//! The region map against a model that does everything by looking at all regions.

use base::{KeyRange, Prng, RegionId};
use bytes::Bytes;
use proto::metapb;

use crate::host::{Host, heartbeat, peer};

#[derive(Clone)]
struct Known {
    id: u64,
    range: KeyRange,
    version: u64,
    conf_ver: u64,
    term: u64,
}

#[derive(Default)]
struct Model {
    regions: Vec<Known>,
}

impl Model {
    fn report(&mut self, new: Known) -> bool {
        for old in &self.regions {
            let behind = new.version < old.version;
            if old.id == new.id {
                let older_term = new.term > 0 && new.term < old.term;
                if behind || new.conf_ver < old.conf_ver || older_term {
                    return false;
                }
            } else if behind && old.range.overlaps(&new.range) {
                return false;
            }
        }
        self.regions.retain_mut(|old| {
            if old.id == new.id {
                return false;
            }
            if !old.range.overlaps(&new.range) {
                return true;
            }
            // What is left of an older one, to the right or else to the left.
            let right = KeyRange::new(new.range.end.clone(), old.range.end.clone());
            let left = KeyRange::new(old.range.start.clone(), new.range.start.clone());
            let has_right = !new.range.end.is_empty() && !right.is_empty();
            let has_left = !new.range.start.is_empty() && !left.is_empty();
            old.range = if has_right { right } else { left };
            old.version < new.version && (has_right || has_left)
        });
        self.regions.push(new);
        self.regions.sort_by(|a, b| a.range.start.cmp(&b.range.start));
        true
    }

    fn find(&self, key: &[u8]) -> Option<u64> {
        self.regions.iter().find(|region| region.range.contains(key)).map(|region| region.id)
    }

    fn find_before(&self, key: &[u8]) -> Option<u64> {
        let at = self.regions.iter().position(|region| region.range.contains(key))?;
        let before = &self.regions[at.checked_sub(1)?];
        (before.range.end == self.regions[at].range.start).then_some(before.id)
    }

    fn overlapping(&self, range: &KeyRange) -> Vec<u64> {
        let all = self.regions.iter().filter(|_| !range.is_empty());
        all.filter(|region| region.range.overlaps(range)).map(|region| region.id).collect()
    }
}

fn random_key(prng: &mut Prng) -> Bytes {
    let len = prng.below(3) as usize;
    (0..len).map(|_| b'a' + prng.below(4) as u8).collect::<Vec<u8>>().into()
}

fn random_region(prng: &mut Prng) -> Known {
    loop {
        let range = KeyRange::new(random_key(prng), random_key(prng));
        if !range.is_empty() {
            return Known {
                id: 10 + 10 * prng.below(8),
                range,
                version: 1 + prng.below(6),
                conf_ver: 1 + prng.below(3),
                term: prng.below(4),
            };
        }
    }
}

#[test]
fn the_map_agrees_with_the_model() {
    let (mut taken, mut refused) = (0, 0);
    for seed in 0..300 {
        let mut prng = Prng::new(seed);
        let mut host = Host::bootstrapped();
        let mut model = Model::default();
        model.report(Known { id: 2, range: KeyRange::all(), version: 1, conf_ver: 1, term: 6 });
        for _ in 0..60 {
            let new = random_region(&mut prng);
            let mut request = heartbeat(metapb::Region {
                id: new.id,
                start_key: new.range.start.clone(),
                end_key: new.range.end.clone(),
                region_epoch: Some(metapb::RegionEpoch {
                    conf_ver: new.conf_ver,
                    version: new.version,
                }),
                peers: vec![peer(new.id + 1, 1)],
                ..Default::default()
            });
            request.term = new.term;
            let was_taken = host.placement.region_heartbeat(&request).is_ok();
            assert_eq!(was_taken, model.report(new), "seed {seed}");
            if was_taken {
                taken += 1
            } else {
                refused += 1
            }
            compare(&host, &model, &mut prng, seed);
        }
    }
    assert!(taken > 1_000 && refused > 1_000, "{taken} taken, {refused} refused");
}

fn compare(host: &Host, model: &Model, prng: &mut Prng, seed: u64) {
    let map = host.placement.regions();
    let ids: Vec<u64> = model.regions.iter().map(|region| region.id).collect();
    assert_eq!(host.map(), ids, "seed {seed}");
    assert!(ids.iter().all(|id| map.get(RegionId(*id)).is_some()));
    let key = random_key(prng);
    assert_eq!(map.find(&key).map(|r| r.meta.id), model.find(&key), "seed {seed}");
    assert_eq!(map.find_before(&key).map(|r| r.meta.id), model.find_before(&key), "seed {seed}");
    let range = KeyRange::new(key, random_key(prng));
    let found: Vec<u64> = map.overlapping(&range).map(|region| region.meta.id).collect();
    assert_eq!(found, model.overlapping(&range), "seed {seed} {range:?}");
}
