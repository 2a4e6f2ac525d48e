//! Embedding: whole rows instead of element by element.

use tern_shaders::cpu::embedding::{Gather, PADDING, ScatterAdd};
use tern_shaders::{Arg, TwinFn};

use super::parallel::rows;

pub(super) static TABLE: &[(&str, TwinFn<f32>)] =
    &[("embedding/gather", gather), ("embedding/scatter_add", scatter_add)];

fn gather(p: &[u8], _replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &Gather = bytemuck::from_bytes(p);
    let [parameters, token, y] = args else { unreachable!("three bindings") };
    let (parameters, token) = (parameters.real(), token.word());
    let (n, width) = (p.n as usize, p.width as usize);
    rows(y.real_mut(), width, width, |first, y| {
        for (i, y) in y.chunks_exact_mut(width).enumerate() {
            let at = first + i;
            let table = at / n * p.table_stride as usize + p.table_offset as usize;
            match token[at] {
                PADDING => y.fill(0.0),
                code => {
                    let row = code.min(p.vocabulary - 1) as usize;
                    y.copy_from_slice(&parameters[table + row * width..][..width]);
                }
            }
        }
    });
}

fn scatter_add(p: &[u8], replicas: usize, args: &mut [Arg<'_, f32>]) {
    let p: &ScatterAdd = bytemuck::from_bytes(p);
    let [link, dy, gradients] = args else { unreachable!("three bindings") };
    let (link, dy, gradients) = (link.word(), dy.real(), gradients.real_mut());
    let (n, width, vocabulary) = (p.n as usize, p.width as usize, p.vocabulary as usize);
    let work = width * (1 + n / vocabulary);
    for r in 0..replicas {
        let link = &link[r * (vocabulary + n)..][..vocabulary + n];
        let dy = &dy[r * n * width..][..n * width];
        let first = r * p.table_stride as usize + p.table_offset as usize;
        rows(&mut gradients[first..][..vocabulary * width], width, work, |first, table| {
            for (v, row) in table.chunks_exact_mut(width).enumerate() {
                if p.accumulate == 0 {
                    row.fill(0.0);
                }
                let mut j = link[first + v] as usize;
                while j < n {
                    for (sum, dy) in row.iter_mut().zip(&dy[j * width..][..width]) {
                        *sum += dy;
                    }
                    j = link[vocabulary + j] as usize;
                }
            }
        });
    }
}
