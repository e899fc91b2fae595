//! Retained messages: each in its topic's partition, found by a walk over the topics in their order.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use holdfast_wire::message::SharedMessage;
use holdfast_wire::topic;

use super::answer::{Answer, Word};
use super::dispatch::Worker;
use super::partition::Partition;
use crate::contract::{Reply, StoreError};
use crate::state::literal_prefix;

/// Topics that are asked of one of many partitions at once; of one alone, four times as many.
const TOPICS_MAX: usize = 256;

/// Topics behind some topic, in order, and up to where they are all there are; none: to the end.
struct Walk {
    topics: Vec<Box<str>>,
    complete_to: Option<Box<str>>,
}

impl Worker {
    pub(super) async fn retain(&self, message: &SharedMessage) -> Result<Reply, StoreError> {
        let view = message.view();
        let partition = Partition::of_topic(view.topic);
        let call = if view.payload.is_empty() {
            self.server.call("forget", partition).arg(view.topic)
        } else {
            let beside = self.room.borrow().retained_bytes_beside(partition);
            let bytes_max = (self.bounds.message_bytes_max / 2).saturating_sub(beside);
            let call = self.server.call("retain", partition).arg(view.topic).arg(message.as_bytes());
            call.arg(view.expires_at_ms).arg(bytes_max)
        };
        let mut answer = self.server.answer(call).await?;
        if answer.word()? == Word::Full {
            let bytes = self.room.borrow().retained_bytes();
            return Err(StoreError::Full(format!("it holds {bytes} bytes of retained messages")));
        }
        self.room.borrow_mut().set_retained_bytes(partition, answer.number()?);
        self.make_room().await?;
        Ok(Reply::Done)
    }

    pub(super) async fn read_retained(
        &self,
        filter: &str,
        mut after: Option<Box<str>>,
        messages_max: usize,
        bytes_max: usize,
    ) -> Result<Reply, StoreError> {
        let partitions = Partition::of_topics(filter);
        let (mut messages, mut bytes) = (Vec::<SharedMessage>::new(), 0);
        let mut topics_max = first_topics(messages_max, partitions.len());
        // Topics can go between the walk and the reading of their messages, and a page that is not full would mean that there
        // are no more: so the walk goes on until the page is full or the topics are at their end.
        while messages.len() < messages_max && (bytes < bytes_max || messages.is_empty()) {
            let walk = self.walk(&partitions, literal_prefix(filter), after.as_deref(), topics_max).await?;
            // Most are in a few partitions, or do not match.
            topics_max = (topics_max * 4).min(walked_topics_max(partitions.len()));
            let matching = walk.topics.into_iter().filter(|topic| topic::matches(filter, topic));
            let mut wanted: Vec<_> = matching.take(messages_max - messages.len()).collect();
            let fit = self.how_many_fit(&wanted, bytes_max.saturating_sub(bytes)).await?;
            let is_full = wanted.len() == messages_max - messages.len() || fit < wanted.len();
            wanted.truncate(fit);
            let last = wanted.last().cloned();
            let read = self.read_topics(wanted).await?;
            bytes += read.iter().map(|message| message.as_bytes().len()).sum::<usize>();
            messages.extend(read);
            after = if is_full { last } else { walk.complete_to };
            if after.is_none() {
                break;
            }
        }
        Ok(Reply::Retained(messages))
    }

    /// The next topics of all these partitions that begin with `prefix`, at most `topics_max` of each.
    async fn walk(
        &self,
        partitions: &[Partition],
        prefix: &str,
        after: Option<&str>,
        topics_max: usize,
    ) -> Result<Walk, StoreError> {
        let from = match after {
            Some(after) if after >= prefix => [b"(", after.as_bytes()].concat(),
            _ => [b"[", prefix.as_bytes()].concat(),
        };
        // No text has this byte, so it is behind all that begin with the prefix.
        let to = [b"(", prefix.as_bytes(), &[0xff]].concat();
        let pages = partitions.iter().map(|partition| {
            let mut command = redis::cmd("ZRANGEBYLEX");
            command.arg(self.server.key(*partition, "t")).arg(&*from).arg(&*to);
            command.arg("LIMIT").arg(0).arg(topics_max);
            async move { Answer::new(self.server.send(&command).await?) }
        });
        let (mut topics, mut complete_to) = (Vec::new(), None::<Box<str>>);
        for page in join_all(pages).await {
            let (mut page, before) = (page?, topics.len());
            while !page.is_empty() {
                topics.push(page.text()?);
            }
            if topics.len() - before == topics_max {
                let last = topics.last().cloned();
                complete_to = match complete_to {
                    Some(known) => last.map(|last| last.min(known)),
                    None => last,
                };
            }
        }
        if let Some(complete_to) = &complete_to {
            topics.retain(|topic| topic <= complete_to);
        }
        topics.sort_unstable();
        Ok(Walk { topics, complete_to })
    }

