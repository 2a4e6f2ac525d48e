//! Replays the fuzz targets' corpus, and bounded random changes of it, through every decoder.

#![allow(clippy::disallowed_methods, reason = "a test reads files")]
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

#[path = "../fuzz/decoders.rs"]
mod decoders;
#[macro_use]
#[path = "../../fuzz/replay.rs"]
mod replay;

use replay::Decoder;

const DECODERS: [(&str, Decoder); 4] = [
    ("auth", decoders::auth),
    ("strategy", decoders::strategy),
    ("update", decoders::update),
    ("wire", decoders::wire),
];

replayed!(DECODERS);
