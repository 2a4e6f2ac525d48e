//! Fixed-point vectors under ChaCha20 masks, for secure aggregation.
//!
//! ```rust
//! use tern_engine::ops::masked::{FixedPoint, Mask, Masker, sum};
//! use tern_engine::{Data, Device, Element, Pass, Vector};
//!
//! # fn main() -> tern_engine::Result<()> {
//! let device = Device::cpu();
//! let x = Vector::upload(&device, &Data::F32([[0.5; 16], [0.25; 16]].concat()))?;
//! let uploads = Vector::zeros(&device, Element::U32, 32)?;
//! let total = Vector::zeros(&device, Element::U32, 16)?;
//! let mean = Vector::zeros(&device, Element::F32, 16)?;
//! // Two clients: one adds a mask, the other subtracts it. In the sum it cancels.
//! let mask = Mask::new(&[7; 32], &[1; 12]);
//! let code = FixedPoint::new(1.0, 2, 32)?;
//! let mut pass = Pass::new(&device);
//! Masker::of_replicas(&[&[mask], &[mask.negated()]])?.encode(&mut pass, &x, code, &uploads)?;
//! sum(&mut pass, &uploads, code.bits, &total, false)?;
//! Masker::new(&[]).unmask_decode(&mut pass, &total, code, 2, &mean)?;
//! pass.run()?;
//! assert_eq!(mean.read()?, Data::F32(vec![0.375; 16]));
//! # Ok(())
//! # }
//! ```

use tern_shaders::kernels::chacha::{BLOCK, WORDS_A_MASK};
use tern_shaders::kernels::fixed::MAX_FRACTION_BITS;
use tern_shaders::kernels::masked::{
    ENCODE_MASK, EncodeMask, MASK_WORDS, MaskWords, SUM, Sum, UNMASK_DECODE, UnmaskDecode,
};

pub use tern_shaders::kernels::chacha::Mask;

mod cases;

pub use cases::cases;

use crate::pass::{expect, rows};
use crate::{Error, Pass, Result, Vector};
use zeroize::Zeroizing;

/// Masks a call adds at most, so that none runs long enough for a watchdog.
const MASKS_A_CALL: usize = 256;
/// Vectors a call sums; a software device ends loops soon after.
const MAX_CLIENTS: usize = 65_000;

/// How floats become words, and how words are added: mod 2^`bits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedPoint {
    /// Bits after the binary point.
    pub fraction_bits: u32,
    /// Largest magnitude of an encoded number; what is larger is clipped to it.
    pub bound: u32,
    /// Bits of a word that count.
    pub bits: u32,
}

impl FixedPoint {
    /// The finest encoding of numbers in ±`limit` whose sum over `clients` fits `bits` bits.
    ///
    /// # Errors
    /// [`Error::Value`] unless `limit` is positive, `bits` 2 to 32, and the clients' sum fits.
    pub fn new(limit: f32, clients: u32, bits: u32) -> Result<Self> {
        if !(limit.is_normal() && limit > 0.0) {
            return Err(Error::value("limit", limit, "a positive number"));
        }
        if !(2..=32).contains(&bits) {
            return Err(Error::value("bits", bits, "2 to 32"));
        }
        let bound = ((1u64 << (bits - 1)) - 1) as u32 / clients.max(1);
        // The largest power of two that keeps the limit within the bound.
        let fraction_bits = (f64::from(bound) / f64::from(limit)).log2().floor();
        if bound == 0 || !(0.0..=f64::from(MAX_FRACTION_BITS)).contains(&fraction_bits) {
            let given = format!("±{limit} from {clients} clients in {bits} bits");
            return Err(Error::value("fixed point", given, "0 to 62 fraction bits"));
        }
        Ok(FixedPoint { fraction_bits: fraction_bits as u32, bound, bits })
    }

    fn modulus_mask(&self) -> u32 {
        u32::MAX >> (32 - self.bits.clamp(1, 32))
    }

    /// What a sum of encoded numbers is multiplied by to get the mean over `clients`.
    fn weight(&self, clients: u32) -> f32 {
        let factor = f64::powi(2.0, self.fraction_bits as i32) * f64::from(clients.max(1));
        (1.0 / factor) as f32
    }
}

/// Masks for vectors on a device: the same number for each of R vectors side by side. Their keys
/// are wiped when this is dropped, and, on the device, at the end of the pass.
pub struct Masker {
    /// Tables of up to [`MASKS_A_CALL`] masks a vector, `[R, count, 12]` words, with the count.
    tables: Vec<(Zeroizing<Vec<u32>>, usize)>,
    replicas: usize,
}

impl Masker {
    /// Masks of one vector.
    pub fn new(masks: &[Mask]) -> Self {
        Self::build(&[masks], masks.len())
    }

    /// Masks of several vectors side by side, as many for each.
    ///
    /// # Errors
    /// [`Error::Value`] unless every vector has the same number of masks.
    pub fn of_replicas(masks: &[&[Mask]]) -> Result<Self> {
        let count = masks.first().map_or(0, |masks| masks.len());
        if masks.is_empty() || masks.iter().any(|masks| masks.len() != count) {
            let given = format!("{:?}", masks.iter().map(|m| m.len()).collect::<Vec<_>>());
            return Err(Error::value("masks of the replicas", given, "the same number for each"));
        }
        Ok(Self::build(masks, count))
    }

