//! What the store tells the placement driver: region heartbeats when something changed and once a
//! minute, store heartbeats every ten seconds, and, for the system region itself, that the
//! placement driver lives here now.

use std::collections::BTreeMap;
use std::time::Duration;

use base::RegionId;
use proto::{metapb, pdpb};
use storage::engine::Cf;
use storage::keys;
use store::{RegionReport, Report};
use tokio::sync::mpsc;

use crate::disk_watch::DiskWatch;
use crate::placement_host::{HostError, PlacementHost};

/// Time between two heartbeats of the store.
const STORE_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);

/// Time until a refused heartbeat of the store is sent again: a store that starts is not known yet.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// Carries reports from the store thread to the placement driver.
pub(crate) struct Reporter {
    host: PlacementHost,
    store: metapb::Store,
    disk: DiskWatch,
    started_unix_seconds: u64,
    /// The latest report of each region led here: a placement driver that has just been loaded
    /// knows none of them.
    led: BTreeMap<RegionId, RegionReport>,
}

impl Reporter {
    pub(crate) fn new(host: PlacementHost, store: metapb::Store, disk: DiskWatch) -> Self {
        let started_unix_seconds = host.wall_ms() / 1000;
        Self { host, store, disk, started_unix_seconds, led: BTreeMap::new() }
    }

    /// Runs until the store thread is gone. `on_fatal` is told if the placement driver's rows
    /// cannot be read.
    pub(crate) async fn run(
        mut self,
        mut reports: mpsc::UnboundedReceiver<Report>,
        on_fatal: impl Fn(String),
    ) {
        let mut heartbeat = tokio::time::interval(STORE_HEARTBEAT_INTERVAL);
        loop {
            tokio::select! {
                report = reports.recv() => match report {
                    Some(report) => {
                        if let Err(error) = self.take(report) {
                            on_fatal(format!("the placement driver cannot start: {error}"));
                        }
                    }
                    None => return,
                },
                _ = heartbeat.tick() => {
                    if !self.store_heartbeat() {
                        heartbeat.reset_after(RETRY_INTERVAL);
                    }
                }
            }
        }
    }

    fn take(&mut self, report: Report) -> Result<(), HostError> {
        match report {
            Report::Leads(report) if report.region.id.is_system() => {
                self.host.lead(&report)?;
                self.led.values().for_each(|report| self.region_heartbeat(report));
                self.store_heartbeat();
            }
            Report::Lost(region) if region.is_system() => self.host.step_down(),
            Report::Leads(report) => {
                self.region_heartbeat(&report);
                self.led.insert(report.region.id, report);
            }
            Report::Lost(region) => {
                self.led.remove(&region);
            }
        }
        Ok(())
    }

    fn region_heartbeat(&self, report: &RegionReport) {
        let (start, end) = keys::data_range(report.region.id, &report.region.range);
        let range = base::KeyRange::new(start, end);
        let engine = self.host.store().engine();
        let size = engine.approximate_size(Cf::Default, &range).unwrap_or_else(|error| {
            tracing::warn!(region = %report.region.id, %error, "size unknown");
            0
        });
        let request = pdpb::RegionHeartbeatRequest {
            header: Some(self.header()),
            region: Some(store::region_to_proto(&report.region)),
            leader: Some(store::peer_to_proto(&report.leader)),
            term: report.term,
            bytes_written: report.written_bytes,
            keys_written: report.written_keys,
            approximate_size: size,
            ..Default::default()
        };
        self.log_refusal(self.host.update(|placement| placement.region_heartbeat(&request)));
        self.host.region_reported();
    }

    /// Returns whether it was taken.
    fn store_heartbeat(&mut self) -> bool {
        let (capacity, available) = self.disk.space();
        let stats = pdpb::StoreStats {
            store_id: self.store.id,
            capacity,
            available,
            used_size: self.host.store().engine().properties().file_bytes,
            region_count: u32::try_from(self.host.store().views().all().len()).unwrap_or(u32::MAX),
            start_time: u32::try_from(self.started_unix_seconds).unwrap_or(u32::MAX),
            ..Default::default()
        };
        let request = pdpb::StoreHeartbeatRequest {
            header: Some(self.header()),
            stats: Some(stats),
            ..Default::default()
        };
        let (now, wall_ms) = (self.host.now(), self.host.wall_ms());
        let result = self.host.update(|p| p.store_heartbeat(&request, now, wall_ms).map(drop));
        let taken = matches!(result, Ok(Ok(())));
        self.log_refusal(result);
        taken
    }

    /// A heartbeat that finds no placement driver, or one that does not know the cluster yet, is
    /// made good by a later one.
    fn log_refusal(
        &self,
        result: Result<
            Result<(), placement::PlacementError>,
            crate::placement_host::NotPlacementLeader,
        >,
    ) {
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "heartbeat refused"),
            Err(error) => tracing::debug!(%error, "heartbeat not delivered"),
        }
    }

    fn header(&self) -> pdpb::RequestHeader {
        pdpb::RequestHeader { cluster_id: self.host.cluster_id().0, ..Default::default() }
    }
}
