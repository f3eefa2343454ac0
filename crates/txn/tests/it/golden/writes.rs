//! Verbs that write.

use std::sync::Arc;

use base::{KeyRange, TimeStamp};
use bytes::Bytes;
use pontoon_txn as txn;
use storage::engine::{Cf, Engine, IterOptions, MemoryEngine, Op};
use storage::keys;
use txn::actions::{
    BatchRollback, CheckSecondaryLocks, CheckTxnStatus, Cleanup, Commit, DeleteRange, Flashback,
    Flush, HeartBeat, LockOutcome, LockRefused, PessimisticLock, PessimisticRollback,
    PrepareFlashback, Prewrite, PrewriteReply, ResolveLock, SecondaryStatus, TxnStatus, WhatToRead,
};
use txn::gc::{GcRule, GcState, SafePoints, Sweep};
use txn::mvcc::{Key, split_versioned};

use super::bench::Bench;
use super::parse::{Args, Fallible, key};
use super::show;

impl Bench {
    pub fn write_verb(&mut self, name: &str, args: &mut Args<'_>) -> Fallible<String> {
        match name {
            "prewrite" => self.prewrite(args),
            "commit" => {
                let (start_ts, commit_ts) = (args.ts("start")?, args.ts("at")?);
                let commit = Commit { keys: args.keys(), start_ts, commit_ts };
                let reply = |at: &TimeStamp| format!("committed at {}", show::ts(*at));
                Ok(self.act(commit.keys.clone(), None, reply, |reader, _| commit.run(reader)))
            }
            "rollback" => {
                let start_ts = args.ts("start")?;
                let command = BatchRollback { keys: args.keys(), start_ts };
                let keys = command.keys.clone();
                Ok(self.act(keys, None, |_| "ok".into(), |reader, _| command.run(reader)))
            }
            "cleanup" => {
                let (start_ts, current_ts) = (args.ts("start")?, args.ts("now")?);
                let command = Cleanup { key: args.key()?, start_ts, current_ts };
                let reply = |at: &TimeStamp| match at.0 {
                    0 => "rolled back".to_owned(),
                    _ => format!("committed at {}", show::ts(*at)),
                };
                let keys = vec![command.key.clone()];
                Ok(self.act(keys, None, reply, |reader, _| command.run(reader)))
            }
            "heart-beat" => {
                let (start_ts, min_commit_ts) = (args.ts("start")?, args.ts("min_commit")?);
                let advise_ttl_ms = args.number("ttl")?;
                let primary = args.key()?;
                let beat = HeartBeat { primary, start_ts, advise_ttl_ms, min_commit_ts };
                let keys = vec![beat.primary.clone()];
                Ok(self.act(keys, None, |ttl| format!("ttl {ttl}"), |reader, _| beat.run(reader)))
            }
            "lock" => self.lock(args),
            "unlock" => self.unlock(args),
            "status" => self.status(args),
            "secondaries" => self.secondaries(args),
            "resolve" => self.resolve(args),
            "flush" => self.flush(args),
            "gc" => self.gc(args),
            "delete-range" => self.delete_range(args),
            "flashback-prepare" => self.prepare_flashback(args),
            "flashback" => self.flashback(args),
            other => Err(format!("no verb {other}").into()),
        }
    }

