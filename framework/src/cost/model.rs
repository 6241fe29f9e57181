//! What architectures with weights are expected to cost.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use rand::RngExt;
use tch::{Device, Kind, Tensor};

use super::contract::Cost;
use crate::arch::{ArchSpec, Choice, Group, Marginals, Role, Row, subsets};
use crate::error::{Error, Result};
use crate::network::NetworkOptions;
use crate::rng::{Rng, Streams};
use crate::space::{SearchSpace, Task};

/// Weights below count as this, whose logarithm is a number.
const TINY: f64 = 1e-300;
/// Architectures that a sum is tried on.
const TRIED: u64 = 24;
/// Ways to decide the rows and nodes of a space, each on its own, that are held in memory at most.
const WAYS: f64 = 2e5;
/// Random architectures that are looked at for the dearest, where a cost is no sum.
const DEAREST_OF: u64 = 1000;

/// What the standalone networks of a space cost, and what architectures with weights are expected to.
///
/// The expectation is over architectures that keep in every row a subset of its size with a probability in proportion to the
/// product of its weights: of one candidate its weight. Where a derived cell keeps some of the edges into a node, that
/// is a subset of edges by their largest weights other than `none`'s, and of each edge an operation by these weights.
#[derive(Debug)]
pub struct CostModel {
    cost: Arc<dyn Cost>,
    task: Task,
    options: NetworkOptions,
    spec: ArchSpec,
    contests: Vec<Option<Contest>>,
    sum: Option<Sum>,
    /// By the genotype's text.
    known: Mutex<HashMap<String, f64>>,
}

/// A cost that is a sum over the kept candidates.
#[derive(Debug)]
struct Sum {
    base: f64,
    of: Marginals,
    /// The same as a matrix for every group, `[rows, width]`, where weights were last.
    tables: Mutex<Vec<Tensor>>,
}

impl Sum {
    fn new(spec: &ArchSpec, base: f64, of: Marginals) -> Self {
        let table = |(group, rows): (&Group, &Vec<Vec<f64>>)| {
            let width = group.width();
            let padded = rows.iter().flat_map(|row| {
                let padding = std::iter::repeat_n(0.0, width - row.len());
                row.iter().copied().chain(padding)
            });
            Tensor::from_slice(&padded.collect::<Vec<f64>>()).view(group.shape())
        };
        let tables = spec.groups().iter().zip(&of).map(table).collect();
        Self {
            base,
            of,
            tables: Mutex::new(tables),
        }
    }

    /// The matrix of a group on a device.
    fn table(&self, group: usize, device: Device) -> Tensor {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if tables[group].device() != device {
            tables[group] = tables[group].to_device(device);
        }
        tables[group].shallow_clone()
    }

    fn at(&self, choice: &Choice) -> f64 {
        let kept = choice
            .groups()
            .iter()
            .zip(&self.of)
            .flat_map(|(rows, of)| rows.iter().zip(of));
        let costs = kept.flat_map(|(kept, of)| kept.iter().map(|&c| of[c]));
        self.base + costs.sum::<f64>()
    }
}

/// Edges of a group of which a derived cell keeps some into every node.
#[derive(Debug)]
pub(super) struct Contest {
    /// A row for every node, whose candidates are the edges into it that can compute something.
    nodes: Group,
    /// The same edges, as rows of the group that they are of.
    pub(super) edges: Vec<Vec<usize>>,
}

impl Contest {
    /// None where every row keeps its choice.
    pub(super) fn of(group: &Group) -> Option<Self> {
        let edges = group.edges.as_ref()?;
        let keep = edges.keep?;
        let mut into: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (row, (_, to)) in edges.ends.iter().enumerate() {
            if real(&group.rows[row]).next().is_some() {
                into.entry(*to).or_default().push(row);
            }
        }
        let rows = into.iter().map(|(to, edges)| Row {
            name: to.to_string(),
            candidates: edges.iter().map(usize::to_string).collect(),
            keep: keep.min(edges.len()),
        });
        let nodes = Group {
            name: group.name.clone(),
            role: Role::Topology,
            rows: rows.collect(),
            edges: None,
        };
        Some(Self {
            nodes,
            edges: into.into_values().collect(),
        })
    }

    /// How many edges into a node are kept.
    pub(super) fn keep(&self, node: usize) -> usize {
        self.nodes.rows[node].keep
    }

