//! Points 4.1 to 4.8, on points of two classes that are moved at the target: aside, and along the
//! line between the classes, so that a model of the sources is wrong about some.

use std::sync::Arc;

use tern_engine::nn::ModelSpec;
use tern_engine::{Device, IGNORE};
use tern_protocol::metrics::Metrics;
use tern_protocol::trainer::{Job, Trained, Trainer, training_seed};
use tern_protocol::{
    ClientId, Error, Result, RunId, RunPlan, Strategy, StrategyState, TaskSpec, Turn,
};

use tern_server::local;

use super::*;

const POINTS: usize = 96;

/// How far the target's points are aside.
const ASIDE: f32 = 1.5;

fn model() -> Model {
    let extractor = ModelSpec::mlp(2, &[16], 6);
    Model::new(extractor, ModelSpec::mlp(6, &[], 2), ModelSpec::mlp(6, &[12], 1)).unwrap()
}

fn settings() -> Settings {
    Settings {
        batch: 32,
        warm_ups: 1,
        warm_up_steps: 60,
        warm_up_rate: 0.02,
        head_start: 30,
        exchanges: 10,
        discriminator_rate: 0.02,
        rate: 5e-3,
        strength: 1.0,
        ..Settings::default()
    }
}

/// Points around two centers, a class each, all moved by `aside` and 0.4 of it along the line
/// between the classes.
fn points(seed: usize, aside: f32) -> (Vec<f32>, Vec<u32>) {
    let labels: Vec<u32> = (0..POINTS).map(|i| (i % 2) as u32).collect();
    let noise = |i: usize| ((i * 7919 + seed * 104_729) % 1009) as f32 / 1009.0 - 0.5;
    let point = |i: usize| {
        let side = if i.is_multiple_of(2) { -0.6 } else { 0.6 };
        [side + noise(2 * i) + 0.4 * aside, noise(2 * i + 1) + aside]
    };
    ((0..POINTS).flat_map(point).collect(), labels)
}

fn source(settings: &Settings, seed: usize) -> Node {
    let (x, labels) = points(seed, 0.0);
    Node::source(&Device::cpu(), &model(), settings, &x, &labels).unwrap()
}

fn target(settings: &Settings, labels: Option<&[u32]>) -> Node {
    Node::target(&Device::cpu(), &model(), settings, &points(9, ASIDE).0, labels).unwrap()
}

fn id(number: u8) -> ClientId {
    ClientId([number; 32])
}

/// Sources 1 to `sources` and the target, 9.
fn nodes(settings: &Settings, sources: u8) -> Vec<(ClientId, Node)> {
    let mut nodes: Vec<_> = (1..=sources).map(|n| (id(n), source(settings, n.into()))).collect();
    nodes.push((id(9), target(settings, None).with_weight(1000 * u32::from(sources))));
    nodes
}

fn task(settings: &Settings) -> (RunPlan, TaskSpec) {
    let plan = plan("test", &model(), settings, 2);
    let task = plan.task(RunId([0; 16])).unwrap();
    (plan, task)
}

/// What a node sends in the first round of a phase, starting from the first model.
fn sent(node: &mut Node, settings: &Settings, phase: Phase, nth: u32) -> Trained {
    let of = |round: &u32| settings.phase(*round) == phase && settings.count(*round) == nth;
    let round = (1..=settings.rounds()).find(of).unwrap();
    let job = Job::new(Turn::new(round, 1), Arc::new(model().initial(1)), 5);
    let trained = node.train(&task(settings).1, &job).unwrap();
    assert_eq!(node.train(&task(settings).1, &job).unwrap(), trained, "a job twice");
    trained
}

/// Groups of which anything changes.
fn changed(update: &[f32]) -> Vec<Group> {
    let moves = |g: &Group| update[model().range(*g)].iter().any(|x| *x != 0.0);
    Group::ALL.into_iter().filter(moves).collect()
}

fn run_all(settings: &Settings, nodes: &mut [(ClientId, Node)]) -> (Outcome, Vec<Round>) {
    let plan = plan("test", &model(), settings, nodes.len() as u32);
    let fusion = Fusion::new(&model(), settings);
    let mut rounds = Vec::new();
    let outcome = run(&plan, &fusion, &model().initial(settings.seed), nodes, |round, _| {
        rounds.push(round.clone())
    })
    .unwrap();
    (outcome, rounds)
}

