//! `tern schema`: what the columns of clients' tables mean, from sample files.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use tern_fl::data::Table;
use tern_fl::schema::Schema;

/// Writes the schema that tables say, as a section of a configuration: which columns are numbers,
/// with their mean and deviation, the categories of the others, and the classes.
///
/// Every client of the run is told it and reads its tables by it, with the columns in any order:
/// take files that all of them may know something of. The model takes as many features and tells
/// apart as many classes as the first line says.
#[derive(Args, Debug)]
pub struct Options {
    /// CSV files with a line of column names, plain or gzip, or Parquet files.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The column with the class.
    #[arg(long, value_name = "COLUMN")]
    label: String,
    /// Columns that say nothing of the class: numbers of rows, names.
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    without: Vec<String>,
}

/// Prints TOML.
pub fn run(options: &Options) -> Result<()> {
    super::say(format_args!("{}", section(options)?.trim_end()));
    Ok(())
}

/// Sample files, and what is said of their columns.
pub struct Sample<'a> {
    /// Tables of the same columns.
    pub files: &'a [PathBuf],
    /// The column with the class.
    pub label: &'a str,
    /// Columns that are left out.
    pub without: &'a [String],
}

/// What a sample says of its columns.
pub fn of(sample: &Sample<'_>) -> Result<Schema> {
    let table = Table::open_several(sample.files)?;
    let without: Vec<&str> = sample.without.iter().map(String::as_str).collect();
    let schema = table.schema_of_all(sample.label, &without)?;
    // What can't be read by it isn't what it was made of.
    table.check(&schema)?;
    schema.check()?;
    Ok(schema)
}

fn section(options: &Options) -> Result<String> {
    #[derive(serde::Serialize)]
    struct Run {
        schema: Schema,
    }
    #[derive(serde::Serialize)]
    struct Config {
        run: Run,
    }
    let Options { files, label, without } = options;
    let schema = of(&Sample { files, label, without })?;
    let (features, classes) = (schema.width(), schema.label.classes.len());
    let section = toml::to_string(&Config { run: Run { schema } }).context("writing the schema")?;
    Ok(format!("# {features} features, {classes} classes.\n{section}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_fl::config::Config;

    #[test]
    fn what_is_written_is_a_section_of_a_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let files = vec![
            file("a.csv", "id,age,job,class\nx1,1,baker,no\n"),
            file("b.csv", "class,job,age,id\nyes,smith,3,x2\n"),
        ];
        let mut options = Options { files, label: "class".into(), without: vec!["id".into()] };
        let written = section(&options).unwrap();
        assert!(written.starts_with("# 3 features, 2 classes.\n"), "{written}");
        let run = "[run]\nname = \"jobs\"\nrounds = 1\n[run.model.layers]\n\
                   input = { features = { width = 3 } }\n\
                   layers = [[\"0\", { linear = { outputs = 2 } }]]\n";
        let config = Config::parse("tern.toml", &format!("{run}{written}"));
        let schema = config.unwrap_or_else(|error| panic!("{error}")).run.unwrap().schema.unwrap();
        let names: Vec<&str> = schema.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(
            (names, schema.label.classes),
            (vec!["age", "job"], vec!["no".into(), "yes".into()])
        );
        let wide = run.replace("width = 3", "width = 4");
        let error = Config::parse("tern.toml", &format!("{wide}{written}")).unwrap_err();
        assert!(error.message.contains("3 features, expected 4"), "{error}");

        options.files = vec![file("c.csv", "age,class\n1,no\n2,\n")];
        options.without.clear();
        let error = section(&options).unwrap_err().to_string();
        assert!(error.ends_with("line 3: class is missing, expected a class"), "{error}");
        options.label = "kind".into();
        let error = section(&options).unwrap_err().to_string();
        assert!(error.contains("column is kind, expected one of age, class"), "{error}");
    }
}