    /// Logarithms of the strengths of edges (`[rows]`) by node: `[nodes, edges]`.
    fn by_node(&self, strengths: &Tensor) -> Tensor {
        let width = self.nodes.width();
        let padded = self.edges.iter().flat_map(|edges| {
            let place = |i: usize| edges.get(i).copied().unwrap_or(edges[0]) as i64;
            (0..width).map(place)
        });
        let index = Tensor::from_slice(&padded.collect::<Vec<_>>()).to_device(strengths.device());
        let by_node = strengths.index_select(0, &index).view(self.nodes.shape());
        by_node.clamp_min(TINY).log()
    }

    /// The probability of every row of the group to be kept, `[rows]`.
    fn kept(&self, strengths: &Tensor) -> Tensor {
        let by_node = self.nodes.subset_softmax(&self.by_node(strengths));
        let width = self.nodes.width();
        let rows = strengths.size()[0] as usize;
        // Rows that can't compute anything read the zero at the end.
        let mut places = vec![(self.edges.len() * width) as i64; rows];
        for (node, edges) in self.edges.iter().enumerate() {
            for (i, &row) in edges.iter().enumerate() {
                places[row] = (node * width + i) as i64;
            }
        }
        let index = Tensor::from_slice(&places).to_device(strengths.device());
        let all = by_node.reshape([-1]);
        let zero = Tensor::zeros([1], (all.kind(), all.device()));
        Tensor::cat(&[all, zero], 0).index_select(0, &index)
    }
}

/// Candidates of a row that compute something.
pub(super) fn real(row: &Row) -> impl Iterator<Item = usize> + '_ {
    let none = row.column("none");
    (0..row.candidates.len()).filter(move |c| Some(*c) != none)
}

/// Columns that compute something, `[rows, width]`, 1 or 0.
fn real_columns(group: &Group, like: &Tensor) -> Tensor {
    let [rows, width] = group.shape();
    let mut columns = vec![0.0; (rows * width) as usize];
    for (r, row) in group.rows.iter().enumerate() {
        real(row).for_each(|c| columns[r * width as usize + c] = 1.0);
    }
    let columns = Tensor::from_slice(&columns).view([rows, width]);
    columns.to_kind(like.kind()).to_device(like.device())
}

impl CostModel {
    /// What `cost` says of the space's networks for a task, of the size of `options`.
    ///
    /// # Errors
    /// A space without standalone networks, or with more ways to decide a row or a node than can be held in memory, and
    /// whatever the cost has to say.
    pub fn new(
        cost: Arc<dyn Cost>,
        space: &dyn SearchSpace,
        task: Task,
        options: NetworkOptions,
    ) -> Result<Self> {
        let spec = space.spec().clone();
        let contests: Vec<Option<Contest>> = spec.groups().iter().map(Contest::of).collect();
        refuse_too_many(&spec, &contests)?;
        let mut model = Self {
            cost,
            task,
            options,
            contests,
            spec,
            sum: None,
            known: Mutex::default(),
        };
        model.sum = model.find_sum(space)?;
        Ok(model)
    }

    /// The cost.
    pub fn cost(&self) -> &dyn Cost {
        self.cost.as_ref()
    }

    /// Whether it is a sum over the kept candidates, so that expectations are exact. Others are estimated from draws.
    pub fn is_sum(&self) -> bool {
        self.sum.is_some()
    }

    /// What the standalone network of a choice costs.
    ///
    /// # Errors
    /// A choice that no network can be built of, and whatever the cost has to say.
    pub fn of(&self, space: &dyn SearchSpace, choice: &Choice) -> Result<f64> {
        match &self.sum {
            Some(sum) => Ok(sum.at(choice)),
            None => self.of_network(space, choice),
        }
    }

