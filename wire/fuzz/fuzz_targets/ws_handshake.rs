#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| holdfast_wire::ws::fuzzing::fuzz_handshake(bytes));
