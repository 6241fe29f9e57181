//! How the outputs depend on the images, and how alike that is for different images.

use nasfw_framework::prelude::*;
use tch::{Kind, Tensor};

/// `[n, pixels]`: row i is the gradient of the sum of all logits of the batch with respect to image i, in double precision.
/// Through batch norms it has a part in other images' logits, too.
pub(super) fn jacobian(start: &Start<'_>) -> Result<Tensor> {
    let images = start.batch().images.detach().set_requires_grad(true);
    let logits = start.logits(&start.weights().detach(), &images)?;
    let gradient = start.gradient(&logits.sum(logits.kind()), &images)?;
    Ok(gradient.flatten(1, -1).to_kind(Kind::Double))
}

/// Pearson correlations between rows, `[n, n]`; not-a-number where a row does not vary.
pub(super) fn correlations(rows: &Tensor) -> Tensor {
    let centred = rows - rows.mean_dim([1i64].as_slice(), true, Kind::Double);
    let products = centred.matmul(&centred.tr());
    let deviations = products.diagonal(0, 0, 1).sqrt();
    (products / deviations.outer(&deviations)).clamp(-1.0, 1.0)
}
