//! Peers that are broken or hostile: each costs only its own connection.

use crate::client::{Client, connect_311, packet};
use crate::{World, wait_until};

#[test]
fn whatever_a_peer_sends_first_only_its_own_connection_ends() {
    let world = World::start();
    let mut honest = world.connect("honest");
    let hostile: [&[u8]; 8] = [
        b"GET / HTTP/1.1\r\n\r\n",
        // PINGREQ before CONNECT.
        &[0xc0, 0],
        // A remaining length of five bytes.
        &[0x10, 0xff, 0xff, 0xff, 0xff, 0x01],
        // 268 MB announced.
        &[0x10, 0xff, 0xff, 0xff, 0x7f],
        // A packet type that does not exist.
        &[0x00, 0x00],
        &packet(0x10, b"\0\x04MQTT\x09\x02\0\0\0\x01c"),
        &packet(0x10, b"\0\x06MQIsdp\x03\x02\0\0\0\x01c"),
        &[0xff; 2_000],
    ];
    for bytes in hostile {
        let mut client = Client::open(world.mqtt());
        client.send(bytes);
        // Some hear a CONNACK with the reason first.
        wait_until("it is closed", || client.read_or_end().is_none());
    }
    honest.ping();
    wait_until("their places are free again", || world.connections() == 1);
}

#[test]
fn a_peer_that_vanishes_in_the_middle_of_a_packet_leaves_nothing_behind() {
    let world = World::start();
    for cut in 1..connect_311("client").len() {
        Client::open(world.mqtt()).send(&connect_311("client")[..cut]);
    }
    wait_until("their places are free again", || world.connections() == 0);
}
