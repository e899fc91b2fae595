//! The fuzz targets of the WebSocket and the JSON protocol, run on their seeds and on each seed cut short.

use std::fs;
use std::path::Path;

use holdfast_wire::json::fuzzing::fuzz_json;
use holdfast_wire::ws::fuzzing::{fuzz_handshake, fuzz_stream};

#[test]
fn the_stream_holds_on_its_seeds() {
    run_seeds("ws_stream", fuzz_stream);
}

#[test]
fn the_handshake_holds_on_its_seeds() {
    run_seeds("ws_handshake", fuzz_handshake);
}

#[test]
fn the_json_protocol_holds_on_its_seeds() {
    run_seeds("json", fuzz_json);
}

fn run_seeds(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut seeds = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is part of the repository") {
        let seed = fs::read(entry.expect("the folder can be listed").path()).expect("a seed can be read");
        for end in 0..=seed.len() {
            body(&seed[..end]);
        }
        seeds += 1;
    }
    assert!(seeds >= 8, "only {seeds} seeds in {}", folder.display());
}
