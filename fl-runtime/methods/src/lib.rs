//! Learning methods of federations, beyond the rounds of the protocol.
//!
//! - [`teach`]: a data owner's teachers label other people's samples in private (PATE).
//! - [`personalize`]: a device makes a public model its own, with what never leaves it.
//! - [`align`]: nodes with labels teach one without, by features that no discriminator tells
//!   apart.

pub mod align;
pub mod personalize;
pub mod teach;