#[test]
fn sources_warm_up_extractor_and_task_model_alone() {
    let settings = settings();
    let update = sent(&mut source(&settings, 1), &settings, Phase::WarmUp, 1);
    assert_eq!(changed(&update.update), [Group::Extractor, Group::Task]);
    let mut node = source(&settings, 1);
    let (first, (x, labels)) = (model().initial(1), points(4, 0.0));
    let trained: Vec<f32> = first.iter().zip(&update.update).map(|(a, b)| a + b).collect();
    let before = node.accuracy(&first, &x, &labels).unwrap();
    let after = node.accuracy(&trained, &x, &labels).unwrap();
    assert!(after > 0.95 && after > before, "{before} to {after}");
}

#[test]
fn the_target_starts_from_the_sources_aggregate() {
    let settings = Settings { exchanges: 0, head_start: 0, ..settings() };
    let silent = sent(&mut target(&settings, None), &settings, Phase::WarmUp, 1);
    assert_eq!((changed(&silent.update), silent.samples), (vec![], 1));
    // The mean of two sources, weighted 1 to 3; the target is hardly counted.
    let mut nodes = nodes(&settings, 2);
    nodes[1].1 = source(&settings, 2).with_weight(3000);
    let (outcome, _) = run_all(&settings, &mut nodes);
    let first = model().initial(settings.seed);
    let seed = |n| training_seed(settings.seed, 1, &id(n));
    let mut alone = |n: usize| {
        let (turn, start) = (Turn::new(1, 1), Arc::new(first.clone()));
        let job = Job::new(turn, start, seed(n as u8 + 1));
        nodes[n].1.train(&task(&settings).1, &job).unwrap().update
    };
    let (one, two) = (alone(0), alone(1));
    for i in model().range(Group::Extractor) {
        let expected = first[i] + 0.25 * one[i] + 0.75 * two[i];
        assert!((outcome.model[i] - expected).abs() < 1e-3, "{i}");
    }
}

/// Two sources and the target, as clients of a server.
fn clients(settings: &Settings) -> Vec<local::Client<Node>> {
    let all = nodes(settings, 2).into_iter().map(|node| node.1);
    all.enumerate().map(|(n, node)| local::Client::numbered(n, node)).collect()
}

#[test]
fn the_target_and_a_third_node_aggregate_to_the_same_bits() {
    let settings = Settings { exchanges: 6, ..settings() };
    let plan = plan("test", &model(), &settings, 3);
    assert!(plan.cohort.gather_ms <= 1000, "an absent node holds every round up as long");
    let fusion = Fusion::new(&model(), &settings);
    let initial = model().initial(settings.seed);
    let mut there = clients(&settings);
    let folder = tempfile::tempdir().unwrap();
    let mut options = local::Options::new(&Device::cpu(), folder.path());
    options.strategy = Some(Arc::new(fusion.clone()));
    let third = local::run(&plan, Some(&initial), &mut there, options, |_, _| ()).unwrap();
    let mut here: Vec<_> = clients(&settings).into_iter().map(|c| (c.id(), c.trainer)).collect();
    let own = run(&plan, &fusion, &initial, &mut here, |_, _| ()).unwrap();
    assert_eq!(third.rounds, own.rounds);
    assert!(third.model == own.model && third.best == third.model);
    assert!(own.model != initial);
}

#[test]
fn a_third_node_ends_the_run_where_the_target_does() {
    // Steps too small to change anything.
    let still = Settings { patience: Some(6), rate: 1e-12, exchanges: 500, ..settings() };
    let plan = plan("test", &model(), &still, 3);
    let fusion = Fusion::new(&model(), &still);
    let initial = model().initial(still.seed);
    let folder = tempfile::tempdir().unwrap();
    let mut options = local::Options::new(&Device::cpu(), folder.path());
    options.strategy = Some(Arc::new(fusion.clone()));
    let there = &mut clients(&still);
    let third = local::run(&plan, Some(&initial), there, options, |_, _| ()).unwrap();
    let mut here: Vec<_> = clients(&still).into_iter().map(|c| (c.id(), c.trainer)).collect();
    let own = run(&plan, &fusion, &initial, &mut here, |_, _| ()).unwrap();
    assert_eq!((own.ended, own.rounds), (Ended::Converged, third.rounds));
    assert!(third.rounds < still.rounds());
}

