//! NASWOT (Mellor et al. 2021): whether ReLUs tell images apart.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

/// Settings of `nwot`: none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nwot {}

register! {
    proxy "nwot" => Nwot,
    summary: "log-determinant of how many ReLUs each two images agree in",
    source: "Mellor, Turner, Storkey, Crowley 2021, ICML, arXiv:2006.04647 (NASWOT)",
    defaults: "[proxy]\n",
    example: "nasfw score DARTS_V2 --proxy nwot",
}

#[typetag::serde(name = "nwot")]
impl Proxy for Nwot {
    /// log |K|, K_ij the number of ReLUs that are on for both images or off for both. ReLUs count as often as the
    /// architecture has them, also those that no output depends on: the published programs have one for every operation.
    fn score(&self, start: &Start<'_>) -> Result<f64> {
        let batch = start.batch();
        let weights = start.weights().detach();
        let images = &batch.images;
        let (_, told) =
            no_grad(|| start.observe(Wanted::ReluInputs, || start.logits(&weights, images)))?;
        let n = batch.len();
        let mut agree = Tensor::zeros([n, n], (Kind::Double, images.device()));
        for value in &told {
            let Place::Relu { times } = value.place else {
                continue;
            };
            let on = value
                .tensor
                .detach()
                .gt(0.0)
                .flatten(1, -1)
                .to_kind(Kind::Float);
            let off: Tensor = 1.0 - &on;
            let both = on.matmul(&on.tr()) + off.matmul(&off.tr());
            agree += both.to_kind(Kind::Double) * times;
        }
        let (_, log_determinant) = agree.f_slogdet()?;
        Ok(log_determinant.double_value(&[]))
    }
}