    fn prewrite(&mut self, args: &mut Args<'_>) -> Fallible<String> {
        let split = |list: &str| -> Vec<Bytes> {
            let names = list.split(',').filter(|name| !name.is_empty());
            names.map(|name| Bytes::copy_from_slice(name.as_bytes())).collect()
        };
        let mut prewrite = Prewrite {
            primary: args.bytes("primary"),
            start_ts: args.ts("start")?,
            ttl_ms: args.number("ttl")?,
            skip_constraint_check: args.flag("skip"),
            txn_size: args.number("size")?,
            for_update_ts: args.ts("fut")?,
            min_commit_ts: args.ts("min_commit")?,
            secondaries: args.text("async").map(split),
            try_one_pc: args.flag("one_pc"),
            max_commit_ts: args.ts("max_commit")?,
            assertion_level: args.assertion_level()?,
            is_retry: args.flag("retry"),
            source: args.number("source")?,
            keys: Vec::new(),
        };
        prewrite.keys = args.mutations()?;
        let reply = |reply: &PrewriteReply| {
            if !reply.errors.is_empty() {
                let errors: Vec<_> = reply.errors.iter().map(show::key_error).collect();
                return errors.join("\n");
            }
            match (reply.min_commit_ts.0, reply.one_pc_commit_ts.0) {
                (0, 0) => "ok".to_owned(),
                (_, 0) => format!("ok, commits at {} or later", show::ts(reply.min_commit_ts)),
                (0, _) => format!("ok, committed at {}", show::ts(reply.one_pc_commit_ts)),
                _ => unreachable!("one of the two at most"),
            }
        };
        let keys = prewrite.latch_keys().cloned().collect();
        Ok(self.act(keys, prewrite.reads_at(), reply, |reader, concurrency| {
            Ok(prewrite.plan(reader)?.publish(concurrency))
        }))
    }

    fn lock(&mut self, args: &mut Args<'_>) -> Fallible<String> {
        let mut lock = PessimisticLock {
            keys: Vec::new(),
            primary: args.bytes("primary"),
            start_ts: args.ts("start")?,
            ttl_ms: args.number("ttl")?,
            for_update_ts: args.ts("fut")?,
            min_commit_ts: args.ts("min_commit")?,
            read: match args.text("read") {
                None => WhatToRead::Nothing,
                Some("existence") => WhatToRead::Existence,
                Some("values") => WhatToRead::Values,
                Some(other) => return Err(format!("no such thing to read: {other}").into()),
            },
            only_if_exists: args.flag("only_if_exists"),
            allow_conflict: args.flag("force"),
        };
        while let Some(name) = args.next() {
            let absent = name.ends_with("@absent");
            lock.keys.push((key(name.trim_end_matches("@absent")), absent));
        }
        let keys: Vec<Key> = lock.latch_keys().cloned().collect();
        let reads = lock.read;
        let reply = |outcome: &LockOutcome| match outcome {
            LockOutcome::Refused(LockRefused::Held(info)) => {
                format!("held: {}", show::lock_info(info))
            }
            LockOutcome::Refused(LockRefused::Error(error)) => show::key_error(error),
            LockOutcome::Granted(results) => {
                let mut out = "locked".to_owned();
                for result in results {
                    out += &match (&result.value, reads) {
                        (Some(value), _) => format!(" {}", show::text(value)),
                        (None, WhatToRead::Nothing) => String::new(),
                        (None, _) => format!(" exists={}", result.exists),
                    };
                    if let Some(at) = result.conflict_ts {
                        out += &format!(" in spite of {}", show::ts(at));
                    }
                }
                out
            }
        };
        Ok(self.act(keys, lock.reads_at(), reply, |reader, _| lock.run(reader)))
    }

    fn unlock(&mut self, args: &mut Args<'_>) -> Fallible<String> {
        let (start_ts, for_update_ts) = (args.ts("start")?, args.ts("fut")?);
        let mut command = PessimisticRollback { keys: args.keys(), start_ts, for_update_ts };
        if command.keys.is_empty() {
            let found = self.node.read(|reader| command.find(reader, &KeyRange::all(), 0))?;
            command.keys = found.locks.into_iter().map(|(key, _)| key).collect();
        }
        let keys = command.keys.clone();
        Ok(self.act(keys, None, |_| "ok".into(), |reader, _| command.run(reader)))
    }

