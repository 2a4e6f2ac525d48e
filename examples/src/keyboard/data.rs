//! Whose text is public and whose is not.

use std::path::Path;

use anyhow::{Result, ensure};
use tern_fl::tokens::Alphabet;

use super::client::{MIN_RECORDS, WINDOW};
use super::options::{Options, Scale};
use crate::text::{Found, Refused, Speaker, bundled, load, load_list, load_some, reasons};
use crate::users::{User, split_plays, users};

/// One speaker in this many is held out of one's own data.
const HELD_OUT: usize = 5;

/// The texts of a run.
#[derive(Debug, Default)]
pub struct Texts {
    /// 1.1: what the public model is trained on; empty if it comes from a file.
    pub public: Vec<Speaker>,
    /// What the public model is measured on.
    pub held_out: Vec<Speaker>,
    /// Public text that comes in after the model is published, for a newer one.
    pub later: Vec<Speaker>,
    /// Whose devices personalize it.
    pub users: Vec<User>,
    /// Who can't take part, and why.
    pub refused: Refused,
}

impl Texts {
    /// The bundled plays and addresses, or one's own data.
    pub fn load(options: &Options, scale: &Scale) -> Result<Self> {
        let texts = match &options.data {
            None => Self::bundled(scale)?,
            Some(path) => Self::own(path, options.model.is_some(), scale)?,
        };
        let public: usize = texts.public.iter().map(Speaker::characters).sum();
        // A row of a training step must have a window and what comes after it.
        let least = 4 * (WINDOW + 1);
        if let Some(path) = options.data.as_ref().filter(|_| options.model.is_none()) {
            ensure!(
                public >= least,
                "{}: {public} characters are left to train the public model, too few for {least}{}",
                path.display(),
                reasons(&texts.refused)
            );
        }
        Ok(texts)
    }

    /// Text for a newer model: what came in later and as much of what there was, or all of that
    /// if nothing came.
    pub fn newer(&self, alphabet: &Alphabet) -> Vec<u32> {
        let encode = |speakers: &[Speaker]| -> Vec<u32> {
            speakers.iter().flat_map(|s| alphabet.encode_lines(&s.lines)).collect()
        };
        let mut stream = encode(&self.later);
        let mut before = encode(&self.public);
        if !stream.is_empty() {
            before.truncate(stream.len());
        }
        stream.extend(before);
        stream
    }

    fn bundled(scale: &Scale) -> Result<Self> {
        let roles = load(&[bundled("shakespeare-roles.txt.gz")?])?;
        let plays = load_list(&bundled("held-out-plays.txt")?)?;
        let (public, held_out) = split_plays(roles, &plays)?;
        let speakers = load(&[bundled("addresses.txt.gz")?])?;
        // Roles that type enough for a training.
        let mut roles = users(&held_out, scale.records * 5 / 4 + 500);
        roles.truncate(scale.roles.min(scale.users / 5));
        let mut all = users(&speakers, 10_000);
        all.truncate(scale.users - roles.len());
        // Speakers who have none of these devices publish what they say.
        let is_user = |s: &Speaker| all.iter().any(|user| user.name == s.name);
        let later = speakers.into_iter().filter(|s| !is_user(s)).collect();
        all.extend(roles);
        Ok(Texts { public, held_out, later, users: all, refused: Vec::new() })
    }