    /// How many of these topics' messages make so many bytes, the last of them beyond if need be: their sizes are known before they are read, since
    /// each may be as long as a packet. One of any always does.
    async fn how_many_fit(&self, topics: &[Box<str>], bytes_max: usize) -> Result<usize, StoreError> {
        if topics.len() <= 1 {
            return Ok(topics.len());
        }
        let mut by_partition = BTreeMap::<Partition, Vec<usize>>::new();
        for (place, topic) in topics.iter().enumerate() {
            by_partition.entry(Partition::of_topic(topic)).or_default().push(place);
        }
        let weighed = by_partition.into_iter().map(|(partition, places)| {
            let call = self.server.call("weigh", partition);
            let call = places.iter().fold(call, |call, place| call.arg(&*topics[*place]));
            async move { Ok::<_, StoreError>((places, self.server.answer(call).await?)) }
        });
        let mut weights = vec![0; topics.len()];
        for weighed in join_all(weighed).await {
            let (places, mut answer) = weighed?;
            answer.word()?;
            for place in places {
                weights[place] = answer.number()? as usize;
            }
        }
        let mut bytes = 0;
        let fit = weights.into_iter().take_while(|weight| {
            let has_room = bytes == 0 || bytes < bytes_max;
            bytes += weight;
            has_room
        });
        Ok(fit.count())
    }

    /// The messages of these topics that are still there and have not expired, in the same order.
    async fn read_topics(&self, topics: Vec<Box<str>>) -> Result<Vec<SharedMessage>, StoreError> {
        let mut by_partition = BTreeMap::<Partition, Vec<Box<str>>>::new();
        for topic in topics {
            by_partition.entry(Partition::of_topic(&topic)).or_default().push(topic);
        }
        let pages = by_partition.into_iter().map(|(partition, topics)| {
            let mut command = redis::cmd("HMGET");
            command.arg(self.server.key(partition, "r"));
            for topic in &topics {
                command.arg(&**topic);
            }
            async move { Answer::new(self.server.send(&command).await?) }
        });
        let now_ms = self.now_ms();
        let mut messages = Vec::new();
        for page in join_all(pages).await {
            let mut page = page?;
            while !page.is_empty() {
                let Some(bytes) = page.bytes_or_nil()? else { continue };
                let message = SharedMessage::from_bytes(bytes)
                    .map_err(|why| StoreError::Unreadable(format!("a retained message: {why}")))?;
                if !message.view().is_expired(now_ms) {
                    messages.push(message);
                }
            }
        }
        messages.sort_by(|a, b| a.view().topic.cmp(b.view().topic));
        Ok(messages)
    }
}

/// One full partition ends the walk of all, so many partitions are asked for less.
fn walked_topics_max(partitions: usize) -> usize {
    if partitions == 1 { TOPICS_MAX * 4 } else { TOPICS_MAX }
}

/// Topics that the first walk asks of each partition: twice its share of a page, since no page is evenly spread.
fn first_topics(messages_max: usize, partitions: usize) -> usize {
    if partitions == 1 {
        return walked_topics_max(1);
    }
    (messages_max / partitions * 2 + 8).min(walked_topics_max(partitions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_partitions_are_first_asked_for_little_more_than_a_page() {
        assert_eq!(first_topics(256, 256), 10);
        assert_eq!(first_topics(1, 256), 8);
        assert_eq!(first_topics(1_000_000, 256), TOPICS_MAX);
        assert_eq!(first_topics(1, 1), TOPICS_MAX * 4);
    }
}
