//! Ports that are still free when a process that was killed is started again.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below those that the system gives to outgoing connections: any of these could take the place of a listener while its process is dead.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

/// A loopback address that nobody listens on, another one at each call.
///
/// # Panics
/// When all are taken.
pub(crate) fn free_address() -> SocketAddr {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Test processes that run at the same time begin at different places.
    let start = std::process::id().wrapping_mul(7_919);
    (0..COUNT)
        .map(|_| start.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % COUNT)
        .map(|place| SocketAddr::from(([127, 0, 0, 1], (FIRST + place) as u16)))
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("one of 12,000 ports is free")
}
