//! A server that lies: each client leaves with the reason.

use super::*;

/// What a client answers to a roster that was tampered with.
fn to_roster(session: &Session, clients: usize, tamper: impl FnOnce(u32, &mut Roster)) -> Abort {
    let (_, mut roster, mut states) = rostered(session, clients);
    let (member, state) = states.pop_first().unwrap();
    tamper(member, &mut roster);
    state.roster(&roster).map(|_| ()).unwrap_err()
}

#[test]
fn a_session_is_joined_once() {
    let mut history = History::default();
    let mut join = |session: Session| {
        let seed = Seed::from_bytes([1; 32]);
        client::join(session, &identity(0), 1, seed, &mut history).map(|_| ())
    };
    join(five()).unwrap();
    let replay = Abort::Replay { round: 2, attempt: 1, last: (2, 1) };
    assert_eq!(join(five()), Err(replay.clone()));
    // The same round in other words is the same round.
    assert_eq!(join(sparse()), Err(replay));
    let earlier = Session { round: 1, attempt: 7, ..five() };
    assert_eq!(join(earlier), Err(Abort::Replay { round: 1, attempt: 7, last: (2, 1) }));
    join(Session { attempt: 2, ..five() }).unwrap();
}

#[test]
fn messages_of_another_session_are_of_no_use() {
    // The same clients with the same randomness in another attempt.
    let later = Session { attempt: 2, ..five() };
    let (_, mut roster, _) = rostered(&five(), 5);
    let (_, fresh, mut states) = rostered(&later, 5);
    assert_ne!(fresh, roster);
    // A replayed roster lacks the client's new keys; with them, the neighbors' are signed for
    // another session.
    let (_, state) = states.pop_first().unwrap();
    assert_eq!(state.roster(&roster).map(|_| ()).unwrap_err(), Abort::OwnKeys);
    let (member, state) = states.pop_first().unwrap();
    roster.members[member as usize] = fresh.members[member as usize].clone();
    let refused = state.roster(&roster).map(|_| ()).unwrap_err();
    assert_eq!(refused, Abort::Signature { member: 0 });
    // Replayed shares and signatures don't fit either.
    let (_, old) = shared(&five(), 5, &[]);
    let (_, mut new) = shared(&later, 5, &[]);
    let refused = new.remove(&3).unwrap().0.inbox(&old[&3].1).map(|_| ()).unwrap_err();
    assert_eq!(refused, Abort::Signature { member: 0 });
    let (_, old) = confirmed(&five(), 5, &[], &[]);
    let (_, mut new) = confirmed(&later, 5, &[], &[]);
    let refused = new.remove(&3).unwrap().0.reveal(&old[&3].1).unwrap_err();
    assert_eq!(refused, Abort::Signature { member: 0 });
}

#[test]
fn rosters_that_are_tampered_with() {
    let five = five();
    let abort = to_roster(&five, 5, |_, roster| roster.members.swap(2, 3));
    assert_eq!(abort, Abort::Unordered { member: 3 });
    let twice = |_, roster: &mut Roster| roster.members.insert(2, roster.members[1].clone());
    assert_eq!(to_roster(&five, 5, twice), Abort::Unordered { member: 2 });
    let without = |member, roster: &mut Roster| {
        roster.members.remove(member as usize);
    };
    assert_eq!(to_roster(&five, 5, without), Abort::OwnKeys);
    let other_keys = |member, roster: &mut Roster| roster.members[member as usize].pair = [9; 32];
    assert_eq!(to_roster(&five, 5, other_keys), Abort::OwnKeys);
    // The server's key in the place of a neighbor's, for shares or for masks.
    let cipher = |_, roster: &mut Roster| roster.members[3].cipher = roster.members[2].cipher;
    assert_eq!(to_roster(&five, 5, cipher), Abort::Signature { member: 3 });
    let pair = |_, roster: &mut Roster| roster.members[3].pair = roster.members[2].pair;
    assert_eq!(to_roster(&five, 5, pair), Abort::Signature { member: 3 });
    let few = to_roster(&five, 5, |_, roster| roster.members.truncate(2));
    assert_eq!(few, Abort::Parameters(ParameterError::Members { members: 2 }));
}

