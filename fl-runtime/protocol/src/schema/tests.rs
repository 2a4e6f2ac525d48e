use super::*;

fn names(names: &str) -> Vec<String> {
    names.split(',').map(String::from).collect()
}

fn fit(header: &str, rows: &[&str]) -> Result<Schema> {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| names(row)).collect();
    let rows: Vec<&[String]> = rows.iter().map(Vec::as_slice).collect();
    Schema::fit(&names(header), &rows, "class", &[])
}

#[test]
fn classes_are_values_not_ways_to_write_them() {
    let schema = fit("x,class", &["1,1", "2, 1.0", "3,10", "4,2", "5,", "6,?"]).unwrap();
    assert_eq!(schema.label.classes, ["1", "2", "10"]);
    let reader = schema.label.reader();
    for (value, class) in [("1e0", 0), ("1", 0), (" 1.0 ", 0), ("+2", 1), ("10.00", 2)] {
        assert_eq!(reader.class(value), Ok(class), "{value}");
    }
    for missing in ["", " ", "?"] {
        assert_eq!(reader.class(missing).unwrap_err(), "class is missing, expected a class");
    }
    assert_eq!(reader.class("3").unwrap_err(), "class is `3`, expected one of 1, 2, 10");
    // Codes are no numbers, words are in their order, and a long number keeps its digits.
    for (values, classes) in [
        (["007", "7", "07"], ["007", "07", "7"]),
        (["b", "nan", "a"], ["a", "b", "nan"]),
        (
            ["9007199254740993", "9007199254740992", "-0"],
            ["0", "9007199254740992", "9007199254740993"],
        ),
    ] {
        let mut fit = LabelFit::new("class");
        values.iter().try_for_each(|value| fit.see(value)).unwrap();
        assert_eq!(fit.finish().classes, classes);
    }
}

#[test]
fn missing_categories_are_one_and_unknown_ones_none() {
    let schema = fit("job,class", &["baker,0", "?,1", ",1", "7.0,0"]).unwrap();
    let ColumnKind::Category { values } = &schema.columns[0].kind else { panic!() };
    assert_eq!(values, &["7", "?", "baker"]);
    let names = names("job,class");
    let reader = schema.reader(&names).unwrap();
    for (job, expected) in [("", [0.0, 1.0, 0.0]), ("7", [1.0, 0.0, 0.0]), ("smith", [0.0; 3])] {
        let mut features = Vec::new();
        reader.row(&[job.to_owned(), "1".to_owned()], &mut features).unwrap();
        assert_eq!(features, expected, "{job}");
    }
}