    /// The same, by building the network.
    fn of_network(&self, space: &dyn SearchSpace, choice: &Choice) -> Result<f64> {
        let genotype = space.genotype(choice);
        let name = genotype.to_string();
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cost) = known().get(&name) {
            return Ok(*cost);
        }
        let network = space.network(&genotype, self.task, &self.options)?;
        let cost = self.cost.of(&network)?;
        known().insert(name, cost);
        Ok(cost)
    }

    /// What every candidate adds, `[group][row][candidate]`; none where the cost is no sum.
    pub(super) fn parts(&self) -> Option<&Marginals> {
        self.sum.as_ref().map(|sum| &sum.of)
    }

    /// What is there whatever is kept; zero where the cost is no sum.
    pub(super) fn base(&self) -> f64 {
        self.sum.as_ref().map_or(0.0, |sum| sum.base)
    }

    /// What the cheapest architecture costs; none where the cost is no sum.
    pub(super) fn least(&self) -> Option<f64> {
        self.extreme(1.0)
    }

    /// What the dearest architecture costs: exactly where the cost is a sum, else the dearest of a thousand random ones, the same
    /// ones in every search. It is a property of the space and the cost alone.
    ///
    /// # Errors
    /// Those of [`CostModel::of`].
    pub fn dearest(&self, space: &dyn SearchSpace) -> Result<f64> {
        if let Some(most) = self.extreme(-1.0) {
            return Ok(most);
        }
        let streams = Streams::new(0);
        let random = (0..DEAREST_OF).map(|i| space.random(&mut streams.at("dearest", i)));
        let costs: Vec<f64> = random
            .map(|choice| self.of(space, &choice))
            .collect::<Result<_>>()?;
        Ok(costs.into_iter().fold(0.0, f64::max))
    }

    /// The least that an architecture costs for a sign of 1, the most for -1; none where the cost is no sum.
    fn extreme(&self, sign: f64) -> Option<f64> {
        let sum = self.sum.as_ref()?;
        // With the sign in them, the least counts.
        let least = |costs: &mut dyn Iterator<Item = f64>| costs.fold(f64::INFINITY, f64::min);
        let mut all = sign * sum.base;
        for (g, (group, of)) in self.spec.groups().iter().zip(&sum.of).enumerate() {
            let of_row = |r: usize, real_only: bool| match real_only {
                true => least(&mut real(&group.rows[r]).map(|c| sign * of[r][c])),
                false => least(&mut of[r].iter().map(|cost| sign * cost)),
            };
            let Some(contest) = &self.contests[g] else {
                all += (0..of.len()).map(|r| of_row(r, false)).sum::<f64>();
                continue;
            };
            for (node, edges) in contest.edges.iter().enumerate() {
                let mut costs: Vec<f64> = edges.iter().map(|&e| of_row(e, true)).collect();
                costs.sort_by(f64::total_cmp);
                all += costs[..contest.keep(node)].iter().sum::<f64>();
            }
        }
        Some(sign * all)
    }

    pub(super) fn contest(&self, group: usize) -> Option<&Contest> {
        self.contests[group].as_ref()
    }

    /// The cost as a sum, if it is one: from the network of no candidate, or else of a random choice, one candidate is changed
    /// at a time, and random choices are compared with what the sum says.
    fn find_sum(&self, space: &dyn SearchSpace) -> Result<Option<Sum>> {
        let streams = Streams::new(0);
        let random = |i| space.random(&mut streams.at("costs", i));
        // An error of the cost itself is told; one of a network without candidates is not.
        self.of_network(space, &random(0))?;
        let nothing = self.spec.groups().iter();
        let nothing = Choice::new(nothing.map(|g| vec![vec![]; g.rows.len()]).collect());
        let from = match self.of_network(space, &nothing) {
            Ok(_) => nothing,
            Err(_) => random(0),
        };
        let base = self.of_network(space, &from)?;
        let mut of: Marginals = vec![];
        for (g, group) in self.spec.groups().iter().enumerate() {
            let mut rows = vec![];
            for (r, row) in group.rows.iter().enumerate() {
                if row.keep > 1 {
                    return Ok(None);
                }
                let mut candidates = vec![];
                for c in 0..row.candidates.len() {
                    let mut kept = from.groups().to_vec();
                    kept[g][r] = vec![c];
                    let Ok(cost) = self.of_network(space, &Choice::new(kept)) else {
                        return Ok(None);
                    };
                    candidates.push(cost - base);
                }
                rows.push(candidates);
            }
            of.push(rows);
        }
        let sum = Sum::new(&self.spec, base, of);
        for i in 0..TRIED {
            let choice = random(i);
            let (says, is) = (sum.at(&choice), self.of_network(space, &choice)?);
            if (says - is).abs() > 1e-9 * is.abs() {
                return Ok(None);
            }
        }
        Ok(Some(sum))
    }

    /// The expected cost of architectures with such weights (one `[rows, width]` matrix a group), a scalar of double precision
    /// that is differentiable in them. Of weights that are those of one architecture it is that architecture's cost.
    ///
    /// It is exact where the cost is a sum. Elsewhere it is the mean of `draws` architectures (two at least), whose gradient is
    /// the unbiased estimate by score functions, with the mean of the others as baseline (Kool et al. 2019).
    ///
    /// # Errors
    /// Those of [`CostModel::of`].
    pub fn expected(
        &self,
        space: &dyn SearchSpace,
        weights: &[Tensor],
        draws: usize,
        rng: &mut Rng,
    ) -> Result<Tensor> {
        let weights: Vec<Tensor> = weights.iter().map(|w| w.to_kind(Kind::Double)).collect();
        let Some(sum) = &self.sum else {
            return self.estimated(space, &weights, draws.max(2), rng);
        };
        let terms = weights.iter().enumerate().map(|(g, weights)| {
            let costs = sum.table(g, weights.device());
            (self.shares(g, weights) * costs).sum(Kind::Double)
        });
        Ok(terms.sum::<Tensor>() + sum.base)
    }

    /// The probability of every candidate of a group to be kept, `[rows, width]`.
    fn shares(&self, g: usize, weights: &Tensor) -> Tensor {
        let group = &self.spec.groups()[g];
        let normalised = |weights: &Tensor| {
            let sum = weights.sum_dim_intlist([-1i64].as_slice(), true, Kind::Double);
            weights / sum.clamp_min(TINY)
        };
        match &self.contests[g] {
            // Sums are of rows that keep one.
            None => normalised(weights),
            Some(contest) => {
                let real = weights * real_columns(group, weights);
                let kept = contest.kept(&real.amax([-1i64].as_slice(), false));
                normalised(&real) * kept.unsqueeze(1)
            }
        }
    }

    fn estimated(
        &self,
        space: &dyn SearchSpace,
        weights: &[Tensor],
        draws: usize,
        rng: &mut Rng,
    ) -> Result<Tensor> {
        let marginals = self.spec.to_marginals(weights);
        let drawn: Vec<Choice> = (0..draws).map(|_| self.draw(&marginals, rng)).collect();
        let costs = drawn.iter().map(|choice| self.of(space, choice));
        let costs: Vec<f64> = costs.collect::<Result<_>>()?;
        let all: f64 = costs.iter().sum();
        let mut total = Tensor::from(all / draws as f64).to_device(weights[0].device());
        for (choice, cost) in drawn.iter().zip(&costs) {
            let others = (all - cost) / (draws - 1) as f64;
            let log_prob = self.log_prob(weights, choice);
            total += (&log_prob - log_prob.detach()) * ((cost - others) / draws as f64);
        }
        Ok(total)
    }

    /// An architecture drawn as the expectation is over them.
    fn draw(&self, marginals: &Marginals, rng: &mut Rng) -> Choice {
        let groups = self.spec.groups().iter().zip(marginals).enumerate();
        let drawn = groups.map(|(g, (group, weights))| match &self.contests[g] {
            None => {
                let rows = group.rows.iter().zip(weights);
                rows.map(|(row, weights)| draw_subset(weights, row.keep, rng))
                    .collect()
            }
            Some(contest) => {
                let mut kept = vec![vec![]; group.rows.len()];
                for (node, edges) in contest.edges.iter().enumerate() {
                    let of_real = |&e: &usize| -> Vec<f64> {
                        real(&group.rows[e]).map(|c| weights[e][c]).collect()
                    };
                    let strength = |e| of_real(e).into_iter().fold(0.0, f64::max);
                    let strengths: Vec<f64> = edges.iter().map(strength).collect();
                    for i in draw_subset(&strengths, contest.keep(node), rng) {
                        let edge = edges[i];
                        let columns: Vec<usize> = real(&group.rows[edge]).collect();
                        let of = draw_subset(&of_real(&edge), 1, rng);
                        kept[edge] = of.into_iter().map(|c| columns[c]).collect();
                    }
                }
                kept
            }
        });
        Choice::new(drawn.collect())
    }

    /// The log-probability of [`CostModel::draw`], a scalar that is differentiable in the weights.
    fn log_prob(&self, weights: &[Tensor], choice: &Choice) -> Tensor {
        let groups = self.spec.groups().iter().zip(weights).enumerate();
        let terms = groups.map(|(g, (group, weights))| {
            let [rows, width] = group.shape();
            let mut mask = vec![0.0; (rows * width) as usize];
            for r in 0..rows as usize {
                for &c in choice.kept(g, r) {
                    mask[r * width as usize + c] = 1.0;
                }
            }
            let mask = Tensor::from_slice(&mask).view([rows, width]);
            let mask = mask.to_device(weights.device());
            let logs = weights.clamp_min(TINY).log();
            let chosen = (&mask * &logs).sum(Kind::Double);
            let Some(contest) = &self.contests[g] else {
                return chosen - group.log_subsets(&logs).sum(Kind::Double);
            };
            // Edges by their strengths, then an operation of every kept edge.
            let kept = mask.amax([-1i64].as_slice(), false);
            let real = weights * real_columns(group, weights);
            let strengths = real.amax([-1i64].as_slice(), false);
            let edges = (&kept * strengths.clamp_min(TINY).log()).sum(Kind::Double);
            let subsets = contest.nodes.log_subsets(&contest.by_node(&strengths));
            let sums = real.sum_dim_intlist([-1i64].as_slice(), false, Kind::Double);
            let operations = chosen - (kept * sums.clamp_min(TINY).log()).sum(Kind::Double);
            edges - subsets.sum(Kind::Double) + operations
        });
        terms.sum()
    }
}

