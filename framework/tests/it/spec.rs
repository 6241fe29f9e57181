//! ArchSpec, Choice and the independent softmax.

use std::collections::{HashMap, HashSet};

use nasfw_framework::arch::{row_entropy, subsets};
use nasfw_framework::prelude::*;
use nasfw_framework::rng;
use proptest::prelude::*;
use proptest::strategy::Strategy as _;
use tch::{Device, Kind, Tensor};

fn row(name: &str, n: usize, keep: usize) -> Row {
    Row {
        name: name.into(),
        candidates: (0..n).map(|c| c.to_string()).collect(),
        keep,
    }
}

fn group(name: &str, rows: Vec<Row>) -> Group {
    Group {
        name: name.into(),
        role: Role::Operations,
        rows,
        edges: None,
    }
}

prop_compose! {
    fn any_spec()(rows in prop::collection::vec(prop::collection::vec((1usize..5, 0usize..3), 1..4), 1..3)) -> ArchSpec {
        ArchSpec::new(rows.iter().enumerate().map(|(g, rows)| Group {
            name: format!("g{g}"),
            role: Role::Operations,
            rows: rows.iter().enumerate().map(|(r, &(n, k))| Row {
                name: format!("r{r}"),
                candidates: (0..n).map(|c| format!("c{c}")).collect(),
                keep: 1 + k % n,
            }).collect(), edges: None }).collect()).unwrap()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn enumeration_is_complete_and_valid(spec in any_spec()) {
        let all: Vec<Choice> = spec.enumerate().collect();
        let distinct: HashSet<&Choice> = all.iter().collect();
        prop_assert_eq!(distinct.len(), all.len());
        prop_assert_eq!(all.len() as f64, spec.size());
        for c in &all { c.check(&spec).unwrap(); }
        let drawn = spec.uniform(&mut Streams::new(3).at("u", 0));
        prop_assert!(distinct.contains(&drawn));
    }

    #[test]
    fn top_undoes_one_hot(spec in any_spec(), seed in any::<u64>()) {
        let choice = spec.uniform(&mut Streams::new(seed).at("u", 0));
        let arch = choice.one_hot(&spec, Kind::Double, Device::Cpu);
        prop_assert_eq!(&spec.top(&spec.to_marginals(&arch.weights)), &choice);
        for (g, r, row) in spec.rows() {
            for c in 0..row.candidates.len() {
                prop_assert_eq!(arch.is_active(g, r, c), choice.kept(g, r).contains(&c));
            }
        }
    }

    #[test]
    fn softmax_rows_sum_to_one_and_padding_is_zero(spec in any_spec(), seed in any::<u64>()) {
        let logits = rng::normal(&mut Streams::new(seed).at("a", 0), &[spec.numel()], Kind::Double, Device::Cpu) * 5.0;
        for (m, g) in spec.softmax(&logits).iter().zip(spec.groups()) {
            let sums = m.sum_dim_intlist([-1i64].as_slice(), false, Kind::Double);
            prop_assert!((sums - 1.0).abs().max().double_value(&[]) < 1e-12);
            let outside = m.masked_select(&g.mask(Device::Cpu).logical_not());
            prop_assert!(outside.numel() == 0 || outside.abs().max().double_value(&[]) == 0.0);
        }
    }

    #[test]
    fn relabelling_candidates_permutes_the_result(seed in any::<u64>()) {
        let row = |names: [&str; 4]| Group {
            name: "g".into(), role: Role::Operations,
            rows: vec![Row { name: "r".into(), candidates: names.map(str::to_owned).to_vec(), keep: 2 }], edges: None };
        let spec = ArchSpec::new(vec![row(["a", "b", "c", "d"])]).unwrap();
        let w = rng::uniform(&mut Streams::new(seed).at("a", 0), &[1, 4], Kind::Double, Device::Cpu);
        let back = w.flip([1]);
        let (a, b) = (spec.top(&spec.to_marginals(&[w])), spec.top(&spec.to_marginals(&[back])));
        let mut mirrored: Vec<usize> = b.kept(0, 0).iter().map(|i| 3 - i).collect();
        mirrored.sort_unstable();
        prop_assert_eq!(a.kept(0, 0), mirrored.as_slice());
    }
}

#[test]
fn bad_specs_are_refused() {
    for (groups, says) in [
        (vec![], "no groups"),
        (vec![group("a", vec![])], "no rows"),
        (vec![group("a", vec![row("r", 2, 0)])], "keeps 0 of 2"),
        (vec![group("a", vec![row("r", 2, 3)])], "keeps 3 of 2"),
        (
            vec![group("a", vec![row("r", 2, 1), row("r", 2, 1)])],
            "two rows named `r`",
        ),
        (
            vec![
                group("a", vec![row("r", 2, 1)]),
                group("a", vec![row("r", 2, 1)]),
            ],
            "two groups",
        ),
    ] {
        let message = ArchSpec::new(groups).unwrap_err().to_string();
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn entropy_is_one_when_uniform_and_zero_when_decided() {
    let spec = |rows| ArchSpec::new(vec![group("a", rows)]).unwrap();
    let uniform = spec(vec![row("r", 4, 1), row("s", 2, 1), row("t", 4, 3)]);
    let weights = vec![vec![vec![0.25; 4], vec![0.5; 2], vec![0.75; 4]]];
    assert!((uniform.entropy(&weights) - 1.0).abs() < 1e-12);
    assert_eq!(
        spec(vec![row("r", 2, 1)]).entropy(&vec![vec![vec![0.0, 1.0]]]),
        0.0
    );
    // One uniform and one decided row; rows without a choice do not count.
    let half = spec(vec![
        row("r", 2, 1),
        row("s", 2, 1),
        row("t", 1, 1),
        row("u", 2, 2),
    ]);
    let weights = vec![vec![
        vec![0.5, 0.5],
        vec![1.0, 0.0],
        vec![1.0],
        vec![0.9, 0.1],
    ]];
    assert!((half.entropy(&weights) - 0.5).abs() < 1e-12);
    assert!((half.groups()[0].entropy(&weights[0]) - 0.5).abs() < 1e-12);
    assert_eq!(row_entropy(&[0.0, 0.0], 1), 0.0);
    assert!(row_entropy(&[f64::NAN, 1.0], 1).is_nan());
    // Two of three are kept: between the two and uniform it is (H - log 2) / (log 3 - log 2).
    assert_eq!(row_entropy(&[0.5, 0.5, 0.0], 2), 0.0);
    assert_eq!(row_entropy(&[1.0, 0.0, 0.0], 2), 0.0);
    let between = (1.5 * 2.0_f64.ln() - 2.0_f64.ln()) / 1.5_f64.ln();
    assert!((row_entropy(&[0.5, 0.25, 0.25], 2) - between).abs() < 1e-12);
}

#[test]
fn sharpness_is_the_largest_weight_or_the_share_of_what_is_kept() {
    let spec = ArchSpec::new(vec![group("a", vec![row("r", 3, 1), row("s", 4, 2)])]).unwrap();
    let sharpness = |one: &[f64], two: &[f64]| spec.sharpness(&vec![vec![one.into(), two.into()]]);
    assert_eq!(sharpness(&[0.0, 1.0, 0.0], &[1.0, 0.0, 1.0, 0.0]), 1.0);
    assert_eq!(sharpness(&[0.25, 0.25, 0.5], &[0.5; 4]), 0.5);
    assert_eq!(sharpness(&[0.5, 0.25, 0.25], &[0.25, 0.75, 0.0, 0.0]), 0.75);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    /// Against the sum over all subsets, its gradient too: the covariance of what is kept.
    #[test]
    fn subset_softmax_is_the_probability_to_be_kept(
        sizes in prop::collection::vec((1usize..6).prop_flat_map(|n| (Just(n), 1..=n)), 1..4),
        logits in prop::collection::vec(-8.0f64..8.0, 15),
        scale in prop::sample::select(vec![1.0, 30.0]),
    ) {
        let rows = sizes.iter().enumerate().map(|(i, (n, keep))| row(&format!("r{i}"), *n, *keep));
        let group = group("a", rows.collect());
        let [height, width] = group.shape();
        let logits: Vec<f64> = logits[..(height * width) as usize].iter().map(|x| x * scale).collect();
        let leaf = Tensor::from_slice(&logits).view([height, width]).set_requires_grad(true);
        let weights = group.subset_softmax(&leaf);
        let logs: Vec<f64> = group.log_subsets(&leaf).try_into().unwrap();
        // The gradient of the first candidate's probability of every row.
        weights.select(1, 0).sum(Kind::Double).backward();
        let gradient: Vec<f64> = leaf.grad().reshape([-1]).try_into().unwrap();
        let weights: Vec<f64> = weights.reshape([-1]).try_into().unwrap();
        for (r, &(n, keep)) in sizes.iter().enumerate() {
            let at = r * width as usize;
            let logits = &logits[at..at + n];
            let sums: Vec<(Vec<usize>, f64)> = subsets(n, keep)
                .into_iter()
                .map(|kept| { let sum = kept.iter().map(|&i| logits[i]).sum(); (kept, sum) })
                .collect();
            let most = sums.iter().map(|(_, sum)| *sum).fold(f64::MIN, f64::max);
            let total: f64 = sums.iter().map(|(_, sum)| (sum - most).exp()).sum();
            prop_assert!((logs[r] - most - total.ln()).abs() < 1e-9, "{logs:?}");
            let with = |all: &[usize]| -> f64 {
                let with = sums.iter().filter(|(kept, _)| all.iter().all(|i| kept.contains(i)));
                with.map(|(_, sum)| (sum - most).exp() / total).sum()
            };
            for i in 0..n {
                prop_assert!((weights[at + i] - with(&[i])).abs() < 1e-9, "{weights:?}");
                let covariance = with(&[0, i]) - with(&[0]) * with(&[i]);
                prop_assert!((gradient[at + i] - covariance).abs() < 1e-9, "{gradient:?}");
            }
            prop_assert!(weights[at + n..at + width as usize].iter().all(|w| *w == 0.0));
        }
    }
}

#[test]
fn plackett_luce_sums_to_one_and_matches_its_draws() {
    let spec = ArchSpec::new(vec![Group {
        name: "g".into(),
        role: Role::Topology,
        rows: vec![
            Row {
                name: "a".into(),
                candidates: ["x", "y", "z", "w"].map(Into::into).to_vec(),
                keep: 2,
            },
            Row {
                name: "b".into(),
                candidates: ["x", "y", "z"].map(Into::into).to_vec(),
                keep: 1,
            },
        ],
        edges: None,
    }])
    .unwrap();
    let d = IndependentSoftmax::new(&spec, 1.0);
    let phi = d.init(Streams::new(7), Kind::Double, Device::Cpu);
    let p: HashMap<Choice, f64> = spec
        .enumerate()
        .map(|c| {
            let lp = d.log_prob(&phi, &c).unwrap().double_value(&[]);
            (c, lp.exp())
        })
        .collect();
    assert!((p.values().sum::<f64>() - 1.0).abs() < 1e-12);
    let n = 20_000;
    let mut seen: HashMap<Choice, f64> = HashMap::new();
    for i in 0..n {
        let c = d.draw(&phi, &mut Streams::new(1).at("draw", i)).unwrap();
        *seen.entry(c).or_default() += 1.0 / n as f64;
    }
    for (c, want) in &p {
        let got = seen.get(c).copied().unwrap_or(0.0);
        // Five standard deviations of a binomial.
        assert!(
            (got - want).abs() < 5.0 * (want * (1.0 - want) / n as f64).sqrt() + 1e-9,
            "{c:?}: {got} {want}"
        );
    }
    let best = p.iter().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
    assert_eq!(best, &spec.top(&spec.to_marginals(&d.mean(&phi).unwrap())));
}

#[test]
fn gradient_of_log_prob_is_a_finite_difference() {
    let spec = ArchSpec::new(vec![Group {
        name: "g".into(),
        role: Role::Topology,
        rows: vec![
            Row {
                name: "a".into(),
                candidates: ["x", "y", "z", "w"].map(Into::into).to_vec(),
                keep: 3,
            },
            Row {
                name: "b".into(),
                candidates: ["x", "y"].map(Into::into).to_vec(),
                keep: 1,
            },
        ],
        edges: None,
    }])
    .unwrap();
    let d = IndependentSoftmax::new(&spec, 1.0);
    let phi = d
        .init(Streams::new(9), Kind::Double, Device::Cpu)
        .set_requires_grad(true);
    let choice = spec.enumerate().nth(3).unwrap();
    let f = |phi: &Tensor| d.log_prob(phi, &choice).unwrap();
    let grad = &Tensor::run_backward(&[f(&phi)], &[&phi], false, false)[0];
    for i in 0..spec.numel() {
        let mut e = vec![0.0; spec.numel() as usize];
        e[i as usize] = 1e-6;
        let e = Tensor::from_slice(&e);
        let base = phi.detach();
        let fd = (f(&(&base + &e)) - f(&(&base - &e))).double_value(&[]) / 2e-6;
        assert!(
            (fd - grad.double_value(&[i])).abs() < 1e-7,
            "{i}: {fd} {}",
            grad.double_value(&[i])
        );
    }
}
