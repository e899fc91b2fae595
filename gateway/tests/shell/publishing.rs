//! The way up, as far as the shell has a part in it.

use crate::bridge::WINDOW_BYTES;
use crate::client::{PUBACK, Packet};
use crate::{World, wait_until};

#[test]
fn a_qos_1_publication_is_acknowledged_only_once_the_bridge_settled_it() {
    let world = World::start();
    let mut client = world.connect("device");
    client.publish("sensors/1", 7, b"21.5");
    let uplink = world.bridge.wait_for_uplinks(1).remove(0);
    assert_eq!((uplink.client.as_str(), uplink.payload.as_slice()), ("device", &b"21.5"[..]));
    // The answer to the ping is the next packet: no PUBACK was on its way.
    client.ping();
    world.bridge.settle(&uplink);
    assert_eq!(client.read(), Packet { first: PUBACK, body: vec![0, 7] });
}

#[test]
fn a_device_that_sends_more_than_the_bridge_takes_is_held_back_and_loses_nothing() {
    const PUBLICATIONS: u16 = 200;
    const PAYLOAD_BYTES: usize = 10_000;
    let world = World::start();
    let mut client = world.connect("device");
    let mut sender = client.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        for packet_id in 1..=PUBLICATIONS {
            let body = [b"\0\x01t", &packet_id.to_be_bytes()[..], &[7; PAYLOAD_BYTES]].concat();
            std::io::Write::write_all(&mut sender, &crate::client::packet(0x32, &body)).unwrap();
        }
    });
    let mut settled = 0;
    for packet_id in 1..=PUBLICATIONS {
        if settled < usize::from(packet_id) {
            let uplinks = world.bridge.wait_for_uplinks(settled + 1);
            let unsettled_bytes = (uplinks.len() - settled) * PAYLOAD_BYTES;
            assert!(unsettled_bytes <= WINDOW_BYTES as usize + 2 * PAYLOAD_BYTES, "{unsettled_bytes} bytes");
            uplinks[settled..].iter().for_each(|uplink| world.bridge.settle(uplink));
            settled = uplinks.len();
        }
        assert_eq!(client.read(), Packet { first: PUBACK, body: packet_id.to_be_bytes().to_vec() });
    }
    sending.join().unwrap();
    client.ping();
}

#[test]
fn one_device_that_sends_without_end_leaves_the_others_their_turn() {
    let world = World::start_with(|config| config.shards = 1);
    let mut flooding = world.connect("flooding").stream;
    let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(0);
    let flood = std::thread::spawn(move || {
        let pings = [0xc0, 0].repeat(50_000);
        flooding.set_nonblocking(true).unwrap();
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            // Ends when the gateway closes it for not reading its answers; until then it floods.
            match std::io::Write::write(&mut flooding, &pings) {
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return,
                _ => std::thread::yield_now(),
            }
        }
    });
    let mut honest = world.connect("honest");
    (0..200).for_each(|_| honest.ping());
    drop(stop);
    flood.join().unwrap();
    wait_until("the flood is over", || world.connections() == 1);
}
