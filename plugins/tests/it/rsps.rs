//! Random search with parameter sharing: what it trains, and what it selects.

use std::collections::BTreeMap;

use nasfw_spaces::toy::planted::{Landscape, Planted};

use super::spied::{Watched, space, watched};
use super::*;

#[test]
fn every_step_trains_one_path_of_a_uniform_architecture() {
    let Watched { seen, outcome, .. } = watched(&[
        "strategy.name=rsps",
        "space.name=spied",
        "space.of=nasbench201",
        "trainer.epochs=300",
        "trainer.architecture_every=0",
        "strategy.samples=7",
    ]);
    let trained: Vec<_> = seen.iter().filter(|s| s.training).collect();
    assert_eq!(trained.len() as u64, outcome.steps);
    let mut counts: BTreeMap<(usize, usize), u32> = BTreeMap::new();
    for arch in &trained {
        let active = arch.active.as_ref().unwrap();
        for (r, (weights, active)) in arch.weights[0].iter().zip(&active[0]).enumerate() {
            let on: Vec<usize> = (0..5).filter(|&c| active[c]).collect();
            assert_eq!(on.len(), 1);
            assert!((0..5).all(|c| weights[c] == f64::from(active[c])));
            *counts.entry((r, on[0])).or_default() += 1;
        }
    }
    // 900 steps: 180 of each candidate, standard deviation 12.
    assert_eq!((trained.len(), counts.len()), (900, 30));
    assert!(
        counts.values().all(|n| (130..230).contains(n)),
        "{counts:?}"
    );
    // Nothing was evaluated but seven architectures on one batch each, at the end.
    assert_eq!(seen.len() - trained.len(), 7);
    assert!(seen[900..].iter().all(|s| !s.training));
}

/// In `toy-planted` the accuracy of an architecture is its value, whatever the weights.
fn selected(more: &[&str], samples: usize, steps: u64) -> (f64, f64) {
    let set = [
        "strategy.name=rsps",
        "space.name=toy-planted",
        "space.rows=6",
        "trainer.architecture_every=0",
    ];
    let outcome = watched(&[&set[..], more].concat()).outcome;
    assert_eq!(outcome.steps, steps);
    let landscape = Landscape::new(&Planted {
        rows: 6,
        candidates: 4,
        coupling: 0.3,
        landscape: 0,
    });
    // The stream of the strategy's draws at the step after the last.
    let mut rng = Streams::new(0).child("strategy", 0).at("selection", steps);
    let space = {
        let registry = Registry::load().unwrap();
        let plugin = registry.get(Plugins::Space, "toy-planted").unwrap();
        let mut section = plugin.default_section().unwrap();
        section["rows"] = 6.into();
        let nasfw_framework::registry::Parse::Space(parse) = plugin.parse else {
            panic!("kind")
        };
        parse(&section).unwrap().build().unwrap()
    };
    let values = (0..samples).map(|_| landscape.value(&space.random(&mut rng)));
    (landscape.value(&outcome.choice), values.fold(0.0, f64::max))
}

#[test]
fn the_best_of_the_sample_is_selected() {
    let epochs = |n: u64| format!("trainer.epochs={n}");
    // Halves of 8 images in batches of 4 make 2 steps an epoch.
    let per_epoch = watched(&[
        "strategy.name=rsps",
        "space.name=toy-planted",
        "trainer.epochs=1",
    ])
    .outcome
    .steps;
    for samples in [1, 30] {
        let set = format!("strategy.samples={samples}");
        for more in [
            &[][..],
            &["strategy.finalists=3"],
            &["strategy.select_every=1"],
        ] {
            let two = epochs(2);
            let more = [&[set.as_str(), two.as_str()][..], more].concat();
            let (found, best) = selected(&more, samples, 2 * per_epoch);
            assert!((found - best).abs() < 1e-12, "{more:?}: {found} {best}");
        }
    }
    // A budget that ends within an epoch leads to a selection, too.
    let budget = ["trainer.budget.unit=steps", "trainer.budget.amount=3"];
    let (found, best) = selected(&[&["strategy.samples=30"], &budget[..]].concat(), 30, 3);
    assert!((found - best).abs() < 1e-12, "{found} {best}");
    assert_eq!(space("toy-planted").spec().rows().count(), 4);
}
