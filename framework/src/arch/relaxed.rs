//! One sample of a distribution over architectures, as the supernet takes it.

use std::collections::BTreeMap;

use tch::Tensor;

use crate::error::{Error, Result};

/// A weight for every candidate, and what goes with the sample.
#[derive(Debug)]
pub struct RelaxedArch {
    /// One `[rows, width]` matrix per group of the spec; padding is zero.
    pub weights: Vec<Tensor>,
    /// `[group][row][column]`: false where the candidate need not be computed. It lives on the host, so that skipping
    /// costs no synchronisation. The weight of a masked candidate must be zero in value; where it carries a gradient
    /// (straight-through estimators), the gradient is that of a candidate whose output is zero.
    pub active: Option<Vec<Vec<Vec<bool>>>>,
    /// Per group `[rows]`: added to every number that a row puts out. GDAS's published gradient is one: zero in value, it
    /// carries the gradient of candidates that are not computed.
    pub offsets: Option<Vec<Tensor>>,
    /// log-probability of the sample, a scalar, where the distribution has one.
    pub log_prob: Option<Tensor>,
    /// Named scalars of the strategy that a supernet may understand: auxiliary-skip weight, dropout rate.
    pub scalars: BTreeMap<String, f64>,
}

impl RelaxedArch {
    /// An architecture of dense weights.
    pub fn new(weights: Vec<Tensor>) -> Self {
        Self {
            weights,
            active: None,
            offsets: None,
            log_prob: None,
            scalars: BTreeMap::new(),
        }
    }

    /// The same sample with other weights.
    pub fn with_weights(&self, weights: Vec<Tensor>) -> Self {
        let shared = |tensors: &Vec<Tensor>| tensors.iter().map(Tensor::shallow_clone).collect();
        Self {
            weights,
            active: self.active.clone(),
            offsets: self.offsets.as_ref().map(shared),
            log_prob: self.log_prob.as_ref().map(Tensor::shallow_clone),
            scalars: self.scalars.clone(),
        }
    }

    /// Adds the mask of what must be computed.
    pub fn with_active(mut self, active: Vec<Vec<Vec<bool>>>) -> Self {
        self.active = Some(active);
        self
    }

    /// Adds offsets of rows.
    pub fn with_offsets(mut self, offsets: Vec<Tensor>) -> Self {
        self.offsets = Some(offsets);
        self
    }

    /// Adds the log-probability of the sample.
    pub fn with_log_prob(mut self, log_prob: Tensor) -> Self {
        self.log_prob = Some(log_prob);
        self
    }

    /// Whether a candidate must be computed.
    pub fn is_active(&self, group: usize, row: usize, column: usize) -> bool {
        self.active.as_ref().is_none_or(|a| a[group][row][column])
    }

    /// A named scalar; zero where it is not given.
    pub fn scalar(&self, name: &str) -> f64 {
        self.scalars.get(name).copied().unwrap_or(0.0)
    }

    /// A named scalar that is a rate of dropping; zero where it is not given.
    ///
    /// # Errors
    /// Rates outside of [0, 1).
    pub fn rate(&self, name: &str) -> Result<f64> {
        let rate = self.scalar(name);
        if (0.0..1.0).contains(&rate) {
            return Ok(rate);
        }
        Err(Error::Invalid {
            what: format!("scalar `{name}` of an architecture"),
            why: format!("{rate} is no rate of dropping, which is at least 0 and less than 1"),
        })
    }

    /// The same weights cut off from the graph of the distribution: what a weight step needs.
    pub fn detach(&self) -> Self {
        Self {
            weights: self.weights.iter().map(Tensor::detach).collect(),
            active: self.active.clone(),
            offsets: (self.offsets.as_ref()).map(|o| o.iter().map(Tensor::detach).collect()),
            log_prob: self.log_prob.as_ref().map(Tensor::detach),
            scalars: self.scalars.clone(),
        }
    }
}
