//! Who may take part, how a cohort is drawn, and what is refused before it costs anything.

use tern_protocol::Salt;
use tern_protocol::coordinator::{Candidate, number};
use tern_protocol::plan::Selection;

use super::*;

#[test]
fn what_can_be_told_without_reading_a_body_is_told_first() {
    let folder = tempfile::tempdir().unwrap();
    let mut federation = opened(folder.path(), options());
    let turn = Turn::new(1, 1);
    let whole = federation.incoming(&id(1), turn).unwrap().expected();
    federation.upload_append(&id(1), turn, 0, &vec![0; whole as usize]).unwrap();
    // Of another body: who had read it would have refused that, and have forgotten what is there.
    let digest = Digest([7; 32]).0.to_vec();
    let announced = wire::Finish { round: 1, attempt: 1, digest, ..Default::default() };
    let none = announced.clone();
    let named = Metrics::from([("never named".to_string(), 1.0)]);
    let unnamed = wire::Finish { samples: 3, metrics: named, ..announced.clone() };
    let included = wire::Finish { samples: 3, included: vec![1], ..announced.clone() };
    for (finish, name) in [(none, "samples"), (unnamed, "metrics"), (included, "malformed")] {
        let refused = federation.upload_finish(Millis(2), &id(1), finish).unwrap_err();
        assert_eq!(refused.name(), name, "{refused}");
        assert_eq!(federation.upload_offset(&id(1), turn).unwrap(), whole);
    }
    let read = wire::Finish { samples: 3, ..announced };
    let refused = federation.upload_finish(Millis(2), &id(1), read).unwrap_err();
    assert_eq!((refused.name(), federation.upload_offset(&id(1), turn).unwrap()), ("hash", 0));
}

/// A run that these clients ask in, by turns, until somebody is drawn; who is, and when.
fn drawn(options: Options, clients: &[u8], now: &mut Millis) -> (Federation, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan();
    let mut federation = Federation::open(folder.path(), &plan, &initial(&plan), options).unwrap();
    for number in clients {
        federation.enroll(*now, id(*number), Some("token")).unwrap();
    }
    for _ in 0..1_000 {
        for number in clients {
            federation.poll(*now, &id(*number), 10).unwrap();
        }
        let cohort = federation.coordinator().cohort();
        if !cohort.is_empty() {
            let of = |number: &u8| cohort.iter().any(|(client, _)| *client == id(*number));
            let drawn = clients.iter().copied().filter(of).collect();
            return (federation, drawn);
        }
        *now = now.after(100);
    }
    panic!("nobody is drawn");
}

/// Keys that win by what a client knows are of no use: a client knows the plan's seed, the round,
/// and how numbers are made.
#[test]
fn nobody_can_look_for_a_key_that_is_drawn() {
    let all: Vec<u8> = (1..=40).collect();
    let turn = Turn::new(1, 1);
    let mut wins = 0;
    for run in 0..12 {
        // The four that would win if the salt followed from what clients are told.
        let guess = |number: &u8| {
            let salt = Salt::simulated(plan().seed, turn);
            let candidate = Candidate { client: id(*number), samples: 10 };
            self::number(&salt, turn, Selection::Uniform, candidate)
        };
        let mut ground = all.clone();
        ground.sort_by(|a, b| guess(a).total_cmp(&guess(b)));
        let admission = Admission::List(all.iter().map(|number| id(*number)).collect());
        let options = Options { admission, run: Some(RunId([run; 16])), ..options() };
        let (_, drawn) = drawn(options, &all, &mut Millis(1));
        assert_eq!(drawn.len(), 4);
        wins += drawn.iter().filter(|number| ground[..4].contains(number)).count();
    }
    // 48 seats, of which a tenth by chance; so many by chance in one of 10^12 cases.
    assert!(wins < 24, "{wins} of 48 seats");
}

#[test]
fn a_simulated_draw_follows_from_its_seed() {
    let all: Vec<u8> = (1..=40).collect();
    let draws = [5, 5, 6].map(|seed| {
        let admission = Admission::List(all.iter().map(|number| id(*number)).collect());
        let options = Options { admission, simulated: Some(seed), ..options() };
        drawn(options, &all, &mut Millis(1)).1
    });
    assert!(draws[0] == draws[1] && draws[0] != draws[2], "{draws:?}");
}

