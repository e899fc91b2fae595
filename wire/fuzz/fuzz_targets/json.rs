#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| holdfast_wire::json::fuzzing::fuzz_json(bytes));
