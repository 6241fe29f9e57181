#![allow(clippy::unwrap_used)]
use super::*;
use crate::arch::{Group, Role, Row};
use proptest::prelude::*;
use statrs::distribution::{Beta, ContinuousCDF};

const DRAWS: u64 = 4000;

fn spec(rows: &[usize]) -> ArchSpec {
    let row = |(r, &n): (usize, &usize)| Row {
        name: format!("row {r}"),
        candidates: (0..n).map(|c| c.to_string()).collect(),
        keep: 1,
    };
    ArchSpec::new(vec![Group {
        name: "ops".into(),
        role: Role::Operations,
        rows: rows.iter().enumerate().map(row).collect(),
        edges: None,
    }])
    .unwrap()
}

fn numbers(t: &Tensor) -> Vec<f64> {
    Vec::try_from(t.detach().to_kind(Kind::Double).contiguous().view([-1])).unwrap()
}

fn concentration(alpha: f64) -> f64 {
    if alpha < 0.0 {
        alpha.exp()
    } else {
        alpha + 1.0
    }
}

/// α with c from 0.2 to 5 about.
fn alphas(n: usize) -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(-1.6f64..4.0, n)
}

fn phi(alpha: &[f64]) -> Tensor {
    Tensor::from_slice(alpha).set_requires_grad(true)
}

fn sample(d: &Dirichlet, phi: &Tensor, i: u64) -> Tensor {
    let mut sample = d.sample(phi, &mut Streams::new(8).at("theta", i)).unwrap();
    sample.weights.remove(0)
}

/// Σ_j f_j θ_j of a sample and its gradient in α.
fn slope(d: &Dirichlet, phi: &Tensor, f: &Tensor, i: u64) -> Vec<f64> {
    let value = (sample(d, phi, i) * f).sum(Kind::Double);
    numbers(&Tensor::run_backward(&[value], &[phi], false, false)[0])
}

/// Mean and standard error of the mean, entry by entry.
fn moments(samples: impl Iterator<Item = Vec<f64>>) -> Vec<(f64, f64)> {
    let (mut n, mut sums): (f64, Vec<(f64, f64)>) = (0.0, vec![]);
    for sample in samples {
        sums.resize(sample.len(), (0.0, 0.0));
        n += 1.0;
        for ((sum, squares), x) in sums.iter_mut().zip(sample) {
            *sum += x;
            *squares += x * x;
        }
    }
    let moment = |(sum, squares): (f64, f64)| {
        let mean = sum / n;
        (mean, ((squares / n - mean * mean).max(0.0) / n).sqrt())
    };
    sums.into_iter().map(moment).collect()
}

/// The marginals are Beta(c_i, Σc − c_i): Kolmogorov and Smirnov against another library's.
#[test]
fn marginals_are_beta() {
    let alpha = [-1.5, 0.0, 2.5];
    let d = Dirichlet::new(&spec(&[3]), 1.0);
    let phi = phi(&alpha);
    let seen: Vec<Vec<f64>> = (0..4000).map(|i| numbers(&sample(&d, &phi, i))).collect();
    let c: Vec<f64> = alpha.iter().map(|a| concentration(*a)).collect();
    for i in 0..3 {
        let beta = Beta::new(c[i], c.iter().sum::<f64>() - c[i]).unwrap();
        let mut own: Vec<f64> = seen.iter().map(|s| s[i]).collect();
        own.sort_by(f64::total_cmp);
        let n = own.len() as f64;
        let distance = own.iter().enumerate().fold(0.0, |m: f64, (k, &x)| {
            m.max((beta.cdf(x) - (k as f64 + 0.5) / n).abs())
        });
        // Above this once in ten thousand.
        assert!(distance < 2.23 / n.sqrt(), "{i}: {distance}");
    }
}

