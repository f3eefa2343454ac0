//! What the documentation of `tikv-client` shows of transactions.

use interop_suite::{
    TXN_API_VERSIONS, again, commit_pairs, is_conflict, is_key_error, locks, now, open_txn, plain,
    plain_keys, start, until_no_locks,
};
use tikv_client::transaction::Mutation;
use tikv_client::{
    Error, IntoOwnedRange, Key, TimestampExt, Transaction, TransactionClient, TransactionOptions,
};

fn word(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

fn words(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| word(text)).collect()
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    pairs.iter().map(|(k, v)| (word(k), word(v))).collect()
}

/// All ways to commit that this client knows.
fn ways() -> Vec<TransactionOptions> {
    [TransactionOptions::new_optimistic(), TransactionOptions::new_pessimistic()]
        .into_iter()
        .flat_map(|kind| {
            [
                kind.clone(),
                kind.clone().use_async_commit(),
                kind.clone().try_one_pc(),
                kind.use_async_commit().try_one_pc(),
            ]
        })
        .collect()
}

async fn begin(client: &TransactionClient, options: &TransactionOptions) -> Transaction {
    client.begin_with_options(options.clone()).await.unwrap()
}

#[tokio::test]
async fn a_transaction_is_seen_from_its_commit_on_and_not_before() {
    for api in TXN_API_VERSIONS {
        let server = start(api);
        let client = open_txn(&server, api).await;
        for (round, options) in ways().iter().enumerate() {
            let key = |name: &str| format!("{round}/{name}").into_bytes();
            let mut txn = begin(&client, options).await;
            txn.put(key("a"), "1".to_owned()).await.unwrap();
            txn.put(key("b"), "2".to_owned()).await.unwrap();
            txn.delete(key("c")).await.unwrap();
            assert_eq!(txn.get(key("a")).await.unwrap(), Some(word("1")), "sees its own writes");
            assert_eq!(now(&client).await.get(key("b")).await.unwrap(), None, "{options:?}");
            let committed = txn.commit().await.unwrap().expect("something was written");
            assert!(committed.version() > txn.start_timestamp().version());
            let at = |version| {
                let timestamp = tikv_client::Timestamp::from_version(version);
                client.snapshot(timestamp, TransactionOptions::new_optimistic())
            };
            let mut after = at(committed.version());
            assert_eq!(after.get(key("a")).await.unwrap(), Some(word("1")), "{options:?}");
            assert_eq!(after.get(key("b")).await.unwrap(), Some(word("2")), "{options:?}");
            let mut before = at(committed.version() - 1);
            assert_eq!(before.get(key("a")).await.unwrap(), None, "{options:?}");
            assert!(matches!(txn.get(key("a")).await, Err(Error::OperationAfterCommitError)));
        }
    }
}

#[tokio::test]
async fn gets_and_batches() {
    for api in TXN_API_VERSIONS {
        let server = start(api);
        let client = open_txn(&server, api).await;
        commit_pairs(&client, owned(&[("k1", "v1"), ("k2", "v2"), ("k3", "v3")])).await;
        let mut txn = client.begin_optimistic().await.unwrap();
        txn.put(word("k2"), word("mine")).await.unwrap();
        txn.delete(word("k3")).await.unwrap();
        let asked = words(&["k3", "k2", "k1", "none"]);
        let mut found = plain(txn.batch_get(asked.clone()).await.unwrap().collect());
        found.sort();
        assert_eq!(found, owned(&[("k1", "v1"), ("k2", "mine")]));
        assert!(txn.key_exists(word("k1")).await.unwrap());
        assert!(!txn.key_exists(word("k3")).await.unwrap());
        assert!(!txn.key_exists(word("none")).await.unwrap());
        let mut found = plain(now(&client).await.batch_get(asked).await.unwrap().collect());
        found.sort();
        assert_eq!(found, owned(&[("k1", "v1"), ("k2", "v2"), ("k3", "v3")]));
        txn.rollback().await.unwrap();
        assert_eq!(now(&client).await.get(word("k2")).await.unwrap(), Some(word("v2")));
        let mut empty = client.begin_optimistic().await.unwrap();
        assert!(empty.commit().await.unwrap().is_none(), "nothing was written");
    }
}

