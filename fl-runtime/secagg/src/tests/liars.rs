//! Clients that break the protocol where it shows: who they are is found, the honest are never
//! named, and the sum is that of those who are left.

use super::*;
use crate::keys::{Held, Secrets, confirm};
use crate::session::Cohort;

/// What a client does.
#[derive(Clone, Copy, Debug)]
enum Lie {
    /// Sends envelopes that don't open.
    Garbage,
    /// Sends envelopes with other shares than they commit to.
    Uncommitted,
    /// Deals shares to the first so many neighbors that don't belong to its secrets.
    Deals(usize),
    /// Deals all of them shares of other secrets.
    DealsAnother,
    /// Complains without anything to show.
    Accuses,
    /// Complains and shows that the envelope is as it should be.
    Shows,
    /// Reveals shares that it wasn't dealt.
    Reveals,
    /// Says nothing from a step on.
    Silent(Step),
}

/// Signs an envelope again, after it was changed.
pub(super) fn resign(session: &Session, roster: &Roster, from: u32, envelope: &mut Envelope) {
    let cohort = Cohort::new(session, roster).unwrap();
    let statement = cohort.envelope((from, envelope.member), envelope);
    envelope.signature = confirm(&key_of(roster, from), &statement);
}

/// What a member drew, which the tests' seeds tell.
fn secrets(session: &Session, roster: &Roster, member: u32) -> Secrets {
    let key = key_of(roster, member).to_bytes();
    Secrets::new(Seed::from_bytes([key[0] + 99; 32]), &session.id())
}

fn share(limb: u8) -> Share {
    let mut bytes = [0; Share::BYTES];
    bytes[0] = limb;
    Share::from_bytes(&bytes).unwrap()
}

fn tamper(session: &Session, roster: &Roster, from: u32, lie: Lie, shares: &mut Shares) {
    let cohort = Cohort::new(session, roster).unwrap();
    for (at, envelope) in shares.envelopes.iter_mut().enumerate() {
        let pair = (from, envelope.member);
        let mut deal = |pair_share, own| {
            let held = Held { pair: pair_share, own };
            let secrets = secrets(session, roster, from);
            *envelope = secrets.seal(&cohort, pair, &held, &key_of(roster, from)).unwrap();
        };
        match lie {
            Lie::Garbage => envelope.sealed[at] ^= 1,
            Lie::Uncommitted => [&mut envelope.pair, &mut envelope.own][at % 2][at % 16] ^= 1,
            Lie::Deals(count) if at < count => deal(share(at as u8), share(50 + at as u8)),
            // The same for all are shares of a secret, by a constant polynomial.
            Lie::DealsAnother => deal(share(1), share(50)),
            _ => {}
        }
        resign(session, roster, from, envelope);
    }
}

/// A complaint about the first envelope that is as it should be.
fn accuse(
    session: &Session,
    roster: &Roster,
    by: u32,
    inbox: &Inbox,
    lies: &BTreeMap<u32, Lie>,
) -> Complaints {
    let cohort = Cohort::new(session, roster).unwrap();
    let honest = |envelope: &&Envelope| !lies.contains_key(&envelope.member);
    let mut envelope = inbox.envelopes.iter().find(honest).unwrap().clone();
    envelope.sealed[0] ^= 1;
    let secrets = secrets(session, roster, by);
    let shown = secrets.open(&cohort, (envelope.member, by), &envelope).unwrap();
    Complaints { complaints: vec![shown.err().unwrap()] }
}

struct Ended {
    outcome: Result<Vec<u32>, Failure>,
    survivors: Vec<u32>,
    culprits: BTreeMap<u32, Fault>,
}

