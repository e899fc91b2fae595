//! The spool of an outage: what becomes of frames while the sink makes no progress.
//!
//! [`OutageSink`] stands before a sink that may be away (Kafka). While that is well it passes batches through and keeps a copy of what is not stored. When
//! it is not, the sink gives back what it has, and that and all frames behind it go to a [`Log`] that keeps its records until they are
//! drained; from there devices are acknowledged. Once the sink stores again the spool drains in order, new frames queue behind, and when it is empty
//! they go to the sink again. A full spool, or `hold`, holds devices back; nothing is dropped but QoS 0.
//!
//! Each lane keeps its order over all of this (P3): a `Way` is the same for all lanes, and nothing goes straight to the sink while anything
//! older is elsewhere. What may reach the sink a second time is marked `resent`.
//!
//! Knows sinks and the log, not links. Start with `state` (the decisions), then `keeper` (what carries them out), `lane` (the way of a batch), `drain`.

mod drain;
mod flights;
mod keeper;
mod lane;
mod state;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::log::{Log, LogConfig, LogError, Mark, SpareBuffers};
use crate::room::Room;
use crate::sink::{Lane, Sink, SinkHealth, SpoolHealth};
use drain::{Drained, Spooled};
use flights::{Ledger, News};
use keeper::Keeper;
pub use state::OnOutage;
use state::State;

/// What an operator can set about outages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutageConfig {
    /// What becomes of frames meanwhile.
    pub on_outage: OnOutage,
    /// So long without progress, while something is owed, is an outage; where only a part of the sink hangs, five times as long.
    pub outage_after: Duration,
    /// Where the spool lies; made if it is not there. With `hold` only looked into: what an earlier run has left there drains first.
    pub directory: PathBuf,
    /// Bytes that the spool may hold, at least [`OutageConfig::BYTES_MIN`]. When it is full, QoS 0 is dropped and counted, and all else waits.
    pub bytes_max: u64,
}

impl OutageConfig {
    /// Least bound of a spool, in bytes: some of the largest batches.
    pub const BYTES_MIN: u64 = 1 << 20;

    /// The defaults, for a spool in `directory`.
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            on_outage: OnOutage::Spool,
            outage_after: Duration::from_secs(2),
            directory: directory.to_owned(),
            bytes_max: 4 << 30,
        }
    }

    /// A sixteenth of the bound is freed at once; a quarter of it may wait for the disk.
    fn log(&self) -> LogConfig {
        let bytes_max = self.bytes_max.max(Self::BYTES_MIN);
        LogConfig {
            segment_bytes_max: (bytes_max / 16).min(64 << 20),
            retention_bytes_max: bytes_max,
            retention_age_max: Duration::MAX,
            queue_bytes_max: (bytes_max / 4).min(16 << 20) as u32,
            ..LogConfig::default()
        }
    }
}

/// Why a spool does not start; one line that says how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Its directory, or what is in it.
    #[error("the spool cannot be opened: {0}")]
    Log(#[from] LogError),
    /// Its mark.
    #[error("the spool cannot be opened: {file}: {source}")]
    Mark {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The system gives us no thread.
    #[error("the spool cannot be given a thread: {0}")]
    Thread(std::io::Error),
}

/// A sink with a spool behind it. Dropping it leaves what is in the spool for the next start.
pub struct OutageSink {
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for OutageSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutageSink").finish_non_exhaustive()
    }
}

/// A spool that is open, before its sink runs.
pub struct Spool {
    config: OutageConfig,
    /// None with `hold`, where nothing was left.
    files: Option<(Log, Spooled)>,
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool").field("directory", &self.config.directory).finish_non_exhaustive()
    }
}

impl Spool {
    /// Opens the one in its directory; with `hold` only one that is there.
    pub fn open(config: &OutageConfig) -> Result<Self, SpoolError> {
        Ok(Self { files: open(config)?, config: config.clone() })
    }

    /// Records that an earlier run left in it.
    pub fn records(&self) -> u64 {
        self.files.as_ref().map_or(0, |(log, spooled)| log.stored().saturating_sub(spooled.drained()))
    }
}

impl OutageSink {
    /// Frames go to `primary`, or to the spool while that is away. What an earlier run left in the spool drains before any new frame.
    pub fn start(primary: Arc<dyn Sink>, config: &OutageConfig) -> Result<Self, SpoolError> {
        Self::start_with(primary, Spool::open(config)?)
    }

