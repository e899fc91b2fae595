//! What each stream weighs, so that the heaviest is found at once when the store has no room left.

use std::collections::BTreeMap;

use holdfast_wire::session_record::StreamKey;

use super::change::StreamId;

/// Bytes of encoded messages by stream. Never longer than the number of streams that hold messages.
#[derive(Default)]
pub(crate) struct Weights {
    /// Of equally heavy streams the youngest comes last, so that every implementation finds the same one.
    by_bytes: BTreeMap<(u64, StreamId), StreamKey>,
    total: u64,
}

impl Weights {
    /// Bytes in all streams.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// A stream that weighed `from` weighs `to` now.
    pub(crate) fn change(&mut self, id: StreamId, key: &StreamKey, from: u64, to: u64) {
        if from == to {
            return;
        }
        self.total = self.total - from + to;
        let known = self.by_bytes.remove(&(from, id));
        if to > 0 {
            self.by_bytes.insert((to, id), known.unwrap_or_else(|| key.clone()));
        }
    }

    /// The heaviest stream, and what the next one weighs.
    pub(crate) fn heaviest(&self) -> Option<(&StreamKey, u64)> {
        let mut heaviest_first = self.by_bytes.iter().rev();
        let (_, key) = heaviest_first.next()?;
        Some((key, heaviest_first.next().map_or(0, |((bytes, _), _)| *bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> StreamKey {
        StreamKey::Device(name.into())
    }

    #[test]
    fn the_heaviest_stream_is_known_through_every_change() {
        let mut weights = Weights::default();
        weights.change(1, &key("a"), 0, 10);
        weights.change(2, &key("b"), 0, 7);
        assert_eq!((weights.heaviest(), weights.total()), (Some((&key("a"), 7)), 17));
        weights.change(1, &key("a"), 10, 3);
        assert_eq!((weights.heaviest(), weights.total()), (Some((&key("b"), 3)), 10));
        weights.change(2, &key("b"), 7, 0);
        weights.change(1, &key("a"), 3, 0);
        assert_eq!((weights.heaviest(), weights.total()), (None, 0));
    }
}
