//! Strategies whose architecture is a sparse vector: what is computed in each half of a step, what is gone for good, and that
//! what is found is what is left.

use super::spied::{Seen, Watched, space, watched};
use super::*;

fn search(more: &[&str]) -> Watched {
    let set = ["space.name=spied", "trainer.architecture_every=0"];
    watched(&[&set[..], more].concat())
}

type Table = Vec<Vec<Vec<bool>>>;

fn active(seen: &Seen) -> &Table {
    seen.active.as_ref().unwrap()
}

/// Where an architecture weighs something.
fn weighs(seen: &Seen) -> Table {
    let row = |row: &Vec<f64>| row.iter().map(|w| *w != 0.0).collect();
    let rows = |rows: &Vec<Vec<f64>>| rows.iter().map(row).collect();
    seen.weights.iter().map(rows).collect()
}

/// All candidates but `none`.
fn real(of: &str) -> Table {
    let space = space(of);
    let groups = space.spec().groups().iter();
    let row = |row: &Row| row.candidates.iter().map(|c| c != "none").collect();
    groups.map(|g| g.rows.iter().map(row).collect()).collect()
}

fn within(inner: &Table, outer: &Table) -> bool {
    let flat = |t: &Table| t.concat().concat();
    flat(inner).iter().zip(flat(outer)).all(|(i, o)| !i || o)
}

fn kept(choice: &Choice, of: &str) -> Table {
    let space = space(of);
    let mut table: Table = (space.spec().groups().iter())
        .map(|g| vec![vec![false; g.width()]; g.rows.len()])
        .collect();
    for (g, r, _) in space.spec().rows() {
        choice
            .kept(g, r)
            .iter()
            .for_each(|&c| table[g][r][c] = true);
    }
    table
}

fn count(table: &Table) -> usize {
    table.concat().concat().iter().filter(|on| **on).count()
}

/// Weights first, at what weighs something; then the scales, at what is not pruned. It shrinks when an epoch of the period
/// ends, to what weighs something then, and never grows.
#[test]
fn dso_nas_prunes_for_good() {
    let Watched { outcome, seen, .. } = search(&[
        "strategy.name=dso-nas",
        "strategy.gamma=0.02",
        "strategy.init=0.1",
        "strategy.prune_every=2",
        "trainer.epochs=9",
    ]);
    let steps = seen.len() / 2;
    assert_eq!((seen.len(), steps as u64), (2 * steps, outcome.steps));
    let per_epoch = steps / 9;
    let (mut alive, mut sizes) = (real("darts"), vec![]);
    for (i, pair) in seen.chunks(2).enumerate() {
        let (weights, scales) = (&pair[0], &pair[1]);
        assert_eq!(active(weights), &weighs(weights), "step {i}");
        assert!(within(active(weights), &alive), "step {i}");
        if i > 0 && i % per_epoch == 0 && (i / per_epoch) % 2 == 0 {
            // What the weights' half computes is what was left at the end of the epoch.
            alive = active(weights).clone();
        }
        assert_eq!(active(scales), &alive, "step {i}");
        assert!(scales.weights.concat().concat().iter().all(|w| *w >= 0.0));
        sizes.push(count(&alive));
    }
    sizes.dedup();
    assert!(
        sizes.len() > 1 && sizes.is_sorted_by(|a, b| a > b),
        "{sizes:?}"
    );
    assert!(count(&kept(&outcome.choice, "darts")) > 0);
    assert!(within(&kept(&outcome.choice, "darts"), &alive));
}

/// The architecture's half computes all candidates, so that what is zero can come back; the weights' half what is not zero.
#[test]
fn sparse_nas_computes_what_weighs_something() {
    for set in [
        &["strategy.arch.lr=0.02"][..],
        &["strategy.preset=hapg", "strategy.arch.lr=0.1"],
    ] {
        let more = [
            "strategy.name=sparse-nas",
            "strategy.l1=0.05",
            "strategy.l2=0.02",
            "trainer.epochs=12",
        ];
        let Watched { outcome, seen, .. } = search(&[&more[..], set].concat());
        let mut back = 0;
        let mut sizes = vec![];
        for (i, pair) in seen.chunks(2).enumerate() {
            assert_eq!(active(&pair[0]), &real("darts"), "step {i}");
            assert_eq!(active(&pair[1]), &weighs(&pair[1]), "step {i}");
            let (before, after) = (weighs(&pair[0]), weighs(&pair[1]));
            back += usize::from(!within(&after, &before));
            sizes.push(count(&after));
        }
        let left = kept(&outcome.choice, "darts");
        assert_eq!(left, weighs(&seen[seen.len() - 1]));
        let all = count(&real("darts"));
        assert!(count(&left) > 0 && count(&left) < all, "{sizes:?}");
        assert!(back > 0, "nothing came back: {sizes:?}");
    }
}

