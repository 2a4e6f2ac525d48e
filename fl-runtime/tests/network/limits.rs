//! What is too much: slow clients, memory, rates.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tern_engine::Device;
use tern_fl::client::{CallError, Client, Outcome};
use tern_fl::host::clock;
use tern_fl::layout::{ModelKind, TensorSpec};
use tern_fl::metrics::Metrics;
use tern_fl::server::http::{Limits, Options};
use tern_fl::trainer::{Job, Trained, Trainer};
use tern_fl::{Digest, RunPlan, TaskSpec, client};

use super::{
    Running, TOKEN, answer, enrolled, event_loop, get, http_run, raw, request, serve, serve_plan,
    signed, train,
};

#[test]
fn slow_clients_are_cut_off_and_do_not_hold_up_others() {
    let mut limits = Limits::default();
    (limits.header_seconds, limits.stall_seconds) = (0.3, 0.3);
    let server = serve(limits);
    event_loop().block_on(enrolled(&server, 1));
    let now = clock::now().0;
    let connect = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    };
    // Says nothing, half a header, half a body.
    let silent = connect(b"");
    let header = connect(b"POST /v1/poll HTTP/1.1\r\nhost: ");
    let whole = request("/v1/poll", &signed(&server, 1, "/v1/poll", &[1; 90], now, 1), &[1; 90]);
    let body = connect(&whole[..whole.len() - 50]);
    assert_eq!(get(&server, "/health").0, 200);
    // All of them come to an end.
    assert!([0, 408].contains(&answer(silent).0));
    assert!([0, 408].contains(&answer(header).0));
    let (status, text) = answer(body);
    assert!(status == 408 && text.contains("\"slow\""), "{text}");
}

