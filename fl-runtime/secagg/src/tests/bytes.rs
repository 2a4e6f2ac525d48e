//! The bytes of a session: whoever speaks the protocol sends and computes these.

use sha2::{Digest, Sha256};

use super::*;

/// SHA-256 of all messages and masked vectors of a session, in which one drops out before it
/// shares and one before it uploads. Another digest is another protocol: members of the same
/// session could not do with both.
const SESSION: &str = "d5b2310537c87fcf9578ab0a2e22dcc14b92993526203a22f6ae6ac8a41e945f";

#[test]
fn the_bytes_of_a_session_are_those_of_the_protocol() {
    let (session, mut all) = (sparse(), Sha256::new());
    let (mut server, roster, states) = rostered(&session, 40);
    all.update(roster.encode());
    let mut sharing = BTreeMap::new();
    for (member, state) in states.into_iter().filter(|(member, _)| *member != 3) {
        let (state, shares) = state.roster(&roster).unwrap();
        all.update(shares.encode());
        server.share(member, shares).unwrap();
        sharing.insert(member, state);
    }
    let (mut server, inboxes) = server.close().unwrap();
    let mut checked = BTreeMap::new();
    for (member, inbox) in inboxes {
        all.update(inbox.encode());
        let (state, complaints) = sharing.remove(&member).unwrap().inbox(&inbox).unwrap();
        server.check(member, complaints).unwrap();
        checked.insert(member, state);
    }
    let (mut server, partners) = server.close(JOB).unwrap();
    let mut masked = BTreeMap::new();
    for (member, partners) in partners.into_iter().filter(|(member, _)| *member != 7) {
        let (state, included) = checked.remove(&member).unwrap().partners(&partners, JOB).unwrap();
        all.update(included.encode());
        server.upload(member, included).unwrap();
        let mut words = vector(member);
        masked.insert(member, state.mask(&mut words).unwrap());
        words.iter().for_each(|word| all.update(word.to_le_bytes()));
    }
    let (mut server, survivors) = server.close().unwrap();
    all.update(survivors.encode());
    let mut confirmed = BTreeMap::new();
    for (member, state) in masked {
        let (state, confirmation) = state.survivors(&survivors).unwrap();
        all.update(confirmation.encode());
        server.confirm(member, confirmation).unwrap();
        confirmed.insert(member, state);
    }
    for (member, request) in server.close().unwrap().1 {
        all.update(request.encode());
        let reveal = confirmed.remove(&member).unwrap().reveal(&request).unwrap();
        all.update(reveal.encode());
    }
    let digest: Vec<String> = all.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest.concat(), SESSION);
}
