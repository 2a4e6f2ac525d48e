//! Whether a plan makes sense.

use tern_engine::nn::{Input, LayerSpec};
use tern_secagg::{MAX_MEMBERS, Parameters};

use super::{
    Encoding, RunPlan, Secure, Selection, StrategySpec, TernaryMethod, UpdateKind, Updates,
};
use crate::layout::ModelKind;
use crate::{Error, Layout, Result};

pub(super) fn within<T: PartialOrd + std::fmt::Display>(
    name: &str,
    value: T,
    range: std::ops::RangeInclusive<T>,
) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(Error::value(name, value, format!("{} to {}", range.start(), range.end())))
}

/// Bits after the point that sums have at least.
const MIN_FRACTION_BITS: u32 = 16;

impl Updates {
    /// Whether updates can travel so: a client asks, too, since it can't trust a server.
    ///
    /// # Errors
    /// [`Error::Value`] for the first option that is out of range.
    pub fn check(&self) -> Result<()> {
        within("updates.bound", self.bound, 1e-9..=1e9)?;
        within("updates.max_samples", self.max_samples, 1..=u32::MAX)?;
        within("updates.max_over_median", self.max_over_median, 1.0..=Self::ANY_OVER_MEDIAN)?;
        if let Some(norm) = self.max_norm {
            within("updates.max_norm", norm, 1e-9..=1e9)?;
        }
        let (TernaryMethod::Drawn(factor) | TernaryMethod::Thresholded(factor)) = self.ternary;
        within("updates.ternary", factor, 0.0..=100.0)?;
        if self.downlink == Encoding::Half {
            return Err(Error::value("updates.downlink", "half", "full or ternary"));
        }
        Ok(())
    }
}

/// Clients that are asked in a round: its coordinator names each of them in one event.
const MAX_COHORT: u32 = 250_000;

impl RunPlan {
    /// The model's layout, if the plan makes sense.
    ///
    /// # Errors
    /// [`Error::Value`] for the first option that is out of range, whose name is its key with
    /// dots between tables; the engine's for a model that can't be built.
    pub fn check(&self) -> Result<Layout> {
        within("rounds", self.rounds, 1..=u32::MAX)?;
        within("cohort.size", self.cohort.size, 1..=MAX_COHORT)?;
        within("cohort.over_selection", self.cohort.over_selection, 1.0..=10.0)?;
        let asked = self.cohort.asked();
        if asked > MAX_COHORT {
            let given = format!("{}, of which {asked} are asked", self.cohort.size);
            let expected = format!("at most {MAX_COHORT} asked, by cohort.over_selection");
            return Err(Error::value("cohort.size", given, expected));
        }
        within("cohort.minimum", self.cohort.minimum, 1..=self.cohort.size)?;
        for (name, time) in [
            ("cohort.gather_ms", self.cohort.gather_ms),
            ("cohort.deadline_ms", self.cohort.deadline_ms),
            ("cohort.step_ms", self.cohort.step_ms),
        ] {
            within(name, time, 1..=1_000_000_000)?;
        }
        self.training.check()?;
        self.updates.check()?;
        self.evaluation.check()?;
        let bits = self.fraction_bits();
        // Fewer would lose what a mean of floats keeps.
        if bits < MIN_FRACTION_BITS {
            let expected = format!(
                "a bound that leaves sums {MIN_FRACTION_BITS} fraction bits; with cohort.size and \
                 updates.max_samples it leaves {bits}"
            );
            return Err(Error::value("updates.bound", self.updates.bound, expected));
        }
        self.check_strategy()?;
        self.check_running_moments()?;
        let layout = Layout::of(&self.model)?;
        if let Some(secure) = &self.secure {
            self.check_secure(secure)?;
        }
        self.masking(&layout)?;
        self.check_schema()?;
        self.check_tokens()?;
        Ok(layout)
    }

    fn check_schema(&self) -> Result<()> {
        let Some(schema) = &self.schema else { return Ok(()) };
        schema.check()?;
        let ModelKind::Layers(spec) = &self.model else { return Ok(()) };
        let (width, classes) = (schema.width(), schema.label.classes.len());
        if spec.input.floats() != Some(width) {
            let input = match spec.input.floats() {
                Some(floats) => format!("{floats}, what the model takes"),
                None => "a model of features, not of tokens".into(),
            };
            return Err(Error::value("schema.columns", format!("{width} features"), input));
        }
        match spec.layers.last() {
            Some((_, LayerSpec::Linear { outputs, .. })) if *outputs < classes => {
                let expected = format!("at most {outputs}, what the model tells apart");
                Err(Error::value("schema.label.classes", format!("{classes} classes"), expected))
            }
            _ => Ok(()),
        }
    }

