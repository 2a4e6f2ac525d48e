//! Reading ternary bodies: scales, then codes.

use std::io::Read;
use std::ops::Range;

use super::Format;
use crate::{Refusal, Result};

/// Codes of a byte.
const A_BYTE: usize = 4;

/// The scales at the start of a body: finite, not negative, within the bound.
pub(super) fn scales(source: &mut impl Read, format: &Format) -> Result<Vec<f32>> {
    let mut scales = vec![0f32; format.tensors()];
    format.fill(source, bytemuck::cast_slice_mut(&mut scales), 0)?;
    for (at, scale) in scales.iter_mut().enumerate() {
        *scale = f32::from_bits(u32::from_le(scale.to_bits()));
        if !(*scale >= 0.0 && *scale <= format.bound) {
            let expected = format!("0 to {}", format.bound);
            return Err(Refusal::Scale { at, value: *scale, expected }.into());
        }
    }
    Ok(scales)
}

/// Values of the codes of the elements in `part`, whose start is a multiple of 64.
pub(super) fn decode(
    codes: &[u8],
    part: Range<usize>,
    segments: &[u32],
    scales: &[f32],
    values: &mut [f32],
) -> Result<()> {
    if let Some(at) = codes.iter().position(|byte| byte & byte >> 1 & 0x55 != 0) {
        let within = (0..A_BYTE).find(|i| codes[at] >> (2 * i) & 3 == 3).unwrap_or(0);
        return Err(Refusal::Code(part.start + A_BYTE * at + within).into());
    }
    let first = segments.partition_point(|start| *start as usize <= part.start) - 1;
    for (tensor, scale) in scales.iter().enumerate().skip(first) {
        let start = (segments[tensor] as usize).max(part.start) - part.start;
        let end = (segments[tensor + 1] as usize).min(part.end) - part.start;
        // 0 is 0, 1 is +1, 2 is −1.
        let table = [0.0, *scale, -*scale, 0.0];
        let codes = &codes[start / A_BYTE..end / A_BYTE];
        for (four, byte) in values[start..end].as_chunks_mut::<A_BYTE>().0.iter_mut().zip(codes) {
            *four = [0, 2, 4, 6].map(|shift| table[usize::from(byte >> shift & 3)]);
        }
        if segments[tensor + 1] as usize >= part.end {
            break;
        }
    }
    Ok(())
}