#[test]
fn few_one_sided_steps_add_up_to_a_discriminator() {
    // Up to the last round before G is trained against it.
    let settings = Settings { exchanges: 0, head_start: 60, ..settings() };
    for sources in [1, 3] {
        let mut nodes = nodes(&settings, sources);
        let (outcome, rounds) = run_all(&settings, &mut nodes);
        assert_eq!(rounds.last().unwrap().phase, Phase::Discriminate);
        let own = nodes[0].1.recognized(&outcome.model, &points(5, 0.0).0).unwrap();
        let other = &mut nodes.last_mut().unwrap().1;
        let theirs = other.recognized(&outcome.model, &points(6, ASIDE).0).unwrap();
        assert!((own + theirs) / 2.0 > 0.8, "{sources} sources: {own} and {theirs}");
    }
}

#[test]
fn a_conditional_discriminator_sees_features_class_by_class() {
    let mlp = |inputs, outputs| ModelSpec::mlp(inputs, &[], outputs);
    let misfit = Model::conditional(mlp(2, 6), mlp(6, 2), mlp(6, 1));
    assert!(misfit.err().unwrap().to_string().contains("input"));
    let model = Model::conditional(mlp(2, 6), mlp(6, 2), mlp(12, 1)).unwrap();
    let settings = Settings { adapt_steps: 20, ..settings() };
    let (x, _) = points(9, ASIDE);
    let mut node = Node::target(&Device::cpu(), &model, &settings, &x, None).unwrap();
    let first = model.initial(1);
    // The logit, from what else is known of the sample.
    let features = node.features(&first, &x[..2]).unwrap();
    let range = |group| &first[model.range(group)];
    let dot = |w: &[f32], x: &[f32]| w.iter().zip(x).map(|(w, x)| w * x).sum::<f32>();
    let (task, critic) = (range(Group::Task), range(Group::Discriminator));
    let logits = [0, 1].map(|c| dot(&task[6 * c..6 * c + 6], &features) + task[64 + c]);
    let sum: f32 = logits.iter().map(|l| l.exp()).sum();
    let by_class =
        [0, 1].map(|c| logits[c].exp() / sum * dot(&critic[6 * c..6 * c + 6], &features));
    let given = node.domain(&first, &x[..2]).unwrap()[0];
    assert!((given - by_class.iter().sum::<f32>() - critic[64]).abs() < 1e-4);
    // Gradients come through it, to G alone.
    let plan = plan("test", &model, &settings, 2);
    let round = (1..).find(|r| settings.strength_in(*r) > 0.5).unwrap();
    let job = Job::new(Turn::new(round, 1), Arc::new(first.clone()), 5);
    let update = node.train(&plan.task(RunId([0; 16])).unwrap(), &job).unwrap().update;
    let moved: Vec<f32> = first.iter().zip(&update).map(|(a, b)| a + b).collect();
    let mut mean = |m: &[f32]| node.domain(m, &x).unwrap().iter().sum::<f32>() / POINTS as f32;
    assert!(mean(&moved) < mean(&first) - 1e-3);
    assert!(update[model.range(Group::Task).start..].iter().all(|x| *x == 0.0));
}

#[test]
fn discriminating_leaves_features_and_task_alone() {
    let settings = settings();
    for node in [&mut source(&settings, 1), &mut target(&settings, None)] {
        let update = sent(node, &settings, Phase::Discriminate, 1).update;
        assert_eq!(changed(&update), [Group::Discriminator]);
    }
}

