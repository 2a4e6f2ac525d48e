//! Who opens connections without end, and the protocol that isn't spoken.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use prost::Message as _;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use tern_fl::auth::Audience;
use tern_fl::client::Http;
use tern_fl::host::clock;
use tern_fl::host::tls::{self, ServerSide};
use tern_fl::server::http::{Limits, Options};
use tern_fl::wire;
use tokio::net::TcpSocket;

use super::{
    Running, TOKEN, audience, certificates, enrolled, event_loop, get, identity, raw, request,
    serve, serve_with, signed,
};

/// How a client says that it speaks HTTP/2 (RFC 9113, section 3.4), with empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[test]
fn http2_is_not_spoken() {
    let server = serve(Limits::default());
    // The connection ends; neither settings nor anything else of that protocol comes back.
    let (status, text) = raw(&server, PREFACE);
    assert!([0, 400].contains(&status) && !text.contains('\0'), "{text:?}");

    let folder = tempfile::tempdir().unwrap();
    let files = certificates(folder.path(), "127.0.0.1");
    let mut side = tls::server(&files.join("server.pem"), &files.join("server.key")).unwrap();
    // Whatever the host program would agree on.
    let mut config = rustls::ServerConfig::clone(&side.config);
    config.alpn_protocols = ["h2", "http/1.1"].map(|name| name.as_bytes().to_vec()).into();
    side.config = Arc::new(config);
    let server = serve_with(Options::default().tls(side));
    let connect = |offered: &[&str]| {
        let mut config = tls::client(&files.join("ca.pem")).unwrap();
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut tls = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let agreed = tls.complete_io(&mut stream);
        agreed.map(|_| (tls.alpn_protocol().map(<[u8]>::to_vec), StreamOwned::new(tls, stream)))
    };
    assert!(connect(&["h2"]).is_err());
    let (agreed, _) = connect(&["h2", "http/1.1"]).unwrap();
    assert_eq!(agreed.as_deref(), Some(b"http/1.1".as_slice()));
    // Without asking.
    let (agreed, mut stream) = connect(&[]).unwrap();
    assert_eq!(agreed, None);
    stream.write_all(PREFACE).unwrap();
    let mut bytes = Vec::new();
    let ended = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 400"), "{text:?}, {ended:?}");
    // It must have ended, with or without a word.
    let waits = |e: &std::io::Error| e.kind() == std::io::ErrorKind::WouldBlock;
    assert!(!ended.as_ref().is_err_and(waits), "{ended:?}");
}

/// What an attacker's connection begins with. Those that are answered ask again.
const BEGINNINGS: [&[u8]; 5] = [
    PREFACE,
    b"GET / HTTP/1.1\r\nhost: ",
    b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n",
    b"",
    b"\x16\x03\x01\x02\0\x01",
];

