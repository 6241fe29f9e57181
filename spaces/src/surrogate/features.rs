//! What a model sees of an architecture: counts of what its cells contain. They do not change when nodes are numbered
//! otherwise, nor with what has no effect, so that isomorphic cells are the same to every model.
//!
//! Of every cell as a graph ([`Dag`]), after all that lies on no path from an input to the output is gone:
//!
//! * vertices with their neighbours' labels, one round of Weisfeiler and Lehman (1968; as features of graphs Shervashidze
//!   et al. 2011, JMLR 12), before and after a vertex apart;
//! * vertices and edges with their longest distance from an input;
//! * sequences of operations on the paths from an input to the output (White et al. 2021, AAAI, "BANANAS");
//! * the least, mean and largest number of each operation on such paths.

use std::collections::{BTreeMap, BTreeSet};

use nasfw_framework::arch::{Cell, Dag, Genotype, Label};

/// Features by name (a hash), with how much of each there is: positive numbers.
pub type Features = BTreeMap<u64, f64>;

/// The operation that carries nothing.
const NOTHING: &str = "none";
/// The most different sequences of operations that are followed at once, so that no architecture takes for ever.
const MAX_SEQUENCES: usize = 512;

/// Features of an architecture that [`Genotype::check`] has nothing against.
pub fn features(genotype: &Genotype) -> Features {
    let mut all = Features::new();
    for cell in &genotype.cells {
        let mut own = Counter {
            cell: text(&cell.name),
            counts: &mut all,
        };
        match Pruned::of(cell) {
            Some(graph) => own.graph(&graph),
            None => own.add("nothing", &[], 1.0),
        }
    }
    all
}

/// A number for a text. Files hold such numbers: it must stay as it is.
fn text(text: &str) -> u64 {
    let hash = blake3::hash(text.as_bytes());
    hash.as_bytes()
        .first_chunk()
        .map_or(0, |b| u64::from_le_bytes(*b))
}

/// A number for a pair of numbers in this order, by the finaliser of SplitMix64 (Steele et al. 2014).
pub(super) fn mix(a: u64, b: u64) -> u64 {
    let mut x = a.rotate_left(23).wrapping_add(0x9e37_79b9_7f4a_7c15) ^ b;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The vertices of a cell that lie on a path from an input to the output.
struct Pruned {
    /// Hash of what every vertex is, in topological order; the output is the last one.
    labels: Vec<u64>,
    /// Whether it is an input of the cell.
    inputs: Vec<bool>,
    /// Per vertex those that it reads, in order.
    before: Vec<Vec<usize>>,
    /// Per vertex those that read it, in order.
    after: Vec<Vec<usize>>,
}

impl Pruned {
    /// None of a cell whose output no input reaches.
    fn of(cell: &Cell) -> Option<Self> {
        let dag = Dag::of(cell);
        let n = dag.labels.len();
        let is_input = |v: usize| matches!(dag.labels[v], Label::Input(_));
        let carries = |v: usize| !matches!(&dag.labels[v], Label::Operation(op) if op == NOTHING);
        let mut reached: Vec<bool> = (0..n).map(is_input).collect();
        // Edges come in the order of their beginnings, which are reached before anything behind them.
        for &(from, to) in &dag.edges {
            reached[to] |= reached[from] && carries(to);
        }
        let mut used = vec![false; n];
        if let Some(output) = used.last_mut() {
            *output = true;
        }
        for &(from, to) in dag.edges.iter().rev() {
            used[from] |= used[to] && carries(from);
        }
        let kept: Vec<usize> = (0..n).filter(|&v| reached[v] && used[v]).collect();
        if kept.last() != n.checked_sub(1).as_ref() {
            return None;
        }
        let place: BTreeMap<usize, usize> = kept.iter().enumerate().map(|(i, v)| (*v, i)).collect();
        let (mut before, mut after) = (vec![vec![]; kept.len()], vec![vec![]; kept.len()]);
        for (from, to) in &dag.edges {
            if let (Some(&from), Some(&to)) = (place.get(from), place.get(to)) {
                before[to].push(from);
                after[from].push(to);
            }
        }
        let label = |v: &usize| match &dag.labels[*v] {
            Label::Input(i) => mix(text("input"), *i as u64),
            Label::Operation(op) => mix(text("operation"), text(op)),
            Label::Output => text("output"),
        };
        Some(Self {
            labels: kept.iter().map(label).collect(),
            inputs: kept.iter().map(|&v| is_input(v)).collect(),
            before,
            after,
        })
    }

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn is_output(&self, v: usize) -> bool {
        v + 1 == self.len()
    }

    fn is_operation(&self, v: usize) -> bool {
        !self.inputs[v] && !self.is_output(v)
    }

    /// Hashes of some vertices' labels, sorted.
    fn around(&self, vertices: &[usize]) -> u64 {
        let mut labels: Vec<u64> = vertices.iter().map(|&v| self.labels[v]).collect();
        labels.sort_unstable();
        labels.into_iter().fold(vertices.len() as u64, mix)
    }

    /// Longest distance of every vertex from an input.
    fn depths(&self) -> Vec<u64> {
        let mut depths = vec![0; self.len()];
        for v in 0..self.len() {
            depths[v] = (self.before[v].iter().map(|&u| depths[u] + 1).max()).unwrap_or(0);
        }
        depths
    }

    /// Least, mean and largest sum of `weight` along the paths from an input to the output.
    fn along(&self, weight: impl Fn(usize) -> f64) -> [f64; 3] {
        // Per vertex: least, largest, number of paths, sum over them.
        let mut at: Vec<[f64; 4]> = Vec::with_capacity(self.len());
        for v in 0..self.len() {
            let own = weight(v);
            let start = if self.inputs[v] {
                [0.0, 0.0, 1.0, 0.0]
            } else {
                [f64::MAX, 0.0, 0.0, 0.0]
            };
            let [least, most, paths, sum] = self.before[v].iter().fold(start, |a, &u| {
                let [least, most, paths, sum] = at[u];
                [a[0].min(least), a[1].max(most), a[2] + paths, a[3] + sum]
            });
            at.push([least + own, most + own, paths, sum + own * paths]);
        }
        let [least, most, paths, sum] = at.pop().unwrap_or_default();
        [least, sum / paths, most]
    }

    /// Sequences of operations from an input to the output, by hash, with the number of paths that have them.
    fn sequences(&self) -> BTreeMap<u64, f64> {
        let mut at: Vec<BTreeMap<u64, f64>> = Vec::with_capacity(self.len());
        for v in 0..self.len() {
            let mut own = BTreeMap::new();
            if self.inputs[v] {
                own.insert(self.labels[v], 1.0);
            }
            for (sequence, paths) in self.before[v].iter().flat_map(|&u| &at[u]) {
                let longer = match self.is_output(v) {
                    true => *sequence,
                    false => mix(*sequence, self.labels[v]),
                };
                *own.entry(longer).or_insert(0.0) += paths;
            }
            // Hashes order them the same way however vertices are numbered.
            while own.len() > MAX_SEQUENCES {
                own.pop_last();
            }
            at.push(own);
        }
        at.pop().unwrap_or_default()
    }
}

/// Adds up the features of one cell.
struct Counter<'a> {
    cell: u64,
    counts: &'a mut Features,
}

