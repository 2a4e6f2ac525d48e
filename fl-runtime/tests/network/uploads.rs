//! Bodies up and down: in pieces that go on after a cut, or whole with what ends an upload.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use tern_engine::nn::ModelSpec;
use tern_fl::host::clock;
use tern_fl::layout::ModelKind;
use tern_fl::participant::SMALL_BODY;
use tern_fl::server::http::{Limits, Options};
use tern_fl::{Digest, wire};

use super::{enrolled, event_loop, post, refused, request, serve, serve_plan, signed, train};

#[test]
fn uploads_and_downloads_go_on_after_a_cut() {
    // Memory for one message at a time: a download must not hold any of it for its request.
    let share = 1 << 20;
    let mut limits = Limits::default();
    (limits.piece_bytes, limits.held_bytes_per_address) = (4096, share);
    assert_eq!(limits.message_bytes, share);
    let server = serve(limits);
    event_loop().block_on(async {
        let http = enrolled(&server, 1).await;
        let (instruction, train) = train(&http).await;
        let digest = Digest::from_slice(&train.model.unwrap().digest).unwrap();
        // The model, a piece at a time, from anywhere.
        let mut model = Vec::new();
        let total = loop {
            let part = http.part(digest, model.len() as u64).await.unwrap();
            assert!(part.bytes.len() <= 4096);
            model.extend(part.bytes);
            if model.len() as u64 == part.total {
                break part.total;
            }
        };
        assert_eq!(Digest::of(&model), digest);
        let tail = http.part(digest, total - 7).await.unwrap();
        assert_eq!(tail.bytes, model[model.len() - 7..]);
        assert_eq!(refused(http.part(digest, total).await), "range");
        assert_eq!(refused(http.part(Digest([9; 32]), 0).await), "no_blob");

        // An update as long as the model. A piece breaks off in the middle: nothing of it is
        // there, since nothing of it is known to be the client's.
        let turn = format!("round={}&attempt={}", instruction.round, instruction.attempt);
        let place = format!("/v1/upload?{turn}");
        let ask = || http.post::<wire::Received>(&place, Vec::new(), Duration::ZERO);
        let body: Vec<u8> = vec![0; model.len()];
        let piece = |at: usize, bytes: &[u8]| (format!("{place}&offset={at}"), bytes.to_vec());
        let send = async |(target, bytes): (String, Vec<u8>)| {
            http.post::<wire::Received>(&target, bytes, Duration::ZERO).await
        };
        assert_eq!(ask().await.unwrap().offset, 0);
        assert_eq!(send(piece(0, &body[..4096])).await.unwrap().offset, 4096);
        let (target, bytes) = piece(4096, &body[4096..6000]);
        let whole =
            request(&target, &signed(&server, 1, &target, &bytes, clock::now().0, 1), &bytes);
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(&whole[..whole.len() - 900]).unwrap();
        drop(stream);
        assert_eq!(ask().await.unwrap().offset, 4096);
        // Not where it ends, too large a piece, more than there is to come, finished too early.
        assert_eq!(refused(send(piece(0, &body[..10])).await), "offset");
        assert_eq!(refused(send(piece(4096, &[0; 4097])).await), "too_large");
        let mut finish = wire::Finish {
            round: instruction.round,
            attempt: instruction.attempt,
            digest: Digest::of(&body).0.to_vec(),
            samples: 10,
            ..Default::default()
        };
        assert_eq!(refused(post::<wire::Ack>(&http, "/v1/finish", &finish).await), "length");
        let mut offset = 4096;
        while offset < body.len() {
            let end = body.len().min(offset + 4096);
            offset = send(piece(offset, &body[offset..end])).await.unwrap().offset as usize;
        }
        assert_eq!(refused(send(piece(offset, &[1])).await), "length");
        // Another hash: the server forgets the body, and takes it anew.
        finish.digest[0] ^= 1;
        assert_eq!(refused(post::<wire::Ack>(&http, "/v1/finish", &finish).await), "hash");
        finish.digest[0] ^= 1;
        assert_eq!(ask().await.unwrap().offset, 0);
        let mut offset = 0;
        while offset < body.len() {
            let end = body.len().min(offset + 3000);
            offset = send(piece(offset, &body[offset..end])).await.unwrap().offset as usize;
        }
        let ack: wire::Ack = post(&http, "/v1/finish", &finish).await.unwrap();
        assert!(!ack.repeated);
    });
}

#[test]
fn a_small_update_comes_with_what_ends_it() {
    let mut plan = super::plan();
    plan.model = ModelKind::Layers(ModelSpec::mlp(20, &[20], 10));
    plan.cohort.size = 2;
    let server = serve_plan(&plan, Options::default());
    event_loop().block_on(async {
        // The other one's update keeps the round open.
        let (http, other) = (enrolled(&server, 1).await, enrolled(&server, 2).await);
        let ((instruction, train), _) = tokio::join!(train(&http), train(&other));
        let digest = Digest::from_slice(&train.model.unwrap().digest).unwrap();
        let body = vec![0; http.part(digest, 0).await.unwrap().total as usize];
        assert!(body.len() <= SMALL_BODY);
        let turn = format!("round={}&attempt={}", instruction.round, instruction.attempt);
        let finish = wire::Finish {
            round: instruction.round,
            attempt: instruction.attempt,
            digest: Digest::of(&body).0.to_vec(),
            samples: 10,
            body,
            ..Default::default()
        };
        let send =
            async |finish: &wire::Finish| post::<wire::Ack>(&http, "/v1/finish", finish).await;
        let with = |body: &[u8]| wire::Finish { body: body.to_vec(), ..finish.clone() };
        // Pieces that came before stay where it isn't one, and give way to it where it is.
        let piece = format!("/v1/upload?{turn}&offset=0");
        let begun = http.post::<wire::Received>(&piece, vec![7; 40], Duration::ZERO).await;
        assert_eq!(begun.unwrap().offset, 40);
        assert_eq!(refused(send(&with(&finish.body[1..])).await), "length");
        assert_eq!(refused(send(&with(&[&finish.body[..], &[0]].concat())).await), "length");
        assert_eq!(refused(send(&with(&vec![0; SMALL_BODY + 1])).await), "too_large");
        let place = format!("/v1/upload?{turn}");
        let ask = http.post::<wire::Received>(&place, Vec::new(), Duration::ZERO).await;
        assert_eq!(ask.unwrap().offset, 40);
        let mut changed = finish.body.clone();
        changed[3] ^= 1;
        assert_eq!(refused(send(&with(&changed)).await), "hash");
        assert!(!send(&finish).await.unwrap().repeated);
        // It is the same again, with its body and without, unless it isn't.
        assert!(send(&finish).await.unwrap().repeated);
        assert!(send(&with(&[])).await.unwrap().repeated);
        let another = wire::Finish { samples: 11, ..finish.clone() };
        assert_eq!(refused(send(&another).await), "conflict");
    });
}
