//! A folder's bodies: what is whole, counted and swept.

use std::io::Read;

use super::*;
use crate::storage::Bodies as _;

const ANN: ClientId = ClientId([1; 32]);

#[test]
fn uploads_go_on_where_they_stopped_and_old_ones_go() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Blobs::open(folder.path(), Durability::Power, 1_000, Faults::default()).unwrap();
    let (blobs, turn) = (open(), Turn::new(2, 1));
    blobs.partial(turn, &ANN).unwrap().append(b"half").unwrap();
    // The process dies and comes back.
    let blobs = open();
    let mut partial = blobs.partial(turn, &ANN).unwrap();
    assert_eq!((partial.len(), blobs.used()), (4, 4));
    partial.append(b" whole").unwrap();
    blobs.accept(&partial, turn, &ANN).unwrap();
    let mut text = String::new();
    blobs.upload(turn, &ANN).unwrap().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "half whole");
    assert!(blobs.partial(turn, &ANN).unwrap().is_empty());
    blobs.sweep_uploads(turn, |_| false).unwrap();
    assert!(blobs.upload(turn, &ANN).unwrap().is_some());
    blobs.sweep_uploads(Turn::new(3, 1), |turn| turn == Turn::new(2, 1)).unwrap();
    assert!(blobs.upload(turn, &ANN).unwrap().is_some());
    let blobs = open();
    blobs.sweep_uploads(Turn::new(3, 1), |_| false).unwrap();
    assert!(blobs.upload(turn, &ANN).unwrap().is_none());
    assert_eq!(blobs.used(), 0);
}

#[test]
fn updates_that_are_kept_are_not_looked_at_again() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Blobs::open(folder.path(), Durability::None, 10_000, Faults::default()).unwrap();
    let accept = |blobs: &Blobs, turn: Turn| {
        let mut partial = blobs.partial(turn, &ANN).unwrap();
        partial.append(b"update").unwrap();
        blobs.accept(&partial, turn, &ANN).unwrap();
    };
    // A process that ended leaves some of two attempts, of which the second was counted.
    let (failed, counted) = (Turn::new(1, 1), Turn::new(1, 2));
    let blobs = open();
    [failed, counted].into_iter().for_each(|turn| accept(&blobs, turn));
    let blobs = open();
    blobs.sweep_uploads(Turn::new(2, 1), |turn| turn == counted).unwrap();
    let there = |turn| blobs.upload(turn, &ANN).unwrap().is_some();
    assert!(!there(failed) && there(counted));
    let asked = std::cell::Cell::new(0);
    for round in 2..200 {
        accept(&blobs, Turn::new(round, 1));
        accept(&blobs, Turn::new(round, 2));
        let kept = |turn: Turn| {
            asked.set(asked.get() + 1);
            turn.attempt == 2
        };
        blobs.sweep_uploads(Turn::new(round + 1, 1), kept).unwrap();
    }
    assert_eq!(asked.get(), 2 * 198, "once an update");
    assert_eq!(std::fs::read_dir(folder.path().join("uploads")).unwrap().count(), 199);
    assert_eq!(blobs.used(), 199 * 6);
}

#[test]
fn an_upload_whose_attempt_ends_meanwhile_is_counted_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(folder.path(), Durability::Process, 10, Faults::default()).unwrap();
    let mut uploads = [1, 2].map(|n| {
        let mut partial = blobs.partial(Turn::new(1, 1), &ClientId([n; 32])).unwrap();
        partial.append(b"half").unwrap();
        partial
    });
    blobs.sweep_uploads(Turn::new(1, 2), |_| false).unwrap();
    assert_eq!(blobs.used(), 0);
    let error = uploads[0].append(b"more").unwrap_err().to_string();
    assert!(error.contains("its attempt is over"), "{error}");
    uploads[1].clear().unwrap();
    assert_eq!(blobs.used(), 0);
    blobs.partial(Turn::new(1, 2), &ANN).unwrap().append(b"0123456789").unwrap();
}

