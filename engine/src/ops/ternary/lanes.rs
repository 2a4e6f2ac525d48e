//! Codes in lanes for secure aggregation, see [`tern_shaders::kernels::ternary::ENCODE_LANES`].

use tern_shaders::kernels::ternary::{
    DECODE_LANES, DecodeLanes, ENCODE_LANES, EncodeLanes, lane_bits, lane_words,
};

use super::TernaryCodec;
use crate::pass::{expect, rows};
use crate::{Error, Pass, Result, Vector};

impl TernaryCodec {
    /// Words of a vector's codes in lanes for a cohort of up to `clients`.
    pub fn lane_words(&self, clients: u32) -> usize {
        lane_words(self.n, lane_bits(clients))
    }

    /// Records codes as lanes that hold the sum of up to `cohort` clients, ready for
    /// [`Masker::mask`](crate::ops::masked::Masker::mask). `codes` `[R, words]`, `lanes`
    /// `[R, lane_words(cohort)]`.
    ///
    /// # Errors
    /// [`Error::Shape`] for other lengths.
    pub fn encode_lanes(
        &self,
        pass: &mut Pass,
        codes: &Vector,
        cohort: u32,
        lanes: &Vector,
    ) -> Result<()> {
        let replicas = rows("encode lanes", codes, self.words())?;
        let words = self.lane_words(cohort);
        expect("encode lanes", "lanes", lanes, replicas * words)?;
        let params = EncodeLanes { n: self.n as u32, words: words as u32, bits: lane_bits(cohort) };
        pass.call(&ENCODE_LANES, &params, replicas, &[codes.into(), lanes.into()]);
        Ok(())
    }

    /// Records mean = scale · the mean code of `clients`, from lanes made for `cohort`, summed
    /// and unmasked. `lanes` `[lane_words(cohort)]`, `scales` `[tensors]`, `mean` `[elements]`.
    ///
    /// # Errors
    /// [`Error::Shape`] for other lengths; [`Error::Value`] unless there are 1 to `cohort`
    /// clients.
    pub fn decode_lanes(
        &self,
        pass: &mut Pass,
        lanes: &Vector,
        cohort: u32,
        clients: u32,
        scales: &Vector,
        mean: &Vector,
    ) -> Result<()> {
        if clients == 0 || clients > cohort {
            return Err(Error::value("clients", clients, format!("1 to {cohort}")));
        }
        expect("decode lanes", "lanes", lanes, self.lane_words(cohort))?;
        expect("decode lanes", "scales", scales, self.tensors())?;
        expect("decode lanes", "mean", mean, self.n)?;
        let params = DecodeLanes {
            n: self.n as u32,
            stride: self.n as u32,
            words: lanes.len() as u32,
            bits: lane_bits(cohort),
            tensors: self.tensors() as u32,
            scales_stride: 0,
            clients,
            weight: 1.0 / clients as f32,
            accumulate: 0,
        };
        let args = [lanes.into(), self.segments(pass), scales.into(), mean.into()];
        pass.call(&DECODE_LANES, &params, 1, &args);
        Ok(())
    }
}
