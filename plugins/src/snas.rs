//! SNAS (Xie et al. 2019): architectures drawn from the Concrete distribution, one loss for weights and logits.

use nasfw_framework::distribution::GumbelSoftmax;
use nasfw_framework::network::NetworkOptions;
use nasfw_framework::prelude::*;
use nasfw_framework::register;
use nasfw_framework::schedule::Shape;
use nasfw_framework::supernet::DROP_PATH;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Settings of SNAS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnasConfig {
    /// Temperature λ in the first epoch.
    pub lambda_max: f64,
    /// Temperature λ in the last epoch.
    pub lambda_min: f64,
    /// Mean of the logits at the start.
    pub init_mean: f64,
    /// Standard deviation of the logits at the start.
    pub init_std: f64,
    /// Weight η of the expected number of parameters, in millions, in the loss.
    pub cost: f64,
    /// Rate of drop path.
    pub drop_path: f64,
    /// Optimizer of the logits.
    pub arch: OptimizerConfig,
}

register! {
    strategy "snas" => SnasConfig,
    summary: "SNAS: Concrete samples, weights and logits descend one loss together",
    source: "Xie, Zheng, Liu, Lin 2019, ICLR, arXiv:1812.09926",
    defaults: concat!(r#"[strategy]
# Temperature of the Concrete distribution in the first epoch.
lambda_max = 1.0
# Temperature in the last epoch; it falls linearly.
lambda_min = 0.03
# Mean of the logits at the start.
init_mean = 1.0
# Standard deviation of the logits at the start.
init_std = 0.01
# Weight of the expected number of parameters of the found network, in millions, in the loss; 0 means no such term. Where
# rows are edges of a cell.
cost = 0.0
# Rate of drop path on the supernet's edges.
drop_path = 0.3
"#, nasfw_framework::arch_adam!("3e-4", clip: "10.0"), r#"
[trainer]
epochs = 150
"#),
    example: "nasfw run --strategy snas --space nasbench201",
    families: &[("nasbench", "[strategy]\ndrop_path = 0.0\n")],
}

#[typetag::serde(name = "snas")]
impl StrategyConfig for SnasConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        if self.cost > 0.0 && cx.spec.groups().iter().any(|g| g.edges.is_none()) {
            return Err(Error::Incompatible {
                what: "the cost of SNAS".into(),
                why: "this space's rows are no edges, so that a candidate has no cost of its own"
                    .into(),
                help:
                    "use `--set strategy.cost=0`, or a space of cells such as `--space nasbench201`"
                        .into(),
            });
        }
        Ok(Box::new(Snas {
            config: self.clone(),
            spec: cx.spec.clone(),
            concrete: GumbelSoftmax::new(cx.spec, self.init_mean, self.init_std),
            costs: None,
        }))
    }

    fn validate(&self, v: &mut Validator) {
        let (max, min) = ("strategy.lambda_max", "strategy.lambda_min");
        v.at_least(max, self.lambda_max, 1e-3);
        v.range(min, self.lambda_min, 1e-3, self.lambda_max.max(1e-3));
        v.at_least("strategy.init_std", self.init_std, 0.0);
        v.at_least("strategy.cost", self.cost, 0.0);
        v.below("strategy.drop_path", self.drop_path, 0.0, 1.0);
        self.arch.validate("strategy.arch", v);
    }
}

struct Snas {
    config: SnasConfig,
    spec: ArchSpec,
    concrete: GumbelSoftmax,
    /// Per group `[rows, width]`: millions of parameters of every candidate; none before they are needed.
    costs: Option<Vec<Tensor>>,
}

impl Snas {
    /// E[C(Z)] = Σ p·cost, in millions of parameters.
    fn expected_cost(&mut self, search: &Search, phi: &Tensor) -> Result<Tensor> {
        let costs = match self.costs.take() {
            Some(costs) => costs,
            None => costs(search)?,
        };
        let p = self.spec.softmax(phi);
        let terms = p.iter().zip(&costs).map(|(p, c)| (p * c).sum(p.kind()));
        let sum = terms.sum();
        self.costs = Some(costs);
        Ok(sum)
    }
}

