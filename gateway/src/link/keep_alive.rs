//! Signs of life on a link whose ends have nothing to say: a bridge that vanished without a FIN (a host that lost power, a network that
//! swallows packets) is noticed although nothing is sent to it.
//!
//! Each end that wrote nothing for [`SAY_AFTER_MS`] says `Alive`; one that heard nothing for [`SILENCE_MS_MAX`] gives the link up.
//! The bridge keeps the same times.

/// How long an end may be quiet before it says that it lives, in ms.
const SAY_AFTER_MS: u64 = 5_000;

/// How long the other end may be quiet before the link counts as lost, in ms: three signs of life that did not come.
const SILENCE_MS_MAX: u64 = 15_000;

/// When either end of a link was last heard.
#[derive(Debug, Default)]
pub(super) struct KeepAlive {
    heard_ms: u64,
    said_ms: u64,
}

/// What is to be done about a quiet link.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Quiet {
    /// Nothing: both ends have spoken lately.
    No,
    /// Say that we live.
    Here,
    /// Give it up: the other end does not.
    There,
}

impl KeepAlive {
    /// The link has just come up.
    pub(super) fn starting(now_ms: u64) -> Self {
        Self { heard_ms: now_ms, said_ms: now_ms }
    }

    /// The other end said something, or what it said waits to be read.
    pub(super) fn note_heard(&mut self, now_ms: u64) {
        self.heard_ms = now_ms;
    }

    /// We said something.
    pub(super) fn note_said(&mut self, now_ms: u64) {
        self.said_ms = now_ms;
    }

    /// Whether an end has been quiet for too long.
    pub(super) fn quiet(&self, now_ms: u64) -> Quiet {
        if now_ms >= self.heard_ms + SILENCE_MS_MAX {
            Quiet::There
        } else if now_ms >= self.said_ms + SAY_AFTER_MS {
            Quiet::Here
        } else {
            Quiet::No
        }
    }

    /// When to ask again, if nothing is said or heard until then.
    pub(super) fn next_due_ms(&self) -> u64 {
        (self.said_ms + SAY_AFTER_MS).min(self.heard_ms + SILENCE_MS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_is_quiet_says_so_every_five_seconds_and_gives_up_after_fifteen() {
        let mut life = KeepAlive::starting(1_000);
        let mut signs = 0;
        loop {
            let now_ms = life.next_due_ms();
            match life.quiet(now_ms) {
                Quiet::Here => life.note_said(now_ms),
                Quiet::There => {
                    assert_eq!((now_ms, signs), (16_000, 2));
                    return;
                }
                Quiet::No => panic!("not due at {now_ms}"),
            }
            signs += 1;
        }
    }

    #[test]
    fn traffic_in_both_directions_needs_no_sign() {
        let mut life = KeepAlive::starting(0);
        for now_ms in (0..60_000).step_by(1_000) {
            assert_eq!(life.quiet(now_ms), Quiet::No);
            life.note_heard(now_ms);
            life.note_said(now_ms);
        }
    }
}
