//! Replays the fuzz target's corpus, and bounded random changes of it, through the decoders.

#![allow(clippy::disallowed_methods, reason = "a test reads files")]
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

#[macro_use]
#[path = "../../fuzz/replay.rs"]
mod replay;

use replay::Decoder;
use tern_secagg::decode_any;

const DECODERS: [(&str, Decoder); 1] = [("messages", decode_any)];

replayed!(DECODERS);
