//! Replays the fuzz targets' corpus, and bounded random changes of it, through every decoder.

#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

#[path = "../fuzz/decoders.rs"]
mod decoders;
#[macro_use]
#[path = "../fuzz/replay.rs"]
mod replay;

use replay::Decoder;

const DECODERS: [(&str, Decoder); 4] = [
    ("config", decoders::config),
    ("models", decoders::models),
    ("services", decoders::services),
    ("state", decoders::state),
];

replayed!(DECODERS);
