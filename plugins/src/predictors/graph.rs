//! Architectures as graphs of operations, whatever space they are of.

use std::collections::{BTreeMap, BTreeSet};

use nasfw_framework::arch::Dag;
pub use nasfw_framework::arch::Label;
use nasfw_framework::prelude::*;
use rand::RngExt;
use tch::{Device, Kind, Tensor};

/// An architecture as a directed acyclic graph whose vertices compute something: the inputs of its cells, its operations
/// and the cells' outputs ([`Dag`]). Where every edge keeps its choice, one that carries nothing is a vertex, too. Cells are
/// separate components.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    /// Per vertex the position of its label in the vocabulary.
    pub labels: Vec<usize>,
    /// Per vertex the number of its cell.
    pub cells: Vec<usize>,
    /// Pairs of vertices (from, to), from < to, in increasing order.
    pub edges: Vec<(usize, usize)>,
}

/// All labels of a space's architectures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vocabulary {
    labels: BTreeMap<Label, usize>,
    cells: usize,
    spec: ArchSpec,
}

/// The operation that carries nothing.
const NOTHING: &str = "none";

/// An architecture with all edges: where every edge keeps its choice (NAS-Bench-201), those that are not there carry nothing.
fn in_full(spec: &ArchSpec, genotype: &Genotype) -> Genotype {
    let mut full = genotype.clone();
    for (cell, group) in full.cells.iter_mut().zip(spec.groups()) {
        let every = group.edges.as_ref().filter(|e| e.keep.is_none());
        for &(from, to) in every.iter().flat_map(|e| &e.ends) {
            let node = to.checked_sub(cell.inputs.len());
            let Some(node) = node.and_then(|n| cell.nodes.get_mut(n)) else {
                continue;
            };
            if !node.inputs.iter().any(|e| e.from == from) {
                let op = Some(NOTHING.to_owned());
                node.inputs.push(Edge { from, op });
                node.inputs.sort_by_key(|e| e.from);
            }
        }
    }
    full
}

/// A vertex: its label in full, and its cell.
type Vertex = (Label, usize);
/// Pairs of vertices.
type Pairs = BTreeSet<(usize, usize)>;

/// The vertices and edges of an architecture.
fn vertices(genotype: &Genotype) -> (Vec<Vertex>, Pairs) {
    let (mut vertices, mut edges) = (vec![], BTreeSet::new());
    for (c, cell) in genotype.cells.iter().enumerate() {
        let (dag, first) = (Dag::of(cell), vertices.len());
        vertices.extend(dag.labels.into_iter().map(|label| (label, c)));
        edges.extend(
            dag.edges
                .iter()
                .map(|(from, to)| (first + from, first + to)),
        );
    }
    (vertices, edges)
}

