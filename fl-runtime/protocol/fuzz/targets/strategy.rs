#![no_main]

#[path = "../decoders.rs"]
#[allow(dead_code)] // A target is one of them.
mod decoders;

libfuzzer_sys::fuzz_target!(|data: &[u8]| decoders::strategy(data));