#[test]
fn who_asks_first_is_drawn_no_sooner_for_that() {
    // Those that are listed are waited for; others, in the first round, by the clock.
    let listed = Admission::List((1..=8).map(id).collect());
    let tokens = Admission::Tokens(vec![Token::new("token", 9)]);
    for (admission, first, starts) in [
        (listed.clone(), 8, 1),
        (listed, 4, 1 + plan().cohort.gather_ms),
        (tokens, 8, 1 + plan().cohort.gather_ms),
    ] {
        let mut now = Millis(1);
        let clients: Vec<u8> = (1..=first).collect();
        let options = Options { admission, ..options() };
        let (_, drawn) = drawn(options, &clients, &mut now);
        assert_eq!((now, drawn.len()), (Millis(starts), 4));
    }
}

#[test]
fn a_draw_is_told_once_its_round_is_over_and_can_be_checked() {
    let folder = tempfile::tempdir().unwrap();
    let mut plan = plan();
    (plan.cohort.size, plan.cohort.over_selection, plan.rounds) = (3, 1.0, 1);
    let open = || Federation::open(folder.path(), &plan, &initial(&plan), options()).unwrap();
    let mut federation = open();
    let mut members: Vec<Member> =
        (1..=9).map(|number| Member::new(&mut federation, number)).collect();
    for now in 1..40 {
        members.iter_mut().for_each(|member| {
            member.turn(&mut federation, Millis(now));
        });
        federation.tick(Millis(now)).unwrap();
        if now == 2 {
            // After a restart it is the same draw.
            let cohort = federation.coordinator().cohort();
            drop(federation);
            federation = open();
            assert_eq!(federation.coordinator().cohort(), cohort);
        }
    }
    let [round] = &federation.rounds(0).unwrap()[..] else { panic!("one round") };
    let turn = Turn::new(round.round, round.attempt);
    let selection = plan.cohort.selection;
    let largest = round.draw.largest(selection, turn).unwrap();
    assert_eq!((round.draw.drawn.len(), round.draw.candidates), (3, 9));
    for member in &members {
        let candidate = Candidate { client: id(member.number), samples: member.samples() };
        let is_drawn = number(&round.draw.salt, turn, selection, candidate) <= largest;
        assert_eq!(round.draw.drawn.contains(&candidate), is_drawn);
    }
    let counted = federation.counted(1).unwrap();
    let is_drawn = |client| round.draw.drawn.iter().any(|drawn| drawn.client == client);
    assert!(!counted.is_empty() && counted.iter().all(|upload| is_drawn(upload.client)));
}

#[test]
fn a_token_is_for_as_many_clients_as_it_says_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let tokens = vec![Token::new("one", 1), Token::new("two", 2)];
        let options = Options { admission: Admission::Tokens(tokens), ..options() };
        let options = options.revoked(vec![id(9)]).max_clients(4);
        Federation::open(folder.path(), &plan(), &initial(&plan()), options).unwrap()
    };
    let enroll = |federation: &mut Federation, number, token| {
        let enrolled = federation.enroll(Millis(1), id(number), token);
        enrolled.map_err(|refusal| refusal.name())
    };
    let mut federation = open();
    assert_eq!(enroll(&mut federation, 1, Some("one")), Ok(()));
    assert_eq!(enroll(&mut federation, 2, Some("two")), Ok(()));
    for _ in 0..2 {
        // Who is registered needs none, and uses none.
        assert_eq!(enroll(&mut federation, 1, None), Ok(()));
        assert_eq!(enroll(&mut federation, 3, Some("one")), Err("token_used"));
        assert_eq!(enroll(&mut federation, 9, Some("two")), Err("not_admitted"));
        drop(federation);
        federation = open();
    }
    assert_eq!(enroll(&mut federation, 3, Some("two")), Ok(()));
    assert_eq!(enroll(&mut federation, 4, Some("two")), Err("token_used"));
    assert_eq!(federation.status().refusals["token_used"], 1);
    // Without tokens memory has its bound, too.
    let folder = tempfile::tempdir().unwrap();
    let options = options().max_clients(2);
    let mut federation =
        Federation::open(folder.path(), &plan(), &initial(&plan()), options).unwrap();
    let all = [1, 2, 3].map(|number| enroll(&mut federation, number, None));
    assert_eq!(all, [Ok(()), Ok(()), Err("full")]);
}

#[test]
fn the_earlier_of_two_processes_with_one_key_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut federation = opened(folder.path(), options());
    federation.enroll(Millis(1), id(1), None).unwrap();
    assert_eq!(federation.check_process(&id(9), 7).unwrap_err().name(), "unknown");
    // None says nothing; one that is started again has another number.
    for process in [0, 7, 7, 8, 0, 8] {
        federation.check_process(&id(1), process).unwrap();
    }
    assert_eq!(federation.check_process(&id(1), 7), Err(Refusal::Copied(id(1))));
    federation.check_process(&id(1), 8).unwrap();
}