    /// One's own text. With a model from elsewhere, everybody in it is a user. Otherwise some
    /// of the plays or people in it are held out and become users; and where there is only one
    /// person, the last part of what they wrote.
    fn own(path: &Path, has_model: bool, scale: &Scale) -> Result<Self> {
        let Found { speakers, places, mut refused } = load_some(&[path])?;
        ensure!(!speakers.is_empty(), "{}: no text{}", path.display(), reasons(&refused));
        let (public, held_out) = if has_model {
            (Vec::new(), speakers)
        } else if let [one] = speakers.as_slice() {
            split_lines(one)
        } else {
            split_speakers(speakers)
        };
        let mut users = Vec::new();
        for speaker in &held_out {
            if users.len() == scale.users {
                break;
            }
            match user(speaker) {
                Ok(user) => users.push(user),
                Err(reason) => {
                    let name = speaker.name.clone();
                    let at = places.get(&name).map_or("", String::as_str);
                    refused.push((name, format!("{at}: {reason}")));
                }
            }
        }
        let why = reasons(&refused);
        ensure!(!users.is_empty(), "{}: nobody is left to type{why}", path.display());
        Ok(Texts { public, held_out, later: Vec::new(), users, refused })
    }
}

/// A speaker as a user, or why they can't be one.
fn user(speaker: &Speaker) -> Result<User, String> {
    let least = 2 * MIN_RECORDS;
    let mut characters = speaker.lines.iter().flat_map(|line| line.chars());
    let first = characters.next();
    if let Some(only) = first.filter(|first| characters.all(|c| c == *first)) {
        return Err(format!("one class only, the character `{only}`, expected two or more"));
    }
    users(std::slice::from_ref(speaker), least).pop().ok_or_else(|| {
        let (characters, lines) = (speaker.characters(), speaker.lines.len());
        format!("{characters} characters in lines: {lines}, too few for {least} in two or more")
    })
}

fn split_lines(one: &Speaker) -> (Vec<Speaker>, Vec<Speaker>) {
    let (public, held_out) = one.lines.split_at(one.lines.len() * 3 / 5);
    let part = |lines: &[String]| vec![Speaker { name: one.name.clone(), lines: lines.to_vec() }];
    (part(public), part(held_out))
}

