//! The way between a device and its gateway: bytes that are under way, bytes that the gateway's kernel holds, bytes that the device's kernel holds.
//!
//! Readiness is told once, as epoll's edges are: a socket is read when bytes arrive and the engine wants them, or when the engine
//! says that it wants them again. One that the engine forgets to wake is never read again, and the world does not come to rest.

use std::collections::VecDeque;

use holdfast_engine::ConnectionId;

/// Bytes that wait for a device that does not read; more, and the gateway's kernel takes no more.
const DEVICE_KERNEL_BYTES: usize = 100;

/// A device's connection.
pub(crate) struct Socket {
    pub(crate) shard: usize,
    pub(crate) id: ConnectionId,
    /// Sent by the device and not arrived.
    up: VecDeque<u8>,
    /// Arrived and not read by the gateway.
    unread: Vec<u8>,
    /// Arrived and not read by the device.
    down: Vec<u8>,
    /// The device reads.
    pub(crate) reads: bool,
    /// The gateway was told that its kernel takes no more.
    pub(crate) blocked: bool,
    pub(crate) connected: bool,
}

impl Socket {
    pub(crate) fn new(shard: usize, id: ConnectionId) -> Self {
        Self {
            shard,
            id,
            up: VecDeque::new(),
            unread: Vec::new(),
            down: Vec::new(),
            reads: true,
            blocked: false,
            connected: false,
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.up.extend(bytes);
    }

    /// Bytes that are under way to the gateway's kernel.
    pub(crate) fn under_way(&self) -> usize {
        self.up.len()
    }

    /// Whether nothing of the device's is left unread.
    pub(crate) fn is_read(&self) -> bool {
        self.up.is_empty() && self.unread.is_empty()
    }

    /// Whether the gateway's kernel holds something.
    pub(crate) fn is_ready(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Some bytes arrive at the gateway's kernel.
    pub(crate) fn arrive(&mut self, count: usize) {
        self.unread.extend(self.up.drain(..count));
    }

    /// The gateway reads what its kernel holds.
    pub(crate) fn read(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.unread)
    }

    /// The gateway writes. True if its kernel takes no more, the first time.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> bool {
        self.down.extend_from_slice(bytes);
        !self.reads && self.down.len() > DEVICE_KERNEL_BYTES && !std::mem::replace(&mut self.blocked, true)
    }

    /// The device reads what has arrived, if it reads.
    pub(crate) fn receive(&mut self) -> Vec<u8> {
        if self.reads { std::mem::take(&mut self.down) } else { Vec::new() }
    }

    /// What the device has read and cannot use yet.
    pub(crate) fn put_back(&mut self, mut rest: Vec<u8>) {
        rest.append(&mut self.down);
        self.down = rest;
    }
}