#[test]
fn adapting_leaves_the_discriminator_alone_and_fools_it() {
    for objective in [Objective::Invert, Objective::Reverse] {
        let settings = Settings { objective, adapt_steps: 40, ..settings() };
        let Trained { update, metrics, .. } =
            sent(&mut source(&settings, 1), &settings, Phase::Adapt, 5);
        assert_eq!(changed(&update), [Group::Extractor, Group::Task]);
        // What is to fall falls as the discriminator is fooled, whichever the objective.
        let sign = if objective == Objective::Reverse { -1.0 } else { 1.0 };
        let parts = metrics["task"] + sign * metrics["adversarial"];
        assert!((metrics["loss"] - parts).abs() < 1e-9, "{metrics:?}");
        let mut node = target(&settings, None);
        let update = sent(&mut node, &settings, Phase::Adapt, 5).update;
        assert_eq!(changed(&update), [Group::Extractor]);
        // The logit of its own domain falls.
        let (first, x) = (model().initial(1), points(6, ASIDE).0);
        let moved: Vec<f32> = first.iter().zip(&update).map(|(a, b)| a + b).collect();
        let mut mean = |model: &[f32]| node.domain(model, &x).unwrap().iter().sum::<f32>();
        let (before, after) = (mean(&first), mean(&moved));
        assert!(after < before - 0.5, "{objective:?}: {before} to {after}");
    }
}

#[test]
fn alignment_teaches_the_target_what_its_sources_know() {
    let (test, labels) = points(6, ASIDE);
    for (sources, objective) in
        [(1, Objective::Invert), (1, Objective::Reverse), (3, Objective::Reverse)]
    {
        let accuracy = |strength| {
            let settings = Settings { strength, objective, exchanges: 400, ..settings() };
            let mut nodes = nodes(&settings, sources);
            let (outcome, _) = run_all(&settings, &mut nodes);
            nodes.last_mut().unwrap().1.accuracy(&outcome.model, &test, &labels).unwrap()
        };
        let (without, aligned) = (accuracy(0.0), accuracy(1.0));
        let what = format!("{sources} sources, {objective:?}: {without}, then {aligned}");
        assert!(without < 0.85 && aligned > 0.9, "{what}");
    }
}

#[test]
fn the_targets_labels_train_its_task_model_where_it_is_wanted() {
    let with = Settings { task: TaskModel::WithTarget, ..settings() };
    let (_, mut labels) = points(9, ASIDE);
    labels[4..].fill(IGNORE);
    let groups = |settings: &Settings, labels: Option<&[u32]>| {
        let mut node = target(settings, labels);
        changed(&sent(&mut node, settings, Phase::Adapt, 5).update)
    };
    assert_eq!(groups(&with, Some(&labels)), [Group::Extractor, Group::Task]);
    assert_eq!(groups(&with, None), [Group::Extractor]);
    assert_eq!(groups(&settings(), Some(&labels)), [Group::Extractor]);
}

#[test]
fn a_run_ends_when_the_loss_falls_no_more_or_the_rounds_are_spent() {
    let spent = run_all(&settings(), &mut nodes(&settings(), 1)).0;
    assert_eq!((spent.ended, spent.rounds), (Ended::Spent, settings().rounds()));
    // Steps too small to change anything.
    let still = Settings { patience: Some(6), rate: 1e-12, exchanges: 500, ..settings() };
    let (outcome, rounds) = run_all(&still, &mut nodes(&still, 1));
    assert_eq!(outcome.ended, Ended::Converged);
    assert!(outcome.rounds < still.rounds() && rounds.len() == outcome.rounds as usize);
}

#[test]
fn nothing_but_parameters_weight_and_losses_leaves_a_node() {
    let settings = settings();
    let allowed = ["adversarial", "discriminator", "loss", "task"];
    for phase in [Phase::WarmUp, Phase::Discriminate, Phase::Adapt] {
        for node in [&mut source(&settings, 1), &mut target(&settings, None)] {
            let Trained { update, samples, metrics, .. } = sent(node, &settings, phase, 1);
            assert_eq!(update.len(), model().parameters().words());
            // Neither how many samples there are, nor anything of one of them.
            assert!(samples == 1000 || samples == 1, "{samples}");
            assert!(metrics.keys().all(|name| allowed.contains(&name.as_str())), "{metrics:?}");
        }
    }
}

