//! Replays the fuzz target's corpus, and bounded random changes of it, through the decoders.

#![allow(clippy::disallowed_methods, reason = "a test reads files")]
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

#[path = "../../fuzz/replay.rs"]
mod replay;

use std::path::PathBuf;

use proptest::prelude::*;
use tern_secagg::decode_any;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/messages")
}

#[test]
fn the_corpus_is_decoded_or_refused() {
    replay::whole(&folder(), decode_any);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn arbitrary_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        decode_any(&bytes);
    }

    #[test]
    fn changed_messages_are_decoded_or_refused(
        pick in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        replay::changed(&folder(), decode_any, pick, &changes, cut);
    }
}
