//! The transactional commands of a message: those of one region go to the scheduler together, and
//! gets are answered together.

use proto::tikvpb::batch_commands_request::request::Cmd as Command;
use proto::tikvpb::batch_commands_response::response::Cmd as Answer;
use tonic::Status;

use super::{Batch, Owed, name};
use crate::errors::{Refusable, Refusal};
use crate::services::txn::Prepared;

impl Batch {
    /// Transactional commands.
    pub(super) fn start_txn(&mut self, id: u64, command: Command) -> Result<(), Status> {
        let txn = self.txn.clone();
        match command {
            Command::Get(request) => self.gets.push((id, request)),
            Command::BatchGet(request) => {
                self.later(id, async move { txn.batch_get(request).await.map(Answer::BatchGet) });
            }
            Command::Scan(request) => {
                self.later(id, async move { txn.scan(request).await.map(Answer::Scan) });
            }
            Command::BufferBatchGet(request) => self.later(id, async move {
                txn.buffer_batch_get(request).await.map(Answer::BufferBatchGet)
            }),
            Command::ScanLock(request) => {
                self.later(id, async move { txn.scan_lock(request).await.map(Answer::ScanLock) });
            }
            Command::ResolveLock(request) => self
                .later(id, async move { txn.resolve_lock(request).await.map(Answer::ResolveLock) }),
            Command::PessimisticRollback(request) => self.later(id, async move {
                txn.pessimistic_rollback(request).await.map(Answer::PessimisticRollback)
            }),
            Command::PrepareFlashbackToVersion(request) => self.later(id, async move {
                txn.prepare_flashback(request).await.map(Answer::PrepareFlashbackToVersion)
            }),
            Command::FlashbackToVersion(request) => self.later(id, async move {
                txn.flashback(request).await.map(Answer::FlashbackToVersion)
            }),
            other => self.start_command(id, other)?,
        }
        Ok(())
    }

    /// Transactional commands that the scheduler runs in one step.
    fn start_command(&mut self, id: u64, command: Command) -> Result<(), Status> {
        let txn = self.txn.clone();
        match command {
            Command::Prewrite(r) => self.run(id, txn.prewrite(r), Answer::Prewrite),
            Command::Commit(r) => self.run(id, txn.commit(r), Answer::Commit),
            Command::PessimisticLock(r) => {
                self.run(id, txn.pessimistic_lock(r), Answer::PessimisticLock);
            }
            Command::TxnHeartBeat(r) => self.run(id, txn.heart_beat(r), Answer::TxnHeartBeat),
            Command::CheckTxnStatus(r) => {
                self.run(id, txn.check_txn_status(r), Answer::CheckTxnStatus);
            }
            Command::CheckSecondaryLocks(r) => {
                self.run(id, txn.check_secondary_locks(r), Answer::CheckSecondaryLocks);
            }
            Command::Cleanup(r) => self.run(id, txn.cleanup(r), Answer::Cleanup),
            Command::BatchRollback(r) => {
                self.run(id, txn.batch_rollback(r), Answer::BatchRollback);
            }
            Command::Flush(r) => self.run(id, txn.flush(r), Answer::Flush),
            Command::DeleteRange(r) => self.run(id, txn.delete_range(r), Answer::DeleteRange),
            other => {
                let text = format!("BatchCommands: {} is not served", name(&other));
                return Err(Status::unimplemented(text));
            }
        }
        Ok(())
    }

    /// Puts a transactional command to those of the same message.
    fn run<R: Refusable + 'static>(
        &mut self,
        id: u64,
        prepared: Result<Prepared<R>, Refusal>,
        answer: fn(R) -> Answer,
    ) {
        self.waiting += 1;
        let owed = Owed { id, sender: Some(self.sender.clone()) };
        let done = move |response: Result<R, Status>| owed.answer(response.map(answer));
        self.jobs.extend(self.txn.job(prepared, done));
    }

    /// Answers transactional gets that need not wait, and sets the others going.
    pub(super) fn answer_txn_gets(&mut self) -> Result<(), Status> {
        if self.gets.is_empty() {
            return Ok(());
        }
        let (gets, ready) = (std::mem::take(&mut self.gets), &mut self.ready);
        let mut failed = Ok(());
        let later = self.txn.get_together(gets, |id, answer| match answer {
            Ok(answer) => ready.push(id, Some(Answer::Get(answer))),
            Err(status) => failed = Err(status),
        });
        for (id, point) in later {
            let txn = self.txn.clone();
            self.later(id, async move { txn.get_later(point).await.map(Answer::Get) });
        }
        failed
    }
}
