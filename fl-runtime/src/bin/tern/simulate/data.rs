//! Data of simulated clients, from files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use tern_engine::nn::ModelSpec;
use tern_engine::{Device, RowData, TextData, TextWindows};
use tern_fl::RunPlan;
use tern_fl::layout::ModelKind;
use tern_fl::schema::Schema;
use tern_fl::simulate::files::{Rows, Table, digits, speeches};
use tern_fl::simulate::{Partition, Population, by_value, partition};
use tern_fl::tokens::{Alphabet, Tokens};
use tern_fl::trainer::LocalData;

use crate::held_out::{hold_out_ends, hold_out_rows};

/// Where the clients' data is, and how it is dealt out.
#[derive(Args, Debug)]
#[group(skip)]
pub struct Options {
    /// Text files or folders of them, plain or gzip. A client is a speaker (lines `@name` say
    /// who speaks from there on) or else a file.
    #[arg(long, value_name = "PATH", num_args = 1.., conflicts_with_all = ["csv", "digits"])]
    text: Vec<PathBuf>,
    /// How text becomes tokens; else as the run says, or ASCII.
    #[arg(long, value_enum, requires = "text")]
    tokens: Option<Characters>,
    /// A CSV file with a line of column names, plain or gzip, or a Parquet file. Numbers are scaled
    /// by the rows that clients train on; columns that are no numbers become a feature for each
    /// value there.
    #[arg(long, value_name = "FILE", conflicts_with = "digits")]
    csv: Option<PathBuf>,
    /// The column with the class; else the one of the run's schema.
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,
    /// Columns that say nothing of the class: numbers of rows, names.
    #[arg(long, value_name = "COLUMN", value_delimiter = ',', requires = "csv")]
    without: Vec<String>,
    /// Images and labels in IDX files, plain or gzip.
    #[arg(long, value_names = ["IMAGES", "LABELS"], num_args = 2)]
    digits: Vec<PathBuf>,
    /// Clients among whom rows are dealt out, evenly or by --alpha; of texts, the most.
    #[arg(long)]
    clients: Option<usize>,
    /// Concentration of a Dirichlet distribution: the smaller, the fewer classes a client has.
    #[arg(long)]
    alpha: Option<f64>,
    /// A client for each value of this column.
    #[arg(long, value_name = "COLUMN", requires = "csv", conflicts_with_all = ["clients", "alpha"])]
    by: Option<String>,
    /// Share of the samples that is held out for evaluation: of all clients' rows, or of the ends
    /// of their texts.
    #[arg(long, default_value_t = 0.1)]
    held_out: f64,
    /// Tokens of a window of text.
    #[arg(long, default_value_t = 80)]
    window: usize,
}

/// What of a text is a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Characters {
    /// 97 tokens: a character of ASCII each; others are unknown.
    Ascii,
    /// 256 tokens: a byte of UTF-8 each.
    Bytes,
    /// A token for each character that the texts have.
    Alphabet,
}

/// Clients among whom rows are dealt out if nothing else is said.
const CLIENTS: usize = 100;

/// Samples of the clients, and those held out.
pub enum Data {
    /// Rows with a class each, the rows of each client, and what the columns of their table mean.
    Rows { rows: Rows, parts: Vec<Vec<usize>>, held_out: Vec<usize>, schema: Option<Schema> },
    /// Texts as tokens.
    Texts { texts: Vec<Vec<u32>>, held_out: Vec<Vec<u32>>, tokens: Tokens, window: usize },
}

