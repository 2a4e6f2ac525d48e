//! The server's part: 1.1 public text, 1.2 made into tokens, 1.3 trains the public model.

use anyhow::{Context, Result, ensure};
use tern_engine::nn::{Mode, Model, ModelSpec};
use tern_engine::{
    Arena, Decay, Device, Flat, Graph, Optimizer, Plan, Schedule, TextData, TextWindows, Training,
};
use tern_fl::methods::personalize::Score;
use tern_fl::tokens::Alphabet;

use super::client::WINDOW;
use super::options::Scale;
use super::reader::{Passage, Reader};
use crate::progress::Progress;
use crate::public::{Card, PublicModel};
use crate::text::Speaker;

/// Steps between two points of the loss curve.
const REPORT: usize = 10;
/// Measurements on held-out text during the training.
const MEASUREMENTS: usize = 12;
/// Characters that each of them reads; the last one reads all there are.
const MEASURED: usize = 15_000;
/// Other characters than ASCII that an alphabet may have.
const OTHERS: usize = 1000;
/// Gradients are clipped to this norm.
const CLIP: f64 = 1.0;

/// How the training went. Losses are nats a character.
#[derive(Clone, Debug, Default)]
pub struct Curve {
    /// (step, mean loss of the steps since the last point).
    pub training: Vec<(f64, f64)>,
    /// (step, loss on held-out text).
    pub held_out: Vec<(f64, f64)>,
}

/// A trained model and how it got there.
pub struct Trained {
    /// The model, not published yet.
    pub public: PublicModel,
    /// Its loss curve.
    pub curve: Curve,
    /// On all held-out text given.
    pub held_out: Score,
    /// Seconds the training took, measurements included.
    pub seconds: f64,
}

/// 1.2: public text as tokens: the alphabet and one stream, speaker after speaker.
///
/// # Errors
/// As [`Alphabet::check`].
pub fn preprocess(public: &[Speaker]) -> Result<(Alphabet, Vec<u32>)> {
    let lines = || public.iter().flat_map(|s| s.lines.iter());
    let alphabet = Alphabet::covering(lines().map(String::as_str), OTHERS);
    alphabet.check(lines().map(String::as_str)).context("the public text")?;
    let stream = public.iter().flat_map(|s| alphabet.encode_lines(&s.lines)).collect();
    Ok((alphabet, stream))
}

/// Text that no public model is trained on, up to so many characters, a passage a speaker.
pub fn held_out(alphabet: &Alphabet, speakers: &[Speaker], characters: usize) -> Vec<Passage> {
    let mut passages = Vec::new();
    let mut left = characters;
    for speaker in speakers {
        let mut tokens = alphabet.encode_lines(&speaker.lines);
        tokens.truncate(left + 1);
        if tokens.len() > 1 {
            left -= tokens.len() - 1;
            passages.push(Passage { tokens, from: 1 });
        }
    }
    passages
}

/// 1.3: trains the public model on a stream of tokens. Recurrent state is carried from window
/// to window, so that the model learns to use all that came before.
pub fn train(
    device: &Device,
    (alphabet, stream): (Alphabet, &[u32]),
    held_out: &[Passage],
    scale: &Scale,
    seed: u32,
) -> Result<Trained> {
    let started = std::time::Instant::now();
    let spec = ModelSpec::language_model(alphabet.tokens(), scale.dimension, scale.hidden, 1);
    let (parameters, model) = spec.build()?;
    let arena = Arena::new(device, &parameters, &[seed])?;
    let text = (stream, alphabet.tokens());
    let mut plan = steps(&arena, &model, text, scale.batch, (scale.steps, scale.rate), seed)?;
    let mut reader = Reader::new(&arena, &spec)?;
    let some = first(held_out, MEASURED);
    let every = scale.steps.div_ceil(MEASUREMENTS).next_multiple_of(REPORT);
    let mut curve = Curve::default();
    let mut progress = Progress::new("public", scale.steps as u64);
    let mut done = 0;
    while done < scale.steps {
        let now = REPORT.min(scale.steps - done);
        let loss = plan.run(now)?.mean().unwrap_or(f32::NAN);
        ensure!(loss.is_finite(), "the loss is {loss} at step {done}: the rate is too high");
        done += now;
        curve.training.push((done as f64, f64::from(loss)));
        if done.is_multiple_of(every) && done < scale.steps {
            curve.held_out.push((done as f64, reader.read(&some)?.loss));
        }
        progress.update(done as u64, Some(loss));
    }
    progress.finish();
    let scores = reader.read(held_out)?;
    if scores.targets > 0 {
        curve.held_out.push((done as f64, scores.loss));
    }
    let card = Card { version: 1, spec, alphabet, characters: stream.len(), steps: done };
    let public = PublicModel::new(card, arena.read(Flat::Parameters, 0)?)
        .context("the model that was trained")?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(Trained { public, curve, held_out: scores, seconds })
}

