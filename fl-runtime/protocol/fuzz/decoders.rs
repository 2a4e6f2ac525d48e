//! Every decoder of what comes from outside, on arbitrary bytes: none may panic, and what one
//! takes must come back the same. Shared by the fuzz targets and the test that replays their
//! corpus.

use std::sync::LazyLock;

use prost::Message;
use tern_engine::nn::ModelSpec;
use tern_protocol::auth::{Credentials, HOST, KEY, NONCE, RUN, SIGNATURE, START, TIME};
use tern_protocol::coordinator::{Draw, Event};
use tern_protocol::layout::ModelKind;
use tern_protocol::update::{Format, Kind, add_difference};
use tern_protocol::{Layout, StrategyState, TaskSpec, wire};
use tern_secagg::Packing;

/// Messages of the protocol, and the journal's events.
pub fn wire(data: &[u8]) {
    fn again<M: Message + Default + PartialEq>(data: &[u8]) {
        if let Ok(message) = M::decode(data) {
            let bytes = message.encode_to_vec();
            let decoded = M::decode(bytes.as_slice()).map(|m| m.encode_to_vec());
            assert_eq!(decoded.as_deref(), Ok(bytes.as_slice()));
        }
    }
    again::<wire::Enroll>(data);
    again::<wire::Run>(data);
    again::<wire::Poll>(data);
    again::<wire::Refused>(data);
    again::<wire::Received>(data);
    again::<wire::Finish>(data);
    again::<wire::Instruction>(data);
    again::<wire::Message>(data);
    again::<wire::Snapshot>(data);
    if let Ok(draw) = Draw::from_bytes(data) {
        assert_eq!(Draw::from_bytes(&draw.to_bytes()).as_ref(), Ok(&draw));
    }
    if let Ok(journaled) = wire::Journaled::decode(data) {
        let now = journaled.now;
        if let Ok(event) = Event::from_wire(journaled) {
            let bytes = event.to_wire(now).encode_to_vec();
            let read = wire::Journaled::decode(bytes.as_slice()).map(Event::from_wire);
            let read = read.expect("what was encoded").expect("what was an event");
            assert_eq!(read.to_wire(now).encode_to_vec(), bytes);
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        // A server's task, as a client reads it.
        let _ = serde_json::from_str::<TaskSpec>(text).map(|task| Layout::of(&task.model).is_ok());
    }
}

static LAYOUT: LazyLock<Layout> = LazyLock::new(|| {
    Layout::of(&ModelKind::Layers(ModelSpec::mlp(3, &[4], 2))).expect("a small model")
});

/// Bodies: the first byte chooses the format, the rest is the body.
pub fn update(data: &[u8]) {
    let Some((first, body)) = data.split_first() else { return };
    let bound = if first & 4 == 0 { f32::MAX } else { 2.0 };
    let kind = match first % 4 {
        0 => Kind::Full,
        1 => Kind::Half,
        2 => Kind::Ternary,
        _ => Kind::Masked(Packing::new(LAYOUT.elements() / 4, 7).expect("a small vector")),
    };
    let format = Format::new(kind, &LAYOUT, bound);
    let checked = format.check(body).is_ok();
    // A body is checked and decoded by the same rules.
    if !matches!(kind, Kind::Masked(_)) {
        let decoded = format.decode(body);
        assert_eq!(checked, decoded.is_ok());
        if let Ok(values) = decoded {
            assert_eq!(values.len(), LAYOUT.elements());
            assert!(values.iter().all(|x| x.abs() <= bound));
        }
    }
    let base = vec![1.0; LAYOUT.elements()];
    let _ = add_difference(&LAYOUT, &base, body);
}

/// Headers, one a line in the order of their names' constants, then a body.
pub fn auth(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines: Vec<&str> = text.splitn(8, '\n').collect();
    let names = [KEY, HOST, RUN, TIME, NONCE, SIGNATURE, START];
    let header = |name: &'static str| {
        let at = names.iter().position(|other| *other == name)?;
        // An empty line is a header that isn't there.
        lines.get(at).copied().filter(|value| !value.is_empty())
    };
    if let Ok(credentials) = Credentials::parse(header) {
        let headers = credentials.headers();
        let written = |name: &'static str| {
            headers.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str())
        };
        assert_eq!(Credentials::parse(written), Ok(credentials.clone()));
        let body = lines.get(7).copied().unwrap_or("");
        let _ = credentials.verify("POST", "/v1/poll", body.as_bytes());
    }
}

/// Strategies' states, as the server stores them.
pub fn strategy(data: &[u8]) {
    if let Some(state) = StrategyState::from_bytes(data) {
        let bytes = state.to_bytes();
        let again = StrategyState::from_bytes(&bytes).expect("what was encoded");
        assert_eq!(again.to_bytes(), bytes);
    }
}
