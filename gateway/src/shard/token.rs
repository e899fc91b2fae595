//! What an event of the poll is about, packed into its token.

use holdfast_engine::ConnectionId;
use mio::Token;

/// The sources of events of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The mailbox.
    Mailbox,
    /// A listener, by its place in the shard's list.
    Listener(u16),
    /// A link, by its index.
    Link(u16),
    /// A client socket. The generation makes an event for a socket that was closed earlier in the same batch miss the
    /// next holder of its slot.
    Connection(ConnectionId),
}

/// Not a slot of the engine: it would have four billion connections.
const NO_SLOT: u32 = u32::MAX;

const MAILBOX: u32 = 0;
const LISTENERS: u32 = 1 << 16;
const LINKS: u32 = 2 << 16;

impl Source {
    /// Packs it: slot in the low half, generation in the high half.
    pub(super) fn token(self) -> Token {
        let (high, low) = match self {
            Self::Mailbox => (MAILBOX, NO_SLOT),
            Self::Listener(place) => (LISTENERS | u32::from(place), NO_SLOT),
            Self::Link(index) => (LINKS | u32::from(index), NO_SLOT),
            Self::Connection(id) => (id.generation, id.slot),
        };
        Token((high as usize) << 32 | low as usize)
    }

    /// Unpacks a token made by [`token`](Self::token).
    pub(super) fn of(token: Token) -> Self {
        let (high, low) = ((token.0 >> 32) as u32, token.0 as u32);
        if low != NO_SLOT {
            return Self::Connection(ConnectionId { slot: low, generation: high });
        }
        match high & 0xffff_0000 {
            LISTENERS => Self::Listener(high as u16),
            LINKS => Self::Link(high as u16),
            _ => Self::Mailbox,
        }
    }
}

const _: () = assert!(size_of::<usize>() == 8, "a token holds a slot and a generation of 32 bits each");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_survives_its_token() {
        let connection = |slot, generation| Source::Connection(ConnectionId { slot, generation });
        for source in [
            Source::Mailbox,
            Source::Listener(0),
            Source::Listener(u16::MAX),
            Source::Link(0),
            Source::Link(u16::MAX),
            connection(0, 0),
            connection(u32::MAX - 1, u32::MAX),
        ] {
            assert_eq!(Source::of(source.token()), source);
        }
    }
}