/// With two candidates θ₁ is Beta(a, b), and its pathwise derivative is unique: ∂F⁻¹(u; a, b)/∂a at u = F(θ₁).
#[test]
fn two_candidates_move_as_the_quantile_of_beta_does() {
    let d = Dirichlet::new(&spec(&[2]), 1.0);
    let first = Tensor::from_slice(&[1.0, 0.0]);
    let mut worst = 0.0f64;
    for (i, alpha) in [[0.0, 0.0], [-1.0, 0.5], [1.5, -0.4], [2.0, 3.0]]
        .iter()
        .enumerate()
    {
        let phi = phi(alpha);
        for draw in 0..50 {
            let n = i as u64 * 50 + draw;
            let theta = sample(&d, &phi, n).double_value(&[0, 0]);
            if !(1e-3..1.0 - 1e-3).contains(&theta) {
                continue; // The other library's quantiles are too coarse there.
            }
            let seen = slope(&d, &phi, &first, n);
            let quantile = |k: usize, by: f64, u: f64| {
                let mut moved = *alpha;
                moved[k] += by;
                let beta = Beta::new(concentration(moved[0]), concentration(moved[1])).unwrap();
                if u < 0.0 {
                    beta.cdf(theta)
                } else {
                    root(|x| beta.cdf(x) - u)
                }
            };
            let u = quantile(0, 0.0, -1.0);
            for (k, seen) in seen.iter().enumerate() {
                // On both sides of zero, where elu has its second derivative's jump only.
                let h = 1e-4;
                let expected = (quantile(k, h, u) - quantile(k, -h, u)) / (2.0 * h);
                worst = worst.max((seen - expected).abs() / expected.abs().max(0.01));
            }
        }
    }
    assert!(worst < 0.01, "{worst}");
}

/// The root in (0, 1) of an increasing function, by bisection.
fn root(f: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if f(middle) < 0.0 {
            low = middle
        } else {
            high = middle
        }
    }
    0.5 * (low + high)
}

/// E[θ] = c / Σc, and its derivative in c is (δ_ij − E[θ_j]) / Σc: ragged rows, one of them fixed.
#[test]
fn means_and_pathwise_gradients_agree_with_the_closed_form() {
    let rows = [3, 1, 4];
    let d = Dirichlet::new(&spec(&rows), 1.0);
    let alpha = [
        0.8, -1.2, 0.1, 0.0, 0.7, 0.0, 0.0, 0.0, -0.5, 1.5, 0.0, -1.5,
    ];
    let phi = phi(&alpha);
    let f: Vec<f64> = (0..12).map(|i| f64::from((i * 5) % 7) - 3.0).collect();
    let factors = Tensor::from_slice(&f).view([3, 4]);
    let means = moments((0..DRAWS).map(|i| numbers(&sample(&d, &phi, i))));
    let slopes = moments((0..DRAWS).map(|i| slope(&d, &phi, &factors, i)));
    for (r, &n) in rows.iter().enumerate() {
        let c: Vec<f64> = (0..n).map(|i| concentration(alpha[r * 4 + i])).collect();
        let total: f64 = c.iter().sum();
        let of_mean: f64 = (0..n).map(|j| f[r * 4 + j] * c[j] / total).sum();
        for i in 0..4 {
            let at = r * 4 + i;
            let (mean, gradient) = c.get(i).map_or((0.0, 0.0), |c| {
                let dc = alpha[at].min(0.0).exp();
                (c / total, (f[at] - of_mean) / total * dc)
            });
            let ((m, em), (s, es)) = (means[at], slopes[at]);
            assert!(
                (m - mean).abs() <= 4.5 * em + 1e-12,
                "θ {at}: {m} ± {em}, {mean}"
            );
            assert!(
                (s - gradient).abs() <= 4.5 * es + 1e-12,
                "slope {at}: {s} ± {es}, {gradient}"
            );
        }
    }
}

/// What is not allowed has weight zero and no gradient; the others are a smaller Dirichlet distribution.
#[test]
fn candidates_that_are_not_allowed_are_gone() {
    let mut d = Dirichlet::new(&spec(&[4]), 1.0);
    d.allow(vec![vec![vec![true, false, true, false]]]);
    let phi = phi(&[0.5, 9.0, -0.5, 9.0]);
    let factors = Tensor::from_slice(&[1.0, 5.0, 2.0, 5.0]);
    let means = moments((0..DRAWS).map(|i| numbers(&sample(&d, &phi, i))));
    let share = 1.5 / (1.5 + (-0.5f64).exp());
    assert!((means[0].0 - share).abs() < 4.5 * means[0].1, "{means:?}");
    assert_eq!((means[1].0, means[3].0), (0.0, 0.0));
    let slopes = slope(&d, &phi, &factors, 3);
    assert_eq!((slopes[1], slopes[3]), (0.0, 0.0));
    let mean = numbers(&d.mean(&phi).unwrap()[0]);
    assert_eq!((mean[1], mean[3]), (0.0, 0.0));
    assert!((mean[0] - 1.0 / (1.0 + (-1.0f64).exp())).abs() < 1e-12);
}

