//! Learning methods of federations, beyond the rounds of the protocol.
//!
//! - [`teach`]: a data owner's teachers label other people's samples in private (PATE).
//! - [`personalize`]: a device makes a public model its own, with what never leaves it.
//! - [`align`]: nodes with labels teach one without, by features that no discriminator tells
//!   apart.
//!
//! ```
//! use tern_methods::teach::{Aggregator, Mechanism, Noise};
//!
//! # fn main() -> tern_protocol::Result<()> {
//! // 250 teachers vote on a sample. Noise hides what any of them said.
//! let mechanism = Mechanism::Confident { threshold: 150, check: 10.0, sigma: 8.0 };
//! let mut aggregator = Aggregator::new(mechanism, Noise::from_system())?;
//! assert_eq!(aggregator.answer(&[3, 240, 5, 2])?, Some(1));
//! // They don't agree, so there is no label.
//! assert_eq!(aggregator.answer(&[70, 60, 60, 60])?, None);
//! # Ok(())
//! # }
//! ```

pub mod align;
pub mod personalize;
pub mod teach;
