//! Secure aggregation: the server learns the sum of the clients' vectors, and no vector.
//!
//! After Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning"
//! (CCS 2017), against a server that may lie, with the neighbors of Bell et al., "Secure
//! Single-Server Aggregation with (Poly)Logarithmic Overhead" (CCS 2020). State machines without
//! I/O: [`client`] and [`server`] have a type a round, whose methods take the message of the
//! other side and give the next one.
//!
//! | round | client sends | server sends |
//! |---|---|---|
//! | 0 | [`Advertisement`]: signed public keys | [`Roster`]: everyone's |
//! | 1 | [`Shares`] of its two secrets, sealed for its neighbors | [`Inbox`]: its neighbors' |
//! | 2 | [`Complaints`] about envelopes that are garbage | [`Partners`] that are left |
//! | 3 | its masked vector, packed ([`Packing`]), and [`Included`]: with whom it shares masks | |
//! | 4 | [`Confirmation`]: signature of the survivors | [`Survivors`] |
//! | 5 | [`Reveal`]: shares | [`Request`] for them, with the neighbors' signatures |
//!
//! Client u uploads x_u + PRG(b_u) + Σ ± PRG(s_uv) over its neighbors v. In the sum of the
//! survivors the pair masks of survivors cancel; the server finds b_u of survivors and s_v of
//! those that dropped out from the shares, and removes what is left: [`server::Unmasked`].
//!
//! - The graph of neighbors comes from the [`Roster`]'s digest, and each client computes it
//!   ([`Graph`]). How many neighbors, and which threshold, follows from the [`Session`]'s
//!   [`Assumptions`]: [`parameters`] states what they guarantee.
//! - What a vector counts for in the sum, its client signs with its keys: all members see the same.
//! - The [`Session`]'s id, which covers the run's task and what the cohort withstands, goes into
//!   every derivation, signature and ciphertext. A client joins a session once ([`History`]).
//! - What vectors are made by beside that, the *job* (model, scales, weights), is in what clients
//!   sign in rounds 3 and 4. A server that told one client another job than the others, so that
//!   theirs come to nothing, would learn that client's vector: nobody reveals shares to it.
//! - A client reveals shares only with enough signatures of its neighbors over the set of
//!   survivors that it signed itself, and never both of one client. A share of a survivor's own
//!   mask it reveals only if that survivor signed that it shares masks with this client:
//!   otherwise a server that keeps envelopes from some could isolate a part of the graph.
//! - Envelopes are signed, and commit to the shares in them. Who gets garbage shows so by what it
//!   shares with the sender and a proof that it does (Chaum and Pedersen); who then complained
//!   without reason, deals shares that don't fit each other, or reveals another share than it was
//!   dealt, is found out likewise: [`Fault`]. A server can't have an honest client complain about
//!   another, whose secrets the complaint would lay open. Wrong shares that a member dealt are
//!   put right as far as a Reed–Solomon code does.
//! - A step that doesn't follow from the one before ends in an [`Abort`] with the reason.
//! - Secrets are wiped when they are dropped, and print nothing.
//!
//! What this doesn't do: check that vectors are honest, hide who takes part, or know who the
//! members are. A client sees that each member holds the key it is named by, not that it is
//! somebody's: a server that enrolls clients of its own makes them part of the corrupt share,
//! which the assumptions bound and nothing here enforces. A sum over few clients tells about each
//! of them. Two sums over sets of clients tell what the one set's vectors have over the other's, if
//! a client's are alike in both. A client that revealed shares in a round joins no other attempt at
//! it ([`History`]); from round to round the vectors have to differ, which is up to the caller.
//!
//! # A session
//!
//! Five clients, of which two drop out: one before it uploads, one before it confirms.
//!
//! ```
//! use ed25519_dalek::SigningKey;
//! use tern_secagg::*;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Nobody colludes with the server, and two of five may drop out. 64 numbers mod 2^20.
//! let packing = Packing::new(64, 20)?;
//! let session = Session {
//!     run: [7; 32],
//!     task: [8; 32],
//!     round: 1,
//!     attempt: 0,
//!     assumptions: Assumptions::new(0.0, 0.4),
//!     packing,
//! };
//!
//! // Round 0: every client enters with its long-term key, fresh randomness and its history.
//! let mut server = server::Advertising::new(session.clone());
//! let mut clients = Vec::new();
//! for number in 0..5 {
//!     let identity = SigningKey::from_bytes(&[number; 32]);
//!     let mut history = History::default();
//!     let (client, keys) =
//!         client::join(session.clone(), &identity, 1, Seed::from_system()?, &mut history)?;
//!     server.advertise(Advertisement::decode(&keys.encode())?)?;
//!     clients.push((keys.identity, client));
//! }
//!
//! // Round 1: each shares its secrets with its neighbors.
//! let (mut server, roster) = server.close()?;
//! let mut sharing = std::collections::BTreeMap::new();
//! for (identity, client) in clients {
//!     let (client, shares) = client.roster(&roster)?;
//!     let number = server.number(&identity).ok_or("not in the roster")?;
//!     server.share(number, shares)?;
//!     sharing.insert(number, client);
//! }
//!
//! // Round 2: each opens what it got, and has nothing to complain about.
//! let (mut server, inboxes) = server.close()?;
//! let mut checked = std::collections::BTreeMap::new();
//! for (number, inbox) in inboxes {
//!     let (client, complaints) = sharing.remove(&number).ok_or("unknown")?.inbox(&inbox)?;
//!     assert!(server.check(number, complaints)?.is_empty());
//!     checked.insert(number, client);
//! }
//!
//! // Round 3: each uploads its number in every place, under masks. Client 3 drops out.
//! let job = [9; 32];
//! let (mut server, partners) = server.close(job)?;
//! let mut sum = vec![0; packing.words()];
//! let mut uploaded = Vec::new();
//! for (number, partners) in partners {
//!     let client = checked.remove(&number).ok_or("unknown")?;
//!     let (masking, included) = client.partners(&partners, job)?;
//!     if number == 3 {
//!         continue;
//!     }
//!     let mut words = vec![number; packing.words()];
//!     let client = masking.mask(&mut words)?;
//!     let body = packing.pack(&words)?;
//!     let mut unpacker = Unpacker::new(packing);
//!     unpacker.add(&body, &mut sum)?;
//!     unpacker.finish()?;
//!     server.upload(number, included)?;
//!     uploaded.push((number, client));
//! }
//!
//! // Round 4: the survivors sign their set. Client 4 drops out; its vector stays in the sum.
//! let (mut server, survivors) = server.close()?;
//! let mut confirmed = std::collections::BTreeMap::new();
//! for (number, client) in uploaded {
//!     if number == 4 {
//!         continue;
//!     }
//!     let (client, confirmation) = client.survivors(&survivors)?;
//!     server.confirm(number, confirmation)?;
//!     confirmed.insert(number, client);
//! }
//!
//! // Round 5: shares, from which the server finds what is left of the masks.
//! let (mut server, requests) = server.close()?;
//! for (number, request) in requests {
//!     let client = confirmed.remove(&number).ok_or("unknown")?;
//!     server.reveal(number, client.reveal(&request)?)?;
//! }
//! let (culprits, unmasked) = server.close();
//! let unmasked = unmasked?;
//! assert!(culprits.is_empty());
//! unmasked.masks.add_to(&mut sum);
//! assert_eq!(unmasked.survivors.len(), 4);
//! assert!(sum.iter().all(|word| word & packing.modulus_mask() == 0 + 1 + 2 + 4));
//! # Ok(())
//! # }
//! ```

pub mod client;
mod decode;
mod error;
mod field;
mod graph;
mod keys;
mod mask;
mod messages;
mod pack;
pub mod parameters;
mod proof;
mod random;
pub mod server;
mod session;
mod shamir;
#[cfg(test)]
mod tests;

pub use error::{Abort, Culprit, Failure, Fault, Malformed, Refusal, Secret};
pub use graph::Graph;
pub use mask::Masks;
pub use messages::{
    Advertisement, Commitment, Complaint, Complaints, Confirmation, Envelope, Inbox, Included,
    Message, Partners, Request, Reveal, Roster, SEALED_BYTES, Shares, Survivors, decode_any,
};
pub use pack::{PackError, Packing, Unpacker};
pub use parameters::{Assumptions, HONEST, MAX_MEMBERS, ParameterError, Parameters, SMALL};
pub use random::{Random, Seed};
pub use session::{History, Session};
pub use shamir::Share;
pub use tern_shaders::kernels::chacha::Mask;
