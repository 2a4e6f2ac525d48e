//! Text by speaker: the bundled plays and addresses, or anybody's own files.
//!
//! A file is UTF-8, plain or gzip. If its first line with text starts with `@`, each such line
//! names who speaks from there on; otherwise the whole file is one speaker, named after it.

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

/// Reads files, and the files of folders (not of folders inside them, and no hidden ones) in
/// the order of their names. A speaker who occurs twice is one speaker.
pub fn load(paths: &[impl AsRef<Path>]) -> Result<Vec<Speaker>> {
    let mut speakers = Vec::new();
    for path in paths {
        let path = path.as_ref();
        if path.is_dir() {
            for file in files_of(path)? {
                merge(&mut speakers, load_file(&file)?);
            }
        } else {
            merge(&mut speakers, load_file(path)?);
        }
    }
    Ok(speakers)
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

fn load_file(path: &Path) -> Result<Vec<Speaker>> {
    let speakers = parse(&read(path)?, &stem(path))
        .map_err(|(line, what)| anyhow::anyhow!("{}:{line}: {what}", path.display()))?;
    if speakers.is_empty() {
        bail!("{}: the file holds no text", path.display());
    }
    Ok(speakers)
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

/// Splits a text into speakers; an error comes with its line number.
fn parse(text: &str, file: &str) -> Result<Vec<Speaker>, (usize, &'static str)> {
    let lines =
        || text.lines().enumerate().map(|(i, l)| (i + 1, l)).filter(|(_, l)| !l.trim().is_empty());
    let tagged = lines().next().is_some_and(|(_, line)| line.starts_with('@'));
    let mut speakers = Vec::new();
    let mut current = Speaker { name: file.to_owned(), lines: Vec::new() };
    for (number, line) in lines() {
        match line.strip_prefix('@').filter(|_| tagged) {
            Some(name) if name.trim().is_empty() => {
                return Err((number, "a line `@speaker` without a name"));
            }
            Some(name) => {
                let next = Speaker { name: name.trim().to_owned(), lines: Vec::new() };
                merge(&mut speakers, vec![std::mem::replace(&mut current, next)]);
            }
            None => current.lines.push(line.trim_end().to_owned()),
        }
    }
    merge(&mut speakers, vec![current]);
    Ok(speakers)
}

/// Appends speakers who have lines, to the one of the same name where there is one.
fn merge(into: &mut Vec<Speaker>, from: Vec<Speaker>) {
    for speaker in from.into_iter().filter(|s| !s.lines.is_empty()) {
        match into.iter_mut().find(|known| known.name == speaker.name) {
            Some(known) => known.lines.extend(speaker.lines),
            None => into.push(speaker),
        }
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
        let text = "\n@play/A\r\none\r\n\n  two \n@play/B\n@play/C\nthree\n@play/A\nfour";
        let expected =
            [speaker("play/A", &["one", "  two", "four"]), speaker("play/C", &["three"])];
        assert_eq!(parse(text, "file").unwrap(), expected);
        assert_eq!(expected[0].collection(), Some("play"));
        assert_eq!(expected[0].characters(), 4 + 6 + 5);
    }

    #[test]
    fn an_untagged_text_is_one_speaker_and_keeps_its_at_signs() {
        let text = "hello\n@bob said hi\n";
        assert_eq!(parse(text, "chat").unwrap(), [speaker("chat", &["hello", "@bob said hi"])]);
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