impl Data {
    /// Reads files, as a run says if it does, and deals out what they hold.
    pub fn read(options: &Options, run: Option<&RunPlan>, seed: u32) -> Result<Self> {
        let schema = run.and_then(|run| run.schema.as_ref());
        let tokens = run.and_then(|run| run.tokens.as_ref());
        if !(0.0..1.0).contains(&options.held_out) {
            bail!("--held-out is {}, expected 0 to below 1", options.held_out);
        }
        if schema.is_some() && options.csv.is_none() {
            bail!("no table, expected --csv: the run has a schema");
        }
        if !options.text.is_empty() {
            return Self::texts(options, tokens);
        }
        if tokens.is_some() {
            bail!("no text, expected --text: the run has tokens");
        }
        let label = options.label.as_ref().or(schema.map(|schema| &schema.label.name));
        match (&options.csv, label, options.digits.as_slice()) {
            (Some(path), Some(label), _) => {
                Self::table(options, (path.as_path(), label.as_str()), schema, seed)
            }
            (_, _, [images, labels]) => {
                let rows = digits(images, labels)?;
                let mut parts = deal(options, &rows.labels, seed)?;
                let held_out =
                    hold_out_rows(options.held_out, &mut parts, seed).context("--held-out")?;
                Ok(Data::Rows { rows, parts, held_out, schema: None })
            }
            _ => bail!("no data: give --text, --csv with --label, or --digits"),
        }
    }

    fn texts(options: &Options, run: Option<&Tokens>) -> Result<Self> {
        let mut speeches = speeches(&options.text)?;
        speeches.truncate(options.clients.unwrap_or(usize::MAX));
        let all = || speeches.iter().map(|speech| speech.text.as_str());
        let asked = options.tokens.map(|characters| match characters {
            Characters::Ascii => Tokens::Ascii,
            Characters::Bytes => Tokens::Bytes,
            Characters::Alphabet => Tokens::Alphabet(Alphabet::of(all())),
        });
        if let (Some(asked), Some(run)) = (&asked, run)
            && asked != run
        {
            bail!("--tokens are others than the run's, expected none or the same");
        }
        let how = asked.or(run.cloned()).unwrap_or_default();
        how.check(all()).context("--text with --tokens")?;
        let mut texts: Vec<Vec<u32>> = all().map(|text| how.encode(text)).collect();
        let held_out = hold_out_ends(options.held_out, &mut texts).context("--held-out")?;
        Ok(Data::Texts { texts, held_out, tokens: how, window: options.window })
    }

    fn table(
        options: &Options,
        (path, label): (&Path, &str),
        schema: Option<&Schema>,
        seed: u32,
    ) -> Result<Self> {
        let table = Table::open(path)?;
        let (label, labels) = match schema {
            Some(Schema { label: known, .. }) if known.name != label => {
                bail!("--label is {label}, expected {}, as the run's schema says", known.name)
            }
            Some(Schema { label: known, .. }) => (known.clone(), table.classes_of(known)?),
            None => table.classes(label)?,
        };
        let mut parts = match &options.by {
            Some(by) => {
                let values = table.column(by)?;
                let values: Vec<&str> = values.iter().map(|value| value.trim()).collect();
                if let Some(row) = values.iter().position(|value| value.is_empty()) {
                    let line = table.lines()?[row];
                    bail!("{}: line {line}: {by} is missing, expected a client", path.display());
                }
                by_value(&values)
            }
            None => deal(options, &labels, seed)?,
        };
        let held_out = hold_out_rows(options.held_out, &mut parts, seed).context("--held-out")?;
        let schema = match schema {
            Some(schema) => schema.clone(),
            None => {
                let without: Vec<&str> =
                    options.without.iter().chain(&options.by).map(String::as_str).collect();
                // What is held out says nothing of how rows are scaled.
                let fitted = table.schema(&label.name, &without, &parts.concat())?;
                Schema { label, ..fitted }
            }
        };
        let rows = table.read_all_by(&schema)?;
        Ok(Data::Rows { rows, parts, held_out, schema: Some(schema) })
    }

    /// What the columns of the clients' table mean, if they have one.
    pub fn schema(&self) -> Option<&Schema> {
        match self {
            Data::Rows { schema, .. } => schema.as_ref(),
            Data::Texts { .. } => None,
        }
    }

    /// How the clients' text became tokens, if they have one.
    pub fn tokens(&self) -> Option<&Tokens> {
        match self {
            Data::Rows { .. } => None,
            Data::Texts { tokens, .. } => Some(tokens),
        }
    }

