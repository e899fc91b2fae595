//! The retained message of each topic, in the order of the topics.

use std::collections::BTreeMap;
use std::ops::Bound;

use holdfast_wire::message::SharedMessage;
use holdfast_wire::topic;

use super::change::{Change, Journal};
use super::deadlines::{Deadlines, Ending};

/// All retained messages.
#[derive(Default)]
pub(crate) struct RetainedMessages {
    by_topic: BTreeMap<Box<str>, SharedMessage>,
    bytes: u64,
}

impl RetainedMessages {
    /// Bytes of encoded messages.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of one topic's message, as encoded; 0 if there is none.
    pub(crate) fn bytes_of(&self, topic: &str) -> u64 {
        self.by_topic.get(topic).map_or(0, |message| message.as_bytes().len() as u64)
    }

    /// Keeps `message` in place of its topic's former one; an empty payload only removes that (MQTT-3.3.1-6).
    pub(crate) fn retain(
        &mut self,
        message: SharedMessage,
        deadlines: &mut Deadlines,
        journal: &mut impl Journal,
    ) {
        let view = message.view();
        if view.payload.is_empty() {
            self.remove(view.topic, deadlines, journal);
            return;
        }
        journal.record(|| Change::Retained(message.clone()));
        self.restore(message, deadlines);
    }

    /// Removes a topic's message, if there is one.
    pub(crate) fn remove(&mut self, topic: &str, deadlines: &mut Deadlines, journal: &mut impl Journal) {
        if self.take(topic, deadlines) {
            journal.record(|| Change::RetainedGone(topic.into()));
        }
    }

    /// Messages that match, behind the topic `after`, without those that have expired: at most so many, and no further one once they are so many bytes.
    pub(crate) fn read(
        &self,
        filter: &str,
        after: Option<&str>,
        (messages_max, bytes_max): (u32, u32),
        now_ms: u64,
    ) -> Vec<SharedMessage> {
        let prefix = literal_prefix(filter);
        let mut bytes = 0;
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.by_topic
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(topic, _)| topic.starts_with(prefix))
            .filter(|(topic, message)| topic::matches(filter, topic) && !message.view().is_expired(now_ms))
            .take(messages_max as usize)
            .take_while(|(_, message)| {
                let has_room = bytes == 0 || bytes < bytes_max as usize;
                bytes += message.as_bytes().len();
                has_room
            })
            .map(|(_, message)| message.clone())
            .collect()
    }

    /// Puts a message in its place without telling a journal.
    pub(crate) fn restore(&mut self, message: SharedMessage, deadlines: &mut Deadlines) {
        let view = message.view();
        let topic: Box<str> = view.topic.into();
        self.take(&topic, deadlines);
        if view.expires_at_ms != 0 {
            deadlines.set(view.expires_at_ms, Ending::Retained(topic.clone()));
        }
        self.bytes += message.as_bytes().len() as u64;
        self.by_topic.insert(topic, message);
    }

    fn take(&mut self, topic: &str, deadlines: &mut Deadlines) -> bool {
        let Some(former) = self.by_topic.remove(topic) else { return false };
        self.bytes -= former.as_bytes().len() as u64;
        let expires_at_ms = former.view().expires_at_ms;
        if expires_at_ms != 0 {
            deadlines.clear(expires_at_ms, Ending::Retained(topic.into()));
        }
        true
    }
}

/// What every matching topic begins with: only that part of the map is looked at. `a/#` matches `a` too
/// (MQTT-4.7.1-2), so the slash is not part of it.
pub(crate) fn literal_prefix(filter: &str) -> &str {
    match filter.find(['+', '#']) {
        Some(at) if filter.as_bytes()[at] == b'#' => filter[..at].strip_suffix('/').unwrap_or(&filter[..at]),
        Some(at) => &filter[..at],
        None => filter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_literal_prefix_of_a_filter_is_what_all_its_topics_begin_with() {
        for (filter, prefix) in [
            ("a/b", "a/b"),
            ("a/+/c", "a/"),
            ("a/#", "a"),
            ("/#", ""),
            ("#", ""),
            ("+/a", ""),
            ("\u{e4}#", "\u{e4}"),
        ] {
            assert_eq!(literal_prefix(filter), prefix);
        }
    }
}
