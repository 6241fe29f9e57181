//! ReinMax's estimator by enumeration of its draws.

use nasfw_plugins::reinmax::ReinmaxSampler;
use proptest::prelude::*;

use super::distribution::assert_close;
use super::spied::{Watched, watched};
use super::*;

fn flat(weights: &[Tensor]) -> Tensor {
    let parts: Vec<Tensor> = weights.iter().map(|w| w.reshape([-1])).collect();
    Tensor::cat(&parts, 0)
}

/// A function of all weights of an architecture.
type Function<'a> = &'a dyn Fn(&Tensor) -> Tensor;

/// Σ_D p(D) f(D).
fn expectation(d: &ReinmaxSampler, spec: &ArchSpec, theta: &Tensor, f: Function<'_>) -> f64 {
    let of = |choice: Choice| {
        let weights = flat(&choice.one_hot(spec, Kind::Double, Device::Cpu).weights);
        log_prob(d, theta, &choice).exp() * f(&weights).double_value(&[])
    };
    spec.enumerate().map(of).sum()
}

/// Σ_D p(D) of the estimates.
fn expected_estimate(
    d: &ReinmaxSampler,
    spec: &ArchSpec,
    theta: &Tensor,
    f: Function<'_>,
) -> Vec<f64> {
    let leaf = theta.detach().copy().set_requires_grad(true);
    let mut sum = theta.zeros_like();
    for choice in spec.enumerate() {
        let arch = d.straight_through(&leaf, &choice).unwrap();
        let value = f(&flat(&arch.weights));
        let estimate = Tensor::run_backward(&[value], &[&leaf], false, false).remove(0);
        sum += estimate * log_prob(d, theta, &choice).exp();
    }
    numbers(&sum)
}

/// Differences of the exact expectation.
fn differences(d: &ReinmaxSampler, spec: &ArchSpec, theta: &Tensor, f: Function<'_>) -> Vec<f64> {
    (0..theta.numel() as i64)
        .map(|i| {
            let at = |by: f64| {
                let moved = theta.detach().copy();
                let _ = moved.get(i).g_add_scalar_(by);
                expectation(d, spec, &moved, f)
            };
            (at(1e-5) - at(-1e-5)) / 2e-5
        })
        .collect()
}

/// Ragged rows, some of which keep two.
fn small_spec() -> ArchSpec {
    spec(vec![
        group("a", Role::Operations, &[(3, 1), (2, 1)]),
        group("t", Role::Topology, &[(4, 2)]),
    ])
}

fn start(d: &ReinmaxSampler, seed: u64) -> Tensor {
    d.init(Streams::new(seed), Kind::Double, Device::Cpu)
}

/// A random tensor.
fn random(name: &str, shape: &[i64]) -> Tensor {
    let rng = &mut Streams::new(3).at(name, 0);
    nasfw_framework::rng::normal(rng, shape, Kind::Double, Device::Cpu)
}

