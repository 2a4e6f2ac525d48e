use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use tern_engine::Device;
use tern_fl::layout::ModelKind;
use tern_fl::plan::Encoding;
use tern_fl::server::local;
use tern_fl::simulate::Downlink;

use super::arms::ARMS;
use super::data::Data;
use super::options::{Options, Scale};
use super::run::run;
use super::train;
use crate::text::bundled;

const SCALE: Scale = Scale { rounds: 6, steps: 3, cohort: 3, batch: 8, hidden: 4, every: 3 };

/// Customers of four terminals who own one or two of three products.
fn table() -> String {
    let mut text = String::from("town,MAGE,PCAR,PFIRE,PBOAT,ACAR,Purchase\n");
    for i in 0..120 {
        let [car, fire, boat] =
            [i % 3 != 2, i % 3 != 0, i % 7 == 0].map(|owns| 3 * i32::from(owns));
        writeln!(text, "t{},{},{car},{fire},{boat},1,No", i % 4, 3 * (i % 3)).unwrap();
    }
    text
}

fn file(folder: &Path, text: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join("customers.csv");
    fs::write(&path, text).unwrap();
    path
}

fn load(text: impl AsRef<[u8]>) -> anyhow::Result<Data> {
    let folder = tempfile::tempdir().unwrap();
    Data::load(&file(folder.path(), text))
}

#[test]
fn customers_of_a_subtype_are_a_terminal_and_some_of_each_are_held_out() {
    let data = Data::load(&bundled("coil2000.csv.gz").unwrap()).unwrap();
    assert_eq!((data.customers.len(), data.products.len()), (5822, 21));
    assert_eq!((data.terminals.len(), data.refused.len()), (40, 0));
    assert_eq!(data.width(), 42 + 2 * 21);
    for terminal in &data.terminals {
        let trains = |customer| terminal.training.iter().any(|s| s.customer == customer);
        assert!(terminal.held_out.iter().all(|sample| !trains(sample.customer)));
    }
    let (training, held_out): (Vec<_>, _) =
        (data.terminals.iter().flat_map(|t| &t.training).collect(), data.held_out());
    assert!(held_out.len() * 5 > training.len(), "{} {}", held_out.len(), training.len());
    // Products are masked where they are the target, and only there.
    for sample in training.iter().step_by(97) {
        let features = data.customers[sample.customer].features(Some(sample.product));
        let whole = data.customers[sample.customer].features(None);
        let differ = (0..features.len()).filter(|at| features[*at] != whole[*at]);
        assert_eq!(differ.collect::<Vec<_>>(), [42 + sample.product, 63 + sample.product]);
    }
}

#[test]
fn a_bad_line_costs_its_terminal_alone() {
    let bad = table().replacen("t2,6,0,3,0,1,No", "t2,6,zero,3,0,1,No", 1);
    let data = load(&bad).unwrap();
    assert_eq!(data.terminals.len(), 3);
    let [(name, reason)] = &data.refused[..] else { panic!("{:?}", data.refused) };
    assert_eq!(name, "t2");
    assert!(reason.contains("customers.csv:4: PCAR is `zero`"), "{reason}");
    let nothing = table() + "t9,1,0,0,0,1,No\n";
    let data = load(&nothing).unwrap();
    assert_eq!((data.terminals.len(), data.refused[0].0.as_str()), (4, "t9"));
    let reason = &data.refused[0].1;
    assert!(reason.contains("customers.csv:122: no customer with a product"), "{reason}");
    // One product says nothing of the others; a line of nobody's is left out alone.
    let one = table() + ",1,3,3,0,1,No\nt9,1,3,0,0,1,No\nt9,2,3,0,0,1,No\n";
    let data = load(&one).unwrap();
    let [(name, reason)] = &data.refused[..] else { panic!("{:?}", data.refused) };
    assert_eq!((data.terminals.len(), name.as_str()), (4, "t9"));
    assert!(reason.contains("customers.csv:123: all 2 samples to train on"), "{reason}");
    let [line] = &data.left_out[..] else { panic!("{:?}", data.left_out) };
    assert!(line.contains("customers.csv:122: no terminal"), "{line}");
}

#[test]
fn values_may_be_in_quotes() {
    let quoted = table().replacen("town,MAGE", "\"town\",\"MAGE\"", 1);
    let quoted = quoted.replacen("t0,0,3,0,3,1,No", "\"t0\",\"0\",\"3\",0,3,1,\"No, thanks\"", 1);
    assert!(quoted.contains("No, thanks"), "{quoted}");
    assert_eq!(load(quoted).unwrap(), load(table()).unwrap());
}

/// A quote that isn't closed, or bytes that aren't UTF-8: their terminal is left out if the line
/// says which it is, else the line alone.
#[test]
fn a_line_that_is_no_text_costs_its_terminal_alone() {
    let mut text = table().replacen("t2,6,0,3,0,1,No", "t2,\"6,0,3,0,1,No", 1).into_bytes();
    text.extend(b"t3,6,0,3,0,1,\xff\n\xff,6,0,3,0,1,No\n");
    text.extend(table().replace('t', "u").split_once('\n').unwrap().1.bytes());
    let data = load(text).unwrap();
    let names: Vec<&str> = data.terminals.iter().map(|terminal| terminal.name.as_str()).collect();
    assert_eq!(names, ["t0", "t1", "u0", "u1", "u2", "u3"]);
    let expected = [
        ("t2", "customers.csv:4: a quote that isn't closed"),
        ("t3", "customers.csv:122: not UTF-8"),
    ];
    assert_eq!(data.refused.len(), expected.len());
    for ((who, why), (name, part)) in data.refused.iter().zip(expected) {
        assert!(who == name && why.ends_with(part), "{who}: {why}");
    }
    let [line] = &data.left_out[..] else { panic!("{:?}", data.left_out) };
    assert!(line.contains("customers.csv:123: not UTF-8"), "{line}");
    let header = load(b"town,\"MAGE\n").unwrap_err().to_string();
    assert!(header.contains("customers.csv: line 1: a quote"), "{header}");
}

