//! DARTS-PT (Wang et al. 2021): the architecture is not where the weights are largest, but what the supernet can't do without.
//! After the search one decision after the other is made by taking candidates out of the supernet, which is tuned in between.
//!
//! A decision keeps, of a row drawn at random, the candidate without which the supernet does worst on validation images. When
//! all rows are decided, edges into a node compete: the one without which it does best goes, until as many are left as a derived
//! cell has (the authors' code; by the paper all are compared once). Every cell type decides in every round.
//!
//! Readings:
//!
//! * Where edges don't compete (NAS-Bench-201) there is no second part, and `none` can be kept. Where they do it can't.
//! * Rows that choose sources (NAS-Bench-1Shot1's `inputs` and `output`) are decided like edges into a node, after the rows of
//!   operations; so is a row that keeps several candidates.
//! * The selection takes a share of the epochs, which leaves the published five between two decisions: 25 of 125 on
//!   NAS-Bench-201, 80 of 130 on DARTS's space. The first decision follows the search, the last one ends the run.
//! * Auxiliary skips and rates of dropping, if the base has them, are off in the selection.
//! * The architecture's parameters rest while the supernet is tuned; in the authors' code they go on descending.
//! * A base that ends its search (DARTS-ES) is followed by the selection in the epochs that are left.

use nasfw_framework::prelude::*;
use nasfw_framework::supernet::{AUXILIARY_SKIP, DROP_PATH, SKIP_DROPOUT};
use nasfw_framework::{if_any, register};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::bilevel;

/// Settings of DARTS-PT.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DartsPtConfig {
    /// Share of the epochs that the selection takes.
    pub selection: f64,
    /// What the supernet is judged by.
    pub criterion: Criterion,
    /// Batches of the validation half that it is judged on; 0 means all.
    pub eval_batches: usize,
    /// Learning rate of the weights in the selection, as a share of the planned one.
    pub tune_rate: f64,
    /// What the supernet is trained on before the selection.
    pub training: Training,
    /// The strategy that trains the supernet.
    pub base: Box<dyn StrategyConfig>,
}

/// What a supernet is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Criterion {
    /// Its accuracy.
    Accuracy,
    /// Its loss.
    Loss,
}

/// What a supernet is trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Training {
    /// What the base does.
    Base,
    /// All candidates with the same weight; of the base nothing is left but its supernet.
    Uniform,
}

register! {
    strategy "darts-pt" => DartsPtConfig,
    summary: "DARTS-PT: keeps what a trained supernet can't do without; wraps any strategy with a supernet",
    source: "Wang et al. 2021, ICLR, arXiv:2108.04392",
    defaults: r#"[strategy]
# Share of the epochs, the last ones, in which candidates are taken out one by one and the supernet is tuned in between.
selection = 0.6154
# "accuracy" or "loss", on the validation half: what the supernet is judged by.
criterion = "accuracy"
# Batches (`trainer.eval_batch_size` images) that it is judged on; 0 means all.
eval_batches = 0
# The learning rate begins at this share of the planned one when the selection begins, and falls from there.
tune_rate = 0.1
# "base": as the strategy below does. "uniform": all candidates with the same weight, whatever the strategy below learns.
training = "base"

[strategy.base]
# The strategy that trains the supernet; its own settings follow.
name = "darts"

[trainer]
epochs = 130
"#,
    example: "nasfw run --strategy darts-pt --space robust-s2",
    presets: &[("uniform", "[strategy]\ntraining = \"uniform\"\n")],
    families: &[
        ("nasbench201", "[strategy]\nselection = 0.2\n[trainer]\nepochs = 125\n"),
        ("nasbench1shot1", "[strategy]\nselection = 0.44\n[trainer]\nepochs = 90\n"),
    ],
}

#[typetag::serde(name = "darts-pt")]
impl StrategyConfig for DartsPtConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(DartsPt {
            selection: self.selection,
            criterion: self.criterion,
            eval_batches: self.eval_batches,
            tune_rate: self.tune_rate,
            training: self.training,
            spec: cx.spec.clone(),
            base: self.base.build(cx)?,
            state: State::default(),
        }))
    }

    fn needs_benchmark(&self) -> bool {
        self.base.needs_benchmark()
    }

    fn validate(&self, v: &mut Validator) {
        v.range("strategy.selection", self.selection, 0.0, 1.0);
        v.range("strategy.tune_rate", self.tune_rate, 0.0, 100.0);
        v.base(|v| self.base.validate(v));
    }
}

