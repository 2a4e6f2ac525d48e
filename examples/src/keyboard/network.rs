//! The demo as real processes: a server that trains and publishes, and every user's device a
//! client over TLS. What a device finds out it writes to a folder of its own; all that it sends is
//! which version of the model it has.

use std::io::Write;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tern_engine::Device;
use tern_fl::methods::personalize::{Publisher, download};

use super::data::Texts;
use super::options::{Options, Scale};
use super::personalize::personalize;
use super::results::{PublicResult, Results, UserResult, medians};
use super::server::Curve;
use super::steps::{preset, publish, publish_again, take, tell};
use crate::network::{FOUND, Place, Role};
use crate::public::PublicModel;
use crate::report::Report;

/// Time between two questions for a newer model.
const ASK: Duration = Duration::from_millis(200);
/// Time that devices have to download a version before the next one is published.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a process does that another one started.
pub fn take_part(
    role: Role,
    place: &Place,
    options: &Options,
    device: &Device,
    texts: &Texts,
) -> Result<()> {
    let scale = options.scale();
    match role {
        Role::Server => serve(place, options, &scale, device, texts),
        Role::Client(number) => {
            let user = texts.users.get(number).context("a client without a user")?;
            let downloaded = Arc::new(wait_for(place, number, 0)?);
            let version = downloaded.card.version;
            // A device that comes late gets the newer one at once, and no other will follow.
            let newer = || match texts.public.is_empty() || version > first(options)? {
                true => Ok(None),
                false => wait_for(place, number, version).map(Arc::new).map(Some),
            };
            let own = Report::create(place.client(number))?;
            let records = preset(options, &scale, &texts.users);
            let alone = std::slice::from_ref(user);
            let found = personalize(device, &downloaded, &scale, records, alone, newer, &own)?;
            own.json(FOUND, &found[0]).map(drop)
        }
    }
}

/// 1.1 to 1.3: trains, publishes, and after every device has that, publishes again. Serves until
/// the one that started this process has enough.
fn serve(
    place: &Place,
    options: &Options,
    scale: &Scale,
    device: &Device,
    texts: &Texts,
) -> Result<()> {
    let publisher = Publisher::new();
    place.serve_while(vec![publisher.clone()], None, || {
        let report = Report::create(place.server())?;
        let (path, curve, result) = match &options.public_model()? {
            Some(path) => take(path, device, texts)?,
            None => publish(options, scale, device, texts, &report)?,
        };
        report.json(FOUND, &(&curve.training, &curve.held_out, &result))?;
        let public = PublicModel::load(&path)?;
        publisher.publish(&public.published)?;
        if let Some(newer) = publish_again(options, scale, device, texts, &public)? {
            let (version, since) = (public.card.version, Instant::now());
            let all = texts.users.len() as u64;
            while publisher.downloads(version) < all && since.elapsed() < PATIENCE {
                thread::sleep(ASK);
            }
            newer.publish(&report.path(""))?;
            publisher.publish(&newer.published)?;
        }
        Ok(())
    })
}

/// The version that is published first.
fn first(options: &Options) -> Result<u32> {
    options.public_model()?.map_or(Ok(1), |path| Ok(PublicModel::load(&path)?.card.version))
}

/// 1.4: downloads a model above a version, once there is one.
fn wait_for(place: &Place, number: usize, version: u32) -> Result<PublicModel> {
    let public = place.ask(number, async |http| {
        loop {
            match download(http, version).await? {
                Some(public) => return Ok(public),
                None => tokio::time::sleep(ASK).await,
            }
        }
    })?;
    PublicModel::downloaded(public)
}

/// Runs the demo as processes.
pub fn run(options: &Options, device: &Device, texts: &Texts, out: &mut dyn Write) -> Result<()> {
    let started = Instant::now();
    let (scale, users) = (options.scale(), &texts.users);
    let report = options.run.report("keyboard")?;
    let place = Place::create(&report.path("network"), users.len())?;
    let devices: Vec<String> = users.iter().map(|user| format!("{}'s device", user.name)).collect();
    let found = place.start_services("keyboard", &devices, out)?;
    let (training, held_out, public): (_, _, PublicResult) = place.found(&place.server())?;
    tell(&public, public.file.as_ref(), out)?;
    let results: Vec<UserResult> = found.into_iter().flatten().collect();
    ensure!(!results.is_empty(), "no device found out anything");
    let results = Results {
        device: device.name(),
        scale: if options.quick { "quick" } else { "full" }.into(),
        seed: options.seed,
        records: preset(options, &scale, users),
        seconds: started.elapsed().as_secs_f64(),
        public,
        refused: texts.refused.clone(),
        medians: medians(&results),
        users: results,
        study: Vec::new(),
    };
    results.write(&report, &Curve { training, held_out })?;
    results.tell(out)?;
    writeln!(
        out,
        "{} processes over TLS, {:.0} s: {}",
        users.len() + 1,
        results.seconds,
        report.path("").display()
    )?;
    Ok(())
}