    fn check_tokens(&self) -> Result<()> {
        let Some(tokens) = &self.tokens else { return Ok(()) };
        if self.schema.is_some() {
            return Err(Error::value("tokens", "given", "none beside a schema"));
        }
        let ModelKind::Layers(spec) = &self.model else { return Ok(()) };
        let (needed, expected) = match spec.input {
            Input::Tokens { vocabulary } if tokens.vocabulary() <= vocabulary => return Ok(()),
            Input::Tokens { vocabulary } => {
                (tokens.vocabulary(), format!("at most {vocabulary}, what the model takes"))
            }
            _ => (tokens.vocabulary(), "a model of tokens, not of features".into()),
        };
        Err(Error::value("tokens", format!("{needed} different ones"), expected))
    }

    fn check_strategy(&self) -> Result<()> {
        match self.strategy {
            StrategySpec::Average { learning_rate } => {
                within("strategy.learning_rate", learning_rate, 0.0..=1e9)
            }
            StrategySpec::Adam { learning_rate, beta1, beta2, tau }
            | StrategySpec::Yogi { learning_rate, beta1, beta2, tau } => {
                within("strategy.learning_rate", learning_rate, 0.0..=1e9)?;
                within("strategy.beta1", beta1, 0.0..=0.999_999)?;
                within("strategy.beta2", beta2, 0.0..=0.999_999)?;
                within("strategy.tau", tau, 1e-12..=1e3)
            }
            StrategySpec::Custom(_) => Ok(()),
        }
    }

    /// Running moments of batch norms are averaged as deltas in floats; all else would make no moments
    /// of them.
    fn check_running_moments(&self) -> Result<()> {
        let ModelKind::Layers(spec) = &self.model else { return Ok(()) };
        let updates = &self.updates;
        let codes = [updates.uplink, updates.downlink].contains(&Encoding::Ternary);
        let (what, value) = match &self.strategy {
            _ if !spec.has_running_moments() => return Ok(()),
            StrategySpec::Adam { .. } | StrategySpec::Yogi { .. } => ("strategy", "adaptive"),
            _ if codes => ("updates.uplink or downlink", "ternary"),
            _ if updates.kind == UpdateKind::Gradient => ("updates.kind", "gradient"),
            _ => return Ok(()),
        };
        let expected = "another for a model with batch norms, whose running moments are averaged; group \
                        norms have none";
        Err(Error::value(what, value, expected))
    }

