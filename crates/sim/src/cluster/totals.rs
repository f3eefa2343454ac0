//! How often what happened.

use std::collections::BTreeMap;
use std::fmt;

use store::ShardInput;

use super::admin::AdminKind;
use super::faults::Fault;

/// Counts of one run, or of many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Things that happened at a time of their own.
    pub events: u64,
    /// Turns of actors.
    pub turns: u64,
    /// Effects of turns: a process may end between any two.
    pub effects: u64,
    /// Raft messages sent.
    pub messages: u64,
    /// ... of which came twice.
    pub duplicates: u64,
    /// Snapshots that arrived.
    pub snapshots: u64,
    /// ... that were installed.
    pub installed: u64,
    /// Replicas whose data was removed.
    pub destroyed: u64,
    /// Times that the placement driver began somewhere.
    pub placement_terms: u64,
    /// Orders of the placement driver.
    pub orders: u64,
    /// Operations of clients that were answered.
    pub operations: u64,
    /// ... that were given up without knowing what became of them.
    pub unknown: u64,
    /// Reads under a lease.
    pub lease_reads: u64,
    /// Reads that asked the group.
    pub read_indexes: u64,
    /// Reads that any replica might answer.
    pub replica_reads: u64,
    /// Signs of life between stores with groups that sleep.
    pub alive: u64,
    /// Splits that a store wanted.
    pub split_wishes: u64,
    /// Merges that came to their end.
    pub merges: u64,
    /// Processes that began.
    pub starts: u64,
    /// States of replicas that were compared.
    pub states_compared: u64,
    /// Leases that were compared.
    pub leases_compared: u64,
    /// Keys whose history was searched.
    pub keys: u64,
    /// ... and was too tangled.
    pub tangled: u64,
    /// Regions at the end.
    pub regions: u64,
    /// Transactional commands and reads that stores answered.
    pub txn_commands: u64,
    /// See there.
    pub txn_reads: u64,
    /// ... of which at replicas that asked their leader.
    pub txn_replica_reads: u64,
    /// ... and at replicas that knew the past up to then.
    pub txn_past_reads: u64,
    /// What transactional clients waited for.
    pub txn_asks: u64,
    /// Transactions that were told "committed".
    pub txns_committed: u64,
    /// ... or failed.
    pub txns_failed: u64,
    /// ... or had no answer.
    pub txns_unknown: u64,
    /// Reads of transactions that came too late for what is collected.
    pub txns_late: u64,
    /// Records that were collected.
    pub collected: u64,
    /// Snapshots of all accounts that were added up.
    pub sums: u64,
    /// Requests of transactional clients that came a second time.
    pub encores: u64,
    /// Transactional clients that ended in the middle of something.
    pub clients_killed: u64,
    /// Circles of waits that were found.
    pub deadlocks: u64,
    /// Pessimistic locks that were in memory when their leader or their keys moved.
    pub locks_handed_over: u64,
    /// Virtual time, in milliseconds.
    pub virtual_ms: u64,
    /// Virtual time from the last fault until all was well.
    pub heal_ms: u64,
    /// Admin requests that were taken, of those that were made.
    pub admin: BTreeMap<&'static str, (u64, u64)>,
    /// Faults by kind.
    pub faults: BTreeMap<Fault, u64>,
}

impl Totals {
    pub(crate) fn admin(&mut self, kind: AdminKind, done: bool) {
        let (dones, all) = self.admin.entry(kind.name()).or_default();
        *dones += u64::from(done);
        *all += 1;
    }

