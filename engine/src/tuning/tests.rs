use tern_shaders::kernels::matmul::{Gemm, NN, NT, TN};
use tern_shaders::kernels::pointwise::SCALE;

use super::table::{SHIPPED, parse, rows};
use super::*;
use crate::device::Call;
use crate::ops::noise;
use crate::ops::testing::software;
use crate::{Arena, Device, Element, Flat, Graph, Init, Kind, Parameters, Trainable};

fn gemm(m: u32, n: u32, k: u32) -> Gemm {
    Gemm { m, n, k, a_row: k, b_row: n, c_row: n, splits: 1, ..Gemm::default() }
}

fn class_of(kernel: &AnyKernel, p: &Gemm) -> String {
    class(kernel, &bytemuck::pod_collect_to_vec::<_, u32>(&[*p])).unwrap()
}

#[test]
fn a_class_depends_on_sizes_and_alignment_alone() {
    assert_eq!(class_of(&NN, &gemm(10, 1000, 256)), "10x1024x256 v4 v4");
    assert_eq!(class_of(&NN, &gemm(10, 999, 256)), "10x1024x256 v4 words");
    // Where a replica's operands lie, as long as it's a multiple of four words.
    let moved = Gemm { a_offset: 64, a_stride: 4096, b_stride: 12, ..gemm(10, 1000, 256) };
    assert_eq!(class_of(&NN, &moved), class_of(&NN, &gemm(10, 1000, 256)));
    let odd = Gemm { a_offset: 1, ..moved };
    assert_eq!(class_of(&NN, &odd), "10x1024x256 words v4");
    assert_eq!(class_of(&TN, &gemm(9, 8, 8)), "9x8x8 words v4");
    assert_eq!(class_of(&NT, &Gemm { b_row: 8, ..gemm(8, 9, 8) }), "8x9x8 v4 v4");
    assert_eq!(class(&SCALE, &[1, 2, 3]), None);
}

#[test]
fn shipped_choices_name_variants() {
    for row in rows(SHIPPED) {
        let (adapter, choice) = row.split_once('\t').unwrap();
        assert!(!adapter.is_empty() && parse(choice, Source::Shipped).is_some(), "{row}");
        let (name, class) =
            (choice.split('\t').next().unwrap(), choice.split('\t').nth(1).unwrap());
        assert!(table::KERNELS.contains(&name) || class.starts_with("walk"), "{row}");
    }
}

#[test]
fn choices_outlive_the_process_but_not_their_shaders() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = Device::cpu().summary();
    let open = |mode| Table::open(Some(folder.path()), mode, &adapter);
    let mut table = open(Tuning::Table);
    assert!(table.all().is_empty(), "nothing is shipped for the CPU");
    let (kernel, class) = (NN.name, "8x8x8 v4 v4".to_string());
    let variant = NN.variants[1].name;
    let choice =
        Choice { kernel, class: class.clone(), variant, source: Source::Measured, seconds: None };
    table.insert(choice);
    table.save();
    assert_eq!(open(Tuning::Table).get(kernel, &class), Some(variant));
    assert_eq!(open(Tuning::Measure).all()[0].source, Source::Cache);
    assert_eq!(open(Tuning::Off).get(kernel, &class), None);
    let file = std::fs::read_dir(folder.path().join("tuning")).unwrap().next().unwrap().unwrap();
    let text = std::fs::read_to_string(file.path()).unwrap();
    std::fs::write(file.path(), text.replace("shaders ", "shaders 0")).unwrap();
    assert_eq!(open(Tuning::Table).get(kernel, &class), None);
}

#[test]
fn modes_are_read_from_text() {
    assert_eq!("measure".parse::<Tuning>().unwrap(), Tuning::Measure);
    assert!("on".parse::<Tuning>().unwrap_err().to_string().contains("TERN_TUNE is on"));
}

