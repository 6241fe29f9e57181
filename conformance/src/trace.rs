//! What a strategy does in a step, seen from the search that it works on.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tch::{Device, Kind, Tensor, no_grad};

use nasfw_framework::arch::RelaxedArch;
use nasfw_framework::batches::{Batch, Split};
use nasfw_framework::listen::{Listener, LossTaken, SharedListener, Vector, Vectors, lock};
use nasfw_framework::search::Search;

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

    /// All batches that were drawn from a split.
    pub fn batches(&self, split: Split) -> impl Iterator<Item = &Batch> {
        self.acts.iter().filter_map(move |act| match act {
            Act::Drawn(batch) if batch.split == Some(split) => Some(batch),
            _ => None,
        })
    }
}

impl Listener for Trace {
    fn drawn(&mut self, batch: &Batch) {
        self.acts.push(Act::Drawn(keep(batch)));
    }

    /// The pinned weights; the graph stays that of the strategy's own.
    fn redirect(&mut self, theta: &Tensor) -> Option<Tensor> {
        let pin = self.pins.as_mut()?.pop_front()?;
        Some(pin + (theta - theta.detach()))
    }

    fn loss(&mut self, taken: LossTaken<'_>) {
        let mut kept = taken.arch.detach();
        kept.weights = taken.arch.weights.iter().map(copy).collect();
        self.acts.push(Act::Loss {
            theta: copy(taken.theta),
            arch: kept,
            batch: keep(taken.batch),
            value: taken.loss.double_value(&[]),
        });
    }

    fn differentiated(&mut self, loss: &Tensor, of: &[Vector]) {
        self.acts.push(Act::Gradients {
            value: loss.double_value(&[]),
            of_theta: of.contains(&Vector::Theta),
            of_phi: of.contains(&Vector::Phi),
        });
    }

    /// Nothing but the last update may have moved θ and φ before the next one.
    fn moves(&mut self, of: Vector, gradient: Option<&Tensor>, at: Vectors<'_>) {
        self.audit(at.theta, at.phi, "before an update");
        self.acts.push(Act::Update {
            of,
            gradient: gradient.map(copy),
        });
    }

    fn settled(&mut self, at: Vectors<'_>) {
        (self.theta, self.phi) = (copy(at.theta), copy(at.phi));
    }
}

/// A trace that a search writes.
pub(crate) struct Watch(Arc<Mutex<Trace>>);

impl Watch {
    /// Begins to watch a search as it stands.
    pub fn begin(search: &mut Search, pins: Option<Vec<Tensor>>) -> Self {
        let trace = Trace::new(&search.theta(), &search.phi(), pins);
        let trace = Arc::new(Mutex::new(trace));
        let listener: SharedListener = trace.clone();
        search.listen(&listener);
        Self(trace)
    }

    /// What happened; from here on nobody watches.
    pub fn end(self) -> Trace {
        let nothing = Tensor::zeros([0], (Kind::Float, Device::Cpu));
        let empty = Trace::new(&nothing, &nothing, None);
        std::mem::replace(&mut *lock(&self.0), empty)
    }
}
