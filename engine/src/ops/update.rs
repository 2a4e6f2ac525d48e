//! Updates of models that train side by side: started from one model, held against it, clipped.
//!
//! ```rust
//! use tern_engine::ops::update::Updates;
//! use tern_engine::{Data, Device, Element, Init, Parameters, Pass, Vector};
//!
//! # fn main() -> tern_engine::Result<()> {
//! let device = Device::cpu();
//! let mut parameters = Parameters::new();
//! parameters.add("weight", &[64], Init::Zeros)?;
//! let updates = Updates::new(&parameters)?;
//! // Two clients have trained a model of 64 weights 2.0.
//! let model = Vector::upload(&device, &Data::F32(vec![2.0; 64]))?;
//! let models = Vector::upload(&device, &Data::F32([[5.0; 64], [1.5; 64]].concat()))?;
//! let moved = Vector::zeros(&device, Element::F32, 128)?;
//! let norms = Vector::zeros(&device, Element::F32, 2)?;
//! let mut pass = Pass::new(&device);
//! updates.difference(&mut pass, &models, &model, &moved)?;
//! updates.clip(&mut pass, &moved, None, &norms)?;
//! pass.run()?;
//! // √64 · 3 and √64 · 0.5
//! assert_eq!(norms.read()?, Data::F32(vec![24.0, 4.0]));
//! # Ok(())
//! # }
//! ```

use tern_shaders::Element;
use tern_shaders::kernels::optimizer::{
    NORM_FINISH, NORM_PARTIAL, NormFinish, NormPartial, norm_partials,
};
use tern_shaders::kernels::pointwise::{COPY, Copy};
use tern_shaders::kernels::update::{DIFFERENCE, Difference, RESCALE, Rescale};

use super::{Case, noise};
use crate::pass::{expect, rows};
use crate::{Error, Parameters, Pass, Result, Vector};

/// What a federated round does with flat vectors of one layout, any number R of them side by
/// side, besides training them.
#[derive(Clone, Copy, Debug)]
pub struct Updates {
    n: usize,
}

impl Updates {
    /// For vectors of this layout.
    ///
    /// # Errors
    /// [`Error::Value`] if there is no parameter.
    pub fn new(parameters: &Parameters) -> Result<Self> {
        if parameters.is_empty() {
            return Err(Error::value("number of parameters", 0, "at least one"));
        }
        Ok(Updates { n: parameters.words() })
    }

    /// Elements of a vector, padding included.
    pub fn elements(&self) -> usize {
        self.n
    }

    /// A copy of a vector as one block.
    fn copy(&self, x_stride: usize, accumulate: u32) -> Copy {
        let n = self.n as u32;
        Copy {
            rows: 1,
            width: n,
            x_row: n,
            x_stride: x_stride as u32,
            y_row: n,
            y_stride: n,
            accumulate,
            ..Copy::default()
        }
    }

    /// Records each of `models` `[R, elements]` = `model` `[elements]`.
    ///
    /// # Errors
    /// [`Error::Shape`] for other lengths.
    pub fn broadcast(&self, pass: &mut Pass, model: &Vector, models: &Vector) -> Result<()> {
        let replicas = rows("broadcast", models, self.n)?;
        expect("broadcast", "model", model, self.n)?;
        pass.call(&COPY, &self.copy(0, 0), replicas, &[model.into(), models.into()]);
        Ok(())
    }

    /// Records updates `[R, elements]` = `models` `[R, elements]` − `model` `[elements]`.
    ///
    /// # Errors
    /// [`Error::Shape`] for other lengths.
    pub fn difference(
        &self,
        pass: &mut Pass,
        models: &Vector,
        model: &Vector,
        updates: &Vector,
    ) -> Result<()> {
        let replicas = rows("difference", models, self.n)?;
        expect("difference", "model", model, self.n)?;
        expect("difference", "updates", updates, models.len())?;
        let params = Difference { n: self.n as u32 };
        pass.call(&DIFFERENCE, &params, replicas, &[models.into(), model.into(), updates.into()]);
        Ok(())
    }

