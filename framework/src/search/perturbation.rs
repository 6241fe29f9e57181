//! Architectures that are moved before the weights descend at them.

use tch::Tensor;

use super::running::{Perturbation, Search};
use crate::arch::RelaxedArch;
use crate::batches::Batch;
use crate::error::Result;

impl Search {
    /// The loss that a step of the weights descends: [`Search::loss`] at θ and at `arch`, or where a strategy that wraps
    /// this one has moved `arch` to.
    ///
    /// # Errors
    /// Those of [`Search::loss`].
    pub fn weight_loss(&mut self, arch: &RelaxedArch, batch: &Batch) -> Result<Tensor> {
        let theta = self.theta();
        let Some(mut perturbation) = self.perturbation.take() else {
            return self.loss(&theta, arch, batch);
        };
        let moved = perturbation.perturb(self, arch, batch);
        self.perturbation = Some(perturbation);
        self.loss(&theta, &moved?, batch)
    }

    /// Does `step` with a perturbation in force.
    ///
    /// # Errors
    /// Those of `step`.
    pub fn perturbed<T>(
        &mut self,
        perturbation: Box<dyn Perturbation>,
        step: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let outer = self.perturbation.replace(perturbation);
        let done = step(self);
        self.perturbation = outer;
        done
    }
}
