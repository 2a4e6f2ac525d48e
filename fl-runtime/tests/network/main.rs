//! The server over TCP: who is refused, what is too much, and what goes on after a cut.

#![allow(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

mod attack;
mod damage;
mod limits;
mod origins;
mod uploads;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use prost::Message;
use tern_engine::Device;
use tern_engine::nn::ModelSpec;
use tern_fl::auth::{Audience, Credentials, SIGNATURE, TIME};
use tern_fl::client::{CallError, Client, Http};
use tern_fl::host::clock;
use tern_fl::host::tls;
use tern_fl::identity::Identity;
use tern_fl::layout::ModelKind;
use tern_fl::server::federation;
use tern_fl::server::federation::{Admission, Federation, Token};
use tern_fl::server::http::{Board, Limits, Options, Server};
use tern_fl::{Digest, Millis, RunId, RunPlan, StartId, client, wire};
use tokio::sync::oneshot;

const TOKEN: &str = "the operator's token";

/// A server in this process.
struct Running {
    address: SocketAddr,
    run: RunId,
    start: StartId,
    folder: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have ended by itself, which joining shows.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            thread.join().unwrap();
        }
    }
}

/// An odd number of pieces; large enough to take several.
fn plan() -> RunPlan {
    let mut plan = RunPlan::new("test", ModelKind::Layers(ModelSpec::mlp(50, &[40], 10)), 3);
    (plan.cohort.size, plan.cohort.gather_ms) = (1, 50);
    plan
}

fn serve_with(options: Options) -> Running {
    serve_plan(&plan(), options)
}

fn serve_plan(plan: &RunPlan, options: Options) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let initial = plan.check().unwrap().parameters().initial(1);
    let admission = Admission::Tokens(vec![Token::new(TOKEN, 100)]);
    let state = federation::Options::default().admission(admission);
    let federation = Federation::open(folder.path(), plan, &initial, state).unwrap();
    let run = federation.task().run;
    let server = Server::new(federation, Board::new(0), options);
    let start = server.start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::spawn(move || {
        event_loop().block_on(server.serve(listener, async { drop(stopped.await) })).unwrap();
    });
    Running { address, run, start, folder, stop: Some(stop), thread: Some(thread) }
}

fn serve(limits: Limits) -> Running {
    serve_with(Options::default().limits(limits).dashboard(true))
}

fn event_loop() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

fn identity(seed: u8) -> Identity {
    Identity::from_secret(&[seed; 32])
}

fn caller(server: &Running, seed: u8) -> Http {
    Http::new(&format!("http://{}", server.address), None, identity(seed)).unwrap()
}

async fn post<A: Message + Default>(
    http: &Http,
    target: &str,
    message: &impl Message,
) -> Result<A, CallError> {
    http.call(target, message, Duration::ZERO).await
}

async fn enrolled(server: &Running, seed: u8) -> Http {
    let http = caller(server, seed);
    let enroll = wire::Enroll { token: TOKEN.into() };
    let wire::Ack { repeated } = post(&http, "/v1/enroll", &enroll).await.unwrap();
    assert!(!repeated);
    http
}

fn refused<A: std::fmt::Debug>(result: Result<A, CallError>) -> String {
    result.unwrap_err().name().unwrap_or("no refusal").to_owned()
}

/// An answer's status, `tern-time` header and body, to a request as it is given.
fn raw(server: &Running, request: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request).unwrap();
    answer(stream)
}

fn answer(mut stream: TcpStream) -> (u16, String) {
    let mut bytes = Vec::new();
    // A reset after the answer is as good as an end; an end that never comes is none.
    let ended = stream.read_to_end(&mut bytes);
    let waited = |error: &std::io::Error| {
        matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
    };
    assert!(!ended.as_ref().is_err_and(waited), "the connection stays open: {bytes:?}");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, text)
}

