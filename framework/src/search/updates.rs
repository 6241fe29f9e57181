//! How θ and φ begin and move: optimizers, learning rates and their schedules.

use tch::{Kind, Tensor, no_grad};

use super::running::{Needs, Search, Tick, leaf};
use crate::error::{Error, Result};
use crate::listen::{Phase, Vector};
use crate::optim::{FlatOptimizer, OptimizerConfig};

impl Search {
    /// Descends θ by its optimizer at the current rate.
    pub fn descend_theta(&mut self, gradient: &Tensor) {
        let _span = self.timed(Phase::Optimizer);
        let lr = self.theta_lr();
        let Some(frozen) = &self.frozen else {
            self.moves(Vector::Theta, Some(gradient));
            self.theta_optimizer.step(&mut self.theta, gradient, lr);
            return self.settled();
        };
        let gradient = no_grad(|| gradient.masked_fill(frozen, 0.0));
        self.moves(Vector::Theta, Some(&gradient));
        self.theta_optimizer
            .step_around(&mut self.theta, &gradient, lr, frozen);
        self.settled();
    }

    /// Until this step ends, θ does not move where `frozen` (`[weights]`, bool) is true: no gradient, no decay of the
    /// weights, no momentum, and neither do the optimizer's averages there. What is frozen twice in a step is frozen where
    /// either says so, so that a strategy that wraps another can freeze what that one descends. It is no part of a
    /// checkpoint: a strategy that freezes for good (OLES, Jiang et al. 2023, NeurIPS) says so in every step, and keeps
    /// the mask in its own state.
    ///
    /// # Errors
    /// A mask of another shape or kind.
    pub fn freeze_theta(&mut self, frozen: &Tensor) -> Result<()> {
        let fits = frozen.size() == self.theta.size() && frozen.kind() == Kind::Bool;
        if !fits {
            return Err(Error::Invalid {
                what: "mask of frozen weights".into(),
                why: format!(
                    "it is {:?} of shape {:?}, not Bool of shape {:?}",
                    frozen.kind(),
                    frozen.size(),
                    self.theta.size()
                ),
            });
        }
        let frozen = frozen.to_device(self.device);
        self.frozen = Some(match self.frozen.take() {
            Some(before) => before.logical_or(&frozen),
            None => frozen.copy(),
        });
        Ok(())
    }

    /// Descends φ by its optimizer at the current rate.
    ///
    /// # Errors
    /// When the strategy has no distribution with an optimizer.
    pub fn descend_phi(&mut self, gradient: &Tensor) -> Result<()> {
        let _span = self.timed(Phase::Optimizer);
        let lr = self.phi_lr();
        let beside = self.beside.take();
        let sum = beside.map(|beside| no_grad(|| gradient + beside));
        let gradient = sum.as_ref().unwrap_or(gradient);
        self.moves(Vector::Phi, Some(gradient));
        match &mut self.phi_optimizer {
            Some(optimizer) => {
                optimizer.step(&mut self.phi, gradient, lr);
                self.settled();
            }
            None => {
                return Err(Error::Plugin {
                    plugin: "strategy".into(),
                    message: "it descends φ but names no optimizer for it (`arch_optimizer`)"
                        .into(),
                });
            }
        }
        Ok(())
    }

    /// Adds to the gradient that φ descends next in this step, `[φ]`: what a strategy that wraps another adds to its loss. It has
    /// no effect where φ does not descend a gradient in this step.
    ///
    /// # Errors
    /// A gradient of another shape.
    pub fn descend_beside(&mut self, gradient: &Tensor) -> Result<()> {
        if gradient.size() != self.phi.size() {
            return Err(Error::Invalid {
                what: "gradient beside the architecture's".into(),
                why: format!(
                    "its shape is {:?}, not {:?}",
                    gradient.size(),
                    self.phi.size()
                ),
            });
        }
        let gradient = gradient.detach();
        self.beside = Some(match self.beside.take() {
            Some(before) => before + gradient,
            None => gradient,
        });
        Ok(())
    }

    /// Changes φ by a rule of the strategy's own (projections, natural gradients, closed forms), outside the graph.
    pub fn update_phi(&mut self, rule: impl FnOnce(&mut Tensor)) {
        let _span = self.timed(Phase::Optimizer);
        self.moves(Vector::Phi, None);
        no_grad(|| rule(&mut self.phi));
        self.settled();
    }

