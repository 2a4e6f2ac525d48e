//! A federated round whose server learns the sum of the updates and none of them.
//!
//! Five hospitals count something; each masks its numbers, and the server finds the totals. Here
//! all of them are in one process; `tern_fl::server::local` and the `tern` command carry the same
//! messages.
//!
//! `cargo run --release -p tern-examples --example secure_round`

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use tern_fl::identity::Identity;
use tern_fl::secagg::{Assumptions, History, Packing, Seed, Session, Unpacker, client, server};

/// What each hospital counted, in four groups.
const COUNTS: [[u32; 4]; 5] =
    [[12, 0, 3, 7], [5, 1, 0, 2], [30, 4, 9, 11], [8, 2, 2, 0], [17, 0, 1, 5]];

fn main() -> Result<()> {
    // Sums below 2^16; nobody colludes with the server, and one of five may drop out.
    let packing = Packing::new(4, 16)?;
    let assumptions = Assumptions::new(0.0, 0.2);
    let session =
        Session { run: [1; 32], task: [2; 32], round: 1, attempt: 0, assumptions, packing };

    // Signed keys.
    let mut advertising = server::Advertising::new(session.clone());
    let mut joined = Vec::new();
    for counts in COUNTS {
        let identity = Identity::generate()?;
        let (state, keys) = client::join(
            session.clone(),
            identity.signing_key(),
            1,
            Seed::from_system()?,
            &mut History::default(),
        )?;
        joined.push((keys.identity, state, counts));
        advertising.advertise(keys)?;
    }
    let (mut sharing, roster) = advertising.close()?;

    // Shares of each client's secrets, for its neighbors.
    let mut members = BTreeMap::new();
    for (identity, state, counts) in joined {
        let number = sharing.number(&identity).context("not in the roster")?;
        let (state, shares) = state.roster(&roster)?;
        sharing.share(number, shares)?;
        members.insert(number, (state, counts));
    }

    // Each opens what the others sent it. Whoever sent garbage would be out from here on.
    let (mut checking, inboxes) = sharing.close()?;
    let mut checked = BTreeMap::new();
    for (number, inbox) in inboxes {
        let (state, counts) = members.remove(&number).context("unknown")?;
        let (state, complaints) = state.inbox(&inbox)?;
        checking.check(number, complaints)?;
        checked.insert(number, (state, counts));
    }

    // Masked numbers, which are uniform for whoever sees them alone.
    let job = [3; 32];
    let (mut collecting, partners) = checking.close(job)?;
    let mut sum = vec![0; packing.words()];
    let mut uploaded = Vec::new();
    for (number, partners) in partners {
        let (state, counts) = checked.remove(&number).context("unknown")?;
        let (masking, included) = state.partners(&partners, job)?;
        let mut words = counts.to_vec();
        let state = masking.mask(&mut words)?;
        let body = packing.pack(&words)?;
        println!("client {number} sends {words:?}");
        let mut unpacker = Unpacker::new(packing);
        unpacker.add(&body, &mut sum)?;
        unpacker.finish()?;
        collecting.upload(number, included)?;
        uploaded.push((number, state));
    }

    // Who survived, signed by everyone; then shares, with which the masks are removed.
    let (mut confirming, survivors) = collecting.close()?;
    let mut confirmed = BTreeMap::new();
    for (number, state) in uploaded {
        let (state, confirmation) = state.survivors(&survivors)?;
        confirming.confirm(number, confirmation)?;
        confirmed.insert(number, state);
    }
    let (mut unmasking, requests) = confirming.close()?;
    for (number, request) in requests {
        let state = confirmed.remove(&number).context("unknown")?;
        unmasking.reveal(number, state.reveal(&request)?)?;
    }
    let (_, unmasked) = unmasking.close();
    unmasked?.masks.add_to(&mut sum);
    let totals: Vec<u32> = sum.iter().map(|word| word & packing.modulus_mask()).collect();
    println!("the server learns {totals:?}");
    let expected: Vec<u32> = (0..4).map(|i| COUNTS.iter().map(|counts| counts[i]).sum()).collect();
    anyhow::ensure!(totals == expected, "expected {expected:?}");
    Ok(())
}
