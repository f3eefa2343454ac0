//! Latches with somebody to wait for them: the store's [`txn::Latches`], shared by its callers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use txn::latches::{Acquired, CommandId, Latches};

/// The latches of one store and the callers that wait for theirs.
#[derive(Debug, Default)]
pub(crate) struct LatchTable(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    latches: Latches,
    next: CommandId,
    waiting: BTreeMap<CommandId, oneshot::Sender<()>>,
}

impl LatchTable {
    /// Takes the latches of all `keys`; they go back when the guard is dropped. Dropping the future
    /// gives up the place in the queue.
    pub(crate) async fn acquire<'a>(
        table: &Arc<Self>,
        keys: impl IntoIterator<Item = &'a [u8]>,
    ) -> LatchGuard {
        let (guard, granted) = table.enter(keys);
        if let Some(granted) = granted {
            granted.await.expect("the table keeps the sender until it grants");
        }
        guard
    }

    fn enter<'a>(
        self: &Arc<Self>,
        keys: impl IntoIterator<Item = &'a [u8]>,
    ) -> (LatchGuard, Option<oneshot::Receiver<()>>) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.next += 1;
        let command = table.next;
        let guard = LatchGuard { table: self.clone(), command };
        match table.latches.acquire(command, keys) {
            Acquired::Granted => (guard, None),
            Acquired::Waiting => {
                let (send, receive) = oneshot::channel();
                table.waiting.insert(command, send);
                (guard, Some(receive))
            }
        }
    }
}

/// Held latches, or a place in their queues. Given back on drop.
#[derive(Debug)]
pub(crate) struct LatchGuard {
    table: Arc<LatchTable>,
    command: CommandId,
}

impl Drop for LatchGuard {
    fn drop(&mut self) {
        let mut table = self.table.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.waiting.remove(&self.command);
        for next in table.latches.release(self.command) {
            if let Some(waiting) = table.waiting.remove(&next) {
                // A caller that just went away gives the latch back itself.
                let _ = waiting.send(());
            }
        }
    }
}
