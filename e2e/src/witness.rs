//! An honest client beside whatever a test does to the gateway: its round trips must not be harmed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::packet::{self, Version, kind};
use crate::{Client, unique, wait};

/// What a round trip may take on a machine that is busy with the test itself. A gateway that is wedged by a peer takes
/// much longer.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(2);

/// Publishes to itself, QoS 1, again and again, until it is asked.
#[derive(Debug)]
pub struct Witness {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Testimony>>,
}

#[derive(Debug)]
struct Testimony {
    round_trips: u32,
    slowest: Duration,
}

impl Witness {
    /// Starts; returns once the first round trip is done.
    ///
    /// # Panics
    /// When it cannot connect.
    pub fn start(mqtt: SocketAddr) -> Self {
        let topic = unique("witness");
        let mut client = Client::open(mqtt, Version::V311, &topic);
        assert_eq!(client.subscribe(&topic, 1), 1);
        round_trip(&mut client, &topic, 1);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut testimony = Testimony { round_trips: 0, slowest: Duration::ZERO };
            while !stopped.load(Ordering::Relaxed) {
                let took = round_trip(&mut client, &topic, (testimony.round_trips % 60_000) as u16 + 1);
                testimony.slowest = testimony.slowest.max(took);
                testimony.round_trips += 1;
                wait::pause(Duration::from_millis(2));
            }
            testimony
        });
        Self { stop, thread: Some(thread) }
    }

    /// Ends it.
    ///
    /// # Panics
    /// When it was harmed: cut off, left without an answer, or kept waiting.
    pub fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("finished once");
        let testimony = thread.join().expect("the honest client was harmed");
        assert!(testimony.round_trips > 0, "the honest client had no turn");
        assert!(testimony.slowest < ROUND_TRIP_MAX, "the honest client waited {:?}", testimony.slowest);
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// PUBLISH out, PUBACK and the delivery in, in whichever order, PUBACK out.
fn round_trip(client: &mut Client, topic: &str, id: u16) -> Duration {
    let started = Instant::now();
    client.send(&packet::publish(Version::V311, 1, topic, id, b"still here"));
    let (mut acknowledged, mut delivered) = (false, false);
    while !(acknowledged && delivered) {
        let packet = client.receive();
        if packet.kind() == kind::PUBACK {
            assert_eq!(packet.id(), id);
            acknowledged = true;
        } else {
            let push = packet.publish(Version::V311);
            assert_eq!(push.payload, b"still here");
            client.send(&packet::acknowledge(kind::PUBACK, push.id));
            delivered = true;
        }
    }
    started.elapsed()
}
