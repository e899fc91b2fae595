#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| holdfast_wire::mqtt::fuzzing::fuzz_packet(bytes));
