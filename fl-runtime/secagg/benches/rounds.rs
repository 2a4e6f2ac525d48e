//! What secure aggregation costs: 100 clients × 2^20 coordinates, a fifth of them dropping out
//! after they shared their secrets, neighbors and threshold for a fifth corrupt and a fifth
//! dropped at 2^-40 and 2^-20. Checks that the sum is exact, then prints the time of a client
//! and of the server on one core, and the bytes.
//!
//! `cargo bench -p tern-secagg`

#![allow(clippy::disallowed_types, reason = "a benchmark reads the clock")]
#![allow(clippy::print_stdout, reason = "a command prints its table")]

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use tern_secagg::{
    Assumptions, History, Message, Packing, Parameters, Seed, Session, Unpacker, client, server,
};
use tern_shaders::kernels::ternary::{EncodeLanes, encode_lanes, lane_bits};

type Outcome<T> = Result<T, Box<dyn Error>>;

const CLIENTS: usize = 100;
const COORDINATES: usize = 1 << 20;
const DROPPED: usize = 20;
/// Bits of the fixed-point sum.
const FIXED_BITS: u32 = 32;

/// Random words, the same on every run.
fn noise(client: usize, words: usize) -> impl Iterator<Item = u32> {
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ client as u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u32
    })
    .take(words)
}

/// A client's fixed-point numbers: a sum of all of them stays within the bits.
fn fixed(client: usize) -> Vec<u32> {
    let bound = (1i64 << (FIXED_BITS - 1)) / CLIENTS as i64 - 1;
    let number = |word: u32| (i64::from(word) % (2 * bound + 1) - bound) as u32;
    noise(client, COORDINATES).map(number).collect()
}

/// A client's ternary codes in lanes.
fn ternary(client: usize) -> Vec<u32> {
    // Code 3 doesn't exist: it becomes 2, which stands for −1.
    let codes: Vec<u32> =
        noise(client, COORDINATES / 16).map(|word| word & !((word >> 1) & 0x5555_5555)).collect();
    let words = Packing::ternary(COORDINATES, CLIENTS as u32).map_or(0, |p| p.words());
    let bits = lane_bits(CLIENTS as u32);
    let mut lanes = vec![0; words];
    let p = EncodeLanes { n: COORDINATES as u32, words: words as u32, bits };
    encode_lanes::<f32>(&p, 1, &codes, &mut lanes);
    lanes
}

#[derive(Default)]
struct Costs {
    /// Each client's, from joining to its last share.
    clients: BTreeMap<u32, Duration>,
    /// Masks and packing of one client alone, the largest.
    masking: Duration,
    server_protocol: Duration,
    server_fold: Duration,
    server_secrets: Duration,
    server_unmask: Duration,
    sent_by_client: usize,
    sent_to_client: usize,
}

fn timed<T>(total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    *total += start.elapsed();
    result
}

/// A whole session of the vectors that `vector` gives.
fn session(packing: Packing, vector: fn(usize) -> Vec<u32>) -> Outcome<Costs> {
    let assumptions = Assumptions::new(0.2, 0.2);
    let session =
        Session { run: [1; 32], task: [2; 32], round: 1, attempt: 0, assumptions, packing };
    let mut costs = Costs::default();
    let mut server = server::Advertising::new(session.clone());
    let mut joined = Vec::new();
    for number in 0..CLIENTS {
        let mut own = Duration::ZERO;
        let identity = SigningKey::from_bytes(&[number as u8; 32]);
        let (seed, mut history) = (Seed::from_system()?, History::default());
        let (client, keys) =
            timed(&mut own, || client::join(session.clone(), &identity, 1, seed, &mut history))?;
        costs.sent_by_client = keys.encode().len();
        joined.push((keys.identity, client, own));
        timed(&mut costs.server_protocol, || server.advertise(keys))?;
    }
    let (mut server, roster) = timed(&mut costs.server_protocol, || server.close())?;
    costs.sent_to_client = roster.encode().len();

    let mut sharing = BTreeMap::new();
    for (bytes, (identity, client, mut own)) in joined.into_iter().enumerate() {
        let (client, shares) = timed(&mut own, || client.roster(&roster))?;
        let member = server.number(&identity).ok_or("not in the roster")?;
        if bytes == 0 {
            costs.sent_by_client += shares.encode().len();
        }
        timed(&mut costs.server_protocol, || server.share(member, shares))?;
        sharing.insert(member, client);
        costs.clients.insert(member, own);
    }
    let (mut server, inboxes) = timed(&mut costs.server_protocol, || server.close())?;
    let mut checked = BTreeMap::new();
    for (bytes, (member, inbox)) in inboxes.into_iter().enumerate() {
        let client = sharing.remove(&member).ok_or("unknown")?;
        let own = costs.clients.entry(member).or_default();
        let (client, complaints) = timed(own, || client.inbox(&inbox))?;
        if bytes == 0 {
            costs.sent_by_client += complaints.encode().len();
            costs.sent_to_client += inbox.encode().len();
        }
        timed(&mut costs.server_protocol, || server.check(member, complaints))?;
        checked.insert(member, client);
    }
    let job = [3; 32];
    let (mut server, partners) = timed(&mut costs.server_protocol, || server.close(job))?;

    let mut sum = vec![0u32; packing.words()];
    let mut expected = vec![0u32; packing.words()];
    let mut masked = Vec::new();
    for (member, partners) in partners {
        if (member as usize).is_multiple_of(CLIENTS / DROPPED) {
            continue;
        }
        let client = checked.remove(&member).ok_or("unknown")?;
        let own = costs.clients.entry(member).or_default();
        let (client, included) = timed(own, || client.partners(&partners, job))?;
        let mut words = vector(member as usize);
        for (expected, word) in expected.iter_mut().zip(&words) {
            *expected = expected.wrapping_add(*word);
        }
        let start = Instant::now();
        let client = client.mask(&mut words)?;
        let body = packing.pack(&words)?;
        costs.masking = costs.masking.max(start.elapsed());
        *own += start.elapsed();
        timed(&mut costs.server_fold, || -> Outcome<()> {
            let mut unpacker = Unpacker::new(packing);
            unpacker.add(&body, &mut sum)?;
            Ok(unpacker.finish()?)
        })?;
        if masked.is_empty() {
            costs.sent_by_client += body.len() + included.encode().len();
            costs.sent_to_client += partners.encode().len();
        }
        timed(&mut costs.server_protocol, || server.upload(member, included))?;
        masked.push((member, client));
    }
    let (mut server, survivors) = timed(&mut costs.server_protocol, || server.close())?;

    let mut confirmed = BTreeMap::new();
    for (member, client) in masked {
        let own = costs.clients.entry(member).or_default();
        let (client, confirmation) = timed(own, || client.survivors(&survivors))?;
        timed(&mut costs.server_protocol, || server.confirm(member, confirmation))?;
        confirmed.insert(member, client);
    }
    costs.sent_by_client += 64;
    costs.sent_to_client += survivors.encode().len();
    let (mut server, requests) = timed(&mut costs.server_protocol, || server.close())?;
    for (last, (member, request)) in requests.into_iter().enumerate() {
        let client = confirmed.remove(&member).ok_or("unknown")?;
        let own = costs.clients.entry(member).or_default();
        let reveal = timed(own, || client.reveal(&request))?;
        if last == 0 {
            costs.sent_by_client += reveal.encode().len();
            costs.sent_to_client += request.encode().len();
        }
        timed(&mut costs.server_protocol, || server.reveal(member, reveal))?;
    }
    let (_, unmasked) = timed(&mut costs.server_secrets, || server.close());
    let unmasked = unmasked?;
    timed(&mut costs.server_unmask, || unmasked.masks.add_to(&mut sum));
    println!(
        "  {} masks removed, sum of {} clients",
        unmasked.masks.len(),
        unmasked.survivors.len()
    );
    let modulus = packing.modulus_mask();
    if sum.iter().zip(&expected).any(|(sum, expected)| (sum ^ expected) & modulus != 0) {
        return Err("the sum isn't that of the vectors".into());
    }
    println!("  the sum is exact");
    Ok(costs)
}