#[test]
fn keys_of_low_order() {
    // A corrupt client signs a key of which nothing secret comes, and the server passes it on.
    use ed25519_dalek::Signer;
    for field in 0..2 {
        let abort = to_roster(&five(), 5, |_, roster| {
            let keys = &mut roster.members[3];
            let is_signer = |key: &SigningKey| key.verifying_key().to_bytes() == keys.identity;
            let signer = (0..5).map(identity).find(is_signer).unwrap();
            *[&mut keys.cipher, &mut keys.pair][field] = [0; 32];
            let said = [&b"tern secagg keys\0"[..], &five().id(), &keys.signed_part()].concat();
            keys.signature = signer.sign(&said).to_bytes();
        });
        assert_eq!(abort, Abort::WeakKey { member: 3 });
    }
}

/// What a client answers to an inbox that was tampered with.
fn to_inbox(session: &Session, clients: usize, tamper: impl FnOnce(u32, &mut Inbox)) -> Abort {
    let (_, mut states) = shared(session, clients, &[]);
    let (member, (state, mut inbox)) = states.pop_last().unwrap();
    tamper(member, &mut inbox);
    state.inbox(&inbox).map(|_| ()).unwrap_err()
}

#[test]
fn a_wrong_graph() {
    // The server routes shares by a graph of its own: they come from no neighbor.
    let mut stranger = 0;
    let abort = to_inbox(&sparse(), 40, |member, inbox| {
        let from: BTreeSet<u32> = inbox.envelopes.iter().map(|e| e.member).collect();
        stranger = (0..40).find(|other| *other != member && !from.contains(other)).unwrap();
        inbox.envelopes[0].member = stranger;
    });
    assert_eq!(abort, Abort::WrongGraph { member: stranger });
}

#[test]
fn rosters_that_differ() {
    // One client is told of a sixth member, the others aren't: their graphs differ, and what
    // they signed on the one isn't signed on the other. It's no reason to complain.
    let (_, roster, mut states) = rostered(&five(), 6);
    let mut fewer = roster.clone();
    fewer.members.pop();
    states.remove(&5);
    let (state, _) = states.remove(&0).unwrap().roster(&roster).unwrap();
    let mut inbox = Inbox { envelopes: Vec::new() };
    for (from, state) in states {
        let (_, shares) = state.roster(&fewer).unwrap();
        let to_first = shares.envelopes.into_iter().find(|envelope| envelope.member == 0).unwrap();
        inbox.envelopes.push(Envelope { member: from, ..to_first });
    }
    assert_eq!(state.inbox(&inbox).map(|_| ()).unwrap_err(), Abort::Signature { member: 1 });
}

#[test]
fn inboxes_that_are_tampered_with() {
    let five = five();
    let abort = to_inbox(&five, 5, |_, inbox| inbox.envelopes[1].member = 5);
    assert_eq!(abort, Abort::Unknown { member: 5, members: 5 });
    let abort = to_inbox(&five, 5, |_, inbox| inbox.envelopes[1].member = 0);
    assert_eq!(abort, Abort::Duplicate { member: 0 });
    // Its own number is no neighbor's.
    let abort = to_inbox(&five, 5, |member, inbox| inbox.envelopes[1].member = member);
    assert_eq!(abort, Abort::WrongGraph { member: 4 });
    for byte in [0, 39, 79, 95] {
        let abort = to_inbox(&five, 5, |_, inbox| inbox.envelopes[2].sealed[byte] ^= 1);
        assert_eq!(abort, Abort::Signature { member: 2 });
    }
    // One neighbor's shares said to be another's.
    let abort = to_inbox(&five, 5, |_, inbox| {
        inbox.envelopes[0].sealed = inbox.envelopes[1].sealed;
    });
    assert_eq!(abort, Abort::Signature { member: 0 });
    // Commitments to other shares.
    let abort = to_inbox(&five, 5, |_, inbox| inbox.envelopes[3].own[0] ^= 1);
    assert_eq!(abort, Abort::Signature { member: 3 });
}

/// What client 4 answers to partners that were tampered with, after client 0 didn't share.
fn to_partners(session: &Session, clients: usize, named: &[u32]) -> Abort {
    let (_, mut states) = checked(session, clients, &[0]);
    let (state, _) = states.remove(&4).unwrap();
    state.partners(&Partners { members: named.to_vec() }, JOB).map(|_| ()).unwrap_err()
}

#[test]
fn partners_that_are_tampered_with() {
    let five = five();
    assert_eq!(to_partners(&five, 5, &[1, 5]), Abort::Unknown { member: 5, members: 5 });
    assert_eq!(to_partners(&five, 5, &[1, 1, 2]), Abort::Duplicate { member: 1 });
    assert_eq!(to_partners(&five, 5, &[1, 2, 4]), Abort::WrongGraph { member: 4 });
    // One that is dead, for which no share could be taken away.
    assert_eq!(to_partners(&five, 5, &[0, 1, 2]), Abort::NothingHeld { member: 0 });
    assert_eq!(to_partners(&five, 5, &[1]), Abort::TooFewHolders { have: 2, need: 3 });
}

