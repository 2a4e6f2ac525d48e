use super::*;

const REQUEST: (&str, &str, &[u8]) = ("POST", "/v1/upload?round=1&offset=0", b"body");

fn signed(time: u64, nonce: u8) -> Credentials {
    signed_for(Some(StartId([3; 16])), time, nonce)
}

fn signed_for(start: Option<StartId>, time: u64, nonce: u8) -> Credentials {
    let run = Some(RunId([9; 16]));
    let audience = Audience { host: "a.example:8443".into(), run, start };
    let key = SigningKey::from_bytes(&[7; 32]);
    Credentials::sign(&key, audience, REQUEST, Millis(time), [nonce; 16])
}

#[test]
fn headers_carry_a_signature_over_every_part() {
    let credentials = signed(1_000, 1);
    let headers = credentials.headers();
    let get = |name| headers.iter().find(|h| h.0 == name).map(|h| h.1.as_str());
    assert_eq!(Credentials::parse(get).unwrap(), credentials);
    let (method, target, body) = REQUEST;
    credentials.verify(method, target, body).unwrap();
    let wrong = Err(AuthError::Signature);
    assert_eq!(credentials.verify("PUT", target, body), wrong);
    assert_eq!(credentials.verify(method, "/v1/upload?round=2&offset=0", body), wrong);
    assert_eq!(credentials.verify(method, target, b"bodz"), wrong);
    let later = Credentials { time: Millis(1_001), ..credentials.clone() };
    assert_eq!(later.verify(method, target, body), wrong);
    let Audience { host, run, start } = credentials.audience.clone();
    for (host, run, start) in [
        ("b.example:8443".into(), run, start),
        (host.clone(), None, start),
        (host.clone(), run, Some(StartId([4; 16]))),
        (host, run, None),
    ] {
        let audience = Audience { host, run, start };
        let elsewhere = Credentials { audience, ..credentials.clone() };
        assert_eq!(elsewhere.verify(method, target, body), wrong);
    }
    let other = Credentials { nonce: [2; 16], ..credentials.clone() };
    assert_eq!(other.verify(method, target, body), wrong);
    let key = ClientId(SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes());
    assert_eq!(Credentials { key, ..credentials }.verify(method, target, body), wrong);
}

#[test]
fn malformed_headers_are_named() {
    let headers = signed(5, 1).headers();
    for (name, expected) in [
        (KEY, "64 hex"),
        (HOST, "a host"),
        (RUN, "32 hex"),
        (START, "32 hex"),
        (TIME, "Unix"),
        (NONCE, "32 hex"),
        (SIGNATURE, "128 hex"),
    ] {
        for bad in ["", "+5", "zz", "-1", "99999999999999999999999", "a\nb", "a b"] {
            // A host may be any word.
            if name == HOST && !bad.is_empty() && bad.bytes().all(|b| b.is_ascii_graphic()) {
                continue;
            }
            let get = |wanted| match wanted == name {
                true => Some(bad),
                false => headers.iter().find(|h| h.0 == wanted).map(|h| h.1.as_str()),
            };
            let error = Credentials::parse(get).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(expected), "{error}");
        }
    }
    assert_eq!(Credentials::parse(|_| None), Err(AuthError::Missing(TIME)));
}

#[test]
fn a_key_of_small_order_signs_nothing() {
    // The neutral element verifies (R = identity, s = 0) over any message unless refused.
    let mut identity = [0; 32];
    identity[0] = 1;
    let mut signature = [0; 64];
    signature[0] = 1;
    let forged = Credentials { key: ClientId(identity), signature, ..signed(1, 1) };
    assert_eq!(forged.verify("POST", "/", b""), Err(AuthError::Signature));
}

#[test]
fn times_out_of_the_window_and_nonces_seen_are_refused() {
    let window = Window::new(100, Millis(10_000));
    let signed = |time, nonce| signed_for(Some(window.start()), time, nonce);
    let now = Millis(20_000);
    let first = signed(20_000, 1);
    window.check(&first, now).unwrap();
    window.admit(&first, now).unwrap();
    assert_eq!(window.check(&first, now), Err(AuthError::Replayed));
    assert_eq!(window.admit(&first, now), Err(AuthError::Replayed));
    window.admit(&signed(20_100, 2), now).unwrap();
    window.admit(&signed(19_900, 3), now).unwrap();
    for time in [19_899, 20_101, 0, u64::MAX] {
        let refusal = AuthError::Stale { time, now: 20_000, start: window.start() };
        assert_eq!(refusal.told(), Some((20_000, window.start())));
        assert_eq!(window.admit(&signed(time, 4), now), Err(refusal));
    }
}

