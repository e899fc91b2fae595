//! The fuzz targets of MQTT and of topics, run on their seeds and on each seed cut short.

use std::fs;
use std::path::{Path, PathBuf};

use holdfast_wire::mqtt::{FixedHeader, Packet, ProtocolVersion, fuzzing};
use holdfast_wire::topic::fuzzing::fuzz_topics;

#[test]
fn packets_hold_on_their_seeds() {
    run_seeds("mqtt_packet", fuzzing::fuzz_packet);
}

#[test]
fn properties_hold_on_their_seeds() {
    run_seeds("mqtt_properties", fuzzing::fuzz_properties);
}

#[test]
fn topics_hold_on_their_seeds() {
    run_seeds("topics", fuzz_topics);
}

#[test]
fn the_seeds_hold_every_packet_type() {
    let mut types: Vec<_> = seeds("mqtt_packet")
        .iter()
        .map(|path| fs::read(path).expect("a seed can be read"))
        .filter_map(|seed| {
            let header = FixedHeader::decode(&seed).ok()??;
            let body = seed.get(header.header_length.into()..)?;
            Packet::decode(header, body, ProtocolVersion::V5).ok().map(|packet| packet.packet_type())
        })
        .collect();
    types.sort();
    types.dedup();
    assert_eq!(types.len(), 15, "{types:?}");
}

fn run_seeds(target: &str, body: fn(&[u8])) {
    for path in seeds(target) {
        let seed = fs::read(path).expect("a seed can be read");
        for end in 0..=seed.len() {
            body(&seed[..end]);
        }
    }
}

fn seeds(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).expect("the corpus is part of the repository");
    let seeds: Vec<PathBuf> = entries.map(|entry| entry.expect("the folder can be listed").path()).collect();
    assert!(seeds.len() >= 4, "only {} seeds in {}", seeds.len(), folder.display());
    seeds
}
