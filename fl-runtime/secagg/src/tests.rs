//! Whole sessions: exact sums with dropouts in every phase, and what ends a session.

mod bytes;
mod liars;
mod malicious;
mod refusals;

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;
use proptest::prelude::*;

use super::*;

const WORDS: usize = 70;

/// What everybody's vector is made by.
const JOB: [u8; 32] = [6; 32];

fn session(assumptions: Assumptions) -> Session {
    let packing = Packing::new(WORDS, 20).unwrap();
    Session { run: [4; 32], task: [5; 32], round: 2, attempt: 1, assumptions, packing }
}

/// Five clients, none corrupt, of which two may drop out: threshold 3 among all pairs.
fn five() -> Session {
    session(Assumptions::new(0.0, 0.4))
}

/// Weak bounds, by which 40 clients get a graph with few neighbors.
fn sparse() -> Session {
    let weak = Assumptions::new(0.0, 0.1);
    session(Assumptions { security_bits: 4, failure_bits: 2, ..weak })
}

fn identity(client: usize) -> SigningKey {
    SigningKey::from_bytes(&[client as u8 + 1; 32])
}

fn vector(member: u32) -> Vec<u32> {
    (0..WORDS as u32).map(|i| (member + 1) * 1_000 + i * 7).collect()
}

fn advertised(session: &Session, clients: usize) -> (server::Advertising, Vec<client::Advertised>) {
    let mut server = server::Advertising::new(session.clone());
    let join = |client: usize| {
        let seed = Seed::from_bytes([client as u8 + 100; 32]);
        let history = &mut History::default();
        let (state, keys) =
            client::join(session.clone(), &identity(client), 1, seed, history).unwrap();
        server.advertise(keys).unwrap();
        state
    };
    let clients = (0..clients).map(join).collect();
    (server, clients)
}

/// After round 0: clients by their numbers.
fn rostered(
    session: &Session,
    clients: usize,
) -> (server::Sharing, Roster, BTreeMap<u32, client::Advertised>) {
    let (server, states) = advertised(session, clients);
    let (server, roster) = server.close().unwrap();
    let number = |client| server.number(identity(client).verifying_key().as_bytes()).unwrap();
    let states = states.into_iter().enumerate().map(|(client, state)| (number(client), state));
    let states = states.collect();
    (server, roster, states)
}

/// The key of a member, by which it signs.
fn key_of(roster: &Roster, member: u32) -> SigningKey {
    let named = roster.members[member as usize].identity;
    let is_named = |key: &SigningKey| key.verifying_key().to_bytes() == named;
    (0..roster.members.len()).map(identity).find(is_named).unwrap()
}

type Inboxes = BTreeMap<u32, (client::Shared, Inbox)>;

/// After round 1, in which some don't share.
fn shared(session: &Session, clients: usize, absent: &[u32]) -> (server::Checking, Inboxes) {
    let (mut server, roster, states) = rostered(session, clients);
    let mut sharing = BTreeMap::new();
    for (member, state) in states {
        if !absent.contains(&member) {
            let (state, shares) = state.roster(&roster).unwrap();
            server.share(member, shares).unwrap();
            sharing.insert(member, state);
        }
    }
    let (server, inboxes) = server.close().unwrap();
    let pair = |(member, inbox)| (member, (sharing.remove(&member).unwrap(), inbox));
    (server, inboxes.into_iter().map(pair).collect())
}

type CheckedClients = BTreeMap<u32, (client::Checked, Partners)>;

/// After round 2, in which nobody complains.
fn checked(
    session: &Session,
    clients: usize,
    absent: &[u32],
) -> (server::Collecting, CheckedClients) {
    let (mut server, states) = shared(session, clients, absent);
    let mut checked = BTreeMap::new();
    for (member, (state, inbox)) in states {
        let (state, complaints) = state.inbox(&inbox).unwrap();
        assert_eq!(server.check(member, complaints), Ok(Vec::new()));
        checked.insert(member, state);
    }
    let (server, partners) = server.close(JOB).unwrap();
    let pair = |(member, partners)| (member, (checked.remove(&member).unwrap(), partners));
    (server, partners.into_iter().map(pair).collect())
}

