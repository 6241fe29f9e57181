//! DARTS-PT's selection against one that is written down here once more, on a space whose accuracy is a formula.

use super::game::{Formula, spec};
use super::spied::watched;
use super::steps::config;
use super::*;
use nasfw_framework::trainer::advance;
use rand::RngExt;

/// `[group][row][column]`.
type Left = Vec<Vec<Vec<bool>>>;

/// The supernet as the selection sees it: uniform weights on what is left, one on what is decided.
struct Reference {
    formula: Formula,
    left: Left,
    decided: Vec<Vec<bool>>,
}

impl Reference {
    fn value(&self, left: &Left) -> f64 {
        let mut x = vec![];
        for (g, r, row) in spec().rows() {
            let n = row.candidates.len();
            let weight = if self.decided[g][r] {
                1.0
            } else {
                1.0 / n as f64
            };
            x.extend((0..n).map(|c| if left[g][r][c] { weight } else { 0.0 }));
        }
        self.formula.value(&x)
    }

    fn without(&self, g: usize, rows: &[(usize, Option<usize>)]) -> f64 {
        let mut left = self.left.clone();
        for (r, c) in rows {
            match c {
                Some(c) => left[g][*r][*c] = false,
                None => left[g][*r].fill(false),
            }
        }
        self.value(&left)
    }

    /// The row keeps the candidate without which the value is least.
    fn row(&mut self, g: usize, r: usize) {
        let least = [1, 2].map(|c| (self.without(g, &[(r, Some(c))]), c));
        let kept = if least[0].0 <= least[1].0 { 1 } else { 2 };
        self.left[g][r] = (0..3).map(|c| c == kept).collect();
        self.decided[g][r] = true;
    }

    /// One after the other goes, the one without which the value is largest.
    fn eliminate(
        &self,
        g: usize,
        mut things: Vec<(usize, Option<usize>)>,
        keep: usize,
    ) -> Vec<(usize, Option<usize>)> {
        let mut gone = vec![];
        while things.len() > keep {
            let value = |t: &(usize, Option<usize>)| self.without(g, &[&gone[..], &[*t]].concat());
            let best = things
                .iter()
                .copied()
                .max_by(|a, b| value(a).total_cmp(&value(b)));
            gone.extend(best);
            things.retain(|t| Some(*t) != best);
        }
        things
    }
}

/// What is to be decided in the second part, by group: nodes by their edges, and rows of sources.
const NODE: [usize; 3] = [2, 3, 4];
const SOURCES: [(usize, usize, usize); 2] = [(0, 4, 2), (1, 3, 1)];

/// The whole selection, with the draws of a search whose epochs end after so many steps.
fn by_hand(number: u64, rounds_at: &[(u64, usize)]) -> Reference {
    let rows = |g: usize| spec().groups()[g].rows.len();
    let mut reference = Reference {
        formula: Formula::new(number),
        left: spec()
            .groups()
            .iter()
            .map(|g| {
                g.rows
                    .iter()
                    .map(|r| vec![true; r.candidates.len()])
                    .collect()
            })
            .collect(),
        decided: (0..3).map(|g| vec![false; rows(g)]).collect(),
    };
    let (mut open, mut nodes) = (
        [(0..5).collect::<Vec<usize>>(), (0..5).collect()],
        [true; 2],
    );
    let mut sources: Vec<usize> = vec![0, 1];
    for (step, rounds) in rounds_at {
        let mut rng = Streams::new(0).child("strategy", 0).at("selection", *step);
        for _ in 0..*rounds {
            if !open[0].is_empty() {
                for (g, open) in open.iter_mut().enumerate() {
                    let drawn = open.remove(rng.random_range(0..open.len()));
                    reference.row(g, drawn);
                }
                continue;
            }
            for (g, node) in nodes.iter_mut().enumerate().filter(|(_, node)| **node) {
                let _: usize = rng.random_range(0..1);
                let kept = reference.eliminate(g, NODE.map(|r| (r, None)).to_vec(), 2);
                for r in NODE.into_iter().filter(|r| !kept.contains(&(*r, None))) {
                    reference.left[g][r].fill(false);
                }
                *node = false;
            }
            if !sources.is_empty() {
                let (r, n, keep) = SOURCES[sources.remove(rng.random_range(0..sources.len()))];
                let things = (0..n).map(|c| (r, Some(c))).collect();
                let kept = reference.eliminate(2, things, keep);
                reference.left[2][r] = (0..n).map(|c| kept.contains(&(r, Some(c)))).collect();
                reference.decided[2][r] = true;
            }
        }
    }
    reference
}

