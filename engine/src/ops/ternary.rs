//! Ternary codes of updates: −1, 0 or +1 times a scale of the tensor, 16 to a word.
//!
//! See [`tern_shaders::kernels::ternary`] for the methods and their sources.
//!
//! ```rust
//! use tern_engine::ops::ternary::{Coding, Rule, Scales, TernaryCodec};
//! use tern_engine::{Data, Device, Element, Init, Parameters, Pass, Vector};
//!
//! # fn main() -> tern_engine::Result<()> {
//! let device = Device::cpu();
//! let mut parameters = Parameters::new();
//! parameters.add("weight", &[4], Init::Zeros)?;
//! let codec = TernaryCodec::new(&parameters)?;
//! let mut x = vec![0.0; codec.elements()];
//! x[..4].copy_from_slice(&[0.75, -1.25, 0.125, 0.0]);
//! let x = Vector::upload(&device, &Data::F32(x))?;
//! let scales = Scales::zeros(&device, 1, codec.tensors())?;
//! let codes = Vector::zeros(&device, Element::U32, codec.words())?;
//! let decoded = Vector::zeros(&device, Element::F32, codec.elements())?;
//! let mut pass = Pass::new(&device);
//! codec.measure(&mut pass, &x, None, Rule::MeanAbove(0.7), &scales)?;
//! codec.quantize(&mut pass, &x, None, &scales, Coding::Thresholded, &codes)?;
//! codec.decode_accumulate(&mut pass, &codes, &scales.scales, &[1.0], &decoded, false)?;
//! pass.run()?;
//! // The large ones become ± their mean magnitude, which is 1.
//! assert_eq!(decoded.read()?.floats()?[..4], [1.0, -1.0, 0.0, 0.0]);
//! # Ok(())
//! # }
//! ```

mod cases;
mod lanes;

use tern_shaders::Element;
use tern_shaders::kernels::ternary::{
    CODES, DECODE_ACCUMULATE, DecodeAccumulate, MOMENTS, Moments, QUANTIZE, Quantize, SCALE, Scale,
    ScaleKind,
};

pub use cases::cases;

use crate::pass::{Bound, expect, rows};
use crate::{Data, Device, Error, Parameters, Pass, Result, Vector};

/// Updates that one call decodes; a software device ends loops soon after.
const MAX_CLIENTS: usize = 65_000;

/// How the scale of a tensor comes from its values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// The largest magnitude, at most this many standard deviations (TernGrad: 2.5), or root mean
    /// squares where the mean is larger than the deviation; 0 for no
    /// limit.
    Maximum(f32),
    /// The mean magnitude of what is above a threshold, this fraction of the mean magnitude of
    /// all (ternary weight networks: 0.7).
    MeanAbove(f32),
}

/// How a value becomes a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// ±1 with probability |value| / scale, by the stream of these three numbers; vectors side by
    /// side have salts that follow each other.
    Drawn {
        /// Number of the round, say.
        step: u32,
        /// Number of the client, say.
        salt: u32,
        /// Seed.
        seed: u32,
    },
    /// ±1 above the tensor's threshold.
    Thresholded,
}

/// Scale and threshold of each tensor, `[rows, tensors]`: one row for all vectors, or one each.
#[derive(Clone)]
pub struct Scales {
    /// Scales. A tensor whose scale is not a normal positive number is coded as zeros.
    pub scales: Vector,
    /// Thresholds.
    pub thresholds: Vector,
}

impl Scales {
    /// Room for `rows` rows of `tensors` scales and thresholds.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], device errors.
    pub async fn zeros_async(device: &Device, rows: usize, tensors: usize) -> Result<Self> {
        let scales = Vector::zeros_async(device, Element::F32, rows * tensors).await?;
        let thresholds = Vector::zeros_async(device, Element::F32, rows * tensors).await?;
        Ok(Scales { scales, thresholds })
    }

    /// [`Scales::zeros_async`], waiting.
    ///
    /// # Errors
    /// As [`Scales::zeros_async`].
    #[cfg(feature = "blocking")]
    pub fn zeros(device: &Device, rows: usize, tensors: usize) -> Result<Self> {
        device.wait(Self::zeros_async(device, rows, tensors))
    }
}

/// Codes flat vectors of one layout, any number R of them side by side.
pub struct TernaryCodec {
    segments: Vec<u32>,
    lengths: Vec<u32>,
    n: usize,
    /// Words of the longest tensor.
    longest: u32,
    /// Partial sums a tensor.
    lanes: u32,
}

impl TernaryCodec {
    /// A codec of the vectors of this layout.
    ///
    /// # Errors
    /// [`Error::Value`] if there is no parameter.
    pub fn new(parameters: &Parameters) -> Result<Self> {
        if parameters.is_empty() {
            return Err(Error::value("number of parameters", 0, "at least one"));
        }
        let n = parameters.words();
        let starts = parameters.iter().map(|p| p.offset as u32);
        let lengths: Vec<u32> = parameters.iter().map(|p| p.len() as u32).collect();
        let longest = lengths.iter().copied().max().unwrap_or(1);
        // As many partial sums as there are terms in each, in whole workgroups.
        let lanes = longest.isqrt().next_multiple_of(64).max(64);
        let segments = starts.chain([n as u32]).collect();
        Ok(TernaryCodec { segments, lengths, n, longest, lanes })
    }

    /// Elements of a vector, padding included.
    pub fn elements(&self) -> usize {
        self.n
    }

    /// Tensors of a vector.
    pub fn tensors(&self) -> usize {
        self.lengths.len()
    }

    /// Words of a vector's codes.
    pub fn words(&self) -> usize {
        self.n / CODES
    }

    fn segments(&self, pass: &mut Pass) -> Bound {
        pass.constant(Data::U32(self.segments.clone()))
    }

