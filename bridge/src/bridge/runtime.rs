//! The threads that a bridge runs on.
//!
//! One worker needs no scheduler for many: its thread drives the runtime itself, where a task that wakes another one costs a push to a queue.

use std::io;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A running runtime. Dropping it stops its tasks where they stand, without waiting for them.
#[derive(Debug)]
pub(super) struct Runtime {
    handle: Handle,
    _running: Running,
}

#[derive(Debug)]
#[expect(dead_code, reason = "each is held for what its end does")]
enum Running {
    /// Its thread ends once the sender is gone.
    One(oneshot::Sender<()>),
    Many(Background),
}

/// May be dropped on a thread of some runtime, which must not block.
#[derive(Debug)]
struct Background(Option<tokio::runtime::Runtime>);

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

const THREAD_NAME: &str = "bridge";

impl Runtime {
    /// Starts one with so many threads, at least one. If it is one, that thread calls `turn_ended` whenever it has nothing to do, before it looks for
    /// more.
    pub(super) fn start(threads: usize, turn_ended: impl Fn() + Send + Sync + 'static) -> io::Result<Self> {
        if threads > 1 {
            let runtime = Builder::new_multi_thread()
                .worker_threads(threads)
                .thread_name(THREAD_NAME)
                .enable_all()
                .build()?;
            let handle = runtime.handle().clone();
            return Ok(Self { handle, _running: Running::Many(Background(Some(runtime))) });
        }
        let runtime = Builder::new_current_thread().enable_all().on_thread_park(turn_ended).build()?;
        let handle = runtime.handle().clone();
        let (running, stopped) = oneshot::channel();
        std::thread::Builder::new().name(THREAD_NAME.to_owned()).spawn(move || {
            // Nobody ever sends.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, _running: Running::One(running) })
    }

    /// Where tasks are spawned.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}
