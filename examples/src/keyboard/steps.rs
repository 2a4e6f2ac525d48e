//! Steps that the demo shares with its form over a network.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use tern_engine::Device;
use tern_fl::methods::personalize::Score;

use super::client::MIN_RECORDS;
use super::data::Texts;
use super::options::{Options, Scale};
use super::reader::Reader;
use super::results::PublicResult;
use super::server::{self, Curve};
use crate::public::PublicModel;
use crate::report::Report;
use crate::users::User;

/// Trains and publishes in a folder.
pub fn publish(
    options: &Options,
    scale: &Scale,
    device: &Device,
    texts: &Texts,
    report: &Report,
) -> Result<(PathBuf, Curve, PublicResult)> {
    let (alphabet, stream) = server::preprocess(&texts.public)?;
    let held_out = server::held_out(&alphabet, &texts.held_out, scale.held_out);
    let text = (alphabet, stream.as_slice());
    let trained = server::train(device, text, &held_out, scale, options.seed)?;
    let path = trained.public.publish(&report.path(""))?;
    let result = describe(&trained.public, &path, trained.held_out, trained.seconds);
    Ok((path, trained.curve, result))
}

/// Trains the next version, unless there is no public text to do it with.
pub fn publish_again(
    options: &Options,
    scale: &Scale,
    device: &Device,
    texts: &Texts,
    public: &PublicModel,
) -> Result<Option<PublicModel>> {
    if texts.public.is_empty() {
        return Ok(None);
    }
    let text = texts.newer(&public.card.alphabet);
    server::go_on(device, public, &text, scale, options.seed).map(Some)
}

/// Takes a model that was published before.
pub fn take(path: &Path, device: &Device, texts: &Texts) -> Result<(PathBuf, Curve, PublicResult)> {
    let public = PublicModel::load(path)?;
    let held_out = server::held_out(&public.card.alphabet, &texts.held_out, 30_000);
    let mut reader = Reader::new(&public.arena(device)?, &public.card.spec)?;
    let held_out = reader.read(&held_out)?;
    Ok((path.to_owned(), Curve::default(), describe(&public, path, held_out, 0.0)))
}

fn describe(public: &PublicModel, path: &Path, held_out: Score, seconds: f64) -> PublicResult {
    PublicResult {
        file: path.display().to_string(),
        version: public.card.version,
        parameters: public.parameters.count(),
        steps: public.card.steps,
        seconds,
        held_out,
    }
}

/// Tells of the public model.
pub fn tell(public: &PublicResult, path: &Path, out: &mut dyn Write) -> Result<()> {
    writeln!(
        out,
        "Public model v{}: {} parameters, {} steps; on text held out: top-1 {:.1} %, top-3 {:.1} %. {}",
        public.version,
        public.parameters,
        public.steps,
        100.0 * public.held_out.top1_rate(),
        100.0 * public.held_out.top3_rate(),
        path.display()
    )?;
    Ok(())
}

/// The preset number of records: as asked for, or as the scale has it unless the users' text
/// is too short for two trainings then.
pub fn preset(options: &Options, scale: &Scale, users: &[User]) -> usize {
    let mut lengths: Vec<usize> = users.iter().map(User::trained_characters).collect();
    lengths.sort_unstable();
    let typical = lengths.get(lengths.len() / 2).copied().unwrap_or(0);
    let preset = options.records.map_or(scale.records.min(typical / 2), |n| n as usize);
    preset.max(MIN_RECORDS)
}