type MaskedClients = BTreeMap<u32, client::Masked>;

/// After round 3, in which some don't upload.
fn uploaded(
    session: &Session,
    clients: usize,
    absent: &[u32],
    dropped: &[u32],
) -> (server::Confirming, Survivors, MaskedClients) {
    let (mut server, states) = checked(session, clients, absent);
    let mut masked = BTreeMap::new();
    for (member, (state, partners)) in states {
        if !dropped.contains(&member) {
            let (state, included) = state.partners(&partners, JOB).unwrap();
            masked.insert(member, state.mask(&mut vector(member)).unwrap());
            server.upload(member, included).unwrap();
        }
    }
    let (server, survivors) = server.close().unwrap();
    (server, survivors, masked)
}

type Requests = BTreeMap<u32, (client::Confirmed, Request)>;

/// After round 4, in which everyone confirms.
fn confirmed(
    session: &Session,
    clients: usize,
    absent: &[u32],
    dropped: &[u32],
) -> (server::Unmasking, Requests) {
    let (mut server, survivors, masked) = uploaded(session, clients, absent, dropped);
    let mut states = BTreeMap::new();
    for (member, state) in masked {
        let (state, confirmation) = state.survivors(&survivors).unwrap();
        server.confirm(member, confirmation).unwrap();
        states.insert(member, state);
    }
    let (server, requests) = server.close().unwrap();
    let pair = |(member, request)| (member, (states.remove(&member).unwrap(), request));
    (server, requests.into_iter().map(pair).collect())
}

/// Before which step a client drops out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Share,
    Check,
    Upload,
    Confirm,
    Reveal,
}

/// Runs a session whose clients drop out as `drops` says; every message goes through its bytes.
/// Gives the unmasked sum and who is in it.
fn run(
    session: &Session,
    clients: usize,
    drops: &BTreeMap<u32, Step>,
) -> Result<(Vec<u32>, Vec<u32>), Failure> {
    fn over<M: Message>(message: M) -> M {
        M::decode(&message.encode()).unwrap()
    }
    // On a sparse graph a client may lose too many neighbors, and leaves.
    fn stays<T>(step: Result<T, Abort>) -> Option<T> {
        match step {
            Ok(next) => Some(next),
            Err(Abort::TooFewHolders { .. }) => None,
            Err(other) => panic!("{other}"),
        }
    }
    let goes_on = |member: &u32, step| drops.get(member).is_none_or(|last| *last > step);
    let (mut server, roster, states) = rostered(session, clients);
    let roster = over(roster);
    let mut sharing = BTreeMap::new();
    for (member, state) in states.into_iter().filter(|(member, _)| goes_on(member, Step::Share)) {
        let (state, shares) = state.roster(&roster).unwrap();
        server.share(member, over(shares)).unwrap();
        sharing.insert(member, state);
    }
    let (mut server, inboxes) = server.close()?;
    let mut checked = BTreeMap::new();
    for (member, inbox) in inboxes.into_iter().filter(|(m, _)| goes_on(m, Step::Check)) {
        let (state, complaints) = sharing.remove(&member).unwrap().inbox(&over(inbox)).unwrap();
        assert_eq!(server.check(member, over(complaints)), Ok(Vec::new()));
        checked.insert(member, state);
    }
    let (mut server, partners) = server.close(JOB)?;
    let packing = session.packing;
    let mut sum = vec![0; packing.words()];
    let mut masked = BTreeMap::new();
    for (member, partners) in partners.into_iter().filter(|(m, _)| goes_on(m, Step::Upload)) {
        let state = checked.remove(&member).unwrap().partners(&over(partners), JOB);
        let Some((state, included)) = stays(state) else { continue };
        let mut words = vector(member);
        masked.insert(member, state.mask(&mut words).unwrap());
        let mut unpacker = Unpacker::new(packing);
        unpacker.add(&packing.pack(&words).unwrap(), &mut sum).unwrap();
        unpacker.finish().unwrap();
        server.upload(member, over(included)).unwrap();
    }
    let (mut server, survivors) = server.close()?;
    let survivors = over(survivors);
    let mut states = BTreeMap::new();
    for (member, state) in masked.into_iter().filter(|(m, _)| goes_on(m, Step::Confirm)) {
        let Some((state, confirmation)) = stays(state.survivors(&survivors)) else { continue };
        server.confirm(member, over(confirmation)).unwrap();
        states.insert(member, state);
    }
    let (mut server, requests) = server.close()?;
    for (member, request) in requests.into_iter().filter(|(m, _)| goes_on(m, Step::Reveal)) {
        let reveal = states.remove(&member).unwrap().reveal(&over(request)).unwrap();
        assert_eq!(server.reveal(member, over(reveal)), Ok(None));
    }
    let complete = server.complete();
    let (culprits, unmasked) = server.close();
    assert_eq!(culprits, []);
    assert_eq!(unmasked.is_ok(), complete);
    let unmasked = unmasked?;
    unmasked.masks.add_to(&mut sum);
    let sum = sum.iter().map(|word| word & packing.modulus_mask()).collect();
    assert_eq!(unmasked.survivors.len(), survivors.members.len());
    Ok((sum, survivors.members))
}

