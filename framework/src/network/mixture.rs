//! What an architecture says of an open network.

use tch::Tensor;

use super::graph::{Mix, Op, Step};
use crate::arch::RelaxedArch;

/// An architecture, with its weights and offsets one by one.
pub(super) struct Mixture<'a> {
    arch: &'a RelaxedArch,
    /// Per group, row after row.
    weights: Vec<Vec<Tensor>>,
    /// Columns of each group.
    widths: Vec<usize>,
    /// Per group.
    offsets: Option<Vec<Vec<Tensor>>>,
}

impl<'a> Mixture<'a> {
    /// `arch` has the shapes of the network's space.
    pub(super) fn new(arch: &'a RelaxedArch) -> Self {
        let each = |t: &Tensor| t.reshape([-1]).unbind(0);
        Self {
            arch,
            weights: arch.weights.iter().map(each).collect(),
            widths: arch.weights.iter().map(|w| w.size()[1] as usize).collect(),
            offsets: (arch.offsets.as_ref()).map(|of| of.iter().map(each).collect()),
        }
    }

    /// The inputs that a step reads: no candidates that are masked.
    pub(super) fn read(&self, step: &Step) -> Vec<usize> {
        match &step.op {
            Op::Mix(mix) => self.active(mix, &step.inputs).map(|(_, i)| i).collect(),
            _ => step.inputs.clone(),
        }
    }

    /// Columns and inputs that are computed.
    pub(super) fn active<'b>(
        &'b self,
        mix: &'b Mix,
        inputs: &'b [usize],
    ) -> impl Iterator<Item = (usize, usize)> + 'b {
        let all = mix.columns.iter().copied().zip(inputs.iter().copied());
        all.filter(|(c, _)| self.arch.is_active(mix.group, mix.row, *c))
    }

    /// The weight of a column, a scalar.
    pub(super) fn weight(&self, mix: &Mix, column: usize) -> &Tensor {
        &self.weights[mix.group][mix.row * self.widths[mix.group] + column]
    }

    /// What is added to every number that the row puts out, a scalar.
    pub(super) fn offset(&self, mix: &Mix) -> Option<&Tensor> {
        Some(&self.offsets.as_ref()?[mix.group][mix.row])
    }
}
