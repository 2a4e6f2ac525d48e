use super::*;

fn write(folder: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A table whose file is there for as long as it is.
struct Kept {
    table: Table,
    _folder: tempfile::TempDir,
}

impl std::ops::Deref for Kept {
    type Target = Table;

    fn deref(&self) -> &Table {
        &self.table
    }
}

fn table(text: &str) -> Kept {
    let folder = tempfile::tempdir().unwrap();
    let table = Table::open(&write(&folder, "t.csv", text.as_bytes())).unwrap();
    Kept { table, _folder: folder }
}

fn rows_of(table: &Table, without: &[&str]) -> Result<Rows> {
    table.read_all_by(&table.schema_of_all("class", without)?)
}

fn fitted(table: &Table, fit: &[usize]) -> (Rows, Vec<BadLine>) {
    table.read_by(&table.schema("class", &[], fit).unwrap()).unwrap()
}

#[test]
fn tables_become_features() {
    let folder = tempfile::tempdir().unwrap();
    let text = "age,\"job, or none\",class\r\n1,baker,yes\r\n3,\"a \"\"b\"\"\nc\",no\n\n";
    let table = Table::open(&write(&folder, "t.csv", text.as_bytes())).unwrap();
    assert_eq!(table.column("job, or none").unwrap(), ["baker", "a \"b\"\nc"]);
    let rows = rows_of(&table, &[]).unwrap();
    assert_eq!(rows.classes, ["no", "yes"]);
    assert_eq!(rows.labels, [1, 0]);
    assert_eq!(rows.features, [-1.0, 0.0, 1.0, 1.0, 1.0, 0.0]);
    assert_eq!(rows_of(&table, &["age"]).unwrap().width, 2);
    let error = table.classes("height").unwrap_err().to_string();
    assert!(error.contains("age, job"), "{error}");
    let path = write(&folder, "bad.csv", b"a,b\n1,2\n\"x\ny\",1\n3\n");
    let error = Table::open(&path).unwrap().column("a").unwrap_err().to_string();
    assert!(error.contains("line 5: 1 values, expected 2"), "{error}");
    let (table, bad) = Table::open_some(&path).unwrap();
    assert_eq!((table.lines().unwrap(), table.place("b").unwrap()), (vec![2, 3], 1));
    assert_eq!((bad.len(), bad[0].line, bad[0].fields.as_slice()), (1, 5, &["3".into()][..]));
}

#[test]
fn two_columns_of_one_name_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, "t.csv", b"x,class,x\n1,a,2\n");
    let error = Table::open(&path).unwrap_err().to_string();
    assert!(error.contains("line 1: columns 1 and 3 are both named `x`"), "{error}");
}

/// What some rows say scales all, and no other row changes anything but its own features.
#[test]
fn rows_are_scaled_by_some_of_them() {
    let fitted = |third: &str| {
        let text = format!("age,job,class\n1,baker,yes\n3,smith,no\n{third}\n5,baker,no\n");
        fitted(&table(&text), &[0, 1])
    };
    let (known, bad) = fitted("5,smith,no");
    let expected = [-1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 3.0, 0.0, 1.0, 3.0, 1.0, 0.0];
    assert_eq!((known.width, known.features.as_slice()), (3, &expected[..]));
    assert!(bad.is_empty(), "{bad:?}");
    // No number, no job that is known, nothing, a number beyond all others.
    for (third, own) in [
        ("inf,?,no", [0.0, 0.0, 0.0]),
        ("?,miner,no", [0.0, 0.0, 0.0]),
        (",,no", [0.0, 0.0, 0.0]),
        ("1e9,baker,no", [1e9, 1.0, 0.0]),
    ] {
        let (other, bad) = fitted(third);
        assert!(bad.is_empty(), "{bad:?}");
        assert_eq!(other.features[6..9], own, "{third}");
        assert_eq!(other.features[..6], known.features[..6], "{third}");
        assert_eq!(other.features[9..], known.features[9..], "{third}");
    }
    let table = table("a,b\n1,2\n");
    assert!(table.schema("b", &[], &[1]).unwrap_err().to_string().contains("below 1"));
    assert!(table.schema("b", &[], &[]).is_err());
}

