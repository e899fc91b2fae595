//! Every record survives its encoding, in any split of the stream; nothing else is taken for one.

use super::*;
use crate::ids::{BridgeId, Epoch, NodeId, Owner, ShardId};
use crate::mqtt::{PacketId, QoS};
use crate::session_record::{Cursor, StreamKey};

const MESSAGE: Message<'static> = Message {
    id: 5,
    topic: "a/b",
    qos: QoS::AtLeastOnce,
    retain: false,
    publisher: "device",
    published_at_ms: 1,
    expires_at_ms: 0,
    properties: &[],
    payload: b"x",
};
const OWNER: Owner = Owner { node: NodeId(1), shard: ShardId(2) };
const HANDOVER: Handover<'static> =
    Handover { client: "c", epoch: Epoch(8), owner: OWNER, session: b"state", owes_will: true };

fn to_bridge() -> Vec<ToBridge<'static>> {
    let interest =
        |kind| ToBridge::Interest(Interest { token: 3, wanted: true, kind, filter: "a/+", durable: true });
    let event = |kind| ToBridge::Event(Event { client: "c", epoch: Epoch(8), at_ms: 77, kind });
    vec![
        ToBridge::Hello(Hello {
            version: LINK_VERSION,
            shard: OWNER,
            receive_maximum: 32,
            secret: b"secret",
        }),
        ToBridge::Uplink(Uplink {
            sequence: 1,
            epoch: Epoch(7),
            packet_id: PacketId::new(4),
            dup: true,
            resent: false,
            wants_receipt: true,
            event_time_ms: 12,
            message: MESSAGE,
        }),
        interest(InterestKind::Filter),
        interest(InterestKind::Shared { group: "g", members: 4 }),
        interest(InterestKind::Personal { level: 1 }),
        ToBridge::RetainedRead(RetainedRead { token: 8, filter: "#", after: "a", messages_max: 9 }),
        ToBridge::Report(Report { delivery: 9, outcome: Outcome::QueueFull }),
        ToBridge::Handover(HANDOVER),
        ToBridge::HandoverSettled(HandoverSettled {
            client: "c",
            epoch: Epoch(8),
            former: OWNER,
            outcome: Outcome::Kept,
        }),
        ToBridge::Report(Report { delivery: 9, outcome: Outcome::InDoubt }),
        ToBridge::Takeover(Takeover { client: "c", epoch: Epoch(8), former: OWNER, owner: OWNER }),
        event(EventKind::Connected { protocol: "mqtt-5", session_present: true, session_expiry_s: 60 }),
        event(EventKind::Disconnected { reason: "keep_alive", session_ended: false }),
        event(EventKind::TakenOver),
        ToBridge::Alive,
    ]
}

fn to_gateway() -> Vec<ToGateway<'static>> {
    let deliver =
        |target, positions| ToGateway::Deliver(Deliver { delivery: 1, target, positions, message: MESSAGE });
    vec![
        ToGateway::Welcome(Welcome { version: 1, bridge: BridgeId(3), window_bytes: 1 << 20 }),
        ToGateway::Refused("wrong secret"),
        ToGateway::Settled(Settled { first: 1, last: 9, reason_code: 0 }),
        ToGateway::SettledAt(SettledAt {
            sequence: 10,
            duplicate: true,
            topic: "holdfast.frames",
            partition: 3,
            offset: 1 << 40,
        }),
        ToGateway::WindowBytes(5),
        ToGateway::InterestKnown(3),
        ToGateway::RetainedMessage { token: 8, message: MESSAGE },
        ToGateway::RetainedEnd { token: 8, more: true },
        deliver(Target::Subscribers, vec![]),
        deliver(Target::Device("c"), vec![Cursor { stream: StreamKey::Device("c".into()), acked: 4 }]),
        deliver(Target::Group { group: "g", filter: "a/+" }, vec![]),
        ToGateway::GroupWaits { group: "g", filter: "a/+" },
        ToGateway::Handover(HANDOVER),
        ToGateway::HandoverSettled(HandoverSettled {
            client: "c",
            epoch: Epoch(8),
            former: OWNER,
            outcome: Outcome::Kept,
        }),
        ToGateway::Takeover(Takeover { client: "c", epoch: Epoch(8), former: OWNER, owner: OWNER }),
        ToGateway::NotLinked { client: "c", epoch: Epoch(8) },
        ToGateway::Disconnect("c"),
        ToGateway::Alive,
    ]
}

