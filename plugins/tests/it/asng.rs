//! ASNG's update against Fisher's metric in dense matrices and the published equations in a plain loop.

use nasfw_plugins::asng::{State, floor, project, update, utilities};
use proptest::prelude::*;

use super::distribution::assert_close;
use super::spied::{begun, stepped};
use super::*;

#[test]
fn utilities_are_by_ranks_and_ties_share_theirs() {
    for (losses, expected) in [
        (vec![0.3, 0.1], vec![-1.0, 1.0]),
        (vec![0.2, 0.2], vec![0.0, 0.0]),
        (vec![3.0, 1.0, 2.0], vec![-1.0, 1.0, 0.0]),
        (vec![1.0, 1.0, 2.0, 3.0], vec![0.5, 0.5, 0.0, -1.0]),
        (
            vec![1.0, 2.0, 2.0, 2.0],
            vec![1.0, -1.0 / 3.0, -1.0 / 3.0, -1.0 / 3.0],
        ),
        (
            vec![5.0, 4.0, 3.0, 2.0, 1.0],
            vec![-0.5, -0.5, 0.0, 0.5, 0.5],
        ),
        (vec![7.0; 5], vec![0.0; 5]),
    ] {
        assert_close(
            &utilities(&losses),
            &expected,
            1e-15,
            &format!("{losses:?}"),
        );
    }
}

/// Probabilities that are at least `floor`.
fn probabilities(weights: &[f64], floor: f64) -> Vec<f64> {
    let (sum, n) = (weights.iter().sum::<f64>(), weights.len() as f64);
    weights
        .iter()
        .map(|w| floor + w / sum * (1.0 - n * floor))
        .collect()
}

/// Fisher's matrix of a categorical variable in its first K − 1 probabilities: diag(1/θ_k) + 1/θ_K.
fn fisher(theta: &[f64]) -> Tensor {
    let free = theta.len() - 1;
    Tensor::from_slice(&theta[..free]).reciprocal().diag(0) + 1.0 / theta[free]
}

/// A variable's weights, and per draw its category and the draw's loss.
type Case = (Vec<Vec<f64>>, Vec<(Vec<usize>, f64)>);

fn cases() -> impl Strategy<Value = Case> {
    let variables = prop::collection::vec(prop::collection::vec(0.05f64..1.0, 2..6), 3..5);
    variables.prop_flat_map(|weights| {
        let draw: Vec<_> = weights.iter().map(|w| 0..w.len()).collect();
        let draws = prop::collection::vec((draw, 0.0f64..1.0), 2..7);
        (Just(weights), draws)
    })
}