/// What a checkpoint must keep.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct State {
    /// Share of the search at which the selection began; none before.
    #[serde(with = "nasfw_framework::lossless")]
    began: Option<f64>,
    /// Candidates that are left, `[group][row][column]`; of a decided row those that it keeps. Empty before the selection.
    left: Vec<Vec<Vec<bool>>>,
    /// Decided rows, `[group][row]`.
    decided: Vec<Vec<bool>>,
    /// Decided nodes, `[group][node]`.
    nodes: Vec<Vec<bool>>,
    /// Rounds of decisions that are done.
    rounds: usize,
}

struct DartsPt {
    selection: f64,
    criterion: Criterion,
    eval_batches: usize,
    tune_rate: f64,
    training: Training,
    spec: ArchSpec,
    base: Box<dyn Strategy>,
    state: State,
}

/// Something to decide in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    /// Which candidates of a row stay.
    Row(usize),
    /// Which edges into a node stay.
    Node(usize),
}

/// Whether a row keeps one of several operations, so that each is judged by what is left without it.
fn is_operation(group: &Group, row: usize) -> bool {
    group.role == Role::Operations && group.rows[row].keep == 1
}

/// What there is to decide in a group, in the two parts of the selection: not what can be kept altogether.
fn decisions(group: &Group) -> [Vec<Decision>; 2] {
    let open = |r: &usize| group.rows[*r].candidates.len() > group.rows[*r].keep;
    let rows = (0..group.rows.len()).filter(open);
    let (first, second): (Vec<usize>, Vec<usize>) = rows.partition(|r| is_operation(group, *r));
    let nodes = group.nodes().into_iter().enumerate();
    let nodes =
        nodes.filter(|(_, edges)| group.edges_kept().is_some_and(|keep| edges.len() > keep));
    let rows = |rows: Vec<usize>| rows.into_iter().map(Decision::Row);
    [
        rows(first).collect(),
        rows(second)
            .chain(nodes.map(|(n, _)| Decision::Node(n)))
            .collect(),
    ]
}

/// Rounds that a selection takes: in each, every group that has something to decide decides.
fn rounds(spec: &ArchSpec) -> usize {
    let longest = |part: usize| {
        let groups = spec.groups().iter();
        groups.map(|g| decisions(g)[part].len()).max().unwrap_or(0)
    };
    longest(0) + longest(1)
}

/// Rounds that are to be done when a share of the search is: the first when the selection begins, the last at the end.
fn due(rounds: usize, began: f64, done: f64) -> usize {
    if done >= 1.0 {
        return rounds;
    }
    let within = (done - began) / (1.0 - began).max(1e-12);
    // A hair more, so that rounding puts off no round by an epoch.
    let between = within * (rounds.max(1) - 1) as f64 + 1e-9;
    rounds.min(1 + between.max(0.0) as usize)
}

impl DartsPt {
    /// All candidates.
    fn all(&self) -> Vec<Vec<Vec<bool>>> {
        let groups = self.spec.groups().iter();
        groups
            .map(|g| {
                let rows = g.rows.iter();
                rows.map(|row| vec![true; row.candidates.len()]).collect()
            })
            .collect()
    }

    fn begin(&mut self, search: &mut Search, done: f64) {
        let groups = || self.spec.groups().iter();
        self.state = State {
            began: Some(done),
            left: self.all(),
            decided: groups().map(|g| vec![false; g.rows.len()]).collect(),
            nodes: groups().map(|g| vec![false; g.nodes().len()]).collect(),
            rounds: 0,
        };
        search.restart_theta_optimizer(self.tune_rate);
        let left = search.epochs().saturating_sub(search.epoch() + 1);
        search.schedule_over(search.epoch() + 1, left.max(1));
    }

    /// The supernet's weights of candidates, of which only those in `left` are there. A decided row has the weight one.
    fn mixture(&self, search: &Search, left: &[Vec<Vec<bool>>]) -> Result<RelaxedArch> {
        let arch = match (self.training, self.base.distribution()) {
            (Training::Base, Some(d)) => {
                let phi = search.phi();
                match if_any(d.sample(&phi, &mut search.rng("mixture")))? {
                    Some(sample) => sample.detach(),
                    None => RelaxedArch::new(d.mean(&phi)?).detach(),
                }
            }
            _ => self.uniform(search),
        };
        let mut active = vec![];
        let mut weights = vec![];
        for (g, group) in self.spec.groups().iter().enumerate() {
            let padded = |row: &Vec<bool>| {
                let mut row = row.clone();
                row.resize(group.width(), false);
                row
            };
            let mask: Vec<Vec<bool>> = left[g].iter().map(padded).collect();
            let flat = |rows: &[Vec<bool>]| {
                let w = &arch.weights[g];
                let mask = Tensor::from_slice(&rows.concat()).view(group.shape());
                mask.to_kind(w.kind()).to_device(w.device())
            };
            let decided = |r: usize| self.state.decided.get(g).is_some_and(|d| d[r]);
            let ones: Vec<Vec<bool>> = mask
                .iter()
                .enumerate()
                .map(|(r, row)| row.iter().map(|on| *on && decided(r)).collect())
                .collect();
            let others: Vec<Vec<bool>> = mask
                .iter()
                .enumerate()
                .map(|(r, row)| row.iter().map(|on| *on && !decided(r)).collect())
                .collect();
            weights.push(flat(&ones) + &arch.weights[g] * flat(&others));
            // What the sample itself leaves out stays out, but for what is decided.
            let computed = mask.iter().enumerate().map(|(r, row)| {
                let computed =
                    |(c, on): (usize, &bool)| *on && (decided(r) || arch.is_active(g, r, c));
                row.iter().enumerate().map(computed).collect()
            });
            active.push(computed.collect::<Vec<Vec<bool>>>());
        }
        Ok(RelaxedArch {
            offsets: None,
            ..arch.with_weights(weights)
        }
        .with_active(active))
    }