/// Opens connections from an address for as long as it runs, and holds as many as it can.
async fn attack(from: Ipv4Addr, to: SocketAddr, most: usize, opened: Arc<AtomicU32>) {
    let mut held: Vec<(usize, tokio::net::TcpStream)> = Vec::new();
    for number in 0.. {
        held.retain(|(kind, stream)| match stream.try_read(&mut [0; 1024]) {
            Ok(0) => false,
            Ok(_) => stream.try_write(BEGINNINGS[*kind]).is_ok(),
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        });
        if held.len() >= most {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let Ok(stream) = socket.connect(to).await else { continue };
        opened.fetch_add(1, Ordering::Relaxed);
        let kind = number % BEGINNINGS.len();
        if BEGINNINGS[kind].is_empty() || stream.try_write(BEGINNINGS[kind]).is_ok() {
            held.push((kind, stream));
        }
        tokio::task::yield_now().await;
    }
}

/// Attackers at these addresses of the machine, while `work` goes on until they have opened some
/// thousand connections.
fn attacked(server: &Running, from: &[Ipv4Addr], most: usize, mut work: impl FnMut(u32)) {
    let opened = Arc::new(AtomicU32::new(0));
    let attackers = event_loop();
    for from in from {
        attackers.spawn(attack(*from, server.address, most, opened.clone()));
    }
    let enough = 3_000;
    for turn in 0.. {
        if opened.load(Ordering::Relaxed) >= enough && turn >= 40 {
            break;
        }
        work(turn);
    }
    attackers.shutdown_background();
}

fn few_places() -> Limits {
    let mut limits = Limits::default();
    (limits.connections, limits.connections_per_address) = (64, 16);
    (limits.header_seconds, limits.guest_seconds) = (0.3, 0.5);
    (limits.requests_per_client, limits.requests_per_address) = (1e5, 1e5);
    limits
}

fn addresses(net: u8, count: u8) -> Vec<Ipv4Addr> {
    (2..2 + count).map(|number| Ipv4Addr::new(127, 0, net, number)).collect()
}

// Elsewhere the machine has one such address, not 2^24.
#[cfg(target_os = "linux")]
#[test]
fn a_few_addresses_that_open_connections_without_end_shut_nobody_out() {
    let server = serve(few_places());
    attacked(&server, &addresses(0, 8), 32, |_| {
        let (status, text) = get(&server, "/health");
        assert_eq!(status, 200, "{text}");
    });
    // And over TLS, with handshakes that don't go on.
    let folder = tempfile::tempdir().unwrap();
    let files = certificates(folder.path(), "127.0.0.1");
    let side = tls::server(&files.join("server.pem"), &files.join("server.key")).unwrap();
    let mut limits = few_places();
    limits.handshakes_per_address = 1_000.0;
    let server = serve_with(Options::default().tls(side).limits(limits));
    let url = format!("https://{}", server.address);
    let calls = event_loop();
    attacked(&server, &addresses(0, 8), 32, |_| {
        let http = Http::new(&url, Some(&files.join("ca.pem")), identity(1)).unwrap();
        calls.block_on(http.enroll(TOKEN)).unwrap();
    });
}

#[cfg(target_os = "linux")]
#[test]
fn many_addresses_that_open_connections_do_not_shut_enrolled_clients_out() {
    let server = serve(few_places());
    let client = identity(1);
    let poll = |_| {
        let body = wire::Poll { samples: 0, wait: 0, ..Default::default() }.encode_to_vec();
        let audience = audience(&server, "/v1/poll");
        let asked = ("POST", "/v1/poll", body.as_slice());
        let signed = client.sign_request(audience, asked, clock::now()).unwrap().headers();
        let headers: Vec<_> = signed.into_iter().map(|(name, v)| (name.to_owned(), v)).collect();
        let (status, text) = raw(&server, &request("/v1/poll", &headers, &body));
        assert_eq!(status, 200, "{text}");
    };
    event_loop().block_on(enrolled(&server, 1));
    poll(0);
    // As many addresses as places, and more.
    attacked(&server, &addresses(1, 100), 4, poll);
}

/// Asks on a connection that is kept, and reads the answer's header.
fn ask(stream: &mut TcpStream, request: &[u8]) -> String {
    stream.write_all(request).unwrap();
    let mut header = Vec::new();
    while !header.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        header.push(byte[0]);
    }
    let header = String::from_utf8(header).unwrap();
    let length = header.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    header
}

#[test]
fn a_connection_ends_that_is_idle_or_of_nobody_enrolled_for_long() {
    let mut limits = Limits::default();
    (limits.header_seconds, limits.guest_seconds) = (5.0, 0.05);
    let server = serve(limits);
    event_loop().block_on(enrolled(&server, 1));
    let kept = || {
        let stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    };
    let health = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n".as_slice();
    let poll = |nonce| {
        let body = wire::Poll::default().encode_to_vec();
        let headers = signed(&server, 1, "/v1/poll", &body, clock::now().0, nonce);
        let text = String::from_utf8(request("/v1/poll", &headers, &body)).unwrap();
        text.replace("connection: close\r\n", "").into_bytes()
    };
    let (mut guest, mut client) = (kept(), kept());
    assert!(ask(&mut client, &poll(1)).starts_with("HTTP/1.1 200"));
    let ends = (0..1_000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        let answer = ask(&mut guest, health);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer.contains("connection: close")
    });
    assert!(ends, "who asks again and again keeps its connection");
    assert_eq!(guest.read(&mut [0]).unwrap(), 0);
    // As old, and goes on, until it is idle.
    let answer = ask(&mut client, &poll(2));
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("close"), "{answer}");
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    let text = String::from_utf8_lossy(&rest);
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 408"), "{text}");
}

