//! Questions to all shards at once.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::mailbox::Mailbox;
use crate::shard::Letter;

/// The mailboxes of a node's shards, in their order.
pub(crate) struct Shards(Vec<Mailbox<Letter>>);

impl Shards {
    /// Asks these.
    pub(crate) fn new(mailboxes: Vec<Mailbox<Letter>>) -> Self {
        Self(mailboxes)
    }

    /// Sends the letter that `letter` makes to every shard and waits for all answers, at most `within`. None for a shard that
    /// did not answer: its mailbox is full, its loop is stuck, or its thread has ended.
    pub(super) async fn ask<T>(
        &self,
        within: Duration,
        letter: impl Fn(oneshot::Sender<T>) -> Letter,
    ) -> Vec<Option<T>> {
        let deadline = Instant::now() + within;
        let ask = |mailbox: &Mailbox<Letter>| {
            let (answer, answered) = oneshot::channel();
            mailbox.ask(letter(answer)).ok().map(|()| answered)
        };
        let asked: Vec<_> = self.0.iter().map(ask).collect();
        let mut answers = Vec::with_capacity(asked.len());
        for answered in asked {
            answers.push(match answered {
                Some(answered) => timeout_at(deadline, answered).await.ok().and_then(Result::ok),
                None => None,
            });
        }
        answers
    }
}