    /// The same with a spool that is open. With a sink that is [in trouble](Sink::trouble) it begins in an outage.
    pub fn start_with(primary: Arc<dyn Sink>, spool: Spool) -> Result<Self, SpoolError> {
        let behind = spool.records();
        let Spool { config, files } = spool;
        let (log, spooled) = files.unzip();
        let read_to = spooled.as_ref().map_or(0, Spooled::drained);
        let is_away = primary.trouble().is_some();
        let way = match (behind, config.on_outage) {
            (0, _) => Way::Sink,
            (_, OnOutage::Spool) => Way::Spool,
            (_, OnOutage::Hold) => Way::Nowhere,
        };
        let spare = Arc::new(SpareBuffers::default());
        let news = Arc::new(News::default());
        let ledger = |attended| Ledger::new(attended, Arc::clone(&news), Arc::clone(&spare));
        let shared = Arc::new(Shared {
            primary,
            log,
            way: RwLock::new(way),
            room: Arc::default(),
            direct: ledger(false),
            queued: ledger(true),
            drain: ledger(true),
            drained: Drained::starting_at(read_to),
            intake: AtomicU64::new(u64::MAX),
            news,
            spare,
            parked: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            state: RwLock::new(State::Direct),
        });
        shared.drain.begin_at(read_to);
        let keeper = Keeper::new(Arc::clone(&shared), &config, behind, is_away);
        let keeper = std::thread::Builder::new()
            .name("spool".into())
            .spawn(move || keeper.run(spooled))
            .map_err(SpoolError::Thread)?;
        Ok(Self { shared, keeper: Some(keeper) })
    }
}

fn open(config: &OutageConfig) -> Result<Option<(Log, Spooled)>, SpoolError> {
    let directory = &config.directory;
    if config.on_outage == OnOutage::Hold && !directory.exists() {
        return Ok(None);
    }
    let unmarkable = |source| SpoolError::Mark { file: directory.join(Mark::NAME), source };
    // The log's lock comes first: nobody else's mark is touched.
    let drained = Mark::read(directory);
    let (log, _) = Log::open_until_released(directory, config.log(), drained)?;
    let mark = Mark::open(directory).map_err(unmarkable)?;
    let spooled = Spooled::new(directory.clone(), mark, &log)?;
    Ok(Some((log, spooled)))
}

impl Sink for OutageSink {
    fn lane(&self) -> Box<dyn Lane> {
        Box::new(lane::OutageLane::new(Arc::clone(&self.shared)))
    }

    fn health(&self) -> SinkHealth {
        let SinkHealth { kind, stores, .. } = self.shared.primary.health();
        let state = self.shared.state();
        let spool = self.shared.log.as_ref().map(|log| SpoolHealth {
            state: state.name(),
            records: self.shared.behind(),
            bytes: log.bytes(),
            stores: !self.shared.is_spool_stalled(),
        });
        SinkHealth { kind, stores: stores && !state.is_away(), spool }
    }

    fn trouble(&self) -> Option<String> {
        self.shared.primary.trouble()
    }

    fn rest(&self) -> Duration {
        self.shared.primary.rest()
    }

    fn take_verdicts(&self) {
        self.shared.primary.take_verdicts();
    }

    fn leave_verdicts(&self) {
        self.shared.primary.leave_verdicts();
    }
}

impl Drop for OutageSink {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.news.tell();
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// Where batches go right now; the same for all lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Sink,
    Spool,
    /// They wait.
    Nowhere,
    /// There is no sink any more.
    Closed,
}

/// What lanes, keeper and drain share.
struct Shared {
    primary: Arc<dyn Sink>,
    log: Option<Log>,
    /// Held for reading while a batch takes its way, for writing when that changes. Nothing that a verdict calls may ask for it.
    way: RwLock<Way>,
    /// Lanes that found the way [`Way::Nowhere`], or a spool that takes no more for now; told when that changes.
    room: Arc<Room>,
    direct: Arc<Ledger>,
    queued: Arc<Ledger>,
    drain: Arc<Ledger>,
    drained: Drained,
    /// Offset up to which the spool takes frames for now: those that come while it drains must not keep it from ever becoming empty.
    intake: AtomicU64,
    news: Arc<News>,
    spare: Arc<SpareBuffers>,
    /// The keeper sleeps until a frame is owed.
    parked: AtomicBool,
    stopping: AtomicBool,
    /// As the keeper saw it last; for those who ask.
    state: RwLock<State>,
}

impl Shared {
    fn state(&self) -> State {
        *self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_state(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn way(&self) -> RwLockReadGuard<'_, Way> {
        self.way.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_way(&self, way: Way) {
        *self.way.write().unwrap_or_else(PoisonError::into_inner) = way;
        if way != Way::Nowhere {
            self.room.news.notify_waiters();
        }
    }

    /// Lets the spool take frames up to an offset.
    fn set_intake(&self, offset: u64) {
        if self.intake.swap(offset, Ordering::AcqRel) != offset {
            self.room.news.notify_waiters();
        }
    }

    /// Whether the spool takes nothing, be it that it refuses, or that what it refused has not yet found its way into the sink.
    fn is_spool_stalled(&self) -> bool {
        self.log.as_ref().is_some_and(Log::is_stalled) || self.drained.is_passing_spool()
    }

    fn takes_more(&self) -> bool {
        let queued = self.queued.records();
        let stored = self.log.as_ref().map_or(0, Log::stored);
        stored.saturating_add(queued) < self.intake.load(Ordering::Acquire)
    }

    /// Records that were acknowledged, or are to be from the spool, and that the sink has not stored.
    fn behind(&self) -> u64 {
        self.drained.while_none_moves(|in_memory| {
            // In the order in which they go: what moves on meanwhile is counted twice, and never missed.
            let queued = self.queued.records();
            let unread =
                self.log.as_ref().map_or(0, |log| log.stored().saturating_sub(self.drained.read_to()));
            queued + unread + self.drain.records() + in_memory
        })
    }
}