    fn build(masks: &[&[Mask]], count: usize) -> Self {
        let part = |at: usize| {
            let part = at..(at + MASKS_A_CALL).min(count);
            // Without a mask a vector is still encoded, and a binding is never empty.
            let words = (masks.len() * part.len() * WORDS_A_MASK).max(WORDS_A_MASK);
            // A vector that grows would leave keys behind.
            let mut table: Vec<u32> = Vec::with_capacity(words);
            for masks in masks {
                table.extend_from_slice(bytemuck::cast_slice(&masks[part.clone()]));
            }
            table.resize(words, 0);
            (Zeroizing::new(table), part.len())
        };
        let tables = (0..count.max(1)).step_by(MASKS_A_CALL).map(part).collect();
        Masker { tables, replicas: masks.len() }
    }

    /// Checks that a vector holds one row of whole blocks a replica, and says how long it is.
    fn row(&self, op: &'static str, vector: &Vector) -> Result<usize> {
        let n = vector.len() / self.replicas;
        if n == 0 || n * self.replicas != vector.len() || !n.is_multiple_of(BLOCK) {
            let what =
                format!("[{}], expected {} rows of whole blocks", vector.len(), self.replicas);
            return Err(Error::shape(op, format!("{what} of {BLOCK} words")));
        }
        Ok(n)
    }

    /// Records words = fixed point of x + masks. `x`, `words` `[R, n]`, n a multiple of 16.
    ///
    /// # Errors
    /// [`Error::Shape`] for other lengths.
    pub fn encode(
        &self,
        pass: &mut Pass,
        x: &Vector,
        code: FixedPoint,
        words: &Vector,
    ) -> Result<()> {
        let n = self.row("encode", words)?;
        expect("encode", "x", x, words.len())?;
        let Some(((table, count), rest)) = self.tables.split_first() else { return Ok(()) };
        let params = EncodeMask {
            n: n as u32,
            stride: n as u32,
            count: *count as u32,
            counter: 0,
            fraction_bits: code.fraction_bits,
            bound: code.bound,
            modulus_mask: code.modulus_mask(),
        };
        let masks = pass.secret(table);
        pass.call(&ENCODE_MASK, &params, self.replicas, &[x.into(), masks, words.into()]);
        for (table, count) in rest {
            self.mask_by(pass, table, *count, code.modulus_mask(), words, n);
        }
        Ok(())
    }

    fn mask_by(
        &self,
        pass: &mut Pass,
        table: &[u32],
        count: usize,
        modulus_mask: u32,
        words: &Vector,
        n: usize,
    ) {
        let params = MaskWords { n: n as u32, count: count as u32, counter: 0, modulus_mask };
        let masks = pass.secret(table);
        pass.call(&MASK_WORDS, &params, self.replicas, &[masks, words.into()]);
    }

    /// Records words += masks mod 2^32, in place. `words` `[R, n]`, n a multiple of 16.
    ///
    /// # Errors
    /// [`Error::Shape`] for another length.
    pub fn mask(&self, pass: &mut Pass, words: &Vector) -> Result<()> {
        let n = self.row("mask", words)?;
        for (table, count) in &self.tables {
            self.mask_by(pass, table, *count, u32::MAX, words, n);
        }
        Ok(())
    }

    /// Records mean = (words + masks) / clients as floats: with masks that cancel what is left
    /// in a sum of `clients` vectors, their mean. `words`, `mean` `[R, n]`, n a multiple of 16.
    /// `words` may be changed.
    ///
    /// # Errors
    /// [`Error::Shape`] for other lengths.
    pub fn unmask_decode(
        &self,
        pass: &mut Pass,
        words: &Vector,
        code: FixedPoint,
        clients: u32,
        mean: &Vector,
    ) -> Result<()> {
        let n = self.row("unmask", words)?;
        expect("unmask", "mean", mean, words.len())?;
        let Some(((table, count), rest)) = self.tables.split_first() else { return Ok(()) };
        for (table, count) in rest {
            self.mask_by(pass, table, *count, code.modulus_mask(), words, n);
        }
        let params = UnmaskDecode {
            n: n as u32,
            stride: n as u32,
            count: *count as u32,
            counter: 0,
            modulus_mask: code.modulus_mask(),
            weight: code.weight(clients),
        };
        let masks = pass.secret(table);
        pass.call(&UNMASK_DECODE, &params, self.replicas, &[words.into(), masks, mean.into()]);
        Ok(())
    }
}

/// Records total = Σ over clients of words mod 2^`bits`, added to what `total` holds if
/// `accumulate`. `words` `[clients, n]`, `total` `[n]`, n a multiple of 4.
///
/// # Errors
/// [`Error::Shape`] for other lengths; [`Error::Value`] for more than 65,000 clients or bits
/// other than 1 to 32.
pub fn sum(
    pass: &mut Pass,
    words: &Vector,
    bits: u32,
    total: &Vector,
    accumulate: bool,
) -> Result<()> {
    let n = total.len();
    let clients = rows("sum", words, n)?;
    if !n.is_multiple_of(4) {
        return Err(Error::shape("sum", format!("{n} words, expected a multiple of 4")));
    }
    if clients > MAX_CLIENTS || !(1..=32).contains(&bits) {
        let given = format!("{clients} clients, {bits} bits");
        return Err(Error::value("sum", given, format!("up to {MAX_CLIENTS} clients, 1 to 32")));
    }
    let params = Sum {
        n: n as u32,
        clients: clients as u32,
        modulus_mask: u32::MAX >> (32 - bits),
        accumulate: accumulate.into(),
    };
    pass.call(&SUM, &params, 1, &[words.into(), total.into()]);
    Ok(())
}

#[cfg(test)]
mod tests;