#[test]
fn columns_that_name_their_rows_are_refused() {
    let rows = |count: usize| -> Vec<String> {
        (0..count).map(|i| format!("id{i},{},{}", 0.5 * i as f32, i % 2)).collect()
    };
    let fit = |count| {
        let rows = rows(count);
        fit("id,x,class", &rows.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert_eq!(fit(MAX_CATEGORIES).unwrap().width(), MAX_CATEGORIES + 1);
    let error = fit(8000).unwrap_err().to_string();
    assert!(
        error.contains("values in column `id` is more than 1000, expected at most 1000"),
        "{error}"
    );
}

/// What is kept of a table of any length is its schema.
#[test]
fn labels_that_name_their_rows_are_refused() {
    let mut fit = LabelFit::new("id");
    let mut seen = (0..).map(|i: usize| fit.see(&format!("id{i}")));
    let fits = seen.by_ref().take(MAX_CLASSES).filter(|seen| seen.is_ok()).count();
    assert_eq!(fits, MAX_CLASSES);
    let error = seen.next().unwrap().unwrap_err().to_string();
    assert!(error.contains("classes in column `id` is more than 65536"), "{error}");
    let mut schema = self::fit("x,class", &["1,a", "2,b"]).unwrap();
    schema.label.classes = (0..=MAX_CLASSES).map(|i| i.to_string()).collect();
    let error = schema.check().unwrap_err().to_string();
    assert!(error.contains("is 65537, expected at most 65536 classes"), "{error}");
}

/// Of numbers far from 0, and of as many as one likes, mean and deviation are exact.
#[test]
fn numbers_are_scaled_by_what_was_seen() {
    let rows: Vec<String> = (0..1000).map(|i| format!("{},a", 16_777_000 + i % 2)).collect();
    let schema = fit("x,class", &rows.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let ColumnKind::Number { mean, deviation } = schema.columns[0].kind else { panic!() };
    assert!((mean - 16_777_000.5).abs() < 1e-8, "{mean}");
    assert!((deviation - 0.5).abs() < 1e-8, "{deviation}");
}

#[test]
fn columns_are_found_by_name() {
    let schema = fit("x,y,class", &["1,2,a", "3,6,b"]).unwrap();
    let other = names("y,id,class,x");
    let mut features = Vec::new();
    let reader = schema.reader(&other).unwrap();
    assert_eq!(reader.row(&names("8,9,b,1"), &mut features), Ok(1));
    assert_eq!(features, [-1.0, 2.0]);
    let error = schema.reader(&names("x,class")).unwrap_err().to_string();
    assert!(error.contains("column is y, expected one of x, class"), "{error}");
    assert!(Schema::fit(&other, &[], "class", &[]).is_err());
    let error = Schema::fit(&other, &[], "class", &["age"]).unwrap_err().to_string();
    assert!(error.contains("column is age"), "{error}");
}

#[test]
fn schemas_are_read_as_they_were_written() {
    let schema = fit("x,job,class", &["0.1,a,no", "0.7,b,yes", "1e9,?,no"]).unwrap();
    let json = serde_json::to_string(&schema).unwrap();
    assert_eq!(serde_json::from_str::<Schema>(&json).unwrap(), schema);
    let text = toml::to_string(&schema).unwrap();
    assert_eq!(toml::from_str::<Schema>(&text).unwrap(), schema);
    let error = toml::from_str::<Schema>(&format!("speed = 1\n{text}")).unwrap_err();
    assert!(error.to_string().contains("speed"), "{error}");
}

/// A column is of numbers if most of its values are.
#[test]
fn nothing_is_fitted_on_a_row_with_a_word_among_numbers() {
    let schema = fit("x,class", &["five,c", "1,a", "3,a", "?,b"]).unwrap();
    let ColumnKind::Number { mean, deviation } = schema.columns[0].kind else { panic!() };
    assert_eq!((mean, deviation), (2.0, 1.0));
    assert_eq!(schema.label.classes, ["a", "b"]);
    let error = fit("x,y,z,class", &["w,1,2,a", "1,w,2,a", "1,2,w,a"]).unwrap_err().to_string();
    assert!(error.contains("none (x is `w`, expected a number)"), "{error}");
    // What is always the same has no deviation to be scaled by.
    let schema = fit("x,class", &["5,a", "5,b"]).unwrap();
    let scaled = ColumnKind::Number { mean: 5.0, deviation: 1.0 };
    assert_eq!(schema.columns[0].kind, scaled);
}

#[test]
fn of_many_classes_ten_are_named() {
    for count in [10, 11, 12] {
        let rows: Vec<String> = (0..2 * count).map(|i| format!("{i},{}", i % count)).collect();
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        let label = fit("x,class", &rows).unwrap().label;
        let refused = label.reader().class("no").unwrap_err();
        assert_eq!(refused.ends_with("8, 9, …"), count > 10, "{refused}");
        assert!(refused.contains("7, 8, 9"), "{refused}");
    }
}

#[test]
fn schemas_that_make_no_sense_are_refused() {
    let schema = fit("x,job,class", &["1,a,no", "2,b,yes"]).unwrap();
    let with = |change: &dyn Fn(&mut Schema)| {
        let mut schema = schema.clone();
        change(&mut schema);
        schema.check().map_err(|error| error.to_string())
    };
    assert_eq!(with(&|_| ()), Ok(()));
    for (mean, deviation) in [(f64::NAN, 1.0), (0.0, f64::INFINITY), (0.0, 0.0), (0.0, -1.0)] {
        let error = with(&|s| s.columns[0].kind = ColumnKind::Number { mean, deviation });
        assert!(error.unwrap_err().contains("a deviation above 0"), "{mean} {deviation}");
    }
    let many = |count: usize| -> Vec<String> { (0..count).map(|i| format!("v{i}")).collect() };
    let categories =
        |count| with(&|s| s.columns[1].kind = ColumnKind::Category { values: many(count) });
    assert_eq!(categories(MAX_CATEGORIES), Ok(()));
    let error = categories(MAX_CATEGORIES + 1).unwrap_err();
    assert!(error.contains(&format!("at most {MAX_CATEGORIES}")), "{error}");
    let classes = |count| with(&|s| s.label.classes = many(count));
    assert_eq!(classes(MAX_CLASSES), Ok(()));
    assert!(classes(MAX_CLASSES + 1).unwrap_err().contains("at most"));
    assert!(classes(0).unwrap_err().contains("at least one"));
}
