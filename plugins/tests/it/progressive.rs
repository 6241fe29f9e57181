//! P-DARTS: its stages, what is left in each, and when the architecture moves.

use nasfw_framework::events::Event;

use super::spied::{Seen, Watched, space, watched};
use super::*;

fn p_darts(of: &str, epochs: u64) -> Watched {
    let (of, epochs) = (format!("space.of={of}"), format!("trainer.epochs={epochs}"));
    watched(&[
        "strategy.name=p-darts",
        "space.name=spied",
        "strategy.arch.lr=0.05",
        "trainer.batch_size=4",
        &of,
        &epochs,
    ])
}

/// Candidates that are computed in each row of a group.
fn counts(seen: &Seen, group: usize) -> Vec<usize> {
    let active = &seen.active.as_ref().unwrap()[group];
    active
        .iter()
        .map(|row| row.iter().filter(|on| **on).count())
        .collect()
}

/// 25 epochs a stage; candidates 8, 5, 3, the strongest of the stage before; 10 epochs of rest; one left in the end, two
/// edges a node, at most two skips, never `none`.
#[test]
fn three_stages_keep_eight_five_and_three_candidates() {
    let Watched {
        outcome,
        events,
        seen,
    } = p_darts("darts", 75);
    let asked: Vec<(u64, String)> = events
        .iter()
        .filter_map(|e| match e {
            Event::Control { epoch, what } => Some((*epoch, what.clone())),
            _ => None,
        })
        .collect();
    let expected = [(25, "rebuild, stage 1"), (50, "rebuild, stage 2")];
    assert_eq!(asked, expected.map(|(e, what)| (e, what.to_owned())));

    let training: Vec<&Seen> = seen.iter().filter(|s| s.training).collect();
    // A stage: three steps an epoch, one loss each for 10 epochs, two for 15.
    let stage = 10 * 3 + 15 * 3 * 2;
    assert_eq!(training.len(), 3 * stage);
    for (number, seen) in training.chunks(stage).enumerate() {
        for s in seen {
            for group in 0..2 {
                assert_eq!(counts(s, group), vec![[8, 5, 3][number]; 14]);
            }
        }
        let first = &seen[0].weights;
        assert!(seen[..31].iter().all(|s| s.weights == *first));
        assert!(seen[31..].iter().all(|s| s.weights != *first));
        // The logits started afresh: no candidate that is left stands out.
        let left = 1.0 / [8.0, 5.0, 3.0][number];
        let far = |w: &f64| (w - left).abs() > 0.01 && *w != 0.0;
        assert!(!first.iter().flatten().flatten().any(far));
        // Those that go on are the strongest at the stage's end.
        let last = &seen[stage - 1].weights;
        if let Some(next) = training.get((number + 1) * stage) {
            let next = next.active.as_ref().unwrap();
            for (row, on) in last.iter().flatten().zip(next.iter().flatten()) {
                let weakest = (0..8)
                    .filter(|c| on[*c])
                    .map(|c| row[c])
                    .fold(1.0, f64::min);
                assert!((0..8).filter(|c| !on[*c]).all(|c| row[c] <= weakest));
            }
        }
    }
    let darts = space("darts");
    let group = &darts.spec().groups()[0];
    let left = training[3 * stage - 1].active.as_ref().unwrap();
    let mut skips = 0;
    for node in group.nodes() {
        let kept: Vec<(usize, usize)> = node
            .iter()
            .flat_map(|&r| outcome.choice.kept(0, r).iter().map(move |c| (r, *c)))
            .collect();
        assert_eq!(kept.len(), 2);
        for (r, c) in kept {
            assert!(left[0][r][c]);
            assert_ne!(group.rows[r].candidates[c], "none");
            skips += usize::from(group.rows[r].candidates[c] == "skip_connect");
        }
    }
    assert!(skips <= 2);
}

/// Rows with fewer candidates keep as large a share, but two at least; topology keeps all.
#[test]
fn other_spaces_shrink_in_proportion() {
    for (of, expected) in [
        ("nasbench201", vec![[5, 3, 2]]),
        ("robust-s2", vec![[2, 2, 2]; 2]),
        ("nasbench1shot1-s1", vec![[3, 2, 2]]),
    ] {
        let Watched { seen, outcome, .. } = p_darts(of, 6);
        let training: Vec<&Seen> = seen.iter().filter(|s| s.training).collect();
        let spec = space(of).spec().clone();
        for (group, expected) in expected.iter().enumerate() {
            let mut stages: Vec<usize> = training
                .iter()
                .flat_map(|s| {
                    let counts = counts(s, group);
                    assert!(counts.windows(2).all(|c| c[0] == c[1]), "{of}");
                    counts.into_iter().take(1)
                })
                .collect();
            stages.dedup();
            let mut wanted = expected.to_vec();
            wanted.dedup();
            assert_eq!(stages, wanted, "{of}");
        }
        for (g, group) in spec.groups().iter().enumerate() {
            if group.role == Role::Topology {
                let all: Vec<usize> = group.rows.iter().map(|r| r.candidates.len()).collect();
                assert!(training.iter().all(|s| counts(s, g) == all), "{of}");
            }
            for (r, row) in group.rows.iter().enumerate() {
                let none = |c: &usize| row.candidates[*c] == "none";
                assert!(!outcome.choice.kept(g, r).iter().any(none), "{of}");
            }
        }
    }
}

/// Fewer epochs than stages: the stages that there is no epoch for are left out.
#[test]
fn short_searches_end_too() {
    for epochs in 1..5 {
        let Watched { outcome, .. } = p_darts("nasbench201", epochs);
        assert_eq!(outcome.epochs, epochs);
    }
}
