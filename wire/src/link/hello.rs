//! The opening of a link.

use crate::coding::{CodingError, Reader, Write};
use crate::ids::{BridgeId, NodeId, Owner, ShardId};

/// Version of the link's format. A bridge refuses any other with a text that names both.
pub const LINK_VERSION: u16 = 7;

/// The shard introduces itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// [`LINK_VERSION`] of the shard. Of another version nothing else is understood, so that the bridge can say so.
    pub version: u16,
    /// Which shard this is.
    pub shard: Owner,
    /// Frames that one of its devices may send again after a lost connection: those that it may have unacknowledged. The bridge remembers as many.
    pub receive_maximum: u16,
    /// The shared secret; empty where none is configured.
    pub secret: &'a [u8],
}

impl<'a> Hello<'a> {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_u16(self.version);
        out.put_u64(self.shard.node.0);
        out.put_u16(self.shard.shard.0);
        out.put_u16(self.receive_maximum);
        out.put_bytes(self.secret);
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, CodingError> {
        let version = reader.u16()?;
        if version != LINK_VERSION {
            reader.take(reader.rest().len())?;
            let shard = Owner { node: NodeId(0), shard: ShardId(0) };
            return Ok(Self { version, shard, receive_maximum: 0, secret: &[] });
        }
        Ok(Self {
            version,
            shard: Owner { node: NodeId(reader.u64()?), shard: ShardId(reader.u16()?) },
            receive_maximum: reader.u16()?,
            secret: reader.bytes()?,
        })
    }
}

/// The bridge accepts the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// [`LINK_VERSION`] of the bridge.
    pub version: u16,
    /// Which bridge this is.
    pub bridge: BridgeId,
    /// How many bytes of unsettled uplink records the shard may have outstanding; the shard stops reading from devices at
    /// this bound and drops QoS 0, so it is what bounds the memory of both sides. Wills alone may pass it, by a few MiB.
    pub window_bytes: u32,
}

impl Welcome {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_u16(self.version);
        out.put_u64(self.bridge.0);
        out.put_u32(self.window_bytes);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, CodingError> {
        Ok(Self { version: reader.u16()?, bridge: BridgeId(reader.u64()?), window_bytes: reader.u32()? })
    }
}
