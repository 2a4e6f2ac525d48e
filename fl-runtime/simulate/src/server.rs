//! The server's side of a simulated round: the sum of updates on the device, the strategy, the
//! models.

use std::sync::Arc;

use tern_engine::ops::aggregate::Aggregator;
use tern_engine::ops::update::Updates;
use tern_engine::{Data, Device, Element, Pass, Vector};
use tern_protocol::plan::{Encoding, StrategySpec, UpdateKind};
use tern_protocol::strategy::advance;
use tern_protocol::update::{Codec, Scales, add_difference};
use tern_protocol::{Error, Layout, Result, RunPlan, Strategy, StrategyState};

/// The server of a simulated run.
pub(super) struct Server {
    device: Device,
    plan: RunPlan,
    layout: Layout,
    updates: Updates,
    strategy: Arc<dyn Strategy>,
    state: StrategyState,
    codec: Codec,
    aggregator: Aggregator,
    mean: Vector,
    norm: Vector,
    /// The model as the server has it.
    model: Vector,
    /// The model as clients have it, where that is another one.
    public: Option<Vector>,
    best: Option<Vector>,
    before: Option<Before>,
}

/// What a server had before a round.
struct Before {
    model: Vector,
    public: Option<Vector>,
    state: StrategyState,
}

impl Server {
    pub fn new(
        device: &Device,
        plan: &RunPlan,
        layout: &Layout,
        initial: &[f32],
        own: Option<&Arc<dyn Strategy>>,
    ) -> Result<Self> {
        let n = layout.elements();
        if initial.len() != n {
            let expected = format!("{n} values");
            return Err(Error::value(
                "initial model",
                format!("{} values", initial.len()),
                expected,
            ));
        }
        let initial = Data::F32(initial.to_vec());
        let public = match plan.updates.downlink {
            Encoding::Ternary => Some(Vector::upload(device, &initial)?),
            Encoding::Full | Encoding::Half => None,
        };
        Ok(Server {
            device: device.clone(),
            plan: plan.clone(),
            layout: layout.clone(),
            updates: Updates::new(layout.parameters())?,
            strategy: plan.strategy.build(own)?,
            state: StrategyState::default(),
            codec: Codec::new(device, layout)?,
            aggregator: Aggregator::new(device, n, plan.fraction_bits())?,
            mean: Vector::zeros(device, Element::F32, n)?,
            norm: Vector::zeros(device, Element::F32, 1)?,
            model: Vector::upload(device, &initial)?,
            public,
            best: None,
            before: None,
        })
    }

    /// The model as clients have it.
    pub fn public(&self) -> &Vector {
        self.public.as_ref().unwrap_or(&self.model)
    }

    /// The best model so far; the last if none was kept.
    pub fn best(&self) -> &Vector {
        self.best.as_ref().unwrap_or_else(|| self.public())
    }

    /// Keeps the clients' model as the best one.
    pub fn keep_best(&mut self) -> Result<()> {
        let best = match self.best.take() {
            Some(best) => best,
            None => Vector::zeros(&self.device, Element::F32, self.layout.elements())?,
        };
        best.copy_from(self.public())?;
        self.best = Some(best);
        Ok(())
    }

    /// What it goes on from: the model, that of the clients where it is another one, the best one
    /// if there is one, and the strategy's state.
    pub fn state(&self) -> Result<[Vec<u8>; 4]> {
        let bytes = |vector: Option<&Vector>| match vector {
            Some(vector) => Ok::<_, Error>(Codec::full(&vector.read()?.floats()?)),
            None => Ok(Vec::new()),
        };
        let models = [Some(&self.model), self.public.as_ref(), self.best.as_ref()].map(bytes);
        let [model, public, best] = models;
        Ok([model?, public?, best?, self.state.to_bytes()])
    }

