//! The way down, as far as the shell has a part in it.

use crate::client::{Client, PUBLISH};
use crate::{World, wait_until};

#[test]
fn a_message_reaches_the_subscribers_of_all_shards() {
    let world = World::start();
    let mut clients: Vec<Client> = (0..20).map(|index| world.connect(&format!("client-{index}"))).collect();
    for client in &mut clients {
        client.subscribe("news/#");
    }
    world.bridge.deliver("news/sports", b"2:1");
    for client in &mut clients {
        let packet = client.read();
        assert_eq!((packet.first, packet.body.ends_with(b"2:1")), (PUBLISH, true), "{packet:?}");
    }
}

#[test]
fn a_device_that_does_not_read_is_bounded_and_the_others_get_everything() {
    const MESSAGES: usize = 400;
    let world = World::start_with(|config| config.shards = 1);
    let mut slow = world.connect("slow");
    slow.subscribe("news");
    let mut swift = world.connect("swift");
    swift.subscribe("news");
    let payload = vec![7; 100_000];
    for _ in 0..MESSAGES {
        world.bridge.deliver("news", &payload);
        assert_eq!(swift.read().body.len(), payload.len() + 6);
    }
    swift.ping();
    // 40 MB were sent; the slow one finds what fitted into its buffers, or was cut, and no half packet.
    slow.stream.set_read_timeout(Some(crate::DEADLINE)).unwrap();
    let mut received = 0;
    slow.send(&[0xc0, 0]);
    while let Some(packet) = slow.read_or_end() {
        if packet.first == crate::client::PINGRESP {
            break;
        }
        assert_eq!(packet.body.len(), payload.len() + 6);
        received += 1;
    }
    assert!(received < MESSAGES, "the kernel's buffers and the bound hold less than {received} messages");
}

#[test]
fn a_large_message_arrives_whole_at_a_device_that_reads_slowly() {
    let world = World::start();
    let mut client = world.connect("slow");
    client.subscribe("firmware");
    let payload: Vec<u8> = (0..3_000_000_u32).map(|index| index as u8).collect();
    world.bridge.deliver("firmware", &payload);
    let mut bytes = Vec::new();
    let mut chunk = [0; 777];
    wait_until("it has arrived", || {
        let length = std::io::Read::read(&mut client.stream, &mut chunk).unwrap();
        bytes.extend_from_slice(&chunk[..length]);
        bytes.len() >= payload.len() + 15
    });
    assert!(bytes.ends_with(&payload));
    client.ping();
}
