//! EPE-NAS (Lopes et al. 2021): correlations of gradients between images of one class.

use std::collections::BTreeMap;

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::jacobian::{correlations, jacobian};
use super::total;

/// Settings of `epe-nas`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpeNas {
    /// Added to correlations, which may be zero.
    pub epsilon: f64,
}

register! {
    proxy "epe-nas" => EpeNas,
    summary: "how uncorrelated the gradients at images of one class are, over all classes",
    source: "Lopes, Alirezazadeh, Alexandre 2021, ICANN, arXiv:2102.08099",
    defaults: "[proxy]\n# Added to correlations, which may be zero.\nepsilon = 1e-5\n",
    example: "nasfw score DARTS_V2 --proxy epe-nas",
}

/// Of more classes than this, classes are compared with each other.
const MANY: i64 = 100;

#[typetag::serde(name = "epe-nas")]
impl Proxy for EpeNas {
    /// With E_c = Σ log(|correlation| + ε) over pairs of images of class c: Σ_c |E_c|; of more than 100 classes, with E_c
    /// divided by the images of the class, Σ_c Σ_d |E_c − E_d| / classes. Classes that the batch lacks have no part, nor,
    /// of many classes, those with one image. The paper's equations divide by the number of pairs in a class; the program
    /// divides by that of images.
    fn score(&self, start: &Start<'_>) -> Result<f64> {
        let jacobian = jacobian(start)?;
        let batch = start.batch();
        let labels = Vec::<i64>::try_from(&batch.labels)?;
        let mut classes: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for (image, class) in labels.into_iter().enumerate() {
            classes.entry(class).or_default().push(image as i64);
        }
        let many = start.network().task().classes > MANY;
        let mut found = vec![];
        for images in classes.values().filter(|images| !many || images.len() > 1) {
            let rows = Tensor::from_slice(images).to_device(jacobian.device());
            // The correlation of a single image with itself is one, whatever it is.
            let sum = match images.len() {
                1 => (1.0 + self.epsilon).ln(),
                _ => {
                    let alike = correlations(&jacobian.index_select(0, &rows)).abs();
                    total(&(alike + self.epsilon).log())
                }
            };
            found.push(match many {
                true => sum / images.len() as f64,
                false => sum,
            });
        }
        if !many {
            return Ok(found.iter().map(|e| e.abs()).sum());
        }
        let differences = |e: &f64| found.iter().map(|other| (e - other).abs()).sum::<f64>();
        Ok(found.iter().map(differences).sum::<f64>() / (found.len() as f64).max(1.0))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("proxy.epsilon", self.epsilon, 1e-12, 1.0);
    }
}
