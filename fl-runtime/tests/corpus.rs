//! Replays the fuzz targets' corpus, and bounded random changes of it, through every decoder.

#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

#[path = "../fuzz/decoders.rs"]
mod decoders;

use std::path::PathBuf;

use proptest::prelude::*;

type Decoder = fn(&[u8]);

const DECODERS: [(&str, Decoder); 7] = [
    ("wire", decoders::wire),
    ("update", decoders::update),
    ("config", decoders::config),
    ("auth", decoders::auth),
    ("models", decoders::models),
    ("services", decoders::services),
    ("state", decoders::state),
];

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = files
        .map(|entry| {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            (path, bytes)
        })
        .collect();
    files.sort();
    files
}

#[test]
fn the_corpus_is_decoded_or_refused() {
    for (target, decode) in DECODERS {
        let files = corpus(target);
        assert!(files.len() >= 3, "{target}: {} files", files.len());
        for (path, bytes) in files {
            let decoded = std::panic::catch_unwind(|| decode(&bytes));
            assert!(decoded.is_ok(), "{}", path.display());
        }
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
            let files = corpus(target);
            let mut bytes = pick.get(&files).1.clone();
            if bytes.is_empty() {
                continue;
            }
            for (at, byte) in &changes {
                *at.get_mut(&mut bytes) = *byte;
            }
            decode(&bytes);
            decode(&bytes[..cut.index(bytes.len())]);
        }
    }
}
