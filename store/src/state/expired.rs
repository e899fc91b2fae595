//! Sessions that expired, until whoever keeps a book of it has asked for them. Not durable: who asks lives and dies with this process.

use std::collections::VecDeque;

use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::store::{EXPIRED_ASKED_S, ExpiredSession};

/// Sessions that are kept for who asks; the oldest fall out, untold. Some 50 bytes each beside their client's name.
const KEPT_MAX: usize = 65_536;

const ASKED_MS: u64 = EXPIRED_ASKED_S as u64 * 1_000;

/// What nobody was told of yet.
pub(crate) struct Expired {
    sessions: VecDeque<ExpiredSession>,
    /// Until when somebody is taken to ask, Unix ms; what expires later is kept for nobody. None: the process has just begun.
    asked_until_ms: Option<u64>,
}

impl Expired {
    /// Of a process that has just begun: what it finds expired is kept as if somebody had asked.
    pub(crate) fn new() -> Self {
        Self { sessions: VecDeque::new(), asked_until_ms: None }
    }

    /// A session's rest was over at this time, as is found now.
    pub(crate) fn note(&mut self, client: &ClientId, epoch: u64, at_ms: u64, now_ms: u64) {
        let until_ms = *self.asked_until_ms.get_or_insert(now_ms.saturating_add(ASKED_MS));
        if at_ms >= until_ms {
            self.sessions.clear();
            return;
        }
        if self.sessions.len() == KEPT_MAX {
            self.sessions.pop_front();
        }
        self.sessions.push_back(ExpiredSession { client: client.clone(), epoch: Epoch(epoch), at_ms });
    }

    /// Gives some away.
    pub(crate) fn take(&mut self, sessions_max: u32, now_ms: u64) -> Vec<ExpiredSession> {
        if self.asked_until_ms.is_some_and(|until_ms| until_ms <= now_ms) {
            self.sessions.clear();
        }
        let until_ms = now_ms.saturating_add(ASKED_MS);
        // A store that is shared would otherwise write this down with each question.
        if self.asked_until_ms.is_none_or(|asked| asked <= until_ms - ASKED_MS / 2) {
            self.asked_until_ms = Some(until_ms);
        }
        let some = self.sessions.len().min(sessions_max as usize);
        self.sessions.drain(..some).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_fall_out_beyond_a_bound() {
        let mut expired = Expired::new();
        expired.take(1, 0);
        for number in 0..KEPT_MAX as u64 + 10 {
            expired.note(&ClientId::new("d"), number, 1, 1);
        }
        let told = expired.take(u32::MAX, 2);
        assert_eq!((told.len(), told[0].epoch), (KEPT_MAX, Epoch(10)));
    }

    #[test]
    fn nothing_is_kept_for_nobody() {
        let mut expired = Expired::new();
        expired.note(&ClientId::new("while the process was away"), 1, 5, ASKED_MS * 3);
        assert_eq!(expired.sessions.len(), 1);
        for number in 0..100 {
            expired.note(&ClientId::new("d"), number, ASKED_MS * 4, ASKED_MS * 4);
        }
        assert!(expired.sessions.is_empty());
    }
}