/// Refuses a space whose rows and nodes have so many ways to be decided, each on its own, that they can't be held in memory.
fn refuse_too_many(spec: &ArchSpec, contests: &[Option<Contest>]) -> Result<()> {
    let (mut all, mut most, mut largest) = (0.0, 0.0, String::new());
    let mut count = |ways: f64, what: &dyn Fn() -> String| {
        all += ways;
        if ways > most {
            (most, largest) = (ways, what());
        }
    };
    for (group, contest) in spec.groups().iter().zip(contests) {
        let Some(contest) = contest else {
            for row in &group.rows {
                let (keep, of) = (row.keep, row.candidates.len());
                count(ways(&vec![1; of], keep), &|| {
                    format!(
                        "row `{}` of `{}` keeps {keep} of {of} candidates",
                        row.name, group.name
                    )
                });
            }
            continue;
        };
        for (node, edges) in contest.edges.iter().enumerate() {
            let candidates: Vec<usize> = (edges.iter())
                .map(|&edge| real(&group.rows[edge]).count())
                .collect();
            let (keep, of) = (contest.keep(node), edges.len());
            count(ways(&candidates, keep), &|| {
                format!(
                    "node {} of `{}` keeps {keep} of {of} edges, each with one of up to {} operations",
                    contest.nodes.rows[node].name,
                    group.name,
                    candidates.iter().max().unwrap_or(&0)
                )
            });
        }
    }
    if all <= WAYS {
        return Ok(());
    }
    Err(Error::Incompatible {
        what: "a limit on this space".into(),
        why: format!(
            "{largest}, which are {most:.1e} ways; all ways of all rows and nodes are held in memory, and {WAYS} are the most"
        ),
        help: "let the space keep fewer, or have fewer edges or candidates there; or search without a limit".into(),
    })
}