/// A server that starts again has forgotten all nonces; a request may be dated ahead of its
/// time, or its clock may have been set back.
#[test]
fn what_was_signed_for_another_start_is_taken_by_none() {
    let before = Window::new(100, Millis(10_000));
    let taken = signed_for(Some(before.start()), 10_090, 1);
    before.admit(&taken, Millis(10_000)).unwrap();
    let (now, again) = (Millis(10_010), Window::new(100, Millis(10_010)));
    let refusal = AuthError::Start { now: 10_010, start: again.start() };
    assert_eq!(refusal.told(), Some((10_010, again.start())));
    assert_ne!(again.start(), before.start());
    for start in [Some(before.start()), Some(StartId([0; 16])), None] {
        let signed = signed_for(start, 10_090, 1);
        assert_eq!(again.check(&signed, now), Ok(()), "its time and nonce alone");
        assert_eq!(again.check_start(&signed, now), Err(refusal));
        assert_eq!(again.admit(&signed, now), Err(refusal));
    }
    let right = signed_for(Some(again.start()), 10_090, 1);
    again.check_start(&right, now).unwrap();
    again.admit(&right, now).unwrap();
}

#[test]
fn a_nonce_is_remembered_for_as_long_as_its_time_is_acceptable() {
    // Signed ahead of the server's time, so that it stays acceptable for two widths.
    for first in (1_000..1_600).step_by(9) {
        let window = Window::new(100, Millis(1_000));
        let signed = |time, nonce| signed_for(Some(window.start()), time, nonce);
        let early = signed(first + 100, 1);
        window.admit(&early, Millis(first)).unwrap();
        for (i, now) in (first..=first + 200).step_by(7).enumerate() {
            // Other requests move the generations on.
            window.admit(&signed(now, 10 + i as u8), Millis(now)).unwrap();
            let again = window.admit(&early, Millis(now));
            assert_eq!(again, Err(AuthError::Replayed), "first {first}, again {now}");
        }
    }
}

/// However long a server runs, it remembers the nonces of four widths at most, and takes as
/// much memory for them as for those of the first ones.
#[test]
fn nonces_of_a_bounded_time_are_remembered() {
    let (width, window) = (50, Window::new(50, Millis(0)));
    let signed = signed_for(Some(window.start()), 0, 0);
    let mut nonces = 0u32..;
    let mut most = |until: std::ops::Range<u64>| {
        let mut most = (0, 0);
        for now in until {
            // Ten requests a millisecond.
            for nonce in nonces.by_ref().take(10) {
                let mut credentials = Credentials { time: Millis(now), ..signed.clone() };
                credentials.nonce[..4].copy_from_slice(&nonce.to_le_bytes());
                window.admit(&credentials, Millis(now)).unwrap();
            }
            let Seen { current, previous, .. } = &*window.seen.lock().unwrap();
            most.0 = most.0.max(current.len() + previous.len());
            most.1 = most.1.max(current.capacity() + previous.capacity());
        }
        most
    };
    let (first, room) = most(0..8 * width);
    assert!((2 * 10 * width..=10 * (4 * width + 2)).contains(&(first as u64)), "{first}");
    assert_eq!(most(8 * width..100 * width), (first, room));
}

/// Dated as far ahead as may be, at the end of what the server remembers without another request.
#[test]
fn a_nonce_is_remembered_to_the_last_moment() {
    let window = Window::new(100, Millis(1_000));
    let ahead = signed_for(Some(window.start()), 1_300, 1);
    window.admit(&ahead, Millis(1_200)).unwrap();
    assert_eq!(window.admit(&ahead, Millis(1_400)), Err(AuthError::Replayed));
    let stale = AuthError::Stale { time: 1_300, now: 1_401, start: window.start() };
    assert_eq!(window.admit(&ahead, Millis(1_401)), Err(stale));
}

/// However long the server hears nothing, and whenever it hears something again.
#[test]
fn nonces_are_forgotten_at_any_pace() {
    for pace in [3, 97, 199, 201, 333, 1_001] {
        let window = Window::new(100, Millis(0));
        for now in (0..200 * pace).step_by(pace as usize) {
            let mut signed = signed_for(Some(window.start()), now, 0);
            signed.nonce[..8].copy_from_slice(&now.to_le_bytes());
            window.admit(&signed, Millis(now)).unwrap();
        }
        let Seen { current, previous, .. } = &*window.seen.lock().unwrap();
        let most = 4 * 100 / pace as usize + 6;
        assert!(current.len() + previous.len() <= most, "{pace}: {current:?} {previous:?}");
    }
}

#[test]
fn refusals_have_stable_names() {
    let start = StartId([1; 16]);
    let named = [
        (AuthError::Missing(KEY), "header_missing"),
        (AuthError::Malformed { header: KEY, expected: "" }, "header_malformed"),
        (AuthError::Signature, "signature"),
        (AuthError::Stale { time: 1, now: 2, start }, "stale"),
        (AuthError::Start { now: 2, start }, "start"),
        (AuthError::Replayed, "replayed"),
    ];
    for (error, name) in named {
        assert_eq!(error.name(), name);
        assert_eq!(error.told().is_some(), ["stale", "start"].contains(&name));
    }
}
