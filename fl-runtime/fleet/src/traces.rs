//! Traces of rounds for OpenTelemetry (its protocol OTLP, by HTTP): what each process does in an
//! attempt, in one trace. Off unless the environment names a collector.
//!
//! The identifiers of an attempt's trace and of its first span, the leader's `round`, follow from the
//! run and the attempt: processes agree on them without a word.

use std::cell::Cell;
use std::sync::OnceLock;

use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, Sampler, SdkTracer, SdkTracerProvider, Span as SdkSpan,
};
use tern_protocol::{Digest, Error, Result, RunId, Turn};

/// What begins spans; empty where none are sent.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// What names a collector, by OpenTelemetry's specification: for traces, or for all that is exported.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"];

/// Sends the spans that are left when it goes.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Sends spans of this process, which has a role, to the collector that the environment names;
    /// `None` if it names none. To be called where no event loop runs.
    ///
    /// # Errors
    /// [`Error::Value`] for an address that is none, and for protocols beside `http/protobuf`.
    pub fn start(role: &str) -> Result<Option<Self>> {
        let named = |name: &&str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let Some(address) = ENDPOINTS.iter().find(|name| named(name).is_some()) else {
            return Ok(None);
        };
        if named(&"OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        for name in PROTOCOLS {
            if let Some(value) = named(&name).filter(|value| value != "http/protobuf") {
                return Err(Error::value(name, value, "http/protobuf"));
            }
        }
        tern_host::tls::install_provider();
        let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary);
        let exporter = exporter.build().map_err(|error| {
            let given = named(address).unwrap_or_default();
            Error::value(*address, given, format!("what an exporter can be made of: {error}"))
        })?;
        let mut resource =
            Resource::builder().with_attribute(KeyValue::new("tern.role", role.to_owned()));
        if named(&"OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("tern");
        }
        let provider = SdkTracerProvider::builder()
            // A process can't tell whether another one sends its spans of a trace: all are sent.
            .with_sampler(Sampler::AlwaysOn)
            .with_id_generator(Ids(RandomIdGenerator::default()))
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .build();
        // A second one in a process would send nothing.
        let _ = TRACER.set(provider.tracer("tern"));
        Ok(Some(Traces(provider)))
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "sending the last spans");
        }
    }
}

thread_local! {
    /// What the next span on this thread without a parent is to be.
    static NEXT: Cell<Option<(TraceId, SpanId)>> = const { Cell::new(None) };
}

/// Identifiers at random, but for first spans.
#[derive(Debug)]
struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        NEXT.get().map_or_else(|| self.0.new_trace_id(), |(trace, _)| trace)
    }

    fn new_span_id(&self) -> SpanId {
        NEXT.get().map_or_else(|| self.0.new_span_id(), |(_, span)| span)
    }
}

fn ids(run: RunId, turn: Turn) -> (TraceId, SpanId) {
    let named = [b"trace", &run.0[..], &turn.round.to_le_bytes(), &turn.attempt.to_le_bytes()];
    let Digest(bytes) = Digest::of(&named.concat());
    let trace: [u8; 16] = std::array::from_fn(|at| bytes[at]);
    let span: [u8; 8] = std::array::from_fn(|at| bytes[16 + at]);
    (TraceId::from_bytes(trace), SpanId::from_bytes(span))
}

/// What is done in an attempt, until this is dropped; nothing where no spans are sent.
pub(crate) struct Span(Option<SdkSpan>);

impl Span {
    /// Begins one in an attempt's trace.
    pub fn begin(run: RunId, turn: Turn, name: &'static str) -> Self {
        Span(TRACER.get().map(|tracer| {
            let (trace, first) = ids(run, turn);
            let state = TraceState::default();
            let first = SpanContext::new(trace, first, TraceFlags::SAMPLED, true, state);
            begun(tracer, turn, name, &Context::new().with_remote_span_context(first))
        }))
    }

    /// Begins an attempt's first one.
    fn first(run: RunId, turn: Turn) -> Self {
        Span(TRACER.get().map(|tracer| {
            NEXT.set(Some(ids(run, turn)));
            let span = begun(tracer, turn, "round", &Context::new());
            NEXT.set(None);
            span
        }))
    }

    /// Says more of it.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new(name, value));
        }
    }
}

fn begun(tracer: &SdkTracer, turn: Turn, name: &'static str, parent: &Context) -> SdkSpan {
    let number = |name, value: u32| KeyValue::new(name, i64::from(value));
    let of = [number("tern.round", turn.round), number("tern.attempt", turn.attempt)];
    tracer.build_with_context(tracer.span_builder(name).with_attributes(of), parent)
}

/// The spans of attempts and of their phases, as a leader sees them.
pub(crate) struct Rounds {
    run: RunId,
    epoch: i64,
    open: Option<Open>,
}

struct Open {
    turn: Turn,
    phase: &'static str,
    // They end as they are dropped, in this order.
    #[expect(dead_code, reason = "it ends when it is dropped")]
    of_phase: Span,
    of_attempt: Span,
}

impl Rounds {
    pub fn new(run: RunId, epoch: i64) -> Self {
        Rounds { run, epoch, open: None }
    }

    /// Begins a span in an attempt's trace.
    pub fn span(&self, turn: Turn, name: &'static str) -> Span {
        Span::begin(self.run, turn, name)
    }

    /// Ends spans and begins others, if an attempt or a phase is another; a run that is over has none.
    /// Phases that are over before a leader looks have no span.
    pub fn look(&mut self, open: Option<(Turn, &'static str)>) {
        let Some((turn, phase)) = open else { return self.open = None };
        let of_attempt = match self.open.take() {
            Some(open) if (open.turn, open.phase) == (turn, phase) => {
                self.open = Some(open);
                return;
            }
            Some(open) if open.turn == turn => open.of_attempt,
            _ => {
                let mut span = Span::first(self.run, turn);
                span.set("tern.epoch", self.epoch);
                span
            }
        };
        let of_phase = self.span(turn, phase);
        self.open = Some(Open { turn, phase, of_phase, of_attempt });
    }
}
