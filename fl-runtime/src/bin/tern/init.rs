//! `tern init`: a configuration to start from.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use tern_engine::nn::ModelSpec;
use tern_fl::RunPlan;
use tern_fl::config::{Config, new_token, template};
use tern_fl::data::read_texts;
use tern_fl::host::files::write_new_private;
use tern_fl::layout::ModelKind;
use tern_fl::plan::Goal;
use tern_fl::tokens::Tokens;
use toml::Value;

use super::schema::{self, Sample};

/// Writes a commented configuration with every option and a token of its own. With a sample of the
/// data it writes `server.toml` and `client.toml` instead, which can be started as they are: the
/// model and what the columns mean are of the sample, and the server measures every model by it.
#[derive(Args, Debug)]
pub struct Options {
    /// The file; it must not exist.
    #[arg(default_value = "tern.toml", conflicts_with_all = ["label", "text"])]
    file: PathBuf,
    /// CSV files with a line of column names, plain or gzip, or Parquet files: a sample of what
    /// clients have.
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "label")]
    csv: Vec<PathBuf>,
    /// The column with the class.
    #[arg(long, value_name = "COLUMN", requires = "csv")]
    label: Option<String>,
    /// Columns that say nothing of the class: numbers of rows, names.
    #[arg(long, value_name = "COLUMN", value_delimiter = ',', requires = "csv")]
    without: Vec<String>,
    /// A text, or a folder of `.txt` files: a sample of what clients have.
    #[arg(long, value_name = "PATH", conflicts_with = "csv")]
    text: Option<PathBuf>,
    /// Folder of `server.toml` and `client.toml`, which must not exist.
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    out: PathBuf,
}

/// Units of the hidden layer of a model for a table, and of the LSTM of one for text.
const HIDDEN: usize = 64;
/// Tokens of a window of text.
const WINDOW: usize = 64;
/// Where the server listens: nobody else can reach it there, so that it needs no certificate yet.
const ADDRESS: &str = "127.0.0.1:8443";

/// Writes what is asked for, and never over a file.
pub fn run(options: &Options) -> Result<()> {
    let (plan, data) = match (options.csv.as_slice(), &options.label, &options.text) {
        ([first, ..], Some(label), _) => {
            let sample = Sample { files: &options.csv, label, without: &options.without };
            (table(&sample)?, data("csv", first, None)?)
        }
        (_, _, Some(path)) => (text(path)?, data("text", path, Some(WINDOW))?),
        _ => {
            let (file, text) = (&options.file, template()?);
            write(file, &text)?;
            let file = file.display();
            super::say(format_args!(
                "wrote {file}; next: tern certs HOST, tern server --config {file}, tern client \
                 --config {file}"
            ));
            return Ok(());
        }
    };
    let token = new_token()?;
    let server = options.out.join("server.toml");
    let client = options.out.join("client.toml");
    if let Some(there) = [&server, &client].into_iter().find(|path| path.exists()) {
        bail!("{}: it is there already, expected a new file", there.display());
    }
    std::fs::create_dir_all(&options.out).with_context(|| options.out.display().to_string())?;
    write(&server, &server_text(&plan, &token, &data)?)?;
    write(&client, &client_text(&token, &data))?;
    let [server, client] = [&server, &client].map(|path| path.display());
    super::say(format_args!(
        "wrote {server} and {client}; next: tern server --config {server}, tern client --config \
         {client}, each client with a folder and data of its own"
    ));
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    write_new_private(path, text.as_bytes())
        .with_context(|| format!("{}: a new file is written", path.display()))
}

/// A run on tables like a sample.
fn table(sample: &Sample<'_>) -> Result<RunPlan> {
    let schema = schema::of(sample)?;
    let (width, classes) = (schema.width(), schema.label.classes.len());
    let model = ModelKind::Layers(ModelSpec::mlp(width, &[HIDDEN], classes));
    let mut plan = plan(&schema.label.name, model);
    plan.schema = Some(schema);
    Ok(plan)
}

/// A run on texts like a sample: of bytes, if ASCII doesn't do.
fn text(path: &Path) -> Result<RunPlan> {
    let tokens = match read_texts(path, &Tokens::Ascii) {
        Ok(_) => Tokens::Ascii,
        Err(_) => read_texts(path, &Tokens::Bytes).map(|_| Tokens::Bytes)?,
    };
    let model = ModelSpec::language_model(tokens.vocabulary(), 16, HIDDEN, 1);
    let mut plan = plan("text", ModelKind::Layers(model));
    plan.training.learning_rate = 0.5;
    plan.tokens = Some(tokens);
    Ok(plan)
}

