//! Replays the fuzz targets' corpus, and bounded random changes of it, through every decoder.

#![allow(clippy::disallowed_methods, reason = "a test reads files")]
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

#[path = "../fuzz/decoders.rs"]
mod decoders;
#[path = "../../fuzz/replay.rs"]
mod replay;

use std::path::PathBuf;

use proptest::prelude::*;
use replay::Decoder;

const DECODERS: [(&str, Decoder); 4] = [
    ("auth", decoders::auth),
    ("strategy", decoders::strategy),
    ("update", decoders::update),
    ("wire", decoders::wire),
];

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

#[test]
fn the_corpus_is_decoded_or_refused() {
    for (target, decode) in DECODERS {
        replay::whole(&folder(target), decode);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn arbitrary_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        DECODERS.iter().for_each(|(_, decode)| decode(&bytes));
    }

    #[test]
    fn changed_messages_are_decoded_or_refused(
        pick in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        for (target, decode) in DECODERS {
            replay::changed(&folder(target), decode, pick, &changes, cut);
        }
    }
}
