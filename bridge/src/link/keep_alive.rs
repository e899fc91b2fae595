//! Signs of life on a link to another machine: a gateway that vanished without a FIN is noticed although nothing is sent to it.
//!
//! Each end that wrote nothing for 5 s says `Alive`; one that heard nothing for 15 s gives the link up. The gateway keeps the same
//! times. A bridge that does not read, because the shard is far beyond its window or takes nothing of what it is told, does not hold that silence
//! against the shard.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::peer::{Closing, Peer};

const SIGN_EVERY: Duration = Duration::from_secs(5);

/// Signs of life that may fail to come in a row.
const SILENT_SIGNS_MAX: u32 = 3;

/// Runs until the link is closed, by others or for silence.
pub(super) async fn keep_alive(peer: Arc<Peer>) {
    let mut signs = signs(Instant::now() + SIGN_EVERY);
    let mut silent = 0;
    loop {
        signs.tick().await;
        if peer.give_sign().is_err() {
            return;
        }
        silent = if peer.was_silent() { silent + 1 } else { 0 };
        if silent == SILENT_SIGNS_MAX {
            return peer.close(Closing::Silent);
        }
    }
}

/// When to look. After a standstill of the process it looks once, not as often as it missed: what shards said meanwhile is yet to be read.
fn signs(first: Instant) -> Interval {
    let mut signs = interval_at(first, SIGN_EVERY);
    signs.set_missed_tick_behavior(MissedTickBehavior::Delay);
    signs
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn after_a_standstill_shards_have_their_time_again() {
        let mut signs = signs(Instant::now() - 4 * SIGN_EVERY);
        signs.tick().await;
        assert!(timeout(Duration::ZERO, signs.tick()).await.is_err(), "it looks again at once");
    }
}
