//! The two halves of a step of first-order bilevel descent (Liu, Simonyan, Yang 2019, algorithm 1 with ξ = 0), which most
//! gradient strategies have in common.

use nasfw_framework::prelude::*;
use tch::Tensor;

/// L_val(w, α) on the next batch of the architecture's half, with a graph to α alone.
pub(crate) fn validation_loss(
    search: &mut Search,
    distribution: &dyn ArchDistribution,
) -> Result<Tensor> {
    let val = search.batch(Split::Val)?;
    let arch = distribution.sample(&search.phi(), &mut search.rng("architecture step"))?;
    search.loss(&search.theta().detach(), &arch, &val)
}

/// Descends α along the gradient of a loss.
pub(crate) fn descend_architecture(search: &mut Search, loss: &Tensor) -> Result<()> {
    let gradient = search.gradients(loss, &[&search.phi()])?;
    search.descend_phi(&gradient[0])
}

/// Descends w along ∇_w L_train(w, α) on a batch.
pub(crate) fn descend_weights(
    search: &mut Search,
    distribution: &dyn ArchDistribution,
    train: &Batch,
) -> Result<()> {
    let arch = distribution.sample(&search.phi(), &mut search.rng("weight step"))?;
    descend_weights_at(search, &arch.detach(), train)
}

/// Descends w along ∇_w L_train(w, A) on a batch, at an architecture A without a graph.
pub(crate) fn descend_weights_at(
    search: &mut Search,
    arch: &RelaxedArch,
    train: &Batch,
) -> Result<()> {
    let loss = search.weight_loss(arch, train)?;
    let gradient = search.gradients(&loss, &[&search.theta()])?;
    search.descend_theta(&gradient[0]);
    Ok(())
}
