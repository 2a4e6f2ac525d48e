use crate::report::*;

/// A report of one device with a row of each outcome.
pub fn sample(seconds: f64) -> Report {
    let times = Times {
        median: seconds,
        least: 0.875 * seconds,
        most: 1.25 * seconds,
        quartiles: [0.96875 * seconds, 1.03125 * seconds],
        runs: 9,
    };
    let timed = Timed {
        variant: Some("tiled_64x64".into()),
        error: 1e-7,
        times,
        alone: seconds,
        clock: "wall".into(),
        rate: 1.0 / seconds,
        unit: "GFLOP/s".into(),
        share: Some(0.5),
    };
    let row =
        |kernel: &str, outcome| Row { kernel: kernel.into(), sizes: "8 × 8".into(), outcome };
    let training = Training {
        workload: "mlp".into(),
        sizes: "4-3-2".into(),
        parameters: 23,
        step: times,
        streamed: times,
        losses: [1.0, 0.5],
        dispatches: 9,
        submits: [4, 4],
        bytes_bound: 1024,
        created_later: 0,
        memory: [4096, 4096],
        kernels: vec![KernelTime { kernel: "matmul/nn".into(), calls: 2, seconds: 0.5 * seconds }],
        between: 0.25 * seconds,
    };
    let replicas = |replicas, step: Option<Times>| Replicas {
        workload: "mlp".into(),
        replicas,
        tile: replicas,
        step,
        growth: step.map(|_| replicas as f64),
        reason: if step.is_some() { String::new() } else { "too slow".into() },
    };
    Report {
        schema: SCHEMA,
        tool: "tern-benches".into(),
        commit: "0123456789ab".into(),
        time: 1_700_000_000,
        quick: false,
        host: Host { os: "linux".into(), arch: "x86_64".into(), cpu: "A < B".into(), cores: 2 },
        devices: vec![Device {
            adapter: Adapter {
                name: "Test GPU (rev 1)".into(),
                kind: "discrete".into(),
                backend: "Vulkan".into(),
                driver: "1.0".into(),
                max_binding: Some(1 << 30),
                max_buffer: None,
                workgroup_memory: 32768,
                invocations: 1024,
                subgroups: [32, 32],
                features: vec!["SUBGROUP".into()],
            },
            vectors: None,
            roofline: Some(Roofline {
                bandwidth: Some(1e11),
                single: Some(1e12),
                half: None,
                dispatch: 1e-6,
                submit: 1e-5,
                read_back: 1e-4,
                faults: Vec::new(),
            }),
            self_tests: vec![SelfTest {
                kernel: "half/nt".into(),
                variant: "f16".into(),
                features: "F16".into(),
                outcome: "not run".into(),
                reason: "the device has no F16".into(),
            }],
            choices: Vec::new(),
            checks: Vec::new(),
            kernels: vec![
                row("matmul/nn", Outcome::Timed(timed)),
                row("matmul/nt", Outcome::Failed { reason: "c[0] is 1".into() }),
                row("matmul/tn", Outcome::NotRun { reason: "none fits".into() }),
            ],
            training: vec![training],
            replicas: vec![replicas(1, Some(times)), replicas(512, None)],
            pairs: vec![Pair {
                group: "lstm".into(),
                what: "lstm".into(),
                sizes: "1 × 2 × 3".into(),
                ours: times,
                theirs: Some(Times { median: 1.5 * seconds, ..times }),
                rate: 2.0,
                share: Some(0.25),
            }],
        }],
        peers: vec![Peer {
            peer: "Other 1.0".into(),
            kinds: vec!["discrete".into()],
            seconds: [("mlp".to_string(), 2.0 * seconds)].into(),
        }],
    }
}

#[test]
fn a_report_survives_its_file() {
    // A power of two, so that all numbers are short.
    let report = sample(1.0 / 1024.0);
    let text = serde_json::to_string(&report).unwrap();
    let back: Report = serde_json::from_str(&text).unwrap();
    assert_eq!(text, serde_json::to_string(&back).unwrap());
    assert_eq!(report.faults(), 1);
}

#[test]
fn threads_and_vectors_survive_and_old_reports_lack_them() {
    let mut report = sample(1.0);
    let old = serde_json::to_string(&report).unwrap();
    assert!(!old.contains("vectors"));
    report.devices[0].vectors = Some(Vectors { isa: "avx512".into(), threads: 2 });
    let text = serde_json::to_string(&report).unwrap();
    let back: Report = serde_json::from_str(&text).unwrap();
    assert_eq!(back.devices[0].vectors, report.devices[0].vectors);
    assert_eq!(back.devices[0].pairs[0].ratio(), Some(1.5));
}

#[test]
fn other_schemas_are_refused_by_number() {
    let path = std::env::temp_dir().join(format!("tern-schema-{}.json", std::process::id()));
    let later = serde_json::to_string(&Report { schema: SCHEMA + 1, ..sample(1.0) }).unwrap();
    for (text, schema) in [(later.as_str(), SCHEMA + 1), ("{\"schema\": 1, \"roof\": 2}", 1)] {
        std::fs::write(&path, text).unwrap();
        let message = Report::read(&path).unwrap_err().to_string();
        assert!(message.contains(&format!("has schema {schema}, ")), "{message}");
    }
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn the_roofline_is_the_slower_of_moving_and_computing() {
    let roofline = sample(1.0).devices[0].roofline.clone().unwrap();
    assert_eq!(roofline.least(0, 1_000_000_000, false), Some(0.01));
    assert_eq!(roofline.least(1_000_000_000_000, 1_000, false), Some(1.0));
    assert_eq!(roofline.least(1, 1, true), None);
}

#[test]
fn a_share_above_the_roofline_is_not_shown_as_a_number() {
    use crate::pages::view::of_roofline;
    assert_eq!([0.0, 0.42, 1.0, 5.41].map(of_roofline), ["0 %", "42 %", "100 %", "> 100 %"]);
    assert_eq!([1, 2].map(threads), ["1 thread", "2 threads"]);
}
