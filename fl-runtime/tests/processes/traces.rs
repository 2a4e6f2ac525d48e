//! Traces of a fleet's rounds, as a collector of OpenTelemetry's has them from each process.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use super::fleet::Fleet;
use super::{CLEAR, Kind};

/// A collector's address, and what it is sent.
fn collector() -> (String, Receiver<ExportTraceServiceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, received) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let sender = sender.clone();
            std::thread::spawn(move || serve(stream.unwrap(), &sender));
        }
    });
    (address, received)
}

fn serve(mut stream: TcpStream, sender: &Sender<ExportTraceServiceRequest>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let (mut head, mut line) = (Vec::new(), String::new());
        while reader.read_line(&mut line).unwrap_or(0) > 2 {
            head.push(std::mem::take(&mut line).to_lowercase());
        }
        let Some(first) = head.first() else { return };
        assert!(first.starts_with("post /v1/traces "), "{head:?}");
        let length = head.iter().find_map(|line| line.strip_prefix("content-length:")).unwrap();
        let mut body = vec![0; length.trim().parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        sender.send(ExportTraceServiceRequest::decode(&body[..]).unwrap()).unwrap();
        let answer =
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer.as_bytes()).unwrap();
    }
}

fn text<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a str> {
    let value = &attributes.iter().find(|found| found.key == name)?.value.as_ref()?.value;
    let Some(Value::StringValue(text)) = value else { return None };
    Some(text)
}

fn number(span: &Span, name: &str) -> i64 {
    let found = span.attributes.iter().find(|found| found.key == name).unwrap();
    let Some(Value::IntValue(number)) = found.value.as_ref().unwrap().value else {
        panic!("{found:?}")
    };
    number
}

#[test]
fn a_round_is_one_trace_across_all_roles() {
    let kind = Kind { rounds: 3, minimum: CLEAR.clients, ..CLEAR };
    let Some(mut fleet) = Fleet::idle(&kind) else { return };
    let (address, received) = collector();
    fleet.collector = Some(address);
    (0..6).for_each(|at| fleet.start(at));
    let start = |i: usize| {
        fleet.place.start("client", &format!("client{i}.toml"), &format!("client{i}.log"))
    };
    let mut clients: Vec<_> = (0..kind.clients).map(start).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        client.ended_well(&format!("client {i}"));
    }
    // Beyond the end of the run; what they have yet is sent then.
    std::thread::sleep(Duration::from_millis(1500));
    fleet.stop();

    let mut traces: BTreeMap<Vec<u8>, Vec<(String, Span)>> = BTreeMap::new();
    for sent in received.try_iter().flat_map(|request| request.resource_spans) {
        let resource = sent.resource.unwrap_or_default().attributes;
        assert_eq!(text(&resource, "service.name"), Some("tern"));
        let role = text(&resource, "tern.role").unwrap();
        for span in sent.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            traces.entry(span.trace_id.clone()).or_default().push((role.into(), span));
        }
    }
    let mut committed = 0;
    for spans in traces.values() {
        let of = |name: &str| -> Vec<&(String, Span)> {
            spans.iter().filter(|(_, span)| span.name == name).collect()
        };
        let [(_, round)] = of("round")[..] else { panic!("{spans:?}") };
        assert!(round.parent_span_id.is_empty() && round.trace_id.len() == 16, "{round:?}");
        let ids: BTreeSet<&[u8]> = spans.iter().map(|(_, span)| &span.span_id[..]).collect();
        assert_eq!(ids.len(), spans.len());
        for (role, span) in spans {
            assert!(span.span_id == round.span_id || span.parent_span_id == round.span_id);
            assert!(round.start_time_unix_nano <= span.start_time_unix_nano, "{span:?}");
            assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:?}");
            // The leader may go on before another process has ended its span.
            let ends = role == "leader" && span.end_time_unix_nano > round.end_time_unix_nano;
            assert!(!ends && span.start_time_unix_nano <= round.end_time_unix_nano, "{span:?}");
            for field in ["tern.round", "tern.attempt"] {
                assert_eq!(number(span, field), number(round, field));
            }
        }
        assert!(of("finished").is_empty());
        let [(_, commit)] = of("commit")[..] else { continue };
        committed += 1;
        // The last round's ends with it, too, not with the process.
        let rest = round.end_time_unix_nano - commit.end_time_unix_nano;
        assert!(rest < 1_000_000_000, "{rest} ns");
        let roles: BTreeSet<&str> = spans.iter().map(|(role, _)| role.as_str()).collect();
        assert_eq!(roles, BTreeSet::from(["aggregator", "gateway", "leader"]));
        let [(_, close)] = of("close")[..] else { panic!("{spans:?}") };
        let parts = of("part");
        assert_eq!(parts.iter().map(|(_, part)| number(part, "tern.updates")).sum::<i64>(), 3);
        // In order.
        for (_, part) in parts {
            assert!(close.end_time_unix_nano <= part.start_time_unix_nano);
            assert!(part.start_time_unix_nano <= commit.start_time_unix_nano);
        }
        // A client may have asked again.
        let counted = |(_, span): &&&(String, Span)| {
            text(&span.attributes, "tern.outcome") == Some("counted")
        };
        let updates = of("update");
        assert_eq!(updates.iter().filter(counted).count(), kind.clients);
        for (_, update) in updates {
            assert!(number(update, "tern.bytes") > 0);
            assert!(update.start_time_unix_nano <= close.end_time_unix_nano);
        }
        assert!(!of("gather").is_empty() && !of("collect").is_empty(), "{spans:?}");
    }
    assert_eq!(committed, kind.rounds);
}
