//! SETN: the most probable architectures against all of them, what is trained, and what is selected.

use std::collections::BTreeSet;

use nasfw_plugins::setn::MostProbable;
use nasfw_spaces::toy::planted::{Landscape, Planted};
use proptest::prelude::*;

use super::spied::{Watched, space, watched};
use super::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    /// Every choice comes once, the most probable first, with the probability that the distribution gives it.
    #[test]
    fn choices_come_in_the_order_of_their_probability(
        rows in prop::collection::vec((1usize..5, 0usize..3), 1..4),
        even in any::<bool>(),
        seed in 0u64..1000,
    ) {
        let rows: Vec<(usize, usize)> = rows.iter().map(|&(n, k)| (n, 1 + k % n)).collect();
        let spec = spec(vec![
            group("a", Role::Operations, &rows),
            group("b", Role::Topology, &[(3, 2)]),
        ]);
        let softmax = IndependentSoftmax::new(&spec, if even { 0.0 } else { 1.5 });
        let phi = softmax.init(Streams::new(seed), Kind::Double, Device::Cpu);
        let p = spec.to_marginals(&softmax.mean(&phi).unwrap());
        let found: Vec<(Choice, f64)> = MostProbable::new(&spec, &p).collect();
        let mut all: Vec<f64> = spec.enumerate().map(|c| log_prob(&softmax, &phi, &c)).collect();
        all.sort_by(|a, b| b.total_cmp(a));
        prop_assert_eq!(found.len(), all.len());
        let different: BTreeSet<&Choice> = found.iter().map(|(choice, _)| choice).collect();
        prop_assert_eq!(different.len(), all.len());
        for ((choice, log_p), best) in found.iter().zip(&all) {
            choice.check_complete(&spec).unwrap();
            prop_assert!((log_p - best).abs() < 1e-9, "{log_p} {best}");
            prop_assert!((log_p - log_prob(&softmax, &phi, choice)).abs() < 1e-9);
        }
    }
}

/// The few most probable of very many.
#[test]
fn the_first_of_many_come_at_once() {
    let spec = space("darts").spec().clone();
    assert!(spec.size() > 1e24);
    let softmax = IndependentSoftmax::new(&spec, 1.0);
    let phi = softmax.init(Streams::new(1), Kind::Double, Device::Cpu);
    let p = spec.to_marginals(&softmax.mean(&phi).unwrap());
    let found: Vec<(Choice, f64)> = MostProbable::new(&spec, &p).take(300).collect();
    assert_eq!(found[0].0, spec.top(&p));
    assert!(found.windows(2).all(|w| w[0].1 >= w[1].1));
}

/// Weights at single paths, uniformly; the architecture at the network of all; then the selection, each on one batch.
#[test]
fn weights_see_single_paths_and_the_architecture_all_of_them() {
    let Watched { seen, outcome, .. } = watched(&[
        "strategy.name=setn",
        "space.name=spied",
        "space.of=nasbench201",
        "trainer.epochs=100",
        "trainer.architecture_every=0",
        "strategy.samples=7",
    ]);
    let trained: Vec<_> = seen.iter().filter(|s| s.training).collect();
    assert_eq!(trained.len() as u64, 2 * outcome.steps);
    let mut counts = [[0u32; 5]; 6];
    for (i, arch) in trained.iter().enumerate() {
        for (r, row) in arch.weights[0].iter().enumerate() {
            match &arch.active {
                Some(active) if i % 2 == 0 => {
                    let on: Vec<usize> = (0..5).filter(|&c| active[0][r][c]).collect();
                    assert_eq!(on.len(), 1);
                    counts[r][on[0]] += 1;
                }
                None => {
                    assert!(i % 2 == 1 && row.iter().all(|w| *w > 0.0));
                    assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12);
                }
                _ => panic!("pass {i} is of the other kind"),
            }
        }
    }
    // 300 steps: 60 of each candidate, standard deviation 7.
    assert!(
        counts.iter().flatten().all(|n| (25..95).contains(n)),
        "{counts:?}"
    );
    let scored: Vec<_> = seen.iter().filter(|s| !s.training).collect();
    assert_eq!(scored.len(), 7);
    assert!(scored.iter().all(|s| s.active.is_some()));
}

/// In `toy-planted` the accuracy of an architecture is its value, whatever the weights.
#[test]
fn the_best_of_the_most_probable_is_selected() {
    let landscape = Landscape::new(&Planted {
        rows: 4,
        candidates: 4,
        coupling: 0.3,
        landscape: 0,
    });
    let mut values = vec![];
    for samples in [1, 40, 1000] {
        let samples = format!("strategy.samples={samples}");
        let set = [
            "strategy.name=setn",
            "space.name=toy-planted",
            "trainer.epochs=2",
            "strategy.init_std=1.0",
            &samples,
        ];
        let (mut search, mut strategy) = super::spied::begun(&set, 0.0);
        let total = 2 * search.steps_per_epoch();
        for _ in 0..total {
            super::spied::stepped(&mut search, &mut *strategy);
        }
        let spec = search.space().spec().clone();
        let p = spec.to_marginals(&of(&*strategy).mean(&search.phi()).unwrap());
        let mut all: Vec<(f64, Choice)> = spec
            .enumerate()
            .map(|c| (super::log_prob(of(&*strategy), &search.phi(), &c), c))
            .collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        let n: usize = samples.split('=').nth(1).unwrap().parse().unwrap();
        let best = all.iter().take(n).map(|(_, c)| landscape.value(c));
        let best = best.fold(0.0, f64::max);
        let found = strategy.derive(&search).unwrap();
        assert!((landscape.value(&found) - best).abs() < 1e-9, "{samples}");
        assert!((strategy.metrics()["supernet-accuracy"] - best).abs() < 1e-6);
        assert_eq!(spec.top(&p), all[0].1);
        values.push(best);
    }
    // All 256 of them are the last sample.
    assert!(
        values[0] < values[1] && values[1] < 1.0 && values[2] == 1.0,
        "{values:?}"
    );
}

/// Where edges compete, what is scored are different architectures that the space derives.
#[test]
fn where_edges_compete_derived_architectures_are_scored() {
    let Watched { seen, outcome, .. } = watched(&[
        "strategy.name=setn",
        "space.name=spied",
        "space.of=darts",
        "trainer.epochs=1",
        "strategy.samples=6",
        "strategy.init_std=1.0",
    ]);
    let scored: Vec<String> = (seen.iter().filter(|s| !s.training))
        .map(|s| format!("{:?}", s.weights))
        .collect();
    let different: BTreeSet<&String> = scored.iter().collect();
    assert_eq!((scored.len(), different.len()), (6, 6));
    let cells = outcome.choice.groups();
    assert!(
        cells.iter().all(|rows| rows.iter().flatten().count() == 8),
        "{cells:?}"
    );
}