    /// All candidates with the same weight: those that a row keeps sum to one.
    fn uniform(&self, search: &Search) -> RelaxedArch {
        let options = (search.kind(), search.device());
        let zeros = Tensor::zeros([self.spec.numel()], options);
        RelaxedArch::new(self.spec.softmax(&zeros))
    }

    /// How well the supernet does with the candidates in `left`; more is better.
    fn score(&self, search: &Search, left: &[Vec<Vec<bool>>]) -> Result<f64> {
        let batches = (self.eval_batches > 0).then_some(self.eval_batches);
        let meter = search.evaluate(&self.mixture(search, left)?, Some(Split::Val), batches)?;
        Ok(match self.criterion {
            Criterion::Accuracy => meter.accuracy,
            Criterion::Loss => -meter.loss,
        })
    }

    /// The candidate of row `r` of group `g` without which the supernet does worst; of equals the first.
    fn strongest(&self, search: &Search, g: usize, r: usize) -> Result<usize> {
        let group = &self.spec.groups()[g];
        let row = &group.rows[r];
        let none = group.edges_kept().and_then(|_| row.column("none"));
        let mut worst: Option<(f64, usize)> = None;
        for c in (0..row.candidates.len()).filter(|c| Some(*c) != none) {
            let mut left = self.state.left.clone();
            left[g][r][c] = false;
            let score = self.score(search, &left)?;
            if worst.is_none_or(|(least, _)| score < least) {
                worst = Some((score, c));
            }
        }
        Ok(worst.map_or(0, |(_, c)| c))
    }

    /// Of things that are left one goes after the other, each time the one without which the supernet does best, until `keep`
    /// are left; of equals the last goes. `without` takes one of them out.
    fn eliminate(
        &self,
        search: &Search,
        mut things: Vec<usize>,
        keep: usize,
        without: impl Fn(&mut Vec<Vec<Vec<bool>>>, usize),
    ) -> Result<Vec<usize>> {
        let mut left = self.state.left.clone();
        while things.len() > keep {
            let mut best: Option<(f64, usize)> = None;
            for (i, thing) in things.iter().enumerate() {
                let mut tried = left.clone();
                without(&mut tried, *thing);
                let score = self.score(search, &tried)?;
                if best.is_none_or(|(most, _)| score >= most) {
                    best = Some((score, i));
                }
            }
            let goes = things.remove(best.map_or(0, |(_, i)| i));
            without(&mut left, goes);
        }
        Ok(things)
    }

    fn decide(&mut self, search: &Search, g: usize, decision: Decision) -> Result<()> {
        let group = &self.spec.groups()[g];
        match decision {
            Decision::Row(r) if is_operation(group, r) => {
                let kept = self.strongest(search, g, r)?;
                let row = &mut self.state.left[g][r];
                row.iter_mut()
                    .enumerate()
                    .for_each(|(c, on)| *on = c == kept);
                self.state.decided[g][r] = true;
            }
            Decision::Row(r) => {
                let row = &group.rows[r];
                let all = (0..row.candidates.len()).collect();
                let kept =
                    self.eliminate(search, all, row.keep, |left, c| left[g][r][c] = false)?;
                let row = &mut self.state.left[g][r];
                row.iter_mut()
                    .enumerate()
                    .for_each(|(c, on)| *on = kept.contains(&c));
                self.state.decided[g][r] = true;
            }
            Decision::Node(n) => {
                let edges = group.nodes().swap_remove(n);
                let keep = group.edges_kept().unwrap_or(edges.len());
                let clear = |left: &mut Vec<Vec<Vec<bool>>>, r: usize| left[g][r].fill(false);
                let kept = self.eliminate(search, edges.clone(), keep, clear)?;
                for r in edges.into_iter().filter(|r| !kept.contains(r)) {
                    self.state.left[g][r].fill(false);
                }
                self.state.nodes[g][n] = true;
            }
        }
        Ok(())
    }