/// Parameters of every candidate, in millions: what the space's network has more with it on its edge than with the
/// cheapest candidate there. All other edges carry skip connections, so that every edge leads to the output.
fn costs(search: &Search) -> Result<Vec<Tensor>> {
    let space = search.space();
    let options = NetworkOptions::default();
    let usual = |row: &Row| vec![row.column("skip_connect").unwrap_or(0)];
    let groups = space.spec().groups();
    let base: Vec<Vec<Vec<usize>>> = groups
        .iter()
        .map(|g| g.rows.iter().map(usual).collect())
        .collect();
    let mut costs = vec![];
    for (g, group) in groups.iter().enumerate() {
        let mut table = vec![0.0; group.rows.len() * group.width()];
        for (r, row) in group.rows.iter().enumerate() {
            let mut params = vec![];
            for c in 0..row.candidates.len() {
                let mut kept = base.clone();
                kept[g][r] = vec![c];
                let genotype = space.genotype(&Choice::new(kept));
                let network = space.network(&genotype, search.task(), &options)?;
                params.push(network.size().params);
            }
            let least = params.iter().copied().min().unwrap_or(0);
            for (c, n) in params.into_iter().enumerate() {
                table[r * group.width() + c] = (n - least) as f64 / 1e6;
            }
        }
        let table = Tensor::from_slice(&table).view(group.shape());
        costs.push(table.to_kind(search.kind()).to_device(search.device()));
    }
    Ok(costs)
}

impl Strategy for Snas {
    /// Equation 5 of the paper: one sample Z of the Concrete distribution, one loss, one backward pass.
    fn step(&mut self, search: &mut Search) -> Result<()> {
        let (theta, phi) = (search.theta(), search.phi());
        let c = &self.config;
        let lambda = Shape::Linear.at(c.lambda_max, c.lambda_min, search.epoch_progress());
        self.concrete.temperature = lambda;
        search.log("lambda", lambda);
        search.set_scalar(DROP_PATH, c.drop_path);

        let d = search.batch(Split::Full)?;
        let z = self.concrete.sample(&phi, &mut search.rng("z"))?;
        let mut loss = search.weight_loss(&z, &d)?;
        if self.config.cost > 0.0 {
            let expected = self.expected_cost(search, &phi)?;
            loss += expected * self.config.cost;
        }
        let gradients = search.gradients(&loss, &[&theta, &phi])?;
        search.descend_theta(&gradients[0]);
        search.descend_phi(&gradients[1])
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.concrete)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.config.arch)
    }

    fn claims(&self) -> Claims {
        Claims {
            schedules: vec![Endpoints {
                scalar: "lambda",
                start: self.config.lambda_max,
                end: self.config.lambda_min,
            }],
            ..Claims::default()
        }
    }

    fn data(&self) -> DataPlan {
        DataPlan::Full
    }

    fn supernet_options(&self) -> SupernetOptions {
        SupernetOptions {
            drop_path: self.config.drop_path > 0.0,
            ..SupernetOptions::default()
        }
    }

    /// The most probable candidate of every edge, also where the space would keep some edges of a node only.
    fn derive(&self, search: &Search) -> Result<Choice> {
        let p = self.concrete.mean(&search.phi().detach())?;
        let p = self.spec.to_marginals(&p);
        Ok(every_edge(&self.spec, search.space().derive(&p), &p))
    }
}

/// What a space has derived, but where edges into a node compete for its groups, every edge with its most probable
/// candidate; an edge where that is `none` is dropped.
fn every_edge(spec: &ArchSpec, derived: Choice, p: &Marginals) -> Choice {
    let mut kept = derived.groups().to_vec();
    for ((group, best), kept) in spec
        .groups()
        .iter()
        .zip(spec.top(p).groups())
        .zip(&mut kept)
    {
        if group.edges_kept().is_some() {
            for ((row, best), kept) in group.rows.iter().zip(best).zip(kept) {
                let none = row.column("none");
                *kept = best.iter().copied().filter(|c| Some(*c) != none).collect();
            }
        }
    }
    Choice::new(kept)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn group(name: &str, keep: Option<usize>) -> Group {
        let ends = vec![(0, 1), (0, 2), (1, 2)];
        let row = |(from, to): &(usize, usize)| Row {
            name: format!("{from}->{to}"),
            candidates: ["a", "none", "b"].map(Into::into).to_vec(),
            keep: 1,
        };
        Group {
            name: name.into(),
            role: Role::Operations,
            rows: ends.iter().map(row).collect(),
            edges: Some(Edges { ends, keep }),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_edge_keeps_its_best_candidate_unless_that_is_none(
            rows in prop::collection::vec(prop::collection::vec(0.0f64..1.0, 3), 3),
            first in 0usize..3,
        ) {
            let spec = ArchSpec::new(vec![group("dense", Some(1)), group("all", None)]).unwrap();
            let derived = Choice::new(vec![vec![vec![first], vec![], vec![]], vec![vec![first]; 3]]);
            let choice = every_edge(&spec, derived, &vec![rows.clone(), rows.clone()]);
            choice.check(&spec).unwrap();
            for (r, p) in rows.iter().enumerate() {
                let wins = |c: usize| (0..3).all(|other| p[c] >= p[other]);
                let expected = if wins(0) { vec![0] } else if wins(1) { vec![] } else { vec![2] };
                prop_assert_eq!(choice.kept(0, r), expected);
                prop_assert_eq!(choice.kept(1, r), [first]);
            }
        }
    }
}
