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
    /// `[cell][group]`: the weights that each cell of the network takes in the place of `weights`, of the same shapes, where
    /// cells do not share them ([`RelaxedArch::in_cells`]). Masks and offsets stay those of all cells.
    pub cells: Option<Vec<Vec<Tensor>>>,
    /// log-probability of the sample, a scalar, where the distribution has one.
    pub log_prob: Option<Tensor>,
    /// Named scalars of the strategy that a supernet may understand: auxiliary-skip weight, dropout rate.
    pub scalars: BTreeMap<String, f64>,
}

fn shared(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(Tensor::shallow_clone).collect()
}

impl RelaxedArch {
    /// An architecture of dense weights.
    pub fn new(weights: Vec<Tensor>) -> Self {
        Self {
            weights,
            active: None,
            offsets: None,
            cells: None,
            log_prob: None,
            scalars: BTreeMap::new(),
        }
    }

    /// The same sample, in the same memory.
    pub fn shallow_clone(&self) -> Self {
        let cells = self.cells.as_ref();
        Self {
            cells: cells.map(|cells| cells.iter().map(|cell| shared(cell)).collect()),
            ..self.with_weights(shared(&self.weights))
        }
    }

    /// The same sample with other weights, in all cells.
    pub fn with_weights(&self, weights: Vec<Tensor>) -> Self {
        Self {
            weights,
            active: self.active.clone(),
            offsets: self.offsets.as_ref().map(|offsets| shared(offsets)),
            cells: None,
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

    /// Gives each of `n` cells the same weights as tensors of their own in the graph: the gradient with respect to
    /// `cells[k][g]` is that of cell k, and their sum arrives at what the weights were made from. Weights that require no
    /// gradient are cut off first, so that this can be asked for.
    pub fn in_cells(&self, n: usize) -> Self {
        let own = |w: &Tensor| match w.requires_grad() {
            true => w.alias(),
            false => w.detach().set_requires_grad(true),
        };
        let cell = |_| self.weights.iter().map(own).collect();
        Self {
            cells: Some((0..n).map(cell).collect()),
            ..self.shallow_clone()
        }
    }

    /// What cell `k` takes of this: an architecture without weights for cells.
    pub fn of_cell(&self, k: usize) -> Self {
        let own = self.cells.as_ref().and_then(|cells| cells.get(k));
        self.with_weights(shared(own.unwrap_or(&self.weights)))
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
            cells: (self.cells.as_ref()).map(|cells| {
                cells
                    .iter()
                    .map(|c| c.iter().map(Tensor::detach).collect())
                    .collect()
            }),
            log_prob: self.log_prob.as_ref().map(Tensor::detach),
            scalars: self.scalars.clone(),
        }
    }
}
