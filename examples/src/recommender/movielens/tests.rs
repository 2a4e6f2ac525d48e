use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::*;

/// Two kinds of users who like two kinds of films, and a line more.
fn ratings(separator: char) -> String {
    let mut text = String::new();
    for user in 0..24 {
        for number in 0..12 {
            let film = (user * 5 + number * 7) % 20;
            let likes = user % 2 == film % 2;
            let values = [user + 1, film + 100, if likes { 5 } else { 1 }, number];
            let line = values.map(|value| value.to_string()).join(&separator.to_string());
            writeln!(text, "{line}").unwrap();
        }
    }
    text
}

fn load(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> Result<Ratings> {
    fs::write(folder.join(name), text).unwrap();
    Ratings::load(folder)
}

#[test]
fn both_formats_are_read_alike() {
    let [old, new] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let old = load(old.path(), "u.data", ratings('\t')).unwrap();
    let header = "userId,movieId,rating,timestamp\n".to_owned();
    let new = load(new.path(), "ratings.csv", &(header + &ratings(','))).unwrap();
    assert_eq!(old, new);
    assert_eq!((old.users.len(), old.films), (24, 20));
    // Columns are those of their names, wherever they are, and further ones say nothing.
    let moved = tempfile::tempdir().unwrap();
    let text: String = ratings(',')
        .lines()
        .map(|line| {
            let [user, film, rating, time] =
                line.split(',').collect::<Vec<_>>().try_into().unwrap();
            format!("{time},x,\"{rating}\",{film},{user}\n")
        })
        .collect();
    let header = "timestamp,tag,rating,movieId,userId\n".to_owned();
    assert_eq!(old, load(moved.path(), "ratings.csv", header + &text).unwrap());
    let (train, held_out) = &old.users[0];
    assert_eq!((train.len(), train[0]), (11, (0, 5.0)));
    assert!(held_out.1 == 5.0 || held_out.1 == 1.0);
}

#[test]
fn what_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Ratings::load(folder.path()).unwrap_err().to_string();
    assert!(missing.contains("neither u.data nor ratings.csv"), "{missing}");
    let header = load(folder.path(), "ratings.csv", "userId,film\n").unwrap_err().to_string();
    assert!(header.contains("no column `movieId`, expected one of userId, film"), "{header}");
    for (text, expected) in [
        ("1\t2\t3\t4\n1\tx\t3\t4\n", "u.data:2: film is `x`, expected a whole number"),
        ("1\t2\t3\n", "u.data:1: 3 values, expected 4"),
        ("1\t2\t1e39\t4\n", "u.data:1: rating is `1e39`, expected a number"),
        ("1.5\t2\t3\t4\n", "u.data:1: user is `1.5`, expected a whole number"),
        ("1\t2\t3\t4\n1\t3\t3\t4\n", "u.data: 1 users with two ratings"),
    ] {
        let error = format!("{:#}", load(folder.path(), "u.data", text).unwrap_err());
        assert!(error.contains(expected), "{error}, expected {expected}");
    }
}

#[test]
fn a_bad_line_costs_its_user_alone() {
    let folder = tempfile::tempdir().unwrap();
    // Line 2 is the first user's, 289 nobody's, 290 of somebody who rated nothing else.
    let text = ratings('\t').replacen("1\t107\t1\t1\n", "1\t107\tx\t1\n", 1);
    let all = load(folder.path(), "u.data", &(text + "?\t1\t1\t1\n99\t1\t1\t1\n")).unwrap();
    assert_eq!((all.users.len(), all.films, all.single), (23, 20, 1));
    let [(user, reason)] = &all.refused[..] else { panic!("{:?}", all.refused) };
    assert!(user == "1" && reason.contains("u.data:2: rating is `x`, expected"), "{reason}");
    let [line] = &all.left_out[..] else { panic!("{:?}", all.left_out) };
    assert!(line.contains("u.data:289: user is `?`"), "{line}");
    // So do bytes that aren't UTF-8.
    let mut text = ratings('\t').replacen("1\t107\t1\t1\n", "1\t107\t1\t1 \n", 1).into_bytes();
    let space = text.iter().position(|byte| *byte == b' ').unwrap();
    text[space] = 0xff;
    text.extend(b"\xff\t1\t1\t1\n");
    let all = load(folder.path(), "u.data", text).unwrap();
    assert_eq!((all.users.len(), all.refused[0].0.as_str(), all.refused.len()), (23, "1", 1));
    assert!(all.refused[0].1.ends_with("u.data:2: not UTF-8"), "{:?}", all.refused);
    assert!(all.left_out[0].ends_with("u.data:289: not UTF-8"), "{:?}", all.left_out);
}

#[test]
fn regression_finds_the_factors() {
    let films: Vec<f32> = (0..40 * FACTORS).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
    let truth: [f32; FACTORS] = std::array::from_fn(|i| i as f32 * 0.5 - 1.0);
    let rated = (0..40).map(|film| (film, dot(&truth, &films[film * FACTORS..][..FACTORS])));
    let mut user = User { ratings: rated.collect(), held_out: (0, 0.0) };
    // Around a mean of zero, and so many times that the ridge hardly pulls.
    let mirrored: Vec<f32> = films.iter().map(|x| -x).collect();
    let all: Vec<f32> = films.iter().chain(&mirrored).copied().collect();
    user.ratings.extend((0..40).map(|film| (film + 40, -user.ratings[film].1)).collect::<Vec<_>>());
    user.ratings = (0..50).flat_map(|_| user.ratings.clone()).collect();
    for (found, truth) in user.factors(&all).iter().zip(truth) {
        assert!((found - truth).abs() < 0.02, "{found} {truth}");
    }
}

#[test]
fn films_are_learned_and_users_stay() {
    let folder = tempfile::tempdir().unwrap();
    let ratings = load(folder.path(), "u.data", ratings('\t')).unwrap();
    let scale = Scale { rounds: 60, steps: 2, cohort: 20, batch: 1, hidden: 1, every: 1 };
    let rows = run(&ratings, &scale, 1, &Device::cpu()).unwrap();
    let [floor, full, ternary] = &rows[..] else { panic!("{rows:?}") };
    assert!(floor.rmse > 1.5, "{rows:?}");
    assert!(full.rmse < 0.5 * floor.rmse && ternary.rmse < 0.6 * floor.rmse, "{rows:?}");
    // What leaves a device has the size of film factors, whoever the user is.
    let elements = 20usize.div_ceil(8) * 64;
    assert_eq!(full.up as usize, 20 * 4 * elements);
    assert!(ternary.up < full.up / 14.0, "{rows:?}");
    assert!(table(&rows).to_string().contains("ternary"));
}
