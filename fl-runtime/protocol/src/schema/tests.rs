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