impl Vocabulary {
    /// The labels of a space: those of architectures of which each keeps another candidate.
    pub fn of(space: &dyn SearchSpace, rng: &mut Rng) -> Self {
        let (mut labels, mut cells) = (BTreeSet::new(), 1);
        for (g, r, row) in space.spec().rows() {
            for c in 0..row.candidates.len() {
                let mut weights = random_weights(space.spec(), rng);
                weights[g][r][c] = 2.0;
                let genotype = space.genotype(&space.derive(&weights));
                cells = cells.max(genotype.cells.len());
                let (vertices, _) = vertices(&in_full(space.spec(), &genotype));
                labels.extend(vertices.into_iter().map(|(label, _)| label));
            }
        }
        let labels = labels.into_iter().enumerate().map(|(i, label)| (label, i));
        Self {
            labels: labels.collect(),
            cells,
            spec: space.spec().clone(),
        }
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Length of a vertex's features: its label and, where architectures have several cells, its cell, one-hot each.
    pub fn width(&self) -> i64 {
        let cells = if self.cells > 1 { self.cells } else { 0 };
        (self.len() + cells) as i64
    }

    /// The graph of an architecture.
    ///
    /// # Errors
    /// An architecture of another space.
    pub fn graph(&self, genotype: &Genotype) -> Result<Graph> {
        let foreign = || Error::Invalid {
            what: "architecture".into(),
            why: "it has an operation or a cell that no architecture of the space has".into(),
        };
        let (vertices, edges) = vertices(&in_full(&self.spec, genotype));
        let labels = vertices.iter().map(|(label, cell)| {
            let known = self.labels.get(label).filter(|_| *cell < self.cells);
            known.copied().ok_or_else(foreign)
        });
        Ok(Graph {
            labels: labels.collect::<Result<_>>()?,
            cells: vertices.iter().map(|(_, cell)| *cell).collect(),
            edges: edges.into_iter().collect(),
        })
    }
}

/// Weights in [0, 1) for every candidate.
fn random_weights(spec: &ArchSpec, rng: &mut Rng) -> Marginals {
    let row = |row: &Row| row.candidates.iter().map(|_| rng.random()).collect();
    let mut row = row;
    (spec.groups().iter())
        .map(|g| g.rows.iter().map(&mut row).collect())
        .collect()
}

/// Some graphs side by side, on the host: their vertices one after the other.
#[derive(Debug)]
pub struct Graphs {
    /// `[vertices, width]`.
    pub features: Tensor,
    /// `[vertices]`, int64.
    pub labels: Tensor,
    /// Both ends of every edge, once in each direction: `[2 edges]`, int64 each.
    neighbours: [Tensor; 2],
    /// Number of the graph that a vertex is of: `[vertices]`, int64.
    of: Tensor,
    /// Vertices of each graph: `[graphs, 1]`.
    sizes: Tensor,
    /// All pairs of vertices of one cell, the first before the second: `[pairs]`, int64 each.
    pub pairs: [Tensor; 2],
    /// Whether an edge joins a pair, 0 or 1: `[pairs]`.
    pub joined: Tensor,
}

impl Graphs {
    /// Puts graphs side by side.
    pub fn new<'a>(
        graphs: impl IntoIterator<Item = &'a Graph>,
        vocabulary: &Vocabulary,
        kind: Kind,
    ) -> Self {
        let width = vocabulary.width() as usize;
        let (mut features, mut labels, mut of, mut sizes) = (vec![], vec![], vec![], vec![]);
        let (mut ends, mut pairs, mut joined) = ([vec![], vec![]], [vec![], vec![]], vec![]);
        for (number, graph) in graphs.into_iter().enumerate() {
            let first = labels.len();
            let at = |v: usize| (first + v) as i64;
            for (&label, &cell) in graph.labels.iter().zip(&graph.cells) {
                let mut one = vec![0.0; width];
                one[label] = 1.0;
                if let Some(slot) = one.get_mut(vocabulary.len() + cell) {
                    *slot = 1.0;
                }
                features.extend(one);
                labels.push(label as i64);
                of.push(number as i64);
            }
            for &(from, to) in &graph.edges {
                ends[0].extend([at(from), at(to)]);
                ends[1].extend([at(to), at(from)]);
            }
            for (to, cell) in graph.cells.iter().enumerate() {
                for from in (0..to).filter(|&from| graph.cells[from] == *cell) {
                    pairs[0].push(at(from));
                    pairs[1].push(at(to));
                    joined.push(f64::from(graph.edges.binary_search(&(from, to)).is_ok()));
                }
            }
            sizes.push(graph.labels.len() as f64);
        }
        let float = |v: &[f64]| Tensor::from_slice(v).to_kind(kind);
        let [whole, halves] = [ends, pairs].map(|p| p.map(|p| Tensor::from_slice(&p)));
        Self {
            features: float(&features).view([-1, width as i64]),
            labels: Tensor::from_slice(&labels),
            neighbours: whole,
            of: Tensor::from_slice(&of),
            sizes: float(&sizes).view([-1, 1]),
            pairs: halves,
            joined: float(&joined),
        }
    }

    /// Sums over each vertex's neighbours, before it and after it: `[vertices, n]` from `[vertices, n]`.
    pub fn neighbours(&self, x: &Tensor) -> Tensor {
        let [to, from] = &self.neighbours;
        x.zeros_like().index_add(0, to, &x.index_select(0, from))
    }

    /// Means over each graph's vertices: `[graphs, n]` from `[vertices, n]`.
    pub fn means(&self, x: &Tensor) -> Tensor {
        let zeros = Tensor::zeros([self.sizes.size()[0], x.size()[1]], (x.kind(), Device::Cpu));
        zeros.index_add(0, &self.of, x) / &self.sizes
    }

    /// Vertices.
    pub fn vertices(&self) -> i64 {
        self.labels.numel() as i64
    }
}
