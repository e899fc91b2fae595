//! From a message to the shards whose sessions hear it, and to those who are away.
//!
//! `interest` says who wants a message; `deliver` sends it to them once it may be heard; `group` sees one message of a shared
//! subscription through to a member; `retained` answers new subscriptions; [`Publication`] takes a message of our own (a push to a topic) the
//! whole way. Knows nothing of sockets: a link is a [`Peer`](crate::link::Peer) that takes records.

mod deliver;
mod group;
mod interest;
mod publish;
mod retained;

pub(crate) use deliver::FanOut;
pub(crate) use interest::{InterestTable, LinkId, Owes};
pub(crate) use publish::{Publication, Published, device_stream};
pub(crate) use retained::{PageRead, answer_reads};
