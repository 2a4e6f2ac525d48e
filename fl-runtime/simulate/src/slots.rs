//! Models that train side by side on one device: each slot is a client for the time of a group.

use std::ops::Range;

use tern_engine::ops::aggregate::Aggregator;
use tern_engine::ops::ternary::{Coding, Rule, Scales, TernaryCodec};
use tern_engine::ops::update::Updates;
use tern_engine::{Arena, Data, Device, Element, Flat, Interrupt, Pass, Plan, Vector};
use tern_shaders::state;

use tern_protocol::plan::{Encoding, LocalTraining, TernaryMethod};
use tern_protocol::trainer::{LocalData, Recorder, state_record};
use tern_protocol::update::limit;
use tern_protocol::{Error, Layout, Result, RunPlan};

/// What a slot does.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Task {
    /// Seed of shuffling and dropout.
    pub seed: u32,
    /// Samples of the client among all.
    pub part: Range<usize>,
    /// Optimizer steps.
    pub steps: u32,
    /// Steps that its optimizer has made before: its moments are in the slot then.
    pub done: u32,
}

/// What a slot measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Measured {
    /// Mean loss of its steps, weighted by the rows of their batches.
    pub loss: Option<f32>,
    /// Norm of the update before it is clipped; not finite if the update isn't.
    pub norm: f32,
}

/// Slots, recorded once.
pub(super) struct Slots {
    device: Device,
    training: LocalTraining,
    bound: f32,
    max_norm: Option<f64>,
    uplink: Encoding,
    ternary: TernaryMethod,
    updates: Updates,
    codec: TernaryCodec,
    /// First elements of tensors, and the end.
    segments: Vec<u32>,
    train: Plan,
    /// The gradient of a batch, where updates are gradients.
    gradient: Option<Plan>,
    tiles: Vec<Tile>,
}

/// Memory of the slots that a call computes together.
struct Tile {
    slots: Range<usize>,
    models: Vector,
    updates: Vector,
    /// What FedProx pulls to.
    reference: Option<Vector>,
    /// The optimizer's, where it goes on from round to round.
    moments: Vec<Vector>,
    norms: Vector,
}

/// Memory for the codes of one update.
pub(super) struct Coder {
    scales: Scales,
    codes: Vector,
    pub residual: Vector,
    decoded: Vector,
}

impl Slots {
    /// `count` of them, or as many as `bytes` hold; at least one.
    pub fn new(
        device: &Device,
        plan: &RunPlan,
        layout: &Layout,
        recorder: &Recorder,
        data: &LocalData,
        count: usize,
        bytes: u64,
    ) -> Result<Self> {
        let record = |slots: usize| -> Result<(Arena, Plan, Option<Plan>)> {
            let arena = Arena::new(device, layout.parameters(), &vec![plan.seed; slots])?;
            let (train, gradient) =
                recorder.training(&arena, data, &plan.training, plan.updates.kind)?;
            Ok((arena, train, gradient))
        };
        // What one takes says how many fit, whole rounds of them if not all at once do.
        let one = record(1)?.1.memory();
        let each = (one.total() - one.shared).max(1);
        let most = usize::try_from(bytes / each).unwrap_or(usize::MAX).clamp(1, count.max(1));
        let slots = count.max(1).div_ceil(count.max(1).div_ceil(most));
        let (arena, train, gradient) = record(slots)?;
        let mut tiles = Vec::new();
        let mut first = 0;
        for tile in 0..arena.tiles() {
            let replicas = arena.tile_replicas(tile);
            let reference = match plan.training.proximal {
                Some(_) => Some(Vector::of_tile(&arena, tile, Flat::Reference)?),
                None => None,
            };
            let kept = match plan.training.keep_optimizer {
                true => plan.training.optimizer.moments(),
                false => &[],
            };
            let moments = kept.iter().map(|flat| Vector::of_tile(&arena, tile, *flat));
            tiles.push(Tile {
                slots: first..first + replicas,
                models: Vector::of_tile(&arena, tile, Flat::Parameters)?,
                updates: Vector::of_tile(&arena, tile, Flat::Gradients)?,
                reference,
                moments: moments.collect::<Result<_, _>>()?,
                norms: Vector::zeros(device, Element::F32, replicas)?,
            });
            first += replicas;
        }
        Ok(Slots {
            device: device.clone(),
            training: plan.training.clone(),
            bound: plan.updates.bound,
            max_norm: plan.updates.max_norm,
            uplink: plan.updates.uplink,
            ternary: plan.updates.ternary,
            updates: Updates::new(layout.parameters())?,
            codec: TernaryCodec::new(layout.parameters())?,
            segments: layout.segments().to_vec(),
            train,
            gradient,
            tiles,
        })
    }

