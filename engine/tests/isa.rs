//! Every kernel on every instruction set that the processor has. A file of its own: the set is
//! one for the process.

use tern_engine::ops::cases;
use tern_engine::{Device, Isa};

#[test]
fn kernels_hold_on_every_instruction_set() {
    let device = Device::cpu();
    let mut faults = Vec::new();
    for case in cases() {
        let expected = case.expected();
        for isa in Isa::available() {
            isa.pin().unwrap();
            if let Err(e) = case.check_against(&device, &expected) {
                faults.push(format!("{isa}: {e}"));
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
