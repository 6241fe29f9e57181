//! What stands between a strategy and the loss that its weights descend.

use tch::Tensor;

use super::running::{Perturbation, Search};
use crate::arch::RelaxedArch;
use crate::batches::Batch;
use crate::error::Result;

impl Search {
    /// The loss that a step of the weights descends: [`Search::loss`] at θ and at `arch`, or what strategies that wrap this
    /// one make of it, the innermost first.
    ///
    /// # Errors
    /// Those of [`Search::loss`].
    pub fn weight_loss(&mut self, arch: &RelaxedArch, batch: &Batch) -> Result<Tensor> {
        let theta = self.theta();
        let Some(mut perturbation) = self.perturbations.pop() else {
            return self.loss(&theta, arch, batch);
        };
        let loss = perturbation.loss(self, arch, batch);
        self.perturbations.push(perturbation);
        loss
    }

    /// Whether another perturbation is in force, around the one that asks.
    pub fn is_perturbed(&self) -> bool {
        !self.perturbations.is_empty()
    }

    /// Does `step` with a perturbation in force, inside those that are already.
    ///
    /// # Errors
    /// Those of `step`.
    pub fn perturbed<T>(
        &mut self,
        perturbation: Box<dyn Perturbation>,
        step: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let outer = self.perturbations.len();
        self.perturbations.push(perturbation);
        let done = step(self);
        self.perturbations.truncate(outer);
        done
    }
}
