//! Data of simulated clients, from files.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use tern_engine::nn::ModelSpec;
use tern_engine::{Device, RowData, TextData, TextWindows};
use tern_fl::layout::ModelKind;
use tern_fl::simulate::files::{Rows, Table, digits, speeches};
use tern_fl::simulate::{Partition, Population, by_value, partition};
use tern_fl::tokens::{Alphabet, Tokens};
use tern_fl::trainer::LocalData;

/// Where the clients' data is, and how it is dealt out.
#[derive(Args, Debug)]
#[group(skip)]
pub struct Options {
    /// Text files or folders of them, plain or gzip. A client is a speaker (lines `@name` say
    /// who speaks from there on) or else a file.
    #[arg(long, value_name = "PATH", num_args = 1.., conflicts_with_all = ["csv", "digits"])]
    text: Vec<PathBuf>,
    /// How text becomes tokens.
    #[arg(long, value_enum, default_value_t = Characters::Ascii, requires = "text")]
    tokens: Characters,
    /// A CSV file with a line of column names, plain or gzip. Columns that are no numbers become
    /// a feature for each value.
    #[arg(long, value_name = "FILE", requires = "label", conflicts_with = "digits")]
    csv: Option<PathBuf>,
    /// The column with the class.
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,
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
    /// Share of the samples that is held out for evaluation: of the rows, or of each text's end.
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
    /// Rows with a class each, and the rows of each client.
    Rows { rows: Rows, parts: Vec<Vec<usize>>, held_out: Vec<usize> },
    /// Texts as tokens.
    Texts { texts: Vec<Vec<u32>>, held_out: Vec<Vec<u32>>, vocabulary: usize, window: usize },
}

impl Data {
    /// Reads files and deals out what they hold.
    pub fn read(options: &Options, seed: u32) -> Result<Self> {
        if !(0.0..1.0).contains(&options.held_out) {
            bail!("--held-out is {}, expected 0 to below 1", options.held_out);
        }
        if !options.text.is_empty() {
            return Self::texts(options);
        }
        match (&options.csv, &options.label, options.digits.as_slice()) {
            (Some(path), Some(label), _) => {
                let table = Table::read(path)?;
                let by: Vec<&str> = options.by.iter().map(String::as_str).collect();
                let rows = table.rows(label, &by)?;
                match &options.by {
                    None => Self::dealt(options, rows, seed),
                    Some(by) => {
                        let parts = by_value(&table.column(by)?);
                        Ok(hold_out(options, rows, parts, seed))
                    }
                }
            }
            (_, _, [images, labels]) => Self::dealt(options, digits(images, labels)?, seed),
            _ => bail!("no data: give --text, --csv with --label, or --digits"),
        }
    }

    fn texts(options: &Options) -> Result<Self> {
        let mut speeches = speeches(&options.text)?;
        speeches.truncate(options.clients.unwrap_or(usize::MAX));
        let all = || speeches.iter().map(|speech| speech.text.as_str());
        let how = match options.tokens {
            Characters::Ascii => Tokens::Ascii,
            Characters::Bytes => Tokens::Bytes,
            Characters::Alphabet => Tokens::Alphabet(Alphabet::of(all())),
        };
        how.check(all()).context("--text with --tokens")?;
        let (mut texts, mut held_out) = (Vec::new(), Vec::new());
        for speech in &speeches {
            let mut tokens = how.encode(&speech.text);
            let kept = tokens.len() - (options.held_out * tokens.len() as f64) as usize;
            held_out.push(tokens.split_off(kept));
            texts.push(tokens);
        }
        let vocabulary = how.vocabulary();
        Ok(Data::Texts { texts, held_out, vocabulary, window: options.window })
    }

    fn dealt(options: &Options, rows: Rows, seed: u32) -> Result<Self> {
        let clients = options.clients.unwrap_or(CLIENTS.min(rows.labels.len()));
        let how = options.alpha.map_or(Partition::Iid, Partition::Dirichlet);
        let parts = partition(&rows.labels, clients, how, seed)?;
        Ok(hold_out(options, rows, parts, seed))
    }

    /// A model for the data: a perceptron, or an LSTM.
    pub fn model(&self, hidden: &[usize]) -> Result<ModelKind> {
        Ok(ModelKind::Layers(match self {
            Data::Rows { rows, .. } => ModelSpec::mlp(rows.width, hidden, rows.classes.len()),
            Data::Texts { vocabulary, .. } => {
                let Some(width) = hidden.first().filter(|width| hidden.iter().all(|h| h == *width))
                else {
                    bail!(
                        "--hidden of a text model: layers of one size, expected the same for all"
                    );
                };
                ModelSpec::language_model(*vocabulary, 16, *width, hidden.len())
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
            Data::Texts { texts, vocabulary, window, .. } => {
                Population::texts(device, texts, *vocabulary, *window)?
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
            Data::Texts { held_out, vocabulary, window, .. } => {
                match held_out.iter().any(|text| text.len() > 1) {
                    false => None,
                    true => {
                        let data = TextData::upload(
                            device,
                            held_out,
                            TextWindows::new(*vocabulary, *window),
                        )?;
                        Some(LocalData::Text(data))
                    }
                }
            }
        })
    }
}

/// Takes a share of each client's rows away.
fn hold_out(options: &Options, rows: Rows, mut parts: Vec<Vec<usize>>, seed: u32) -> Data {
    let mut held_out = Vec::new();
    for (client, part) in parts.iter_mut().enumerate() {
        let kept = part.len() - (options.held_out * part.len() as f64) as usize;
        // In random order, so that the end of a sorted file isn't what is missing.
        let key = [seed, client as u32 ^ 0x0e1d];
        let count = part.len() as u32;
        let mixed: Vec<usize> = (0..count)
            .map(|i| part[tern_shaders::kernels::data::permute(i, count, key) as usize])
            .collect();
        held_out.extend_from_slice(&mixed[kept..]);
        *part = mixed[..kept].to_vec();
    }
    Data::Rows { rows, parts, held_out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::path::Path;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        data: Options,
    }

    /// What a command line of these words, split at spaces, reads from a file.
    fn read(kind: &str, path: &Path, words: &str) -> Result<Data> {
        let path = path.to_string_lossy();
        let line = ["simulate", kind, &path].into_iter().chain(words.split_whitespace());
        Data::read(&Command::try_parse_from(line)?.data, 1)
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
            let Data::Texts { vocabulary, texts, .. } = read(words).unwrap() else { panic!() };
            assert_eq!(vocabulary, tokens);
            // A model would otherwise learn one token.
            assert!(texts[0].iter().collect::<std::collections::BTreeSet<_>>().len() > 10);
        }
        assert!(self::read("--csv", file.path(), "--label x --tokens bytes").is_err());
    }
}
