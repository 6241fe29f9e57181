//! Jacobian covariance (Mellor et al. 2020, first version): whether images pull the network in different directions.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};

use super::jacobian::{correlations, jacobian};
use super::total;

/// Settings of `jacov`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jacov {
    /// Added to eigenvalues, which may be zero.
    pub epsilon: f64,
}

register! {
    proxy "jacov" => Jacov,
    summary: "how uncorrelated the gradients at different images are, by the eigenvalues of their correlations",
    source: "Mellor, Turner, Storkey, Crowley 2020, arXiv:2006.04647 version 1",
    defaults: "[proxy]\n# Added to eigenvalues, which may be zero.\nepsilon = 1e-5\n",
    example: "nasfw score DARTS_V2 --proxy jacov",
}

#[typetag::serde(name = "jacov")]
impl Proxy for Jacov {
    /// −Σ (log(λ + ε) + 1 / (λ + ε)) over eigenvalues λ of the correlations: largest where all are one, which are those of
    /// images that have nothing in common.
    fn score(&self, start: &Start<'_>) -> Result<f64> {
        let correlations = correlations(&jacobian(start)?);
        if !total(&correlations).is_finite() {
            return Ok(f64::NAN);
        }
        let shifted = correlations.f_linalg_eigvalsh("L")? + self.epsilon;
        Ok(-total(&(shifted.log() + shifted.reciprocal())))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("proxy.epsilon", self.epsilon, 1e-12, 1.0);
    }
}
