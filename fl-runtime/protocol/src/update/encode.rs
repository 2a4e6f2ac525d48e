//! Writing bodies, on the device that trained.

use half::f16;
use tern_engine::ops::masked::{FixedPoint, Mask, Masker};
use tern_engine::ops::ternary::{self, Coding, Rule, TernaryCodec};
use tern_engine::{Data, Device, Element, Pass, Vector};
use tern_secagg::Masks;

use crate::plan::TernaryMethod;
use crate::{Layout, Result};

/// Where the scales of ternary codes come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scales<'a> {
    /// From the update.
    Own(TernaryMethod),
    /// From the server, one a tensor; what is larger is clipped.
    Given(&'a [f32]),
}

/// Encodes and decodes vectors of a layout on a device; equal bits on every device.
pub struct Codec {
    device: Device,
    /// Whether the device is the processor.
    processor: bool,
    elements: usize,
    ternary: TernaryCodec,
}

fn le_bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

impl Codec {
    /// For vectors of a layout.
    ///
    /// # Errors
    /// The engine's.
    pub fn new(device: &Device, layout: &Layout) -> Result<Self> {
        let ternary = TernaryCodec::new(layout.parameters())?;
        let processor = device.name() == Device::cpu().name();
        Ok(Codec { device: device.clone(), processor, elements: layout.elements(), ternary })
    }