#[test]
fn who_is_unknown_gets_no_memory_for_a_body() {
    let server = serve(Limits::default());
    let body = [1; 10_000];
    let headers = |target, key| signed(&server, key, target, &body, clock::now().0, key);
    // The body never comes: only who needn't wait for it answers at once.
    let started = Instant::now();
    for (target, status, name) in [
        ("/v1/upload?round=1&attempt=1&offset=0", 403, "unknown"),
        ("/v1/poll", 403, "unknown"),
        // A token needs less than that.
        ("/v1/enroll", 413, "too_large"),
    ] {
        let whole = request(target, &headers(target, 2), &body);
        let (answered, text) = raw(&server, &whole[..whole.len() - body.len()]);
        assert!(answered == status && text.contains(&format!("\"{name}\"")), "{target}: {text}");
    }
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

#[test]
fn who_still_sends_a_body_is_told_why_it_is_refused() {
    let server = serve(Limits::default());
    let body = vec![1; 4 << 20];
    let target = "/v1/poll";
    let whole = request(target, &signed(&server, 2, target, &body, clock::now().0, 1), &body);
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The answer lies here long before the body has gone out.
    for part in whole.chunks(1 << 20) {
        stream.write_all(part).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    let (status, text) = answer(stream);
    assert!(status == 403 && text.contains("\"unknown\""), "{text}");
    // Who never stops is cut off.
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(&whole[..whole.len() - body.len()]).unwrap();
    let started = Instant::now();
    while stream.write_all(&[1; 100]).is_ok() {
        std::thread::sleep(Duration::from_millis(20));
        assert!(started.elapsed() < Duration::from_secs(30), "is read without end");
    }
}

#[test]
fn too_many_requests_are_told_to_wait() {
    let mut limits = Limits::default();
    (limits.requests_per_client, limits.burst_seconds) = (0.001, 5_000.0);
    let server = serve(limits);
    event_loop().block_on(enrolled(&server, 1));
    let ask = |nonce| {
        let headers = signed(&server, 1, "/v1/run", b"", clock::now().0, nonce);
        raw(&server, &request("/v1/run", &headers, b""))
    };
    // Five at once, of which enrolling was one.
    for nonce in 0..4 {
        assert_eq!(ask(nonce).0, 200);
    }
    let (status, text) = ask(4);
    let waits = text.lines().find_map(|line| line.strip_prefix("retry-after: "));
    assert!(status == 429 && text.contains("\"rate\""), "{text}");
    assert!(waits.unwrap().trim().parse::<u64>().unwrap() > 1, "{text}");
    // Others have their own.
    event_loop().block_on(enrolled(&server, 2));
    let mut limits = Limits::default();
    (limits.requests_per_address, limits.burst_seconds) = (0.001, 3_000.0);
    let server = serve(limits);
    assert_eq!([(); 4].map(|()| get(&server, "/health").0), [200, 200, 200, 429]);
}

/// What the server refused, by name.
fn refusals(server: &Running) -> BTreeMap<String, u64> {
    let (_, metrics) = get(server, "/metrics");
    let counted = metrics.lines().filter_map(|line| {
        let (name, count) =
            line.strip_prefix("tern_refused_total{reason=\"")?.split_once("\"} ")?;
        Some((name.to_owned(), count.parse().unwrap()))
    });
    counted.collect()
}

/// A trainer that changes nothing.
pub struct Still;

impl Trainer for Still {
    fn samples(&self) -> u32 {
        1
    }

    fn train(&mut self, _: &TaskSpec, job: &Job) -> tern_fl::Result<Trained> {
        Ok(Trained::new(vec![0.0; job.model.len()], 1, Metrics::new()))
    }

    fn evaluate(&mut self, _: &TaskSpec, _: &[f32]) -> tern_fl::Result<(u32, Metrics)> {
        Ok((1, Metrics::new()))
    }
}

#[test]
fn a_large_model_goes_both_ways_on_default_limits_without_a_refusal() {
    // 48 MiB each way, and again for the best model.
    let weights = TensorSpec { name: "w".into(), shape: vec![4096, 3072] };
    let mut plan = RunPlan::new("large", ModelKind::Tensors(vec![weights]), 1);
    (plan.cohort.size, plan.cohort.gather_ms) = (1, 50);
    let server = serve_plan(&plan, Options::default().dashboard(true));
    let folder = tempfile::tempdir().unwrap();
    let options = client::Options::new(&format!("http://{}", server.address), folder.path());
    let client = Client::new(options.token(TOKEN.to_owned())).unwrap();
    let outcome = event_loop().block_on(async {
        client.run(Still, &Device::cpu(), std::future::pending()).await.unwrap()
    });
    assert!(matches!(outcome, Outcome::Finished(_)), "{outcome:?}");
    assert_eq!(refusals(&server), BTreeMap::new());
}

#[test]
fn a_client_keeps_the_pace_it_is_told_and_a_flood_is_refused() {
    let mut limits = Limits::default();
    (limits.message_bytes, limits.piece_bytes, limits.burst_seconds) = (4096, 4096, 0.01);
    (limits.requests_per_client, limits.bytes_per_client) = (100.0, 64 << 10);
    let server = serve(limits.clone());
    let target = event_loop().block_on(async {
        let http = enrolled(&server, 1).await;
        let digest = Digest::from_slice(&train(&http).await.1.model.unwrap().digest).unwrap();
        // Neither many requests nor many bytes.
        for _ in 0..20 {
            http_run(&http).await.unwrap();
            assert_eq!(http.part(digest, 0).await.unwrap().bytes.len(), 4096);
        }
        format!("/v1/blob/{digest}")
    });
    assert_eq!(refusals(&server), BTreeMap::new());
    // Each limit refuses by its own name.
    let flooded = |requests, bytes| {
        let mut limits = limits.clone();
        (limits.requests_per_client, limits.bytes_per_client) = (requests, bytes);
        let server = serve(limits);
        event_loop().block_on(enrolled(&server, 1));
        let flood = (0..=u8::MAX).find_map(|nonce| {
            let headers = signed(&server, 1, &target, b"", clock::now().0, nonce);
            let (status, text) = raw(&server, &request(&target, &headers, b""));
            (status == 429).then_some(text)
        });
        flood.unwrap()
    };
    let (of_requests, of_bytes) = (flooded(0.1, 32 << 20), flooded(1e4, 4 << 10));
    assert!(of_requests.contains("\"rate\""), "{of_requests}");
    assert!(of_bytes.contains("\"byte_rate\""), "{of_bytes}");
}

#[test]
fn a_flood_on_default_limits_is_refused() {
    let server = serve(Limits::default());
    let (answered, refused) = event_loop().block_on(async {
        let http = Arc::new(enrolled(&server, 1).await);
        let mut calls = tokio::task::JoinSet::new();
        // All of them before the first answer: none of them waits.
        for _ in 0..400 {
            let http = http.clone();
            calls.spawn(async move { http_run(&http).await });
        }
        let answers = calls.join_all().await;
        let (answered, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        (answered.len(), refused)
    });
    assert!(answered >= 99, "the burst is let in: {answered}");
    assert!(!refused.is_empty() && refusals(&server)["rate"] == refused.len() as u64);
    for answer in refused {
        let error = answer.unwrap_err();
        assert!(matches!(error, CallError::Busy { status: 429, wait: Some(_), .. }), "{error}");
    }
}
