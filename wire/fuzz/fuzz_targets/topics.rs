#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| holdfast_wire::topic::fuzzing::fuzz_topics(bytes));