/// Holds out whole plays where the speakers are roles of several, else speakers.
fn split_speakers(speakers: Vec<Speaker>) -> (Vec<Speaker>, Vec<Speaker>) {
    let mut plays: Vec<String> = Vec::new();
    for play in speakers.iter().filter_map(Speaker::collection) {
        if !plays.iter().any(|known| known == play) {
            plays.push(play.to_owned());
        }
    }
    let number = |list: &[String], name: &str| list.iter().position(|n| n == name).unwrap_or(0);
    let held_out = |at: usize| at % HELD_OUT == HELD_OUT - 1;
    if plays.len() >= HELD_OUT {
        return speakers
            .into_iter()
            .partition(|s| !held_out(number(&plays, s.collection().unwrap_or_default())));
    }
    let last = speakers.len() - 1;
    let numbered = speakers.into_iter().enumerate();
    let (public, held): (Vec<_>, Vec<_>) =
        numbered.partition(|(at, _)| !held_out(*at) && (last >= HELD_OUT - 1 || *at != last));
    let plain = |list: Vec<(usize, Speaker)>| list.into_iter().map(|(_, s)| s).collect();
    (plain(public), plain(held))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(content: &str, model: bool) -> Result<Texts> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("mine.txt");
        std::fs::write(&path, content)?;
        let model = model.then(|| path.clone());
        let options = Options { data: Some(path), model, ..Options::default() };
        Texts::load(&options, &Scale::quick())
    }

    fn names(speakers: &[Speaker]) -> Vec<&str> {
        speakers.iter().map(|s| s.name.as_str()).collect()
    }

    #[test]
    fn the_bundled_users_are_speakers_the_model_never_met() {
        let scale = Scale { users: 25, roles: 3, ..Scale::quick() };
        let texts = Texts::load(&Options::default(), &scale).unwrap();
        assert_eq!(texts.users.iter().filter(|u| !u.name.contains('/')).count(), 22);
        assert_eq!(texts.users.len(), 25);
        for user in &texts.users {
            assert!(texts.public.iter().all(|s| s.name != user.name));
            let characters: usize =
                user.train.iter().chain(&user.held_back).map(|l| l.chars().count() + 1).sum();
            assert!(characters * 4 / 5 > scale.records, "{}", user.name);
        }
        let alphabet = Alphabet::covering([], 0);
        assert!(texts.later.is_empty(), "everybody is a user");
        let all: usize = texts.public.iter().map(|s| alphabet.encode_lines(&s.lines).len()).sum();
        assert_eq!(texts.newer(&alphabet).len(), all);
        let few = Texts::load(&Options::default(), &Scale { users: 3, ..scale }).unwrap();
        assert_eq!((few.users.len(), few.later.len()), (3, 22 - 3));
        let later: usize = few.later.iter().map(|s| alphabet.encode_lines(&s.lines).len()).sum();
        assert_eq!(few.newer(&alphabet).len(), 2 * later.min(all));
        assert!(few.users.iter().all(|u| few.later.iter().all(|s| s.name != u.name)));
    }

    #[test]
    fn one_persons_text_is_split_by_lines() {
        let content = (0..100).map(|i| format!("line {i:12}\n")).collect::<String>();
        let texts = texts(&content, false).unwrap();
        assert_eq!((texts.public[0].lines.len(), texts.held_out[0].lines.len()), (60, 40));
        assert_eq!((texts.users[0].train.len(), texts.users[0].held_back.len()), (32, 8));
        let all = self::texts(&content, true).unwrap();
        assert!(all.public.is_empty());
        assert_eq!(all.users[0].train.len(), 80);
    }

    #[test]
    fn people_or_whole_plays_are_held_out() {
        let line = "what somebody said at length\n".repeat(30);
        let of = |names: &[&str]| names.iter().map(|n| format!("@{n}\n{line}")).collect::<String>();
        let two = texts(&of(&["a", "b"]), false).unwrap();
        assert_eq!((names(&two.public), names(&two.held_out)), (vec!["a"], vec!["b"]));
        let six = texts(&of(&["a", "b", "c", "d", "e", "f"]), false).unwrap();
        assert_eq!(names(&six.held_out), ["e"]);
        let plays = texts(&of(&["1/a", "1/b", "2/a", "3/a", "4/a", "5/a", "5/b"]), false).unwrap();
        assert_eq!(names(&plays.held_out), ["5/a", "5/b"]);
        assert_eq!(plays.users.len(), 2);
    }

    #[test]
    fn too_little_text_is_refused_by_name() {
        let error = texts("hello\nthere\n", false).unwrap_err().to_string();
        assert!(error.contains("mine.txt:1: 6 characters") && error.contains("too few"), "{error}");
        let error = texts(&format!("@a\nhi\n@b\n{}", "long\n".repeat(200)), false).unwrap_err();
        assert!(error.to_string().contains("3 characters are left"), "{error}");
    }

    #[test]
    fn who_cannot_be_a_user_does_not_stop_the_others() {
        let ann = "@ann\n".to_owned() + &"what somebody said at length\n".repeat(30);
        let short = "@bob\nhi\nho\n";
        let same = "@cat\n".to_owned() + &"aaaaaaaaaa\n".repeat(90);
        let all = texts(&[short, &same, &ann, "@\nwho\n"].concat(), true).unwrap();
        assert_eq!(all.users.iter().map(|u| u.name.as_str()).collect::<Vec<_>>(), ["ann"]);
        let expected = [
            ("A speaker without a name", "mine.txt:126: a line `@speaker`"),
            ("bob", "mine.txt:1: 6 characters in lines: 2, too few for 400"),
            ("cat", "mine.txt:4: one class only, the character `a`"),
        ];
        assert_eq!(all.refused.len(), expected.len());
        for ((who, why), (name, part)) in all.refused.iter().zip(expected) {
            assert!(who == name && why.contains(part), "{who}: {why}");
        }
        let error = texts(&[short, &same].concat(), true).unwrap_err().to_string();
        for part in ["nobody is left", "mine.txt:1: 6 char", "mine.txt:4: one class"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