#[tokio::test]
async fn batch_mutations_and_empty_values() {
    for api in TXN_API_VERSIONS {
        let server = start(api);
        let client = open_txn(&server, api).await;
        commit_pairs(&client, owned(&[("k0", "v0")])).await;
        for pessimistic in [false, true] {
            let mut txn = match pessimistic {
                false => client.begin_optimistic().await.unwrap(),
                true => client.begin_pessimistic().await.unwrap(),
            };
            let mutations = [
                Mutation::Delete(Key::from(word("k0"))),
                Mutation::Put(Key::from(word("k1")), word("v1")),
                Mutation::Put(Key::from(word("k2")), Vec::new()),
            ];
            again(async || txn.batch_mutate(mutations.clone()).await).await.unwrap();
            txn.commit().await.unwrap();
            let found = now(&client).await.scan(.., 10).await.unwrap().collect();
            assert_eq!(plain(found), owned(&[("k1", "v1"), ("k2", "")]));
        }
    }
}

#[tokio::test]
async fn scans_see_own_writes() {
    for api in TXN_API_VERSIONS {
        let server = start(api);
        let client = open_txn(&server, api).await;
        commit_pairs(&client, owned(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")])).await;
        let mut txn = client.begin_optimistic().await.unwrap();
        txn.put(word("bb"), word("mine")).await.unwrap();
        txn.delete(word("c")).await.unwrap();
        let found = txn.scan(("b".."d").into_owned(), 10).await.unwrap();
        assert_eq!(plain(found.collect()), owned(&[("b", "2"), ("bb", "mine")]));
        let found = txn.scan_keys(("a"..).into_owned(), 3).await.unwrap();
        assert_eq!(plain_keys(found.collect()), words(&["a", "b", "bb"]));
        let found = txn.scan_reverse(("a"..="d").into_owned(), 3).await.unwrap();
        assert_eq!(plain(found.collect()), owned(&[("d", "4"), ("bb", "mine"), ("b", "2")]));
        let found = txn.scan_keys_reverse(("a".."d").into_owned(), 2).await.unwrap();
        assert_eq!(plain_keys(found.collect()), words(&["bb", "b"]));
        assert_eq!(txn.scan(("x"..).into_owned(), 10).await.unwrap().count(), 0);
        txn.commit().await.unwrap();
        let found = now(&client).await.scan_keys_reverse(.., 10).await.unwrap();
        assert_eq!(plain_keys(found.collect()), words(&["d", "bb", "b", "a"]));
    }
}

#[tokio::test]
async fn snapshots_of_the_past_stay_as_they_were() {
    for api in TXN_API_VERSIONS {
        let server = start(api);
        let client = open_txn(&server, api).await;
        let mut snapshots = Vec::new();
        for round in 0..20 {
            snapshots.push((round, now(&client).await));
            let mut txn = client.begin_optimistic().await.unwrap();
            txn.put(word("always"), round.to_string()).await.unwrap();
            match round % 3 {
                0 => txn.put(word("now and then"), round.to_string()).await.unwrap(),
                _ => txn.delete(word("now and then")).await.unwrap(),
            }
            txn.commit().await.unwrap();
        }
        for (round, mut then) in snapshots {
            let mut wanted = Vec::new();
            if round > 0 {
                let last: i32 = round - 1;
                wanted.push((word("always"), last.to_string().into_bytes()));
                if last % 3 == 0 {
                    wanted.push((word("now and then"), last.to_string().into_bytes()));
                }
            }
            assert_eq!(plain(then.scan(.., 10).await.unwrap().collect()), wanted, "{round}");
        }
    }
}

#[tokio::test]
async fn of_two_writers_of_one_key_the_second_conflicts() {
    for api in TXN_API_VERSIONS {
        let server = start(api);
        let client = open_txn(&server, api).await;
        for options in ways().iter().filter(|options| !options.is_pessimistic()) {
            let (mut first, mut second) =
                (begin(&client, options).await, begin(&client, options).await);
            first.put(word("k"), word("first")).await.unwrap();
            // It has begun: what reads here is not overtaken by a commit that asks for no
            // timestamp.
            assert_eq!(second.get(word("other")).await.unwrap(), None);
            second.put(word("k"), word("second")).await.unwrap();
            second.put(word("other"), word("second")).await.unwrap();
            first.commit().await.unwrap();
            let error = second.commit().await.expect_err("a conflict");
            assert!(is_conflict(&error), "{error:?}");
            second.rollback().await.unwrap();
            assert_eq!(now(&client).await.get(word("k")).await.unwrap(), Some(word("first")));
            assert_eq!(now(&client).await.get(word("other")).await.unwrap(), None);
        }
        until_no_locks(&client).await;
    }
}

#[tokio::test]
async fn locked_keys_prevent_write_skew() {
    for api in TXN_API_VERSIONS {
        let server = start(api);
        let client = open_txn(&server, api).await;
        commit_pairs(&client, owned(&[("x", "1"), ("y", "1")])).await;
        let mut first = client.begin_optimistic().await.unwrap();
        let mut second = client.begin_optimistic().await.unwrap();
        first.lock_keys(words(&["y"])).await.unwrap();
        first.put(word("x"), word("0")).await.unwrap();
        assert_eq!(second.get_for_update(word("x")).await.unwrap(), Some(word("1")));
        second.put(word("y"), word("0")).await.unwrap();
        first.commit().await.unwrap();
        let error = second.commit().await.expect_err("x was read, and has changed");
        assert!(is_conflict(&error), "{error:?}");
        second.rollback().await.unwrap();
        // A lock leaves the value as it is.
        assert_eq!(now(&client).await.get(word("y")).await.unwrap(), Some(word("1")));
    }
}

#[tokio::test]
async fn an_insert_needs_a_new_key() {
    for api in TXN_API_VERSIONS {
        let server = start(api);
        let client = open_txn(&server, api).await;
        commit_pairs(&client, owned(&[("there", "1"), ("gone", "1")])).await;
        let exists = |error: &Error| is_key_error(error, |error| error.already_exist.is_some());
        for options in ways() {
            let mut txn = begin(&client, &options).await;
            again(async || txn.delete(word("gone")).await).await.unwrap();
            txn.commit().await.unwrap();
            let mut txn = begin(&client, &options).await;
            again(async || txn.insert(word("gone"), word("again")).await).await.unwrap();
            let twice = txn.insert(word("gone"), word("twice")).await;
            assert!(matches!(twice, Err(Error::DuplicateKeyInsertion)), "{twice:?}");
            txn.commit().await.unwrap();
            let mut txn = begin(&client, &options).await;
            let inserted = again(async || txn.insert(word("there"), word("2")).await).await;
            let error = match options.is_pessimistic() {
                true => inserted.expect_err("it exists"),
                false => txn.commit().await.expect_err("it exists"),
            };
            assert!(exists(&error), "{options:?}: {error:?}");
            txn.rollback().await.unwrap();
        }
        let found = now(&client).await.scan(.., 10).await.unwrap().collect();
        assert_eq!(plain(found), owned(&[("gone", "again"), ("there", "1")]));
        until_no_locks(&client).await;
    }
}

#[tokio::test]
async fn a_read_for_update_is_of_the_newest_value_and_locks_it() {
    for api in TXN_API_VERSIONS {
        let server = start(api);
        let client = open_txn(&server, api).await;
        commit_pairs(&client, owned(&[("a", "1"), ("b", "1")])).await;
        let mut txn = client.begin_pessimistic().await.unwrap();
        assert_eq!(txn.get(word("b")).await.unwrap(), Some(word("1")));
        commit_pairs(&client, owned(&[("a", "2"), ("c", "2")])).await;
        assert_eq!(txn.get_for_update(word("a")).await.unwrap(), Some(word("2")));
        let asked = words(&["a", "b", "c", "none"]);
        let mut found = plain(txn.batch_get_for_update(asked).await.unwrap());
        found.sort();
        assert_eq!(found, owned(&[("a", "2"), ("b", "1"), ("c", "2")]));
        assert_eq!(locks(&client).await.len(), 4);
        // Readers are not held up by such a lock, other writers are.
        assert_eq!(now(&client).await.get(word("a")).await.unwrap(), Some(word("2")));
        let options = TransactionOptions::new_optimistic().no_resolve_locks();
        let mut other = begin(&client, &options).await;
        other.put(word("a"), word("other")).await.unwrap();
        let error = other.commit().await.expect_err("a is locked");
        assert!(matches!(error, Error::ResolveLockError(_)), "{error:?}");
        other.rollback().await.unwrap();
        txn.put(word("a"), word("3")).await.unwrap();
        txn.commit().await.unwrap();
        assert_eq!(now(&client).await.get(word("a")).await.unwrap(), Some(word("3")));
        assert_eq!(now(&client).await.get(word("b")).await.unwrap(), Some(word("1")));
    }
}

#[tokio::test]
async fn a_rollback_leaves_nothing() {
    for api in TXN_API_VERSIONS {
        let server = start(api);
        let client = open_txn(&server, api).await;
        commit_pairs(&client, owned(&[("a", "1")])).await;
        for options in ways() {
            let mut txn = begin(&client, &options).await;
            txn.put(word("a"), word("2")).await.unwrap();
            txn.put(word("b"), word("2")).await.unwrap();
            txn.lock_keys(words(&["c"])).await.unwrap();
            txn.rollback().await.unwrap();
            let after = txn.put(word("a"), word("3")).await;
            assert!(matches!(after, Err(Error::OperationAfterCommitError)), "{after:?}");
            let found = now(&client).await.scan(.., 10).await.unwrap().collect();
            assert_eq!(plain(found), owned(&[("a", "1")]));
            until_no_locks(&client).await;
        }
    }
}
