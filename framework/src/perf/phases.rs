//! Where the time of a step goes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;
use tch::Device;

use crate::device::synchronise;

/// What a search does for a strategy. The rest of a step is the strategy's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Data,
    Forward,
    Backward,
    Optimizer,
}

/// Seconds a step of each phase.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Phases {
    /// Drawing and augmenting batches.
    pub data: f64,
    /// Forward passes, losses and their metering.
    pub forward: f64,
    /// Backward passes.
    pub backward: f64,
    /// Updates of weights and architecture.
    pub optimizer: f64,
    /// Everything else: samples of the strategy's distribution, evaluations, bookkeeping.
    pub rest: f64,
}

impl Phases {
    /// Name and seconds of each phase.
    pub fn named(&self) -> [(&'static str, f64); 5] {
        [
            ("data", self.data),
            ("forward", self.forward),
            ("backward", self.backward),
            ("optimizer", self.optimizer),
            ("rest", self.rest),
        ]
    }
}

/// Adds up the seconds of each phase. On a GPU it waits for the device at every border between two phases.
#[derive(Debug)]
pub(crate) struct PhaseClock {
    device: Device,
    seconds: Mutex<[f64; 4]>,
}

impl PhaseClock {
    pub fn new(device: Device) -> Arc<Self> {
        Arc::new(Self {
            device,
            seconds: Mutex::default(),
        })
    }

    /// Times `phase` until the span is dropped.
    pub fn span(self: &Arc<Self>, phase: Phase) -> Span {
        synchronise(self.device);
        Span {
            clock: Arc::clone(self),
            phase,
            began: Instant::now(),
        }
    }

    /// Seconds a step, of `steps` steps that took `total` seconds.
    pub fn phases(&self, total: f64, steps: usize) -> Phases {
        let sums = *self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        let steps = steps.max(1) as f64;
        let [data, forward, backward, optimizer] = sums.map(|s| s / steps);
        Phases {
            data,
            forward,
            backward,
            optimizer,
            rest: total / steps - (data + forward + backward + optimizer),
        }
    }
}

/// A phase that goes on until this is dropped.
pub(crate) struct Span {
    clock: Arc<PhaseClock>,
    phase: Phase,
    began: Instant,
}

impl Drop for Span {
    fn drop(&mut self) {
        synchronise(self.clock.device);
        let mut seconds = self
            .clock
            .seconds
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        seconds[self.phase as usize] += self.began.elapsed().as_secs_f64();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const ALL: [Phase; 4] = [
        Phase::Data,
        Phase::Forward,
        Phase::Backward,
        Phase::Optimizer,
    ];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever a step does between its phases, these sum to no more than the step, and each to at least its work.
        #[test]
        fn phases_sum_to_no_more_than_the_step(work in prop::collection::vec((0usize..5, 0u64..300), 0..12)) {
            let clock = PhaseClock::new(Device::Cpu);
            let began = Instant::now();
            let mut least = [0.0; 5];
            for (phase, microseconds) in work {
                let _span = ALL.get(phase).map(|p| clock.span(*p));
                std::thread::sleep(Duration::from_micros(microseconds));
                least[phase] += microseconds as f64 / 1e6;
            }
            let total = began.elapsed().as_secs_f64();
            let phases = clock.phases(total, 1).named().map(|(_, seconds)| seconds);
            prop_assert!(phases[..4].iter().sum::<f64>() <= total);
            for (phase, least) in phases.into_iter().zip(least) {
                prop_assert!(phase >= least - 1e-9, "{} < {}", phase, least);
            }
            let half = clock.phases(total, 2).named();
            prop_assert!((half.iter().map(|(_, s)| s).sum::<f64>() - total / 2.0).abs() < 1e-9);
        }
    }
}
