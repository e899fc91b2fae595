//! Devices against a scripted gateway on a real socket: each script is what the gateway does, line by line.

use std::time::Duration;

use holdfast_wire::mqtt::{
    AckProperties, ConnAck, ConnAckProperties, FixedHeader, Packet, PacketType, ProtocolVersion, PubAck,
    Publish, PublishProperties, ReasonCode, SubAck,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::fleet::{Fleet, FleetResult, Targets};
use crate::ledger::{DeviceRecord, ObservedRecord};
use crate::payload::{Direction, Form, Stamp};
use crate::plan::{FleetPlan, Mix};

const V: ProtocolVersion = ProtocolVersion::V311;

/// One device of MQTT 3.1.1 with ten frames to send at once.
fn plan() -> FleetPlan {
    FleetPlan {
        devices: 1,
        mix: Mix { mqtt_311: 1, mqtt_5: 0, mqtt_websocket: 0, json: 0 },
        run: Some(77),
        frames_per_s: 1_000.0,
        ramp_s: 0.0,
        duration_s: 0.01,
        drain_s: 20.0,
        inflight_max: 4,
        pushes_per_s: 0.0,
        ..FleetPlan::default()
    }
}

struct Gateway {
    listener: TcpListener,
}

/// The gateway's end of one connection.
struct Peer {
    stream: TcpStream,
    bytes: Vec<u8>,
}

/// A PUBLISH, kept.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    packet_id: u16,
    dup: bool,
    payload: Vec<u8>,
}

impl Gateway {
    async fn open() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    fn fleet(&self, plan: FleetPlan) -> Fleet {
        let address = self.listener.local_addr().unwrap();
        Fleet::start(plan, Targets::one(address, address, None)).unwrap()
    }

    async fn accept(&self) -> Peer {
        let (stream, _) = within(self.listener.accept()).await.unwrap();
        Peer { stream, bytes: Vec::new() }
    }

    /// Accepts, checks CONNECT, answers.
    async fn admit(&self, session_present: bool) -> Peer {
        let mut peer = self.accept().await;
        let clean = peer.expect(PacketType::Connect, |packet| match packet {
            Packet::Connect(connect) => connect.clean_start,
            other => panic!("{other:?}"),
        });
        assert!(!clean.await);
        let properties = ConnAckProperties::default();
        peer.say(&Packet::ConnAck(ConnAck { session_present, reason_code: ReasonCode::Success, properties }))
            .await;
        peer
    }

    async fn admit_and_subscribe(&self) -> Peer {
        let mut peer = self.admit(false).await;
        let packet_id = peer
            .expect(PacketType::Subscribe, |packet| match packet {
                Packet::Subscribe(subscribe) => subscribe.packet_id,
                other => panic!("{other:?}"),
            })
            .await;
        peer.say(&Packet::SubAck(SubAck {
            packet_id,
            properties: AckProperties::default(),
            reason_codes: &[1],
        }))
        .await;
        peer
    }
}

impl Peer {
    async fn say(&mut self, packet: &Packet<'_>) {
        let mut out = Vec::new();
        packet.encode(V, &mut out);
        self.stream.write_all(&out).await.unwrap();
    }

