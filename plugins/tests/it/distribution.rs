//! p_φ(A) on specs that can be enumerated.

use std::collections::HashMap;

use nasfw_framework::arch::subsets;
use proptest::prelude::*;

use super::*;

/// Gradient of `f` at `at` by autograd and by central differences.
fn both_gradients(at: &Tensor, step: f64, f: impl Fn(&Tensor) -> Tensor) -> (Vec<f64>, Vec<f64>) {
    let leaf = at.detach().copy().set_requires_grad(true);
    let exact = Tensor::run_backward(&[f(&leaf)], &[&leaf], false, false);
    let differences = (0..at.size()[0])
        .map(|i| {
            let value = |sign: f64| {
                let moved = at.detach().copy();
                let _ = moved.get(i).g_add_scalar_(sign * step);
                f(&moved).double_value(&[])
            };
            (value(1.0) - value(-1.0)) / (2.0 * step)
        })
        .collect();
    (numbers(&exact[0]), differences)
}

pub fn assert_close(a: &[f64], b: &[f64], tolerance: f64, what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert!((x - y).abs() < tolerance, "{what}, entry {i}: {x} and {y}");
    }
}

/// Settings that have a discrete reading in closed form.
fn closed_forms() -> Vec<VimConfig> {
    [
        vec![],
        vec![("noise", 0.4.into()), ("topology_noise", 1.7.into())],
        vec![("form", "point".into())],
        vec![("topology", "generated".into()), ("noise", 0.7.into())],
        vec![("topology", "generated".into()), ("form", "point".into())],
        vec![("generators", "per-group".into()), ("gamma", 2.5.into())],
        vec![("noise", 0.0.into()), ("free_init_std", 1.0.into())],
    ]
    .map(|set| config(&set))
    .into()
}

#[test]
fn probabilities_sum_to_one_and_draws_have_them() {
    let spec = spec(vec![
        group("a", Role::Operations, &[(3, 1)]),
        group("b", Role::Operations, &[(3, 2)]),
        group("t", Role::Topology, &[(2, 1), (4, 2)]),
    ]);
    for (i, c) in closed_forms().iter().enumerate() {
        let (vim, phi) = build(c, &spec, i as u64);
        let d = of(&*vim);
        let p: HashMap<Choice, f64> = spec
            .enumerate()
            .map(|choice| {
                let p = log_prob(d, &phi, &choice).exp();
                (choice, p)
            })
            .collect();
        assert!((p.values().sum::<f64>() - 1.0).abs() < 1e-8, "settings {i}");
        let n = 1000;
        let mut seen: HashMap<Choice, f64> = HashMap::new();
        for k in 0..n {
            let drawn = d.draw(&phi, &mut Streams::new(5).at("draw", k));
            *seen.entry(drawn.unwrap()).or_default() += 1.0;
        }
        // Five standard deviations for every row's choice on its own, and for joint choices that are not rare.
        let near = |got: f64, want: f64, what: &str| {
            let mean = want * n as f64;
            let sd = (mean * (1.0 - want)).max(0.0).sqrt();
            assert!(
                (got - mean).abs() < 5.0 * sd + 1e-3,
                "settings {i}, {what}: {got} for {mean}"
            );
        };
        for (choice, want) in p.iter().filter(|(_, p)| **p * n as f64 > 5.0) {
            near(
                seen.get(choice).copied().unwrap_or(0.0),
                *want,
                &format!("{choice:?}"),
            );
        }
        for (g, r, _) in spec.rows() {
            let mut rows: HashMap<&[usize], (f64, f64)> = HashMap::new();
            p.iter()
                .for_each(|(c, p)| rows.entry(c.kept(g, r)).or_default().0 += p);
            seen.iter()
                .for_each(|(c, n)| rows.entry(c.kept(g, r)).or_default().1 += n);
            for (kept, (want, got)) in rows {
                near(got, want, &format!("{g} {r} {kept:?}"));
            }
        }
    }
}

/// The relaxation at temperature τ is the one without, to the power of 1/τ; what is drawn does not depend on it. Free
/// topology has a temperature of its own.
#[test]
fn a_temperature_sharpens_weights_and_leaves_draws() {
    let spec = mixed_spec();
    let at = |generated: f64, free: f64| {
        let set = [
            ("temperature", generated.into()),
            ("topology_temperature", free.into()),
        ];
        build(&config(&set), &spec, 3)
    };
    let (plain, phi) = at(1.0, 1.0);
    for (generated, free) in [(0.3, 1.0), (4.0, 0.7)] {
        let (vim, same) = at(generated, free);
        assert_eq!(numbers(&phi), numbers(&same));
        let d = of(&*vim);
        let sample = |d: &dyn ArchDistribution| {
            let mut rng = Streams::new(4).at("xi", 0);
            d.sample(&phi, &mut rng).unwrap().weights
        };
        let pairs = [
            (of(&*plain).mean(&phi).unwrap(), d.mean(&phi).unwrap()),
            (sample(of(&*plain)), sample(d)),
        ];
        for (before, after) in pairs {
            for (g, (p, q)) in before.iter().zip(&after).enumerate() {
                let tau = match spec.groups()[g].role {
                    Role::Topology => free,
                    _ => generated,
                };
                let power = p.pow_tensor_scalar(1.0 / tau);
                let want = &power / power.sum_dim_intlist([1i64].as_slice(), true, Kind::Double);
                assert_close(&numbers(&want), &numbers(q), 1e-12, &spec.groups()[g].name);
            }
        }
        for choice in spec.enumerate().take(20) {
            let p = |d: &dyn ArchDistribution| log_prob(d, &phi, &choice);
            assert_eq!(p(of(&*plain)), p(d));
        }
    }
}

