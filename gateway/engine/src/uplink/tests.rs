use super::*;
use holdfast_wire::link::{ToBridge, next_record};
use holdfast_wire::message::Message;

const WINDOW: u32 = 10_000;

fn id(slot: u32) -> ConnectionId {
    ConnectionId { slot, generation: 0 }
}

fn welcome(bridge: u64) -> Welcome {
    Welcome { version: 1, bridge: BridgeId(bridge), window_bytes: WINDOW }
}

fn frame(publisher: &'static str, payload: &'static [u8]) -> Frame<'static> {
    Frame {
        epoch: Epoch(1),
        packet_id: PacketId::new(1),
        dup: false,
        wants_receipt: false,
        event_time_ms: 0,
        message: Message {
            id: 0,
            topic: "t",
            qos: QoS::AtLeastOnce,
            retain: false,
            publisher,
            published_at_ms: 0,
            expires_at_ms: 0,
            properties: &[],
            payload,
        },
    }
}

fn said(uplinks: &mut Uplinks, link: u16) -> Vec<(u64, bool, Vec<u8>)> {
    let output = std::mem::take(uplinks.output(LinkIndex(link)));
    let mut bytes = &output[..];
    let mut said = Vec::new();
    while let Some(raw) = next_record(&mut bytes).unwrap() {
        if let ToBridge::Uplink(uplink) = ToBridge::decode(raw).unwrap() {
            said.push((uplink.sequence, uplink.resent, uplink.message.payload.to_vec()));
        }
    }
    said
}

#[test]
fn clients_spread_over_the_bridges_and_move_only_with_the_one_that_goes() {
    let mut uplinks = Uplinks::new(3);
    (0..3).for_each(|link| uplinks.up(LinkIndex(link), welcome(u64::from(link) * 7_919 + 1), |_| ()));
    let clients: Vec<_> = (0..3_000).map(|n| format!("device-{n}")).collect();
    let before: Vec<_> = clients.iter().map(|client| uplinks.choose(client).unwrap()).collect();
    for link in 0..3 {
        let share = before.iter().filter(|chosen| chosen.0 == link).count();
        assert!((850..1_150).contains(&share), "link {link} serves {share} of 3,000");
    }
    uplinks.down(LinkIndex(1), |_| ());
    for (client, before) in clients.iter().zip(before) {
        let after = uplinks.choose(client).unwrap();
        assert!(after == before || before == LinkIndex(1));
    }
}

#[test]
fn a_lost_link_hands_its_frames_on_in_order_and_marked_as_sent_again() {
    let mut uplinks = Uplinks::new(2);
    uplinks.up(LinkIndex(0), welcome(1), |_| ());
    for payload in [b"a", b"b", b"c"] {
        uplinks.offer(LinkIndex(0), id(1), Kind::QoS1, false, &frame("d", payload)).unwrap();
    }
    uplinks.settle(LinkIndex(0), Settled { first: 2, last: 2, reason_code: 0 }, |_| ());
    uplinks.up(LinkIndex(1), welcome(2), |_| ());
    let mut moved = Vec::new();
    uplinks.down(LinkIndex(0), |frame| moved.push(frame.to));
    assert_eq!(moved, [Some(LinkIndex(1)); 2]);
    assert_eq!(said(&mut uplinks, 1), [(1, true, b"a".to_vec()), (2, true, b"c".to_vec())]);
    let mut settled = 0;
    uplinks.settle(LinkIndex(1), Settled { first: 1, last: 2, reason_code: 0 }, |_| settled += 1);
    assert_eq!((settled, uplinks.unsettled()), (2, 0));
}

#[test]
fn without_any_link_frames_wait_for_the_next_one() {
    let mut uplinks = Uplinks::new(1);
    uplinks.up(LinkIndex(0), welcome(1), |_| ());
    uplinks.offer(LinkIndex(0), id(1), Kind::QoS1, false, &frame("d", b"a")).unwrap();
    uplinks.offer(LinkIndex(0), id(1), Kind::QoS0, false, &frame("d", b"0")).unwrap();
    let mut dropped = 0;
    uplinks.down(LinkIndex(0), |frame| dropped += usize::from(frame.dropped));
    assert_eq!((dropped, uplinks.unsettled()), (1, 1));
    assert_eq!(uplinks.offer(LinkIndex(0), id(1), Kind::QoS1, false, &frame("d", b"b")), Err(NoCredit));
    uplinks.up(LinkIndex(0), welcome(9), |_| ());
    assert_eq!(said(&mut uplinks, 0), [(3, true, b"a".to_vec())]);
}

#[test]
fn a_full_window_holds_back_and_wakes_who_waits_once_there_is_room() {
    let mut uplinks = Uplinks::new(1);
    uplinks.up(LinkIndex(0), welcome(1), |_| ());
    let mut offered = 0;
    while uplinks.offer(LinkIndex(0), id(1), Kind::QoS1, false, &frame("d", &[0; 500])).is_ok() {
        offered += 1;
    }
    uplinks.wait(Some(LinkIndex(0)), id(1));
    assert_eq!(uplinks.next_waiting(), None);
    uplinks.settle(LinkIndex(0), Settled { first: 1, last: offered / 2, reason_code: 0 }, |_| ());
    assert_eq!(uplinks.next_waiting(), Some(id(1)));
    assert_eq!(uplinks.next_waiting(), None);
}

#[test]
fn a_link_that_is_added_later_serves_its_clients_once_it_is_up() {
    let mut uplinks = Uplinks::new(1);
    let added = uplinks.add().unwrap();
    assert_eq!(uplinks.choose("d"), None);
    uplinks.up(added, welcome(2), |_| ());
    assert_eq!(uplinks.choose("d"), Some(added));
    assert_eq!((0..100).filter_map(|_| uplinks.add()).count(), 62, "64 in all");
}