    /// A body of floats.
    pub fn full(x: &[f32]) -> Vec<u8> {
        x.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    /// Back from [`Codec::full`]; what is left beyond whole floats is none.
    pub fn floats(body: &[u8]) -> Vec<f32> {
        body.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect()
    }

    /// A body of half-precision floats, rounded to nearest even; what is larger than the
    /// largest becomes it.
    pub fn half(x: &[f32]) -> Vec<u8> {
        let most = f16::MAX.to_f32();
        x.iter().flat_map(|x| f16::from_f32(x.clamp(-most, most)).to_le_bytes()).collect()
    }

    fn upload(&self, x: &[f32]) -> Result<Vector> {
        Ok(Vector::upload(&self.device, &Data::F32(x.to_vec()))?)
    }

    /// Records the codes of x + residual; the residual becomes what they leave.
    fn quantize(
        &self,
        pass: &mut Pass,
        x: &[f32],
        residual: &Vector,
        scales: Scales<'_>,
        key: [u32; 3],
    ) -> Result<(ternary::Scales, Vector)> {
        let x = self.upload(x)?;
        let [step, salt, seed] = key;
        let drawn = Coding::Drawn { step, salt, seed };
        let room = ternary::Scales::zeros(&self.device, 1, self.ternary.tensors())?;
        let coding = match scales {
            Scales::Own(TernaryMethod::Drawn(deviations)) => {
                let rule = Rule::Maximum(deviations);
                self.ternary.measure(pass, &x, Some(residual), rule, &room)?;
                drawn
            }
            Scales::Own(TernaryMethod::Thresholded(fraction)) => {
                let rule = Rule::MeanAbove(fraction);
                self.ternary.measure(pass, &x, Some(residual), rule, &room)?;
                Coding::Thresholded
            }
            Scales::Given(scales) => {
                room.scales.write(&Data::F32(scales.to_vec()))?;
                drawn
            }
        };
        let codes = Vector::zeros(&self.device, Element::U32, self.ternary.words())?;
        self.ternary.quantize(pass, &x, Some(residual), &room, coding, &codes)?;
        Ok((room, codes))
    }

    /// A ternary body of x + residual, and the residual it leaves. `key` is that of drawn codes:
    /// step, salt and seed.
    ///
    /// # Errors
    /// The engine's.
    pub fn ternary(
        &self,
        x: &[f32],
        residual: &[f32],
        scales: Scales<'_>,
        key: [u32; 3],
    ) -> Result<(Vec<u8>, Vec<f32>)> {
        let residual = self.upload(residual)?;
        let mut pass = Pass::new(&self.device);
        let (scales, codes) = self.quantize(&mut pass, x, &residual, scales, key)?;
        pass.run()?;
        let mut body = Codec::full(&scales.scales.read()?.floats()?);
        body.extend(le_bytes(&codes.read()?.words()?));
        Ok((body, residual.read()?.floats()?))
    }

    /// Words of x in fixed point, under masks.
    ///
    /// # Errors
    /// The engine's.
    pub fn masked(&self, x: &[f32], code: FixedPoint, masks: &Masks) -> Result<Vec<u32>> {
        let out = Vector::zeros(&self.device, Element::U32, self.elements)?;
        let mut pass = Pass::new(&self.device);
        Masker::new(self.on_device(masks)).encode(&mut pass, &self.upload(x)?, code, &out)?;
        pass.run()?;
        self.on_processor(&out, masks)
    }

    /// Ternary codes of x + residual in lanes that hold the sum of a cohort, under masks, and
    /// the residual they leave.
    ///
    /// # Errors
    /// The engine's.
    pub fn masked_ternary(
        &self,
        x: &[f32],
        residual: &[f32],
        scales: &[f32],
        key: [u32; 3],
        cohort: u32,
        masks: &Masks,
    ) -> Result<(Vec<u32>, Vec<f32>)> {
        let residual = self.upload(residual)?;
        let mut pass = Pass::new(&self.device);
        let scales = Scales::Given(scales);
        let (_, codes) = self.quantize(&mut pass, x, &residual, scales, key)?;
        let words = self.ternary.lane_words(cohort);
        let lanes = Vector::zeros(&self.device, Element::U32, words)?;
        self.ternary.encode_lanes(&mut pass, &codes, cohort, &lanes)?;
        Masker::new(self.on_device(masks)).mask(&mut pass, &lanes)?;
        pass.run()?;
        Ok((self.on_processor(&lanes, masks)?, residual.read()?.floats()?))
    }

    /// Masks that the device adds: all on a GPU, none on the processor, which has a faster way.
    fn on_device<'a>(&self, masks: &'a Masks) -> &'a [Mask] {
        if self.processor { &[] } else { masks }
    }

    /// The words, with the masks that the device has not added.
    fn on_processor(&self, vector: &Vector, masks: &Masks) -> Result<Vec<u32>> {
        let mut words = vector.read()?.words()?;
        if self.processor {
            masks.add_to(&mut words);
        }
        Ok(words)
    }

    /// The sum of vectors from the sum of their words in fixed point, without masks.
    ///
    /// # Errors
    /// The engine's.
    pub fn unmasked(&self, sum: &[u32], code: FixedPoint) -> Result<Vec<f32>> {
        let sum = Vector::upload(&self.device, &Data::U32(sum.to_vec()))?;
        let total = Vector::zeros(&self.device, Element::F32, self.elements)?;
        let mut pass = Pass::new(&self.device);
        Masker::new(&[]).unmask_decode(&mut pass, &sum, code, 1, &total)?;
        pass.run()?;
        Ok(total.read()?.floats()?)
    }

    /// The mean of `clients` vectors from the sum of their lanes, without masks.
    ///
    /// # Errors
    /// The engine's.
    pub fn unmasked_ternary(
        &self,
        sum: &[u32],
        scales: &[f32],
        cohort: u32,
        clients: u32,
    ) -> Result<Vec<f32>> {
        let sum = Vector::upload(&self.device, &Data::U32(sum.to_vec()))?;
        let scales = self.upload(scales)?;
        let mean = Vector::zeros(&self.device, Element::F32, self.elements)?;
        let mut pass = Pass::new(&self.device);
        self.ternary.decode_lanes(&mut pass, &sum, cohort, clients, &scales, &mean)?;
        pass.run()?;
        Ok(mean.read()?.floats()?)
    }
}