/// Free topology logits are `topology_rate` times their parameters, and nothing else changes.
#[test]
fn a_rate_scales_free_topology_alone() {
    let spec = mixed_spec();
    let at = |rate: f64| build(&config(&[("topology_rate", rate.into())]), &spec, 3);
    let ((plain, phi), (fast, same)) = (at(1.0), at(5.0));
    assert_eq!(numbers(&phi), numbers(&same));
    let means = [&plain, &fast].map(|d| of(&**d).mean(&phi).unwrap());
    for (g, group) in spec.groups().iter().enumerate() {
        // softmax(5 a) is softmax(a) to the power of five.
        let power = match group.role {
            Role::Topology => means[0][g].pow_tensor_scalar(5.0),
            _ => means[0][g].shallow_clone(),
        };
        let want = &power / power.sum_dim_intlist([1i64].as_slice(), true, Kind::Double);
        assert_close(&numbers(&want), &numbers(&means[1][g]), 1e-12, &group.name);
    }
}

/// Of rows that keep k, k-hot weights are the probabilities to be in a subset of k, which has one in proportion to the product of
/// the softmax's.
#[test]
fn k_hot_weights_are_of_subsets() {
    let spec = mixed_spec();
    let at = |k_hot: bool| build(&config(&[("k_hot", k_hot.into())]), &spec, 3);
    let ((plain, phi), (k_hot, same)) = (at(false), at(true));
    assert_eq!(numbers(&phi), numbers(&same));
    let means = [&plain, &k_hot].map(|d| spec.to_marginals(&of(&**d).mean(&phi).unwrap()));
    assert!(spec.rows().any(|(_, _, row)| row.keep > 1));
    for (g, r, row) in spec.rows() {
        let p = &means[0][g][r];
        let mut want = vec![0.0; p.len()];
        for subset in subsets(p.len(), row.keep) {
            let weight: f64 = subset.iter().map(|&i| p[i]).product();
            subset.iter().for_each(|&i| want[i] += weight);
        }
        let sum: f64 = want.iter().sum();
        let want: Vec<f64> = want.iter().map(|w| w * row.keep as f64 / sum).collect();
        assert_close(&means[1][g][r], &want, 1e-12, &row.name);
    }
    // What is drawn does not depend on it.
    for choice in spec.enumerate().take(20) {
        let p = |d: &dyn ArchDistribution| log_prob(d, &phi, &choice);
        assert_eq!(p(of(&*plain)), p(of(&*k_hot)));
    }
}

/// Log-probability that `kept` of a free topology row come out on top of N(`logits`, `sigma`²), through `log_prob`.
fn log_top(logits: &[f64], sigma: f64, kept: &[usize]) -> f64 {
    let spec = spec(vec![
        group("o", Role::Operations, &[(2, 1)]),
        group("t", Role::Topology, &[(logits.len(), kept.len())]),
    ]);
    let (vim, phi) = build(&config(&[("topology_noise", sigma.into())]), &spec, 0);
    let mut at = 0;
    for (name, shape) in of(&*vim).layout().entries() {
        let n = shape.iter().product::<i64>();
        if name == "free.t" {
            phi.narrow(0, at, n).copy_(&Tensor::from_slice(logits));
        }
        at += n;
    }
    // The operations' row is independent: sum over its candidates.
    let p = [0, 1].map(|op| {
        let choice = Choice::new(vec![vec![vec![op]], vec![kept.to_vec()]]);
        log_prob(of(&*vim), &phi, &choice).exp()
    });
    (p[0] + p[1]).ln()
}

