//! RANK-NOSH's rounds: in a table of three lengths of training, look-up by look-up against a simulation by hand; and trained,
//! stretch by stretch.

use std::cell::RefCell;
use std::collections::BTreeMap;

use nasfw_framework::register;
use serde::{Deserialize, Serialize};

use super::spied::{Watched, watched};
use super::*;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TableConfig {}

register! {
    benchmark "spied-table" => TableConfig,
    summary: "made-up accuracies after 1, 3 and 9 epochs",
    source: "tests",
    defaults: "[benchmark]\n",
    example: "nasfw run --strategy random --space spied",
    spaces: &["spied"],
}

#[typetag::serde(name = "spied-table")]
impl BenchmarkConfig for TableConfig {
    fn open(&self, _space: &Value) -> Result<Option<Box<dyn Benchmark>>> {
        Ok(Some(Box::new(Table(BTreeMap::from([(
            "valid".into(),
            1.0,
        )])))))
    }
}

struct Table(BTreeMap<String, f64>);

thread_local! {
    static ASKED: RefCell<Vec<Genotype>> = const { RefCell::new(vec![]) };
}

/// Accuracies after 1, 3 and 9 epochs.
fn accuracies(genotype: &Genotype) -> [f64; 3] {
    use rand::RngExt;
    let rng = &mut Streams::new(5).at(&format!("{genotype:?}"), 0);
    [(); 3].map(|()| rng.random())
}

impl Benchmark for Table {
    fn query(&self, genotype: &Genotype) -> Result<Option<Score>> {
        ASKED.with_borrow_mut(|asked| asked.push(genotype.clone()));
        let names = ["valid@1", "valid@3", "valid"].map(String::from);
        Ok(Some(Score {
            metrics: names
                .clone()
                .into_iter()
                .zip(accuracies(genotype))
                .collect(),
            costs: names.into_iter().zip([10.0, 30.0, 90.0]).collect(),
            ..Score::default()
        }))
    }
    fn optimum(&self) -> &BTreeMap<String, f64> {
        &self.0
    }
    fn provenance(&self) -> Provenance {
        Provenance {
            source: "made-up numbers".into(),
            checksum: None,
            optimum: "1".into(),
        }
    }
    fn epochs(&self) -> Option<u64> {
        Some(9)
    }
}

const SMALL: [&str; 9] = [
    "strategy.name=rank-nosh",
    "space.name=spied",
    "space.of=nasbench201",
    "trainer.architecture_every=0",
    "strategy.promoted=0.5",
    "strategy.candidates=12",
    "strategy.predictor.hidden=4",
    "strategy.predictor.layers=1",
    "strategy.predictor.steps=3",
];

#[test]
fn the_pyramid_grows_as_by_hand() {
    let more = [
        "strategy.score=benchmark",
        "strategy.levels=[]",
        "strategy.proposals=6",
        "strategy.pool=24",
        "trainer.epochs=1",
        "trainer.log_every=1",
        "trainer.budget.unit=simulated",
        "trainer.budget.amount=100000",
    ];
    ASKED.with_borrow_mut(Vec::clear);
    let Watched { outcome, .. } = watched(&[&SMALL[..], &more[..]].concat());
    let asked = ASKED.with_borrow_mut(std::mem::take);
    // The report before the search and the question after the table's lengths are of the architecture that comes first.
    let before = asked.iter().take_while(|g| **g == asked[0]).count() - 1;
    let mut looked = asked[before..].iter();
    // By hand: level, accuracy and architecture.
    let mut pool: Vec<(usize, f64, Genotype)> = vec![];
    let mut seconds = 0.0;
    for round in 0..4 {
        for _ in 0..6 {
            let genotype = looked.next().unwrap();
            assert!(pool.iter().all(|m| m.2 != *genotype), "round {round}");
            pool.push((0, accuracies(genotype)[0], genotype.clone()));
            seconds += 10.0;
        }
        // Three of level 1, then two of level 2 (1.5, rounded).
        for (level, n, cost) in [(0, 3, 20.0), (1, 2, 60.0)] {
            let mut of_level: Vec<usize> =
                (0..pool.len()).filter(|&i| pool[i].0 == level).collect();
            of_level.sort_by(|&a, &b| pool[b].1.total_cmp(&pool[a].1));
            for &i in of_level.iter().take(n) {
                assert_eq!(
                    looked.next(),
                    Some(&pool[i].2),
                    "round {round}, level {level}"
                );
                pool[i] = (
                    level + 1,
                    accuracies(&pool[i].2)[level + 1],
                    pool[i].2.clone(),
                );
                seconds += cost;
            }
        }
    }
    let top = pool.iter().filter(|m| m.0 == 2);
    let best = top.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert_eq!(outcome.genotype, best.2);
    assert_eq!(outcome.reason, "there is nothing more to try");
    // Each stretch was paid once.
    assert_eq!(outcome.curve.last().unwrap().simulated, Some(seconds));
}

/// Trained, an architecture's stretches are whole epochs: as many batches as its level says.
#[test]
fn trainings_are_as_long_as_their_levels() {
    let more = [
        "strategy.levels=[1,3]",
        "strategy.proposals=4",
        "strategy.pool=4",
        "trainer.epochs=20",
        "benchmark.name=none",
    ];
    let Watched { outcome, seen, .. } = watched(&[&SMALL[..], &more[..]].concat());
    // Eight epochs of trainings, and none after them.
    let per_epoch = outcome.steps / 8;
    assert_eq!(outcome.steps, 8 * per_epoch);
    assert_eq!(
        outcome.steps,
        seen.iter().filter(|s| s.training).count() as u64
    );
    let mut trained: Vec<(Vec<Vec<Vec<f64>>>, u64)> = vec![];
    for s in seen.iter().filter(|s| s.training) {
        match trained.last_mut() {
            Some((weights, n)) if *weights == s.weights => *n += 1,
            _ => trained.push((s.weights.clone(), 1)),
        }
    }
    // Four of one epoch, then the two best of them for two more.
    let lengths: Vec<u64> = trained.iter().map(|t| t.1).collect();
    assert_eq!(lengths, [1, 1, 1, 1, 2, 2].map(|n| n * per_epoch));
    assert!(
        trained[4..]
            .iter()
            .all(|again| trained[..4].iter().any(|t| t.0 == again.0))
    );
    assert_eq!(outcome.reason, "there is nothing more to try");
}