#[test]
fn a_start_that_is_given_is_where_it_starts() {
    let mut d = Dirichlet::new(&spec(&[2]), 1.0);
    let init = |d: &Dirichlet| numbers(&d.init(Streams::new(1), Kind::Double, Device::Cpu));
    let drawn = init(&d);
    d.start_at(Tensor::from_slice(&[0.25, -3.0]));
    assert_eq!(init(&d), [0.25, -3.0]);
    assert_ne!(drawn, init(&d));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 32, ..ProptestConfig::default() })]

    /// Against the integral of ln p over the density, for Beta by the rule of the midpoint, at concentrations of at
    /// least one, where the density is bounded; by additivity it counts rows.
    #[test]
    fn the_divergence_from_uniform_is_its_integral(alpha in prop::collection::vec(0.0f64..3.0, 4)) {
        const POINTS: usize = 20_000;
        let d = Dirichlet::new(&spec(&[2, 2]), 1.0);
        let expected: f64 = alpha
            .chunks(2)
            .map(|a| {
                let beta = Beta::new(a[0] + 1.0, a[1] + 1.0).unwrap();
                let at = |k: usize| {
                    use statrs::distribution::Continuous;
                    let p = beta.pdf((k as f64 + 0.5) / POINTS as f64);
                    if p > 0.0 { p * p.ln() / POINTS as f64 } else { 0.0 }
                };
                (0..POINTS).map(at).sum::<f64>()
            })
            .sum();
        let seen = d.divergence_from_uniform(&phi(&alpha)).double_value(&[]);
        prop_assert!((seen - expected).abs() < 1e-4, "{seen} and {expected}");
    }

    /// The gradient of the divergence is Σ_j (c_j − 1) (δ_ij ψ'(c_i) − ψ'(Σc)), with ψ' by its recurrence and
    /// asymptotic series; here of three candidates of which one is gone.
    #[test]
    fn the_gradient_of_the_divergence_is_the_closed_form(alpha in alphas(3)) {
        let mut d = Dirichlet::new(&spec(&[3]), 1.0);
        d.allow(vec![vec![vec![true, false, true]]]);
        let phi = phi(&alpha);
        let kl = d.divergence_from_uniform(&phi);
        let seen = numbers(&Tensor::run_backward(&[kl], &[&phi], false, false)[0]);
        let c = [concentration(alpha[0]), concentration(alpha[2])];
        let total = c[0] + c[1];
        for (k, at) in [(0, 0), (1, 2)] {
            let dc = alpha[at].min(0.0).exp();
            let expected = ((c[k] - 1.0) * trigamma(c[k]) - (total - 2.0) * trigamma(total)) * dc;
            prop_assert!((seen[at] - expected).abs() < 1e-8 * expected.abs().max(1.0), "{seen:?} {expected}");
        }
        prop_assert_eq!(seen[1], 0.0);
    }

    #[test]
    fn rows_sum_to_one_and_samples_are_finite_also_far_out(alpha in prop::collection::vec(-30.0f64..100.0, 4), seed in 0u64..1000) {
        let d = Dirichlet::new(&spec(&[4]), 1.0);
        for kind in [Kind::Float, Kind::Double] {
            let phi = Tensor::from_slice(&alpha).to_kind(kind).set_requires_grad(true);
            let theta = sample(&d, &phi, seed);
            prop_assert!((theta.sum(Kind::Double).double_value(&[]) - 1.0).abs() < 1e-6);
            let value = (theta * Tensor::arange(4, (kind, Device::Cpu))).sum(kind);
            let g = numbers(&Tensor::run_backward(&[value], &[&phi], false, false)[0]);
            prop_assert!(g.iter().all(|g| g.is_finite()), "{g:?}");
        }
    }
}

/// ψ'(x) by ψ'(x) = ψ'(x + 1) + 1/x² up to where its asymptotic series is exact to 1e-14.
fn trigamma(x: f64) -> f64 {
    if x < 30.0 {
        return trigamma(x + 1.0) + 1.0 / (x * x);
    }
    let y = 1.0 / (x * x);
    1.0 / x + y / 2.0 + y / x * (1.0 / 6.0 - y * (1.0 / 30.0 - y * (1.0 / 42.0 - y / 30.0)))
}