/// The space's own set of images makes steps of four of eight.
const PER_EPOCH: u64 = 3;

#[test]
fn every_decision_is_the_best_of_explicit_evaluations() {
    // Five rounds of rows and two of nodes and sources, from the end of epoch 2 of 8 on: one at once, and six by the end.
    let at = |epoch: u64, rounds| (epoch * PER_EPOCH, rounds);
    let schedule: Vec<_> = [(2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1), (8, 1)]
        .map(|(epoch, rounds)| at(epoch, rounds))
        .into();
    for number in 1..6 {
        for criterion in ["accuracy", "loss"] {
            let (number_is, criterion) = (
                format!("space.number={number}"),
                format!("strategy.criterion={criterion}"),
            );
            let seen = watched(&[
                "strategy.name=darts-pt",
                "strategy.training=uniform",
                "strategy.selection=0.75",
                "space.name=game",
                "trainer.epochs=8",
                "trainer.architecture_every=0",
                "trainer.weights.weight_decay=0.0",
                &number_is,
                &criterion,
            ]);
            assert_eq!(seen.outcome.steps, 8 * PER_EPOCH);
            let expected = by_hand(number, &schedule);
            for (g, r, row) in spec().rows() {
                let kept: Vec<usize> = (0..row.candidates.len())
                    .filter(|c| expected.left[g][r][*c])
                    .collect();
                assert_eq!(
                    seen.outcome.choice.kept(g, r),
                    kept,
                    "{number} {criterion}: group {g}, row {r}"
                );
            }
        }
    }
}

/// Everything is decided at the end, whatever the number of epochs, and without tuning where there are none.
#[test]
fn short_searches_decide_everything_at_their_end() {
    let expected = by_hand(3, &[(2 * PER_EPOCH, 7)]);
    let seen = watched(&[
        "strategy.name=darts-pt",
        "strategy.training=uniform",
        "strategy.selection=0.0",
        "space.name=game",
        "space.number=3",
        "trainer.epochs=2",
        "trainer.weights.weight_decay=0.0",
    ]);
    for (g, r, row) in spec().rows() {
        let kept: Vec<usize> = (0..row.candidates.len())
            .filter(|c| expected.left[g][r][*c])
            .collect();
        assert_eq!(seen.outcome.choice.kept(g, r), kept);
    }
}

/// The base trains until the selection begins; then the logits rest, the weights go on at a tenth of their rate, and only what
/// is left of a decided row is computed.
#[test]
fn the_selection_tunes_the_weights_alone() {
    let set = [
        "space.name=toy-conv",
        "trainer.epochs=4",
        "trainer.weights.lr=0.1",
        "trainer.weights.lr_min=0.0",
        "strategy.name=darts-pt",
        "strategy.selection=0.5",
        "strategy.base.arch.lr=0.05",
    ];
    let set = config(&set);
    let (mut search, mut strategy) = set.trainer.start(&set).unwrap();
    let per_epoch = search.steps_per_epoch();
    let mut logits = vec![];
    for step in 0..4 * per_epoch {
        let epoch = step / per_epoch;
        if step % per_epoch == 0 && epoch > 0 {
            // Cosines over two epochs, the second at a tenth.
            let rate = [0.1, 0.05, 0.01, 0.005][epoch as usize];
            assert!(
                (search.theta_lr() - rate).abs() < 1e-12,
                "{} in epoch {epoch}",
                search.theta_lr()
            );
        }
        let before = search.theta().detach().copy();
        advance(&mut search, strategy.as_mut()).unwrap();
        assert!(!search.theta().equal(&before));
        logits.push(search.phi().detach().copy());
    }
    let at = |epoch: u64| &logits[(epoch * per_epoch - 1) as usize];
    assert!(!at(1).equal(at(2)));
    assert!(at(2).equal(at(3)) && at(3).equal(at(4)));
}
