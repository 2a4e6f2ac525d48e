//! The task is out, updates come in.

use std::collections::{BTreeMap, BTreeSet};

use tern_secagg::{Included, server};

use super::combine::Combine;
use super::secure::{Members, decode, refused};
use super::{Candidate, Coordinator, Effect, Phase, Progress, Upload};
use crate::metrics;
use crate::wire::{self, instruction::What};
use crate::{ClientId, Millis, Refusal, RunPlan, Turn};

/// Waits for updates.
#[derive(Clone, Debug)]
pub(super) struct Collect {
    pub(super) deadline: Millis,
    cohort: BTreeMap<ClientId, Answer>,
    /// Members that have not answered, and those whose updates are in: counted as they change, since
    /// each update asks how many are awaited.
    silent: usize,
    uploaded: usize,
    /// Updates that close the round.
    enough: usize,
    /// The most samples that a member counts for.
    pub(super) max_samples: u32,
    /// In a secure round.
    masked: Option<Masked>,
}

/// What a secure round has beside.
#[derive(Clone, Debug)]
pub(super) struct Masked {
    pub(super) state: server::Collecting,
    /// With whom each member shares masks, by number.
    pub(super) partners: BTreeMap<u32, Vec<u8>>,
    /// Those that each member signed with its keys.
    pub(super) samples: BTreeMap<ClientId, u32>,
}

impl Masked {
    fn number(&self, client: &ClientId) -> Option<u32> {
        self.state.number(&client.0)
    }
}

/// What a member of the cohort has answered.
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    None,
    Declined,
    Uploaded(Upload),
}

impl Collect {
    pub(super) fn new(plan: &RunPlan, now: Millis, cohort: &[Candidate]) -> Self {
        Collect {
            deadline: now.after(plan.cohort.deadline_ms),
            silent: cohort.len(),
            uploaded: 0,
            cohort: cohort.iter().map(|member| (member.client, Answer::None)).collect(),
            enough: cohort.len().min(plan.cohort.size as usize),
            max_samples: plan.updates.most_samples(cohort.iter().map(|member| member.samples)),
            masked: None,
        }
    }

    /// Of a session: waits for all of its members, since those who are left out count as dropped.
    /// Where all of a set are there that are to be summed `alone`, the others are left out.
    pub(super) fn secure(
        plan: &RunPlan,
        now: Millis,
        members: &Members,
        alone: Option<&BTreeSet<ClientId>>,
        (masked, max_samples): (Masked, u32),
    ) -> Self {
        let there =
            |set: &&BTreeSet<ClientId>| set.iter().all(|client| members.asked.contains_key(client));
        let alone = alone.filter(there);
        let answer = |client: &ClientId| match alone.is_none_or(|set| set.contains(client)) {
            true => Answer::None,
            false => Answer::Declined,
        };
        let cohort: BTreeMap<_, _> =
            members.asked.keys().map(|client| (*client, answer(client))).collect();
        Collect {
            deadline: now.after(plan.cohort.deadline_ms),
            silent: cohort.values().filter(|answer| matches!(answer, Answer::None)).count(),
            uploaded: 0,
            cohort,
            enough: members.asked.len(),
            max_samples,
            masked: Some(masked),
        }
    }

    /// Notes a member's answer in place of its last one.
    fn answer(&mut self, client: ClientId, answer: Answer) {
        let counts = |answer: &Answer| match answer {
            Answer::None => (1, 0),
            Answer::Uploaded(_) => (0, 1),
            Answer::Declined => (0, 0),
        };
        let (silent, uploaded) = counts(&answer);
        let last = self.cohort.insert(client, answer);
        let (was_silent, was_uploaded) = last.as_ref().map_or((0, 0), counts);
        self.silent = self.silent + silent - was_silent;
        self.uploaded = self.uploaded + uploaded - was_uploaded;
    }

    /// A member's update, if it is in.
    pub(super) fn upload(&self, client: &ClientId) -> Option<&Upload> {
        match self.cohort.get(client)? {
            Answer::Uploaded(upload) => Some(upload),
            Answer::None | Answer::Declined => None,
        }
    }

    pub(super) fn uploads(&self) -> impl Iterator<Item = (&ClientId, &Upload)> {
        self.cohort.iter().filter_map(|(client, answer)| match answer {
            Answer::Uploaded(upload) => Some((client, upload)),
            Answer::None | Answer::Declined => None,
        })
    }

    pub(super) fn progress(&self) -> Vec<(ClientId, Progress)> {
        let progress = |answer: &Answer| match answer {
            Answer::None => Progress::Asked,
            Answer::Declined => Progress::Declined,
            Answer::Uploaded(_) => Progress::Answered,
        };
        self.cohort.iter().map(|(client, answer)| (*client, progress(answer))).collect()
    }

    pub(super) fn instruction(&self, of: &Coordinator, client: &ClientId) -> Option<What> {
        let Answer::None = self.cohort.get(client)? else { return None };
        let partners = match &self.masked {
            Some(masked) => masked.partners.get(&masked.number(client)?)?.clone(),
            None => Vec::new(),
        };
        let (model, scales) = (Some(of.model()), of.head.scales.clone());
        let max_samples = self.max_samples;
        Some(What::Train(wire::Train { model, scales, partners, max_samples }))
    }

