//! The store on this machine's disk, for one node: nothing to install, and everything acknowledged survives `kill -9`.
//!
//! The truth lives in memory, in the very `state` that [`crate::MemoryStore`] runs; message bodies too, so that no
//! question ever waits for the disk. A request is carried out at [`Store::submit`]; what it changed goes into a bounded
//! journal, in order. One `writer` thread takes everything that waits into one transaction of the `disk` (group
//! commit, one fsync for all) and only then answers. What changes nothing durable is answered inline, so
//! connections without a session expiry never see the disk.
//!
//! ```text
//! submit ──> state ──> journal ══> writer ──> disk (redb)      While the disk refuses, so does the store: what would
//!    └─ inline reply      reply <─────┘ after the fsync        change something durable answers Full or Unavailable,
//!                                                              until what was begun has been written after all.
//! ```

mod directory;
mod disk;
mod journal;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use self::directory::Directory;
use self::disk::{Disk, Medium};
use self::journal::{Pending, Shared};
use crate::contract::{ReplyTo, Request, Store};
use crate::open_error::OpenError;
use crate::{Clock, Options};

/// A store in a directory. Dropping it writes what waits and then lets go of the directory.
pub struct EmbeddedStore {
    clock: Clock,
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl EmbeddedStore {
    /// Opens the store in `directory`, which is made if it is not there. Reads everything in it and checks it, so this takes
    /// as long as reading the file does. Sessions that were connected when the former process ended rest
    /// from now on, and their wills fall due; the will of one without expiry is lost with the process. What members of shared subscriptions' groups had claimed and
    /// not settled, and what was on hold, is free to be claimed.
    pub fn open(directory: &Path, options: Options) -> Result<Self, OpenError> {
        let directory = Directory::lock(directory)?;
        let medium = directory.medium();
        Self::on(medium, directory, options, journal::COMMIT_DEADLINE)
    }

    fn on(
        medium: Box<dyn Medium>,
        directory: Directory,
        options: Options,
        commit_deadline: Duration,
    ) -> Result<Self, OpenError> {
        let (disk, state) =
            Disk::open(medium, options.bounds, (options.clock)()).map_err(|error| directory.blame(error))?;
        let shared = Arc::new(Shared::new(state, commit_deadline));
        let for_writer = Arc::clone(&shared);
        let writer = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                writer::run(&for_writer, disk);
                drop(directory);
            })
            .map_err(|source| OpenError::Thread { source })?;
        Ok(Self { clock: options.clock, shared, writer: Some(writer) })
    }
}

impl Store for EmbeddedStore {
    fn submit(&self, request: Request, reply: ReplyTo) {
        let now_ms = (self.clock)();
        let mut journal = self.shared.lock();
        let overdue = journal.take_overdue();
        let answer = match journal.refusal(&request) {
            Some(refusal) => Some((Err(refusal), reply)),
            None => journal.carry_out(request, now_ms, reply),
        };
        let writer_is_due = journal.holds_changes();
        drop(journal);
        if writer_is_due {
            self.shared.wake_writer();
        }
        // Behind the lock, so that they may submit again.
        for Pending { reply, .. } in overdue {
            reply(Err(journal::deadline_passed()));
        }
        if let Some((answer, reply)) = answer {
            reply(answer);
        }
    }

    fn is_refusing(&self) -> bool {
        self.shared.lock().is_refusing()
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.shared.lock().stop();
        self.shared.wake_writer();
        if let Some(writer) = self.writer.take() {
            // The last handle may be dropped by an answer, on the writer's own thread; it ends by itself then.
            if writer.thread().id() != thread::current().id() {
                let _ = writer.join();
            }
        }
    }
}