#[test]
fn the_largest_of_gaussians_has_its_closed_form() {
    for (a, b, sigma) in [
        (0.3, -0.4, 1.0),
        (0.0, 0.0, 2.0),
        (1.0, 1.5, 0.2),
        (5.0, -5.0, 3.0),
        (0.0, 1e-3, 1e-3),
    ] {
        // Φ((a − b)/(σ√2)) = (1 + erf((a − b)/(2σ)))/2.
        let x = Tensor::from((a - b) / (2.0 * sigma)).to_kind(Kind::Double);
        let want = ((x.erf() + 1.0) * 0.5).double_value(&[]);
        let got = log_top(&[a, b], sigma, &[0]).exp();
        assert!(
            (got - want).abs() < 1e-10,
            "{a} {b} {sigma}: {got} for {want}"
        );
    }
    // Equal means: every subset alike, whatever σ is.
    for sigma in [1e-6, 1.0, 1e6] {
        let p = log_top(&[2.0; 5], sigma, &[1, 3]).exp();
        assert!((p - 0.1).abs() < 1e-10, "{sigma}: {p}");
    }
    // Far apart, or with next to no noise: −gap²/4σ² and more, still finite; the grid does not grow.
    for (gap, sigma) in [(12.0f64, 1.0f64), (20.0, 1.0), (3.0, 0.2)] {
        let x = Tensor::from(-gap / (sigma * 2f64.sqrt())).to_kind(Kind::Double);
        let want = x.special_log_ndtr().double_value(&[]);
        let got = log_top(&[0.0, gap], sigma, &[0]);
        assert!(
            (got - want).abs() < 1e-8 * want.abs(),
            "{gap}: {got} for {want}"
        );
    }
    assert!(log_top(&[0.0, 1.0], 1e-9, &[1]).abs() < 1e-12);
    // The middle one is far above the others, which are even.
    let p = log_top(&[0.0, 20.0, 0.0], 1.0, &[0, 1]).exp();
    assert!((p - 0.5).abs() < 1e-10, "{p}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(12) })]

    #[test]
    fn the_mean_derives_the_most_probable_choice(
        rows in prop::collection::vec((2usize..5, 0usize..3), 1..3),
        free in any::<bool>(),
        point in any::<bool>(),
        noise in 0.2..3.0f64,
        seed in 0u64..1_000_000,
    ) {
        let rows: Vec<(usize, usize)> = rows.iter().map(|&(n, k)| (n, 1 + k % n)).collect();
        let spec = spec(vec![
            group("t", Role::Topology, &[(3, 2), (2, 1)]),
            group("o", Role::Operations, &rows),
        ]);
        let (vim, phi) = build(&config(&[
            ("form", if point { "point" } else { "sample" }.into()),
            ("topology", if free { "free" } else { "generated" }.into()),
            ("noise", noise.into()),
            ("topology_noise", (noise / 2.0).into()),
            ("free_init_std", 1.0.into()),
        ]), &spec, seed);
        let d = of(&*vim);
        let top = spec.top(&spec.to_marginals(&d.mean(&phi).unwrap()));
        let ours = log_prob(d, &phi, &top);
        let all: Vec<f64> = spec.enumerate().map(|c| log_prob(d, &phi, &c)).collect();
        prop_assert!((all.iter().map(|l| l.exp()).sum::<f64>() - 1.0).abs() < 1e-8);
        // Logits at the ReLU's floor tie, so it is the probability that must be the largest.
        prop_assert!(all.iter().all(|l| *l <= ours + 1e-9), "{ours} {all:?}");
    }
}

#[test]
fn the_gradient_of_log_prob_is_a_finite_difference() {
    let spec = mixed_spec();
    for (i, c) in closed_forms().into_iter().enumerate() {
        let (vim, phi) = build(&VimConfig { width: 3, ..c }, &spec, i as u64);
        let choice = spec.uniform(&mut Streams::new(i as u64).at("choice", 0));
        let (exact, differences) =
            both_gradients(&phi, 1e-6, |p| of(&*vim).log_prob(p, &choice).unwrap());
        assert!(exact.iter().any(|g| g.abs() > 1e-3));
        assert_close(&exact, &differences, 1e-6, &format!("settings {i}"));
    }
}

#[test]
fn there_is_no_log_prob_where_there_is_no_closed_form() {
    let spec = mixed_spec();
    let choice = spec.enumerate().next().unwrap();
    for (key, value) in [("input", "resampled"), ("form", "dropout")] {
        let (vim, phi) = build(&config(&[(key, value.into())]), &spec, 1);
        let absent = of(&*vim).log_prob(&phi, &choice).unwrap_err();
        assert!(matches!(absent, Error::HasNone { .. }), "{absent}");
        let drawn = of(&*vim)
            .draw(&phi, &mut Streams::new(1).at("draw", 0))
            .unwrap();
        drawn.check(&spec).unwrap();
    }
}

#[test]
fn the_gradient_of_a_loss_through_a_relaxed_sample_is_a_finite_difference() {
    let spec = mixed_spec();
    for form in ["sample", "point", "dropout"] {
        for input in ["fixed", "resampled"] {
            let set = [
                ("form", form.into()),
                ("input", input.into()),
                ("width", 3.into()),
            ];
            let (vim, phi) = build(&config(&set), &spec, 3);
            let (exact, differences) = both_gradients(&phi, 1e-6, |p| {
                let a = of(&*vim)
                    .sample(p, &mut Streams::new(8).at("xi", 0))
                    .unwrap();
                let terms: Vec<Tensor> = a
                    .weights
                    .iter()
                    .map(|w| {
                        let scale =
                            Tensor::arange(w.numel() as i64, (Kind::Double, Device::Cpu)) + 1.0;
                        ((w.view([-1]) - 0.3).square() * scale).sum(Kind::Double)
                    })
                    .collect();
                Tensor::stack(&terms, 0).sum(Kind::Double)
            });
            assert!(exact.iter().any(|g| g.abs() > 1e-3));
            assert_close(&exact, &differences, 1e-6, &format!("{form} {input}"));
        }
    }
}