use proptest::strategy::Strategy;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    /// Five steps. The direction is F⁻¹ ∇ E[u log p], the step's length by Fisher's metric is the trust region, and s, γ and Δ
    /// follow the paper's equations.
    #[test]
    fn an_update_is_the_papers((weights, draws) in cases(), threshold in 1.1f64..3.0, delta in 0.01f64..0.5) {
        let variables = weights.len();
        let floors: Vec<f64> = weights.iter().map(|w| floor(w.len(), variables)).collect();
        let mut theta: Vec<Vec<f64>> =
            weights.iter().zip(&floors).map(|(w, f)| probabilities(w, *f)).collect();
        let sizes: Vec<usize> = theta.iter().map(Vec::len).collect();
        let free: usize = sizes.iter().map(|k| k - 1).sum();
        let mut state = State::new(&sizes);
        let (mut s, mut gamma, mut shrink) = (vec![0.0; free], 0.0f64, 1.0f64);
        for step in 0..5 {
            let losses: Vec<f64> = draws.iter().enumerate()
                .map(|(i, (_, loss))| (loss * 7.0 + (i * (step + 1)) as f64 * 0.37) % 1.0)
                .collect();
            let chosen: Vec<Vec<usize>> = draws.iter().map(|(c, _)| c.clone()).collect();
            let u = utilities(&losses);
            let before = theta.clone();
            update(&mut theta, &mut state, (threshold, delta), &chosen, &u);
            // The natural gradient of E[u log p] at the draws, variable by variable.
            let region = delta / shrink;
            let (mut naturals, mut length, mut direction) = (vec![], 0.0, vec![]);
            for (v, p) in before.iter().enumerate() {
                let k = p.len();
                let leaf = Tensor::from_slice(&p[..k - 1]).set_requires_grad(true);
                let whole = Tensor::cat(&[&leaf, &(-leaf.sum(Kind::Double) + 1.0).view([1])], 0);
                let terms: Vec<Tensor> = chosen.iter().zip(&u)
                    .map(|(c, u)| whole.get(c[v] as i64).log() * *u / chosen.len() as f64)
                    .collect();
                let objective = Tensor::stack(&terms, 0).sum(Kind::Double);
                let vanilla = Tensor::run_backward(&[objective], &[&leaf], false, false).remove(0);
                let f = fisher(p);
                let natural = f.inverse().mv(&vanilla);
                length += natural.dot(&f.mv(&natural)).double_value(&[]);
                let mut g = numbers(&natural);
                let (last, sum) = (p[k - 1], g.iter().sum::<f64>());
                for (g, t) in g.iter().zip(p) {
                    direction.push(g / t.sqrt() + t.sqrt() * sum / (last + last.sqrt()));
                }
                g.push(-sum);
                naturals.push(g);
            }
            let norm = length.sqrt();
            if norm < 1e-10 {
                // Draws that are alike, or whose utilities cancel, say nothing.
                prop_assert_eq!(&theta, &before);
                continue;
            }
            let own = direction.iter().map(|d| d * d).sum::<f64>();
            prop_assert!((own - length).abs() < 1e-9 * length, "s is no root of F: {own} {length}");
            for ((p, g), (new, f)) in before.iter().zip(&naturals).zip(theta.iter().zip(&floors)) {
                let mut moved: Vec<f64> = p.iter().zip(g).map(|(p, g)| p + region / norm * g).collect();
                redistribute(&mut moved, *f);
                assert_close(new, &moved, 1e-9, "θ");
            }
            let beta = region / (free as f64).sqrt();
            let mut squared = 0.0;
            for (s, d) in s.iter_mut().zip(&direction) {
                *s = (1.0 - beta) * *s + (beta * (2.0 - beta)).sqrt() * d / norm;
                squared += *s * *s;
            }
            gamma = (1.0 - beta) * (1.0 - beta) * gamma + beta * (2.0 - beta);
            shrink *= (beta * (gamma - squared / threshold)).exp();
            assert_close(&state.s, &s, 1e-9, "s");
            assert_close(&[state.gamma, state.shrink], &[gamma, shrink], 1e-9, "γ, Δ");
        }
    }

    /// The floor is kept, the sum is one, the order stays, what is in already stays, and it is the published redistribution.
    #[test]
    fn the_projection_is_the_published_one(
        weights in prop::collection::vec(0.01f64..1.0, 2..7),
        noise in prop::collection::vec(-0.6f64..0.6, 7),
        variables in 1usize..6,
    ) {
        let k = weights.len();
        let floor = floor(k, variables);
        prop_assert!(floor > 0.0 && floor * (k as f64) < 1.0);
        let inside = probabilities(&weights, floor);
        let mut same = inside.clone();
        project(&mut same, floor);
        assert_close(&same, &inside, 1e-12, "inside");

        // A step keeps the sum.
        let mean = noise[..k].iter().sum::<f64>() / k as f64;
        let moved: Vec<f64> = inside.iter().zip(&noise).map(|(t, n)| t + n - mean).collect();
        let (mut new, mut expected) = (moved.clone(), moved.clone());
        project(&mut new, floor);
        redistribute(&mut expected, floor);
        assert_close(&new, &expected, 1e-12, "moved");
        prop_assert!((new.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        prop_assert!(new.iter().all(|t| *t > floor - 1e-12), "{new:?} {floor}");
        for (i, j) in (0..k).flat_map(|i| (0..k).map(move |j| (i, j))) {
            prop_assert!(moved[i] < moved[j] || new[i] >= new[j] - 1e-12);
        }
    }
}

/// Step by step: lift what is below the floor, then take the surplus from all in proportion to what they have above it.
fn redistribute(theta: &mut [f64], floor: f64) {
    for t in theta.iter_mut() {
        *t = t.max(floor);
    }
    let surplus = theta.iter().sum::<f64>() - 1.0;
    let room: f64 = theta.iter().map(|t| t - floor).sum();
    for t in theta.iter_mut() {
        *t -= surplus * (*t - floor) / room;
    }
}

#[test]
fn the_floor_is_the_published_one_where_that_leaves_room() {
    assert_eq!(floor(5, 6), 1.0 / 24.0);
    assert_eq!(floor(3, 2), 0.25);
    // Two variables of two categories could never leave the middle, and one variable has no room at all.
    assert_eq!((floor(2, 2), floor(4, 1)), (0.25, 0.125));
}

/// A step through the trainer, on ragged rows of which some keep two: θ is updated by what the losses of that step say.
#[test]
fn a_step_updates_by_the_losses_that_it_took() {
    let set = [
        "strategy.name=asng",
        "space.name=vim-test-sum",
        "strategy.samples=5",
    ];
    let (mut search, mut strategy) = begun(&set, 0.3);
    let spec = search.space().spec().clone();
    // What a row decides is a subset.
    let rows: Vec<(usize, usize, Vec<Vec<usize>>)> = spec
        .rows()
        .map(|(g, r, row)| {
            let of_row = nasfw_framework::arch::subsets(row.candidates.len(), row.keep);
            (g, r, of_row)
        })
        .collect();
    let log_prob = |search: &Search,
                    strategy: &dyn nasfw_framework::prelude::Strategy,
                    g: usize,
                    r: usize,
                    kept: &[usize]| {
        // Independent rows: the marginal of one is a ratio to any fixed choice of the others.
        let mut groups = spec.enumerate().next().unwrap().groups().to_vec();
        groups[g][r] = kept.to_vec();
        super::log_prob(of(strategy), &search.phi().detach(), &Choice::new(groups))
    };
    let theta =
        |search: &Search, strategy: &dyn nasfw_framework::prelude::Strategy| -> Vec<Vec<f64>> {
            rows.iter()
                .map(|(g, r, all)| {
                    let p: Vec<f64> = (all.iter())
                        .map(|kept| log_prob(search, strategy, *g, *r, kept).exp())
                        .collect();
                    let sum: f64 = p.iter().sum();
                    p.iter().map(|p| p / sum).collect()
                })
                .collect()
        };
    let sizes: Vec<usize> = rows.iter().map(|(_, _, all)| all.len()).collect();
    let mut state = State::new(&sizes);
    for _ in 0..2 {
        let mut expected = theta(&search, &*strategy);
        let done = stepped(&mut search, &mut *strategy);
        let (train, val): (Vec<_>, Vec<_>) = done
            .losses
            .into_iter()
            .partition(|(split, ..)| *split == Some(Split::Train));
        assert_eq!((train.len(), val.len(), done.phi.len()), (5, 5, 1));
        assert!(done.phi[0].is_none());
        let draws: Vec<Vec<usize>> = val
            .iter()
            .map(|(_, weights, _)| {
                let number = |(g, r, all): &(usize, usize, Vec<Vec<usize>>)| {
                    let on = |c: &usize| weights[*g][*r][*c] == 1.0;
                    let kept: Vec<usize> = (0..weights[*g][*r].len()).filter(on).collect();
                    all.iter().position(|s| *s == kept).unwrap()
                };
                rows.iter().map(number).collect()
            })
            .collect();
        let losses: Vec<f64> = val.iter().map(|(_, _, loss)| *loss).collect();
        update(
            &mut expected,
            &mut state,
            (1.5, 1.0),
            &draws,
            &utilities(&losses),
        );
        let found = theta(&search, &*strategy);
        for (found, expected) in found.iter().zip(&expected) {
            assert_close(found, expected, 1e-9, "θ");
        }
    }
    let kept: State = strategy.state().unwrap().value().unwrap();
    assert_close(&kept.s, &state.s, 1e-9, "s");
    assert_close(
        &[kept.gamma, kept.shrink],
        &[state.gamma, state.shrink],
        1e-9,
        "γ, Δ",
    );
}