/// A session in which some lie.
fn run(session: &Session, clients: usize, lies: &BTreeMap<u32, Lie>) -> Ended {
    let stays = |member: u32, step| match lies.get(&member) {
        Some(Lie::Silent(last)) => *last > step,
        _ => true,
    };
    let mut culprits = BTreeMap::new();
    let (mut server, roster, states) = rostered(session, clients);
    let mut sharing = BTreeMap::new();
    for (member, state) in states.into_iter().filter(|(m, _)| stays(*m, Step::Share)) {
        let (state, mut shares) = state.roster(&roster).unwrap();
        if let Some(lie) = lies.get(&member) {
            tamper(session, &roster, member, *lie, &mut shares);
        }
        server.share(member, shares).unwrap();
        sharing.insert(member, state);
    }
    let (mut server, inboxes) = server.close().unwrap();
    let mut checked = BTreeMap::new();
    for (member, inbox) in inboxes.into_iter().filter(|(m, _)| stays(*m, Step::Check)) {
        let (state, mut complaints) = sharing.remove(&member).unwrap().inbox(&inbox).unwrap();
        if let Some(Lie::Accuses | Lie::Shows) = lies.get(&member) {
            complaints = accuse(session, &roster, member, &inbox, lies);
        }
        if let Some(Lie::Accuses) = lies.get(&member) {
            complaints.complaints[0].proof[40] ^= 1;
        }
        checked.insert(member, state);
        match server.check(member, complaints) {
            Ok(found) => culprits.extend(found.iter().map(|found| (found.member, found.fault))),
            // Found out before it came.
            Err(refused) => {
                assert_eq!(refused, Refusal::NotExpected { member });
                assert!(culprits.contains_key(&member));
            }
        }
    }
    let (mut server, partners) = server.close(JOB).unwrap();
    let mut sum = vec![0; session.packing.words()];
    let mut masked = BTreeMap::new();
    for (member, partners) in partners.into_iter().filter(|(m, _)| stays(*m, Step::Upload)) {
        let (state, included) = checked.remove(&member).unwrap().partners(&partners, JOB).unwrap();
        let mut words = vector(member);
        masked.insert(member, state.mask(&mut words).unwrap());
        sum.iter_mut().zip(words).for_each(|(sum, word)| *sum += word);
        server.upload(member, included).unwrap();
    }
    let (mut server, survivors) = server.close().unwrap();
    let mut states = BTreeMap::new();
    for (member, state) in masked.into_iter().filter(|(m, _)| stays(*m, Step::Confirm)) {
        let (state, confirmation) = state.survivors(&survivors).unwrap();
        server.confirm(member, confirmation).unwrap();
        states.insert(member, state);
    }
    let (mut server, requests) = server.close().unwrap();
    for (member, request) in requests.into_iter().filter(|(m, _)| stays(*m, Step::Reveal)) {
        let mut reveal = states.remove(&member).unwrap().reveal(&request).unwrap();
        if let Some(Lie::Reveals) = lies.get(&member) {
            reveal.own_masks.rotate_left(1);
        }
        let found = server.reveal(member, reveal).unwrap();
        culprits.extend(found.map(|found| (found.member, found.fault)));
    }
    let (found, unmasked) = server.close();
    culprits.extend(found.iter().map(|found| (found.member, found.fault)));
    let outcome = unmasked.map(|unmasked| {
        unmasked.masks.add_to(&mut sum);
        sum.iter().map(|word| word & session.packing.modulus_mask()).collect()
    });
    Ended { outcome, survivors: survivors.members, culprits }
}

/// Ten clients, of which two may lie and two drop out: seven shares give a secret.
fn ten() -> Session {
    let ten = session(Assumptions::new(0.2, 0.2));
    assert_eq!(Parameters::choose(10, &ten.assumptions).unwrap().threshold, 7);
    ten
}

fn without(members: &[u32]) -> Vec<u32> {
    (0..10).filter(|member| !members.contains(member)).collect()
}

#[test]
fn those_who_lie_about_envelopes_are_out_before_masks_are_shared() {
    for (lie, fault) in [
        (Lie::Garbage, Fault::Envelope { to: 0 }),
        (Lie::Uncommitted, Fault::Envelope { to: 0 }),
        (Lie::Accuses, Fault::Complaint { of: 0 }),
        (Lie::Shows, Fault::Complaint { of: 0 }),
    ] {
        let ended = run(&ten(), 10, &BTreeMap::from([(3, lie), (8, lie)]));
        assert_eq!(ended.culprits, BTreeMap::from([(3, fault), (8, fault)]), "{lie:?}");
        assert_eq!(ended.survivors, without(&[3, 8]));
        assert_eq!(ended.outcome.unwrap(), sum_of(&without(&[3, 8])));
    }
}

