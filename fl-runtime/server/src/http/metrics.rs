//! Numbers for Prometheus, in the OpenMetrics text format.

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use tern_protocol::Refusal;

use super::routes::NO_BLOB;
use super::status::Board;

/// One label; values come from the program, never from a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Label(&'static str, &'static str);

impl EncodeLabelSet for Label {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        (self.0, self.1).encode(encoder.encode_label())
    }
}

/// A request's route and the class of its answer, `2xx` say.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: &'static str,
    status: &'static str,
}

/// What the server counts itself. What a run's state says is added when it is asked for.
pub(super) struct Metrics {
    registry: Registry,
    board: Board,
    /// Open connections.
    pub connections: Gauge,
    /// Bytes received, TLS included.
    pub received: Counter,
    /// Bytes sent, TLS included.
    pub sent: Counter,
    refused: Family<Label, Counter>,
    overtaken: Family<Label, Counter>,
    answered: Family<Answered, Counter>,
    seconds: Family<Label, Histogram, fn() -> Histogram>,
}

/// Whether a refusal of this name tells a client no more than that the round went on without it, or
/// which start of the server to sign for.
pub(super) fn is_overtaken(name: &str) -> bool {
    [NO_BLOB, "start"].contains(&name) || Refusal::OVERTAKEN.contains(&name)
}

fn latency() -> Histogram {
    // 1 ms to 65 s, which a long poll may take.
    Histogram::new(exponential_buckets(1e-3, 4.0, 9))
}

impl Metrics {
    pub fn new(board: Board) -> Self {
        let mut registry = Registry::with_prefix("tern");
        let connections = Gauge::default();
        registry.register("connections", "Open connections", connections.clone());
        let (received, sent) = (Counter::default(), Counter::default());
        let help = "Received on connections, TLS included";
        registry.register_with_unit("received", help, Unit::Bytes, received.clone());
        let help = "Sent on connections, TLS included";
        registry.register_with_unit("sent", help, Unit::Bytes, sent.clone());
        let refused = Family::default();
        let help = "What was refused, by the reason's name";
        registry.register("refused", help, refused.clone());
        let overtaken = Family::default();
        let help = "What came after its round had gone on, by the reason's name";
        registry.register("overtaken", help, overtaken.clone());
        let answered = Family::default();
        let help = "Requests answered, by route and class of status";
        registry.register("requests", help, answered.clone());
        let seconds = Family::new_with_constructor(latency as fn() -> Histogram);
        let help = "Time from a request's header to its answer's";
        registry.register_with_unit("request", help, Unit::Seconds, seconds.clone());
        Metrics {
            registry,
            board,
            connections,
            received,
            sent,
            refused,
            overtaken,
            answered,
            seconds,
        }
    }

    /// Counts a refusal, apart from those of what came too late.
    pub fn refused(&self, name: &'static str) {
        let counts = if is_overtaken(name) { &self.overtaken } else { &self.refused };
        counts.get_or_create(&Label("reason", name)).inc();
        self.board.refused(name);
    }

    /// Counts a request of a route.
    pub fn answered(&self, route: &'static str, status: u16, seconds: f64) {
        let status = match status / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        self.answered.get_or_create(&Answered { route, status }).inc();
        self.seconds.get_or_create(&Label("route", route)).observe(seconds);
    }

    /// All of it, with gauges (name, help, value) that describe the run.
    pub fn text(&self, run: &[(String, String, f64)]) -> String {
        let mut gauges = Registry::with_prefix("tern_run");
        for (name, help, value) in run {
            let gauge = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
            gauge.set(*value);
            gauges.register(name, help, gauge);
        }
        let (mut own, mut text) = (String::new(), String::new());
        // Writing to a string doesn't fail.
        let written = encode(&mut text, &gauges).and_then(|()| encode(&mut own, &self.registry));
        debug_assert!(written.is_ok());
        text.truncate(text.len() - "# EOF\n".len());
        text + &own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_in_the_text() {
        let metrics = Metrics::new(Board::new(0));
        metrics.refused("replayed");
        metrics.refused("replayed");
        // A straggler's.
        metrics.refused("late");
        metrics.answered("/v1/poll", 200, 0.01);
        metrics.sent.inc_by(17);
        let text = metrics.text(&[("round".into(), "Open round".into(), 3.0)]);
        for line in [
            "tern_refused_total{reason=\"replayed\"} 2",
            "tern_overtaken_total{reason=\"late\"} 1",
            "tern_requests_total{route=\"/v1/poll\",status=\"2xx\"} 1",
            "tern_request_seconds_count{route=\"/v1/poll\"} 1",
            "tern_sent_bytes_total 17",
            "tern_run_round 3.0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
        assert!(!text.contains("tern_refused_total{reason=\"late\"}"), "{text}");
        assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
    }
}
