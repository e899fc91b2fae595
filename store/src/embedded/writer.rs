//! The one thread that writes: takes all changes that wait, commits them, answers, and begins again.
//!
//! While a commit runs the next one gathers, so the batch grows with the load and the time an fsync takes. A commit that
//! fails is tried again, together with what had been carried out behind it, until it succeeds: memory is ahead of the
//! disk by no more than that, and nothing durable is added meanwhile.

use std::time::Duration;

use tracing::{info, warn};

use super::disk::Disk;
use super::journal::{Pending, Shared, Work};
use crate::contract::StoreError;

/// Pause between attempts while the disk refuses.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Runs until the store is dropped.
pub(super) fn run(shared: &Shared, mut disk: Disk) {
    let gone = RefuseWhenGone(shared);
    while let Work::Commit(mut changes) = shared.next_work() {
        let mut announced = false;
        while let Err(why) = disk.commit(&changes) {
            if !announced {
                warn!(%why, "sessions and queues are not written; durable requests are refused until they are");
                announced = true;
            }
            let (pending, mut more) = shared.lock().refuse(why.clone());
            changes.append(&mut more);
            answer_all(pending, &why);
            if !shared.wait_for_retry(RETRY_PAUSE) {
                warn!(changes = changes.len(), "the store closes with changes that could not be written");
                return;
            }
        }
        let (pending, refused) = shared.lock().committed();
        if refused {
            info!("sessions and queues are written again");
        }
        for Pending { answer, reply } in pending {
            reply(answer);
        }
    }
    drop(gone);
}

fn answer_all(pending: Vec<Pending>, why: &StoreError) {
    for Pending { reply, .. } in pending {
        reply(Err(why.clone()));
    }
}

/// However this thread ends: nobody waits for it for ever.
struct RefuseWhenGone<'a>(&'a Shared);

impl Drop for RefuseWhenGone<'_> {
    fn drop(&mut self) {
        let why = StoreError::Unavailable("its writer has ended".to_owned());
        let (pending, _) = self.0.lock().refuse(why.clone());
        answer_all(pending, &why);
    }
}