    pub(crate) fn job(&mut self, result: &ShardInput) {
        match result {
            ShardInput::SnapshotInstalled { .. } => self.installed += 1,
            ShardInput::DataDestroyed(_) => self.destroyed += 1,
            _ => {}
        }
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// Adds another run.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.turns += other.turns;
        self.effects += other.effects;
        self.messages += other.messages;
        self.duplicates += other.duplicates;
        self.snapshots += other.snapshots;
        self.installed += other.installed;
        self.destroyed += other.destroyed;
        self.placement_terms += other.placement_terms;
        self.orders += other.orders;
        self.operations += other.operations;
        self.unknown += other.unknown;
        self.lease_reads += other.lease_reads;
        self.read_indexes += other.read_indexes;
        self.replica_reads += other.replica_reads;
        self.alive += other.alive;
        self.split_wishes += other.split_wishes;
        self.merges += other.merges;
        self.starts += other.starts;
        self.states_compared += other.states_compared;
        self.leases_compared += other.leases_compared;
        self.keys += other.keys;
        self.tangled += other.tangled;
        self.regions += other.regions;
        self.txn_commands += other.txn_commands;
        self.txn_reads += other.txn_reads;
        self.txn_replica_reads += other.txn_replica_reads;
        self.txn_past_reads += other.txn_past_reads;
        self.txn_asks += other.txn_asks;
        self.txns_committed += other.txns_committed;
        self.txns_failed += other.txns_failed;
        self.txns_unknown += other.txns_unknown;
        self.txns_late += other.txns_late;
        self.collected += other.collected;
        self.sums += other.sums;
        self.encores += other.encores;
        self.clients_killed += other.clients_killed;
        self.deadlocks += other.deadlocks;
        self.locks_handed_over += other.locks_handed_over;
        self.virtual_ms += other.virtual_ms;
        self.heal_ms = self.heal_ms.max(other.heal_ms);
        for (kind, (dones, all)) in &other.admin {
            let sum = self.admin.entry(kind).or_default();
            (sum.0, sum.1) = (sum.0 + dones, sum.1 + all);
        }
        for (fault, count) in &other.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
    }

    fn fmt_transactions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "transactions: committed {}, failed {}, unknown {}; commands {}, reads {} ({} of any \
             replica, {} of the past), sums {}; requests twice {}, clients killed {}, deadlocks \
             {}, locks handed over {}, records collected {}, reads too late {}",
            self.txns_committed,
            self.txns_failed,
            self.txns_unknown,
            self.txn_commands,
            self.txn_reads,
            self.txn_replica_reads,
            self.txn_past_reads,
            self.sums,
            self.encores,
            self.clients_killed,
            self.deadlocks,
            self.locks_handed_over,
            self.collected,
            self.txns_late
        )
    }

    /// Kinds of faults that never happened.
    pub fn missing(&self) -> Vec<Fault> {
        Fault::ALL.into_iter().filter(|fault| !self.faults.contains_key(fault)).collect()
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "operations {}, unknown {}; reads by lease {}, by asking {}, of any replica {}; \
             keys checked {}, tangled {}",
            self.operations,
            self.unknown,
            self.lease_reads,
            self.read_indexes,
            self.replica_reads,
            self.keys,
            self.tangled
        )?;
        writeln!(
            f,
            "events {}, turns {}, messages {}; snapshots {} arrived, {} installed; replicas \
             removed {}; splits wanted {}, merges {}, signs of life {}; regions at the end {}",
            self.events,
            self.turns,
            self.messages,
            self.snapshots,
            self.installed,
            self.destroyed,
            self.split_wishes,
            self.merges,
            self.alive,
            self.regions
        )?;
        writeln!(
            f,
            "starts {}, placement terms {}, orders {}; states compared {}, leases compared {}; \
             longest healing {:.1} s",
            self.starts,
            self.placement_terms,
            self.orders,
            self.states_compared,
            self.leases_compared,
            self.heal_ms as f64 / 1e3
        )?;
        self.fmt_transactions(f)?;
        let admin = self.admin.iter().map(|(kind, (done, all))| format!("{kind} {done}/{all}"));
        writeln!(f, "admin: {}", admin.collect::<Vec<_>>().join(", "))?;
        let faults = self.faults.iter().map(|(fault, count)| format!("{} {count}", fault.name()));
        write!(f, "faults: {}", faults.collect::<Vec<_>>().join(", "))
    }
}