    /// What is not decided yet in a group, of the first part if there is any in any group.
    fn open(&self, g: usize) -> Vec<Decision> {
        let of = |g: usize, part: usize| -> Vec<Decision> {
            let all = decisions(&self.spec.groups()[g]);
            let open = |d: &Decision| match *d {
                Decision::Row(r) => !self.state.decided[g][r],
                Decision::Node(n) => !self.state.nodes[g][n],
            };
            all[part].iter().copied().filter(open).collect()
        };
        let first = (0..self.spec.groups().len()).any(|g| !of(g, 0).is_empty());
        of(g, usize::from(!first))
    }

    /// One round: every group that has something to decide decides, in the order of groups, one thing drawn at random.
    fn round(&mut self, search: &Search, rng: &mut Rng) -> Result<()> {
        let open: Vec<Vec<Decision>> = (0..self.spec.groups().len())
            .map(|g| self.open(g))
            .collect();
        for (g, open) in open.iter().enumerate().filter(|(_, open)| !open.is_empty()) {
            let drawn = open[rng.random_range(0..open.len())];
            self.decide(search, g, drawn)?;
        }
        self.state.rounds += 1;
        Ok(())
    }
}

impl Strategy for DartsPt {
    /// Before the selection that of the base, or a step of the weights with all candidates alike; then a step of the weights
    /// with what is left.
    fn step(&mut self, search: &mut Search) -> Result<()> {
        let selecting = self.state.began.is_some();
        search.log("decisions", self.state.rounds as f64);
        if !selecting && self.training == Training::Base {
            return self.base.step(search);
        }
        let left = match selecting {
            true => self.state.left.clone(),
            false => self.all(),
        };
        let split = match self.data() {
            DataPlan::Full => Split::Full,
            _ => Split::Train,
        };
        if selecting {
            for scalar in [AUXILIARY_SKIP, SKIP_DROPOUT, DROP_PATH] {
                search.set_scalar(scalar, 0.0);
            }
        }
        let batch = search.batch(split)?;
        let arch = self.mixture(search, &left)?;
        bilevel::descend_weights_at(search, &arch, &batch)
    }

    fn epoch_start(&mut self, search: &mut Search) -> Result<()> {
        if self.state.began.is_some() {
            return Ok(());
        }
        if search.epoch() == 0 && search.budget().is_none() {
            let share = (1.0 - self.selection) * search.epochs() as f64 - 1e-6;
            search.schedule_over(0, (share.ceil() as u64).max(1));
        }
        self.base.epoch_start(search)
    }

    fn epoch_end(&mut self, search: &mut Search) -> Result<Control> {
        let last = search.is_last_epoch();
        let done = match search.budget() {
            _ if last => 1.0,
            Some(_) => search.progress().min(1.0),
            None => (search.epoch() + 1) as f64 / search.epochs() as f64,
        };
        let mut control = Control::Continue;
        if self.state.began.is_none() {
            if self.training == Training::Base {
                control = self.base.epoch_end(search)?;
            }
            let ended = matches!(control, Control::Stop(_));
            if ended || last || done >= 1.0 - self.selection - 1e-9 {
                self.begin(search, done);
                control = Control::Continue;
            }
        }
        if let Some(began) = self.state.began {
            let rounds = rounds(&self.spec);
            let due = due(rounds, began, done);
            let rng = &mut search.rng("selection");
            while self.state.rounds < due {
                self.round(search, rng)?;
            }
        }
        Ok(control)
    }

    /// What is decided, and for the rest what the base's weights say. Before the selection that of the base.
    fn derive(&self, search: &Search) -> Result<Choice> {
        if self.state.began.is_none() && self.training == Training::Base {
            return self.base.derive(search);
        }
        let weights = match self.training {
            Training::Base => search.marginals(self.base.distribution())?,
            Training::Uniform => None,
        };
        let uniform = || self.spec.to_marginals(&self.uniform(search).weights);
        let mut weights = weights.unwrap_or_else(uniform);
        for (left, (g, r, _)) in self.state.left.iter().flatten().zip(self.spec.rows()) {
            let decided = self.state.decided[g][r];
            for (w, on) in weights[g][r].iter_mut().zip(left) {
                *w = match (decided, on) {
                    (true, true) => 1.0,
                    (true, false) => 0.0,
                    (false, _) => *w,
                };
            }
        }
        Ok(search.space().derive(&weights))
    }

    crate::wraps!(base, keeping state);
}