fn sum_of(members: &[u32]) -> Vec<u32> {
    let mut sum = vec![0u32; WORDS];
    for member in members {
        for (sum, x) in sum.iter_mut().zip(vector(*member)) {
            *sum = (*sum + x) & 0xf_ffff;
        }
    }
    sum
}

#[test]
fn five_clients_lose_two_in_any_phases() {
    use Step::*;
    for first in [Share, Check, Upload, Confirm, Reveal] {
        for second in [Share, Check, Upload, Confirm, Reveal] {
            let drops = BTreeMap::from([(1, first), (4, second)]);
            let (sum, survivors) = run(&five(), 5, &drops).unwrap();
            let there = |member: &u32| drops.get(member).is_none_or(|step| *step > Upload);
            assert_eq!(survivors, (0..5).filter(there).collect::<Vec<_>>());
            assert_eq!(sum, sum_of(&survivors), "{drops:?}");
        }
    }
}

#[test]
fn a_hundred_clients_on_a_graph_lose_a_fifth_in_all_phases() {
    let session = session(Assumptions::new(0.2, 0.2));
    let steps = [Step::Share, Step::Check, Step::Upload, Step::Confirm, Step::Reveal];
    let drops = (0..20).map(|i| (i * 5 + i % 3, steps[i as usize % 5])).collect();
    let (sum, survivors) = run(&session, 100, &drops).unwrap();
    assert_eq!(survivors.len(), 88);
    assert_eq!(sum, sum_of(&survivors));
}

#[test]
fn a_client_alone_is_hidden_by_its_masks() {
    let (_, states) = checked(&five(), 5, &[]);
    for (member, (state, partners)) in states {
        let mut words = vector(member);
        state.partners(&partners, JOB).unwrap().0.mask(&mut words).unwrap();
        let same = words.iter().zip(vector(member)).filter(|(masked, x)| *masked == x).count();
        assert!(same < 3, "{same} of {WORDS} words are as they were");
    }
}

#[test]
fn masks_are_those_of_the_engines_masker() {
    use tern_engine::ops::masked::Masker;
    use tern_engine::{Data, Device, Pass, Vector};

    let device = Device::cpu();
    let n = 32 * 16;
    let mut session = five();
    session.packing = Packing::new(n, 32).unwrap();
    let (_, mut states) = checked(&session, 5, &[]);
    let (state, partners) = states.remove(&2).unwrap();
    let (masks, _) = state.partners(&partners, JOB).unwrap().0.into_masks();
    assert_eq!(masks.len(), 5);
    let mut expected: Vec<u32> = (0..n as u32).collect();
    let words = Vector::upload(&device, &Data::U32(expected.clone())).unwrap();
    let mut pass = Pass::new(&device);
    Masker::new(&masks).mask(&mut pass, &words).unwrap();
    pass.run().unwrap();
    masks.add_to(&mut expected);
    assert_eq!(words.read().unwrap(), Data::U32(expected));
}