    /// The words from one vector's scales to the next, 0 if there is one row for all.
    fn scales_stride(&self, op: &'static str, scales: &Vector, vectors: usize) -> Result<u32> {
        let rows = rows(op, scales, self.tensors())?;
        if rows != 1 && rows != vectors {
            let what = format!("{rows} rows of scales for {vectors} vectors");
            return Err(Error::shape(op, what));
        }
        Ok(if rows == 1 { 0 } else { self.tensors() as u32 })
    }

    /// Records scales (and thresholds) of x + residual. `x`, `residual` `[R, elements]`, `scales`
    /// of R rows.
    ///
    /// # Errors
    /// [`Error::Shape`] for other lengths.
    pub fn measure(
        &self,
        pass: &mut Pass,
        x: &Vector,
        residual: Option<&Vector>,
        rule: Rule,
        scales: &Scales,
    ) -> Result<()> {
        let replicas = rows("ternary scale", x, self.n)?;
        let residual = residual.unwrap_or(x);
        expect("ternary scale", "residual", residual, x.len())?;
        for row in [&scales.scales, &scales.thresholds] {
            expect("ternary scale", "scales", row, replicas * self.tensors())?;
        }
        let (tensors, longest, lanes) = (self.tensors() as u32, self.longest, self.lanes);
        let partials = pass.scratch(Element::F32, 4 * replicas * self.tensors() * lanes as usize);
        let segments = self.segments(pass);
        let lengths = pass.constant(Data::U32(self.lengths.clone()));
        let feedback = u32::from(!std::ptr::eq(residual, x));
        let kinds: &[(ScaleKind, f32)] = &match rule {
            Rule::Maximum(factor) => vec![(ScaleKind::Maximum, factor)],
            Rule::MeanAbove(factor) => {
                vec![(ScaleKind::Threshold, factor), (ScaleKind::MeanAbove, factor)]
            }
        };
        for (kind, factor) in kinds {
            let above = u32::from(*kind == ScaleKind::MeanAbove);
            let stride = self.n as u32;
            let params = Moments { tensors, stride, longest, lanes, feedback, above };
            let args = [
                x.into(),
                residual.into(),
                segments.clone(),
                lengths.clone(),
                (&scales.thresholds).into(),
                partials.clone(),
            ];
            pass.call(&MOMENTS, &params, replicas, &args);
            let params = Scale { tensors, lanes, kind: *kind as u32, factor: *factor };
            let args = [
                partials.clone(),
                lengths.clone(),
                (&scales.thresholds).into(),
                (&scales.scales).into(),
            ];
            pass.call(&SCALE, &params, replicas, &args);
        }
        Ok(())
    }

    /// Records codes of x + residual, and what they leave into the residual. Without a residual
    /// what they leave is lost. `x`, `residual` `[R, elements]`, `scales` of one row or R,
    /// `codes` `[R, words]`.
    ///
    /// # Errors
    /// [`Error::Shape`] for other lengths.
    pub fn quantize(
        &self,
        pass: &mut Pass,
        x: &Vector,
        residual: Option<&Vector>,
        scales: &Scales,
        coding: Coding,
        codes: &Vector,
    ) -> Result<()> {
        let replicas = rows("quantize", x, self.n)?;
        expect("quantize", "codes", codes, replicas * self.words())?;
        expect("quantize", "thresholds", &scales.thresholds, scales.scales.len())?;
        let mut params = Quantize {
            n: self.n as u32,
            stride: self.n as u32,
            tensors: self.tensors() as u32,
            scales_stride: self.scales_stride("quantize", &scales.scales, replicas)?,
            feedback: residual.is_some().into(),
            ..Quantize::default()
        };
        match coding {
            Coding::Drawn { step, salt, seed } => {
                (params.step, params.salt, params.seed) = (step, salt, seed);
            }
            Coding::Thresholded => params.threshold = 1,
        }
        let residual = match residual {
            Some(residual) => {
                expect("quantize", "residual", residual, x.len())?;
                residual.into()
            }
            None => pass.scratch(Element::F32, CODES),
        };
        let args = [
            x.into(),
            residual,
            self.segments(pass),
            (&scales.scales).into(),
            (&scales.thresholds).into(),
            codes.into(),
        ];
        pass.call(&QUANTIZE, &params, replicas, &args);
        Ok(())
    }

    /// Records sum = Σ over clients of weight · scale · code, added to what `sum` holds if
    /// `accumulate`. `codes` `[clients, words]`, `scales` `[tensors]` or `[clients, tensors]`,
    /// `sum` `[elements]`.
    ///
    /// # Errors
    /// [`Error::Shape`] for other lengths; [`Error::Value`] for more than 65,000 clients.
    pub fn decode_accumulate(
        &self,
        pass: &mut Pass,
        codes: &Vector,
        scales: &Vector,
        weights: &[f32],
        sum: &Vector,
        accumulate: bool,
    ) -> Result<()> {
        let clients = weights.len();
        if clients > MAX_CLIENTS {
            return Err(Error::value("clients", clients, format!("at most {MAX_CLIENTS}")));
        }
        expect("decode", "codes", codes, clients * self.words())?;
        expect("decode", "sum", sum, self.n)?;
        let params = DecodeAccumulate {
            n: self.n as u32,
            stride: self.n as u32,
            tensors: self.tensors() as u32,
            clients: clients as u32,
            scales_stride: self.scales_stride("decode", scales, clients)?,
            accumulate: accumulate.into(),
        };
        let weights = pass.constant(Data::F32(weights.to_vec()));
        let args = [codes.into(), self.segments(pass), scales.into(), weights, sum.into()];
        pass.call(&DECODE_ACCUMULATE, &params, 1, &args);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
