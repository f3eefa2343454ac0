//! Random commands against the plainest possible description of what they mean.

use std::collections::BTreeMap;

use base::Prng;

use super::*;

/// User key -> (value, expiry in seconds or 0).
type Model = BTreeMap<Bytes, (Bytes, u64)>;

/// One of 40 keys, so that commands meet.
fn draw_key(prng: &mut Prng, store: &Store) -> Bytes {
    const LETTERS: [&str; 4] = ["a", "b", "\0", "\u{7f}"];
    let name: String = (0..prng.below(3)).map(|_| LETTERS[prng.below(4) as usize]).collect();
    store.key(&name)
}

fn write(prng: &mut Prng, store: &Store, model: &mut Model) {
    let key = draw_key(prng, store);
    let writer = store.writer();
    match prng.below(8) {
        0 => {
            let end = draw_key(prng, store);
            store.apply(writer.delete_range(Cf::Default, &key, &end).expect("legal"));
            let unbounded = end.is_empty();
            model.retain(|k, _| *k < key || !(unbounded || *k < end));
        }
        1 | 2 => {
            store.apply([writer.delete(Cf::Default, &key).expect("legal")]);
            model.remove(&key);
        }
        _ => {
            let ttl_s = if store.api.has_ttl() { prng.below(6) } else { 0 };
            let value = Bytes::from(vec![b'v'; prng.below(3) as usize]);
            let put = writer.put(Cf::Default, &key, value.clone(), ttl_s).expect("legal");
            store.apply([put]);
            let expiry_s = if ttl_s == 0 { 0 } else { store.now_s + ttl_s };
            model.insert(key, (value, expiry_s));
        }
    }
}

fn check_scan(prng: &mut Prng, store: &Store, model: &Model) {
    let (start, end) = (draw_key(prng, store), draw_key(prng, store));
    let reverse = prng.one_in(2);
    let limit = prng.below(12) as usize;
    let live = model.iter().filter(|(_, (_, expiry))| *expiry == 0 || *expiry > store.now_s);
    let pairs = live.map(|(key, (value, _))| Pair { key: key.clone(), value: value.clone() });
    let above = |key: &Bytes, bound: &Bytes| !bound.is_empty() && key >= bound;
    let expected: Vec<Pair> = if reverse {
        let inside = pairs.filter(|pair| pair.key >= end && !above(&pair.key, &start));
        inside.rev().take(limit).collect()
    } else {
        let inside = pairs.filter(|pair| pair.key >= start && !above(&pair.key, &end));
        inside.take(limit).collect()
    };
    let scan = Scan { cf: Cf::Default, start, end, limit, key_only: false, reverse };
    assert_eq!(store.read(|view| view.scan(&scan)).expect("legal"), expected, "{scan:?}");
}

#[test]
fn random_commands_agree_with_the_model() {
    for api in MODES {
        for seed in 0..20 {
            let mut prng = Prng::new(seed);
            let mut store = Store::new(api);
            let mut model = Model::new();
            for _ in 0..300 {
                write(&mut prng, &store, &mut model);
                store.now_s += u64::from(prng.one_in(3));
                check_scan(&mut prng, &store, &model);
                let key = draw_key(&mut prng, &store);
                let found = model.get(&key).filter(|(_, at)| *at == 0 || *at > store.now_s);
                let got = store.read(|view| view.get(Cf::Default, &key)).expect("legal");
                assert_eq!(got, found.map(|(value, _)| value.clone()));
                let ttl = store.read(|view| view.key_ttl(Cf::Default, &key)).expect("legal");
                assert_eq!(ttl, found.map(|(_, at)| at.saturating_sub(store.now_s)));
            }
        }
    }
}
