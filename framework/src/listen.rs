//! The one seam for everybody who listens to a search: progress bars, trackers, benchmarks, the conformance suite.
//!
//! A search tells what it does for its strategy; the trainer tells what happens in the run. Who listens changes no
//! number, with one exception that tests need ([`Listener::redirect`]).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tch::Tensor;

use crate::arch::RelaxedArch;
use crate::batches::Batch;
use crate::error::Result;
use crate::events::Event;
use crate::outcome::Outcome;

/// One of the two flat vectors of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vector {
    /// The supernet's weights.
    Theta,
    /// The distribution's parameters.
    Phi,
}

impl Vector {
    /// Its letter.
    pub fn name(self) -> &'static str {
        match self {
            Self::Theta => "θ",
            Self::Phi => "φ",
        }
    }
}

/// Both vectors as they stand, the search's own memory.
#[derive(Debug, Clone, Copy)]
pub struct Vectors<'a> {
    /// The supernet's weights, `[n]`.
    pub theta: &'a Tensor,
    /// The distribution's parameters, `[m]`.
    pub phi: &'a Tensor,
}

/// What a search does for a strategy. The rest of a step is the strategy's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Drawing and augmenting a batch.
    Data,
    /// A forward pass, its loss and its metering.
    Forward,
    /// A backward pass.
    Backward,
    /// An update of weights or architecture.
    Optimizer,
}

/// A loss that was computed.
#[derive(Debug, Clone, Copy)]
pub struct LossTaken<'a> {
    /// The weights that it was computed at.
    pub theta: &'a Tensor,
    /// The architecture that it was computed at.
    pub arch: &'a RelaxedArch,
    /// On these images.
    pub batch: &'a Batch,
    /// The loss, a scalar with its graph. Reading it waits for the device.
    pub loss: &'a Tensor,
}

/// Whoever listens to a search. Every method does nothing unless it is implemented. All are called on the thread of the
/// search, in the order in which things happen; tensors are the search's own, to be copied by whoever keeps them.
pub trait Listener: Send {
    /// Something happened in the run.
    ///
    /// # Errors
    /// What must end the search: a file that can't be written.
    fn event(&mut self, _event: &Event) -> Result<()> {
        Ok(())
    }

    /// The search is over, and every file of the run is written.
    ///
    /// # Errors
    /// What the user must know.
    fn found(&mut self, _outcome: &Outcome) -> Result<()> {
        Ok(())
    }

    /// A step ended: steps done, the epoch that it was of, and the share of the planned search that is done, from 0 to 1.
    fn stepped(&mut self, _step: u64, _epoch: u64, _done: f64) {}

    /// A phase of a step begins.
    fn phase_begins(&mut self, _phase: Phase) {}

    /// A phase of a step ends.
    fn phase_ends(&mut self, _phase: Phase) {}

    /// The strategy drew a batch.
    fn drawn(&mut self, _batch: &Batch) {}

    /// The weights that the next loss is computed at; none means those that the strategy gives. For tests that must know
    /// losses at other places: this alone changes what a search does.
    fn redirect(&mut self, _theta: &Tensor) -> Option<Tensor> {
        None
    }

    /// The strategy took a loss.
    fn loss(&mut self, _taken: LossTaken<'_>) {}

    /// The strategy took gradients of a loss with respect to these of the two vectors.
    fn differentiated(&mut self, _loss: &Tensor, _of: &[Vector]) {}

    /// A vector is about to descend along a gradient, or where there is none, to be moved by a rule of the strategy's.
    fn moves(&mut self, _of: Vector, _gradient: Option<&Tensor>, _at: Vectors<'_>) {}

    /// The two vectors are as they should be until the next [`Listener::moves`].
    fn settled(&mut self, _at: Vectors<'_>) {}
}

/// A listener as a search holds it: it is told of things as long as somebody else keeps it.
pub type SharedListener = Arc<Mutex<dyn Listener>>;

/// A listener to be handed to a search.
pub fn shared(listener: impl Listener + 'static) -> SharedListener {
    Arc::new(Mutex::new(listener))
}

/// The listener itself, also after a panic of it.
pub fn lock<L: Listener + ?Sized>(listener: &Mutex<L>) -> MutexGuard<'_, L> {
    listener.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Those who listen to a search.
#[derive(Default)]
pub(crate) struct Listeners(Vec<Weak<Mutex<dyn Listener>>>);

impl Listeners {
    /// Tells a listener of things, as long as somebody keeps it.
    pub fn add(&mut self, listener: &SharedListener) {
        self.0.retain(|known| known.strong_count() > 0);
        self.0.push(Arc::downgrade(listener));
    }

    /// Tells all of something.
    pub fn tell(&self, mut what: impl FnMut(&mut dyn Listener)) {
        for listener in self.0.iter().filter_map(Weak::upgrade) {
            what(&mut *lock(&listener));
        }
    }

    /// The phase goes on until the span is dropped.
    pub fn phase(&self, phase: Phase) -> Span {
        let listeners: Vec<SharedListener> = self.0.iter().filter_map(Weak::upgrade).collect();
        for listener in &listeners {
            lock(listener).phase_begins(phase);
        }
        Span { listeners, phase }
    }
}

/// A phase that goes on until this is dropped.
pub(crate) struct Span {
    listeners: Vec<SharedListener>,
    phase: Phase,
}

impl Drop for Span {
    fn drop(&mut self) {
        for listener in &self.listeners {
            lock(listener).phase_ends(self.phase);
        }
    }
}
