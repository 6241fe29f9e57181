//! SGAS: what it decides, when, and what is computed then.

use nasfw_framework::events::Event;

use super::spied::{Seen, Watched, space, watched};
use super::*;

fn sgas(more: &[&str]) -> Watched {
    let set = [
        "strategy.name=sgas",
        "space.name=spied",
        "trainer.architecture_every=0",
        "strategy.arch.lr=0.05",
    ];
    watched(&[&set[..], more].concat())
}

/// Rows of a group by what an architecture computes of them: open, decided, pruned.
fn rows(seen: &Seen, group: usize) -> (usize, usize, usize) {
    let weights = &seen.weights[group];
    let Some(active) = &seen.active else {
        return (weights.len(), 0, 0);
    };
    let mut counts = (0, 0, 0);
    for (weights, active) in weights.iter().zip(&active[group]) {
        let on = active.iter().filter(|a| **a).count();
        // What is not computed has no weight.
        assert!(weights.iter().zip(active).all(|(w, a)| *a || *w == 0.0));
        match on {
            0 => counts.2 += 1,
            1 => {
                assert!(weights.contains(&1.0));
                counts.1 += 1;
            }
            _ => {
                assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-9);
                counts.0 += 1;
            }
        }
    }
    counts
}

/// Sizes of batches that were asked for.
fn batches(events: &[Event]) -> Vec<String> {
    let asked = events.iter().filter_map(|e| match e {
        Event::Control { epoch, what } => Some(format!("{epoch}: {what}")),
        _ => None,
    });
    asked.collect()
}

#[test]
fn two_edges_a_node_are_decided_by_the_published_schedule() {
    for criterion in ["1", "2"] {
        let set = format!("strategy.criterion={criterion}");
        let Watched {
            outcome,
            events,
            seen,
        } = sgas(&[&set, "trainer.epochs=50"]);
        let darts = space("darts");
        for (g, group) in darts.spec().groups().iter().enumerate() {
            for node in group.nodes() {
                let kept: Vec<_> = node
                    .iter()
                    .flat_map(|&r| outcome.choice.kept(g, r))
                    .collect();
                assert_eq!(kept.len(), 2);
                let none = group.rows[0].column("none").unwrap();
                assert!(kept.iter().all(|c| **c != none));
            }
        }
        // After epochs 10, 15, … 45 an edge of each cell is decided.
        let asked = batches(&events);
        let expected: Vec<String> = (0..8)
            .map(|i| {
                let changes = Changes {
                    batch_size: Some(4 + 8 * (i + 1)),
                    weight_decay: None,
                };
                format!("{}: set {changes:?}", 10 + 5 * i)
            })
            .collect();
        assert_eq!(asked, expected);
        // Before the first decision all is open, after the last nothing is.
        assert_eq!(rows(&seen[0], 0), (14, 0, 0));
        for g in 0..2 {
            assert_eq!(rows(&seen[seen.len() - 1], g), (0, 8, 6));
            let mut decided: Vec<usize> = seen.iter().map(|s| rows(s, g).1).collect();
            assert!(decided.is_sorted());
            decided.dedup();
            assert_eq!(decided, (0..=8).collect::<Vec<_>>());
        }
        // What is computed at the end is what is found.
        let last = seen[seen.len() - 1].active.as_ref().unwrap();
        for (g, r, row) in darts.spec().rows() {
            let on = (0..row.candidates.len()).filter(|&c| last[g][r][c]);
            assert!(on.eq(outcome.choice.kept(g, r).iter().copied()));
        }
    }
}

#[test]
fn short_searches_decide_everything_too() {
    for (of, more, decisions) in [
        ("darts", ["trainer.epochs=3", "strategy.warmup=9"], 8),
        (
            "darts",
            ["trainer.budget.unit=steps", "trainer.budget.amount=20"],
            8,
        ),
        ("nasbench201", ["trainer.epochs=4", "strategy.every=2"], 6),
    ] {
        let set = format!("space.of={of}");
        let Watched {
            outcome, events, ..
        } = sgas(&[&[set.as_str()], &more[..]].concat());
        let kept = outcome.choice.groups()[0].iter().filter(|k| !k.is_empty());
        assert_eq!(kept.count(), decisions);
        // The distribution is one-hot, or nothing, in every row.
        let marginals = outcome.marginals.unwrap();
        let whole = |p: &f64| *p == 0.0 || *p == 1.0;
        assert!(marginals.iter().flatten().flatten().all(whole), "{of}");
        assert!(!batches(&events).is_empty());
    }
}

/// Decided logits stay bit by bit as they were, though Adam's moments and decay go on.
#[test]
fn decided_logits_are_frozen() {
    let set = [
        "strategy.name=sgas",
        "space.name=spied",
        "device=cpu",
        "threads=1",
        "precision=double",
        "trainer.epochs=50",
        "strategy.warmup=1",
        "strategy.every=1",
        "strategy.batch_increase=0",
    ];
    let config = config_of(&set);
    let (mut search, mut strategy) = config.trainer.start(&config).unwrap();
    let spec = search.space().spec().clone();
    let mut before: Option<(Tensor, Vec<Tensor>)> = None;
    while search.epoch() < 6 {
        nasfw_framework::trainer::advance(&mut search, strategy.as_mut()).unwrap();
        let phi = search.phi().detach().copy();
        let mean = of(&*strategy).mean(&phi).unwrap();
        if let Some((old, decided)) = before {
            let (was, is) = (spec.split(&old), spec.split(&phi));
            for (g, r, _) in spec.rows() {
                let row = |m: &[Tensor]| m[g].get(r as i64);
                // Decided: all of its weights are 0 or 1.
                let fixed = row(&decided)
                    .eq(0.0)
                    .logical_or(&row(&decided).eq(1.0))
                    .all()
                    .int64_value(&[])
                    == 1;
                assert_eq!(row(&was).equal(&row(&is)), fixed, "group {g} row {r}");
            }
        }
        before = Some((phi, mean));
    }
    let (_, mean) = before.unwrap();
    let decided = mean[0].eq(1.0).sum(Kind::Int64).int64_value(&[]);
    assert_eq!(decided, 5);
    // No gradient reaches what is decided; all else has one.
    let phi = search.phi();
    let sample = of(&*strategy).sample(&phi, &mut search.rng("x")).unwrap();
    let sum: Tensor = sample
        .weights
        .iter()
        .map(|w| (w * Tensor::rand_like(w)).sum(Kind::Double))
        .fold(Tensor::zeros([], (Kind::Double, Device::Cpu)), |a, b| a + b);
    let gradient = search.gradients(&sum, &[&phi]).unwrap().remove(0);
    for (g, r, _) in spec.rows() {
        let row = |m: &Tensor| m.get(r as i64);
        let total = row(&mean[g]).max().double_value(&[]);
        let norm = row(&spec.split(&gradient)[g]).norm().double_value(&[]);
        assert_eq!(
            norm == 0.0,
            total == 0.0 || total == 1.0,
            "group {g} row {r}"
        );
    }
}
