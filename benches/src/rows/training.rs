//! Rows of the optimizers: one dispatch over a whole model, bound by memory.

use tern_engine::Data;
use tern_shaders::kernels::optimizer::{
    ADAM, AMSGRAD, AVERAGE, Adam, Average, MEAN_OF_PARTS, MeanOfParts, NORM_PARTIAL, NormPartial,
    PROXIMAL, Proximal, SGD, SGD_PLAIN, Sgd, SgdPlain, norm_partials,
};
use tern_shaders::schedule::Schedule;
use tern_shaders::state::StateRecord;

use super::Size;
use super::recipe::{Recipe, case, floats, floats_by, repeated};

/// Rows of this family.
pub fn rows(size: Size) -> Vec<Recipe> {
    let n: u32 = size.pick(1 << 20, 1 << 24);
    let (offset, stride, scale, clipped, weight_decay, rate) = (0, n, 1.0, 0, 0.0, 1.0);
    let label = format!("{} Mi words", n >> 20);
    let vector = |key| floats(n as usize, key);
    let state = || {
        let record = StateRecord::new(1, 0..1, 1, u32::MAX, &Schedule::constant(1e-3));
        [Data::U32(record.to_vec()).into(), repeated([1.0], 1)]
    };
    // A second moment is a sum of squares.
    let squares = || floats_by(n as usize, |i| (i % 7) as f32 * 0.25);
    let mut cases = Vec::new();

    let p = SgdPlain { offset, n, stride, weight_decay, scale, clipped, rate };
    cases.push(case(&SGD_PLAIN, &label, &p, [vec![vector(1), vector(2)], state().into()].concat()));
    let p = Sgd {
        offset,
        n,
        stride,
        momentum: 0.9,
        fresh: 1.0,
        nesterov: 0,
        weight_decay,
        scale,
        clipped,
        rate,
    };
    let buffers = [vec![vector(1), vector(2), vector(3)], state().into()].concat();
    cases.push(case(&SGD, &label, &p, buffers));
    let p = Adam { offset, n, stride, epsilon: 1e-8, scale, clipped, rate, ..Adam::default() };
    let buffers = [vec![vector(1), vector(2), vector(3), squares()], state().into()].concat();
    let p = p.betas(0.9, 0.999);
    cases.push(case(&ADAM, &label, &p, buffers));
    let moments = vec![vector(1), vector(2), vector(3), squares()];
    let buffers = [moments, state().into(), vec![squares()]].concat();
    cases.push(case(&AMSGRAD, &label, &p, buffers));
    let p = Proximal { offset, n, stride, reference_stride: n, mu: 0.1 };
    cases.push(case(&PROXIMAL, &label, &p, vec![vector(1), vector(2), vector(3)]));
    let p = Average { offset, n, stride, fresh: 1e-3 };
    let [record, _] = state();
    cases.push(case(&AVERAGE, &label, &p, vec![vector(1), vector(2), record]));
    let p = MeanOfParts { offset, n, stride };
    cases.push(case(&MEAN_OF_PARTS, &label, &p, vec![repeated([8.0], 1), vector(2)]));
    let partials = norm_partials(n as usize);
    let p = NormPartial { offset, n, stride, partial_offset: 0, partial_stride: partials as u32 };
    cases.push(case(&NORM_PARTIAL, label, &p, vec![vector(2), floats(partials, 4)]));
    cases
}
