//! One writer: puts its keys in order and tells of every answer.

use tikv_client::RawClient;
use tokio::sync::mpsc::UnboundedSender;

use crate::ledger::{self, Answer};

/// Writes until the server is gone, or until it is told to stop. Each number is written to a key of
/// its own and to the writer's head, which is overwritten every time.
pub async fn write(
    client: RawClient,
    seed: u64,
    writer: usize,
    first: u64,
    answers: UnboundedSender<Answer>,
) {
    for number in first.. {
        let value = ledger::value(seed, writer, number);
        if client.put(ledger::key(writer, number), value.clone()).await.is_err() {
            return;
        }
        if answers.send(Answer::Key { writer, number }).is_err() {
            return;
        }
        if client.put(ledger::head(writer), number.to_string()).await.is_err() {
            return;
        }
        if answers.send(Answer::Head { writer, number }).is_err() {
            return;
        }
    }
}
