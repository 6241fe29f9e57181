//! Trainings that are set aside and taken up again (hook H31).

use std::collections::BTreeMap;

use tch::{Device, Tensor, no_grad};

use super::running::{Search, leaf};
use crate::error::{Error, Result};

/// A training that was set aside: weights, running statistics, and what the optimizer keeps of their gradients, on the
/// host. It takes as much memory as the weights and the optimizer's averages together, and so does a checkpoint that
/// holds it.
#[derive(Debug)]
pub struct Parked {
    /// In the order of [`PARTS`].
    parts: [Tensor; 4],
    /// Steps that the optimizer has taken.
    steps: i64,
}

/// Names of the parts.
const PARTS: [&str; 4] = ["theta", "stats", "first", "second"];
const STEPS: &str = "steps";

impl Parked {
    /// Adds it to the tensors of a strategy's state, under names that begin with `name`.
    pub fn save(&self, name: &str, tensors: &mut BTreeMap<String, Tensor>) {
        for (part, tensor) in PARTS.iter().zip(&self.parts) {
            tensors.insert(format!("{name}.{part}"), tensor.shallow_clone());
        }
        tensors.insert(format!("{name}.{STEPS}"), Tensor::from_slice(&[self.steps]));
    }

    /// Takes it out of the tensors of a strategy's state, bit for bit as it was.
    ///
    /// # Errors
    /// A state that lacks a part of it.
    pub fn load(name: &str, tensors: &mut BTreeMap<String, Tensor>) -> Result<Self> {
        let mut take = |part: &str| {
            let name = format!("{name}.{part}");
            tensors.remove(&name).ok_or_else(|| Error::Invalid {
                what: "strategy state".into(),
                why: format!("it has no tensor `{name}`"),
            })
        };
        let [a, b, c, d] = PARTS.map(&mut take);
        let parts = [a?, b?, c?, d?].map(|t| t.to_device(Device::Cpu).contiguous());
        let steps = i64::try_from(&take(STEPS)?.view([-1]).get(0))?;
        Ok(Self { parts, steps })
    }
}

impl Search {
    /// Sets the training of θ aside: a copy of its weights, statistics and optimizer as they stand.
    pub fn park(&self) -> Parked {
        let ([(_, first), (_, second)], steps) = self.theta_optimizer.state();
        let copy = |t: &Tensor| no_grad(|| t.detach().to_device(Device::Cpu).copy());
        Parked {
            parts: [&self.theta, &self.stats, first, second].map(copy),
            steps,
        }
    }

    /// Takes a training up again, bit for bit where it was set aside. What θ was until now is lost, unless it was parked,
    /// too. Learning rates follow the search's clock: [`Search::schedule_over`] lets them go on, too.
    ///
    /// # Errors
    /// A training of another network.
    pub fn take_up(&mut self, parked: &Parked) -> Result<()> {
        let [theta, stats, first, second] =
            (parked.parts.each_ref()).map(|t| t.to_device(self.device).copy());
        let fits = theta.size() == self.theta.size() && stats.size() == self.stats.size();
        let mut optimizer = self.settings.weights.build(&self.theta);
        if !fits || !optimizer.restore(first, second, parked.steps) {
            return Err(Error::Invalid {
                what: "training that was set aside".into(),
                why: "it is one of another network".into(),
            });
        }
        self.theta = leaf(theta);
        self.stats = stats;
        self.theta_optimizer = optimizer;
        self.settled();
        Ok(())
    }
}
