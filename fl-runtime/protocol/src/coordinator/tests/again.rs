//! Answers that are given twice, that nobody asked for, and that are lost afterwards.

use super::*;

fn lost(client: u8, turn: Turn) -> Event {
    Event::Lost { client: id(client), turn }
}

#[test]
fn a_damaged_update_is_asked_for_again_while_others_come() {
    let mut c = coordinator(|_| ());
    c.handle(Millis(1), start(2)).unwrap();
    c.handle(Millis(2), uploaded(1, FIRST)).unwrap();
    for (client, turn) in [(2, FIRST), (9, FIRST), (1, Turn::new(1, 2))] {
        assert!(c.handle(Millis(3), lost(client, turn)).is_err(), "{client} {turn}");
    }
    assert!(c.handle(Millis(3), lost(1, FIRST)).unwrap().is_empty());
    assert_eq!(c.accepted().count(), 0);
    assert!(matches!(c.instruction(&id(1)).what, Some(What::Train(_))));
    c.handle(Millis(4), uploaded(1, FIRST)).unwrap();
    let closed = c.handle(Millis(5), uploaded(2, FIRST)).unwrap();
    assert_eq!(closed.last(), Some(&Effect::Aggregate));
}

#[test]
fn a_damaged_update_of_a_closed_round_is_left_out() {
    for (minimum, goes_on) in [(1, true), (2, false)] {
        let mut c = coordinator(|plan| plan.cohort.minimum = minimum);
        c.handle(Millis(1), start(2)).unwrap();
        c.handle(Millis(2), uploaded(1, FIRST)).unwrap();
        c.handle(Millis(3), uploaded(2, FIRST)).unwrap();
        let effects = c.handle(Millis(4), lost(1, FIRST)).unwrap();
        match &effects[..] {
            [Effect::Aggregate] => assert!(goes_on && c.accepted().count() == 1),
            [Effect::Failed(failed)] => {
                assert!(!goes_on && failed.reason.contains("damaged"), "{failed:?}");
                assert!(c.wants_cohort() && c.turn() == Turn::new(1, 2));
            }
            other => panic!("{other:?}"),
        }
        assert!(c.handle(Millis(5), lost(1, FIRST)).is_err());
    }
}

#[test]
fn an_evaluation_is_taken_once_and_with_as_many_samples_as_there_may_be() {
    let mut c = coordinator(|plan| {
        plan.evaluation.on_clients = true;
        plan.updates.max_samples = 20;
    });
    c.handle(Millis(1), start(2)).unwrap();
    c.handle(Millis(2), uploaded(1, FIRST)).unwrap();
    c.handle(Millis(3), uploaded(2, FIRST)).unwrap();
    c.handle(Millis(4), head(1)).unwrap();
    let mut told = |client: u8, samples: u32| {
        let evaluated = wire::Evaluated { samples, metrics: Metrics::new() };
        let body = Some(wire::message::Body::Evaluated(evaluated));
        let message = wire::Message { round: 1, attempt: 1, body };
        let answer = c.handle(Millis(5), Event::Message { client: id(client), message });
        answer.map(|effects| effects.len()).map_err(|refusal| refusal.name())
    };
    assert_eq!(told(1, 21), Err("samples"));
    assert_eq!(told(1, u32::MAX), Err("samples"));
    assert_eq!(told(3, 20), Err("not_selected"));
    assert_eq!(told(1, 20), Ok(0));
    assert_eq!(told(1, 20), Err("repeated"));
    assert_eq!(told(1, 19), Err("conflict"));
    // The last one ends the round.
    assert_eq!(told(2, 0), Ok(1));
}

#[test]
fn a_client_is_online_once_and_a_plain_update_includes_nobody() {
    let mut c = coordinator(|_| ());
    let once = Candidate { client: id(1), samples: 5 };
    for online in [vec![once; 2], vec![Candidate { client: id(2), samples: 5 }, once]] {
        let refused = c.handle(Millis(1), Event::Start { online, salt: SALT });
        assert_eq!(refused, Err(Refusal::Malformed("list of clients")));
    }
    c.handle(Millis(1), start(2)).unwrap();
    let Event::Uploaded { client, turn, mut upload } = uploaded(1, FIRST) else { return };
    upload.included = vec![1];
    let refused = c.handle(Millis(1), Event::Uploaded { client, turn, upload });
    assert_eq!(refused, Err(Refusal::Malformed("included")));
}

#[test]
fn patience_counts_rounds_since_the_best_one() {
    for (patience, ends_after) in [(2, 4), (3, 5)] {
        let mut c = coordinator(|plan| {
            (plan.cohort.size, plan.rounds) = (1, 20);
            (plan.evaluation.scores, plan.evaluation.patience) = (Scores::Clients, Some(patience));
        });
        // The second round is the best.
        let losses = [0.5, 0.1, 0.3, 0.2, 0.1, 0.4];
        for loss in losses {
            if c.finished() {
                break;
            }
            let turn = c.turn();
            c.handle(Millis(1), start(1)).unwrap();
            c.handle(Millis(1), claimed(1, turn, 5, loss)).unwrap();
            c.handle(Millis(1), head(turn.round as u8)).unwrap();
        }
        assert_eq!((c.turn().round, c.best().unwrap().round), (ends_after, 2));
    }
}