#[test]
fn shares_meant_for_another() {
    let (_, mut states) = shared(&five(), 5, &[]);
    let (state, mut inbox) = states.remove(&4).unwrap();
    inbox.envelopes[0].sealed = states[&3].1.envelopes[0].sealed;
    let refused = state.inbox(&inbox).map(|_| ()).unwrap_err();
    assert_eq!(refused, Abort::Signature { member: 0 });
}

/// What client 2 answers to a set of survivors, after client 0 didn't share.
fn to_survivors(session: &Session, clients: usize, set: &[u32]) -> Abort {
    let (_, _, mut states) = uploaded(session, clients, &[0], &[]);
    let survivors = Survivors { members: set.to_vec() };
    states.remove(&2).unwrap().survivors(&survivors).map(|_| ()).unwrap_err()
}

#[test]
fn survivors_that_are_tampered_with() {
    let five = five();
    // Shrunk below the session's least.
    let shrunk = Abort::TooFewSurvivors { have: 2, need: 3 };
    assert_eq!(to_survivors(&five, 5, &[2, 3]), shrunk);
    assert_eq!(to_survivors(&five, 5, &[1, 3, 4]), Abort::Excluded);
    let unknown = Abort::Unknown { member: 5, members: 5 };
    assert_eq!(to_survivors(&five, 5, &[1, 2, 3, 5]), unknown);
    // Padded with one named twice.
    assert_eq!(to_survivors(&five, 5, &[2, 3, 3]), Abort::Duplicate { member: 3 });
    // Padded with one that is dead.
    assert_eq!(to_survivors(&five, 5, &[0, 2, 3]), Abort::DeadNamedAlive { member: 0 });
}

#[test]
fn survivors_without_enough_neighbors() {
    let session = sparse();
    let (_, _, mut states) = uploaded(&session, 40, &[], &[]);
    let (_, roster, _) = rostered(&session, 40);
    let cohort = session::Cohort::new(&session, &roster).unwrap();
    let Parameters { threshold, survivors, neighbors, .. } = cohort.parameters;
    let around = cohort.graph.neighbors(2);
    let gone = &around[..neighbors + 2 - threshold];
    let set: Vec<u32> = (0..40).filter(|member| !gone.contains(member)).collect();
    assert!(set.len() >= survivors);
    let refused = states.remove(&2).unwrap().survivors(&Survivors { members: set });
    let expected = Abort::TooFewHolders { have: threshold - 1, need: threshold };
    assert_eq!(refused.map(|_| ()).unwrap_err(), expected);
}

/// What client 2 answers to a request, after client 0 didn't share and client 1 dropped out.
fn to_request(tamper: impl FnOnce(&mut Request)) -> Result<Reveal, Abort> {
    let (_, mut states) = confirmed(&five(), 5, &[0], &[1]);
    let (state, mut request) = states.remove(&2).unwrap();
    assert_eq!((&request.own_masks[..], &request.pair_keys[..]), (&[2, 3, 4][..], &[1][..]));
    tamper(&mut request);
    state.reveal(&request)
}

#[test]
fn requests_that_are_tampered_with() {
    let reveal = to_request(|_| ()).unwrap();
    assert_eq!((reveal.own_masks.len(), reveal.pair_keys.len()), (3, 1));
    // Both secrets of a survivor, and of a dropped client.
    let abort = to_request(|request| request.pair_keys.push(3));
    assert_eq!(abort, Err(Abort::BothShares { member: 3 }));
    let abort = to_request(|request| request.own_masks.push(1));
    assert_eq!(abort, Err(Abort::BothShares { member: 1 }));
    // The one secret that the set forbids.
    let abort = to_request(|request| {
        request.own_masks.retain(|member| *member != 3);
        request.pair_keys.push(3);
    });
    assert_eq!(abort, Err(Abort::WrongShare { member: 3, secret: Secret::PairKey }));
    let abort = to_request(|request| {
        request.own_masks.push(1);
        request.pair_keys.clear();
    });
    assert_eq!(abort, Err(Abort::WrongShare { member: 1, secret: Secret::OwnMask }));
    // Its own pair key.
    let abort = to_request(|request| {
        request.own_masks.retain(|member| *member != 2);
        request.pair_keys.push(2);
    });
    assert_eq!(abort, Err(Abort::WrongShare { member: 2, secret: Secret::PairKey }));
    // Someone twice, someone unknown, someone who never shared.
    let abort = to_request(|request| request.own_masks.push(3));
    assert_eq!(abort, Err(Abort::Duplicate { member: 3 }));
    let abort = to_request(|request| request.pair_keys.push(1));
    assert_eq!(abort, Err(Abort::Duplicate { member: 1 }));
    let abort = to_request(|request| request.pair_keys.push(9));
    assert_eq!(abort, Err(Abort::Unknown { member: 9, members: 5 }));
    let abort = to_request(|request| request.pair_keys.push(0));
    assert_eq!(abort, Err(Abort::NothingHeld { member: 0 }));
}

