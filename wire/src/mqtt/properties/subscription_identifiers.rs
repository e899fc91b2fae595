//! The subscription identifiers of a PUBLISH: one for each matching subscription that has one `[MQTT-3.3.4-4]`.

use std::fmt;

use super::super::reader::Reader;
use super::{PropertyId, seek};

/// A view of the subscription identifiers of a PUBLISH, each 1 to 268,435,455. Decoded ones are read again from
/// the packet's bytes at each iteration; ones to be encoded come [`From`] a slice.
#[derive(Clone, Copy)]
pub struct SubscriptionIdentifiers<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    /// A stretch of a validated property block, which may hold other properties between.
    Block(&'a [u8]),
    Numbers(&'a [u32]),
}

impl<'a> SubscriptionIdentifiers<'a> {
    /// None at all.
    pub const EMPTY: Self = Self(Source::Numbers(&[]));

    /// `block` begins at a subscription identifier and has passed a packet's decoder.
    pub(super) const fn from_validated_block(block: &'a [u8]) -> Self {
        Self(Source::Block(block))
    }

    /// The identifiers in the packet's order.
    pub fn iter(&self) -> SubscriptionIdentifiersIter<'a> {
        SubscriptionIdentifiersIter(self.0)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        match self.0 {
            Source::Block(block) => block.is_empty(),
            Source::Numbers(numbers) => numbers.is_empty(),
        }
    }
}

/// Iterates over [`SubscriptionIdentifiers`].
#[derive(Clone)]
pub struct SubscriptionIdentifiersIter<'a>(Source<'a>);

impl Iterator for SubscriptionIdentifiersIter<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        match &mut self.0 {
            Source::Block(block) => {
                let mut reader = Reader::new(block);
                if !seek(&mut reader, PropertyId::SubscriptionIdentifier) {
                    *block = &[];
                    return None;
                }
                let identifier = reader.variable_integer().ok()?;
                *block = reader.rest();
                Some(identifier)
            }
            Source::Numbers(numbers) => {
                let (first, rest) = numbers.split_first()?;
                *numbers = rest;
                Some(*first)
            }
        }
    }
}

impl<'a> IntoIterator for &SubscriptionIdentifiers<'a> {
    type Item = u32;
    type IntoIter = SubscriptionIdentifiersIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a> From<&'a [u32]> for SubscriptionIdentifiers<'a> {
    fn from(numbers: &'a [u32]) -> Self {
        Self(Source::Numbers(numbers))
    }
}

impl Default for SubscriptionIdentifiers<'_> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl PartialEq for SubscriptionIdentifiers<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscriptionIdentifiers<'_> {}

impl fmt::Debug for SubscriptionIdentifiers<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}
