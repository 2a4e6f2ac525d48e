//! Clients that lie or repeat themselves: what the server doesn't take, and what it survives.

use super::liars::resign;
use super::*;

#[test]
fn keys() {
    let (mut server, _) = advertised(&five(), 3);
    let history = &mut History::default();
    let seed = |byte| Seed::from_bytes([byte; 32]);
    let (_, keys) = client::join(five(), &identity(7), 1, seed(1), history).unwrap();
    server.advertise(keys.clone()).unwrap();
    // Again is no harm; other keys are.
    server.advertise(keys.clone()).unwrap();
    assert_eq!(server.members(), 4);
    let (_, others) =
        client::join(five(), &identity(7), 1, seed(2), &mut History::default()).unwrap();
    assert_eq!(server.advertise(others), Err(Refusal::Changed));
    // Not signed: of another session, under another identity, changed.
    let later = Session { round: 3, ..five() };
    let (_, late) = client::join(later, &identity(8), 1, seed(1), history).unwrap();
    assert_eq!(server.advertise(late), Err(Refusal::Signature));
    let stolen = Advertisement { identity: identity(8).verifying_key().to_bytes(), ..keys.clone() };
    assert_eq!(server.advertise(stolen), Err(Refusal::Signature));
    let changed = Advertisement { commitment: [0; 32], ..keys };
    assert_eq!(server.advertise(changed), Err(Refusal::Signature));
    assert_eq!(format!("{server:?}"), "Advertising of 4 members");
}

#[test]
fn weak_keys() {
    use ed25519_dalek::Signer;
    let (mut server, _) = advertised(&five(), 3);
    let history = &mut History::default();
    let (_, keys) =
        client::join(five(), &identity(7), 1, Seed::from_bytes([1; 32]), history).unwrap();
    let mut order_one = [0; 32];
    order_one[0] = 1;
    let mut padded = keys.cipher;
    padded[31] |= 0x80;
    for weak in [
        Advertisement { cipher: [0; 32], ..keys.clone() },
        // In other bytes, and beside the group of prime order: nothing of it could be shown.
        Advertisement { cipher: padded, ..keys.clone() },
        Advertisement { cipher: order_one, ..keys.clone() },
        Advertisement { pair: [0; 32], ..keys.clone() },
        Advertisement { pair: order_one, ..keys.clone() },
    ] {
        let said = [&b"tern secagg keys\0"[..], &five().id(), &weak.signed_part()].concat();
        let signature = identity(7).sign(&said).to_bytes();
        assert_eq!(server.advertise(Advertisement { signature, ..weak }), Err(Refusal::WeakKey));
    }
}

#[test]
fn cohorts_that_are_too_small() {
    let (server, _) = advertised(&five(), 2);
    let refused = server.close().map(|_| ()).unwrap_err();
    assert_eq!(refused, Failure::Parameters(ParameterError::Members { members: 2 }));
}

#[test]
fn who_is_left_out_is_in_no_roster() {
    let (mut server, _) = advertised(&five(), 5);
    let out = identity(2).verifying_key().to_bytes();
    server.leave_out(&out);
    server.leave_out(&[77; 32]);
    assert_eq!(server.members(), 4);
    let (_, roster) = server.close().unwrap();
    assert_eq!(roster.members.len(), 4);
    assert!(roster.members.iter().all(|keys| keys.identity != out));
}

#[test]
fn shares() {
    let (mut server, roster, mut states) = rostered(&five(), 5);
    let (_, good) = states.remove(&2).unwrap().roster(&roster).unwrap();
    let change = |tamper: fn(&mut Vec<Envelope>)| {
        let mut envelopes = good.envelopes.clone();
        tamper(&mut envelopes);
        Shares { envelopes }
    };
    let refused = Refusal::Receivers { have: 3, need: 4 };
    assert_eq!(server.share(2, change(|e| e.truncate(3))), Err(refused));
    let refused = Refusal::Receivers { have: 4, need: 4 };
    assert_eq!(server.share(2, change(|e| e.swap(0, 1))), Err(refused));
    assert_eq!(server.share(2, change(|e| e[1].member = 2)), Err(refused));
    assert_eq!(server.share(5, good.clone()), Err(Refusal::NotExpected { member: 5 }));
    server.share(2, good.clone()).unwrap();
    server.share(2, good.clone()).unwrap();
    let mut changed = change(|e| e[0].sealed[0] ^= 1);
    assert_eq!(server.share(2, changed.clone()), Err(Refusal::Signature));
    resign(&five(), &roster, 2, &mut changed.envelopes[0]);
    assert_eq!(server.share(2, changed), Err(Refusal::Changed));
    let failed = server.close().map(|_| ()).unwrap_err();
    assert_eq!(failed, Failure::TooFew { phase: "shared secrets", have: 1, need: 3 });
}

