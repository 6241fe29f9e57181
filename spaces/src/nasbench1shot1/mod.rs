//! NAS-Bench-1Shot1 (Zela, Siems, Hutter 2020): three one-shot search spaces whose architectures are cells of
//! NAS-Bench-101.
//!
//! A cell has 4 or 5 choice blocks. Each picks one operation; some pick their parents; the output picks which blocks it
//! joins. Operations, parents and output are the three groups of the [`ArchSpec`].

mod routes;
mod supernet;
mod variant;

#[cfg(test)]
mod tests;

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::nasbench101::ModelSpec;
use crate::options::check_partial;
use supernet::OneShotNet;
pub use variant::OPERATIONS;
use variant::{INPUTS, OPS, OUTPUT, S1, S2, S3, Variant};

macro_rules! space {
    ($config:ident, $variant:ident, $name:literal, $summary:literal, $example:literal) => {
        #[doc = concat!("Settings of `", $name, "`.")]
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $config {
            /// Channels of the first three cells; they double twice.
            pub channels: i64,
            /// Number of cells.
            pub cells: usize,
            /// Weight of the new batch in running statistics of batch norm, where those are used.
            pub bn_momentum: f64,
        }

        #[typetag::serde(name = $name)]
        impl SpaceConfig for $config {
            fn build(&self) -> Result<Box<dyn SearchSpace>> {
                Ok(Box::new(OneShotSpace {
                    variant: $variant,
                    spec: $variant.spec()?,
                    channels: self.channels,
                    cells: self.cells,
                    bn_momentum: self.bn_momentum,
                }))
            }

            /// The network of NAS-Bench-101 has a momentum of its own.
            fn search_only(&self) -> &'static [&'static str] {
                &["channels", "cells", "bn_momentum"]
            }

            fn validate(&self, v: &mut Validator) {
                v.range("space.channels", self.channels, 1, 1024);
                v.range("space.cells", self.cells, 1, 99);
                v.range("space.bn_momentum", self.bn_momentum, 0.0, 1.0);
            }
        }

        register! {
            space $name => $config,
            summary: $summary,
            source: "Zela, Siems, Hutter 2020, ICLR (NAS-Bench-1Shot1); Ying et al. 2019 (NAS-Bench-101)",
            defaults: include_str!("defaults.toml"),
            example: $example,
        }
    };
}

space!(
    OneShot1,
    S1,
    "nasbench1shot1-s1",
    "NAS-Bench-1Shot1, space 1: 4 blocks, 14,580 choices",
    "nasfw run --strategy vim --space nasbench1shot1-s1"
);
space!(
    OneShot2,
    S2,
    "nasbench1shot1-s2",
    "NAS-Bench-1Shot1, space 2: 4 blocks, 29,160 choices",
    "nasfw run --strategy darts --space nasbench1shot1-s2"
);
space!(
    OneShot3,
    S3,
    "nasbench1shot1-s3",
    "NAS-Bench-1Shot1, space 3: 5 blocks, 1,312,200 choices",
    "nasfw run --strategy vim --space nasbench1shot1-s3"
);

/// One of the three spaces, with the size of its supernet.
struct OneShotSpace {
    variant: Variant,
    spec: ArchSpec,
    channels: i64,
    cells: usize,
    bn_momentum: f64,
}

impl SearchSpace for OneShotSpace {
    fn spec(&self) -> &ArchSpec {
        &self.spec
    }

    fn supernet(&self, task: Task, options: &SupernetOptions) -> Result<Box<dyn Supernet>> {
        options.check(&self.spec)?;
        let channels = options.channels.unwrap_or(self.channels);
        check_partial(self.variant.name, channels, options.partial())?;
        if task.height < 2 || task.width < 2 {
            return Err(Error::Incompatible {
                what: format!(
                    "images of {}×{} pixels on space `{}`",
                    task.height, task.width, self.variant.name
                ),
                why: "its poolings need at least 2×2 pixels".into(),
                help: "choose another dataset with `--dataset`".into(),
            });
        }
        Ok(Box::new(OneShotNet::new(
            self.variant,
            task,
            channels,
            options.cells.unwrap_or(self.cells),
            options,
            self.bn_momentum,
        )))
    }

