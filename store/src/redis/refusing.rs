//! Whether the servers answer, and take changes: one that has no memory left, cannot save or has too few replicas refuses them before they begin, and
//! answers questions all the same. Asking is all that tells, as nobody may want to change anything for a while.
//!
//! Knows nothing of whose changes: `server` says what each of them is answered.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::dispatch::Worker;
use super::link::Failure;
use super::partition::Partition;
use super::server::Server;

/// How often each server is asked.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// A server that has said of something missing that it may be on its way back is believed for so long.
const BEGINNING_LASTS: Duration = Duration::from_secs(1);

/// What is known of all servers, as of a moment ago.
pub(super) struct Health {
    refuses: AtomicBool,
    is_partly_away: AtomicBool,
    opened: Instant,
    /// In ms since then: until when a server counts as one that has just begun with nothing.
    begins_until: AtomicU64,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            refuses: AtomicBool::default(),
            is_partly_away: AtomicBool::default(),
            opened: Instant::now(),
            begins_until: AtomicU64::new(0),
        }
    }
}

impl Health {
    pub(super) fn is_refusing(&self) -> bool {
        self.refuses.load(Ordering::Acquire)
    }

    pub(super) fn is_partly_away(&self) -> bool {
        self.is_partly_away.load(Ordering::Acquire)
    }

    pub(super) fn has_just_begun(&self) -> bool {
        (self.opened.elapsed().as_millis() as u64) < self.begins_until.load(Ordering::Acquire)
    }

    /// What a server does not have may be on its way back.
    pub(super) fn note_beginning(&self) {
        let until = (self.opened.elapsed() + BEGINNING_LASTS).as_millis() as u64;
        self.begins_until.fetch_max(until, Ordering::AcqRel);
    }
}

/// What a server does with changes.
enum Changes {
    Taken,
    Refused(String),
    /// It does not answer, or serves nobody.
    Unknown,
}

/// What all servers answered.
struct Survey {
    /// Why none of those that answer takes changes; none if one does, or if nothing is known. While some of a cluster's take them, what is in
    /// their slots is served.
    refusal: Option<String>,
    is_partly_away: bool,
}

impl Worker {
    /// Asks for ever, and keeps up to date what [`Store::is_refusing`](crate::contract::Store::is_refusing) and
    /// [`Store::is_partly_away`](crate::contract::Store::is_partly_away) answer.
    pub(super) async fn keep_probing(self: Rc<Self>) {
        loop {
            let Survey { refusal, is_partly_away } = self.server.survey(self.deadline).await;
            self.health.is_partly_away.store(is_partly_away, Ordering::Release);
            let was_refusing = self.health.refuses.swap(refusal.is_some(), Ordering::Release);
            match refusal {
                Some(why) if !was_refusing => warn!(why, "the session store takes no changes"),
                None if was_refusing => info!("the session store is not known to refuse changes any more"),
                _ => {}
            }
            sleep(ASK_EVERY).await;
        }
    }
}

impl Server {
    /// Asks each of them, and waits so long.
    async fn survey(&self, within: Duration) -> Survey {
        let probe = |partition| async move {
            timeout(within, self.probe(partition)).await.unwrap_or_else(|_| {
                self.handle_deadline();
                Changes::Unknown
            })
        };
        let (mut takes_some, mut refusal, mut is_silent) = (false, None, false);
        for answer in join_all(self.one_partition_of_each().into_iter().map(probe)).await {
            match answer {
                Changes::Taken => takes_some = true,
                Changes::Refused(why) => refusal = Some(why),
                Changes::Unknown => is_silent = true,
            }
        }
        let is_partly_away = is_silent && (takes_some || refusal.is_some());
        Survey { refusal: refusal.filter(|_| !takes_some), is_partly_away }
    }

    /// Asks for a change that changes nothing. That it is refused for want of memory makes nobody give way: nothing wanted the room.
    async fn probe(&self, partition: Partition) -> Changes {
        match self.land(self.call("probe", partition)).await {
            Ok(_) => Changes::Taken,
            Err(Failure::Refused(error))
                if matches!(error.code(), Some("OOM" | "MISCONF" | "NOREPLICAS")) =>
            {
                Changes::Refused(error.detail().unwrap_or_default().to_owned())
            }
            Err(_) => Changes::Unknown,
        }
    }
}