#[test]
fn uploads_and_confirmations() {
    let (mut server, mut states) = checked(&five(), 5, &[0]);
    let (state, partners) = states.remove(&1).unwrap();
    let (_, included) = state.partners(&partners, JOB).unwrap();
    let refused = server.upload(0, included.clone());
    assert_eq!(refused, Err(Refusal::NotExpected { member: 0 }));
    let mut fewer = included.clone();
    fewer.signatures.pop();
    assert_eq!(server.upload(1, fewer), Err(Refusal::Included { have: 2, need: 3 }));
    let mut forged = included.clone();
    forged.signatures[1].1[3] ^= 1;
    assert_eq!(server.upload(1, forged), Err(Refusal::Signature));
    server.upload(1, included.clone()).unwrap();
    assert_eq!(server.upload(1, included), Err(Refusal::Changed));
    assert_eq!((server.members(), server.expected()), (1, 4));
    let failed = server.close().map(|_| ()).unwrap_err();
    assert_eq!(failed, Failure::TooFew { phase: "uploaded", have: 1, need: 3 });

    let (mut server, survivors, mut states) = uploaded(&five(), 5, &[], &[0]);
    let (_, good) = states.remove(&2).unwrap().survivors(&survivors).unwrap();
    assert_eq!(server.confirm(0, good.clone()), Err(Refusal::NotExpected { member: 0 }));
    assert_eq!(server.confirm(1, good.clone()), Err(Refusal::Signature));
    server.confirm(2, good).unwrap();
    let failed = server.close().map(|_| ()).unwrap_err();
    assert!(matches!(failed, Failure::TooFew { have: 0, need: 3, .. }), "{failed:?}");
}

#[test]
fn reveals() {
    let (mut server, mut states) = confirmed(&five(), 5, &[], &[0]);
    let mut reveal = |member: u32| {
        let (state, request) = states.remove(&member).unwrap();
        state.reveal(&request).unwrap()
    };
    let good = reveal(1);
    let fewer = Reveal { pair_keys: vec![], ..good.clone() };
    assert_eq!(server.reveal(1, fewer), Err(Refusal::Revealed));
    assert_eq!(server.reveal(0, good.clone()), Err(Refusal::NotExpected { member: 0 }));
    server.reveal(1, good.clone()).unwrap();
    server.reveal(1, good).unwrap();
    let other = reveal(2);
    // What was taken stays; a later lie is none of which anything could come.
    assert_eq!(server.reveal(1, other.clone()), Err(Refusal::Changed));
    server.reveal(2, other).unwrap();
    assert!(!server.complete());
    let failed = server.close().1.unwrap_err();
    let secret = Secret::OwnMask;
    assert_eq!(failed, Failure::TooFewShares { member: 1, secret, have: 2, need: 3 });
}

#[test]
fn each_step_knows_its_members_and_counts_whom_it_heard() {
    let (mut server, roster, states) = rostered(&five(), 5);
    macro_rules! knows_everyone {
        ($server:ident) => {
            for (number, keys) in (0..).zip(&roster.members) {
                assert_eq!($server.number(&keys.identity), Some(number));
            }
            assert_eq!($server.number(&[77; 32]), None);
            assert_eq!($server.members(), 0);
        };
    }
    let identities = |identity: &dyn Fn(u32) -> [u8; 32]| {
        (0..5).all(|number| identity(number) == roster.members[number as usize].identity)
    };
    knows_everyone!(server);
    for (count, (member, state)) in (1..).zip(states) {
        server.share(member, state.roster(&roster).unwrap().1).unwrap();
        assert_eq!(server.members(), count);
    }
    let (mut server, states) = shared(&five(), 5, &[]);
    knows_everyone!(server);
    assert!(identities(&|number| server.identity(number)));
    for (count, (member, (state, inbox))) in (1..).zip(states) {
        server.check(member, state.inbox(&inbox).unwrap().1).unwrap();
        assert_eq!(server.members(), count);
    }
    let (mut server, states) = checked(&five(), 5, &[]);
    knows_everyone!(server);
    for (count, (member, (state, partners))) in (1..).zip(states) {
        server.upload(member, state.partners(&partners, JOB).unwrap().1).unwrap();
        assert_eq!((server.members(), server.expected()), (count, 5));
    }
    let (mut server, survivors, states) = uploaded(&five(), 5, &[], &[]);
    knows_everyone!(server);
    for (count, (member, state)) in (1..).zip(states) {
        server.confirm(member, state.survivors(&survivors).unwrap().1).unwrap();
        assert_eq!(server.members(), count);
    }
    let (mut server, states) = confirmed(&five(), 5, &[], &[]);
    knows_everyone!(server);
    assert!(identities(&|number| server.identity(number)));
    for (count, (member, (state, request))) in (1..).zip(states) {
        server.reveal(member, state.reveal(&request).unwrap()).unwrap();
        assert_eq!((server.members(), server.expected()), (count, 5));
    }
}
