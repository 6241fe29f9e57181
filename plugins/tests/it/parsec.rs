//! PARSEC's estimators against the evidence p(y|X, w, π) = Σ_A p(y|X, w, A) p(A|π) by enumeration.

use nasfw_plugins::parsec::{Likelihood, surprise, weight_gradient};

use super::distribution::assert_close;
use super::spied::{begun, stepped};
use super::*;

/// Nine architectures: two rows of three candidates.
const SPACE: [&str; 3] = [
    "strategy.name=parsec",
    "space.name=spied",
    "space.of=toy-quadratic",
];

/// Images of a batch.
const IMAGES: f64 = 4.0;

const LIKELIHOODS: [(Likelihood, f64, &str); 2] = [
    (Likelihood::Sum, IMAGES, "strategy.likelihood=sum"),
    (Likelihood::Mean, 1.0, "strategy.likelihood=mean"),
];

fn gradient(scalar: &Tensor, leaf: &Tensor) -> Tensor {
    Tensor::run_backward(&[scalar], &[leaf], false, false).remove(0)
}

/// Per architecture: log p(A|π) and n L(A), both with graphs.
fn enumerated(
    search: &mut Search,
    strategy: &dyn Strategy,
    batch: &Batch,
    scale: f64,
) -> Vec<(Choice, Tensor, Tensor)> {
    let spec = search.space().spec().clone();
    let (theta, phi) = (search.theta(), search.phi());
    spec.enumerate()
        .map(|choice| {
            let prior = of(strategy).log_prob(&phi, &choice).unwrap();
            let loss = search
                .loss(&theta, &search.one_hot(&choice), batch)
                .unwrap();
            (choice, prior, loss * scale)
        })
        .collect()
}

/// −log Σ_A p(A|π) exp(−n L(A)).
fn surprise_of(all: &[(Choice, Tensor, Tensor)]) -> Tensor {
    let terms: Vec<Tensor> = all.iter().map(|(_, prior, loss)| prior - loss).collect();
    -Tensor::stack(&terms, 0).logsumexp([0i64].as_slice(), false)
}

/// With a prior whose probabilities are sixteenths, sixteen draws that are as frequent as it says give the exact gradients.
#[test]
fn draws_as_frequent_as_the_prior_says_give_the_exact_gradients() {
    for (likelihood, scale, _) in LIKELIHOODS {
        let (mut search, strategy) = begun(&SPACE, 0.0);
        let p = [0.5, 0.25, 0.25, 0.25, 0.25, 0.5];
        search.update_phi(|phi| phi.copy_(&Tensor::from_slice(&p).log()));
        let batch = search.batch(Split::Train).unwrap();
        let all = enumerated(&mut search, &*strategy, &batch, scale);
        let drawn: Vec<Choice> = all
            .iter()
            .flat_map(|(choice, prior, _)| {
                let times = prior.double_value(&[]).exp() * 16.0;
                vec![choice.clone(); times.round() as usize]
            })
            .collect();
        assert_eq!(drawn.len(), 16);

        let prior = of(&*strategy);
        let taken = surprise(&mut search, prior, likelihood, &drawn, &batch).unwrap();
        let of_pi = gradient(&taken, &search.phi());
        let of_w = weight_gradient(&mut search, likelihood, &drawn, &batch).unwrap();
        let (theta, phi) = (search.theta(), search.phi());
        let exact = Tensor::run_backward(&[surprise_of(&all)], &[&phi, &theta], false, false);
        assert!(exact.iter().all(|g| g.abs().max().double_value(&[]) > 1e-3));
        assert_close(&numbers(&of_pi), &numbers(&exact[0]), 1e-10, "of π");
        let of_image = numbers(&(&exact[1] / scale));
        assert_close(&numbers(&of_w), &of_image, 1e-10, "of w");
    }
}

/// Importance weights of draws of the prior: with many, both gradients of a step come near the exact ones, each within five
/// standard errors of a ratio of means, Var = Σ_A p(A) (p(y|A) / p(y))² (∇_A − ∇)² / K.
#[test]
fn many_draws_come_near_the_exact_gradients() {
    const DRAWS: usize = 800;
    for (_, scale, set) in LIKELIHOODS {
        let samples = format!("strategy.samples={DRAWS}");
        let set = [&SPACE[..], &[set, &samples, "strategy.arch.lr=0.0"]].concat();
        let (mut search, mut strategy) = begun(&set, 1.0);
        let (mut twin, other) = begun(&set, 1.0);
        let batches = [Split::Val, Split::Train].map(|split| twin.batch(split).unwrap());
        let done = stepped(&mut search, &mut *strategy);
        let seen = [done.phi[0].as_ref().unwrap(), &done.theta[0]];
        for (k, (batch, seen)) in batches.iter().zip(seen).enumerate() {
            let all = enumerated(&mut twin, &*other, batch, scale);
            let evidence = -surprise_of(&all).double_value(&[]);
            let leaf = if k == 0 { twin.phi() } else { twin.theta() };
            let (mut exact, mut square) = (leaf.detach() * 0.0, leaf.detach() * 0.0);
            let own: Vec<(f64, f64, Tensor)> = all
                .iter()
                .map(|(_, prior, loss)| {
                    let p = prior.double_value(&[]).exp();
                    let ratio = (-loss.double_value(&[]) - evidence).exp();
                    let term = if k == 0 { -prior } else { loss / scale };
                    (p, ratio, gradient(&term, &leaf))
                })
                .collect();
            for (p, ratio, g) in &own {
                exact += g * (p * ratio);
            }
            for (p, ratio, g) in &own {
                square += (g - &exact).square() * (p * ratio * ratio);
            }
            let error = (square / DRAWS as f64).sqrt() + 1e-9;
            let z = ((seen - &exact) / &error).abs().max().double_value(&[]);
            let signal = (&exact / error).abs().max().double_value(&[]);
            assert!(signal > 10.0, "{set:?} {k}: too few draws, {signal}");
            assert!(z < 5.0, "{set:?} {k}: {z} standard errors off");
        }
    }
}
