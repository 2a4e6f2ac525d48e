//! Replays the fuzz target's corpus, and bounded random changes of it, through the decoders.

#![allow(clippy::disallowed_methods, reason = "a test reads files")]
#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

use std::path::PathBuf;

use proptest::prelude::*;
use tern_secagg::decode_any;

fn corpus() -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/messages");
    let paths = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths.map(|p| (p.clone(), std::fs::read(p).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn the_corpus_is_decoded_or_refused() {
    let files = corpus();
    assert!(files.len() >= 3, "{} files", files.len());
    for (path, bytes) in files {
        let decoded = std::panic::catch_unwind(|| decode_any(&bytes));
        assert!(decoded.is_ok(), "{}", path.display());
    }
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
        let mut bytes = pick.get(&corpus()).1.clone();
        prop_assume!(!bytes.is_empty());
        for (at, byte) in &changes {
            *at.get_mut(&mut bytes) = *byte;
        }
        decode_any(&bytes);
        decode_any(&bytes[..cut.index(bytes.len())]);
    }
}