fn get(server: &Running, path: &str) -> (u16, String) {
    raw(server, format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
}

/// Headers of a request to a server, to be sent as they are or changed before.
fn signed(
    server: &Running,
    key: u8,
    target: &str,
    body: &[u8],
    time: u64,
    nonce: u8,
) -> Vec<(String, String)> {
    signed_for(audience(server, target), key, target, body, time, nonce)
}

/// Whom a request to a server is for.
fn audience(server: &Running, target: &str) -> Audience {
    let run = (target != "/v1/enroll").then_some(server.run);
    Audience { host: server.address.to_string(), run, start: Some(server.start) }
}

fn signed_for(
    audience: Audience,
    key: u8,
    target: &str,
    body: &[u8],
    time: u64,
    nonce: u8,
) -> Vec<(String, String)> {
    let key = SigningKey::from_bytes(&[key; 32]);
    let request = ("POST", target, body);
    let credentials = Credentials::sign(&key, audience, request, Millis(time), [nonce; 16]);
    credentials.headers().into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn request(target: &str, headers: &[(String, String)], body: &[u8]) -> Vec<u8> {
    let mut text = format!(
        "POST {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\naccept: application/json\r\n\
         content-length: {}\r\n",
        body.len()
    );
    headers.iter().for_each(|(name, value)| text += &format!("{name}: {value}\r\n"));
    [text.as_bytes(), b"\r\n", body].concat()
}

#[test]
fn only_who_signs_and_is_enrolled_is_answered() {
    let server = serve(Limits::default());
    event_loop().block_on(async {
        let http = enrolled(&server, 1).await;
        let poll = wire::Poll { samples: 10, version: 0, wait: 0, process: 0 };
        let _: wire::Instruction = post(&http, "/v1/poll", &poll).await.unwrap();
        // Another key, with and without the right token.
        let stranger = caller(&server, 2);
        let asked: Result<wire::Instruction, _> = post(&stranger, "/v1/poll", &poll).await;
        assert_eq!(refused(asked), "unknown");
        let wrong = wire::Enroll { token: "the operator's taken".into() };
        assert_eq!(
            refused(post::<wire::Ack>(&stranger, "/v1/enroll", &wrong).await),
            "not_admitted"
        );
        assert_eq!(refused(http_run(&stranger).await), "unknown");
        let model = Digest([0; 32]);
        let blob = stranger.part(model, 0).await.map(|part| part.total);
        assert_eq!(refused(blob), "unknown");
        assert!(http_run(&http).await.unwrap().task.contains("\"test\""));
    });
    let (target, body) = ("/v1/poll", wire::Poll::default().encode_to_vec());
    let now = clock::now().0;
    let check = |headers: &[(String, String)], body: &[u8], name: &str| {
        let (status, text) = raw(&server, &request(target, headers, body));
        assert_eq!(status, 401, "{text}");
        assert!(text.contains(&format!("\"name\":\"{name}\"")), "{name}: {text}");
        text
    };
    // The right key, but not over this.
    check(&signed(&server, 1, "/v1/run", &body, now, 1), &body, "signature");
    check(&signed(&server, 1, target, &body, now, 2), b"\x08\x01", "signature");
    let mut headers = signed(&server, 1, target, &body, now, 3);
    headers.iter_mut().find(|h| h.0 == SIGNATURE).unwrap().1 = "0".repeat(128);
    check(&headers, &body, "signature");
    headers.retain(|h| h.0 != SIGNATURE);
    check(&headers, &body, "header_missing");
    // Too early, too late; the answer tells the time.
    for time in [now - 3_600_000, now + 3_600_000] {
        let text = check(&signed(&server, 1, target, &body, time, 4), &body, "stale");
        assert!(text.contains(&format!("{TIME}: ")), "{text}");
    }
    // The same request twice.
    let good = request(target, &signed(&server, 1, target, &body, now, 5), &body);
    assert_eq!(raw(&server, &good).0, 200);
    let (status, text) = raw(&server, &good);
    assert!(status == 401 && text.contains("\"replayed\""), "{text}");
    // All of it was counted.
    let (_, metrics) = get(&server, "/metrics");
    for (name, times) in [("signature", 3), ("stale", 2), ("replayed", 1), ("unknown", 3)] {
        let line = format!("tern_refused_total{{reason=\"{name}\"}} {times}");
        assert!(metrics.contains(&line), "{line} in\n{metrics}");
    }
}

async fn http_run(http: &Http) -> Result<wire::Run, CallError> {
    http.post("/v1/run", Vec::new(), Duration::ZERO).await
}

#[test]
fn garbage_and_bodies_that_are_too_large_are_refused() {
    let mut limits = Limits::default();
    limits.message_bytes = 4096;
    let server = serve(limits);
    let now = clock::now().0;
    event_loop().block_on(enrolled(&server, 1));
    // What is no HTTP, no message, no route, no method.
    assert!([0, 400].contains(&raw(&server, &[0x16, 3, 1, 0, 0, 255, 7, 7, b'\n', b'\n']).0));
    assert_eq!(raw(&server, b"nonsense\r\n\r\n").0, 400);
    let junk = [255; 100];
    for (nonce, target) in (1..).zip(["/v1/enroll", "/v1/poll", "/v1/message", "/v1/finish"]) {
        let headers = signed(&server, 1, target, &junk, now, nonce);
        let (status, text) = raw(&server, &request(target, &headers, &junk));
        assert!(status == 400 && text.contains("\"malformed\""), "{text}");
    }
    let target = "/v1/upload?round=1&attempt=1&attempt=x";
    let (status, text) =
        raw(&server, &request(target, &signed(&server, 1, target, &junk, now, 50), &junk));
    assert!(status == 400 && text.contains("\"malformed\""), "{text}");
    assert_eq!(get(&server, "/nowhere").0, 404);
    assert_eq!(get(&server, "/v1/poll").0, 405);
    assert_eq!(get(&server, &format!("/{}", "x".repeat(40_000))).0 / 100, 4);
    // Too large, announced or not.
    let large = vec![0; 5000];
    let headers = signed(&server, 1, "/v1/message", &large, now, 60);
    let (status, text) = raw(&server, &request("/v1/message", &headers, &large));
    assert!(status == 413 && text.contains("\"too_large\""), "{text}");
    let mut chunked = String::from(
        "POST /v1/message HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                               accept: application/json\r\ntransfer-encoding: chunked\r\n",
    );
    headers.iter().for_each(|(name, value)| chunked += &format!("{name}: {value}\r\n"));
    let body = [format!("\r\n{:x}\r\n", large.len()).as_bytes(), &large, b"\r\n0\r\n\r\n"].concat();
    let (status, text) = raw(&server, &[chunked.as_bytes(), &body].concat());
    assert!(status == 413 && text.contains("\"too_large\""), "{text}");
    // Or less than it was said to be.
    let whole = request("/v1/poll", &signed(&server, 1, "/v1/poll", &junk, now, 61), &junk);
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(&whole[..whole.len() - 1]).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let (status, text) = answer(stream);
    assert!(status == 400 && text.contains("\"cut\""), "{text}");
    // Right, but at another time.
    let target = "/v1/upload?round=7&attempt=1&offset=0";
    let headers = signed(&server, 1, target, &junk, now, 62);
    let (status, text) = raw(&server, &request(target, &headers, &junk));
    assert!(status == 409 && text.contains("\"early\""), "{text}");
    // A refusal is a message of the protocol for who doesn't ask for JSON.
    let text = String::from_utf8(request("/v1/poll", &[], b"")).unwrap();
    let (_, text) = raw(&server, text.replace("application/json", "*/*").as_bytes());
    let body = text.split("\r\n\r\n").nth(1).unwrap();
    assert_eq!(wire::Refused::decode(body.as_bytes()).unwrap().name, "header_missing");
    assert_eq!(get(&server, "/health"), (200, get(&server, "/health").1));
}

/// The instruction of a client that is the whole cohort.
async fn train(http: &Http) -> (wire::Instruction, wire::Train) {
    let wait = Duration::from_secs(20);
    let mut version = 0;
    loop {
        let poll = wire::Poll { samples: 10, version, wait: 20_000, process: 0 };
        let instruction: wire::Instruction = http.call("/v1/poll", &poll, wait).await.unwrap();
        version = instruction.version;
        if let Some(wire::instruction::What::Train(train)) = &instruction.what {
            return (instruction.clone(), train.clone());
        }
    }
}

#[test]
fn the_dashboard_is_served_if_the_operator_wants_it() {
    let server = serve(Limits::default());
    let (status, page) = get(&server, "/");
    assert!(
        status == 200 && page.contains("content-security-policy") && page.contains("<svg")
            || page.contains("\"svg\"")
    );
    let (status, text) = get(&server, "/status.json");
    let json: serde_json::Value =
        serde_json::from_str(text.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!((status, &json["name"], &json["rounds"]), (200, &"test".into(), &3.into()));
    let without = serve_with(Options::default().dashboard(false));
    for path in ["/", "/status.json", "/metrics"] {
        assert_eq!(get(&without, path).0, 404, "{path}");
    }
    assert_eq!(get(&without, "/health").0, 200);
}

#[test]
fn a_server_that_stops_answers_those_who_wait() {
    let mut server = serve(Limits::default());
    event_loop().block_on(async {
        let http = enrolled(&server, 1).await;
        // Without samples it is never asked: it waits.
        let poll = wire::Poll { samples: 0, version: 0, wait: 25_000, process: 0 };
        let waiting = http.call::<wire::Instruction>("/v1/poll", &poll, Duration::from_secs(25));
        let stop = server.stop.take().unwrap();
        let stopping = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            stop.send(()).unwrap();
        };
        let (answer, ()) = tokio::join!(waiting, stopping);
        assert!(matches!(answer.unwrap().what, Some(wire::instruction::What::Wait(_))));
    });
    server.thread.take().unwrap().join().unwrap();
    assert!(TcpStream::connect(server.address).is_err(), "nobody listens");
}

fn certificates(folder: &Path, name: &str) -> PathBuf {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tern"));
    let output = command.args(["certs", name, "--folder"]).arg(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder.to_path_buf()
}

/// Why a client of this server ends, which it doesn't while there is hope.
async fn taking_part(url: &str, authority: Option<&Path>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority.map(|folder| folder.join("ca.pem"));
    let options = client::Options::new(url, folder.path()).authority(authority);
    let client = Client::new(options.token(TOKEN.to_owned())).unwrap();
    let ended = client.run(limits::Still, &Device::cpu(), std::future::pending()).await;
    ended.unwrap_err().to_string()
}

#[test]
fn a_server_with_another_certificate_is_not_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let here = certificates(&folder.path().join("here"), "127.0.0.1");
    let other = certificates(&folder.path().join("other"), "127.0.0.1");
    let config = tls::server(&here.join("server.pem"), &here.join("server.key")).unwrap();
    let server = serve_with(Options::default().tls(config));
    let port = server.address.port();
    let http = |authority: &Path, host: &str| {
        let url = format!("https://{host}:{port}");
        Http::new(&url, Some(&authority.join("ca.pem")), identity(1)).unwrap()
    };
    event_loop().block_on(async {
        let enroll = wire::Enroll { token: TOKEN.into() };
        let wire::Ack { .. } =
            post(&http(&here, "127.0.0.1"), "/v1/enroll", &enroll).await.unwrap();
        // Signed by another authority; for another name.
        for (authority, host) in [(&other, "127.0.0.1"), (&here, "localhost")] {
            let called: Result<wire::Ack, _> =
                post(&http(authority, host), "/v1/enroll", &enroll).await;
            let error = called.unwrap_err();
            assert_eq!(error.retry(), None, "{error}");
            assert!(error.to_string().contains("certificate for this name"), "{error}");
            let error =
                taking_part(&format!("https://{host}:{port}"), Some(authority.as_path())).await;
            assert!(error.contains("certificate for this name"), "{error}");
        }
        // TLS on one side alone.
        let error = taking_part(&format!("http://{}", server.address), None).await;
        assert!(error.contains("which speaks TLS, expected https:// in its address"), "{error}");
        let without = serve(Limits::default());
        let error =
            taking_part(&format!("https://{}", without.address), Some(here.as_path())).await;
        assert!(error.contains("which speaks no TLS, expected http:// in its address"), "{error}");
    });
    // Files that don't belong together or are something else are named.
    let error = tls::server(&here.join("server.pem"), &other.join("server.key")).unwrap_err();
    assert!(error.to_string().contains("server.pem"), "{error}");
    let error = tls::server(&here.join("server.key"), &here.join("server.key")).unwrap_err();
    assert!(error.to_string().contains("certificates"), "{error}");
    assert!(tls::client(&folder.path().join("none.pem")).is_err());
    for name in ["https://localhost:8443", "my host", ""] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tern"));
        let refused =
            command.args(["certs", name, "--folder"]).arg(folder.path()).output().unwrap();
        assert!(!refused.status.success(), "{name}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("a host name or an IP address"));
    }
    // The authority signs again; keys are not overwritten.
    let again = Command::new(env!("CARGO_BIN_EXE_tern"))
        .args(["certs", "127.0.0.1", "--folder"])
        .arg(&here)
        .output()
        .unwrap();
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("server.key"));
    let _ = &server.folder;
}
