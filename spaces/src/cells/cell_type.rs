//! What a cell may be.

use nasfw_framework::arch::subsets;
use nasfw_framework::prelude::*;
use rand::RngExt;

use crate::layers::Op;

/// An edge of a cell with its candidates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellEdge {
    /// State that it reads: the cell's inputs come first, then its nodes.
    pub from: usize,
    /// State that it adds to.
    pub to: usize,
    /// What it may carry, in the order of the columns of the architecture's weights.
    pub candidates: Vec<Op>,
}

/// What a cell puts out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// All nodes, joined along the channels.
    Concat,
    /// The last node.
    Last,
}

/// A cell type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellType {
    /// Its name in genotypes, for example `normal`.
    pub name: String,
    /// Number of preceding cells that it reads, 1 or 2.
    pub inputs: usize,
    /// Number of nodes.
    pub nodes: usize,
    /// Edges, ordered by target and then by source.
    pub edges: Vec<CellEdge>,
    /// How many edges into a node a derived cell has; none means that every edge keeps its best candidate.
    pub keep: Option<usize>,
    /// What it puts out.
    pub output: Output,
}

impl CellType {
    /// A cell in which every node reads all earlier states, each edge with the same candidates.
    pub fn dense(
        name: &str,
        inputs: usize,
        nodes: usize,
        candidates: &[Op],
        keep: Option<usize>,
        output: Output,
    ) -> Self {
        let edges = (inputs..inputs + nodes)
            .flat_map(|to| (0..to).map(move |from| (from, to)))
            .map(|(from, to)| CellEdge {
                from,
                to,
                candidates: candidates.to_vec(),
            })
            .collect();
        Self {
            name: name.into(),
            inputs,
            nodes,
            edges,
            keep,
            output,
        }
    }

    /// Number of states: inputs and nodes.
    pub fn states(&self) -> usize {
        self.inputs + self.nodes
    }

    /// States that make the output.
    pub fn output_states(&self) -> Vec<usize> {
        match self.output {
            Output::Concat => (self.inputs..self.states()).collect(),
            Output::Last => vec![self.states() - 1],
        }
    }

    /// Number of inputs and of joined states.
    pub(super) fn shape(&self) -> (usize, usize) {
        (self.inputs, self.output_states().len())
    }

    pub(super) fn input_names(&self) -> Vec<String> {
        match self.inputs {
            1 => vec!["input".into()],
            n => (0..n).map(|i| format!("c_{{k-{}}}", n - i)).collect(),
        }
    }

    pub(super) fn group(&self) -> Group {
        let rows = self.edges.iter().map(|e| Row {
            name: format!("{}->{}", e.from, e.to),
            candidates: e.candidates.iter().map(|o| o.name().to_owned()).collect(),
            keep: 1,
        });
        Group {
            name: self.name.clone(),
            role: nasfw_framework::arch::Role::Operations,
            rows: rows.collect(),
            edges: Some(Edges {
                ends: self.edges.iter().map(|e| (e.from, e.to)).collect(),
                keep: self.keep,
            }),
        }
    }

    /// Edges into a state, as indices.
    pub(super) fn into(&self, to: usize) -> Vec<usize> {
        (0..self.edges.len())
            .filter(|&e| self.edges[e].to == to)
            .collect()
    }

    /// Edges out of a state, as indices.
    pub(super) fn out_of(&self, from: usize) -> Vec<usize> {
        (0..self.edges.len())
            .filter(|&e| self.edges[e].from == from)
            .collect()
    }

    /// Candidates of an edge that compute something, as columns.
    pub(super) fn real(&self, edge: usize) -> Vec<usize> {
        let candidates = &self.edges[edge].candidates;
        (0..candidates.len())
            .filter(|&c| candidates[c] != Op::None)
            .collect()
    }

    /// The discretisation of DARTS (Liu et al. 2019, section 2.4): of the edges into a node the `keep` with the strongest
    /// candidates other than `none` stay, with these; of equals the first wins.
    pub(super) fn derive(&self, keep: usize, weights: &[Vec<f64>]) -> Vec<Vec<usize>> {
        let best = |e: usize| -> Option<usize> {
            let better = |a: usize, b: usize| if weights[e][b] > weights[e][a] { b } else { a };
            self.real(e).into_iter().reduce(better)
        };
        let mut kept = vec![vec![]; self.edges.len()];
        for to in self.inputs..self.states() {
            let mut strongest: Vec<(usize, usize)> = self
                .into(to)
                .into_iter()
                .filter_map(|e| Some((e, best(e)?)))
                .collect();
            strongest.sort_by(|a, b| weights[b.0][b.1].total_cmp(&weights[a.0][a.1]));
            for (e, c) in strongest.into_iter().take(keep) {
                kept[e] = vec![c];
            }
        }
        kept
    }