/// In how many ways `keep` of some edges can be chosen, and of each chosen one a candidate: the elementary symmetric polynomial
/// of the numbers of their candidates.
fn ways(candidates: &[usize], keep: usize) -> f64 {
    let mut of = vec![0.0; keep + 1];
    of[0] = 1.0;
    for &n in candidates {
        for k in (1..=keep).rev() {
            of[k] += of[k - 1] * n as f64;
        }
    }
    of[keep]
}

/// A subset of `keep` candidates, drawn in proportion to the product of their weights; where all products are zero, the first.
fn draw_subset(weights: &[f64], keep: usize, rng: &mut Rng) -> Vec<usize> {
    let mut all = subsets(weights.len(), keep);
    let worth = |kept: &Vec<usize>| kept.iter().map(|&i| weights[i]).product::<f64>();
    let worths: Vec<f64> = all.iter().map(worth).collect();
    let mut left = rng.random::<f64>() * worths.iter().sum::<f64>();
    let chosen = worths.iter().position(|worth| {
        left -= worth;
        left < 0.0
    });
    // Rounding can leave something: then it is the last that can be drawn.
    let last = worths.iter().rposition(|worth| *worth > 0.0);
    all.swap_remove(chosen.or(last).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// As many as there are, counted one by one.
        #[test]
        fn ways_are_counted(candidates in prop::collection::vec(0usize..4, 0..7), keep in 0usize..8) {
            let of = |set: &Vec<usize>| set.iter().map(|&i| candidates[i]).product::<usize>();
            let counted: usize = subsets(candidates.len(), keep).iter().map(of).sum();
            prop_assert_eq!(ways(&candidates, keep), counted as f64);
        }
    }
}
