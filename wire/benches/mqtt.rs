//! Nanoseconds for the packets of the hot paths: `cargo bench -p holdfast-wire --bench mqtt`.

use std::hint::black_box;
use std::time::Instant;

use holdfast_wire::mqtt::{
    FixedHeader, Packet, PacketId, ProtocolVersion, PubAck, Publish, PublishProperties, QoS, publish,
};
use holdfast_wire::topic::FilterTree;

const ROUNDS: u32 = 2_000_000;
const TOPIC: &str = "devices/device-00031415/temperature";
const PAYLOAD: &[u8] = &[7; 128];

fn main() {
    let pairs = [("event-time", "1700000000000")];
    let properties = PublishProperties { user_properties: pairs[..].into(), ..PublishProperties::default() };
    let packet = Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: TOPIC,
        packet_id: Some(PacketId::MIN),
        properties,
        payload: PAYLOAD,
    };
    let mut forwardable = Vec::new();
    properties.encode_forwardable(&mut forwardable);
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        let mut bytes = Vec::new();
        packet.encode(version, &mut bytes);
        measure(&format!("decode PUBLISH {version:?}, 128 B"), || {
            let header = FixedHeader::decode(black_box(&bytes)).ok().flatten()?;
            black_box(Packet::decode(header, &bytes[header.header_length.into()..], version).ok()?);
            Some(())
        });
        let mut out = Vec::with_capacity(1024);
        measure(&format!("encode PUBLISH {version:?} from parts, 128 B"), || {
            out.clear();
            let id = Some(PacketId::MIN);
            let qos = QoS::AtLeastOnce;
            publish::encode_parts(
                &mut out,
                version,
                false,
                qos,
                false,
                black_box(TOPIC),
                id,
                &forwardable,
                None,
                None,
                &[],
                PAYLOAD,
            );
            (!black_box(&out).is_empty()).then_some(())
        });
        measure(&format!("encode PUBACK {version:?}"), || {
            out.clear();
            PubAck::success(black_box(PacketId::MIN)).encode(version, &mut out);
            (!black_box(&out).is_empty()).then_some(())
        });
    }
    measure_matching();
}

fn measure_matching() {
    let mut tree: FilterTree<u32> = FilterTree::new();
    for number in 0..100_000 {
        *tree.insert(&format!("devices/device-{number:08}/commands")) = number;
    }
    *tree.insert("devices/+/temperature") = 1;
    measure("match a name against 100,001 filters", || {
        let mut found = 0;
        tree.for_each_match(black_box(TOPIC), |_| found += 1);
        (found == 1).then_some(())
    });
}

/// Prints the mean of many rounds; `work` answers `None` if it did not do what is measured.
fn measure(name: &str, mut work: impl FnMut() -> Option<()>) {
    let start = Instant::now();
    for _ in 0..ROUNDS {
        work().expect("the measured work is done");
    }
    println!("{name:<48} {:>8.1} ns", start.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS));
}
