//! In the end there is no lock, and of each transaction one fate is recorded.

use base::KeyRange;
use storage::engine::Engine;
use txn::mvcc::Reader;

use crate::cluster::world::World;

impl World {
    /// All clients have ended, and somebody met every lock that they left.
    pub(super) fn check_no_locks(&mut self) {
        let led = match self.led() {
            Ok(led) => led,
            Err(reason) => panic!("liveness: it does not stay well: {reason}"),
        };
        let led = led.into_values().filter(|(_, view)| !view.region.id.is_system());
        let led: Vec<_> = led.collect();
        for (slot, view) in &led {
            let snapshot = self.nodes[*slot].machine.engine.snapshot();
            let reader = Reader::new(&*snapshot, &view.region);
            let found = reader.scan_locks(&KeyRange::all(), 0, |_, _| true);
            let locks = found.unwrap_or_else(|error| panic!("data are sound: {error}")).locks;
            assert!(locks.is_empty(), "no lock stays: node {slot}: {locks:?}");
        }
        self.check_fates(&led);
        self.check_seen(&led);
    }
}