    /// The optimizer of θ: its settings and momentum buffer.
    pub fn theta_optimizer(&self) -> &FlatOptimizer {
        &self.theta_optimizer
    }

    /// The optimizer of φ: its settings and moments; none where the strategy names none.
    pub fn phi_optimizer(&self) -> Option<&FlatOptimizer> {
        self.phi_optimizer.as_ref()
    }

    /// The current learning rate of θ.
    pub fn theta_lr(&self) -> f64 {
        let (done, warmup) = (self.clock.epoch + 1, self.settings.warmup_epochs);
        let share = if done < warmup {
            done as f64 / warmup as f64
        } else {
            1.0
        };
        self.rate(&self.settings.weights) * share * self.clock.theta_rate.unwrap_or(1.0)
    }

    /// The current learning rate of φ; 0 without a distribution.
    pub fn phi_lr(&self) -> f64 {
        self.phi_optimizer
            .as_ref()
            .map_or(0.0, |o| self.rate(o.config()))
    }

    fn rate(&self, c: &OptimizerConfig) -> f64 {
        if self.budget().is_some() {
            return c.schedule.at(c.lr, c.lr_min, self.progress());
        }
        let (first, epochs) = self
            .clock
            .schedule
            .unwrap_or((0, self.settings.schedule_epochs));
        let within = match self.settings.schedule_by {
            Tick::Epoch => 0.0,
            Tick::Step => self.clock.step_in_epoch as f64 / self.steps_per_epoch().max(1) as f64,
        };
        let done = self.clock.epoch.saturating_sub(first) as f64 + within;
        c.schedule.over(c.lr, c.lr_min, done, epochs.max(1) as f64)
    }

    /// Learning rates run their schedules over so many epochs from epoch `first` on, until this is called again: for
    /// searches in stages. Under a budget they run over the budget.
    pub fn schedule_over(&mut self, first: u64, epochs: u64) {
        self.clock.schedule = Some((first, epochs));
    }

    /// Changes the L2 decay of the weights from the next step on.
    pub fn set_weight_decay(&mut self, weight_decay: f64) {
        self.theta_optimizer.set_weight_decay(weight_decay);
    }

    /// Starts the optimizer of θ afresh, without momentum, at `rate` times the planned learning rates from here on: to tune
    /// weights that are trained. The weights stay.
    pub fn restart_theta_optimizer(&mut self, rate: f64) {
        self.clock.theta_rate = Some(rate);
        let decay = self.theta_optimizer.config().weight_decay;
        self.theta_optimizer = self.settings.weights.build(&self.theta);
        self.theta_optimizer.set_weight_decay(decay);
        self.settled();
    }

    /// Starts θ, its statistics and its optimizer afresh, from another draw each time.
    ///
    /// # Errors
    /// Those of [`Supernet::init`](crate::supernet::Supernet::init).
    pub fn restart_weights(&mut self) -> Result<()> {
        self.clock.restarts += 1;
        self.start_weights()?;
        self.settled();
        Ok(())
    }

    pub(super) fn start_weights(&mut self) -> Result<()> {
        let streams = self.streams.child("weights", self.clock.restarts);
        let (kind, device) = (self.kind, self.device);
        self.theta = leaf(self.supernet.init(streams, kind, device)?);
        self.stats = self.supernet.init_stats(streams, kind, device)?;
        self.theta_optimizer = self.settings.weights.build(&self.theta);
        Ok(())
    }

    pub(super) fn start_arch(&mut self, needs: &Needs<'_>) {
        let streams = self.streams.child("architecture", self.clock.stage);
        if let Some(distribution) = needs.distribution {
            self.phi = leaf(distribution.init(streams, self.kind, self.device));
            self.phi_optimizer = needs.arch_optimizer.map(|c| c.build(&self.phi));
        }
    }

    fn moves(&self, of: Vector, gradient: Option<&Tensor>) {
        self.tell(|listener| listener.moves(of, gradient, self.vectors()));
    }

    pub(super) fn settled(&self) {
        self.tell(|listener| listener.settled(self.vectors()));
    }
}