fn step() -> impl Strategy<Value = Option<Step>> {
    prop_oneof![
        6 => Just(None),
        1 => Just(Some(Step::Share)),
        1 => Just(Some(Step::Check)),
        1 => Just(Some(Step::Upload)),
        1 => Just(Some(Step::Confirm)),
        1 => Just(Some(Step::Reveal)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn dropouts_up_to_the_threshold_give_exact_sums(
        steps in proptest::collection::vec(step(), 3..9),
        dropout in 0.0..0.5f64,
    ) {
        let n = steps.len();
        let session = session(Assumptions::new(0.0, dropout));
        let Ok(parameters) = Parameters::choose(n, &session.assumptions) else { return Ok(()) };
        let drops: BTreeMap<u32, Step> =
            steps.iter().enumerate().filter_map(|(i, s)| s.map(|s| (i as u32, s))).collect();
        let after = |step: Step| n - drops.values().filter(|last| **last <= step).count();
        let outcome = run(&session, n, &drops);
        let Parameters { threshold, survivors, .. } = parameters;
        if after(Step::Upload) >= survivors && after(Step::Reveal) >= threshold {
            let (sum, members) = outcome.unwrap();
            prop_assert_eq!(members.len(), after(Step::Upload));
            prop_assert_eq!(sum, sum_of(&members));
        } else {
            let typed = matches!(
                outcome,
                Err(Failure::TooFew { .. } | Failure::TooFewShares { .. })
            );
            prop_assert!(typed, "{:?}", outcome);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn on_a_sparse_graph_a_sum_is_exact_or_there_is_none(
        steps in proptest::collection::vec(step(), 40),
    ) {
        let drops: BTreeMap<u32, Step> =
            steps.iter().enumerate().filter_map(|(i, s)| s.map(|s| (i as u32, s))).take(5).collect();
        let session = sparse();
        let parameters = Parameters::choose(40, &session.assumptions).unwrap();
        prop_assert!(!parameters.all_pairs());
        match run(&session, 40, &drops) {
            Ok((sum, members)) => prop_assert_eq!(sum, sum_of(&members)),
            Err(Failure::TooFew { .. } | Failure::TooFewShares { .. }) => {}
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}

#[test]
fn names_for_metrics_are_distinct() {
    let aborts = [
        Abort::Replay { round: 1, attempt: 0, last: (1, 0) }.name(),
        Abort::OwnKeys.name(),
        Abort::Excluded.name(),
        Abort::WrongGraph { member: 1 }.name(),
        Abort::NothingHeld { member: 1 }.name(),
        Abort::WrongShare { member: 1, secret: Secret::OwnMask }.name(),
        Abort::BothShares { member: 1 }.name(),
    ];
    let refusals = [
        Refusal::Signature,
        Refusal::WeakKey,
        Refusal::Full { limit: 1 },
        Refusal::Changed,
        Refusal::NotExpected { member: 1 },
        Refusal::Receivers { have: 1, need: 2 },
        Refusal::Complaints,
        Refusal::Included { have: 1, need: 2 },
        Refusal::Revealed,
    ];
    let secret = Secret::PairKey;
    let failures = [
        Failure::Parameters(ParameterError::Members { members: 1 }),
        Failure::TooFew { phase: "came", have: 1, need: 2 },
        Failure::TooFewShares { member: 1, secret, have: 1, need: 2 },
        Failure::WrongShares { member: 1, secret },
    ];
    let (refusals, failures) = (refusals.map(|r| r.name()), failures.map(|f| f.name()));
    for names in [&aborts[..], &refusals, &failures] {
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        let word = |name: &&str| {
            !name.is_empty() && name.bytes().all(|b| b == b'_' || b.is_ascii_lowercase())
        };
        assert!(names.iter().all(word), "{names:?}");
    }
    let said = Failure::WrongShares { member: 1, secret }.to_string();
    assert!(said.contains("its pair key"), "{said}");
}
