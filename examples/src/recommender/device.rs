//! The downloaded model on a device: local data goes in, recommended products come out.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use tern_engine::nn::{ModelSpec, Predictor};
use tern_engine::{Arena, Device, Flat, load_model};

use super::data::{Customer, Data, Sample};

/// The model and its layers on a device.
pub struct Recommender {
    arena: Arena,
    predictor: Predictor,
}

/// A product to offer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Recommendation {
    /// The product.
    pub product: usize,
    /// Its share among the products that the customer doesn't own yet.
    pub share: f32,
}

/// How well products are ranked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Hits {
    /// Masked products that were the first recommendation.
    pub hit1: f64,
    /// Masked products among the first three.
    pub hit3: f64,
    /// Mean reciprocal rank.
    pub mrr: f64,
}

impl Recommender {
    /// Layers without weights yet, for so many customers at a time.
    pub fn new(device: &Device, spec: &ModelSpec, rows: usize) -> Result<Self> {
        let (parameters, model) = spec.build()?;
        let arena = Arena::new(device, &parameters, &[0])?;
        let predictor = Predictor::new(&arena, &model, rows)?;
        Ok(Recommender { arena, predictor })
    }

    /// 3.6: a downloaded model, for one customer at a time.
    pub fn load(device: &Device, spec: &ModelSpec, file: &Path) -> Result<Self> {
        let model = load_model(file, &spec.build()?.0)?;
        let mut recommender = Self::new(device, spec, 1)?;
        recommender.set_model(&model)?;
        Ok(recommender)
    }

    /// Another model of the same layers.
    pub fn set_model(&mut self, model: &[f32]) -> Result<()> {
        Ok(self.arena.write(Flat::Parameters, 0, model)?)
    }

    /// A score for each product, customer after customer.
    pub fn scores(&mut self, features: &[f32]) -> Result<Vec<f32>> {
        Ok(self.predictor.predict(features)?)
    }

    /// 3.7: the best products for a customer, of those that they don't own.
    pub fn recommend(&mut self, customer: &Customer, count: usize) -> Result<Vec<Recommendation>> {
        let scores = self.scores(&customer.features(None))?;
        let free = || (0..scores.len()).filter(|product| !customer.owns(*product));
        let most = free().map(|product| scores[product]).fold(f32::NEG_INFINITY, f32::max);
        let weight = |product: usize| (scores[product] - most).exp();
        let sum: f32 = free().map(weight).sum();
        let share = |product| Recommendation { product, share: weight(product) / sum };
        let mut products: Vec<Recommendation> = free().map(share).collect();
        products.sort_by(|a, b| b.share.total_cmp(&a.share));
        products.truncate(count);
        Ok(products)
    }

    /// How well masked products are ranked among those that the customers don't own.
    pub fn measure(&mut self, data: &Data, samples: &[Sample]) -> Result<Hits> {
        let (features, _) = data.rows(samples);
        let scores = self.scores(&features)?;
        Ok(hits(data, samples, scores.chunks(data.products.len())))
    }
}

/// What ranking by these scores, one slice a sample, comes to.
pub fn hits<'a>(data: &Data, samples: &[Sample], scores: impl Iterator<Item = &'a [f32]>) -> Hits {
    let mut hits = Hits::default();
    for (sample, scores) in samples.iter().zip(scores) {
        let rank = rank(&data.customers[sample.customer], sample.product, scores);
        hits.hit1 += f64::from(u8::from(rank == 1));
        hits.hit3 += f64::from(u8::from(rank <= 3));
        hits.mrr += 1.0 / rank as f64;
    }
    let count = samples.len().max(1) as f64;
    Hits { hit1: hits.hit1 / count, hit3: hits.hit3 / count, mrr: hits.mrr / count }
}

/// The floor: what ranking by how many customers own a product comes to.
pub fn popularity(data: &Data) -> Hits {
    let (held_out, counts) = (data.held_out(), data.popularity());
    hits(data, &held_out, held_out.iter().map(|_| counts.as_slice()))
}

/// The rank of a masked product, from 1; of equal scores the first product comes first.
fn rank(customer: &Customer, masked: usize, scores: &[f32]) -> usize {
    let before = |other: usize| {
        scores[other] > scores[masked] || (scores[other] == scores[masked] && other < masked)
    };
    let others = (0..scores.len()).filter(|other| *other != masked && !customer.owns(*other));
    1 + others.filter(|other| before(*other)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn customer(holdings: &[f32]) -> Customer {
        Customer { profile: vec![], holdings: holdings.into() }
    }

    #[test]
    fn a_masked_product_is_ranked_among_those_not_owned() {
        let owns = customer(&[1.0, 0.0, 2.0, 0.0]);
        assert_eq!(rank(&owns, 2, &[9.0, 1.0, 2.0, 0.0]), 1, "0 is owned and doesn't count");
        assert_eq!(rank(&owns, 2, &[0.0, 3.0, 2.0, 5.0]), 3);
        assert_eq!(rank(&owns, 2, &[0.0, 2.0, 2.0, 2.0]), 2, "the order decides ties");
        assert_eq!(rank(&owns, 0, &[0.0; 4]), 1);
    }

    #[test]
    fn recommendations_leave_out_what_is_owned_and_add_up() {
        let spec = ModelSpec::mlp(8, &[], 4);
        let device = Device::cpu();
        let mut recommender = Recommender::new(&device, &spec, 1).unwrap();
        let (parameters, _) = spec.build().unwrap();
        let mut model = vec![0.0; parameters.words()];
        let bias = parameters.get("0.bias").unwrap().offset;
        model[bias..bias + 4].copy_from_slice(&[4.0, 1.0, 9.0, 2.0]);
        recommender.set_model(&model).unwrap();
        let all = recommender.recommend(&customer(&[0.0, 0.0, 3.0, 0.0]), 9).unwrap();
        assert_eq!(all.iter().map(|r| r.product).collect::<Vec<_>>(), [0, 3, 1]);
        assert!((all.iter().map(|r| r.share).sum::<f32>() - 1.0).abs() < 1e-6);
        assert_eq!(recommender.recommend(&customer(&[1.0; 4]), 3).unwrap(), []);
    }
}
