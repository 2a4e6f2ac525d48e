//! What a disk does to a server's folder: bits that flip, files that are cut or lost, and writes
//! that were never on it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tern_fl::Digest;
use tern_fl::server::federation::Federation;
use tern_fl::server::journal::{CommittedRound, CountedUpload};

use crate::random::Random;

/// The files of a folder, by their names in it.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

/// What was lost, and how it was before.
pub struct Harm {
    /// What was done to which file.
    pub what: String,
    pub name: PathBuf,
    /// The files without the harm.
    pub whole: Files,
    pub state: State,
}

/// What counts of a run.
#[derive(Debug, PartialEq)]
pub struct State {
    pub rounds: Vec<(CommittedRound, Vec<CountedUpload>)>,
    /// Round and score of the best model.
    pub best: Option<(u32, f64)>,
    /// Whether the run is over, which clients were told.
    pub finished: bool,
    /// What clients are told to be the best model.
    pub told: Digest,
    /// The open round, with all that came of it.
    pub open: String,
}

impl State {
    pub fn of(server: &Federation) -> Self {
        let counted = |round: CommittedRound| {
            let uploads = server.counted(round.round).unwrap();
            (round, uploads)
        };
        let rounds = server.rounds(0).unwrap().into_iter().map(counted).collect();
        let (best, told) = (server.status().best, server.coordinator().best_model());
        let finished = server.coordinator().finished();
        State {
            rounds,
            best,
            finished,
            told,
            open: format!("{} {:?}", server.task().run, server.coordinator()),
        }
    }
}

/// A server's files as they are, also while it runs: as if its process was killed.
pub fn copy(folder: &Path) -> Files {
    let mut files = Files::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        if path.is_dir() {
            files.extend(copy(&path).into_iter().map(|(inner, bytes)| (name.join(inner), bytes)));
        } else if !name.ends_with("journal.sqlite-shm") && !name.ends_with("lock") {
            files.insert(name, std::fs::read(&path).unwrap());
        }
    }
    files
}

/// A folder with these files.
pub fn put(folder: &Path, files: &Files) {
    std::fs::remove_dir_all(folder).unwrap();
    std::fs::create_dir_all(folder).unwrap();
    for (name, bytes) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// Harms one of the files; `earlier` are those of some time ago. What was done, and to which.
pub fn harm(random: &mut Random, files: &mut Files, earlier: &Files) -> (String, PathBuf) {
    let journal = ["journal.sqlite", "journal.sqlite-wal", "journal.head"].map(PathBuf::from);
    // Bodies are many, and the journal is where most can go wrong.
    let names: Vec<PathBuf> = match random.chance(600) {
        true => journal.iter().filter(|name| files.contains_key(*name)).cloned().collect(),
        false => files.keys().cloned().collect(),
    };
    let name = names[random.below(names.len() as u64) as usize].clone();
    let bytes = files.get_mut(&name).unwrap();
    let length = bytes.len() as u64;
    let what = match random.below(5) {
        0 | 1 if length > 0 => {
            let bit = random.below(8 * length);
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
            format!("bit {bit} of {length} bytes flips")
        }
        2 if length > 0 => {
            let left = random.below(length);
            bytes.truncate(left as usize);
            format!("{left} of {length} bytes are left")
        }
        3 if earlier.contains_key(&name) => {
            bytes.clone_from(&earlier[&name]);
            "the last writes are lost".into()
        }
        _ => {
            files.remove(&name);
            "is lost".into()
        }
    };
    // A database and its log lose their writes together, too.
    if name == journal[0] && what.contains("writes") && random.chance(500) {
        match earlier.get(&journal[1]) {
            Some(log) => drop(files.insert(journal[1].clone(), log.clone())),
            None => drop(files.remove(&journal[1])),
        }
    }
    (what, name)
}
