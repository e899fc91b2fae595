//! From a message to the shards whose sessions hear it, and to those who are away.
//!
//! `interest` says who wants a message; `deliver` sends it to them once it may be heard, asking `owner` where a device is; `group` sees one message of a
//! shared subscription through to a member, as one of the `awaited`; `retained` answers new subscriptions; [`Publication`] takes a message of our own (a
//! push to a topic) the whole way. Knows nothing of sockets: a link is a [`Peer`](crate::link::Peer) that takes records.

mod awaited;
mod deliver;
mod group;
mod interest;
mod owner;
mod publish;
mod retained;

pub(crate) use awaited::AwaitedReports;
pub(crate) use deliver::FanOut;
pub(crate) use group::remind;
pub(crate) use interest::{InterestTable, LinkId, Owes};
pub(crate) use owner::Owners;
pub(crate) use publish::{Publication, Published, has_lost_its_data, untold_streams};
pub(crate) use retained::RetainedReads;