    /// A uniform draw from what [`SearchSpace::derive`] can give.
    pub(super) fn random(&self, rng: &mut Rng) -> Vec<Vec<usize>> {
        let mut kept = vec![vec![]; self.edges.len()];
        let Some(keep) = self.keep else {
            for (e, kept) in kept.iter_mut().enumerate() {
                kept.push(rng.random_range(0..self.edges[e].candidates.len()));
            }
            return kept;
        };
        for to in self.inputs..self.states() {
            let edges: Vec<(usize, Vec<usize>)> = self
                .into(to)
                .into_iter()
                .map(|e| (e, self.real(e)))
                .filter(|(_, real)| !real.is_empty())
                .collect();
            // Sets of edges, each counted as often as there are ways to fill it.
            let sets = subsets(edges.len(), keep.min(edges.len()));
            let ways = |set: &Vec<usize>| set.iter().map(|&i| edges[i].1.len()).product::<usize>();
            let mut left = rng.random_range(0..sets.iter().map(ways).sum::<usize>().max(1));
            for set in &sets {
                if left < ways(set) {
                    for &i in set {
                        let (e, real) = &edges[i];
                        kept[*e] = vec![real[rng.random_range(0..real.len())]];
                    }
                    break;
                }
                left -= ways(set);
            }
        }
        kept
    }

    pub(super) fn genotype(&self, kept: &[Vec<usize>]) -> Cell {
        let nodes = (self.inputs..self.states()).map(|to| Node {
            op: None,
            inputs: self
                .into(to)
                .into_iter()
                .flat_map(|e| kept[e].iter().map(move |&c| (e, c)))
                .map(|(e, c)| (self.edges[e].from, self.edges[e].candidates[c]))
                .filter(|(_, op)| *op != Op::None)
                .map(|(from, op)| Edge {
                    from,
                    op: Some(op.name().into()),
                })
                .collect(),
        });
        Cell {
            name: self.name.clone(),
            inputs: self.input_names(),
            nodes: nodes.collect(),
            output: self.output_states(),
        }
    }

    /// The inverse of [`CellType::genotype`]: an edge that the cell lacks keeps `none` where every edge keeps
    /// something, else nothing.
    pub(super) fn choice(&self, cell: &Cell) -> Result<Vec<Vec<usize>>> {
        let invalid = |why: String| Error::Invalid {
            what: format!("cell `{}` of the genotype", cell.name),
            why,
        };
        if cell.inputs.len() != self.inputs || cell.nodes.len() != self.nodes {
            return Err(invalid(format!(
                "it has {} inputs and {} nodes, the space's has {} and {}",
                cell.inputs.len(),
                cell.nodes.len(),
                self.inputs,
                self.nodes
            )));
        }
        let mut output = cell.output.clone();
        output.sort_unstable();
        if output != self.output_states() {
            return Err(invalid("its output joins other states".into()));
        }
        let mut kept = vec![vec![]; self.edges.len()];
        for (i, node) in cell.nodes.iter().enumerate() {
            let to = self.inputs + i;
            for edge in &node.inputs {
                let op = edge.op.as_deref().unwrap_or_default();
                let place = (0..self.edges.len())
                    .find(|&e| self.edges[e].from == edge.from && self.edges[e].to == to)
                    .and_then(|e| {
                        let same = |c: &Op| c.name() == op;
                        Some((e, self.edges[e].candidates.iter().position(same)?))
                    });
                let (e, c) = place.ok_or_else(|| {
                    invalid(format!(
                        "the space has no `{op}` on the edge {}->{to}",
                        edge.from
                    ))
                })?;
                kept[e].push(c);
            }
        }
        for (e, kept) in kept.iter_mut().enumerate() {
            kept.sort_unstable();
            kept.dedup();
            let none = self.edges[e]
                .candidates
                .iter()
                .position(|op| *op == Op::None);
            if kept.is_empty() && self.keep.is_none() {
                kept.push(none.ok_or_else(|| {
                    invalid(format!(
                        "the edge {}->{} carries nothing, which the space does not have",
                        self.edges[e].from, self.edges[e].to
                    ))
                })?);
            }
        }
        Ok(kept)
    }
}