#[test]
fn requests_for_others_than_neighbors() {
    let (_, mut states) = confirmed(&sparse(), 40, &[], &[]);
    let (state, mut request) = states.remove(&2).unwrap();
    let stranger = (0..40).find(|other| !request.own_masks.contains(other)).unwrap();
    request.own_masks.push(stranger);
    assert_eq!(state.reveal(&request), Err(Abort::WrongGraph { member: stranger }));
}

#[test]
fn confirmations_that_are_tampered_with() {
    let abort = to_request(|request| request.confirmations.clear());
    assert_eq!(abort, Err(Abort::TooFewSignatures { have: 1, need: 3 }));
    let abort = to_request(|request| request.confirmations[0].1[5] ^= 1);
    assert_eq!(abort, Err(Abort::Signature { member: 3 }));
    // One signature twice, to reach the threshold.
    let abort = to_request(|request| request.confirmations[1] = request.confirmations[0]);
    assert_eq!(abort, Err(Abort::Duplicate { member: 3 }));
    // Its own as another's.
    let abort = to_request(|request| request.confirmations[0].0 = 2);
    assert_eq!(abort, Err(Abort::WrongGraph { member: 2 }));
    // The signature of one who isn't a survivor.
    let abort = to_request(|request| request.confirmations[0].0 = 1);
    assert_eq!(abort, Err(Abort::Signature { member: 1 }));
}

#[test]
fn two_sets_of_survivors() {
    // Clients 0, 1 and 2 are told that client 4 dropped out, 3 and 4 that everyone is there.
    let (_, requests) = confirmed(&five(), 5, &[], &[]);
    // What everybody signed for client 0, which is asked in the end.
    let fewer_included = requests[&0].1.included.clone();
    let (_, _, states) = uploaded(&five(), 5, &[], &[]);
    let (all, fewer) = (vec![0, 1, 2, 3, 4], vec![0, 1, 2, 3]);
    let mut told = BTreeMap::new();
    for (member, state) in states {
        let members = if member < 3 { fewer.clone() } else { all.clone() };
        told.insert(member, state.survivors(&Survivors { members }).unwrap());
    }
    let signature = |member: u32| (member, told[&member].1.signature);
    let included = fewer_included;
    let request = |from: &[u32], own: &[u32], pair: &[u32]| Request {
        confirmations: from.iter().map(|member| signature(*member)).collect(),
        included: included.clone(),
        own_masks: own.to_vec(),
        pair_keys: pair.to_vec(),
    };
    // Those of the larger set have too few signatures of their own set, and others don't fit.
    let with_their_own = request(&[4], &all, &[]);
    let with_others = request(&[0, 1, 4], &all, &[]);
    let of_the_fewer = request(&[1, 2], &fewer, &[4]);
    let (state, _) = told.remove(&3).unwrap();
    let expected = Abort::TooFewSignatures { have: 2, need: 3 };
    assert_eq!(state.reveal(&with_their_own), Err(expected));
    let (state, _) = told.remove(&0).unwrap();
    assert!(state.reveal(&of_the_fewer).is_ok());
    let with_others = Request {
        confirmations: with_others.confirmations.into_iter().filter(|(m, _)| *m != 4).collect(),
        ..with_others
    };
    let (state, _) = told.remove(&4).unwrap();
    assert_eq!(state.reveal(&with_others), Err(Abort::Signature { member: 0 }));
}