impl Counter<'_> {
    fn add(&mut self, kind: &str, parts: &[u64], amount: f64) {
        if amount > 0.0 && amount.is_finite() {
            let start = mix(self.cell, text(kind));
            let name = parts.iter().copied().fold(start, mix);
            *self.counts.entry(name).or_insert(0.0) += amount;
        }
    }

    fn graph(&mut self, g: &Pruned) {
        let edges: usize = g.before.iter().map(Vec::len).sum();
        self.add("vertices", &[], g.len() as f64);
        self.add("edges", &[], edges as f64);
        for (v, depth) in g.depths().into_iter().enumerate() {
            let (label, before, after) = (g.labels[v], &g.before[v], &g.after[v]);
            self.add("label", &[label], 1.0);
            self.add(
                "neighbours",
                &[label, g.around(before), g.around(after)],
                1.0,
            );
            let ends = [
                before.iter().any(|&u| g.inputs[u]),
                after.iter().any(|&w| g.is_output(w)),
            ];
            let [first, last] = ends.map(u64::from);
            let degrees = [label, before.len() as u64, after.len() as u64, first, last];
            self.add("degrees", &degrees, 1.0);
            self.add("depth", &[depth, label], 1.0);
            for &w in after {
                self.add("edge", &[depth, label, g.labels[w]], 1.0);
            }
        }
        for (sequence, paths) in g.sequences() {
            self.add("path", &[sequence], paths);
        }
        self.along("length", &[], g.along(|v| f64::from(g.is_operation(v))));
        let operations: BTreeSet<u64> = (0..g.len())
            .filter(|&v| g.is_operation(v))
            .map(|v| g.labels[v])
            .collect();
        for label in operations {
            self.along(
                "number",
                &[label],
                g.along(|v| f64::from(g.labels[v] == label)),
            );
        }
    }

    fn along(&mut self, kind: &str, parts: &[u64], sums: [f64; 3]) {
        for (which, sum) in (0..).zip(sums) {
            self.add(kind, &[parts, &[which]].concat(), sum);
        }
    }
}