    fn status(&mut self, args: &mut Args<'_>) -> Fallible<String> {
        let command = CheckTxnStatus {
            lock_ts: args.ts("start")?,
            caller_start_ts: args.ts("caller")?,
            current_ts: args.ts("now")?,
            rollback_if_not_exist: args.flag("rollback"),
            force_sync_commit: args.flag("force_sync"),
            resolving_pessimistic_lock: args.flag("resolving_pessimistic"),
            verify_is_primary: args.flag("verify"),
            primary: args.key()?,
        };
        let reply = |(status, action): &(TxnStatus, txn::actions::StatusAction)| {
            let status = match status {
                TxnStatus::Locked(info) => {
                    assert!(info.lock.ttl_ms > 0, "clients take 0 for rolled back");
                    format!("locked: {}", show::lock_info(info))
                }
                TxnStatus::Committed(at) => format!("committed at {}", show::ts(*at)),
                TxnStatus::RolledBack => "rolled back".to_owned(),
            };
            let action = txn::wire::status_action(*action).as_str_name();
            format!("{status} ({action})")
        };
        let keys = vec![command.primary.clone()];
        Ok(self.act(keys, command.reads_at(), reply, |reader, _| command.run(reader)))
    }

    fn secondaries(&mut self, args: &mut Args<'_>) -> Fallible<String> {
        let start_ts = args.ts("start")?;
        let command = CheckSecondaryLocks { keys: args.keys(), start_ts };
        let reply = |status: &SecondaryStatus| match status {
            SecondaryStatus::Locked(locks) => {
                let locks: Vec<_> = locks.iter().map(show::lock_info).collect();
                format!("all locked\n{}", locks.join("\n"))
            }
            SecondaryStatus::Committed(at) => format!("committed at {}", show::ts(*at)),
            SecondaryStatus::RolledBack => "rolled back".to_owned(),
        };
        let keys = command.keys.clone();
        Ok(self.act(keys, command.reads_at(), reply, |reader, _| command.run(reader)))
    }

    fn resolve(&mut self, args: &mut Args<'_>) -> Fallible<String> {
        let keys = args.keys();
        let outcomes = args.ts_pairs()?.into_iter().collect();
        let mut command = ResolveLock { outcomes, is_lite: !keys.is_empty(), keys };
        if !command.is_lite {
            if let Err(error) = command.check_request() {
                return Ok(show::error(&error));
            }
            let found = self.node.read(|reader| command.find(reader, &KeyRange::all()))?;
            command.keys = found.locks.into_iter().map(|(key, _)| key).collect();
        }
        let keys = command.keys.clone();
        let reply = |rest: &Option<Key>| match rest {
            Some(key) => format!("go on at {key:?}"),
            None => "ok".to_owned(),
        };
        Ok(self.act(keys, None, reply, |reader, _| command.run(reader)))
    }

    fn flush(&mut self, args: &mut Args<'_>) -> Fallible<String> {
        let mut flush = Flush {
            primary: args.bytes("primary"),
            start_ts: args.ts("start")?,
            min_commit_ts: args.ts("min_commit")?,
            generation: args.number("gen")?,
            ttl_ms: args.number("ttl")?,
            assertion_level: args.assertion_level()?,
            keys: Vec::new(),
        };
        let items = args.mutations()?.into_iter();
        flush.keys = items.map(|item| (item.op, item.key, item.value, item.assertion)).collect();
        let keys = flush.latch_keys().cloned().collect();
        let reply = |errors: &Vec<txn::KeyError>| match &errors[..] {
            [] => "ok".to_owned(),
            _ => errors.iter().map(show::key_error).collect::<Vec<_>>().join("\n"),
        };
        Ok(self.act(keys, flush.reads_at(), reply, |reader, _| flush.run(reader)))
    }

