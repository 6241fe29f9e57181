//! Limits on what an architecture may cost.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::contract::Cost;
use super::model::CostModel;
use crate::arch::Choice;
use crate::error::Result;
use crate::network::NetworkOptions;
use crate::space::{SearchSpace, Task};

/// A limit that is asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The name of the cost.
    pub name: String,
    /// The cost.
    pub cost: Arc<dyn Cost>,
    /// What a network may cost, in the unit's base.
    pub most: f64,
}

/// Limits that are asked for, and the size of the networks that they are for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The limits.
    pub wanted: Vec<Wanted>,
    /// The size.
    pub size: NetworkOptions,
}

/// A limit on the networks of a space.
#[derive(Debug)]
pub struct Limit {
    name: String,
    most: f64,
    model: CostModel,
}

impl Limit {
    /// The name of the cost.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What a network may cost.
    pub fn most(&self) -> f64 {
        self.most
    }

    /// What networks cost.
    pub fn model(&self) -> &CostModel {
        &self.model
    }
}

/// Limits on the networks of a space.
#[derive(Debug)]
pub struct Limits {
    all: Vec<Limit>,
}

impl Limits {
    /// The limits on networks for a task.
    ///
    /// # Errors
    /// A space without standalone networks, and whatever the costs have to say.
    pub fn new(asked: &Asked, space: &dyn SearchSpace, task: Task) -> Result<Self> {
        let limit = |wanted: &Wanted| {
            Ok(Limit {
                name: wanted.name.clone(),
                most: wanted.most,
                model: CostModel::new(wanted.cost.clone(), space, task, asked.size.clone())?,
            })
        };
        Ok(Self {
            all: asked.wanted.iter().map(limit).collect::<Result<_>>()?,
        })
    }

    /// All limits.
    pub fn all(&self) -> &[Limit] {
        &self.all
    }

    /// Whether an architecture meets all limits.
    pub fn fits(&self, space: &dyn SearchSpace, choice: &Choice) -> bool {
        self.excess(space, choice) == 0.0
    }

    /// What an architecture costs, by the names of the costs.
    ///
    /// # Errors
    /// An architecture that no network can be built of, and whatever the costs have to say.
    pub fn costs(&self, space: &dyn SearchSpace, choice: &Choice) -> Result<BTreeMap<String, f64>> {
        let of = |limit: &Limit| Ok((limit.name.clone(), limit.model.of(space, choice)?));
        self.all.iter().map(of).collect()
    }

    /// By how much an architecture is above its limits, each as a fraction of the limit; infinite where no network can be built
    /// of it.
    pub(super) fn excess(&self, space: &dyn SearchSpace, choice: &Choice) -> f64 {
        let above = |limit: &Limit| match limit.model.of(space, choice) {
            // Sums in another order differ in their last digits.
            Ok(cost) if cost <= limit.most * (1.0 + 1e-9) => 0.0,
            Ok(cost) => cost / limit.most - 1.0,
            Err(_) => f64::INFINITY,
        };
        self.all.iter().map(above).sum()
    }
}