#[test]
fn files_that_are_no_use_are_errors_that_name_the_line() {
    let header = "town,MAGE,PCAR,PFIRE\n";
    let few = format!("{header}a,1,1,0\nb,1,1\nb,2,0,1\n");
    for (text, expected) in [
        ("", "customers.csv: line 1: empty"),
        ("town,MAGE,PCAR\n", "customers.csv: 1 columns `P...`"),
        (&format!("{header},1,1,1\n"), "customers.csv:2: no terminal"),
        (&few, "customers.csv:3: 3 values, expected 4"),
        (&format!("{header}a,1,-1,0\n"), "customers.csv:2: PCAR is -1"),
        (&format!("{header}a,1,1,1\nb,1,1,1\nc,1,1,1\n"), "no terminal has 5 customers"),
    ] {
        let error = load(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}, expected {expected}");
    }
    let missing = Data::load(Path::new("no/such.csv")).unwrap_err().to_string();
    assert!(missing.contains("no/such.csv"), "{missing}");
}

/// The bytes that a simulation counts are those that clients of the protocol send and fetch.
#[test]
fn simulated_bytes_are_those_of_the_protocol() {
    let (device, data) = (Device::cpu(), load(table()).unwrap());
    for arm in ARMS.iter().filter(|arm| !arm.secure) {
        let plan = arm.plan(&ModelKind::Layers(train::spec(&data, &SCALE)), &SCALE, 3);
        let folder = tempfile::tempdir().unwrap();
        let options = local::Options::new(&device, folder.path());
        let mut clients = train::clients(&data, &device).unwrap();
        let mut downlink = Downlink::new(&plan).unwrap();
        let mut up = 0;
        local::run(&plan, None, &mut clients, options, |round, _| {
            let cohort = round.counted.iter().map(|upload| upload.client).collect();
            assert_eq!(round.traffic.downloaded, downlink.round(cohort), "{}", arm.name);
            up += round.traffic.uploaded;
        })
        .unwrap();
        let simulated = train::run(arm, &data, &SCALE, 3, &device).unwrap();
        assert_eq!((simulated.up * 6.0).round() as u64, up, "{}", arm.name);
        if arm.downlink == Encoding::Full {
            let down = (simulated.down * 6.0).round() as usize;
            assert_eq!(down, 18 * 4 * simulated.model.len());
        }
    }
}

#[test]
fn ternary_updates_are_a_fraction_of_full_ones_and_learn() {
    let (device, data) = (Device::cpu(), load(table()).unwrap());
    let scale = Scale { rounds: 40, hidden: 64, cohort: 4, ..SCALE };
    let run = |at: usize| train::run(&ARMS[at], &data, &scale, 3, &device).unwrap();
    let (full, ternary, secure, gradient) = (run(0), run(1), run(3), run(5));
    assert!(ternary.up < full.up / 14.0, "{} {}", ternary.up, full.up);
    // Lanes of four bits, and what is measured.
    assert!(secure.up < full.up / 7.0 && secure.messages > Some(1000.0), "{}", secure.up);
    assert_eq!((ternary.down, ternary.messages), (full.down, None));
    for run in [&full, &ternary, &secure, &gradient] {
        let [first, .., last] = &run.curve[..] else { panic!("no curve") };
        assert!(last.hits.mrr > 0.85 && last.bytes > first.bytes, "{:?}", run.hits);
    }
}

#[test]
fn a_run_on_ones_own_customers_leaves_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let data = file(folder.path(), &(table() + "t9,1,0,x,0,1,No\n"));
    let report = folder.path().join("report");
    let paths = [data.to_str().unwrap(), report.to_str().unwrap()];
    let options = Options::parse_from([
        "recommender",
        "--quick",
        "--device",
        "cpu",
        "--rounds",
        "5",
        "--cohort",
        "4",
        "--seeds",
        "2",
        "--data",
        paths[0],
        "--out",
        paths[1],
    ]);
    let mut out = Vec::new();
    run(&options, &mut out).unwrap();
    let shown = String::from_utf8(out).unwrap();
    assert!(shown.contains("Terminal t9 does not take part") && shown.contains(":122: PFIRE"));
    for row in ["popularity", "full precision", "ternary delta + secure", "gradient, ternary"] {
        assert!(shown.contains(row), "{row} is missing in {shown}");
    }
    assert!(shown.contains(" ± ") && shown.contains("Their device recommends: "), "{shown}");
    for name in ["results.json", "rounds.svg", "bytes.svg", "model.safetensors"] {
        assert!(report.join(name).exists(), "{name}");
    }
    let json = fs::read(report.join("results.json")).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(value["arms"][3]["runs"].as_array().unwrap().len(), 2);
    assert_eq!(value["arms"][0]["runs"][1]["seed"], 2);
}