    /// A sweep, and before it what a compaction of everything drops.
    fn gc(&mut self, args: &mut Args<'_>) -> Fallible<String> {
        let points = Arc::new(SafePoints::of_all(args.ts("safe")?));
        let step_records = match args.number("step")? {
            0 => 1000,
            number => number,
        };
        if args.flag("compact") {
            let state = Arc::new(GcState::new());
            // Not the node's own: what it has collected is none of its state here.
            let elsewhere = MemoryEngine::new();
            for _ in 0..2 {
                state.learn(&points, &elsewhere)?;
            }
            let engine = self.node.engine.clone().with_garbage(Arc::new(GcRule::new(state)));
            engine.sync()?;
            engine.compact_range(Cf::Write, &KeyRange::all())?;
        }
        let (start, end) = keys::data_range(self.node.region.id, &KeyRange::all());
        let mut sweep = Sweep::new(KeyRange::new(start, end), points);
        let mut lines = Vec::new();
        while !sweep.is_done() {
            let step = sweep.step(&*self.node.snapshot(), step_records)?;
            self.node.engine.write(&step.batch)?;
            lines.extend(step.batch.iter().map(|op| match op {
                Op::Delete { cf, key } => {
                    let place = keys::origin_key(key).expect("data");
                    format!("  - {}", show::record(cf, place, None))
                }
                other => format!("{other:?}"),
            }));
        }
        lines.push(format!("{} left", sweep.left()));
        Ok(lines.join("\n"))
    }

    fn delete_range(&mut self, args: &mut Args<'_>) -> Fallible<String> {
        let notify_only = args.flag("notify");
        let mut bound = || Bytes::copy_from_slice(args.next().unwrap_or("").as_bytes());
        let command = DeleteRange { start: bound(), end: bound(), notify_only };
        Ok(self.act(Vec::new(), None, |_| "ok".into(), |reader, _| command.run(reader)))
    }

    fn prepare_flashback(&mut self, args: &mut Args<'_>) -> Fallible<String> {
        let (start_ts, version) = (args.ts("start")?, args.ts("to")?);
        let command = PrepareFlashback { range: range(args), start_ts, version };
        let locks = match self.node.read(|reader| command.find_locks(reader, &KeyRange::all())) {
            Ok(found) => found.locks,
            Err(error) => return Ok(show::error(&error)),
        };
        let keys = locks.iter().map(|(key, _)| key.clone()).collect();
        let done = |_: &Option<Key>| String::new();
        let cleared = self.act(keys, None, done, |reader, _| command.roll_back(reader, &locks));
        let first = self.first_key(&command.range);
        let reply = |key: &Option<Key>| format!("locked {key:?}");
        let locked = self.act(first, None, reply, |reader, _| command.lock_first(reader));
        Ok(join(&[cleared, locked]))
    }

    fn flashback(&mut self, args: &mut Args<'_>) -> Fallible<String> {
        let (start_ts, version, commit_ts) = (args.ts("start")?, args.ts("to")?, args.ts("at")?);
        let command = Flashback { range: range(args), start_ts, version, commit_ts };
        let keys = match self.node.read(|reader| command.find_keys(reader, &KeyRange::all())) {
            Ok((keys, _)) => keys,
            Err(error) => return Ok(show::error(&error)),
        };
        let rewritten = self.act(
            keys.clone(),
            None,
            |_: &Option<Key>| format!("{} keys", keys.len()),
            |reader, _| command.rewrite(reader, &keys),
        );
        let first = self.first_key(&command.range);
        let committed =
            self.act(first, None, |_| String::new(), |reader, _| command.commit_first(reader));
        Ok(join(&[rewritten, committed]))
    }

    /// The key that a flashback of `range` locks, to be latched.
    fn first_key(&self, range: &KeyRange) -> Vec<Key> {
        let (start, end) = keys::data_range(self.node.region.id, range);
        let options = IterOptions::within(KeyRange::new(start, end));
        let snapshot = self.node.snapshot();
        let mut cursor = snapshot.iter(Cf::Write, options).expect("memory does not fail");
        if !cursor.seek_to_first().expect("memory does not fail") {
            return Vec::new();
        }
        let (key, _) = split_versioned(cursor.key()).expect("a version");
        vec![Key::from_data(key).expect("a key")]
    }
}

fn range(args: &mut Args<'_>) -> KeyRange {
    let mut bound = || match args.next() {
        None | Some("") => Bytes::new(),
        Some(name) => key(name).region(),
    };
    let start = bound();
    KeyRange::new(start, bound())
}

fn join(parts: &[String]) -> String {
    let parts = parts.iter().filter(|part| !part.is_empty()).cloned();
    parts.collect::<Vec<_>>().join("\n")
}
