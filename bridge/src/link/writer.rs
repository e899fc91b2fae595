//! Writes what a link's shard is told, as much at once as there is.

use std::sync::Arc;

use tokio::time::timeout;

use super::peer::{Closing, Peer};
use super::stream::WriteHalf;
use crate::core::Core;

/// A buffer that a burst has grown beyond this is not kept.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// Runs until the link is closed and everything before that is written, or the shard takes nothing for [`stuck_after`](crate::BridgeConfig::stuck_after).
pub(super) async fn write(core: Arc<Core>, peer: Arc<Peer>, mut stream: WriteHalf) {
    let stuck_after = core.config.stuck_after;
    let mut buffer = Vec::new();
    while peer.take(&mut buffer).await.is_ok() {
        let mut rest = &buffer[..];
        while !rest.is_empty() {
            match timeout(stuck_after, stream.write(rest)).await {
                Ok(Ok(written)) if written > 0 => rest = &rest[written..],
                Ok(_) => return peer.close(Closing::Broken),
                Err(_) => return peer.close(Closing::Stuck),
            }
        }
        core.counters.bytes_out.increment(buffer.len() as u64);
        buffer.clear();
        if buffer.capacity() > BUFFER_BYTES_KEPT {
            buffer = Vec::new();
        }
    }
}
