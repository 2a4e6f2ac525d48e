//! What a client was told of the run's end stays true.

use super::*;
use crate::Ended;

fn finished(turn: Turn, model: u8) -> Input {
    instruction(turn, What::Finished(wire::Finished { model: vec![model; 32] }))
}

#[test]
fn who_was_told_of_the_end_takes_part_in_no_round_up_to_it_and_says_so() {
    let mut p = participant(Encoding::Full);
    let model = Digest([7; 32]);
    assert_eq!(p.handle(finished(NEXT, 7)).unwrap(), [Action::Save, Action::Stop(model)]);
    let ended = Ended { round: 2, model };
    assert_eq!(p.kept().ended, Some(ended));
    // Again after a restart, which has nothing new to keep.
    let kept = p.kept().clone();
    let mut p = Participant::new(&key(), p.task().clone(), &Device::cpu(), kept).unwrap();
    assert_eq!(p.handle(finished(NEXT, 7)).unwrap(), [Action::Stop(model)]);
    // The server's files are older ones.
    for turn in [FIRST, Turn::new(2, 9)] {
        let evaluate = What::Evaluate(wire::Evaluate::default());
        for asked in [train(turn), instruction(turn, evaluate)] {
            let actions = p.handle(asked).unwrap();
            let [Action::Send(wire::Message { round, attempt, body })] = &actions[..] else {
                panic!("{actions:?}")
            };
            let Some(Body::Declined(declined)) = body else { panic!("{body:?}") };
            assert_eq!(Turn::new(*round, *attempt), turn);
            assert_eq!(declined.ended, Some(ended.into()));
            assert!(declined.reason.contains("over after round 2"), "{declined:?}");
        }
        let wait = instruction(turn, What::Wait(wire::Wait {}));
        assert_eq!(p.handle(wait).unwrap(), [Action::Wait]);
        // There is one end.
        assert_eq!(p.handle(finished(turn, 8)).unwrap(), [Action::Stop(model)]);
        assert_eq!(p.kept().ended, Some(ended));
    }
    // A run that was made longer goes on, to another end.
    let third = Turn::new(3, 1);
    assert!(matches!(p.handle(train(third)).unwrap()[..], [Action::Fetch(_)]));
    let other = Digest([8; 32]);
    assert_eq!(p.handle(finished(third, 8)).unwrap(), [Action::Save, Action::Stop(other)]);
    assert_eq!(p.kept().ended, Some(Ended { round: 3, model: other }));
}