fn plan(name: &str, model: ModelKind) -> RunPlan {
    let mut plan = RunPlan::new(name, model, 20);
    plan.training.learning_rate = 0.1;
    plan.evaluation.metric = "accuracy".into();
    plan.evaluation.goal = Goal::Maximize;
    plan
}

/// The data of a client, and the server's own, as a value in a file. Its path is absolute, since
/// others are relative to the file.
fn data(kind: &str, path: &Path, steps: Option<usize>) -> Result<String> {
    let path = std::path::absolute(path).with_context(|| path.display().to_string())?;
    let path = Value::String(path.display().to_string());
    let steps = steps.map_or(String::new(), |steps| format!(", steps = {steps}"));
    Ok(format!("{{ {kind} = {{ path = {path}{steps} }} }}"))
}

fn server_text(plan: &RunPlan, token: &str, data: &str) -> Result<String> {
    #[derive(Serialize)]
    struct Section<'a> {
        run: &'a RunPlan,
    }
    let run = toml::to_string(&Section { run: plan }).context("writing the plan")?;
    let text = format!(
        "# A server, as `tern init` made it of a sample; `tern init` alone writes a file that explains\n\
         # every option. To be reached by others it listens on another address, and has [server.tls]\n\
         # (`tern certs HOST`).\n\
         version = 1\n\n\
         [server]\nlisten = \"{ADDRESS}\"\nfolder = \"run\"\n\
         # What it measures every model by.\nevaluation = {data}\n\n\
         [server.admission]\ntoken = \"{token}\"\n\n{run}"
    );
    Config::parse("server.toml", &text)?;
    Ok(text)
}

fn client_text(token: &str, data: &str) -> String {
    format!(
        "# A client. Each one has a folder and data of its own.\n\
         version = 1\n\n\
         [client]\nserver = \"http://{ADDRESS}\"\nfolder = \"client\"\ntoken = \"{token}\"\n\
         data = {data}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use tern_fl::config::DataConfig;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        init: Options,
    }

    /// Runs a command line, split at spaces, whose files are in a folder.
    fn init(folder: &Path, words: &str) -> Result<[Config; 2]> {
        let words = words.replace("IN/", &format!("{}/", folder.display()));
        let out = folder.join("out");
        let line = ["init", "--out", out.to_str().unwrap()].into_iter();
        run(&Command::try_parse_from(line.chain(words.split_whitespace()))?.init)?;
        Ok(["server", "client"].map(|name| {
            let path = out.join(format!("{name}.toml"));
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                let mode = std::fs::metadata(&path).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o600, "it holds a token");
            }
            Config::load(&path).unwrap()
        }))
    }

    #[test]
    fn a_table_makes_a_server_and_a_client_that_go_together() {
        let folder = tempfile::tempdir().unwrap();
        let sample = "id,age,job,class\n1,20,baker,no\n2,40,smith,yes\n";
        std::fs::write(folder.path().join("a.csv"), sample).unwrap();
        let words = "--csv IN/a.csv --label class --without id";
        let [server, client] = init(folder.path(), words).unwrap();
        let run = server.run.unwrap();
        run.check().unwrap();
        assert_eq!(run.schema.as_ref().unwrap().width(), 3);
        assert_eq!(run.model, ModelKind::Layers(ModelSpec::mlp(3, &[64], 2)));
        let (server, client) = (server.server.unwrap(), client.client.unwrap());
        assert_eq!(server.admission.token, client.token);
        assert_eq!(client.server, format!("http://{}", server.listen));
        assert_eq!(server.evaluation, Some(client.data.clone()));
        assert!(matches!(&client.data, DataConfig::Csv { path, .. } if path.exists()));
        // Nothing is lost by a second one.
        let error = init(folder.path(), words).err().unwrap().to_string();
        assert!(error.contains("server.toml: it is there already"), "{error}");
        let error = init(folder.path(), "--csv IN/a.csv --label kind").err().unwrap();
        assert!(format!("{error:#}").contains("expected one of id, age, job, class"), "{error:#}");
    }

    #[test]
    fn a_text_makes_them_with_the_tokens_that_it_has() {
        for (text, tokens) in [("to be or not to be", Tokens::Ascii), ("быть или", Tokens::Bytes)]
        {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("a.txt"), text).unwrap();
            let [server, client] = init(folder.path(), "--text IN/a.txt").unwrap();
            let run = server.run.unwrap();
            run.check().unwrap();
            assert_eq!(run.tokens, Some(tokens));
            let steps = |data: &DataConfig| matches!(data, DataConfig::Text { steps: WINDOW, .. });
            assert!(steps(&client.client.unwrap().data));
        }
    }
}
