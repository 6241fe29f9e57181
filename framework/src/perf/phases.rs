//! Where the time of a step goes.

use std::time::Instant;

use serde::Serialize;
use tch::Device;

use crate::device::synchronise;
use crate::listen::{Listener, Phase};

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
    /// Whether it is running.
    pub on: bool,
    seconds: [f64; 4],
    /// When each phase that is going on began.
    began: Vec<Instant>,
}

impl PhaseClock {
    pub fn new(device: Device) -> Self {
        Self {
            device,
            on: false,
            seconds: [0.0; 4],
            began: vec![],
        }
    }

    /// Seconds a step, of `steps` steps that took `total` seconds.
    pub fn phases(&self, total: f64, steps: usize) -> Phases {
        let steps = steps.max(1) as f64;
        let [data, forward, backward, optimizer] = self.seconds.map(|s| s / steps);
        Phases {
            data,
            forward,
            backward,
            optimizer,
            rest: total / steps - (data + forward + backward + optimizer),
        }
    }
}

impl Listener for PhaseClock {
    fn phase_begins(&mut self, _: Phase) {
        if self.on {
            synchronise(self.device);
            self.began.push(Instant::now());
        }
    }

    fn phase_ends(&mut self, phase: Phase) {
        if let Some(began) = self.began.pop() {
            synchronise(self.device);
            self.seconds[phase as usize] += began.elapsed().as_secs_f64();
        }
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
            let mut clock = PhaseClock { on: true, ..PhaseClock::new(Device::Cpu) };
            let began = Instant::now();
            let mut least = [0.0; 5];
            for (phase, microseconds) in work {
                let phase_of = ALL.get(phase).copied();
                phase_of.into_iter().for_each(|p| clock.phase_begins(p));
                std::thread::sleep(Duration::from_micros(microseconds));
                phase_of.into_iter().for_each(|p| clock.phase_ends(p));
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