#[test]
fn records_survive_their_encoding_one_behind_the_other() {
    let mut bytes = Vec::new();
    for record in to_bridge() {
        record.encode(&mut bytes);
    }
    let mut rest = &bytes[..];
    for expected in to_bridge() {
        let raw = next_record(&mut rest).unwrap().unwrap();
        assert_eq!(ToBridge::decode(raw), Ok(expected));
    }
    assert!(rest.is_empty());

    bytes.clear();
    for record in to_gateway() {
        record.encode(&mut bytes);
    }
    let mut rest = &bytes[..];
    for expected in to_gateway() {
        let raw = next_record(&mut rest).unwrap().unwrap();
        assert_eq!(ToGateway::decode(raw), Ok(expected));
    }
    assert!(rest.is_empty());
}

#[test]
fn a_record_that_has_not_arrived_whole_is_left_alone() {
    for record in to_bridge() {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        for length in 0..bytes.len() {
            let mut prefix = &bytes[..length];
            assert!(next_record(&mut prefix).unwrap().is_none());
            assert_eq!(prefix.len(), length);
        }
    }
}

#[test]
fn a_body_cut_short_or_too_long_is_refused_with_its_kind() {
    for record in to_gateway() {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        // One without a body cannot be cut short.
        if record != ToGateway::Alive {
            let raw = RawRecord { kind: bytes[4], body: &bytes[5..bytes.len() - 1] };
            assert!(matches!(ToGateway::decode(raw), Err(LinkError::Body { .. })), "{record:?}");
        }
        bytes.push(0);
        let raw = RawRecord { kind: bytes[4], body: &bytes[5..] };
        assert!(matches!(ToGateway::decode(raw), Err(LinkError::Body { .. })), "{record:?}");
    }
}

#[test]
fn garbage_is_refused_before_it_is_buffered() {
    assert!(matches!(next_record(&mut &[0, 0, 0, 0][..]), Err(LinkError::Length(0))));
    assert!(matches!(next_record(&mut &b"GET / HTTP/1.1\r\n"[..]), Err(LinkError::Length(_))));
    let raw = RawRecord { kind: 99, body: &[] };
    assert_eq!(ToBridge::decode(raw), Err(LinkError::Kind(99)));
    assert_eq!(ToGateway::decode(raw), Err(LinkError::Kind(99)));
}

#[test]
fn a_hello_of_another_version_is_understood_as_far_as_its_version() {
    for version in [3, LINK_VERSION + 1] {
        let mut bytes = Vec::new();
        write_record(&mut bytes, HELLO, |out| {
            out.put_u16(version);
            out.extend_from_slice(b"whatever it says");
        });
        let raw = next_record(&mut &bytes[..]).unwrap().unwrap();
        let Ok(ToBridge::Hello(hello)) = ToBridge::decode(raw) else { panic!("not understood") };
        assert_eq!(hello.version, version);
    }
}

#[test]
fn a_handover_says_who_owes_the_will_in_its_last_byte() {
    let mut bytes = Vec::new();
    ToGateway::Handover(HANDOVER).encode(&mut bytes);
    let mut expected = vec![0, 0, 0, 0, super::HANDOVER];
    expected.extend([1, 0, b'c']);
    expected.extend([8, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend(OWNER.node.0.to_le_bytes());
    expected.extend(OWNER.shard.0.to_le_bytes());
    expected.extend([5, 0, 0, 0]);
    expected.extend(b"state");
    expected.push(1);
    expected[0] = (expected.len() - 4) as u8;
    assert_eq!(bytes, expected);
}