    /// Records the Euclidean norm of each of `updates` `[R, elements]` into `norms` `[R]`, before
    /// they are scaled down to `max_norm`, if there is one.
    ///
    /// # Errors
    /// [`Error::Shape`] for other lengths; [`Error::Value`] unless `max_norm` is above 0.
    pub fn clip(
        &self,
        pass: &mut Pass,
        updates: &Vector,
        max_norm: Option<f32>,
        norms: &Vector,
    ) -> Result<()> {
        let replicas = rows("clip", updates, self.n)?;
        expect("clip", "norms", norms, replicas)?;
        if max_norm.is_some_and(|norm| norm <= 0.0 || norm.is_nan()) {
            return Err(Error::value("max_norm", max_norm.unwrap_or_default(), "above 0"));
        }
        let (n, count) = (self.n as u32, norm_partials(self.n));
        let partial = pass.scratch(Element::F32, replicas * count);
        let factor = pass.scratch(Element::F32, replicas);
        let params = NormPartial {
            offset: 0,
            n,
            stride: n,
            partial_offset: 0,
            partial_stride: count as u32,
        };
        pass.call(&NORM_PARTIAL, &params, replicas, &[updates.into(), partial.clone()]);
        let params = NormFinish {
            count: count as u32,
            partial_stride: count as u32,
            max_norm: max_norm.unwrap_or(f32::MAX),
            scale: 1.0,
        };
        pass.call(&NORM_FINISH, &params, replicas, &[partial, norms.into(), factor.clone()]);
        if max_norm.is_some() {
            pass.call(&RESCALE, &Rescale { n }, replicas, &[factor, updates.into()]);
        }
        Ok(())
    }

    /// Records `model` `[elements]` += `update` `[elements]`.
    ///
    /// # Errors
    /// [`Error::Shape`] for other lengths.
    pub fn apply(&self, pass: &mut Pass, update: &Vector, model: &Vector) -> Result<()> {
        expect("apply", "update", update, self.n)?;
        expect("apply", "model", model, self.n)?;
        pass.call(&COPY, &self.copy(self.n, 1), 1, &[update.into(), model.into()]);
        Ok(())
    }
}

/// Cases of this family.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    // The last is past 65,535 workgroups of 64.
    for (n, replicas) in [(1, 1), (77, 3), (4_200_000, 1)] {
        let all = n as usize * replicas;
        let (x, base) = (noise(all, 2.0, 1), noise(n as usize, 2.0, 2));
        let buffers = vec![x.clone(), base, noise(all, 1.0, 3)];
        cases.push(Case::new(&DIFFERENCE, format!("{n}"), &Difference { n }, replicas, buffers));
        let buffers = vec![noise(replicas, 3.0, 4), x];
        cases.push(Case::new(&RESCALE, format!("{n}"), &Rescale { n }, replicas, buffers));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{run_cases, software};
    use crate::{Data, Device, Init};

    #[test]
    fn cases_hold_on_every_device() {
        run_cases(&cases());
    }

    fn floats(vector: &Vector) -> Vec<f32> {
        match vector.read().unwrap() {
            Data::F32(x) => x,
            Data::U32(_) => panic!("floats"),
        }
    }

    #[test]
    fn a_round_trip_of_two_replicas() {
        let mut parameters = Parameters::new();
        parameters.add("w", &[64], Init::Zeros).unwrap();
        let updates = Updates::new(&parameters).unwrap();
        let cpu = [("cpu", Device::cpu())];
        for (name, device) in cpu.iter().chain(software()) {
            let upload = |x: Vec<f32>| Vector::upload(device, &Data::F32(x)).unwrap();
            let zeros = |n| Vector::zeros(device, Element::F32, n).unwrap();
            let (model, models, moved) = (upload(vec![2.0; 64]), zeros(128), zeros(128));
            let (norms, first) = (zeros(2), moved.slice(0, 64).unwrap());

            let mut pass = Pass::new(device);
            updates.broadcast(&mut pass, &model, &models).unwrap();
            pass.run().unwrap();
            assert_eq!(floats(&models), [2.0; 128], "{name}");

            // The first moves by 3 · √64 = 24, the second by 0.5 · √64 = 4.
            models.write(&Data::F32([[5.0f32; 64], [1.5; 64]].concat())).unwrap();
            let mut pass = Pass::new(device);
            updates.difference(&mut pass, &models, &model, &moved).unwrap();
            updates.clip(&mut pass, &moved, Some(6.0), &norms).unwrap();
            updates.apply(&mut pass, &first, &model).unwrap();
            pass.run().unwrap();
            assert_eq!(floats(&norms), [24.0, 4.0], "{name}");
            let moved = floats(&moved);
            assert!((moved[63] - 0.75).abs() < 1e-6 && moved[64] == -0.5, "{name}");
            assert!((floats(&model)[0] - 2.75).abs() < 1e-6, "{name}");

            let mut pass = Pass::new(device);
            let error = updates.broadcast(&mut pass, &models, &model).unwrap_err();
            assert!(error.to_string().contains("[128], expected [64]"), "{error}");
            let wrong = updates.clip(&mut pass, &models, Some(0.0), &norms);
            assert!(matches!(wrong, Err(Error::Value { .. })));
        }
    }
}
