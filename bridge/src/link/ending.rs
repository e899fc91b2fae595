//! Why links end, for the log and for metrics.

use holdfast_wire::link::LinkError;
use holdfast_wire::topic::TopicError;

use super::peer::{Closing, PeerGone};
use crate::sink::SinkClosed;

/// Why a link ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ending {
    #[error("the shard closed it")]
    Closed,
    #[error("{0}")]
    Gone(Closing),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Garbage(#[from] LinkError),
    #[error("the filter {0:?} {1}")]
    Filter(String, TopicError),
    #[error("a record came that has no place there")]
    OutOfPlace,
    #[error("no Hello came within 5 s")]
    Silent,
    #[error("the session store has not said within 5 s which filters persistent sessions hold")]
    Unready,
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Sink(#[from] SinkClosed),
    #[error("the bridge is draining")]
    Drained,
}

impl From<PeerGone> for Ending {
    fn from(PeerGone(why): PeerGone) -> Self {
        Self::Gone(why)
    }
}

impl Ending {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Gone(Closing::Replaced | Closing::Ended) => "gone",
            Self::Gone(Closing::Silent) | Self::Silent => "silent",
            Self::Gone(Closing::Stuck) => "stuck",
            Self::Gone(Closing::Broken) | Self::Io(_) => "io",
            Self::Garbage(_) | Self::Filter(..) | Self::OutOfPlace => "garbage",
            Self::Unready => "unready",
            Self::Refused(_) => "refused",
            Self::Sink(_) => "sink",
            Self::Drained => "drained",
        }
    }
}
