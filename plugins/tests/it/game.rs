//! A space whose accuracy is a formula of the architecture alone, so that whatever a strategy evaluates can be computed here
//! once more: two cell types of competing edges with `none` among the candidates, and rows that choose two sources.

use nasfw_framework::register;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GameConfig {
    number: u64,
}

register! {
    space "game" => GameConfig,
    summary: "a formula",
    source: "tests",
    defaults: "[space]\n# Which formula.\nnumber = 1\n[dataset]\nname = \"vim-test-data\"\n[trainer]\nbatch_size = 4\n[trainer.augment]\ncrop_padding = 0\nflip = false\n",
    example: "nasfw run --space game",
}

#[typetag::serde(name = "game")]
impl SpaceConfig for GameConfig {
    fn build(&self) -> Result<Box<dyn SearchSpace>> {
        Ok(Box::new(Game {
            spec: spec(),
            formula: Formula::new(self.number),
        }))
    }
}

/// Edges of two nodes into which three and two edges lead, of which two stay.
const ENDS: [(usize, usize); 5] = [(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)];

pub fn spec() -> ArchSpec {
    let ops = ["none", "a", "b"].map(String::from).to_vec();
    let cell = |name: &str| Group {
        name: name.into(),
        role: Role::Operations,
        rows: ENDS
            .iter()
            .map(|(from, to)| Row {
                name: format!("{from}->{to}"),
                candidates: ops.clone(),
                keep: 1,
            })
            .collect(),
        edges: Some(Edges {
            ends: ENDS.to_vec(),
            keep: Some(2),
        }),
    };
    ArchSpec::new(vec![
        cell("normal"),
        cell("reduce"),
        group("inputs", Role::Topology, &[(4, 2), (3, 1), (2, 2)]),
    ])
    .unwrap()
}

/// Of weights x of all candidates, in the order of the spec: Σ a_i x_i + Σ b_ij x_i x_j.
#[derive(Debug, Clone)]
pub struct Formula {
    linear: Vec<f64>,
    pairs: Vec<Vec<f64>>,
}

impl Formula {
    pub fn new(number: u64) -> Self {
        let n: usize = spec().rows().map(|(_, _, row)| row.candidates.len()).sum();
        let mut rng = Streams::new(number).at("formula", 0);
        let mut draw = |scale: f64| rng.random_range(-scale..scale);
        Self {
            linear: (0..n).map(|_| draw(0.02)).collect(),
            pairs: (0..n)
                .map(|_| (0..n).map(|_| draw(0.01)).collect())
                .collect(),
        }
    }

    pub fn value(&self, x: &[f64]) -> f64 {
        let of_pairs = |i: usize| -> f64 { (0..i).map(|j| self.pairs[i][j] * x[i] * x[j]).sum() };
        0.5 + (0..x.len())
            .map(|i| self.linear[i] * x[i] + of_pairs(i))
            .sum::<f64>()
    }
}

struct Game {
    spec: ArchSpec,
    formula: Formula,
}

impl SearchSpace for Game {
    fn spec(&self) -> &ArchSpec {
        &self.spec
    }

    fn supernet(&self, _task: Task, _options: &SupernetOptions) -> Result<Box<dyn Supernet>> {
        let mut layout = ParamLayout::new();
        let w = layout.add("w", &[1], Init::Ones);
        Ok(Box::new(Net {
            layout,
            w,
            spec: self.spec.clone(),
            formula: self.formula.clone(),
        }))
    }

    fn genotype(&self, _: &Choice) -> Genotype {
        Genotype {
            space: "game".into(),
            cells: vec![],
        }
    }

    /// As cells do: the edges with the strongest candidates other than `none`.
    fn derive(&self, marginals: &Marginals) -> Choice {
        let mut kept = self.spec.top(marginals).groups().to_vec();
        for (g, group) in self.spec.groups().iter().enumerate().take(2) {
            for edges in group.nodes() {
                let best = |r: usize| {
                    if marginals[g][r][2] > marginals[g][r][1] {
                        2
                    } else {
                        1
                    }
                };
                let mut order = edges.clone();
                let weight = |r: usize| marginals[g][r][best(r)];
                order.sort_by(|a, b| weight(*b).total_cmp(&weight(*a)));
                for (i, r) in order.into_iter().enumerate() {
                    kept[g][r] = if i < 2 { vec![best(r)] } else { vec![] };
                }
            }
        }
        Choice::new(kept)
    }
}

struct Net {
    layout: ParamLayout,
    w: ParamId,
    spec: ArchSpec,
    formula: Formula,
}

impl Supernet for Net {
    fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    /// `[value, w]`.
    fn forward(
        &self,
        weights: Weights<'_>,
        _: &Tensor,
        arch: &RelaxedArch,
        _: Mode,
        _: Streams,
    ) -> Result<Tensor> {
        let x = self.spec.to_marginals(&arch.weights).concat().concat();
        let value = Tensor::from(self.formula.value(&x));
        let w = self.layout.views(weights.params)[self.w].get(0);
        Ok(Tensor::stack(&[value, w], 0))
    }

    fn loss(&self, output: &Tensor, _: &Tensor) -> Tensor {
        -output.get(0) + output.get(1).square()
    }

    /// The value stands in for the accuracy.
    fn correct(&self, output: &Tensor, labels: &Tensor) -> Tensor {
        output.get(0) * labels.numel() as f64
    }
}
