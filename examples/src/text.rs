//! Text by speaker: the bundled plays and addresses, or anybody's own files.
//!
//! A file is UTF-8, plain or gzip. If its first line with text starts with `@`, each such line
//! names who speaks from there on; otherwise the whole file is one speaker, named after it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tern_fl::simulate::files::{Text, read_text};

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

/// Images and labels of digits that are bundled: of `mnist8-train`, `mnist8-test` or `optdigits`.
pub fn bundled_digits(name: &str) -> Result<[PathBuf; 2]> {
    let file = |what: &str| bundled(&format!("{name}-{what}-ubyte.gz"));
    Ok([file("images-idx3")?, file("labels-idx1")?])
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
    let (mut found, mut broken) = (Found::default(), BTreeSet::new());
    for path in paths {
        let path = path.as_ref();
        if path.is_dir() {
            files_of(path)?.iter().for_each(|file| found.add(file, &mut broken));
        } else {
            found.add(path, &mut broken);
        }
    }
    // Who has a bad line in one file is left out of the others, too.
    found.speakers.retain(|speaker| !broken.contains(&speaker.name));
    found.places.retain(|name, _| !broken.contains(name));
    Ok(found)
}

/// Who can't take part, and why.
pub type Refused = Vec<(String, String)>;

/// Why some don't take part, for an error's end.
pub fn reasons(refused: &[(String, String)]) -> String {
    refused.iter().map(|(who, why)| format!("; {who}: {why}")).collect()
}

impl Found {
    /// Adds what a file holds, and to `broken` the speakers with a line that isn't UTF-8.
    fn add(&mut self, path: &Path, broken: &mut BTreeSet<String>) {
        let at = |line: usize| format!("{}:{line}", path.display());
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = match read_text(path) {
            Ok(text) => text,
            Err(error) => return self.refused.push((name, error.to_string())),
        };
        let Parsed { speakers, nameless, bad } = parse(&text, &stem(path));
        if speakers.is_empty() && nameless.is_empty() && bad.is_empty() {
            let reason = format!("{}: the file holds no text", path.display());
            self.refused.push((name, reason));
        }
        for (line, speaker) in bad {
            if broken.insert(speaker.clone()) {
                self.refused.push((speaker, format!("{}: {NOT_UTF8}", at(line))));
            }
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

/// What is wrong with a line whose bytes are no text.
const NOT_UTF8: &str = "the text is not UTF-8";

/// A file as text, unpacked if it is gzip; an error for a line that isn't UTF-8.
fn read(path: &Path) -> Result<String> {
    let Text { text, bad } = read_text(path)?;
    match bad.first() {
        Some(line) => bail!("{}:{line}: {NOT_UTF8}", path.display()),
        None => Ok(text),
    }
}

/// What a text holds, by the numbers of its lines.
#[derive(Debug, Default, PartialEq)]
struct Parsed {
    /// Speakers, each with the line where they begin.
    speakers: Vec<(usize, Speaker)>,
    /// Lines that should name a speaker and don't; what follows them belongs to nobody.
    nameless: Vec<usize>,
    /// Lines that aren't UTF-8, and whose they are.
    bad: Vec<(usize, String)>,
}

/// Splits a text into speakers.
fn parse(text: &Text, file: &str) -> Parsed {
    let lines = || (1..).zip(text.text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let first = lines().next();
    let tagged = first.is_some_and(|(_, line)| line.starts_with('@'));
    let speaker = |name: &str| Speaker { name: name.to_owned(), lines: Vec::new() };
    let mut parsed = Parsed::default();
    let mut current = (first.map_or(1, |(number, _)| number), speaker(file));
    for (number, line) in lines() {
        match line.strip_prefix('@').filter(|_| tagged).map(str::trim) {
            Some(name) => {
                if name.is_empty() {
                    parsed.nameless.push(number);
                }
                parsed.speakers.push(std::mem::replace(&mut current, (number, speaker(name))));
            }
            None => current.1.lines.push(line.trim_end().to_owned()),
        }
        if text.bad.contains(&number) {
            parsed.bad.push((number, current.1.name.clone()));
        }
    }
    parsed.speakers.push(current);
    let named = |name: &str| !(tagged && name.is_empty());
    parsed.speakers.retain(|(_, speaker)| named(&speaker.name) && !speaker.lines.is_empty());
    parsed.bad.retain(|(_, name)| named(name));
    parsed
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
        let expected = Parsed { speakers: vec![(1, chat)], ..Parsed::default() };
        let text = Text { text: text.into(), bad: BTreeSet::new() };
        assert_eq!(parse(&text, "chat"), expected);
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
            ("b", "b.txt:1: the text is not UTF-8"),
            ("c.txt", "c.txt: the file holds no text"),
        ];
        assert_eq!(found.refused.len(), expected.len());
        for ((who, reason), (name, part)) in found.refused.iter().zip(expected) {
            assert!(who == name && reason.contains(part), "{who}: {reason}");
        }
    }

    /// They are called by name once, wherever else they speak; a mangled name is nobody else's.
    #[test]
    fn a_line_that_is_not_utf8_costs_its_speaker_alone() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        write("a.txt", b"@A\none\n@B\nt\xffo\n\xff\n@C\nthree\n@ \n\xff\n@A\nfour\n");
        write("b.txt", b"@B\nfive\n@A\xff\nsix\n@C\nseven\n");
        let Found { speakers, places, refused } = load_some(&[folder.path()]).unwrap();
        assert_eq!(speakers, [speaker("A", &["one", "four"]), speaker("C", &["three", "seven"])]);
        assert_eq!(places.keys().collect::<Vec<_>>(), ["A", "C"]);
        let expected = [
            ("B", "a.txt:4: the text is not UTF-8"),
            ("A speaker without a name", "a.txt:8: "),
            ("A\u{fffd}", "b.txt:3: the text is not UTF-8"),
        ];
        assert_eq!(refused.len(), expected.len());
        for ((who, reason), (name, part)) in refused.iter().zip(expected) {
            assert!(who == name && reason.contains(part), "{who}: {reason}");
        }
        let list = folder.path().join("b.txt");
        let error = load_list(&list).unwrap_err().to_string();
        assert!(error.ends_with("b.txt:3: the text is not UTF-8"), "{error}");
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
        let plays: BTreeSet<_> = roles.iter().map(Speaker::collection).collect();
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