    /// Lets training end by an interrupt.
    pub fn set_interrupt(&mut self, interrupt: &Interrupt) {
        self.train.set_interrupt(interrupt);
        self.gradient.iter_mut().for_each(|gradient| gradient.set_interrupt(interrupt));
    }

    /// Number of slots.
    pub fn len(&self) -> usize {
        self.tiles.last().map_or(0, |tile| tile.slots.end)
    }

    /// Bytes that models, activations and the data take.
    pub fn bytes(&self) -> u64 {
        self.train.memory().total()
    }

    /// The models in the slots.
    pub fn arena(&self) -> &Arena {
        self.train.arena()
    }

    /// The tiles of the first `count` slots.
    fn used(&self, count: usize) -> impl Iterator<Item = &Tile> {
        self.tiles.iter().take_while(move |tile| tile.slots.start < count)
    }

    /// Puts a model into the first `count` slots.
    pub fn broadcast(&self, model: &Vector, count: usize) -> Result<()> {
        let mut pass = Pass::new(&self.device);
        for tile in self.used(count) {
            for models in [Some(&tile.models), tile.reference.as_ref()].into_iter().flatten() {
                self.updates.broadcast(&mut pass, model, models)?;
            }
        }
        Ok(pass.run()?)
    }

    /// Trains a round's model in as many slots as there are tasks; each then has its update.
    pub fn train(&mut self, round: u32, model: &Vector, tasks: &[Task]) -> Result<Vec<Measured>> {
        self.broadcast(model, tasks.len())?;
        // Moments start anew by themselves where a record is at step 0.
        let rest = Task { seed: 0, part: 0..0, steps: 0, done: 0 };
        let records = (0..self.len()).map(|slot| {
            let Task { seed, part, steps, done } = tasks.get(slot).unwrap_or(&rest).clone();
            state_record(&self.training, round, seed, part, steps, done)
        });
        self.train.set_states(&records.collect::<Vec<_>>())?;
        let steps = tasks.iter().map(|task| task.steps).max().unwrap_or(0);
        let losses = self.train.run(steps as usize)?;
        self.measure(model, tasks.len())?;
        let norms = self.norms(tasks.len())?;
        let measured = norms
            .into_iter()
            .enumerate()
            .map(|(slot, norm)| Measured { loss: losses.mean_of(slot), norm });
        Ok(measured.collect())
    }

    /// Leaves the updates, clipped, and their norms.
    fn measure(&mut self, model: &Vector, count: usize) -> Result<()> {
        if let Some(gradient) = &mut self.gradient {
            // The batch that would be next.
            let mut records = self.train.states()?;
            records.iter_mut().for_each(|record| record[state::ACTIVE] = 1);
            gradient.set_states(&records)?;
            gradient.run(1)?;
        }
        let mut pass = Pass::new(&self.device);
        let most = self.training.clip_update.map(|most| most as f32);
        for tile in self.used(count) {
            if self.gradient.is_none() {
                self.updates.difference(&mut pass, &tile.models, model, &tile.updates)?;
            }
            self.updates.clip(&mut pass, &tile.updates, most, &tile.norms)?;
        }
        Ok(pass.run()?)
    }

    fn norms(&self, count: usize) -> Result<Vec<f32>> {
        let mut norms = Vec::with_capacity(count);
        for tile in self.used(count) {
            norms.extend(tile.norms.read()?.floats()?);
        }
        norms.truncate(count);
        Ok(norms)
    }

    /// A slot's tile, and its place there.
    fn tile(&self, slot: usize) -> Result<(&Tile, usize)> {
        let tile = self.tiles.iter().find(|tile| tile.slots.contains(&slot));
        let tile =
            tile.ok_or_else(|| Error::value("slot", slot, format!("below {}", self.len())))?;
        Ok((tile, slot - tile.slots.start))
    }

    /// The update of a slot: its memory.
    pub fn update(&self, slot: usize) -> Result<Vector> {
        let n = self.updates.elements();
        let (tile, place) = self.tile(slot)?;
        Ok(tile.updates.slice(place * n, n)?)
    }

