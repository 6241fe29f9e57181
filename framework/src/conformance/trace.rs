//! What a strategy does in a step, seen from the search that it works on.

use std::collections::VecDeque;

use tch::{Tensor, no_grad};

use crate::arch::RelaxedArch;
use crate::batches::Batch;
use crate::strategy::Split;

/// One of the two flat vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vector {
    /// The supernet's weights.
    Theta,
    /// The distribution's parameters.
    Phi,
}

impl Vector {
    pub fn name(self) -> &'static str {
        match self {
            Self::Theta => "θ",
            Self::Phi => "φ",
        }
    }
}

/// Something that a strategy asked of the search. Tensors are copies, outside any graph.
pub(crate) enum Act {
    /// A batch was drawn.
    Drawn(Batch),
    /// A loss was computed.
    Loss {
        theta: Tensor,
        arch: RelaxedArch,
        batch: Batch,
        value: f64,
    },
    /// A loss was differentiated.
    Gradients {
        /// Its value.
        value: f64,
        of_theta: bool,
        of_phi: bool,
    },
    /// A vector descended along a gradient, or moved by a rule of the strategy's own.
    Update {
        of: Vector,
        gradient: Option<Tensor>,
    },
}

impl Act {
    /// The value of a loss; zero of anything else.
    pub fn value(&self) -> f64 {
        match self {
            Self::Loss { value, .. } => *value,
            _ => 0.0,
        }
    }

    /// Images of a loss; zero of anything else.
    pub fn images(&self) -> f64 {
        match self {
            Self::Loss { batch, .. } => batch.len() as f64,
            _ => 0.0,
        }
    }
}

/// A copy of a batch that later changes can't reach.
pub(crate) fn keep(batch: &Batch) -> Batch {
    Batch {
        images: batch.images.copy(),
        labels: batch.labels.copy(),
        split: batch.split,
    }
}

fn copy(tensor: &Tensor) -> Tensor {
    tensor.detach().copy()
}

/// The acts of a step.
pub(crate) struct Trace {
    pub acts: Vec<Act>,
    /// Where a vector was found to have changed although no update came in between.
    pub strayed: Vec<(Vector, &'static str)>,
    theta: Tensor,
    phi: Tensor,
    /// Weights to compute the losses at, one after the other, instead of those that the strategy gives.
    pins: Option<VecDeque<Tensor>>,
}

impl Trace {
    /// Begins to watch.
    pub fn new(theta: &Tensor, phi: &Tensor, pins: Option<Vec<Tensor>>) -> Self {
        Self {
            acts: vec![],
            strayed: vec![],
            theta: copy(theta),
            phi: copy(phi),
            pins: pins.map(Into::into),
        }
    }

    /// Compares both vectors, bit by bit, with what the last update left.
    pub fn audit(&mut self, theta: &Tensor, phi: &Tensor, at: &'static str) {
        for (of, now, was) in [
            (Vector::Theta, theta, &self.theta),
            (Vector::Phi, phi, &self.phi),
        ] {
            if !no_grad(|| now.equal(was)) {
                self.strayed.push((of, at));
            }
        }
    }

    /// Both vectors are what they should be from here on.
    pub fn accept(&mut self, theta: &Tensor, phi: &Tensor) {
        (self.theta, self.phi) = (copy(theta), copy(phi));
    }

    /// The weights to use for the next loss: the strategy's own values where nothing is pinned. The graph stays.
    pub fn pin(&mut self, theta: &Tensor) -> Option<Tensor> {
        let pin = self.pins.as_mut()?.pop_front()?;
        Some(pin + (theta - theta.detach()))
    }

    pub fn drawn(&mut self, batch: &Batch) {
        self.acts.push(Act::Drawn(keep(batch)));
    }

    pub fn loss(&mut self, theta: &Tensor, arch: &RelaxedArch, batch: &Batch, loss: &Tensor) {
        let mut kept = arch.detach();
        kept.weights = arch.weights.iter().map(copy).collect();
        self.acts.push(Act::Loss {
            theta: copy(theta),
            arch: kept,
            batch: keep(batch),
            value: loss.double_value(&[]),
        });
    }

    pub fn update(&mut self, of: Vector, gradient: Option<&Tensor>) {
        self.acts.push(Act::Update {
            of,
            gradient: gradient.map(copy),
        });
    }

    /// All batches that were drawn from a split.
    pub fn batches(&self, split: Split) -> impl Iterator<Item = &Batch> {
        self.acts.iter().filter_map(move |act| match act {
            Act::Drawn(batch) if batch.split == Some(split) => Some(batch),
            _ => None,
        })
    }
}
