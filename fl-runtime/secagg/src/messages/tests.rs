use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn share(limb: u64) -> Share {
    let mut bytes = [0; Share::BYTES];
    bytes[8..16].copy_from_slice(&limb.to_le_bytes());
    Share::from_bytes(&bytes).unwrap()
}

fn request() -> Request {
    Request {
        confirmations: vec![(3, [7; 64])],
        included: vec![(1, [5; 64]), (2, [6; 64])],
        own_masks: vec![1, 2],
        pair_keys: vec![0],
    }
}

#[test]
fn truncated_and_extended_messages_are_refused() {
    let bytes = request().encode();
    assert_eq!(Request::decode(&bytes), Ok(request()));
    for end in 0..bytes.len() {
        match Request::decode(&bytes[..end]) {
            Err(Malformed::Length { bytes: given, expected, .. }) => {
                assert!(given == end && (end + 1..=bytes.len()).contains(&expected), "{expected}");
            }
            other => panic!("{end} {other:?}"),
        }
    }
    // Of a list all entries are asked for, before any is read.
    let survivors = Survivors { members: vec![1, 2, 3] }.encode();
    let message = "list of survivors";
    let refused = Malformed::Length { message, bytes: 7, expected: survivors.len() };
    assert_eq!(Survivors::decode(&survivors[..7]), Err(refused));
    let longer = [&bytes[..], &[0]].concat();
    let expected = bytes.len();
    let refused = Malformed::Length { message: "request", bytes: expected + 1, expected };
    assert_eq!(Request::decode(&longer), Err(refused));
}

#[test]
fn numbers_out_of_range_are_refused() {
    let limit = MAX_MEMBERS;
    let count = u32::MAX;
    let refused = Malformed::Count { message: "inbox", count, limit };
    assert_eq!(Inbox::decode(&count.to_le_bytes()), Err(refused));
    let member = MAX_MEMBERS as u32;
    let named = Survivors { members: vec![member] }.encode();
    let refused = Malformed::Member { message: "list of survivors", member, limit };
    assert_eq!(Survivors::decode(&named), Err(refused));
    let all = Survivors { members: (0..member).collect() };
    assert_eq!(Survivors::decode(&all.encode()), Ok(all));
    let mut reveal = Reveal { own_masks: vec![share(1)], pair_keys: vec![] }.encode();
    reveal[11] = 0xff;
    let refused = Malformed::Field { message: "reveal" };
    assert_eq!(Reveal::decode(&reveal), Err(refused));
    let long = vec![0; Survivors::LIMIT + 1];
    assert!(matches!(Survivors::decode(&long), Err(Malformed::Length { .. })));
}

proptest! {
    #[test]
    fn messages_survive_their_bytes(
        confirmations in vec((0..MAX_MEMBERS as u32, any::<u8>()), 0..9),
        members in vec(0..MAX_MEMBERS as u32, 0..9),
        limbs in vec(0..(1u64 << 61) - 1, 0..9),
        byte: u8,
    ) {
        let signatures: Vec<_> = confirmations.into_iter().map(|(m, b)| (m, [b; 64])).collect();
        let included = Included { signatures: signatures.clone() };
        prop_assert_eq!(Included::decode(&included.encode()), Ok(included));
        let request = Request {
            confirmations: signatures.clone(),
            included: signatures,
            own_masks: members.clone(),
            pair_keys: members.clone(),
        };
        prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
        let shares: Vec<Share> = limbs.into_iter().map(share).collect();
        let reveal = Reveal { own_masks: shares.clone(), pair_keys: shares };
        prop_assert_eq!(Reveal::decode(&reveal.encode()), Ok(reveal));
        let keys = Advertisement {
            identity: [byte; 32],
            cipher: [1; 32],
            pair: [2; 32],
            commitment: [3; 32],
            samples: 70_000,
            signature: [4; 64],
        };
        prop_assert_eq!(Advertisement::decode(&keys.encode()), Ok(keys.clone()));
        let roster = Roster { members: vec![keys; members.len()] };
        prop_assert_eq!(Roster::decode(&roster.encode()), Ok(roster));
        let envelope = |member: &u32| Envelope {
            member: *member,
            sealed: [byte; SEALED_BYTES],
            pair: [5; 16],
            own: [6; 16],
            signature: [7; 64],
        };
        let envelopes: Vec<Envelope> = members.iter().map(envelope).collect();
        let shares = Shares { envelopes: envelopes.clone() };
        prop_assert_eq!(Shares::decode(&shares.encode()), Ok(shares));
        let inbox = Inbox { envelopes };
        prop_assert_eq!(Inbox::decode(&inbox.encode()), Ok(inbox));
        let complaint =
            |member: &u32| Complaint { member: *member, shared: [byte; 32], proof: [8; 64] };
        let complaints = Complaints { complaints: members.iter().map(complaint).collect() };
        prop_assert_eq!(Complaints::decode(&complaints.encode()), Ok(complaints));
        let partners = Partners { members };
        prop_assert_eq!(Partners::decode(&partners.encode()), Ok(partners));
    }

    #[test]
    fn any_bytes_decode_or_are_refused(bytes in vec(any::<u8>(), 0..400)) {
        decode_any(&bytes);
    }

    #[test]
    fn bytes_with_small_counts_decode_or_are_refused(
        counts in vec(0u8..4, 1..4),
        bytes in vec(any::<u8>(), 0..500),
    ) {
        let mut message = bytes;
        for (i, count) in counts.into_iter().enumerate() {
            let at = 68 * i;
            if let Some(bytes) = message.get_mut(at..at + 4) {
                bytes.copy_from_slice(&u32::from(count).to_le_bytes());
            }
        }
        decode_any(&message);
    }
}