/// Two pairs a node, the same within an epoch, and at the end those that the last vector stands for.
#[test]
fn ista_nas_computes_two_pairs_a_node() {
    let Watched { outcome, seen, .. } = search(&[
        "strategy.name=ista-nas",
        "strategy.arch.lr=0.05",
        "trainer.epochs=8",
    ]);
    let darts = space("darts");
    let per_epoch = seen.len() / 8;
    let mut supports = vec![];
    for (i, arch) in seen.iter().enumerate() {
        for (g, group) in darts.spec().groups().iter().enumerate() {
            for node in group.nodes() {
                let on: usize = (node.iter())
                    .map(|&r| active(arch)[g][r].iter().filter(|on| **on).count())
                    .sum();
                assert_eq!(on, 2);
            }
        }
        assert!(within(active(arch), &real("darts")));
        assert!(within(&weighs(arch), active(arch)));
        match i % per_epoch {
            0 => supports.push(active(arch).clone()),
            _ => assert_eq!(active(arch), &supports[supports.len() - 1], "pass {i}"),
        }
    }
    supports.dedup();
    assert!(supports.len() > 1, "no support ever changed");
    assert_eq!(count(&kept(&outcome.choice, "darts")), 2 * 4 * 2);
}

/// Where every row keeps its own, so does every row's code: one operation an edge or block, as many sources as the space says.
#[test]
fn codes_of_rows_keep_what_the_space_says() {
    for of in ["nasbench201", "nasbench1shot1-s3"] {
        let set = format!("space.of={of}");
        let Watched { outcome, seen, .. } =
            search(&["strategy.name=ista-nas", &set, "trainer.epochs=2"]);
        let spec = space(of).spec().clone();
        outcome.choice.check_complete(&spec).unwrap();
        for (g, r, row) in spec.rows() {
            let on = active(&seen[0])[g][r].iter().filter(|on| **on).count();
            assert_eq!(on, row.keep);
        }
    }
}

/// Every row's weights are alike on what was hit and sum to one; the weights' half computes nothing else.
#[test]
fn data_carries_what_any_draw_hit() {
    let Watched { outcome, seen, .. } =
        search(&["strategy.name=data", "strategy.draws=3", "trainer.epochs=3"]);
    let mut sizes = std::collections::BTreeSet::new();
    for pair in seen.chunks(2) {
        assert!(pair[0].active.is_none());
        assert_eq!(active(&pair[1]), &weighs(&pair[1]));
        for row in pair.iter().flat_map(|s| s.weights.concat()) {
            let on: Vec<f64> = row.into_iter().filter(|w| *w != 0.0).collect();
            assert!((1..=3).contains(&on.len()));
            assert!(on.iter().all(|w| (w - 1.0 / on.len() as f64).abs() < 1e-12));
            sizes.insert(on.len());
        }
    }
    assert_eq!(sizes.len(), 3);
    // At most M pairs a node.
    let darts = space("darts");
    for (g, group) in darts.spec().groups().iter().enumerate() {
        for node in group.nodes() {
            let kept: usize = node.iter().map(|&r| outcome.choice.kept(g, r).len()).sum();
            assert!(kept <= 3);
        }
    }
}

/// Switches rest at one in the first share of the search; then they move, and after every epoch the Hessian is taken once.
#[test]
fn bayesnas_trains_weights_first() {
    let Watched { outcome, seen, .. } = search(&[
        "strategy.name=bayesnas",
        "trainer.epochs=4",
        "strategy.warmup=0.5",
        "trainer.batch_size=4",
    ]);
    let per_epoch = outcome.steps as usize / 4;
    // A pass a step, and one more for each update of the last two epochs.
    assert_eq!(seen.len(), 4 * per_epoch + 2);
    for (i, arch) in seen.iter().enumerate() {
        let real = real("darts").concat().concat();
        let weights = arch.weights.concat().concat();
        let rest = weights
            .iter()
            .zip(real)
            .all(|(w, real)| *w == f64::from(u8::from(real)));
        assert_eq!(rest, i <= 2 * per_epoch, "pass {i}");
    }
    // The space's own rule: two edges a node.
    assert_eq!(count(&kept(&outcome.choice, "darts")), 2 * 4 * 2);
}