/// 1.3 again: trains a published model further, as public text comes in that wasn't there
/// before, for an eighth of its steps at an eighth of its rate. The result is the next version.
pub fn go_on(
    device: &Device,
    public: &PublicModel,
    stream: &[u32],
    scale: &Scale,
    seed: u32,
) -> Result<PublicModel> {
    let arena = public.arena(device)?;
    let (total, rate) = (scale.steps.div_ceil(8), scale.rate / 8.0);
    let text = (stream, public.card.alphabet.tokens());
    let mut plan = steps(&arena, &public.model, text, scale.batch, (total, rate), seed)?;
    let mut progress = Progress::new("newer public", total as u64);
    let mut done = 0;
    while done < total {
        let now = REPORT.min(total - done);
        let loss = plan.run(now)?.mean();
        done += now;
        progress.update(done as u64, loss);
    }
    progress.finish();
    let (version, steps) = (public.card.version + 1, public.card.steps + total);
    let card = Card { version, steps, characters: stream.len(), ..public.card.clone() };
    PublicModel::new(card, arena.read(Flat::Parameters, 0)?).context("the newer model")
}

/// A plan of so many training steps on a stream, the learning rate falling in a cosine.
fn steps(
    arena: &Arena,
    model: &Model,
    (stream, vocabulary): (&[u32], usize),
    batch: usize,
    (steps, rate): (usize, f64),
    seed: u32,
) -> Result<Plan> {
    // A short text is read by fewer rows, so that each reads a few windows.
    let batch = batch.min(stream.len() / (4 * (WINDOW + 1)));
    ensure!(batch > 0, "{} characters are too few to train on", stream.len());
    let data = TextData::upload(arena.device(), &[stream], TextWindows::new(vocabulary, WINDOW))?;
    let mut graph = Graph::new(arena);
    let (inputs, targets) = graph.stream_batch(&data, batch)?;
    let forward = model.forward(&mut graph, inputs, Mode::TrainCarrying)?;
    let loss = graph.cross_entropy(forward.output, targets)?;
    let mut training = Training::new(Optimizer::adam(), rate);
    training.schedule = Schedule {
        base: rate,
        warmup: (steps / 20) as u32,
        decay: Decay::Cosine { total: steps as u32, floor: rate / 20.0 },
    };
    training.clip_norm = Some(CLIP);
    training.seed = seed;
    Ok(graph.train(loss, &training)?)
}

/// The beginning of each passage, in proportion, about `characters` in all.
fn first(passages: &[Passage], characters: usize) -> Vec<Passage> {
    let total: usize = passages.iter().map(|p| p.tokens.len()).sum();
    let part = |p: &Passage| (p.tokens.len() * characters).div_ceil(total.max(1));
    let cut = |p: &Passage| Passage {
        tokens: p.tokens[..part(p).min(p.tokens.len())].to_vec(),
        from: p.from,
    };
    passages.iter().map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speaker(name: &str, line: &str, lines: usize) -> Speaker {
        Speaker { name: name.into(), lines: vec![line.into(); lines] }
    }

    fn tiny() -> Scale {
        Scale { dimension: 8, hidden: 24, batch: 4, steps: 60, rate: 2e-2, ..Scale::quick() }
    }

    #[test]
    fn a_model_is_trained_on_public_text() {
        let public = [speaker("a", "so it goes", 100), speaker("b", "so it went — ßß", 30)];
        let (alphabet, stream) = preprocess(&public).unwrap();
        assert_eq!(stream.len(), 1 + 100 * 11 + 1 + 30 * 16);
        assert_eq!(alphabet.char(alphabet.tokens() as u32 - 1), Some('—'));
        let passages = held_out(&alphabet, &public, 1200);
        assert_eq!(passages.iter().map(|p| p.tokens.len() - 1).sum::<usize>(), 1200);
        let device = Device::cpu();
        let trained = train(&device, (alphabet, &stream), &passages, &tiny(), 1).unwrap();
        assert_eq!(trained.curve.training.len(), 6);
        assert_eq!(trained.held_out.targets, 1200);
        let (start, end) = (trained.curve.training[0].1, trained.held_out.loss);
        assert!(start > 2.0 && end < 1.0, "{start} to {end}");
        assert!(trained.held_out.top1_rate() > 0.6 && trained.held_out.top3_rate() > 0.8);

        // More text makes a newer version, which knows what is in it.
        let later = trained.public.card.alphabet.encode_lines(&vec!["so it goes".into(); 200]);
        let scale = Scale { steps: 200, rate: 4e-2, ..tiny() };
        let newer = go_on(&device, &trained.public, &later, &scale, 1).unwrap();
        assert_eq!((newer.card.version, newer.card.steps), (2, 60 + 25));
        assert_eq!(newer.published.note, trained.public.published.note);
        let loss = |public: &PublicModel| {
            let arena = public.arena(&device).unwrap();
            let mut reader = Reader::new(&arena, &public.card.spec).unwrap();
            let passage = Passage { tokens: later[..300].to_vec(), from: 1 };
            reader.read(&[passage]).unwrap().loss
        };
        assert!(loss(&newer) < loss(&trained.public));
    }

    #[test]
    fn too_little_text_is_an_error() {
        let (alphabet, stream) = preprocess(&[speaker("a", "short", 3)]).unwrap();
        assert!(train(&Device::cpu(), (alphabet, &stream), &[], &tiny(), 1).is_err());
    }
}