/// A product of `replicas` models, and what it computes.
fn products(device: &Device, seeds: &[u32], tune: bool) -> (Vec<Choice>, Vec<f32>) {
    let mut parameters = Parameters::new();
    let w = parameters.add("w", &[72, 64], Init::Uniform(1.0)).unwrap();
    let arena = Arena::new(device, &parameters, seeds).unwrap();
    let mut g = Graph::new(&arena);
    let x = g.input("x", &[20, 64], Element::F32);
    let y = g.linear(x, &w, None, crate::Activation::Identity).unwrap();
    let dy = g.constant(1.0, &[20, 72]);
    g.keep(y);
    let (mut plan, _) = g.gradients(&[(y, dy)], &Trainable::All, &[]).unwrap();
    let choices = if tune { plan.tune(false).unwrap() } else { Vec::new() };
    let crate::Data::F32(one) = noise(20 * 64, 1.0, 3) else { unreachable!("noise is floats") };
    plan.write(x, &crate::Data::F32(one.repeat(seeds.len()))).unwrap();
    plan.run(1).unwrap();
    assert!(plan.tune(true).is_err(), "a plan that has run is fixed");
    let crate::Data::F32(mut found) = plan.read(y).unwrap() else { unreachable!("floats") };
    for replica in 0..seeds.len() {
        found.extend(arena.read(Flat::Gradients, replica).unwrap());
    }
    (choices, found)
}

/// What was measured is used, gives the same bits in every run, and the same for models side
/// by side as for each alone.
#[test]
fn measured_choices_are_repeatable() {
    let options = |portable| crate::DeviceOptions {
        select: crate::Select::Kind(Kind::Software),
        portable,
        checked: true,
        ..Default::default()
    };
    // Devices of their own: a choice holds for all plans of a device.
    for (portable, _) in [false, true].into_iter().zip(software()) {
        let device = pollster::block_on(Device::open(&options(portable))).unwrap();
        let (choices, first) = products(&device, &[1], true);
        let kernels: Vec<&str> = choices.iter().map(|c| c.kernel).collect();
        assert_eq!(kernels, [NT.name, TN.name]);
        assert_eq!(device.choices(), choices);
        let (again, second) = products(&device, &[1], true);
        assert!(again.is_empty(), "chosen once");
        assert_eq!(first, second);
        let (y, gradients) = first.split_at(20 * 72);
        let (_, both) = products(&device, &[1, 2], false);
        assert_eq!(&both[..y.len()], y);
        assert_eq!(&both[2 * y.len()..][..gradients.len()], gradients);
    }
}

/// Both ways to walk a sequence are measured, and the faster one is what graphs record.
#[test]
fn the_faster_walk_is_taken() {
    for (_, device) in software() {
        let sizes = [3, 2, 8];
        let choice = pollster_wait(device, sizes);
        let walked = choice.kernel == lstm::SEQUENCE_FORWARD.name;
        let [own, other] = choice.seconds.unwrap();
        assert!(own <= other && choice.class.starts_with("walk of 3 steps, batch 2 hidden 8"));
        assert_eq!(device.walks_lstm(sizes, false), None, "software devices don't choose");
        assert!(device.tune_lstm(sizes, false).unwrap().is_none());
        let crate::device::Backend::Gpu(gpu) = &*device.0 else { unreachable!("a GPU") };
        gpu.tuned().insert(choice);
        assert_eq!(device.walks_lstm(sizes, false), Some(walked));
        assert_eq!(device.walks_lstm([3, 3, 8], false), None);
    }
}

fn pollster_wait(device: &Device, sizes: [u32; 3]) -> Choice {
    device.wait(device.faster_walk(sizes, false)).unwrap().unwrap()
}

/// Candidates are measured at the call's sizes with operands of their own.
#[test]
fn every_measured_kernel_gets_a_case() {
    for case in crate::ops::cases() {
        let Some(class) = class(case.kernel, &case.params) else { continue };
        assert!(table::KERNELS.contains(&case.kernel.name), "{}", case.kernel.name);
        if case.flops > 1 << 20 {
            continue;
        }
        let call = Call {
            kernel: case.kernel,
            label: class,
            params: case.params.clone(),
            slots: Vec::new(),
            replicas: 1,
            variant: None,
        };
        let own = measure::case(call.kernel, &call.params).unwrap();
        own.check(&Device::cpu()).unwrap();
    }
}