/// Prints a number and whether it keeps to its limit.
fn line(what: &str, value: f64, unit: &str, limit: Option<f64>) -> bool {
    let kept = limit.is_none_or(|limit| value <= limit);
    let limit = limit.map_or(String::new(), |limit| {
        format!("  (at most {limit}: {})", if kept { "reached" } else { "MISSED" })
    });
    println!("  {what:<44} {value:>9.4} {unit}{limit}");
    kept
}

fn report(name: &str, packing: Packing, vector: fn(usize) -> Vec<u32>, bits: f64) -> Outcome<bool> {
    println!("{name}: {} words of {} bits", packing.words(), packing.bits());
    let costs = session(packing, vector)?;
    let seconds = |time: &Duration| time.as_secs_f64();
    let slowest = costs.clients.values().max().map_or(0.0, seconds);
    let server =
        costs.server_protocol + costs.server_fold + costs.server_secrets + costs.server_unmask;
    let received = (packing.bytes() * (CLIENTS - DROPPED)) as f64 / 1e6;
    let kept = [
        line("client, slowest, one core", slowest, "s", Some(0.3)),
        line("  of which masks and packing", seconds(&costs.masking), "s", None),
        line("server, one core", seconds(&server), "s", Some(3.0)),
        line("  messages and signatures", seconds(&costs.server_protocol), "s", None),
        line("  bodies unpacked and added", seconds(&costs.server_fold), "s", None),
        line("    rate", received / seconds(&costs.server_fold), "MB/s", None),
        line("  secrets from shares, pair keys", seconds(&costs.server_secrets), "s", None),
        line("  masks removed", seconds(&costs.server_unmask), "s", None),
        line("a client sends", costs.sent_by_client as f64, "bytes", None),
        line(
            "  of the packed vector",
            costs.sent_by_client as f64 / packing.bytes() as f64,
            "x",
            Some(1.1),
        ),
        line("a client receives, without the model", costs.sent_to_client as f64, "bytes", None),
        line(
            "bits a coordinate, packed",
            packing.bytes() as f64 * 8.0 / COORDINATES as f64,
            "bits",
            Some(bits),
        ),
    ];
    Ok(kept.iter().all(|kept| *kept))
}

fn main() -> Outcome<()> {
    let parameters = Parameters::choose(CLIENTS, &Assumptions::new(0.2, 0.2))?;
    println!(
        "{CLIENTS} clients x {COORDINATES}, {DROPPED} drop out, for 20 % corrupt and 20 % dropped \
         at 2^-40 and 2^-20: {} neighbors, threshold {}",
        parameters.neighbors, parameters.threshold
    );
    let packings =
        (Packing::new(COORDINATES, FIXED_BITS)?, Packing::ternary(COORDINATES, CLIENTS as u32)?);
    let one_core = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    let kept = one_core.install(|| -> Result<bool, String> {
        let fixed = report("fixed point", packings.0, fixed, FIXED_BITS.into());
        let ternary = report("ternary", packings.1, ternary, 8.0);
        Ok(fixed.map_err(|e| e.to_string())? && ternary.map_err(|e| e.to_string())?)
    })?;
    if kept { Ok(()) } else { Err("a limit was missed".into()) }
}
