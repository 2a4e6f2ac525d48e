//! Optimizers over the flat parameter vector.

use super::Case;

/// Cases of this family.
pub fn cases() -> Vec<Case> {
    Vec::new()
}
