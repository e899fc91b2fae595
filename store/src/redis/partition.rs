//! Which slot something is in.
//!
//! Keys are divided into a fixed number of partitions, and all keys of a partition share its number as hash tag (`hf{17}:…`), so
//! they are in one slot of a cluster. A client, a filter or a topic belongs to a partition by a hash of its text, so that no text,
//! however long and with whatever braces in it, can choose its slot.

use holdfast_wire::session_record::StreamKey;

/// How many partitions there are: part of the format. A cluster of up to some fifty masters is evenly loaded by it, and asking
/// all of them takes one server about a millisecond.
pub(super) const PARTITIONS: u16 = 256;

/// One of [`PARTITIONS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Partition(pub(super) u16);

impl Partition {
    /// What belongs to no client, filter or topic.
    pub(super) const FIRST: Self = Self(0);

    /// A client's session and its stream.
    pub(super) fn of_client(client: &str) -> Self {
        Self::of(client)
    }

    /// A lock, or the count of a group's members.
    pub(super) fn of_name(name: &str) -> Self {
        Self::of(name)
    }

    /// A filter's stream.
    pub(super) fn of_filter(filter: &str) -> Self {
        Self::of(filter)
    }

    /// A stream.
    pub(super) fn of_stream(stream: &StreamKey) -> Self {
        match stream {
            StreamKey::Filter(text) | StreamKey::Device(text) => Self::of(text),
        }
    }

    /// A topic's retained message: by its first two levels, so that `devices/7/#` looks into one partition and the devices
    /// still spread over all.
    pub(super) fn of_topic(topic: &str) -> Self {
        Self::of(first_two_levels(topic))
    }

    /// Where retained messages are that match `filter`.
    pub(super) fn of_topics(filter: &str) -> Vec<Self> {
        let begin = first_two_levels(filter);
        let is_exact = !begin.contains(['+', '#']);
        // `a/#` holds `a` too, which has one level; but there the second level is a wildcard already.
        if is_exact { vec![Self::of(begin)] } else { Self::all().collect() }
    }

    /// All of them.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..PARTITIONS).map(Self)
    }

    /// The name that all its keys begin with, and that its functions are given.
    pub(super) fn key(self, prefix: &str) -> String {
        format!("{prefix}{{{}}}", self.0)
    }

    /// Its number, to index a table.
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }

    fn of(text: &str) -> Self {
        Self((hash(text.as_bytes()) % u64::from(PARTITIONS)) as u16)
    }
}

fn first_two_levels(topic: &str) -> &str {
    topic.match_indices('/').nth(1).map_or(topic, |(at, _)| &topic[..at])
}

/// FNV-1a with its bits stirred at the end; part of the format, so it may never change.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partitions_of_names_never_change() {
        let names = ["", "a", "devices/7/push", "device-00000001"];
        assert_eq!(names.map(|name| Partition::of_client(name).0), [127, 113, 163, 104]);
    }

    #[test]
    fn numbered_devices_spread_evenly() {
        let mut counts = [0_u32; PARTITIONS as usize];
        for number in 0..256_000 {
            counts[Partition::of_client(&format!("device-{number:08}")).index()] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_filter_looks_where_its_topics_are() {
        for (filter, topics) in [
            ("a", vec!["a"]),
            ("a/b", vec!["a/b"]),
            ("a/b/#", vec!["a/b", "a/b/c", "a/b/c/d"]),
            ("a/b/+", vec!["a/b/", "a/b/c"]),
            ("/b/+", vec!["/b/x"]),
        ] {
            for topic in topics {
                assert_eq!(Partition::of_topics(filter), [Partition::of_topic(topic)], "{filter} {topic}");
            }
        }
        for filter in ["#", "a/#", "a/+", "+/b/c"] {
            assert_eq!(Partition::of_topics(filter).len(), usize::from(PARTITIONS), "{filter}");
        }
    }
}