    /// A model for the data: a perceptron, or an LSTM.
    pub fn model(&self, hidden: &[usize]) -> Result<ModelKind> {
        Ok(ModelKind::Layers(match self {
            Data::Rows { rows, .. } => ModelSpec::mlp(rows.width, hidden, rows.classes.len()),
            Data::Texts { tokens, .. } => {
                let Some(width) = hidden.first().filter(|width| hidden.iter().all(|h| h == *width))
                else {
                    bail!(
                        "--hidden of a text model: layers of one size, expected the same for all"
                    );
                };
                ModelSpec::language_model(tokens.vocabulary(), 16, *width, hidden.len())
            }
        }))
    }

    /// The clients, on a device.
    pub fn population(&self, device: &Device) -> Result<Population> {
        Ok(match self {
            Data::Rows { rows, parts, .. } => {
                let features = (rows.features.as_slice(), rows.width);
                Population::rows(device, features, &rows.labels, rows.classes.len(), parts)?
            }
            Data::Texts { texts, tokens, window, .. } => {
                Population::texts(device, texts, tokens.vocabulary(), *window)?
            }
        })
    }

    /// What is held out, on a device; `None` if that is nothing.
    pub fn held_out(&self, device: &Device) -> Result<Option<LocalData>> {
        Ok(match self {
            Data::Rows { held_out, .. } if held_out.is_empty() => None,
            Data::Rows { rows, held_out, .. } => {
                let row = |row: &usize| &rows.features[row * rows.width..][..rows.width];
                let x: Vec<f32> = held_out.iter().flat_map(row).copied().collect();
                let y: Vec<u32> = held_out.iter().map(|row| rows.labels[*row]).collect();
                let data = RowData::upload(device, &x, rows.width, &y, rows.classes.len())?;
                Some(LocalData::Rows(data))
            }
            Data::Texts { held_out, tokens, window, .. } => {
                match held_out.iter().any(|text| text.len() > 1) {
                    false => None,
                    true => {
                        let data = TextData::upload(
                            device,
                            held_out,
                            TextWindows::new(tokens.vocabulary(), *window),
                        )?;
                        Some(LocalData::Text(data))
                    }
                }
            }
        })
    }
}

