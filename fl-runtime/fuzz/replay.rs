//! Replays a fuzz target's corpus, whole and changed, for the tests of the crates that have one.

use std::path::{Path, PathBuf};

use proptest::prelude::prop::sample::Index;

/// What must not panic, whatever the bytes.
pub type Decoder = fn(&[u8]);

/// The files of a corpus, in the order of their names.
fn corpus(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
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

/// Decodes each file.
pub fn whole(folder: &Path, decode: Decoder) {
    let files = corpus(folder);
    assert!(files.len() >= 3, "{}: {} files", folder.display(), files.len());
    for (path, bytes) in files {
        let decoded = std::panic::catch_unwind(|| decode(&bytes));
        assert!(decoded.is_ok(), "{}", path.display());
    }
}

/// Decodes one of the files with some of its bytes changed, and its beginning.
pub fn changed(folder: &Path, decode: Decoder, pick: Index, changes: &[(Index, u8)], cut: Index) {
    let mut bytes = pick.get(&corpus(folder)).1.clone();
    if bytes.is_empty() {
        return;
    }
    for (at, byte) in changes {
        *at.get_mut(&mut bytes) = *byte;
    }
    decode(&bytes);
    decode(&bytes[..cut.index(bytes.len())]);
}

/// The tests of a crate's corpora: each file, arbitrary bytes, and bounded random changes of each
/// file, through `[(target, decoder)]`.
macro_rules! replayed {
    ($decoders:expr) => {
        use proptest::prelude::*;

        fn folder(target: &str) -> std::path::PathBuf {
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
        }

        #[test]
        fn the_corpus_is_decoded_or_refused() {
            for (target, decode) in $decoders {
                $crate::replay::whole(&folder(target), decode);
            }
        }

        proptest! {
            #![proptest_config(ProptestConfig::with_cases(300))]

            #[test]
            fn arbitrary_bytes_are_decoded_or_refused(
                bytes in prop::collection::vec(any::<u8>(), 0..600),
            ) {
                $decoders.iter().for_each(|(_, decode)| decode(&bytes));
            }

            #[test]
            fn changed_messages_are_decoded_or_refused(
                pick in any::<prop::sample::Index>(),
                changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
                cut in any::<prop::sample::Index>(),
            ) {
                for (target, decode) in $decoders {
                    $crate::replay::changed(&folder(target), decode, pick, &changes, cut);
                }
            }
        }
    };
}
