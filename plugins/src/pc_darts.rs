//! PC-DARTS (Xu et al. 2020): one K-th of the channels goes through the mixed operations, and edges into a node compete
//! by weights of their own.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::bilevel;

/// Settings of PC-DARTS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PcDartsConfig {
    /// K: one K-th of the channels goes through the candidates.
    pub partial_channels: i64,
    /// Whether edges into a node are weighed against each other.
    pub edge_normalisation: bool,
    /// Share of the search in which the architecture rests.
    pub arch_start: f64,
    /// Standard deviation of α and β at the start.
    pub init_std: f64,
    /// Optimizer of α and β.
    pub arch: OptimizerConfig,
}

register! {
    strategy "pc-darts" => PcDartsConfig,
    summary: "PC-DARTS: partial channels, and edges into a node weighed against each other",
    source: "Xu et al. 2020, ICLR, arXiv:1907.05737",
    defaults: concat!(r#"[strategy]
# K: one K-th of the channels goes through the candidates, the others bypass them; 1 sends all through.
partial_channels = 4
# Edges into a node are weighed by a softmax of their own, where rows are edges.
edge_normalisation = true
# Share of the search in which the architecture rests: 15 of 50 epochs.
arch_start = 0.3
# Standard deviation of the logits of candidates (alpha) and of edges (beta) at the start.
init_std = 1e-3
"#, nasfw_framework::arch_adam!("6e-4"), r#"
[trainer]
epochs = 50
batch_size = 256

[trainer.weights]
lr = 0.1
lr_min = 0.0
"#),
    example: "nasfw run --strategy pc-darts --space darts --set space.preset=small",
    presets: &[("imagenet", r#"[strategy]
partial_channels = 2
arch_start = 0.7

[strategy.arch]
lr = 6e-3
clip = 5.0

[trainer]
batch_size = 1024
warmup_epochs = 5

[trainer.weights]
lr = 0.5
"#)],
    families: &[
        ("nasbench201", r#"[trainer]
batch_size = 64

[trainer.weights]
lr = 0.025
lr_min = 0.001
"#),
        // Zela et al. 2020, `optimizers/pc_darts`, where the architecture does not rest.
        ("nasbench1shot1", r#"[strategy]
arch_start = 0.0

[strategy.arch]
lr = 3e-4

[trainer]
epochs = 100
batch_size = 96

[trainer.weights]
lr = 0.025
lr_min = 0.001
"#),
    ],
}

#[typetag::serde(name = "pc-darts")]
impl StrategyConfig for PcDartsConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        let distribution = EdgeNormalised::new(cx.spec, self.init_std, self.edge_normalisation);
        Ok(Box::new(PcDarts {
            config: self.clone(),
            distribution,
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("strategy.partial_channels", self.partial_channels, 1, 1024);
        v.range("strategy.arch_start", self.arch_start, 0.0, 1.0);
        v.at_least("strategy.init_std", self.init_std, 0.0);
        self.arch.validate("strategy.arch", v);
    }
}

struct PcDarts {
    config: PcDartsConfig,
    distribution: EdgeNormalised,
}

impl Strategy for PcDarts {
    /// First-order DARTS with weights β̂ p. After each candidate's weight is multiplied by its edge's, the channels that
    /// bypass an edge's candidates are weighed by the sum of its row, β̂.
    fn step(&mut self, search: &mut Search) -> Result<()> {
        let train = search.batch(Split::Train)?;
        if search.progress() >= self.config.arch_start {
            let loss = bilevel::validation_loss(search, &self.distribution)?;
            bilevel::descend_architecture(search, &loss)?;
        }
        bilevel::descend_weights(search, &self.distribution, &train)
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.distribution)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.config.arch)
    }

    fn supernet_options(&self) -> SupernetOptions {
        SupernetOptions {
            partial_channels: Some(self.config.partial_channels),
            ..SupernetOptions::default()
        }
    }
}

/// Weights β̂ p: p is the softmax of α over the candidates of a row, β̂ that of β over the edges into a node, where rows are
/// edges (equation 3 of the paper).
struct EdgeNormalised {
    spec: ArchSpec,
    layout: ParamLayout,
    /// Per group, where its edges are weighed: which rows lead into each node, `[nodes, rows]` of bool.
    nodes: Vec<Option<Tensor>>,
}

impl EdgeNormalised {
    fn new(spec: &ArchSpec, init_std: f64, edge_normalisation: bool) -> Self {
        let init = Init::Normal { std: init_std };
        let mut layout = ParamLayout::new();
        layout.add("alpha", &[spec.numel()], init);
        let nodes: Vec<Option<Tensor>> = (spec.groups().iter())
            .map(|group| (edge_normalisation && group.edges.is_some()).then(|| incidence(group)))
            .collect();
        for (group, nodes) in spec.groups().iter().zip(&nodes) {
            if nodes.is_some() {
                layout.add(format!("beta {}", group.name), &[group.shape()[0]], init);
            }
        }
        Self {
            spec: spec.clone(),
            layout,
            nodes,
        }
    }

    /// One `[rows, width]` matrix per group.
    fn weights(&self, phi: &Tensor) -> Vec<Tensor> {
        let mut at = self.spec.numel();
        let p = self.spec.softmax(&phi.narrow(0, 0, at));
        let weighed = p
            .into_iter()
            .zip(&self.nodes)
            .map(|(p, nodes)| match nodes {
                None => p,
                Some(nodes) => {
                    let rows = p.size()[0];
                    let beta = phi.narrow(0, at, rows);
                    at += rows;
                    p * softmax_per_node(&beta, nodes).unsqueeze(1)
                }
            });
        weighed.collect()
    }
}

/// Which rows lead into each node, `[nodes, rows]`.
fn incidence(group: &Group) -> Tensor {
    let rows = group.rows.len();
    let nodes = group.nodes();
    let into: Vec<bool> = nodes
        .iter()
        .flat_map(|node| (0..rows).map(|row| node.contains(&row)))
        .collect();
    Tensor::from_slice(&into).view([nodes.len() as i64, rows as i64])
}

/// Softmax of `beta` (`[rows]`) among the rows that lead into the same node.
fn softmax_per_node(beta: &Tensor, nodes: &Tensor) -> Tensor {
    let elsewhere = nodes.logical_not().to_device(beta.device());
    let by_node = beta.expand(nodes.size(), false);
    let among = by_node.masked_fill(&elsewhere, f64::NEG_INFINITY);
    let kind: Kind = beta.kind();
    among
        .softmax(-1, kind)
        .sum_dim_intlist([0i64].as_slice(), false, kind)
}

impl ArchDistribution for EdgeNormalised {
    fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    fn sample(&self, phi: &Tensor, _rng: &mut Rng) -> Result<RelaxedArch> {
        Ok(RelaxedArch::new(self.weights(phi)))
    }

    fn mean(&self, phi: &Tensor) -> Result<Vec<Tensor>> {
        Ok(self.weights(phi))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nasfw_framework::arch::Edges;
    use proptest::prelude::*;
    use tch::Device;

    /// A cell of two inputs and four nodes, as DARTS's.
    fn spec() -> ArchSpec {
        let ends: Vec<(usize, usize)> = (2..6)
            .flat_map(|to| (0..to).map(move |from| (from, to)))
            .collect();
        let row = |(from, to): &(usize, usize)| Row {
            name: format!("{from}->{to}"),
            candidates: ["none", "skip_connect", "conv"].map(String::from).to_vec(),
            keep: 1,
        };
        let group = |name: &str| Group {
            name: name.into(),
            role: Role::Operations,
            rows: ends.iter().map(row).collect(),
            edges: Some(Edges {
                ends: ends.clone(),
                keep: Some(2),
            }),
        };
        ArchSpec::new(vec![group("normal"), group("reduce")]).unwrap()
    }

    fn numbers(t: &Tensor) -> Vec<f64> {
        Vec::try_from(t.detach().contiguous().view([-1])).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(30) })]

        /// Against the definition, number by number: β̂ sums to one over the edges into a node, not over all of them.
        #[test]
        fn beta_is_a_softmax_among_the_edges_into_a_node(values in prop::collection::vec(-3.0f64..3.0, 112)) {
            let spec = spec();
            let distribution = EdgeNormalised::new(&spec, 1.0, true);
            prop_assert_eq!(distribution.layout.numel(), 2 * 14 * 3 + 2 * 14);
            let phi = Tensor::from_slice(&values);
            let weights = distribution.weights(&phi);
            for (g, group) in spec.groups().iter().enumerate() {
                let ends = &group.edges.as_ref().unwrap().ends;
                let beta = &values[84 + 14 * g..][..14];
                let weights = numbers(&weights[g]);
                for (r, (_, to)) in ends.iter().enumerate() {
                    let among = (0..14).filter(|s| ends[*s].1 == *to);
                    let hat = beta[r].exp() / among.map(|s| beta[s].exp()).sum::<f64>();
                    let alpha = &values[42 * g + 3 * r..][..3];
                    let sum: f64 = alpha.iter().map(|a| a.exp()).sum();
                    for c in 0..3 {
                        let expected = hat * alpha[c].exp() / sum;
                        prop_assert!((weights[3 * r + c] - expected).abs() < 1e-12);
                    }
                }
            }
        }

        /// Uniform β leaves DARTS's weights, divided by the number of edges into the node.
        #[test]
        fn uniform_beta_is_darts_but_for_the_number_of_edges(values in prop::collection::vec(-3.0f64..3.0, 84)) {
            let spec = spec();
            let alpha = Tensor::from_slice(&values);
            let phi = Tensor::cat(&[&alpha, &Tensor::full([28], 0.7, (Kind::Double, Device::Cpu))], 0);
            let ours = EdgeNormalised::new(&spec, 1.0, true).weights(&phi);
            let darts = spec.softmax(&alpha);
            for (g, group) in spec.groups().iter().enumerate() {
                for (r, (_, to)) in group.edges.as_ref().unwrap().ends.iter().enumerate() {
                    // Node `to` has `to` edges here.
                    let scaled = ours[g].get(r as i64) * *to as f64;
                    prop_assert!((scaled - darts[g].get(r as i64)).abs().max().double_value(&[]) < 1e-12);
                }
            }
            let without = EdgeNormalised::new(&spec, 1.0, false);
            prop_assert_eq!(without.layout.numel(), 84);
            prop_assert_eq!(without.weights(&alpha), darts);
        }
    }
}
