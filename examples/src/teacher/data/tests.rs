use super::*;

/// Replaces a line at a time by a wrong one, and calls `check` with its number, what comes of it,
/// and what is said of it.
fn with_each_wrong(
    lines: &mut [Vec<u8>],
    wrong: &[u8],
    load: impl Fn(Vec<u8>) -> Problem,
    mut check: impl FnMut(usize, &Problem, &str),
) {
    for bad in 0..40 {
        let good = std::mem::replace(&mut lines[bad], wrong.to_vec());
        let now = load(lines.concat());
        lines[bad] = good;
        // A public line may have a class of its own.
        if now.classes > 2 {
            continue;
        }
        let [said] = &now.refused[..] else { panic!("{:?}", now.refused) };
        check(bad, &now, said);
    }
}

#[test]
fn a_line_that_cannot_be_read_changes_its_own_teacher_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.csv");
    let line = |i: usize| format!("{i},{}\n", ["no", "yes"][i % 2]).into_bytes();
    let mut lines: Vec<Vec<u8>> = (0..200).map(line).collect();
    let load = |lines: Vec<u8>| {
        std::fs::write(&path, [&b"x,class\n"[..], &lines].concat()).unwrap();
        table("own".into(), &path, ("class", &[]), None, 1).unwrap()
    };
    let values = |problem: &Problem| {
        let parts = problem.parts(10, 1).unwrap();
        assert_eq!((parts.count, parts.taught.len(), problem.classes), (10, 10, 2));
        let of = |part: &Part| -> Vec<u32> {
            part.rows.iter().map(|row| problem.private.features[*row].to_bits()).collect()
        };
        parts.taught.iter().map(of).collect::<Vec<_>>()
    };
    let whole = load(lines.concat());
    let before = values(&whole);
    let wrongs: [(&[u8], &str); 5] = [
        (b"cut off\n", "1 values, expected 2"),
        (b"old,no\n", "x is `old`, expected a number"),
        (b"7,maybe\n", "class is `maybe`, expected one of no, yes"),
        (b"\"7,no\n", "a quote that isn't closed"),
        (b"7,\xff\n", "not UTF-8"),
    ];
    for (wrong, reason) in wrongs {
        let mut private = 0;
        with_each_wrong(&mut lines, wrong, load, |bad, now, said| {
            assert!(said.contains(&format!("own.csv:{}: {reason}", bad + 2)), "{said}");
            if now.private.labels.len() < whole.private.labels.len() {
                private += 1;
                let other = before.iter().zip(values(now)).filter(|(a, b)| *a != b);
                assert_eq!(other.count(), 1, "line {bad}");
            }
        });
        assert!((20..=36).contains(&private), "{private} of 40");
    }
}

#[test]
fn a_device_that_is_left_out_keeps_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.csv");
    let line = |i: usize| format!("{i},site{},{}\n", i % 8, ["no", "yes"][i / 8 % 2]);
    let mut lines: Vec<Vec<u8>> = (0..240).map(|i| line(i).into_bytes()).collect();
    let load = |lines: Vec<u8>| {
        std::fs::write(&path, [&b"x,site,class\n"[..], &lines].concat()).unwrap();
        table("own".into(), &path, ("class", &[]), Some("site"), 1).unwrap()
    };
    let open = |problem: &Problem| problem.public.labels.len() + problem.test.labels.len();
    let values = |problem: &Problem| {
        let parts = problem.parts(10, 1).unwrap();
        assert_eq!(parts.count, 8);
        let of = |part: &Part| -> (usize, Vec<u32>) {
            let values = part.rows.iter().map(|row| problem.private.features[*row].to_bits());
            (part.number, values.collect())
        };
        (parts.taught.iter().map(of).collect::<Vec<_>>(), parts.left_out)
    };
    let whole = load(lines.concat());
    let (before, _) = values(&whole);
    assert_eq!(before.len(), 8);
    let wrongs: [&[u8]; 5] =
        [b"7,site3\n", b"old,site3,no\n", b"7,site3,maybe\n", b"\"7,site3,no\n", b"7,site3,\xff\n"];
    for wrong in wrongs {
        let mut private = 0;
        with_each_wrong(&mut lines, wrong, load, |bad, now, said| {
            let who = "site site3 does not take part. ";
            assert!(said.starts_with(who) && said.contains(&format!(":{}: ", bad + 2)), "{said}");
            let (after, left_out) = values(now);
            let [named] = &left_out[..] else { panic!("{left_out:?}") };
            assert!(named.starts_with("site3 (") && named.ends_with("no samples"), "{named}");
            assert_eq!(after.len(), 7);
            // A line of site3's own: nobody else changes.
            if open(now) == open(&whole) && bad % 8 == 3 {
                private += 1;
                assert!(after.iter().all(|part| before.contains(part)), "line {bad}");
            }
        });
        assert!(private > 0);
    }
    // A line that doesn't say whose it is costs nobody else's.
    lines[3] = b"7\n".to_vec();
    let (after, left_out) = values(&load(lines.concat()));
    assert_eq!((after.len(), left_out.len()), (8, 0));
}

#[test]
fn images_of_other_classes_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let load = |train: [u8; 6], test: [u8; 6]| {
        let file = |name: &str, header: &[u8], data: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, [header, data].concat()).unwrap();
            path
        };
        let set = |name: &str, labels: [u8; 6]| {
            let shape = [0, 0, 8, 3, 0, 0, 0, 6, 0, 0, 0, 1, 0, 0, 0, 1];
            let images = file(&format!("{name}-images"), &shape, &[1, 2, 3, 4, 5, 6]);
            let line = [0, 0, 8, 1, 0, 0, 0, 6];
            [images, file(&format!("{name}-labels"), &line, &labels)]
        };
        images("own".into(), &[set("train", train), set("test", test)])
    };
    let own = load([0, 2, 7, 2, 1, 0], [0, 2, 0, 2, 9, 0]).unwrap();
    assert_eq!((own.classes, &own.private.labels[..]), (3, &[0, 2, 2, 0][..]));
    assert_eq!(own.dealt, [Some(0), Some(1), None, Some(2), None, Some(3)]);
    assert_eq!((own.public.labels, own.test.labels), (vec![0, 2, 0], vec![2, 0]));
    assert_eq!(own.private.features, [1.0, 2.0, 4.0, 6.0].map(|x: f32| x / 6.0));
    let expected =
        ["train-labels: image 3 is 7", "train-labels: image 5 is 1", "test-labels: image 5 is 9"];
    assert_eq!(own.refused.len(), expected.len());
    for (said, part) in own.refused.iter().zip(expected) {
        assert!(said.contains(part), "{said}");
    }
    let error = |train, test| format!("{:#}", load(train, test).err().unwrap());
    let said = error([1; 6], [0, 1, 0, 1, 0, 1]);
    assert!(said.contains("train-labels: 1 classes in 6 labels"), "{said}");
    let said = error([0, 1, 0, 1, 0, 1], [0, 0, 0, 1, 1, 1]);
    assert!(said.contains("test-labels: 1 classes in 3 labels"), "{said}");
}