    /// Goes on from there; `None` for what is no state of this server.
    pub fn restore(&mut self, state: [&[u8]; 4]) -> Result<Option<()>> {
        let [model, public, best, strategy] = state;
        let whole = 4 * self.layout.elements();
        let lengths = [model.len(), public.len()] == [whole, self.public.iter().count() * whole];
        let strategy = StrategyState::from_bytes(strategy);
        let (true, Some(strategy)) = (lengths && [0, whole].contains(&best.len()), strategy) else {
            return Ok(None);
        };
        self.model.write(&Data::F32(Codec::floats(model)))?;
        if let Some(vector) = &self.public {
            vector.write(&Data::F32(Codec::floats(public)))?;
        }
        self.best = match best.is_empty() {
            true => None,
            false => Some(Vector::upload(&self.device, &Data::F32(Codec::floats(best)))?),
        };
        self.state = strategy;
        Ok(Some(()))
    }

    /// The sum of the round's updates.
    pub fn aggregator(&mut self) -> &mut Aggregator {
        &mut self.aggregator
    }

    /// The sum starts again from nothing.
    pub fn clear(&mut self) -> Result<()> {
        let zeros = Data::U32(vec![0; 2 * self.layout.elements()]);
        Ok(self.aggregator.resume(&zeros, 0)?)
    }

    /// Keeps what there is, for a round that may be taken back.
    pub fn remember(&mut self) -> Result<()> {
        let zeros = || Vector::zeros(&self.device, Element::F32, self.layout.elements());
        let mut before = match self.before.take() {
            Some(before) => before,
            None => {
                let public = self.public.as_ref().map(|_| zeros()).transpose()?;
                Before { model: zeros()?, public, state: StrategyState::default() }
            }
        };
        before.model.copy_from(&self.model)?;
        if let (Some(before), Some(public)) = (&before.public, &self.public) {
            before.copy_from(public)?;
        }
        before.state.clone_from(&self.state);
        self.before = Some(before);
        Ok(())
    }

    /// All is as it was remembered.
    pub fn take_back(&mut self) -> Result<()> {
        let Some(before) = self.before.take() else { return Ok(()) };
        self.model.copy_from(&before.model)?;
        if let (Some(public), Some(before)) = (&self.public, &before.public) {
            public.copy_from(before)?;
        }
        self.state = before.state;
        Ok(())
    }

    /// The new model from the sum.
    pub fn aggregate(&mut self, round: u32) -> Result<()> {
        let plan = &self.plan;
        let added = plan.strategy == StrategySpec::Average { learning_rate: 1.0 }
            && plan.updates.kind == UpdateKind::Delta;
        let mut pass = Pass::new(&self.device);
        self.aggregator.finish(&mut pass, &self.mean)?;
        if added {
            self.updates.apply(&mut pass, &self.mean, &self.model)?;
            // A norm that is finite says that every element is.
            self.updates.clip(&mut pass, &self.model, None, &self.norm)?;
            pass.run()?;
            let norm = self.norm.read()?.floats()?[0];
            if !norm.is_finite() {
                let name = format!("norm of the model after round {round}");
                return Err(Error::value(name, norm, "a finite number"));
            }
        } else {
            // Other strategies are the host's: one vector down, one up.
            pass.run()?;
            let (mut model, mean) = (self.model.read()?.floats()?, self.mean.read()?.floats()?);
            let kind = plan.updates.kind;
            let strategy = &*self.strategy;
            advance(strategy, kind, &self.layout, &mut model, mean, &mut self.state)?;
            self.model.write(&Data::F32(model))?;
        }
        self.publish(round)
    }

    /// The clients' model, where they get ternary differences.
    fn publish(&mut self, round: u32) -> Result<()> {
        let Some(public) = &self.public else { return Ok(()) };
        let (model, old) = (self.model.read()?.floats()?, public.read()?.floats()?);
        let ahead: Vec<f32> = model.iter().zip(&old).map(|(a, b)| a - b).collect();
        let scales = Scales::Own(self.plan.updates.ternary);
        let key = [round, u32::MAX, self.plan.seed];
        let (body, _) = self.codec.ternary(&ahead, &vec![0.0; ahead.len()], scales, key)?;
        Ok(public.write(&Data::F32(add_difference(&self.layout, &old, &body)?))?)
    }
}
