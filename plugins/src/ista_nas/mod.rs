//! ISTA-NAS (Yang et al. 2020), two-stage: what leads into a node is a sparse code z of a learned short vector b, recovered by
//! a LASSO after every epoch; between, the network carries the code's support alone.
//!
//! Readings. The paper has DARTS's cells without `none`, in which a node keeps two pairs of an edge and a candidate. Where
//! edges into a node do not compete (NAS-Bench-201, topology of NAS-Bench-1Shot1) every row has a code of its own with as
//! many entries as the space keeps of it; `none` is never one of them. Matrices have no more rows than a code has entries.
//! The LASSO, which the authors hand to a solver, is solved exactly. The one-stage variant, which trains the final network
//! while it searches, is not here.

mod lasso;

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use nasfw_framework::rng;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::bilevel;
use crate::sparse::{self, Bundle};

/// Settings of ISTA-NAS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IstaNasConfig {
    /// Numbers that a code is recovered from, at most.
    pub measurements: usize,
    /// λ: weight of ‖z‖₁ in the LASSO.
    pub penalty: f64,
    /// Standard deviation of b at the start.
    pub init_std: f64,
    /// Optimizer of b.
    pub arch: OptimizerConfig,
}

register! {
    strategy "ista-nas" => IstaNasConfig,
    summary: "ISTA-NAS: what leads into a node is a sparse code of a learned vector, recovered after every epoch",
    source: "Yang, Li, You, Wang, Qian, Lin 2020, NeurIPS, arXiv:2010.06176",
    defaults: concat!(r#"[strategy]
# Learned numbers that a node's sparse code is recovered from, at most as many as the code has entries.
measurements = 7
# Weight of the L1 norm of a code in its LASSO.
penalty = 1e-5
# Standard deviation of the learned numbers at the start.
init_std = 1e-3
"#, nasfw_framework::arch_adam!("6e-4"), r#"
# The authors' command for two stages.
[trainer]
epochs = 50
batch_size = 256

[trainer.weights]
lr = 0.1
"#),
    example: "nasfw run --strategy ista-nas --space darts --set space.preset=small",
    presets: &[("script", r#"# Defaults of the authors' script.
[strategy.arch]
lr = 3e-4

[trainer]
batch_size = 64

[trainer.weights]
lr = 0.025
"#)],
}

#[typetag::serde(name = "ista-nas")]
impl StrategyConfig for IstaNasConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        let codes = SparseCodes::new(self, cx);
        if codes.nodes.is_empty() {
            return Err(Error::Incompatible {
                what: "ISTA-NAS".into(),
                why: "no row of this space has a candidate but `none`".into(),
                help: "choose another space: `nasfw list spaces`".into(),
            });
        }
        Ok(Box::new(IstaNas {
            config: self.clone(),
            codes,
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("strategy.measurements", self.measurements, 1, 1000);
        v.at_least("strategy.penalty", self.penalty, 1e-12);
        v.at_least("strategy.init_std", self.init_std, 0.0);
        self.arch.validate("strategy.arch", v);
    }
}

/// What is decided together: the code of a node, or of a row.
struct Node {
    bundle: Bundle,
    /// Entries of the code that are kept.
    keep: usize,
    /// A, `[measurements, entries]`, double, on the CPU: fixed, uniform in [0, 1).
    sensing: Tensor,
}

impl Node {
    /// Indices of the `keep` entries of a code that are largest in size; of equals the first.
    fn support(&self, code: &[f64]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..code.len()).collect();
        order.sort_by(|&i, &j| code[j].abs().total_cmp(&code[i].abs()));
        order.truncate(self.keep);
        order.sort_unstable();
        order
    }

    /// Weights of the support S of a code z (`[keep]`), differentiable in b (`[measurements]`): bᵀA_S − z_Sᵀ E_S with
    /// E = AᵀA − I. It is the code itself where b = A z_S.
    fn weights(&self, b: &Tensor, code: &[f64], support: &[usize]) -> Tensor {
        let (kind, device) = (b.kind(), b.device());
        let index: Vec<i64> = support.iter().map(|&i| i as i64).collect();
        let columns = self.sensing.index_select(1, &Tensor::from_slice(&index));
        let kept: Vec<f64> = support.iter().map(|&i| code[i]).collect();
        let kept = Tensor::from_slice(&kept);
        let bias = columns.tr().matmul(&columns.matmul(&kept)) - kept;
        let to = |t: Tensor| t.to_kind(kind).to_device(device);
        b.matmul(&to(columns)) - to(bias)
    }
}

/// The codes and what they are recovered from. φ are all b, one after the other.
struct SparseCodes {
    spec: ArchSpec,
    layout: ParamLayout,
    nodes: Vec<Node>,
    penalty: f64,
    /// Per node z as it was recovered before this epoch; none before the first.
    recovered: Option<Vec<Vec<f64>>>,
}

impl SparseCodes {
    fn new(config: &IstaNasConfig, cx: BuildContext<'_>) -> Self {
        let mut layout = ParamLayout::new();
        let bundles = sparse::bundles(cx.spec, |group| group.edges_kept().is_some()).into_iter();
        let nodes = bundles.enumerate().map(|(i, bundle)| {
            let group = &cx.spec.groups()[bundle.group];
            let keep = match group.edges_kept() {
                Some(keep) => keep,
                None => group.rows[bundle.entries[0].0].keep,
            };
            let (m, n) = (
                config.measurements.min(bundle.entries.len()),
                bundle.entries.len(),
            );
            let init = Init::Normal {
                std: config.init_std,
            };
            layout.add(format!("b {i}"), &[m as i64], init);
            let rng = &mut cx.streams.at("sensing matrix", i as u64);
            let sensing = rng::uniform(rng, &[m as i64, n as i64], Kind::Double, Device::Cpu);
            Node {
                bundle,
                keep,
                sensing,
            }
        });
        let nodes = nodes.collect();
        Self {
            spec: cx.spec.clone(),
            layout,
            nodes,
            penalty: config.penalty,
            recovered: None,
        }
    }

    /// b of every node.
    fn measurements(&self, phi: &Tensor) -> Vec<Tensor> {
        let sizes: Vec<i64> = self.nodes.iter().map(|n| n.sensing.size()[0]).collect();
        phi.split_with_sizes(sizes, 0)
    }

    /// z = argmin ½ ‖A z − b‖² + λ ‖z‖₁ of every node.
    fn recover(&self, phi: &Tensor) -> Result<Vec<Vec<f64>>> {
        let pairs = self.nodes.iter().zip(self.measurements(phi));
        pairs
            .map(|(node, b)| lasso::lasso(&node.sensing, &sparse::numbers(&b), self.penalty))
            .collect()
    }

    /// One matrix `[rows, width]` per group: numbers (`[keep]` each) on the supports of codes, zero elsewhere, and where they
    /// are.
    fn placed(
        &self,
        codes: &[Vec<f64>],
        phi: &Tensor,
        of: impl Fn(&Node, usize, &[usize]) -> Tensor,
    ) -> RelaxedArch {
        let mut active = sparse::nothing(&self.spec);
        let (mut places, mut values) = (vec![], vec![]);
        for (i, (node, code)) in self.nodes.iter().zip(codes).enumerate() {
            let support = node.support(code);
            let all = node.bundle.places(&self.spec);
            for &s in &support {
                let (r, c) = node.bundle.entries[s];
                active[node.bundle.group][r][c] = true;
                places.push(all[s] as i64);
            }
            values.push(of(node, i, &support));
        }
        let places = Tensor::from_slice(&places).to_device(phi.device());
        let flat = Tensor::zeros([self.spec.numel()], (phi.kind(), phi.device()));
        let flat = flat.index_put(&[Some(places)], &Tensor::cat(&values, 0), false);
        RelaxedArch::new(self.spec.split(&flat)).with_active(active)
    }
}

impl ArchDistribution for SparseCodes {
    fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    fn sample(&self, phi: &Tensor, _rng: &mut Rng) -> Result<RelaxedArch> {
        let fresh = match &self.recovered {
            None => Some(self.recover(phi)?),
            Some(_) => None,
        };
        let codes = self.recovered.as_ref().or(fresh.as_ref());
        let codes = codes.map_or(&[][..], Vec::as_slice);
        let b = self.measurements(phi);
        Ok(self.placed(codes, phi, |node, i, support| {
            node.weights(&b[i], &codes[i], support)
        }))
    }

    /// Sizes of the codes that b has now, on their supports.
    fn mean(&self, phi: &Tensor) -> Result<Vec<Tensor>> {
        let codes = self.recover(phi)?;
        let sizes = self.placed(&codes, phi, |_, i, support| {
            let sizes: Vec<f64> = support.iter().map(|&s| codes[i][s].abs()).collect();
            Tensor::from_slice(&sizes)
                .to_kind(phi.kind())
                .to_device(phi.device())
        });
        Ok(sizes.weights)
    }
}

struct IstaNas {
    config: IstaNasConfig,
    codes: SparseCodes,
}

impl Strategy for IstaNas {
    /// Before every epoch, so after the one before, the codes are recovered.
    fn epoch_start(&mut self, search: &mut Search) -> Result<()> {
        self.codes.recovered = Some(self.codes.recover(&search.phi())?);
        Ok(())
    }

    /// A step of first-order bilevel descent on the pairs of the codes' supports.
    fn step(&mut self, search: &mut Search) -> Result<()> {
        // 1. Update b by descending ∇_b L_val(w, b).
        let loss = bilevel::validation_loss(search, &self.codes)?;
        bilevel::descend_architecture(search, &loss)?;
        // 2. Update w by descending ∇_w L_train(w, b).
        let train = search.batch(Split::Train)?;
        bilevel::descend_weights(search, &self.codes, &train)
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.codes)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.config.arch)
    }

    /// The supports of the codes that b has now.
    fn derive(&self, search: &Search) -> Result<Choice> {
        let spec = &self.codes.spec;
        let codes = self.codes.recover(&search.phi())?;
        let mut kept: Vec<Vec<Vec<usize>>> = (spec.groups().iter())
            .map(|g| vec![vec![]; g.rows.len()])
            .collect();
        for (node, code) in self.codes.nodes.iter().zip(&codes) {
            for s in node.support(code) {
                let (r, c) = node.bundle.entries[s];
                kept[node.bundle.group][r].push(c);
            }
        }
        // A row without a candidate but `none`.
        for (g, r, row) in spec.rows() {
            let empty = kept[g][r].is_empty() && spec.groups()[g].edges_kept().is_none();
            kept[g][r].extend(row.column("none").filter(|_| empty));
        }
        Ok(Choice::new(kept))
    }

    fn state(&self) -> Result<StrategyState> {
        StrategyState::of(&State {
            recovered: self.codes.recovered.clone(),
        })
    }

    fn restore(&mut self, state: StrategyState) -> Result<()> {
        let State { recovered } = state.value()?;
        let sizes: Vec<usize> = (self.codes.nodes.iter())
            .map(|n| n.bundle.entries.len())
            .collect();
        let own = |codes: &Vec<Vec<f64>>| codes.iter().map(Vec::len).eq(sizes.iter().copied());
        if !recovered.as_ref().is_none_or(own) {
            return Err(Error::Invalid {
                what: "strategy state".into(),
                why: "its codes are not those of the space".into(),
            });
        }
        self.codes.recovered = recovered;
        Ok(())
    }
}

/// What a checkpoint must keep.
#[derive(Serialize, Deserialize)]
struct State {
    #[serde(with = "nasfw_framework::lossless")]
    recovered: Option<Vec<Vec<f64>>>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A cell whose second node chooses among three edges, and a row of sources that keeps two.
    fn codes() -> SparseCodes {
        let row = |name: &str, n: usize, keep| Row {
            name: name.into(),
            candidates: ["a", "none", "b", "c"][..n]
                .iter()
                .map(|c| (*c).to_owned())
                .collect(),
            keep,
        };
        let ends = vec![(0, 1), (0, 2), (1, 2), (0, 2)];
        let cell = Group {
            name: "cell".into(),
            role: Role::Operations,
            rows: (0..4)
                .map(|i| row(&format!("edge {i}"), if i == 1 { 3 } else { 4 }, 1))
                .collect(),
            edges: Some(Edges {
                ends,
                keep: Some(2),
            }),
        };
        let mut sources = row("output", 4, 2);
        sources.candidates[1] = "d".into();
        let inputs = Group {
            name: "inputs".into(),
            role: Role::Topology,
            rows: vec![sources],
            edges: None,
        };
        let spec = ArchSpec::new(vec![cell, inputs]).unwrap();
        let registry = nasfw_framework::registry::Registry::load().unwrap();
        let plugin = registry.get(nasfw_framework::registry::Kind::Strategy, "ista-nas");
        let mut section = plugin.unwrap().default_section().unwrap();
        section.as_object_mut().unwrap().remove("name");
        let config: IstaNasConfig = serde_json::from_value(section).unwrap();
        SparseCodes::new(
            &config,
            BuildContext {
                spec: &spec,
                streams: Streams::new(3),
                kind: Kind::Double,
                device: Device::Cpu,
                epochs: 1,
            },
        )
    }

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    /// Columns of a node's matrix.
    fn columns(node: &Node) -> Vec<Vec<f64>> {
        let n = node.sensing.size()[1];
        (0..n)
            .map(|i| sparse::numbers(&node.sensing.select(1, i)))
            .collect()
    }

    #[test]
    fn nodes_and_rows_have_codes_of_their_candidates() {
        let codes = codes();
        let sizes: Vec<_> = (codes.nodes.iter())
            .map(|n| (n.bundle.entries.len(), n.keep, n.sensing.size()))
            .collect();
        let expected = [(3, 2, vec![3, 3]), (8, 2, vec![7, 8]), (4, 2, vec![4, 4])];
        assert_eq!(sizes, expected);
        let all = columns(&codes.nodes[1]).concat();
        assert!(all.iter().all(|x| (0.0..1.0).contains(x)));
    }

    /// b_j·A_i − Σ_{j in S} z_j (A_j·A_i − δ_ij), number by number, and what is not in a support weighs nothing.
    #[test]
    fn weights_are_those_of_the_equation() {
        let mut codes = codes();
        let phi = codes.init(Streams::new(4), Kind::Double, Device::Cpu) * 100.0;
        // Codes of an earlier vector, as they are in the middle of an epoch.
        let earlier = codes.recover(&(&phi * 1.3 + 0.01)).unwrap();
        codes.recovered = Some(earlier.clone());
        let arch = codes
            .sample(&phi, &mut Streams::new(4).at("none", 0))
            .unwrap();
        let weights = arch
            .weights
            .iter()
            .flat_map(sparse::numbers)
            .collect::<Vec<_>>();
        let mut expected = vec![0.0; weights.len()];
        for ((node, z), b) in codes
            .nodes
            .iter()
            .zip(&earlier)
            .zip(codes.measurements(&phi))
        {
            let (a, b) = (columns(node), sparse::numbers(&b));
            let mut order: Vec<usize> = (0..z.len()).collect();
            order.sort_by(|&i, &j| z[j].abs().total_cmp(&z[i].abs()));
            let support = &order[..2];
            for &i in support {
                let bias: f64 = (support.iter())
                    .map(|&j| z[j] * (dot(&a[j], &a[i]) - f64::from(u8::from(i == j))))
                    .sum();
                let (row, column) = node.bundle.entries[i];
                let place = node.bundle.group * 16 + row * 4 + column;
                expected[place] = dot(&b, &a[i]) - bias;
                assert!(arch.is_active(node.bundle.group, row, column));
            }
        }
        assert_eq!(
            arch.active
                .unwrap()
                .concat()
                .concat()
                .iter()
                .filter(|on| **on)
                .count(),
            6
        );
        for (seen, expected) in weights.iter().zip(&expected) {
            assert!((seen - expected).abs() < 1e-9, "{weights:?}\n{expected:?}");
        }
    }

    /// Where b is measured from a code of two entries, the weights are that code.
    #[test]
    fn weights_of_a_sparse_code_are_the_code() {
        let codes = codes();
        let node = &codes.nodes[1];
        let mut z = vec![0.0; 8];
        (z[2], z[5]) = (0.7, -0.4);
        let b = node.sensing.matmul(&Tensor::from_slice(&z));
        let support = node.support(&z);
        assert_eq!(support, [2, 5]);
        let weights = sparse::numbers(&node.weights(&b, &z, &support));
        assert!((weights[0] - 0.7).abs() < 1e-12 && (weights[1] + 0.4).abs() < 1e-12);
    }
}
