//! Bytes without a plan, from seeds that are the same in every run.

use std::time::Duration;

use holdfast_e2e::packet::{Connect, Version, publish, subscribe};
use holdfast_e2e::{Client, Gateway, Witness};

use super::Memory;

/// Xorshift: enough to be different each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

#[test]
fn random_bytes_cost_only_their_connection() {
    let gateway = Gateway::start();
    let witness = Witness::start(gateway.mqtt());
    let memory = Memory::of(&gateway);
    for address in [gateway.mqtt(), gateway.ws()] {
        for seed in 1..=300 {
            let mut random = Random(seed * 0x9E37_79B9);
            let bytes: Vec<u8> = (0..random.below(2000)).map(|_| random.next() as u8).collect();
            let mut client = Client::dial(address, Version::V5);
            // The gateway may be faster with its close than the peer with its bytes.
            let _ = client.try_send(&bytes);
            client.cut();
        }
    }
    memory.assert_flat(8);
    witness.finish();
}

#[test]
fn conversations_with_wrong_bytes_cost_only_their_connection() {
    let gateway = Gateway::start();
    let witness = Witness::start(gateway.mqtt());
    let memory = Memory::of(&gateway);
    for seed in 1..=200 {
        let version = if seed % 2 == 0 { Version::V311 } else { Version::V5 };
        let mut random = Random(seed * 0x51_7CC1);
        let mut bytes = [
            Connect::new(version, "mutant").will("mutant/will", b"x", &[]).encode(),
            subscribe(version, 1, "mutant/#", 1),
            publish(version, 1, "mutant/a", 2, b"payload"),
            publish(version, 2, "mutant/b", 3, b"payload"),
        ]
        .concat();
        for _ in 0..=random.below(4) {
            match random.below(3) {
                0 => {
                    let place = random.below(bytes.len());
                    bytes[place] = random.next() as u8;
                }
                1 => {
                    let place = random.below(bytes.len());
                    bytes.remove(place);
                }
                _ => bytes.insert(random.below(bytes.len()), random.next() as u8),
            }
        }
        let mut client = Client::dial(gateway.mqtt(), version);
        let _ = client.try_send(&bytes);
        // Whatever it answers, it answers in well-formed packets, which the client's reader would not survive else.
        while client.poll(Duration::from_millis(20)).is_ok() {}
        client.cut();
    }
    memory.assert_flat(8);
    witness.finish();
}