/// Whoever has a server's requests can't use them at another one.
#[test]
fn what_was_signed_for_one_server_is_taken_by_no_other() {
    let [a, b] = [(); 2].map(|()| serve(Limits::default()));
    for server in [&a, &b] {
        event_loop().block_on(enrolled(server, 1));
    }
    let body = wire::Poll::default().encode_to_vec();
    let sent = |to: &Running, target: &str, headers: &[(String, String)], body: &[u8]| {
        raw(to, &request(target, headers, body))
    };
    let time = clock::now().0;
    let target = "/v1/poll";
    let for_a = signed(&a, 1, target, &body, time, 1);
    let (status, text) = sent(&b, target, &for_a, &body);
    assert!(status == 421 && text.contains("\"host\""), "{text}");
    // By another name, or for another run: the signature is over both.
    for (header, own, name) in [
        ("tern-host", signed(&b, 1, target, &body, time, 1), "\"run\""),
        ("tern-run", for_a.clone(), "\"host\""),
    ] {
        let mut changed = for_a.clone();
        let value = own.iter().find(|(name, _)| name == header).unwrap().1.clone();
        changed.iter_mut().find(|(name, _)| name == header).unwrap().1 = value;
        let (_, text) = sent(&b, target, &changed, &body);
        assert!(text.contains(name), "{text}");
    }
    let both = [signed(&b, 1, target, &body, time, 1), for_a.clone()];
    let forged = both[0]
        .iter()
        .zip(&both[1])
        .map(|(of_b, of_a)| if of_b.0 == "tern-signature" { of_a.clone() } else { of_b.clone() });
    let forged: Vec<_> = forged.collect();
    let (status, text) = sent(&b, target, &forged, &body);
    assert!(status == 401 && text.contains("\"signature\""), "{text}");
    // What enrolls names no run, but the server.
    let enroll = wire::Enroll { token: TOKEN.into() }.encode_to_vec();
    let mut headers = signed(&a, 2, "/v1/enroll", &enroll, time, 2);
    let (status, text) = sent(&b, "/v1/enroll", &headers, &enroll);
    assert!(status == 421 && text.contains("\"host\""), "{text}");
    headers.retain(|(name, _)| name != "tern-host");
    let (status, text) = sent(&b, "/v1/enroll", &headers, &enroll);
    assert!(status == 401 && text.contains("\"header_missing\""), "{text}");
    // The one it was signed for takes it.
    assert_eq!(sent(&a, target, &for_a, &body).0, 200);
}

#[test]
fn a_server_behind_a_proxy_has_the_names_that_it_is_given() {
    let server = serve_with(Options::default().hosts(vec!["fl.example".into()]));
    let refused = event_loop().block_on(async {
        let http = Http::new(&format!("http://{}", server.address), None, identity(1)).unwrap();
        http.enroll(TOKEN).await.unwrap_err()
    });
    assert_eq!(refused.name(), Some("host"), "{refused}");
    let body = wire::Enroll { token: TOKEN.into() }.encode_to_vec();
    let target = "/v1/enroll";
    let audience = Audience { host: "fl.example".into(), ..audience(&server, target) };
    let headers = super::signed_for(audience, 1, target, &body, clock::now().0, 1);
    let (status, text) = raw(&server, &request(target, &headers, &body));
    assert!(status == 200 && text.contains("tern-run: "), "{text}");
}

#[test]
fn a_certificate_says_what_its_server_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let files = certificates(folder.path(), "127.0.0.1");
    let side: ServerSide =
        tls::server(&files.join("server.pem"), &files.join("server.key")).unwrap();
    assert!(side.is_for("127.0.0.1"));
    assert!(!["127.0.0.2", "localhost", "a.example", ""].into_iter().any(|n| side.is_for(n)));
}