    /// Its networks are NAS-Bench-101's.
    fn recipe(&self) -> &'static str {
        crate::nasbench101::RECIPE
    }

    /// No operation of a block is a skip connection.
    fn without_effect(&self) -> Vec<&'static str> {
        vec!["skip_dropout"]
    }

    fn genotype(&self, choice: &Choice) -> Genotype {
        let nodes = (0..self.variant.blocks.len())
            .map(|b| {
                let parents: Vec<usize> = match self.variant.input_row(b) {
                    Some(row) => choice.kept(INPUTS, row).to_vec(),
                    None => (0..=b).collect(),
                };
                Node {
                    op: choice
                        .kept(OPS, b)
                        .first()
                        .map(|&o| OPERATIONS[o].to_owned()),
                    inputs: parents
                        .into_iter()
                        .map(|from| Edge { from, op: None })
                        .collect(),
                }
            })
            .collect();
        Genotype {
            space: self.variant.name.into(),
            cells: vec![Cell {
                name: "cell".into(),
                inputs: vec!["input".into()],
                nodes,
                output: choice.kept(OUTPUT, 0).to_vec(),
            }],
        }
    }

    fn choice(&self, genotype: &Genotype) -> Result<Choice> {
        let invalid = |why: &str| Error::Invalid {
            what: format!("genotype of {}", self.variant.name),
            why: why.into(),
        };
        if genotype.space != self.variant.name {
            return Err(invalid("it belongs to another space"));
        }
        let [cell] = genotype.cells.as_slice() else {
            return Err(invalid("it must have one cell"));
        };
        if cell.inputs.len() != 1 {
            return Err(invalid("its cell must have one input"));
        }
        if cell.nodes.len() != self.variant.blocks.len() {
            return Err(invalid("it has another number of nodes"));
        }
        let (mut ops, mut inputs) = (vec![], vec![]);
        for (b, node) in cell.nodes.iter().enumerate() {
            let op = OPERATIONS
                .iter()
                .position(|o| node.op.as_deref() == Some(*o));
            ops.push(vec![
                op.ok_or_else(|| invalid("a node has an unknown operation"))?,
            ]);
            if node.inputs.iter().any(|e| e.op.is_some()) {
                return Err(invalid("an edge has an operation; nodes have them here"));
            }
            let mut parents: Vec<usize> = node.inputs.iter().map(|e| e.from).collect();
            parents.sort_unstable();
            if self.variant.input_row(b).is_some() {
                inputs.push(parents);
            } else if parents != (0..=b).collect::<Vec<_>>() {
                return Err(invalid("a node without a choice has other parents"));
            }
        }
        let mut output = cell.output.clone();
        output.sort_unstable();
        let choice = Choice::new(vec![ops, inputs, vec![output]]);
        choice.check_complete(&self.spec)?;
        Ok(choice)
    }

    /// The network that NAS-Bench-101 trains for the cell, which is another than the supernet's path: channels are
    /// split between the joined vertices.
    fn network(
        &self,
        genotype: &Genotype,
        task: Task,
        options: &NetworkOptions,
    ) -> Result<Network> {
        self.choice(genotype)?;
        crate::nasbench101::network(&(&genotype.cells[0]).try_into()?, task, options)
    }

    fn facts(&self, genotype: &Genotype) -> Map<String, Value> {
        let facts = match (self.choice(genotype), genotype.cells.first()) {
            (Ok(_), Some(cell)) => {
                let (matrix, ops) = nasbench101(cell);
                let pruned = match ModelSpec::from_matrix(&matrix, &ops) {
                    Ok(spec) => {
                        json!({ "matrix": spec.matrix(), "ops": spec.labels(), "hash": spec.hash() })
                    }
                    Err(e) => json!({ "error": e.to_string() }),
                };
                json!({ "matrix": matrix, "ops": ops, "pruned": pruned })
            }
            (Err(e), _) => json!({ "error": e.to_string() }),
            (_, None) => return Map::new(),
        };
        Map::from_iter([("nasbench101".to_owned(), facts)])
    }
}

/// The adjacency matrix and vertex labels that NAS-Bench-101 is asked with: 7 vertices; spaces of 4 blocks get an
/// unconnected one before the output. Blocks that do not reach the output contribute no edges, as in the original
/// recursion from the output. The cell must be one of these spaces' (checked by [`SearchSpace::choice`]).
fn nasbench101(cell: &Cell) -> (Vec<Vec<u8>>, Vec<String>) {
    const VERTICES: usize = ModelSpec::MAX_VERTICES;
    let mut matrix = vec![vec![0; VERTICES]; VERTICES];
    let mut labels = vec!["conv1x1-bn-relu".to_owned(); VERTICES];
    labels[0] = "input".into();
    labels[VERTICES - 1] = "output".into();
    for (i, node) in cell.nodes.iter().enumerate() {
        if let Some(op) = &node.op {
            labels[i + 1] = op.clone();
        }
    }
    let mut open: Vec<usize> = cell.output.clone();
    for &from in &open {
        matrix[from][VERTICES - 1] = 1;
    }
    // Edges lead forward, so this ends.
    while let Some(state) = open.pop() {
        if let Some(node) = state.checked_sub(1).and_then(|i| cell.nodes.get(i)) {
            for edge in &node.inputs {
                matrix[edge.from][state] = 1;
                open.push(edge.from);
            }
        }
    }
    (matrix, labels)
}