/// The rows of each client.
fn deal(options: &Options, labels: &[u32], seed: u32) -> Result<Vec<Vec<usize>>> {
    let clients = options.clients.unwrap_or(CLIENTS.min(labels.len()));
    let how = options.alpha.map_or(Partition::Iid, Partition::Dirichlet);
    Ok(partition(labels, clients, how, seed)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        data: Options,
    }

    /// What a command line of these words, split at spaces, reads from a file.
    fn read(kind: &str, path: &Path, words: &str) -> Result<Data> {
        let path = path.to_string_lossy();
        let line = ["simulate", kind, &path].into_iter().chain(words.split_whitespace());
        Data::read(&Command::try_parse_from(line)?.data, None, 1)
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn text_is_made_of_tokens_that_it_has() {
        let file = file("привет, мир\nкак дела?\n");
        let read = |words: &str| read("--text", file.path(), words);
        let error = format!("{:#}", read("").err().unwrap());
        assert!(error.contains("72.7 % ('а', ") && error.contains("at most 1 %"), "{error}");
        for (words, tokens) in [("--tokens bytes", 256), ("--tokens alphabet", 16)] {
            let data = read(words).unwrap();
            let Data::Texts { tokens: how, texts, .. } = &data else { panic!() };
            assert_eq!(how.vocabulary(), tokens);
            // A model would otherwise learn one token.
            assert!(texts[0].iter().collect::<std::collections::BTreeSet<_>>().len() > 10);
            // The plan that is written has a client read it the same.
            let mut run = RunPlan::new("test", data.model(&[8]).unwrap(), 1);
            run.tokens = data.tokens().cloned();
            run.check().unwrap();
            let path = file.path().to_string_lossy().into_owned();
            let options = |words: &[&str]| {
                let line = ["simulate", "--text", &path];
                Command::try_parse_from(line.iter().chain(words)).unwrap().data
            };
            let again = Data::read(&options(&[]), Some(&run), 1).unwrap();
            let Data::Texts { texts: again, .. } = again else { panic!() };
            assert_eq!(again, *texts);
            let other = Data::read(&options(&["--tokens", "ascii"]), Some(&run), 1).err().unwrap();
            assert!(other.to_string().contains("others than the run's"), "{other}");
        }
        assert!(self::read("--csv", file.path(), "--label x --tokens bytes").is_err());
    }
    fn rows(text: &str, words: &str) -> Result<(Rows, Vec<Vec<usize>>, Vec<usize>)> {
        match read("--csv", file(text).path(), &format!("--label class {words}"))? {
            Data::Rows { rows, parts, held_out, .. } => Ok((rows, parts, held_out)),
            Data::Texts { .. } => unreachable!(),
        }
    }

    #[test]
    fn held_out_rows_say_nothing_of_the_scaling() {
        // Whatever is held out, the numbers of the rest are scaled by themselves.
        let text: String = (0..40).map(|i| format!("{},{}\n", i * i, i % 2)).collect();
        let text = format!("x,class\n{text}");
        let (rows, parts, held_out) = rows(&text, "--clients 2 --held-out 0.5").unwrap();
        let moments = |of: &[usize]| {
            let x = || of.iter().map(|row| f64::from(rows.features[*row]));
            let mean = x().sum::<f64>() / of.len() as f64;
            (mean, x().map(|x| (x - mean).powi(2)).sum::<f64>() / of.len() as f64)
        };
        let (mean, variance) = moments(&parts.concat());
        assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-6, "{mean} {variance}");
        let (mean, variance) = moments(&[parts.concat(), held_out].concat());
        assert!(mean.abs() > 1e-3 || (variance - 1.0).abs() > 1e-3, "{mean} {variance}");
    }

    #[test]
    fn classes_are_known_even_where_they_are_held_out_alone() {
        let text = "x,class\n1,a\n2,b\n3,c\n4,d\n";
        let (rows, _, held_out) = rows(text, "--clients 1 --held-out 0.5").unwrap();
        assert_eq!((rows.classes.len(), rows.labels.as_slice()), (4, &[0, 1, 2, 3][..]));
        assert_eq!(held_out.len(), 2);
    }

    #[test]
    fn what_is_missing_or_names_its_row_is_refused_by_name() {
        let error = |text: &str, words: &str| format!("{:#}", rows(text, words).err().unwrap());
        let missing = error("x,class\n1,a\n2,\n", "");
        assert!(missing.ends_with("line 3: class is missing, expected a class"), "{missing}");
        let nobody = error("x,who,class\n1,ann,a\n2,,b\n", "--by who");
        assert!(nobody.ends_with("line 3: who is missing, expected a client"), "{nobody}");
        let ids: String = (0..1200).map(|i| format!("id{i},{i},{}\n", i % 2)).collect();
        let ids = format!("id,x,class\n{ids}");
        let named = error(&ids, "");
        assert!(named.contains("column `id` is more than 1000, expected at most 1000"), "{named}");
        assert_eq!(rows(&ids, "--without id").unwrap().0.width, 1);
    }

    #[test]
    fn a_table_that_was_simulated_is_read_the_same_by_its_schema() {
        let file = file("x,job,class\n1,baker,no\n2,smith,yes\n3,baker,no\n4,smith,yes\n");
        let data = read("--csv", file.path(), "--label class --clients 2").unwrap();
        let options = |words: &str| {
            let path = file.path().to_string_lossy().into_owned();
            let line = ["simulate", "--csv", &path].into_iter().chain(words.split_whitespace());
            Command::try_parse_from(line).unwrap().data
        };
        let mut run = RunPlan::new("test", data.model(&[]).unwrap(), 1);
        run.schema = data.schema().cloned();
        run.check().unwrap();
        let again = Data::read(&options("--clients 2"), Some(&run), 1).unwrap();
        let rows = |data: &Data| match data {
            Data::Rows { rows, .. } => rows.clone(),
            Data::Texts { .. } => unreachable!(),
        };
        assert_eq!(rows(&again), rows(&data));
        let other = Data::read(&options("--label job"), Some(&run), 1).err().unwrap();
        assert!(other.to_string().contains("expected class, as the run's schema"), "{other}");
        let missing = Data::read(&options(""), None, 1).err().unwrap().to_string();
        assert!(missing.contains("--csv with --label"), "{missing}");
    }
}