#[test]
fn a_node_that_fails_sits_out_and_the_others_go_on() {
    struct Flaky(Node, bool);
    impl Trainer for Flaky {
        fn samples(&self) -> u32 {
            self.0.samples()
        }
        fn train(&mut self, task: &TaskSpec, job: &Job) -> Result<Trained> {
            let mut trained = self.0.train(task, job)?;
            if self.1 {
                match job.turn.round {
                    2 => return Err(Error::trainer("no power")),
                    3 => trained.update[0] = f32::NAN,
                    // Clipped, as a client of a server does it.
                    5 => trained.update[0] = 1e9,
                    4 => trained.update.truncate(1),
                    _ => (),
                }
            }
            Ok(trained)
        }
        fn evaluate(&mut self, task: &TaskSpec, model: &[f32]) -> Result<(u32, Metrics)> {
            self.0.evaluate(task, model)
        }
    }
    let settings = settings();
    let all = nodes(&settings, 2).into_iter();
    let mut flaky: Vec<_> = all.map(|(key, n)| (key, Flaky(n, key == id(2)))).collect();
    let plan = plan("test", &model(), &settings, 3);
    let fusion = Fusion::new(&model(), &settings);
    let initial = model().initial(settings.seed);
    let mut absent = Vec::new();
    run(&plan, &fusion, &initial, &mut flaky, |round, _| absent.push(round.absent.clone()))
        .unwrap();
    for (round, reason) in [(2, "no power"), (3, "NaN"), (4, "elements")] {
        let [(who, why)] = &absent[round - 1][..] else { panic!("{:?}", absent[round - 1]) };
        assert!(*who == id(2) && why.contains(reason), "{why}");
    }
    assert_eq!(absent.iter().flatten().count(), 3);
    // With one source less nobody is left to teach.
    flaky.remove(0);
    let error = run(&plan, &fusion, &initial, &mut flaky, |_, _| ()).unwrap_err().to_string();
    assert!(error.contains("round 2") && error.contains("no power"), "{error}");
}

#[test]
fn nodes_refuse_data_that_cannot_be_learned_from() {
    let (device, model, settings) = (Device::cpu(), model(), settings());
    let source = |x: &[f32], labels: &[u32]| {
        Node::source(&device, &model, &settings, x, labels).err().unwrap().to_string()
    };
    assert!(source(&[], &[]).contains("labels of a source is none"));
    assert!(source(&[1.0; 4], &[1, 1]).contains("class 1 only"));
    assert!(source(&[1.0; 5], &[0, 1]).contains("data set"));
    assert!(source(&[1.0, 2.0, f32::NAN, 0.0], &[0, 1]).contains("feature 0 of sample 1"));
    assert!(source(&[1.0; 4], &[0, 2]).contains("label of sample 1"));
    let empty = Node::target(&device, &model, &settings, &[], None).err().unwrap();
    assert!(empty.to_string().contains("data set"));
    let mlp = |inputs, outputs| ModelSpec::mlp(inputs, &[], outputs);
    let misfit = |g, t, d| Model::new(g, t, d).err().unwrap().to_string();
    assert!(misfit(mlp(2, 6), mlp(5, 2), mlp(6, 1)).contains("input"));
    assert!(misfit(mlp(2, 6), mlp(6, 2), mlp(6, 2)).contains("discriminator"));
    assert!(misfit(mlp(2, 6), mlp(6, 1), mlp(6, 1)).contains("task model"));
    let tokens = ModelSpec::language_model(9, 2, 2, 1);
    assert!(misfit(tokens, mlp(6, 2), mlp(6, 1)).contains("extractor"));
}

#[test]
fn a_round_moves_what_it_trains_and_nothing_else() {
    let settings = settings();
    let fusion = Fusion::new(&model(), &settings);
    let (mut state, mut last) = (StrategyState::default(), model().initial(1));
    let direction = vec![1e-3; last.len()];
    for round in 1..=settings.warm_ups + settings.head_start + 2 {
        let mut next = last.clone();
        fusion.step(&mut next, &direction, &mut state);
        let change: Vec<f32> = next.iter().zip(&last).map(|(a, b)| a - b).collect();
        let expected = match settings.phase(round) {
            Phase::WarmUp => Group::ALL.to_vec(),
            Phase::Discriminate => vec![Group::Discriminator],
            Phase::Adapt => vec![Group::Extractor, Group::Task],
        };
        assert_eq!(changed(&change), expected, "round {round}");
        last = next;
    }
}
