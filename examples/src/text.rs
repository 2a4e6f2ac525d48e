//! Text by speaker: the bundled plays and addresses, or anybody's own files.
//!
//! A file is UTF-8, plain or gzip. If its first line with text starts with `@`, each such line
//! names who speaks from there on; otherwise the whole file is one speaker, named after it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use flate2::read::MultiGzDecoder;

/// A speaker and the lines they said, in order, none of them blank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speaker {
    /// `speaker` or `collection/speaker`.
    pub name: String,
    /// Lines without their line ends.
    pub lines: Vec<String>,
}

impl Speaker {
    /// What comes before the `/` of the name: the play of a role.
    pub fn collection(&self) -> Option<&str> {
        self.name.split_once('/').map(|(collection, _)| collection)
    }

    /// Characters, a line end a line counted.
    pub fn characters(&self) -> usize {
        self.lines.iter().map(|line| line.chars().count() + 1).sum()
    }
}

/// The repository's `examples/data`, from any folder inside the repository.
pub fn bundled(file: &str) -> Result<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(file);
    let here = Path::new("examples/data").join(file);
    match [&built, &here].into_iter().find(|path| path.exists()) {
        Some(path) => Ok(path.clone()),
        None => bail!("{file} is neither at {} nor at {}", built.display(), here.display()),
    }
}

/// What files hold, as far as they can be read.
#[derive(Debug, Default)]
pub struct Found {
    /// Who speaks; a speaker who occurs twice is one speaker.
    pub speakers: Vec<Speaker>,
    /// Where each of them occurs first, by name: file and line.
    pub places: BTreeMap<String, String>,
    /// Files, and speakers in them, that can't be read, and why.
    pub refused: Refused,
}

/// Reads files, and the files of folders (not of folders inside them, and no hidden ones) in
/// the order of their names.
pub fn load(paths: &[impl AsRef<Path>]) -> Result<Vec<Speaker>> {
    let found = load_some(paths)?;
    match found.refused.into_iter().next() {
        Some((_, reason)) => bail!("{reason}"),
        None => Ok(found.speakers),
    }
}

/// [`load`] where what can't be read doesn't stop what can: an error is a folder's only.
pub fn load_some(paths: &[impl AsRef<Path>]) -> Result<Found> {
    let mut found = Found::default();
    for path in paths {
        let path = path.as_ref();
        if path.is_dir() {
            files_of(path)?.iter().for_each(|file| found.add(file));
        } else {
            found.add(path);
        }
    }
    Ok(found)
}

/// Who can't take part, and why.
pub type Refused = Vec<(String, String)>;

/// Why some don't take part, for an error's end.
pub fn reasons(refused: &[(String, String)]) -> String {
    refused.iter().map(|(who, why)| format!("; {who}: {why}")).collect()
}

impl Found {
    /// Adds what a file holds.
    fn add(&mut self, path: &Path) {
        let at = |line: usize| format!("{}:{line}", path.display());
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = match read(path) {
            Ok(text) => text,
            Err(error) => return self.refused.push((name, format!("{error:#}"))),
        };
        let (speakers, nameless) = parse(&text, &stem(path));
        if speakers.is_empty() && nameless.is_empty() {
            let reason = format!("{}: the file holds no text", path.display());
            self.refused.push((name, reason));
        }
        for line in nameless {
            let reason = format!("{}: a line `@speaker` without a name", at(line));
            self.refused.push(("A speaker without a name".into(), reason));
        }
        for (line, speaker) in speakers {
            self.places.entry(speaker.name.clone()).or_insert_with(|| at(line));
            merge(&mut self.speakers, speaker);
        }
    }
}

/// Names in a list file: one a line, `#` starts a comment line.
pub fn load_list(path: &Path) -> Result<Vec<String>> {
    let text = read(path)?;
    let names = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(names.filter(|line| !line.starts_with('#')).map(str::to_owned).collect())
}

fn files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("{}", folder.display()))?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !hidden && entry.path().is_file() {
            files.push(entry.path());
        }
    }
    if files.is_empty() {
        bail!("{}: the folder holds no files", folder.display());
    }
    files.sort();
    Ok(files)
}

/// The file name up to its first dot.
fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').next().unwrap_or_default().to_owned()
}

/// A file as text, unpacked if it is gzip.
pub(crate) fn read(path: &Path) -> Result<String> {
    let mut bytes = fs::read(path).with_context(|| format!("{}", path.display()))?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut unpacked = Vec::new();
        MultiGzDecoder::new(bytes.as_slice())
            .read_to_end(&mut unpacked)
            .with_context(|| format!("{}: damaged gzip", path.display()))?;
        bytes = unpacked;
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)),
        Err(error) => {
            let good = error.utf8_error().valid_up_to();
            let line = 1 + error.as_bytes()[..good].iter().filter(|b| **b == b'\n').count();
            bail!("{}:{line}: the text is not UTF-8", path.display())
        }
    }
}

/// Splits a text into speakers, each with the line where they begin, and the lines that should
/// name one and don't; what follows those belongs to nobody.
fn parse(text: &str, file: &str) -> (Vec<(usize, Speaker)>, Vec<usize>) {
    let lines =
        || text.lines().enumerate().map(|(i, l)| (i + 1, l)).filter(|(_, l)| !l.trim().is_empty());
    let first = lines().next();
    let tagged = first.is_some_and(|(_, line)| line.starts_with('@'));
    let speaker = |name: &str| Speaker { name: name.to_owned(), lines: Vec::new() };
    let (mut speakers, mut nameless) = (Vec::new(), Vec::new());
    let mut current = (first.map_or(1, |(number, _)| number), speaker(file));
    for (number, line) in lines() {
        match line.strip_prefix('@').filter(|_| tagged).map(str::trim) {
            Some(name) => {
                if name.is_empty() {
                    nameless.push(number);
                }
                speakers.push(std::mem::replace(&mut current, (number, speaker(name))));
            }
            None => current.1.lines.push(line.trim_end().to_owned()),
        }
    }
    speakers.push(current);
    let named = |speaker: &Speaker| !(tagged && speaker.name.is_empty());
    speakers.retain(|(_, speaker)| named(speaker) && !speaker.lines.is_empty());
    (speakers, nameless)
}

