//! Shapley-NAS's update of the logits against one by hand, on a space whose accuracy is a formula.

use super::game::{Formula, spec};
use super::steps::config;
use super::*;
use nasfw_framework::trainer::advance;
use rand::seq::SliceRandom;

const ORDERS: usize = 4;
const STEP: f64 = 0.3;

/// Group and softmax weight of every player.
fn players(phi: &Tensor) -> Vec<(usize, f64)> {
    let weights = spec().to_marginals(&spec().softmax(&phi.detach()));
    spec()
        .rows()
        .flat_map(|(g, r, row)| {
            let weights = &weights[g][r];
            (0..row.candidates.len())
                .map(move |c| (g, weights[c]))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Contributions in the orders that the search draws, `[order][player]`.
fn contributions(phi: &Tensor, search: &Search, truncation: f64) -> Vec<Vec<f64>> {
    let (formula, x) = (Formula::new(1), players(phi));
    let mut rng = search.rng("orders");
    let mut order: Vec<usize> = (0..x.len()).collect();
    let mut all = vec![];
    for _ in 0..ORDERS {
        order.shuffle(&mut rng);
        let mut there: Vec<f64> = x.iter().map(|(_, w)| *w).collect();
        let values: Vec<f64> = std::iter::once(formula.value(&there))
            .chain(order.iter().map(|i| {
                there[*i] = 0.0;
                formula.value(&there)
            }))
            .collect();
        let mut own = vec![0.0; x.len()];
        for (k, i) in order.iter().enumerate() {
            own[*i] = values[k] - values[k + 1];
            if values[k + 1] < truncation * values[0] {
                break;
            }
        }
        all.push(own);
    }
    all
}

#[test]
fn logits_move_by_the_values_of_candidates() {
    for (update, truncation) in [("paper", 0.0), ("paper", 0.99), ("official", 0.0)] {
        let (update_is, truncation_is) = (
            format!("strategy.update={update}"),
            format!("strategy.truncation={truncation}"),
        );
        let config = config(&[
            "space.name=game",
            "dataset.name=vim-test-data",
            "trainer.epochs=4",
            "strategy.name=shapley-nas",
            "strategy.arch_start=0.25",
            "strategy.orders=4",
            "strategy.step=0.3",
            "strategy.init_std=0.5",
            &update_is,
            &truncation_is,
        ]);
        let (mut search, mut strategy) = config.trainer.start(&config).unwrap();
        let per_epoch = search.steps_per_epoch();
        let mut s = vec![0.0; 39];
        for epoch in 0..4 {
            // Logits rest within an epoch.
            let phi = search.phi().detach().copy();
            for step in 0..per_epoch {
                assert!(search.phi().equal(&phi));
                if step + 1 < per_epoch {
                    advance(&mut search, strategy.as_mut()).unwrap();
                }
            }
            // The draws are those of the step that comes next.
            let mut twin = config.trainer.start(&config).unwrap().0;
            twin.clock_mut().step = search.clock().step + 1;
            let all = contributions(&phi, &twin, truncation);
            advance(&mut search, strategy.as_mut()).unwrap();
            let moved = spec().to_marginals(&spec().split(&(search.phi().detach() - &phi)));
            let moved = moved.concat().concat();
            if epoch == 3 {
                // No training follows.
                assert!(moved.iter().all(|x| *x == 0.0));
                continue;
            }
            let n = ORDERS as f64;
            let mean: Vec<f64> = (0..39)
                .map(|i| all.iter().map(|o| o[i]).sum::<f64>() / n)
                .collect();
            let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
            let mut values: Vec<f64> = mean.iter().map(|m| m / norm(&mean)).collect();
            if update == "official" {
                let of = players(&phi);
                for group in 0..3 {
                    let own: Vec<usize> = (0..39).filter(|i| of[*i].0 == group).collect();
                    let less = |i: &usize| {
                        let variance =
                            all.iter().map(|o| (o[*i] - mean[*i]).powi(2)).sum::<f64>() / n;
                        mean[*i] - variance.sqrt()
                    };
                    let scores = Tensor::from_slice(&own.iter().map(less).collect::<Vec<_>>());
                    let scores = (&scores - scores.mean(Kind::Double)) / scores.std(true);
                    for (at, i) in own.iter().enumerate() {
                        values[*i] = scores.double_value(&[at as i64]);
                    }
                }
            }
            s.iter_mut()
                .zip(&values)
                .for_each(|(s, v)| *s = 0.8 * *s + 0.2 * v);
            let scale = if update == "paper" {
                STEP / norm(&s)
            } else {
                STEP
            };
            for (i, (moved, s)) in moved.iter().zip(&s).enumerate() {
                assert!(
                    (moved - scale * s).abs() < 1e-10,
                    "{update}, epoch {epoch}, player {i}: {moved} and {}",
                    scale * s
                );
            }
        }
    }
}
