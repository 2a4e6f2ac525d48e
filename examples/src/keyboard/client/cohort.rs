//! Clients served by one device: each model sees the records of its own client only.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use tern_fl::personalize::Merge;

use super::{Client, Round, TrainingSet};
use crate::keyboard::public::PublicModel;
use crate::keyboard::reader::Passage;
use crate::keyboard::workbench::{Recipe, Workbench};

/// 1.5: the users type, each a text of their own, and each client records it beside what its
/// model expected.
pub fn observe(bench: &mut Workbench, clients: &mut [&mut Client], texts: &[&[u32]]) -> Result<()> {
    let passages: Vec<[Passage; 1]> = clients
        .iter()
        .zip(texts)
        .map(|(client, text)| [Passage::after(&client.context(), text)])
        .collect();
    let jobs = clients.iter().zip(&passages).map(|(c, p)| (c.weights(), p.as_slice()));
    let jobs: Vec<_> = jobs.collect();
    let readings = bench.read(&jobs)?;
    for ((client, text), reading) in clients.iter_mut().zip(texts).zip(readings) {
        client.collect(text, &reading.predicted);
    }
    Ok(())
}

/// Clients put their own change on a newer public model, and go on from there where that does
/// better on the records that they held back.
pub fn merge(
    bench: &mut Workbench,
    clients: &mut [&mut Client],
    newer: &Arc<PublicModel>,
) -> Result<()> {
    for client in clients {
        let merged = client.personal.merged(&newer.published)?;
        let mut loss = |weights: &[f32]| -> Result<f64> {
            Ok(bench.read(&[(weights, client.held_back.as_slice())])?[0].scores.loss())
        };
        let loss_before = loss(client.weights())?;
        let (loss_public, loss_merged) = (loss(newer.weights())?, loss(&merged)?);
        let adopted = client.personal.go_on(&newer.published, merged, loss_before, loss_merged);
        if adopted {
            client.public = newer.clone();
        }
        let version = newer.card.version;
        client.merge = Some(Merge { version, loss_before, loss_public, loss_merged, adopted });
    }
    Ok(())
}

/// 1.6 to 1.8: clients that have reached their preset count, the same for all of them, train
/// on their records and adopt what does better. The others are left alone.
pub fn customize(
    bench: &mut Workbench,
    clients: &mut [&mut Client],
    recipe: &Recipe,
    mut each: impl FnMut(usize, Option<f32>),
) -> Result<()> {
    let mut ready: Vec<&mut Client> =
        clients.iter_mut().map(|c| &mut **c).filter(|c| c.is_ready()).collect();
    for clients in ready.chunks_mut(bench.replicas()) {
        let started = Instant::now();
        let sets: Vec<TrainingSet> = clients.iter_mut().map(|c| c.training_set()).collect();
        let jobs = clients.iter().zip(&sets).map(|(c, set)| (c.weights(), set.text.as_slice()));
        let candidates = bench.train(&jobs.collect::<Vec<_>>(), recipe, &mut each)?;
        let held_back = || clients.iter().map(|c| c.held_back.as_slice());
        let now = clients.iter().map(|c| c.weights());
        let before = bench.read(&now.zip(held_back()).collect::<Vec<_>>())?;
        let new = candidates.iter().map(Vec::as_slice);
        let after = bench.read(&new.zip(held_back()).collect::<Vec<_>>())?;
        let seconds = started.elapsed().as_secs_f64();
        let outcomes = candidates.into_iter().zip(sets).zip(before.iter().zip(&after));
        for (client, ((candidate, set), (before, after))) in clients.iter_mut().zip(outcomes) {
            let round = Round {
                records: set.records,
                trained: set.trained,
                typed_top1: set.typed.top1(),
                typed_top3: set.typed.top3(),
                loss_before: before.scores.loss(),
                loss_after: after.scores.loss(),
                adopted: false,
                seconds,
            };
            client.decide(candidate, round);
        }
    }
    Ok(())
}