#[test]
fn a_damaged_model_is_named_and_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(folder.path(), Durability::None, 20, Faults::default()).unwrap();
    let digest = blobs.put_model(b"a model").unwrap();
    let path = blobs.model_path(&digest);
    for damage in [&b"a modal"[..], b"a mo", b""] {
        std::fs::write(&path, damage).unwrap();
        let error = blobs.read_model(&digest).unwrap_err().to_string();
        assert!(error.contains(&digest.to_string()) && error.contains("SHA-256"), "{error}");
        assert_eq!(blobs.put_model(b"a model").unwrap(), digest);
        assert_eq!(blobs.read_model(&digest).unwrap(), b"a model");
    }
}

#[test]
fn a_model_that_several_write_is_whole_at_any_time() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(folder.path(), Durability::None, 1 << 30, Faults::default()).unwrap();
    let bytes = |number: u8| vec![number; 100_000];
    let write = || (0..200).try_for_each(|number| blobs.put_model(&bytes(number)).map(drop));
    let lengths = |number: u8| {
        let path = blobs.model_path(&Digest::of(&bytes(number)));
        std::fs::metadata(path).ok().map(|data| data.len())
    };
    std::thread::scope(|scope| {
        let writers = [(); 4].map(|()| scope.spawn(write));
        while !writers.iter().all(|writer| writer.is_finished()) {
            blobs.sweep_uploads(Turn::new(1, 1), |_| false).unwrap();
            for length in (0..200).filter_map(lengths) {
                assert_eq!(length, 100_000);
            }
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap().unwrap());
    });
    assert_eq!(blobs.used(), 200 * 100_000);
}

#[test]
fn a_full_disk_refuses_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(folder.path(), Durability::Process, 10, Faults::default()).unwrap();
    let digest = blobs.put_model(b"12345678").unwrap();
    assert_eq!(blobs.put_model(b"12345678").unwrap(), digest);
    assert!(blobs.put_model(b"abc").unwrap_err().to_string().contains("no space"));
    let mut partial = blobs.partial(Turn::new(1, 1), &ANN).unwrap();
    partial.append(b"12").unwrap();
    assert!(partial.append(b"3").is_err());
    assert_eq!((partial.len(), blobs.used()), (2, 10));
    blobs.sweep_models(&[]).unwrap();
    partial.append(b"3").unwrap();
    assert_eq!(blobs.used(), 3);
    partial.clear().unwrap();
    assert_eq!(blobs.used(), 0);
}

#[test]
fn what_cannot_be_read_is_not_taken_for_what_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(folder.path(), Durability::None, 100, Faults::default()).unwrap();
    let (model, turn) = (blobs.put(b"a model").unwrap(), Turn::new(1, 1));
    let unknown = Digest([1; 32]);
    assert_eq!([blobs.length(&model).unwrap(), blobs.length(&unknown).unwrap()], [Some(7), None]);
    assert_eq!(blobs.piece(&model, 2, 3).unwrap(), b"mod");
    assert!(blobs.piece(&model, 5, 3).is_err() && blobs.piece(&unknown, 0, 1).is_err());
    assert!(blobs.upload(turn, &ANN).unwrap().is_none());
    for name in ["models", "uploads"] {
        std::fs::remove_dir_all(folder.path().join(name)).unwrap();
        std::fs::write(folder.path().join(name), "no folder").unwrap();
    }
    assert!(blobs.length(&model).is_err());
    assert!(blobs.upload(turn, &ANN).is_err());
}

#[test]
fn updates_of_the_open_attempt_stay_and_what_others_removed_is_no_fault() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(folder.path(), Durability::None, 100, Faults::default()).unwrap();
    let accept = |round| {
        let mut partial = blobs.partial(Turn::new(round, 1), &ANN).unwrap();
        assert!(partial.is_empty());
        partial.append(b"update").unwrap();
        assert!(!partial.is_empty());
        blobs.accept(&partial, Turn::new(round, 1), &ANN).unwrap();
        blobs.upload_path(Turn::new(round, 1), &ANN)
    };
    let sweep = |round| blobs.sweep_uploads(Turn::new(round, 1), |_| false);
    sweep(1).unwrap();
    let first = accept(1);
    sweep(1).unwrap();
    assert!(first.exists());
    std::fs::remove_file(&first).unwrap();
    sweep(2).unwrap();
    // A folder in its place is one.
    let second = accept(2);
    std::fs::remove_file(&second).unwrap();
    std::fs::create_dir(&second).unwrap();
    let error = sweep(3).unwrap_err().to_string();
    assert!(error.contains(&second.display().to_string()), "{error}");
}