/// The estimator is of second order: at τ = 1 its expectation is the exact gradient of every quadratic function, products of
/// rows included. Of a cubic it is not, and neither is the plain straight-through estimator's of a quadratic.
#[test]
fn it_is_exact_for_quadratic_functions() {
    let spec = small_spec();
    let d = ReinmaxSampler::new(&spec, 1.0, 1.0).unwrap();
    let n = spec.numel();
    let (linear, square) = (random("linear", &[n]), random("square", &[n, n]));
    let quadratic = |x: &Tensor| x.dot(&square.mv(x)) + x.dot(&linear);
    let only_linear = |x: &Tensor| x.dot(&linear);
    let cubic = |x: &Tensor| (x * &linear).sum(Kind::Double).pow_tensor_scalar(3);
    for seed in 0..3 {
        let theta = start(&d, seed);
        for f in [&quadratic as Function<'_>, &only_linear] {
            let (estimate, exact) = (
                expected_estimate(&d, &spec, &theta, f),
                differences(&d, &spec, &theta, f),
            );
            assert!(exact.iter().any(|g| g.abs() > 0.05));
            assert_close(&estimate, &exact, 1e-8, "estimate");
        }
        let apart = |a: &[f64], b: &[f64]| {
            let far = a.iter().zip(b).map(|(a, b)| (a - b).abs());
            far.fold(0.0, f64::max)
        };
        let (estimate, exact) = (
            expected_estimate(&d, &spec, &theta, &cubic),
            differences(&d, &spec, &theta, &cubic),
        );
        assert!(
            apart(&estimate, &exact) > 1e-3,
            "a cubic would be exact, too"
        );

        // D + p − stopgrad(p) instead.
        let leaf = theta.copy().set_requires_grad(true);
        let mut plain = theta.zeros_like();
        for choice in spec.enumerate() {
            let hard = flat(&choice.one_hot(&spec, Kind::Double, Device::Cpu).weights);
            let p = flat(&d.mean(&leaf).unwrap());
            let value = quadratic(&(hard + &p - p.detach()));
            let g = Tensor::run_backward(&[value], &[&leaf], false, false).remove(0);
            plain += g * log_prob(&d, &theta, &choice).exp();
        }
        let exact = differences(&d, &spec, &theta, &quadratic);
        assert!(apart(&numbers(&plain), &exact) > 1e-2);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) })]

    /// One row, any temperature: the value is the draw, and an upstream gradient g becomes 2 J(p₁) g − J(p) g / 2.
    #[test]
    fn one_estimate_is_its_formula(
        theta in prop::collection::vec(-3.0f64..3.0, 2..6),
        upstream in prop::collection::vec(-1.0f64..1.0, 6),
        drawn in 0usize..6,
        tau in 1.0f64..4.0,
    ) {
        let n = theta.len();
        let spec = spec(vec![group("row", Role::Operations, &[(n, 1)])]);
        let d = ReinmaxSampler::new(&spec, 1.0, tau).unwrap();
        let choice = Choice::new(vec![vec![vec![drawn % n]]]);
        let leaf = Tensor::from_slice(&theta).set_requires_grad(true);
        let arch = d.straight_through(&leaf, &choice).unwrap();
        prop_assert!(arch.active.is_none());
        let hard: Vec<f64> = (0..n).map(|c| f64::from(u8::from(c == drawn % n))).collect();
        prop_assert_eq!(&numbers(&arch.weights[0]), &hard);
        let g = Tensor::from_slice(&upstream[..n]);
        let value = (arch.weights[0].view([-1]) * &g).sum(Kind::Double);
        let seen = numbers(&Tensor::run_backward(&[value], &[&leaf], false, false)[0]);

        let softmax = |tau: f64| -> Vec<f64> {
            let e: Vec<f64> = theta.iter().map(|t| (t / tau).exp()).collect();
            let sum: f64 = e.iter().sum();
            e.iter().map(|e| e / sum).collect()
        };
        let (p, warm) = (softmax(1.0), softmax(tau));
        let middle: Vec<f64> = hard.iter().zip(&warm).map(|(d, w)| (d + w) / 2.0).collect();
        let jacobian = |q: &[f64], i: usize| -> f64 {
            let mean: f64 = q.iter().zip(&upstream).map(|(q, g)| q * g).sum();
            q[i] * (upstream[i] - mean)
        };
        let expected: Vec<f64> = (0..n).map(|i| 2.0 * jacobian(&middle, i) - 0.5 * jacobian(&p, i)).collect();
        assert_close(&seen, &expected, 1e-12, "gradient");
    }
}

/// The architecture's step needs every candidate's output, the weights' the drawn ones' alone.
#[test]
fn the_architecture_step_computes_all_candidates() {
    let Watched { seen, outcome, .. } = watched(&[
        "strategy.name=reinmax",
        "space.name=spied",
        "space.of=nasbench1shot1-s1",
        "trainer.epochs=3",
    ]);
    let trained: Vec<_> = seen.iter().filter(|s| s.training).collect();
    assert_eq!(trained.len() as u64, 2 * outcome.steps);
    for (i, arch) in trained.iter().enumerate() {
        assert_eq!(arch.active.is_some(), i % 2 == 1);
        assert!(
            arch.weights
                .iter()
                .flatten()
                .flatten()
                .all(|w| *w == 0.0 || *w == 1.0)
        );
    }
}