/// What client 4 answers to a request for the shares of everyone's own mask, after the server kept
/// it from client 0's partners: the two share no mask, but 4 holds a share of 0's own.
fn to_the_withheld(tamper: impl FnOnce(&mut Request, &[Included])) -> Result<Reveal, Abort> {
    let (mut server, states) = checked(&five(), 5, &[]);
    let (mut masked, mut signed) = (BTreeMap::new(), Vec::new());
    for (member, (state, mut partners)) in states {
        if member == 0 {
            partners.members.retain(|member| *member != 4);
        }
        let (state, included) = state.partners(&partners, JOB).unwrap();
        masked.insert(member, state.mask(&mut vector(member)).unwrap());
        // The honest part of the server would not go on with this.
        let expected = Err(Refusal::Included { have: 3, need: 4 });
        assert_eq!(server.check(member, &included), if member == 0 { expected } else { Ok(()) });
        server.note(member, included.clone());
        signed.push(included);
    }
    let (mut server, survivors) = server.close().unwrap();
    let mut confirmed = BTreeMap::new();
    // Client 0 is told of nobody: it would miss 4's shares.
    masked.remove(&0);
    for (member, state) in masked {
        let (state, confirmation) = state.survivors(&survivors).unwrap();
        server.confirm(member, confirmation).unwrap();
        confirmed.insert(member, state);
    }
    let (_, requests) = server.close().unwrap();
    let (_, mut request) = requests.into_iter().find(|(member, _)| *member == 4).unwrap();
    assert_eq!(request.own_masks, [0, 1, 2, 3, 4]);
    tamper(&mut request, &signed);
    confirmed.remove(&4).unwrap().reveal(&request)
}

#[test]
fn shares_that_were_kept_from_a_neighbor() {
    let not_included = Err(Abort::NotIncluded { member: 0 });
    assert_eq!(to_the_withheld(|_, _| ()), not_included);
    // A signature of the same client for another, or of another client for this one.
    let for_another = to_the_withheld(|request, signed| {
        request.included.push((0, signed[0].signatures[2].1));
    });
    assert_eq!(for_another, not_included);
    let of_another =
        to_the_withheld(|request, _| request.included.push((0, request.included[0].1)));
    assert_eq!(of_another, not_included);
    // Those who share masks with it are served.
    let reveal = to_the_withheld(|request, _| request.own_masks.retain(|member| *member != 0));
    assert_eq!(reveal.unwrap().own_masks.len(), 4);
}

/// Everybody's answer to a request for the shares of all own masks, after client 0 was told of
/// another job than the others, and a server that doesn't mind passes everything on.
fn jobs_that_differ() -> Vec<Result<Reveal, Abort>> {
    let (mut server, states) = checked(&five(), 5, &[]);
    let (mut masked, mut signed) = (Vec::new(), Vec::new());
    for (member, (state, partners)) in states {
        let job = if member == 0 { [7; 32] } else { JOB };
        let (state, included) = state.partners(&partners, job).unwrap();
        masked.push(state.mask(&mut vector(member)).unwrap());
        let checked = server.check(member, &included);
        assert_eq!(checked, if member == 0 { Err(Refusal::Signature) } else { Ok(()) });
        server.note(member, included.clone());
        signed.push(included);
    }
    let (_, survivors) = server.close().unwrap();
    let confirmed: Vec<_> =
        masked.into_iter().map(|state| state.survivors(&survivors).unwrap()).collect();
    let signatures: Vec<_> = (0..).zip(&confirmed).map(|(m, (_, c))| (m, c.signature)).collect();
    let answer = |(member, (state, _)): (u32, (client::Confirmed, Confirmation))| {
        let others = |of: &u32| *of != member;
        // Whose signatures the client would believe, if there are enough of them.
        let believed = |of: &u32| others(of) && (member == 0 || *of != 0);
        let included = (0..5).filter(others).map(|of| {
            let to_me = |(to, _): &&(u32, [u8; 64])| *to == member;
            (of, signed[of as usize].signatures.iter().find(to_me).unwrap().1)
        });
        state.reveal(&Request {
            confirmations: (0..5).filter(believed).map(|of| signatures[of as usize]).collect(),
            included: included.collect(),
            own_masks: (0..5).collect(),
            pair_keys: Vec::new(),
        })
    };
    (0..).zip(confirmed).map(answer).collect()
}

#[test]
fn a_job_of_ones_own() {
    let answers = jobs_that_differ();
    assert_eq!(answers[0], Err(Abort::Signature { member: 1 }), "nobody signed its sum");
    for answer in &answers[1..] {
        assert_eq!(*answer, Err(Abort::NotIncluded { member: 0 }));
    }
}

#[test]
fn vectors_of_another_length() {
    let (_, mut states) = checked(&five(), 5, &[]);
    let (state, partners) = states.remove(&1).unwrap();
    let refused = state.partners(&partners, JOB).unwrap().0.mask(&mut [0; WORDS + 1]).map(|_| ());
    assert_eq!(refused.unwrap_err(), Abort::Length { words: WORDS + 1, expected: WORDS });
}
