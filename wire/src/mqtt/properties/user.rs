//! User properties: pairs of strings, any number of them, in an order that is kept `[MQTT-3.3.2-18]`.

use std::fmt;

use super::super::reader::Reader;
use super::{PropertyId, seek};

/// A view of the user properties of a packet. Decoded ones are read again from the packet's bytes at each
/// iteration; ones to be encoded come [`From`] a slice of pairs.
#[derive(Clone, Copy)]
pub struct UserProperties<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    /// A stretch of a validated property block, which may hold other properties between.
    Block(&'a [u8]),
    Pairs(&'a [(&'a str, &'a str)]),
}

impl<'a> UserProperties<'a> {
    /// None at all.
    pub const EMPTY: Self = Self(Source::Pairs(&[]));

    /// `block` begins at a user property and has passed a packet's decoder.
    pub(super) const fn from_validated_block(block: &'a [u8]) -> Self {
        Self(Source::Block(block))
    }

    /// Names and values in the sender's order. Names may repeat.
    pub fn iter(&self) -> UserPropertiesIter<'a> {
        UserPropertiesIter(self.0)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        match self.0 {
            Source::Block(block) => block.is_empty(),
            Source::Pairs(pairs) => pairs.is_empty(),
        }
    }

    /// The value of the first property with this name.
    pub fn find(&self, name: &str) -> Option<&'a str> {
        self.iter().find(|(candidate, _)| *candidate == name).map(|(_, value)| value)
    }
}

/// Iterates over [`UserProperties`].
#[derive(Clone)]
pub struct UserPropertiesIter<'a>(Source<'a>);

impl<'a> Iterator for UserPropertiesIter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::Block(block) => {
                let mut reader = Reader::new(block);
                if !seek(&mut reader, PropertyId::UserProperty) {
                    *block = &[];
                    return None;
                }
                let name = reader.string().ok()?;
                let value = reader.string().ok()?;
                *block = reader.rest();
                Some((name, value))
            }
            Source::Pairs(pairs) => {
                let (first, rest) = pairs.split_first()?;
                *pairs = rest;
                Some(*first)
            }
        }
    }
}

impl<'a> IntoIterator for &UserProperties<'a> {
    type Item = (&'a str, &'a str);
    type IntoIter = UserPropertiesIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a> From<&'a [(&'a str, &'a str)]> for UserProperties<'a> {
    fn from(pairs: &'a [(&'a str, &'a str)]) -> Self {
        Self(Source::Pairs(pairs))
    }
}

impl Default for UserProperties<'_> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl fmt::Debug for UserProperties<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}
