//! Members of shared subscriptions' groups claim what stands in their group's stream.
//!
//! Nothing of a claim is written down: a process that starts anew finds everything free that is not settled, and each member's count where its session's row has it.

use std::collections::VecDeque;

use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::message::SharedMessage;
use holdfast_wire::session_record::{Offset, StreamKey};
use holdfast_wire::store::{Reply, StoreError};

use super::change::Journal;
use super::readers::is_groups;
use super::runs::Runs;
use super::{State, fenced};

/// What a member asks for.
pub(crate) struct Claim {
    /// The last of its own numbers that it knows.
    pub(crate) after: Offset,
    pub(crate) messages_max: u32,
    pub(crate) bytes_max: u32,
}

/// Messages that are answered together: as many as are wanted, and none further once they have the bytes; the first one always comes.
pub(crate) struct MessagePage {
    pub(crate) messages: Vec<(Offset, SharedMessage)>,
    messages_max: usize,
    bytes: u64,
    bytes_max: u64,
}

impl State {
    pub(super) fn claim(
        &mut self,
        client: &ClientId,
        epoch: Epoch,
        filter: Box<str>,
        claim: &Claim,
        now_ms: u64,
    ) -> Result<Reply, StoreError> {
        let session = fenced(&mut self.sessions, client, epoch, now_ms)?;
        let stream = StreamKey::Filter(filter);
        // Who rests has given back what it had, and nobody would give back more.
        let connected = session.details.as_mut().filter(|details| details.rests_until_ms.is_none());
        let claimed = connected.and_then(|details| {
            let at = details.find_cursor(&stream).ok()?;
            let base = &mut details.record.cursors[at].acked;
            self.streams.claim(&stream, client, base, claim, now_ms)
        });
        let (messages, end) = claimed.unwrap_or_default();
        Ok(Reply::Messages { messages, end })
    }

    pub(super) fn hold(
        &mut self,
        filter: Box<str>,
        message: &SharedMessage,
        for_ms: u32,
        now_ms: u64,
        journal: &mut impl Journal,
    ) -> Result<Reply, StoreError> {
        let stream = StreamKey::Filter(filter);
        if !is_groups(&stream) {
            return Ok(Reply::Appended { at: Vec::new(), full: Vec::new() });
        }
        let answer = self.append(vec![stream], message, None, now_ms, journal)?;
        if let Reply::Appended { at, .. } = &answer {
            for cursor in at {
                let until_ms = now_ms.saturating_add(u64::from(for_ms));
                self.streams.hold(&cursor.stream, cursor.acked, until_ms);
            }
        }
        Ok(answer)
    }
}

impl Claim {
    /// Gives the messages under the member's own numbers, and the end that it is told. `base` is the member's cursor; `log` is the stream's, which ends at `end`.
    pub(crate) fn carry_out(
        &self,
        runs: &mut Runs,
        client: &ClientId,
        base: &mut Offset,
        log: &VecDeque<(Offset, SharedMessage)>,
        end: Offset,
    ) -> (Vec<(Offset, SharedMessage)>, Offset) {
        let after = self.after.max(*base);
        let held = runs.held_by(client);
        if after - *base > held {
            // The store was set back: the member was given more than is known here. What it holds are the last ones.
            *base = after - held;
        }
        let mut page = MessagePage::new(self.messages_max, self.bytes_max);
        let mut is_more = false;
        for (place, offset) in runs.held_behind(client, after - *base) {
            let Some(message) = message_at(log, offset) else { continue };
            is_more = !page.has_room();
            if is_more {
                break;
            }
            page.push((*base).saturating_add(place + 1), message);
        }
        let mut number = (*base).saturating_add(held);
        while !is_more && let Some(offset) = runs.claimable(end) {
            is_more = !page.has_room();
            if is_more {
                break;
            }
            runs.claim(client, offset);
            number = number.saturating_add(1);
            if let Some(message) = message_at(log, offset) {
                page.push(number, message);
            }
        }
        let last = page.messages.last().map_or(after, |(number, _)| *number);
        (page.messages, last.saturating_add(u64::from(is_more)))
    }
}

impl MessagePage {
    pub(crate) fn new(messages_max: u32, bytes_max: u32) -> Self {
        Self {
            messages: Vec::new(),
            messages_max: messages_max as usize,
            bytes: 0,
            bytes_max: bytes_max.into(),
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.messages.len() < self.messages_max && (self.bytes < self.bytes_max || self.messages.is_empty())
    }

    pub(crate) fn push(&mut self, offset: Offset, message: &SharedMessage) {
        self.bytes += message.as_bytes().len() as u64;
        self.messages.push((offset, message.clone()));
    }
}

/// None if it was cut off.
fn message_at(log: &VecDeque<(Offset, SharedMessage)>, offset: Offset) -> Option<&SharedMessage> {
    log.binary_search_by_key(&offset, |(offset, _)| *offset).ok().map(|place| &log[place].1)
}