    fn check_secure(&self, secure: &Secure) -> Result<()> {
        within("secure.corrupt", secure.corrupt, 0.0..=0.49)?;
        within("secure.dropout", secure.dropout, 0.0..=0.49)?;
        within("secure.security", secure.security, 1..=128)?;
        within("secure.failure", secure.failure, 1..=128)?;
        within("secure.limit", secure.limit, 1e-9..=1e9)?;
        within("secure.first_scale", secure.first_scale, 1e-9..=1e9)?;
        if let Some(norm) = self.updates.max_norm {
            let expected = "none in a secure run, whose updates nobody sees; clients clip theirs \
                            by training.clip_update";
            return Err(Error::value("updates.max_norm", norm, expected));
        }
        let named = &self.evaluation.metrics;
        let mut metrics = secure.metrics.iter().enumerate();
        if !metrics.all(|(at, m)| named.contains(m) && !secure.metrics[..at].contains(m)) {
            let expected = format!("some of evaluation.metrics, each once: {}", named.join(", "));
            return Err(Error::value("secure.metrics", secure.metrics.join(", "), expected));
        }
        if self.evaluation.on_clients {
            let expected = "false in a secure run: what a client measures would be told for itself";
            return Err(Error::value("evaluation.on_clients", true, expected));
        }
        let size = self.cohort.size;
        if !(2..=MAX_MEMBERS as u32).contains(&size) {
            let expected = format!("2 to {MAX_MEMBERS} in a secure run");
            return Err(Error::value("cohort.size", size, expected));
        }
        within("secure.honest", secure.honest, 2..=MAX_MEMBERS as u32)?;
        let (minimum, assumptions) = (self.cohort.minimum, secure.assumptions());
        let beside = minimum.saturating_sub(assumptions.corrupt_of(minimum as usize) as u32);
        if beside < secure.honest {
            let expected = format!(
                "one that leaves a secure sum {} clients beside those that secure.corrupt is of, \
                 it leaves {beside}",
                secure.honest
            );
            return Err(Error::value("cohort.minimum", minimum, expected));
        }
        if let Err(error) = Parameters::choose(size as usize, &assumptions) {
            let expected = format!("a size that secure sessions can have: {error}");
            return Err(Error::value("cohort.size", size, expected));
        }
        if self.updates.uplink == Encoding::Half {
            let expected = "full or ternary in a secure run";
            return Err(Error::value("updates.uplink", "half", expected));
        }
        if self.updates.uplink == Encoding::Ternary && self.cohort.selection == Selection::Uniform {
            let expected = "by_samples in a secure ternary run, whose mean is unweighted";
            return Err(Error::value("cohort.selection", "uniform", expected));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_keep_so_many_fraction_bits_or_the_plan_is_none() {
        use tern_engine::nn::ModelSpec;
        let mut plan = RunPlan::new("test", ModelKind::Layers(ModelSpec::mlp(3, &[], 2)), 5);
        plan.updates.max_samples = 1 << 20;
        while plan.fraction_bits() > MIN_FRACTION_BITS {
            plan.check().unwrap();
            plan.updates.bound *= 2.0;
        }
        assert_eq!(plan.fraction_bits(), MIN_FRACTION_BITS);
        plan.check().unwrap();
        plan.updates.bound *= 2.0;
        let error = plan.check().unwrap_err().to_string();
        assert!(error.contains("fraction bits"), "{error}");
    }
    use crate::plan::RateDecay;
    use crate::schema::{ColumnKind, Schema};
    use crate::tokens::{Alphabet, Tokens};
    use tern_engine::nn::ModelSpec;

    fn plan() -> RunPlan {
        RunPlan::new("test", ModelKind::Layers(ModelSpec::mlp(3, &[], 2)), 5)
    }

    #[test]
    fn no_more_clients_are_asked_than_a_cohort_may_have() {
        let mut plan = plan();
        (plan.cohort.size, plan.cohort.over_selection) = (MAX_COHORT / 2, 2.0);
        plan.check().unwrap();
        plan.cohort.size += 1;
        let error = plan.check().unwrap_err().to_string();
        assert!(error.contains("125001, of which 250002 are asked"), "{error}");
    }

    #[test]
    fn running_moments_are_averaged_or_refused() {
        let mut spec = ModelSpec::mlp(3, &[], 2);
        spec.layers.insert(0, ("norm".into(), LayerSpec::BatchNorm));
        let plain = RunPlan { model: ModelKind::Layers(spec), ..plan() };
        plain.check().unwrap();
        type Change = fn(&mut RunPlan);
        let changes: [(&str, Change); 4] = [
            ("updates.uplink or downlink is ternary", |p| p.updates.uplink = Encoding::Ternary),
            ("updates.uplink or downlink is ternary", |p| p.updates.downlink = Encoding::Ternary),
            ("updates.kind is gradient", |p| p.updates.kind = UpdateKind::Gradient),
            ("strategy is adaptive", |p| {
                p.strategy =
                    StrategySpec::Yogi { learning_rate: 0.1, beta1: 0.9, beta2: 0.9, tau: 0.1 };
            }),
        ];
        for (expected, change) in changes {
            let mut plan = plain.clone();
            change(&mut plan);
            let error = plan.check().unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("group norms"), "{error}");
        }
    }

    #[test]
    fn options_out_of_range_are_named() {
        type Change = fn(&mut RunPlan);
        let changes: [(&str, Change); 22] = [
            ("rounds", |p| p.rounds = 0),
            ("cohort.minimum", |p| p.cohort.minimum = 11),
            ("cohort.over_selection", |p| p.cohort.over_selection = f64::NAN),
            ("training.learning_rate", |p| p.training.learning_rate = -1.0),
            ("training.decay.factor", |p| {
                p.training.decay = Some(RateDecay::After { factor: 1.1, rounds: Vec::new() });
            }),
            ("training.decay.rounds", |p| {
                p.training.decay = Some(RateDecay::Every { factor: 0.9, rounds: 0 });
            }),
            ("training.keep_optimizer", |p| p.training.keep_optimizer = true),
            ("updates.bound", |p| p.updates.bound = f32::INFINITY),
            ("updates.max_over_median", |p| p.updates.max_over_median = 0.5),
            ("updates.max_norm", |p| p.updates.max_norm = Some(f64::NAN)),
            ("updates.max_norm", |p| {
                (p.cohort.minimum, p.secure) = (2, Some(Secure::default()));
                p.updates.max_norm = Some(1.0);
            }),
            ("updates.downlink", |p| p.updates.downlink = Encoding::Half),
            ("strategy.beta1", |p| {
                p.strategy =
                    StrategySpec::Adam { learning_rate: 0.1, beta1: 1.0, beta2: 0.9, tau: 0.1 };
            }),
            ("cohort.minimum", |p| p.secure = Some(Secure::default())),
            ("secure.metrics", |p| {
                let metrics = vec!["loss".into(), "loss".into()];
                p.secure = Some(Secure { metrics, ..Secure::default() });
            }),
            ("evaluation.on_clients", |p| {
                p.secure = Some(Secure::default());
                p.evaluation.on_clients = true;
            }),
            ("cohort.size", |p| (p.secure, p.cohort.size) = (Some(Secure::default()), 60_000)),
            ("updates.bound", |p| (p.updates.bound, p.updates.max_samples) = (1e9, u32::MAX)),
            ("evaluation.metric", |p| p.evaluation.metric = "speed".into()),
            ("evaluation.metrics", |p| p.evaluation.metrics.clear()),
            ("evaluation.metrics", |p| p.evaluation.metrics.push("loss".into())),
            ("evaluation.metrics", |p| p.evaluation.metrics.push("x".repeat(65))),
        ];
        plan().check().unwrap();
        for (name, change) in changes {
            let mut plan = plan();
            change(&mut plan);
            match plan.check().unwrap_err() {
                Error::Value { name: given, .. } => assert_eq!(given, name),
                error => panic!("{name}: {error}"),
            }
        }
    }

    #[test]
    fn a_schema_is_one_of_the_model() {
        let row = |text: &str| text.split(',').map(String::from).collect::<Vec<_>>();
        let (names, rows) = (row("x,y,z,class"), [row("1,2,3,no"), row("3,4,5,yes")]);
        let rows: Vec<&[String]> = rows.iter().map(Vec::as_slice).collect();
        let schema = Schema::fit(&names, &rows, "class", &[]).unwrap();
        let with = |change: &dyn Fn(&mut Schema)| {
            let mut plan = plan();
            change(plan.schema.insert(schema.clone()));
            plan
        };
        let whole = with(&|_| ());
        whole.check().unwrap();
        // It is part of the plan's file and of the task.
        let text = toml::to_string(&whole).unwrap();
        assert_eq!(toml::from_str::<RunPlan>(&text).unwrap(), whole);
        assert_eq!(whole.task(crate::RunId([0; 16])).unwrap().schema, Some(schema.clone()));

        type Change = fn(&mut Schema);
        let changes: [(&str, Change); 8] = [
            ("schema.version", |s| s.version = 2),
            ("schema.columns", |s| s.columns.truncate(2)),
            ("schema.columns", |s| s.columns.clear()),
            ("schema.columns", |s| s.columns[0].name = "y".into()),
            ("schema.columns", |s| s.label.name = "y".into()),
            ("schema.columns", |s| {
                s.columns[0].kind = ColumnKind::Number { mean: 0.0, deviation: 0.0 };
            }),
            ("schema.columns", |s| {
                s.columns[0].kind = ColumnKind::Category { values: vec!["a".into(), "a".into()] };
            }),
            ("schema.label.classes", |s| s.label.classes.push("maybe".into())),
        ];
        for (name, change) in changes {
            match with(&change).check().unwrap_err() {
                Error::Value { name: given, .. } => assert_eq!(given, name),
                error => panic!("{name}: {error}"),
            }
        }
        let mut tokens = whole.clone();
        tokens.model = ModelKind::Layers(ModelSpec::language_model(9, 2, 4, 1));
        let error = tokens.check().unwrap_err().to_string();
        assert!(error.contains("not of tokens"), "{error}");
    }

    #[test]
    fn tokens_are_ones_of_the_model() {
        let own = Tokens::Alphabet(Alphabet::of(["тернар"]));
        let mut plan = plan();
        plan.tokens = Some(own.clone());
        let error = plan.check().unwrap_err().to_string();
        assert!(
            error.contains("tokens is 7 different ones, expected a model of tokens"),
            "{error}"
        );
        plan.model = ModelKind::Layers(ModelSpec::language_model(7, 2, 4, 1));
        plan.check().unwrap();
        let text = toml::to_string(&plan).unwrap();
        assert_eq!(toml::from_str::<RunPlan>(&text).unwrap(), plan);
        assert_eq!(plan.task(crate::RunId([0; 16])).unwrap().tokens, Some(own));
        plan.model = ModelKind::Layers(ModelSpec::language_model(6, 2, 4, 1));
        let error = plan.check().unwrap_err().to_string();
        assert!(error.contains("expected at most 6, what the model takes"), "{error}");
    }
}
