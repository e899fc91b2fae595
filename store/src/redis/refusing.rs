//! Whether the servers take changes: one that has no memory left, cannot save or has too few replicas refuses them before they begin, and
//! answers questions all the same. Asking is all that tells, as nobody may want to change anything for a while.
//!
//! Knows nothing of whose changes: `server` says what each of them is answered.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::sleep;
use tracing::{info, warn};

use super::dispatch::Worker;
use super::link::Failure;
use super::partition::Partition;
use super::server::Server;

/// How often each server is asked.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// What a server does with changes.
enum Changes {
    Taken,
    Refused(String),
    /// It does not answer, or serves nobody.
    Unknown,
}

impl Worker {
    /// Asks for ever, and keeps what [`Store::is_refusing`](crate::contract::Store::is_refusing) answers up to date.
    pub(super) async fn keep_probing(self: Rc<Self>) {
        loop {
            let asked = async { Ok(self.server.refusal().await) };
            // Of a store that is away nothing is known.
            let refusal = self.by(Instant::now() + self.deadline, asked).await.unwrap_or_default();
            let was_refusing = self.refuses.swap(refusal.is_some(), Ordering::Release);
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
    /// Why none of the servers that answer takes changes; none if one does, or if nothing is known. While some of a cluster's take them, what is in
    /// their slots is served.
    async fn refusal(&self) -> Option<String> {
        let mut refusal = None;
        let asked = self.one_partition_of_each().into_iter().map(|partition| self.probe(partition));
        for answer in join_all(asked).await {
            match answer {
                Changes::Taken => return None,
                Changes::Refused(why) => refusal = Some(why),
                Changes::Unknown => {}
            }
        }
        refusal
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