    /// The moments of a slot, where they are kept: their memory.
    pub fn moments(&self, slot: usize) -> Result<Vec<Vector>> {
        let n = self.updates.elements();
        let (tile, place) = self.tile(slot)?;
        tile.moments.iter().map(|moment| Ok(moment.slice(place * n, n)?)).collect()
    }

    /// Makes a slot's update what the server would read of it, but for ternary codes: within the
    /// bound, rounded to half precision where the plan says so.
    pub fn round(&self, slot: usize, norm: f32) -> Result<()> {
        let half = self.uplink == Encoding::Half;
        // No element is larger than the norm, so that most updates need not be looked at.
        if norm <= self.bound && !half {
            return Ok(());
        }
        let update = self.update(slot)?;
        let mut values = update.read()?.floats()?;
        values.iter_mut().for_each(|x| *x = x.clamp(-self.bound, self.bound));
        if half {
            let most = half::f16::MAX.to_f32();
            let rounded = |x: f32| half::f16::from_f32(x.clamp(-most, most)).to_f32();
            values.iter_mut().for_each(|x| *x = rounded(*x));
        }
        Ok(update.write(&Data::F32(values))?)
    }

    /// Memory to code updates with, if they are coded.
    pub fn coder(&self) -> Result<Option<Coder>> {
        if self.uplink != Encoding::Ternary {
            return Ok(None);
        }
        let floats = || Vector::zeros(&self.device, Element::F32, self.updates.elements());
        Ok(Some(Coder {
            scales: Scales::zeros(&self.device, 1, self.codec.tensors())?,
            codes: Vector::zeros(&self.device, Element::U32, self.codec.words())?,
            residual: floats()?,
            decoded: floats()?,
        }))
    }

    /// Replaces a slot's update by what its ternary codes stand for; `coder.residual` is added
    /// first and then becomes what they leave. `key`: step, salt and seed of drawn codes. Returns
    /// what the norm is at most; nothing for scales that the server refuses.
    pub fn code(&self, slot: usize, coder: &Coder, key: [u32; 3]) -> Result<Option<f64>> {
        let update = self.update(slot)?;
        let [step, salt, seed] = key;
        let (rule, coding) = match self.ternary {
            TernaryMethod::Drawn(deviations) => {
                (Rule::Maximum(deviations), Coding::Drawn { step, salt, seed })
            }
            TernaryMethod::Thresholded(fraction) => {
                (Rule::MeanAbove(fraction), Coding::Thresholded)
            }
        };
        let Coder { scales, codes, residual, decoded } = coder;
        let mut pass = Pass::new(&self.device);
        self.codec.measure(&mut pass, &update, Some(residual), rule, scales)?;
        self.codec.quantize(&mut pass, &update, Some(residual), scales, coding, codes)?;
        self.codec.decode_accumulate(&mut pass, codes, &scales.scales, &[1.0], decoded, false)?;
        pass.run()?;
        update.copy_from(decoded)?;
        let scales = scales.scales.read()?.floats()?;
        if !scales.iter().all(|scale| (0.0..=self.bound).contains(scale)) {
            return Ok(None);
        }
        let square = |(scale, segment): (&f32, &[u32])| {
            f64::from(*scale).powi(2) * f64::from(segment[1] - segment[0])
        };
        let squares: f64 = scales.iter().zip(self.segments.windows(2)).map(square).sum();
        Ok(Some(squares.sqrt()))
    }

    /// Scales a slot's update down as the server does with one that is too long. `norm`: about
    /// what its norm is, or more.
    pub fn limit(&self, slot: usize, norm: f64) -> Result<()> {
        // Rounding shifts a norm by less than a thousandth.
        let Some(most) = self.max_norm.filter(|most| norm > most * (1.0 - 1e-3)) else {
            return Ok(());
        };
        let update = self.update(slot)?;
        let mut values = update.read()?.floats()?;
        if limit(&mut values, most) {
            update.write(&Data::F32(values))?;
        }
        Ok(())
    }

    /// Adds the updates of the first slots with these weights; 0 leaves one out.
    pub fn add_to(&self, aggregator: &mut Aggregator, weights: &[u32]) -> Result<()> {
        let n = self.updates.elements();
        let mut pass = Pass::new(&self.device);
        for tile in self.used(weights.len()) {
            let weights = &weights[tile.slots.start..tile.slots.end.min(weights.len())];
            let updates = tile.updates.slice(0, n * weights.len())?;
            aggregator.add(&mut pass, &updates, weights)?;
        }
        Ok(pass.run()?)
    }
}
