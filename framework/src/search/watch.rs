//! A search that is watched, by the conformance suite or a benchmark. Where nobody watches all of this does nothing.

use tch::Tensor;

use super::Search;
use crate::conformance::trace::{Act, Trace, Vector};
use crate::perf::phases::{Phase, Span};

impl Search {
    /// What happens until the span is dropped is part of a phase.
    pub(crate) fn timed(&self, phase: Phase) -> Option<Span> {
        self.phases.as_ref().map(|clock| clock.span(phase))
    }

    /// Tells whoever watches.
    pub(super) fn watch(&self, tell: impl FnOnce(&mut Trace, &Self)) {
        if let Some(trace) = &self.trace {
            tell(&mut trace.borrow_mut(), self);
        }
    }

    /// Nothing but the last update may have moved θ and φ before the next one.
    pub(super) fn watch_update(&self, of: Vector, gradient: Option<&Tensor>) {
        self.watch(|trace, search| {
            trace.audit(&search.theta, &search.phi, "before an update");
            trace.update(of, gradient);
        });
    }

    /// The two vectors are as they should be from here on.
    pub(super) fn watch_settled(&self) {
        self.watch(|trace, search| trace.accept(&search.theta, &search.phi));
    }

    /// Leaves and value of a differentiation.
    pub(super) fn watch_gradients(&self, loss: &Tensor, leaves: &[&Tensor]) {
        self.watch(|trace, search| {
            let has = |own: &Tensor| leaves.iter().any(|l| l.data_ptr() == own.data_ptr());
            trace.acts.push(Act::Gradients {
                value: loss.double_value(&[]),
                of_theta: has(&search.theta),
                of_phi: has(&search.phi),
            });
        });
    }
}