/// Appends a speaker, to the one of the same name where there is one.
fn merge(into: &mut Vec<Speaker>, speaker: Speaker) {
    match into.iter_mut().find(|known| known.name == speaker.name) {
        Some(known) => known.lines.extend(speaker.lines),
        None => into.push(speaker),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn speaker(name: &str, lines: &[&str]) -> Speaker {
        Speaker { name: name.into(), lines: lines.iter().map(|l| (*l).into()).collect() }
    }

    #[test]
    fn a_tagged_text_has_speakers() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("play.txt");
        let text = "\n@play/A\r\none\r\n\n  two \n@play/B\n@play/C\nthree\n@play/A\nfour";
        fs::write(&file, text).unwrap();
        let Found { speakers, places, refused } = load_some(&[&file]).unwrap();
        let expected =
            [speaker("play/A", &["one", "  two", "four"]), speaker("play/C", &["three"])];
        assert_eq!(speakers, expected);
        assert_eq!(expected[0].collection(), Some("play"));
        assert_eq!(expected[0].characters(), 4 + 6 + 5);
        let at = |line: usize| format!("{}:{line}", file.display());
        assert_eq!([&places["play/A"], &places["play/C"]], [&at(2), &at(7)]);
        assert!(refused.is_empty());
    }

    #[test]
    fn an_untagged_text_is_one_speaker_and_keeps_its_at_signs() {
        let text = "hello\n@bob said hi\n";
        let chat = speaker("chat", &["hello", "@bob said hi"]);
        assert_eq!(parse(text, "chat"), (vec![(1, chat)], vec![]));
    }

    #[test]
    fn what_cannot_be_read_does_not_stop_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        write("a.txt", b"@A\none\n@ \nlost\n@B\ntwo\n@\n@A\nthree\n");
        write("b.txt", b"\xff\n");
        write("c.txt", b" \n");
        write("d.txt", b"four\n");
        let found = load_some(&[folder.path()]).unwrap();
        let expected =
            [speaker("A", &["one", "three"]), speaker("B", &["two"]), speaker("d", &["four"])];
        assert_eq!(found.speakers, expected);
        let expected = [
            ("A speaker without a name", "a.txt:3: "),
            ("A speaker without a name", "a.txt:7: "),
            ("b.txt", "b.txt:1: the text is not UTF-8"),
            ("c.txt", "c.txt: the file holds no text"),
        ];
        assert_eq!(found.refused.len(), expected.len());
        for ((who, reason), (name, part)) in found.refused.iter().zip(expected) {
            assert!(who == name && reason.contains(part), "{who}: {reason}");
        }
    }

    #[test]
    fn errors_name_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            fs::write(folder.path().join(name), bytes).unwrap();
            load(&[folder.path().join(name)]).unwrap_err().to_string()
        };
        assert!(write("a.txt", b"@A\nx\n@ \ny\n").contains("a.txt:3: a line `@speaker`"));
        assert!(
            write("b.txt", b"one\ntwo\nthr\xffee\n").contains("b.txt:3: the text is not UTF-8")
        );
        assert!(write("c.txt", b"").contains("c.txt: the file holds no text"));
        assert!(write("d.gz", b"\x1f\x8b\x08trunc").contains("d.gz: damaged gzip"));
        let missing = load(&[folder.path().join("missing")]).unwrap_err();
        assert!(missing.to_string().contains("missing"));
    }

    #[test]
    fn folders_and_gzip_are_read_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        packed.write_all("\u{feff}second file\n".as_bytes()).unwrap();
        fs::write(folder.path().join("b.txt.gz"), packed.finish().unwrap()).unwrap();
        fs::write(folder.path().join("a.txt"), "first file\n").unwrap();
        fs::write(folder.path().join(".hidden"), "no\n").unwrap();
        let speakers = load(&[folder.path()]).unwrap();
        assert_eq!(speakers, [speaker("a", &["first file"]), speaker("b", &["second file"])]);
        let empty = tempfile::tempdir().unwrap();
        assert!(load(&[empty.path()]).unwrap_err().to_string().contains("holds no files"));
    }

    #[test]
    fn the_bundled_texts_are_complete() {
        let roles = load(&[bundled("shakespeare-roles.txt.gz").unwrap()]).unwrap();
        assert_eq!(roles.len(), 1280);
        let plays: std::collections::BTreeSet<_> = roles.iter().map(Speaker::collection).collect();
        assert_eq!(plays.len(), 38);
        let addresses = load(&[bundled("addresses.txt.gz").unwrap()]).unwrap();
        assert_eq!(addresses.len(), 22);
        assert!(bundled("nothing").unwrap_err().to_string().contains("nothing is neither at"));
    }

    #[test]
    fn lists_skip_comments() {
        let names = load_list(&bundled("held-out-plays.txt").unwrap()).unwrap();
        assert_eq!(names, ["macbeth", "richard-ii", "the-tempest", "twelfth-night"]);
    }
}