    async fn expect<T>(&mut self, packet_type: PacketType, read: impl FnOnce(Packet<'_>) -> T) -> T {
        loop {
            if let Some(header) = FixedHeader::decode(&self.bytes).unwrap()
                && self.bytes.len() >= header.packet_length()
            {
                assert_eq!(header.packet_type, packet_type);
                let packet: Vec<u8> = self.bytes.drain(..header.packet_length()).collect();
                return read(Packet::decode(header, &packet[header.header_length.into()..], V).unwrap());
            }
            assert!(within(self.stream.read_buf(&mut self.bytes)).await.unwrap() > 0, "closed by the device");
        }
    }

    async fn frame(&mut self) -> Seen {
        self.expect(PacketType::Publish, |packet| match packet {
            Packet::Publish(publish) => Seen {
                packet_id: publish.packet_id.unwrap().get(),
                dup: publish.dup,
                payload: publish.payload.to_vec(),
            },
            other => panic!("{other:?}"),
        })
        .await
    }

    async fn ack(&mut self, frame: &Seen) {
        let packet_id = holdfast_wire::mqtt::PacketId::new(frame.packet_id).unwrap();
        self.say(&Packet::PubAck(PubAck::success(packet_id))).await;
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("within the deadline")
}

fn observe(result: &mut FleetResult, frame: &Seen) {
    let record = ObservedRecord {
        client_id: "device-0",
        payload: &frame.payload,
        resent: frame.dup,
        partition: 0,
        offset: 0,
    };
    result.observe(record);
}

#[tokio::test]
async fn unanswered_frames_come_again_with_dup_and_the_same_ids_after_the_connection_is_dropped() {
    let gateway = Gateway::open().await;
    let fleet = gateway.fleet(plan());
    let mut peer = gateway.admit_and_subscribe().await;
    let mut first = Vec::new();
    for _ in 0..4 {
        first.push(peer.frame().await);
    }
    peer.ack(&first[0]).await;
    // The fifth frame proves that the ack was taken; then the gateway dies.
    first.push(peer.frame().await);
    drop(peer);

    let mut peer = gateway.admit(true).await;
    for before in &first[1..] {
        let again = peer.frame().await;
        assert_eq!(again, Seen { dup: true, ..before.clone() });
        peer.ack(&again).await;
    }
    let mut rest = Vec::new();
    for _ in 0..5 {
        let frame = peer.frame().await;
        assert!(!frame.dup);
        peer.ack(&frame).await;
        rest.push(frame);
    }
    let goodbye = peer.expect(PacketType::Disconnect, |_| ());
    let (mut result, ()) = within(async { tokio::join!(fleet.finish(), goodbye) }).await;
    for frame in first.iter().chain(&rest) {
        observe(&mut result, frame);
    }
    let verdict = result.verdict();
    assert!(verdict.passed, "{verdict}");
    let frames = verdict.frames;
    assert_eq!((frames.sent, frames.acked, frames.resent, frames.in_doubt), (10, 10, 4, 0));
    assert!(result.ledger.devices()[0].acked_again);
}

#[tokio::test]
async fn if_the_session_is_gone_unanswered_frames_come_as_new_ones() {
    let gateway = Gateway::open().await;
    let fleet = gateway.fleet(plan());
    let mut peer = gateway.admit_and_subscribe().await;
    let before = peer.frame().await;
    drop(peer);
    let mut peer = gateway.admit_and_subscribe().await;
    for index in 0..10 {
        let again = peer.frame().await;
        assert!(!again.dup);
        if index == 0 {
            assert_eq!(again.payload, before.payload);
        }
        peer.ack(&again).await;
    }
    let goodbye = peer.expect(PacketType::Disconnect, |_| ());
    within(async { tokio::join!(fleet.finish(), goodbye) }).await;
}

#[tokio::test]
async fn a_push_is_acknowledged_and_written_down() {
    let gateway = Gateway::open().await;
    let fleet = gateway.fleet(FleetPlan { frames_per_s: 0.0, duration_s: 600.0, ..plan() });
    let mut peer = gateway.admit_and_subscribe().await;
    let stamp =
        Stamp { direction: Direction::Down, run: 77, device: 0, sequence: 0, intended_ns: 1, sent_ns: 1 };
    let mut payload = Vec::new();
    stamp.encode(Form::Json, 100, &mut payload);
    let packet_id = holdfast_wire::mqtt::PacketId::new(9);
    peer.say(&Packet::Publish(Publish {
        dup: false,
        qos: holdfast_wire::mqtt::QoS::AtLeastOnce,
        retain: false,
        topic: "devices/device-0/push",
        packet_id,
        properties: PublishProperties::default(),
        payload: &payload,
    }))
    .await;
    let acked = peer
        .expect(PacketType::PubAck, |packet| match packet {
            Packet::PubAck(ack) => ack.packet_id,
            other => panic!("{other:?}"),
        })
        .await;
    assert_eq!(Some(acked), packet_id);
    fleet.end();
    let goodbye = peer.expect(PacketType::Disconnect, |_| ());
    let (result, ()) = within(async { tokio::join!(fleet.finish(), goodbye) }).await;
    assert_eq!(result.ledger.devices()[0].pushes.received_count(), 1);
    assert_eq!(result.latencies.push.len(), 1);
}

#[tokio::test]
async fn a_gateway_that_is_not_there_yet_is_waited_for() {
    let gateway = Gateway::open().await;
    let address = gateway.listener.local_addr().unwrap();
    drop(gateway);
    let targets = Targets::one(address, address, None);
    let fleet = Fleet::start(FleetPlan { duration_s: 600.0, frames_per_s: 0.0, ..plan() }, targets).unwrap();
    within(async {
        while fleet.snapshot().connects_failed < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let gateway = Gateway { listener: TcpListener::bind(address).await.unwrap() };
    let mut peer = gateway.admit_and_subscribe().await;
    fleet.end();
    let goodbye = peer.expect(PacketType::Disconnect, |_| ());
    let (result, ()) = within(async { tokio::join!(fleet.finish(), goodbye) }).await;
    let DeviceRecord { connects, connects_failed, .. } = result.ledger.devices()[0].clone();
    assert!(connects == 1 && connects_failed >= 2, "{connects} {connects_failed}");
}

#[tokio::test]
async fn a_storm_cuts_the_connection_and_the_device_comes_back() {
    let gateway = Gateway::open().await;
    let fleet = gateway.fleet(FleetPlan { duration_s: 600.0, frames_per_s: 0.0, ..plan() });
    let mut peer = gateway.admit_and_subscribe().await;
    subscribed(&fleet).await;
    fleet.storm();
    // An end or a reset, whichever the kernel makes of it.
    assert_eq!(within(peer.stream.read_buf(&mut peer.bytes)).await.unwrap_or(0), 0);
    let mut peer = gateway.admit(true).await;
    fleet.end();
    let goodbye = peer.expect(PacketType::Disconnect, |_| ());
    let (result, ()) = within(async { tokio::join!(fleet.finish(), goodbye) }).await;
    let devices = result.verdict().devices;
    assert_eq!((devices.reconnects, devices.resumed, devices.begun_anew), (1, 1, 0));
    assert_eq!(result.latencies.back.len(), 1);
}

#[tokio::test]
async fn a_session_that_was_lost_before_its_subscription_was_granted_gets_one() {
    let gateway = Gateway::open().await;
    let fleet = gateway.fleet(FleetPlan { duration_s: 600.0, frames_per_s: 0.0, ..plan() });
    let mut peer = gateway.admit(false).await;
    peer.expect(PacketType::Subscribe, |_| ()).await;
    drop(peer);
    let mut peer = gateway.admit(true).await;
    peer.expect(PacketType::Subscribe, |_| ()).await;
    fleet.end();
    let goodbye = peer.expect(PacketType::Disconnect, |_| ());
    within(async { tokio::join!(fleet.finish(), goodbye) }).await;
}

#[tokio::test]
async fn a_device_that_lost_its_gateway_goes_where_the_weights_send_it() {
    let (home, next, other) = (Gateway::open().await, Gateway::open().await, Gateway::open().await);
    let addresses = [&home, &next, &other].map(|gateway| gateway.listener.local_addr().unwrap());
    let gateways = addresses.map(|address| crate::fleet::Gateway { mqtt: address, ws: address });
    let plan = FleetPlan {
        duration_s: 600.0,
        frames_per_s: 0.0,
        home_gateways: 1,
        return_weights: vec![5, 0, 1],
        ..plan()
    };
    let targets = Targets { gateways: gateways.to_vec(), http: Vec::new() };
    let fleet = Fleet::start(plan, targets).unwrap();
    let peer = home.admit_and_subscribe().await;
    subscribed(&fleet).await;
    drop(peer);
    let mut peer = other.admit(false).await;
    peer.expect(PacketType::Subscribe, |_| ()).await;
    within(async {
        while fleet.snapshot().came_back < 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    fleet.end();
    let goodbye = peer.expect(PacketType::Disconnect, |_| ());
    let (result, ()) = within(async { tokio::join!(fleet.finish(), goodbye) }).await;
    // It wanted its session kept, and this gateway knew none.
    let devices = result.verdict().devices;
    assert_eq!((devices.resumed, devices.begun_anew), (0, 1));
}

/// Until the device has its SUBACK.
async fn subscribed(fleet: &Fleet) {
    within(async {
        while fleet.snapshot().subscribed < 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_ack_that_was_never_asked_for_is_a_protocol_error_of_the_gateway() {
    let gateway = Gateway::open().await;
    let fleet = gateway.fleet(FleetPlan { duration_s: 600.0, frames_per_s: 0.0, ..plan() });
    let mut peer = gateway.admit_and_subscribe().await;
    peer.ack(&Seen { packet_id: 9, dup: false, payload: Vec::new() }).await;
    let mut peer = gateway.admit(true).await;
    fleet.end();
    let goodbye = peer.expect(PacketType::Disconnect, |_| ());
    let (result, ()) = within(async { tokio::join!(fleet.finish(), goodbye) }).await;
    let verdict = result.verdict();
    assert_eq!(verdict.faults, ["1 answers broke the protocol"]);
}

#[tokio::test]
async fn a_gateway_that_closes_everything_in_the_end_does_not_pass() {
    let gateway = Gateway::open().await;
    let fleet = gateway.fleet(FleetPlan { drain_s: 0.2, ..plan() });
    let mut peer = gateway.admit_and_subscribe().await;
    let mut frames = Vec::new();
    for _ in 0..10 {
        let frame = peer.frame().await;
        peer.ack(&frame).await;
        frames.push(frame);
    }
    within(async {
        while fleet.snapshot().settled < 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop((peer, gateway));
    within(async {
        while fleet.snapshot().connects_failed < 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut result = within(fleet.finish()).await;
    for frame in &frames {
        observe(&mut result, frame);
    }
    assert_eq!(result.verdict().faults, ["1 devices had lost their connection in the end"]);
}

#[tokio::test]
async fn a_gateway_that_grants_no_subscription_does_not_pass() {
    let gateway = Gateway::open().await;
    let fleet = gateway.fleet(FleetPlan { duration_s: 600.0, frames_per_s: 0.0, ..plan() });
    let mut peer = gateway.admit(false).await;
    peer.expect(PacketType::Subscribe, |_| ()).await;
    fleet.end();
    let goodbye = peer.expect(PacketType::Disconnect, |_| ());
    let (result, ()) = within(async { tokio::join!(fleet.finish(), goodbye) }).await;
    assert_eq!(result.verdict().faults, ["1 devices never got their subscription"]);
}