#[test]
fn liars_at_the_reveal_count_as_silent() {
    // Whoever they are, next to each other or not: seven of ten are enough.
    for liars in [[3, 4, 5], [0, 4, 8]] {
        let lies = liars.map(|member| (member, Lie::Reveals)).into();
        let ended = run(&ten(), 10, &lies);
        assert!(ended.culprits.keys().eq(&liars), "{:?}", ended.culprits);
        let (of, secret) = (0, Secret::OwnMask);
        assert_eq!(ended.culprits[&liars[1]], Fault::Share { of, secret });
        assert_eq!(ended.outcome.unwrap(), sum_of(&without(&[])));
    }
    let lies = [1, 3, 5, 7].map(|member| (member, Lie::Reveals)).into();
    let ended = run(&ten(), 10, &lies);
    let failed = Failure::TooFewShares { member: 0, secret: Secret::OwnMask, have: 6, need: 7 };
    assert_eq!((ended.outcome, ended.culprits.len()), (Err(failed), 4));
}

#[test]
fn shares_that_were_dealt_wrong_are_put_right_up_to_the_bound() {
    let secret = Secret::OwnMask;
    // Three of ten shares are to spare, so that one may be wrong.
    let ended = run(&ten(), 10, &BTreeMap::from([(6, Lie::Deals(1))]));
    assert_eq!(ended.outcome.unwrap(), sum_of(&without(&[])));
    assert_eq!(ended.culprits, BTreeMap::from([(6, Fault::Dealt { secret })]));
    // With two there is no sum; whose fault it is is known. Holders are never named.
    let ended = run(&ten(), 10, &BTreeMap::from([(6, Lie::Deals(2))]));
    assert_eq!(ended.outcome, Err(Failure::WrongShares { member: 6, secret }));
    assert_eq!(ended.culprits, BTreeMap::from([(6, Fault::Dealt { secret })]));
    let ended = run(&ten(), 10, &BTreeMap::from([(6, Lie::Deals(9))]));
    assert_eq!(ended.outcome, Err(Failure::WrongShares { member: 6, secret }));
    // Where all are shares of something else, its commitment tells.
    let ended = run(&ten(), 10, &BTreeMap::from([(6, Lie::DealsAnother)]));
    assert_eq!(ended.outcome, Err(Failure::WrongShares { member: 6, secret }));
    assert_eq!(ended.culprits, BTreeMap::from([(6, Fault::Dealt { secret })]));
}

#[test]
fn a_complaint_lays_open_one_pair_of_envelopes() {
    // What a complaint shows opens nothing between others.
    let (session, (_, roster, _)) = (ten(), rostered(&ten(), 10));
    let cohort = Cohort::new(&session, &roster).unwrap();
    let held = || Held { pair: share(1), own: share(2) };
    let sealed = |from, to| {
        let secrets = secrets(&session, &roster, from);
        secrets.seal(&cohort, (from, to), &held(), &key_of(&roster, from)).unwrap()
    };
    let (good, mut garbage) = (sealed(4, 7), sealed(4, 7));
    garbage.sealed[0] ^= 1;
    let complaint = secrets(&session, &roster, 7).open(&cohort, (4, 7), &garbage).unwrap();
    let complaint = complaint.err().unwrap();
    let right = |pair, envelope| keys::is_garbage(&cohort, pair, envelope, &complaint);
    assert!(right((4, 7), &garbage) && !right((4, 7), &good));
    // It is about these two, in this direction, in this session.
    for pair in [(7, 4), (4, 6), (6, 7)] {
        assert!(!right(pair, &garbage), "{pair:?}");
    }
    let later = Cohort::new(&Session { attempt: 2, ..session.clone() }, &roster).unwrap();
    assert!(!keys::is_garbage(&later, (4, 7), &garbage, &complaint));
}

