//! The aims of a strategy that has several: a metric, and what networks cost.

use std::sync::Arc;

use nasfw_framework::cost::{CostModel, METRIC, Named};
use nasfw_framework::prelude::*;
use serde_json::Value;

use crate::costs;

/// A cost beside the metric.
struct Axis {
    name: String,
    cost: Arc<dyn Cost>,
    /// What the hypervolume counts from; none for the dearest architecture of the space.
    reference: Option<f64>,
}

/// A metric and costs, as settings name them: a list of names, `["macs"]`, or of tables with a cost's own settings,
/// `[{ name = "macs", reference = "300M" }]`.
pub(crate) struct Objectives {
    axes: Vec<Axis>,
    /// What the hypervolume counts the metric from.
    reference: f64,
    /// What networks cost, in the order of `axes`; empty before the search begins.
    models: Vec<CostModel>,
}

impl Objectives {
    /// # Errors
    /// Costs that nobody knows, and settings that they don't have.
    pub(crate) fn new(costs: &[Value], reference: f64) -> Result<Self> {
        Ok(Self {
            axes: costs.iter().map(axis).collect::<Result<_>>()?,
            reference,
            models: vec![],
        })
    }

    /// Checks a list of costs before anything is built.
    pub(crate) fn validate(v: &mut Validator, costs: &[Value]) {
        let mut names = vec![];
        for (i, cost) in costs.iter().enumerate() {
            match axis(cost) {
                Ok(axis) if names.contains(&axis.name) => {
                    let twice = format!("`{}` is there twice", axis.name);
                    v.problem(&format!("strategy.costs[{i}]"), twice);
                }
                Ok(axis) => names.push(axis.name),
                Err(e) => {
                    v.problem(&format!("strategy.costs[{i}]"), costs::in_a_line(&e));
                }
            }
        }
    }

    /// Whether there is no cost, so that the metric alone counts.
    pub(crate) fn is_empty(&self) -> bool {
        self.axes.is_empty()
    }

    /// The costs, by name.
    pub(crate) fn costs(&self) -> Named {
        let axes = self.axes.iter();
        axes.map(|axis| (axis.name.clone(), axis.cost.clone()))
            .collect()
    }

    /// Learns what networks cost. The same in every process.
    ///
    /// # Errors
    /// A space without standalone networks, and whatever the costs have to say.
    pub(crate) fn begin(&mut self, search: &Search) -> Result<()> {
        if self.models.len() < self.axes.len() {
            let model = |axis: &Axis| {
                let size = NetworkOptions::default();
                CostModel::new(axis.cost.clone(), search.space(), search.task(), size)
            };
            self.models = self.axes.iter().map(model).collect::<Result<_>>()?;
        }
        Ok(())
    }

    /// What architectures are judged by: a metric of this name, whose best value is `ideal` as far as that is known, and the
    /// costs, of which nothing is best.
    fn criteria(
        &self,
        search: &Search,
        name: String,
        ideal: Option<f64>,
    ) -> Result<Vec<Criterion>> {
        let mut all = vec![Criterion {
            name,
            unit: String::new(),
            higher: true,
            reference: self.reference,
            ideal,
        }];
        for (axis, model) in self.axes.iter().zip(&self.models) {
            let dearest = || model.dearest(search.space());
            all.push(Criterion {
                name: format!("{METRIC}{}", axis.name),
                unit: axis.cost.unit().base().into(),
                higher: false,
                reference: axis.reference.map_or_else(dearest, Ok)?,
                ideal: Some(0.0),
            });
        }
        Ok(all)
    }

    /// Keeps what an architecture is worth: a metric of this name, and its costs.
    ///
    /// # Errors
    /// Those of [`Objectives::begin`].
    pub(crate) fn keep(
        &mut self,
        search: &Search,
        archive: &mut Archive,
        choice: &Choice,
        (name, score): (impl FnOnce() -> Result<(String, Option<f64>)>, f64),
    ) -> Result<()> {
        self.begin(search)?;
        if archive.criteria().is_empty() {
            let (name, ideal) = name()?;
            *archive = Archive::new(self.criteria(search, name, ideal)?);
        }
        let mut values = vec![score];
        for model in &self.models {
            values.push(model.of(search.space(), choice)?);
        }
        archive.add(choice, &values);
        Ok(())
    }

    /// The same of a metric of the benchmark.
    ///
    /// # Errors
    /// Those of [`Objectives::begin`], and of [`Search::look_up`].
    pub(crate) fn keep_looked_up(
        &mut self,
        search: &Search,
        archive: &mut Archive,
        choice: &Choice,
        (metric, score): (Metric<'_>, f64),
    ) -> Result<()> {
        let named = || {
            let name = search.meant(choice, metric)?.unwrap_or_default();
            let best = search.benchmark().and_then(|b| b.optimum().get(&name));
            let best = best.copied();
            Ok((name, best))
        };
        self.keep(search, archive, choice, (named, score))
    }
}

/// A cost as it is written: `"macs"`, or `{ name = "macs", reference = "300M" }` with settings of its own.
fn axis(written: &Value) -> Result<Axis> {
    let mut settings = costs::table(written, "name");
    let Some(Value::String(name)) = settings.remove("name") else {
        return Err(Error::Invalid {
            what: format!("cost {written}"),
            why: "it must be a name, or a table with a `name`".into(),
        });
    };
    let reference = settings.remove("reference");
    let cost = costs::cost(&name, &settings)?;
    let reference = match reference {
        None => None,
        Some(Value::String(reference)) => Some(cost.unit().parse(&reference)?),
        Some(other) => Some(cost.unit().parse(&other.to_string())?),
    };
    Ok(Axis {
        name,
        cost,
        reference,
    })
}