    /// Whether an upload would be taken; without one, whether any would.
    pub(super) fn check(
        &self,
        plan: &RunPlan,
        client: &ClientId,
        upload: Option<&Upload>,
    ) -> Result<(), Refusal> {
        let answer = self.cohort.get(client).ok_or(Refusal::NotSelected(*client))?;
        match (answer, upload) {
            (Answer::None, _) => {}
            (Answer::Declined, _) => return Err(Refusal::Conflict("answer")),
            (Answer::Uploaded(earlier), Some(upload)) => return Err(again(earlier, upload)),
            (Answer::Uploaded(_), None) => return Err(Refusal::Repeated),
        }
        let Some(upload) = upload else { return Ok(()) };
        let most = self.max_samples;
        if !(1..=most).contains(&upload.samples) {
            return Err(Refusal::Samples { given: upload.samples, most });
        }
        match &self.masked {
            Some(_) if !upload.metrics.is_empty() => {
                return Err(Refusal::Metrics("told beside the sum"));
            }
            Some(masked) => {
                let number = masked.number(client).ok_or(Refusal::NotSelected(*client))?;
                let signed = masked.samples.get(client).copied().unwrap_or_default();
                if upload.samples != signed {
                    return Err(Refusal::Weight { given: upload.samples, signed });
                }
                masked.state.check(number, &decode(&upload.included)?).map_err(refused)?;
            }
            None if !upload.included.is_empty() => return Err(Refusal::Malformed("included")),
            None => {}
        }
        metrics::check(&upload.metrics, &plan.evaluation.metrics)
    }

    /// An upload's body is damaged: its client is asked for it again.
    pub(super) fn lost(&mut self, client: &ClientId) -> Result<(), Refusal> {
        self.upload(client).ok_or(Refusal::NotSelected(*client))?;
        self.answer(*client, Answer::None);
        Ok(())
    }

    /// How many uploads close it.
    pub(super) fn awaited(&self) -> usize {
        self.enough.saturating_sub(self.uploaded).min(self.silent)
    }

    fn done(&self) -> bool {
        self.awaited() == 0
    }
}

/// Why a second upload is not taken.
pub(super) fn again(earlier: &Upload, upload: &Upload) -> Refusal {
    if earlier == upload { Refusal::Repeated } else { Refusal::Conflict("upload") }
}

impl Coordinator {
    pub(super) fn uploaded(
        &mut self,
        now: Millis,
        client: ClientId,
        turn: Turn,
        upload: Upload,
    ) -> Result<Vec<Effect>, Refusal> {
        self.check_upload(&client, turn, Some(&upload))?;
        let Phase::Collect(collect) = &mut self.phase else {
            return Err(self.unexpected("upload"));
        };
        let add = Effect::Add { client, weight: upload.samples };
        collect.answer(client, Answer::Uploaded(upload));
        let closed = if collect.done() { self.close(now) } else { Vec::new() };
        Ok(match closed.as_slice() {
            // Nothing of an attempt that failed is added up.
            [Effect::Failed(_), ..] => closed,
            _ => [vec![add], closed].concat(),
        })
    }

    /// Uploads that were taken elsewhere. All of them count, where there are more than close it, too.
    pub(super) fn collected(
        &mut self,
        now: Millis,
        turn: Turn,
        uploads: Vec<(ClientId, Upload)>,
    ) -> Result<Vec<Effect>, Refusal> {
        if !uploads.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(Refusal::Malformed("list of uploads"));
        }
        self.check_turn(turn)?;
        for (client, upload) in &uploads {
            self.check_upload(client, turn, Some(upload))?;
        }
        let Phase::Collect(collect) = &mut self.phase else {
            return Err(self.unexpected("upload"));
        };
        let add = |(client, upload): &(ClientId, Upload)| Effect::Add {
            client: *client,
            weight: upload.samples,
        };
        let added: Vec<Effect> = uploads.iter().map(add).collect();
        for (client, upload) in uploads {
            collect.answer(client, Answer::Uploaded(upload));
        }
        let closed = if collect.done() { self.close(now) } else { Vec::new() };
        Ok(match closed.as_slice() {
            [Effect::Failed(_)] => closed,
            _ => [added, closed].concat(),
        })
    }

    /// A member won't send an update.
    pub(super) fn without(
        &mut self,
        now: Millis,
        client: ClientId,
    ) -> Result<Vec<Effect>, Refusal> {
        let Phase::Collect(collect) = &mut self.phase else {
            return Err(self.unexpected("refusal to take part"));
        };
        match collect.cohort.get(&client) {
            None => return Err(Refusal::NotSelected(client)),
            Some(Answer::Declined) => return Err(Refusal::Repeated),
            Some(Answer::Uploaded(_)) => return Err(Refusal::Conflict("answer")),
            Some(Answer::None) => collect.answer(client, Answer::Declined),
        }
        Ok(if collect.done() { self.close(now) } else { Vec::new() })
    }

    /// Enough are in, or the time is over.
    pub(super) fn close(&mut self, now: Millis) -> Vec<Effect> {
        let Phase::Collect(collect) = &self.phase else { return Vec::new() };
        let uploads: BTreeMap<_, _> = collect.uploads().map(|(c, u)| (*c, u.clone())).collect();
        if uploads.len() < self.plan.cohort.minimum as usize {
            return self.repeat();
        }
        if let Some(masked) = &collect.masked {
            let (mut state, max_samples) = (masked.state.clone(), collect.max_samples);
            // Only now: until then an upload may be lost, and come again. Each was checked.
            for (client, upload) in &uploads {
                if let (Some(number), Ok(included)) =
                    (masked.number(client), decode::<Included>(&upload.included))
                {
                    state.note(number, included);
                }
            }
            return self.confirm(now, state, uploads, max_samples);
        }
        self.phase = Phase::Combine(Combine { uploads, unmasking: None });
        vec![Effect::Aggregate]
    }
}