#[test]
fn complaints_that_make_no_sense_are_refused() {
    let (mut server, mut states) = shared(&five(), 5, &[0]);
    let (_, inbox) = states.remove(&1).unwrap();
    let about = |members: &[u32]| {
        let one = |member: &u32| Complaint { member: *member, shared: [1; 32], proof: [2; 64] };
        Complaints { complaints: members.iter().map(one).collect() }
    };
    assert_eq!(inbox.envelopes.len(), 3);
    for members in [&[0][..], &[1], &[5], &[3, 2], &[2, 2]] {
        assert_eq!(server.check(1, about(members)), Err(Refusal::Complaints), "{members:?}");
    }
    assert_eq!(server.check(0, about(&[])), Err(Refusal::NotExpected { member: 0 }));
    assert_eq!(server.check(2, about(&[])), Ok(Vec::new()));
    assert_eq!(server.check(2, about(&[])), Ok(Vec::new()));
    assert_eq!(server.check(2, about(&[3])), Err(Refusal::Changed));
    let fault = Fault::Complaint { of: 3 };
    assert_eq!(server.check(1, about(&[3, 4])), Ok(vec![Culprit { member: 1, fault }]));
    assert_eq!(server.check(1, about(&[3, 4])), Err(Refusal::NotExpected { member: 1 }));
    let failed = server.close(JOB).map(|_| ()).unwrap_err();
    assert_eq!(failed, Failure::TooFew { phase: "checked their shares", have: 1, need: 3 });
}

#[test]
fn a_sum_of_too_few_honest_clients_is_refused() {
    // Nobody is said to be corrupt, and one of three may drop out: a sum of two, in which a
    // corrupt client reads the other. The honest client leaves before it shares anything.
    let three = |honest| session(Assumptions { honest, ..Assumptions::new(0.0, 0.34) });
    let (_, roster, mut states) = rostered(&three(2), 3);
    let exposed = |honest| ParameterError::Exposed {
        members: 3,
        corrupt: 0,
        dropped: 1,
        survivors: 2,
        honest,
    };
    assert!(states.remove(&0).unwrap().roster(&roster).is_ok());
    let join = |client: usize| {
        let seed = Seed::from_bytes([client as u8 + 100; 32]);
        client::join(three(HONEST), &identity(client), 7, seed, &mut History::default()).unwrap()
    };
    let (mut clients, mut members): (Vec<_>, Vec<_>) = (0..3).map(join).unzip();
    members.sort_by_key(|keys| keys.identity);
    let refused = clients.remove(0).roster(&Roster { members }).map(|_| ()).unwrap_err();
    assert_eq!(refused, Abort::Parameters(exposed(HONEST)));
    // It is survivors less the corrupt that count, not the roster.
    let choose = |members, corrupt, dropout| {
        Parameters::choose(members, &Assumptions::new(corrupt, dropout)).err()
    };
    assert_eq!(choose(3, 0.0, 0.0), None);
    assert!(matches!(choose(3, 0.2, 0.0), Some(ParameterError::Exposed { corrupt: 1, .. })));
    assert!(matches!(choose(100, 0.48, 0.5), Some(ParameterError::Exposed { .. })));
    assert_eq!(choose(10, 0.2, 0.2), None);
}

fn lie() -> impl Strategy<Value = Lie> {
    use Step::*;
    prop_oneof![
        Just(Lie::Garbage),
        Just(Lie::Uncommitted),
        Just(Lie::Deals(1)),
        Just(Lie::Accuses),
        Just(Lie::Shows),
        Just(Lie::Reveals),
        prop_oneof![Just(Share), Just(Check), Just(Upload), Just(Confirm), Just(Reveal)]
            .prop_map(Lie::Silent),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn a_fifth_that_lies_in_any_way_stops_no_session(
        (clients, liars) in (10usize..20).prop_flat_map(|n| {
            (Just(n), prop::collection::btree_map(0..n as u32, lie(), n / 5))
        }),
    ) {
        let session = session(Assumptions::new(0.2, 0.2));
        let ended = run(&session, clients, &liars);
        prop_assert_eq!(ended.outcome.unwrap(), sum_of(&ended.survivors), "{:?}", liars);
        for member in 0..clients as u32 {
            let Some(lie) = liars.get(&member) else {
                prop_assert!(ended.survivors.contains(&member));
                prop_assert!(!ended.culprits.contains_key(&member));
                continue;
            };
            // Not named are the silent, and those whose one wrong share nobody needed.
            let unseen = matches!(lie, Lie::Silent(_) | Lie::Deals(_));
            prop_assert!(unseen || ended.culprits.contains_key(&member), "{:?}", lie);
        }
    }
}