/// A line with a word for a number or a class of its own is bad, and changes no other.
#[test]
fn what_the_public_rows_do_not_allow_is_a_bad_line() {
    let text = |third: &str| format!("age,job,class\n1,baker,yes\n3,smith,no\n{third}\n");
    for (third, reason) in [
        ("old,baker,no", "age is `old`, expected a number"),
        ("5,baker, ", "class is missing, expected a class"),
        ("5,baker,maybe", "class is `maybe`, expected one of no, yes"),
    ] {
        let table = table(&text(third));
        let (rows, bad) = fitted(&table, &[0, 1]);
        assert_eq!((rows.width, rows.classes), (3, vec!["no".into(), "yes".into()]));
        assert_eq!(rows.features[..6], [-1.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
        let [BadLine { line: 4, reason: said, fields }] = &bad[..] else { panic!("{bad:?}") };
        assert_eq!((said.as_str(), fields.join(",")), (reason, third.to_owned()));
    }
    // Most of a column decides what it is; the others cost their lines, and say nothing.
    let text = "age,job,class\n1,a,x\nold,b,z\n?,a,y\n,a,y\n3,a,x\n";
    let (rows, bad) = fitted(&table(text), &[0, 1, 2, 3, 4]);
    assert_eq!((bad.len(), bad[0].line), (1, 3));
    assert_eq!((rows.width, rows.classes), (2, vec!["x".into(), "y".into()]));
    assert_eq!(rows.features, [-1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0]);
    let error = rows_of(&table(text), &[]).unwrap_err().to_string();
    assert!(error.ends_with("t.csv: line 3: age is `old`, expected a number"), "{error}");
    // Half numbers are none.
    let half = table("age,class\n1,x\nold,y\n");
    assert_eq!(rows_of(&half, &[]).unwrap().features, [1.0, 0.0, 0.0, 1.0]);
    // Where each row is bad by another column, nothing is left to fit on.
    let none = table("a,b,c,class\no,1,2,x\n1,o,2,y\n1,2,o,x\n");
    let error = rows_of(&none, &[]).unwrap_err().to_string();
    assert!(error.contains("none (a is `o`, expected a number)"), "{error}");
}

#[test]
fn files_of_a_table_have_the_same_columns_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        write(&folder, "a.csv", b"x,y,class\n1,2,0\n"),
        write(&folder, "b.csv", b"class,x,y\n1,3,4\n0,5,old\n"),
    ];
    let table = Table::open_several(&files).unwrap();
    assert_eq!(table.column("y").unwrap(), ["2", "4", "old"]);
    let error = table.plain("class").unwrap_err().to_string();
    assert!(error.contains("b.csv: line 3: y is `old`, expected a finite"), "{error}");
    for other in [&b"x,class\n1,0\n"[..], b"x,y,z,class\n1,2,3,0\n", b"x,z,class\n1,2,0\n"] {
        write(&folder, "b.csv", other);
        let error = Table::open_several(&files).unwrap_err().to_string();
        assert!(error.contains("b.csv: columns x, ") && error.contains("x, y, class"), "{error}");
    }
    assert!(Table::open_several(&[]).is_err());
}

#[test]
fn plain_rows_are_finite_numbers_and_whole_classes() {
    let rows = table("x,\"class\",y\n1,0,2.5\n\n-3e1, 2 ,\"4\"\n").plain("class").unwrap();
    assert_eq!((rows.width, rows.labels), (2, vec![0, 2]));
    assert_eq!(rows.features, [1.0, 2.5, -30.0, 4.0]);
    for (text, expected) in [
        ("x,y\n1,2\n", "t.csv: no column `class`, expected one of x, y"),
        ("class\n1\n", "t.csv: one column"),
        ("x,class\n\n\na,2\n", "t.csv: line 4: x is `a`, expected a finite number"),
        ("x,class\nNaN,2\n", "line 2: x is `NaN`"),
        ("x,class\n1,-1\n", "line 2: class is `-1`, expected a class"),
        ("x,class\n1,4294967295\n", "line 2: class is `4294967295`"),
    ] {
        let error = table(text).plain("class").unwrap_err().to_string();
        assert!(error.contains(expected), "{error}, expected {expected}");
    }
}

#[test]
fn every_row_has_a_class() {
    let (label, classes) = table("x,class\n1,1\n2,10\n3,2\n4,1.0\n").classes("class").unwrap();
    assert_eq!((label.classes.join(","), classes), ("1,2,10".into(), vec![0, 2, 1, 0]));
    let error = table("x,class\n1,a\n2,\n").classes("class").unwrap_err().to_string();
    assert!(error.ends_with("t.csv: line 3: class is missing, expected a class"), "{error}");
}

/// A file is read again for what is asked of it next, and isn't another one then.
#[test]
fn files_that_change_while_they_are_read_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, "t.csv", b"x,class\n1,a\n2,b\n");
    let table = Table::open(&path).unwrap();
    let (_, classes) = table.classes("class").unwrap();
    assert_eq!(classes, [0, 1]);
    write(&folder, "t.csv", b"x,class\n1,a\n");
    let error = table.schema_of_all("class", &[]).unwrap_err().to_string();
    assert!(error.contains("changed while it was read: 1 rows, 2 before"), "{error}");
}

/// What can be read once is kept.
#[cfg(unix)]
#[test]
fn pipes_are_tables() {
    use std::os::fd::AsRawFd;
    let (reader, mut writer) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut writer, b"x,class\n1,a\n3,b\n").unwrap();
    drop(writer);
    let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
    if !Path::new(&path).exists() {
        return;
    }
    let rows = rows_of(&Table::open(Path::new(&path)).unwrap(), &[]).unwrap();
    assert_eq!((rows.features, rows.labels), (vec![-1.0, 1.0], vec![0, 1]));
}
