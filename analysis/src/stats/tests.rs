//! Against values that SciPy computed (`testdata/scipy_values.py`), and laws that hold for all data.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn scipy(section: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("testdata/scipy.json")).unwrap();
    all[section].as_array().unwrap().clone()
}

fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().unwrap();
    list.iter().map(|v| v.as_f64().unwrap()).collect()
}

fn near(ours: f64, theirs: &Value, tolerance: f64) -> bool {
    let theirs = theirs.as_f64().unwrap();
    (ours - theirs).abs() <= tolerance * (1.0 + theirs.abs())
}

fn differences(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// What a table says of repeated measurements: mean, standard deviation, interval.
type Summarise = fn(&[f64], &mut [f64], f64) -> (f64, f64, [f64; 2]);

fn ours(x: &[f64], resampled: &mut [f64], confidence: f64) -> (f64, f64, [f64; 2]) {
    let interval = bca(x, resampled, confidence).unwrap();
    (mean(x).unwrap(), sample_sd(x).unwrap(), interval)
}

/// What differs from NumPy and SciPy.
fn check(summarise: Summarise) -> Vec<String> {
    let mut wrong = vec![];
    for case in scipy("bootstrap") {
        let confidence = case["confidence"].as_f64().unwrap();
        let x = numbers(&case["x"]);
        let (mean, sd, [low, high]) = summarise(&x, &mut numbers(&case["resamples"]), confidence);
        for (what, value) in [("mean", mean), ("sd", sd), ("low", low), ("high", high)] {
            if !near(value, &case[what], 1e-9) {
                wrong.push(format!("{what} of {} values: {value}", x.len()));
            }
        }
    }
    wrong
}

#[test]
fn summaries_are_those_of_numpy_and_scipy() {
    assert_eq!(check(ours), Vec::<String>::new());
}

/// A published tool's tables had intervals of 1.95 *population* standard deviations (n in the denominator): too narrow
/// for few repeats, whatever their shape. The check must notice each of the two mistakes.
#[test]
fn the_check_rejects_population_deviations_and_a_factor_of_1_95() {
    fn planted(x: &[f64], _: &mut [f64], _: f64) -> (f64, f64, [f64; 2]) {
        let mean = mean(x).unwrap();
        let squares: f64 = x.iter().map(|v| (v - mean).powi(2)).sum();
        let sd = (squares / x.len() as f64).sqrt();
        let half = 1.95 * sd / (x.len() as f64).sqrt();
        (mean, sd, [mean - half, mean + half])
    }
    let wrong = check(planted);
    for what in ["sd", "low", "high"] {
        let count = wrong.iter().filter(|w| w.starts_with(what)).count();
        assert_eq!(count, scipy("bootstrap").len(), "{what}: {wrong:?}");
    }
    assert!(!wrong.iter().any(|w| w.starts_with("mean")), "{wrong:?}");
}

#[test]
fn wilcoxon_is_that_of_scipy() {
    for case in scipy("wilcoxon") {
        let d = differences(&numbers(&case["a"]), &numbers(&case["b"]));
        let p = wilcoxon(&d).p;
        assert!(
            near(p, &case["p"], 1e-9),
            "{} pairs: {p}, SciPy {}",
            d.len(),
            case["p"]
        );
    }
}

#[test]
fn friedman_is_that_of_scipy() {
    for case in scipy("friedman") {
        let table: Vec<_> = case["table"]
            .as_array()
            .unwrap()
            .iter()
            .map(numbers)
            .collect();
        let f = friedman(&table).unwrap();
        assert!(near(f.chi_squared, &case["chi_squared"], 1e-9));
        assert!(near(f.p, &case["p"], 1e-9));
        assert!(
            f.average
                .iter()
                .zip(numbers(&case["ranks"]))
                .all(|(a, b)| (a - b).abs() < 1e-12)
        );
    }
}

#[test]
fn studentized_ranges_are_those_of_scipy_and_of_demsar() {
    for case in scipy("studentized_range") {
        let (k, level) = (
            case["k"].as_u64().unwrap() as usize,
            case["level"].as_f64().unwrap(),
        );
        let q = studentized_range_quantile(k, level).unwrap();
        assert!(
            near(q, &case["q"], 1e-6),
            "{k} {level}: {q}, SciPy {}",
            case["q"]
        );
    }
    // Demšar 2006, table 5(a): q at 0.05 for 2 to 10 classifiers.
    let table = [
        1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164,
    ];
    for (k, q) in (2..).zip(table) {
        let ours = studentized_range_quantile(k, 0.05).unwrap() / 2_f64.sqrt();
        assert!((ours - q).abs() < 1.1e-3, "{k}: {ours}, table {q}");
    }
    // His example: 4 classifiers on 14 data sets, critical difference 1.25.
    assert!((critical_difference(4, 14, 0.05).unwrap() - 1.25).abs() < 0.01);
}

#[test]
fn kendall_is_that_of_scipy() {
    for case in scipy("kendall") {
        let (x, y) = (numbers(&case["x"]), numbers(&case["y"]));
        let k = kendall(&x, &y).unwrap();
        assert!(
            near(k.tau, &case["tau"], 1e-12),
            "{}: {}",
            case["tau"],
            k.tau
        );
        assert!(
            near(k.p, &case["p"], 1e-9),
            "{} pairs: {}, SciPy {}",
            x.len(),
            k.p,
            case["p"]
        );
    }
}

/// Holm's own rule, step by step: reject the smallest while p(i) ≤ level / (tests left).
fn holm_rejects(p: &[f64], level: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut rejected = vec![false; p.len()];
    for (done, i) in order.into_iter().enumerate() {
        if p[i] * (p.len() - done) as f64 > level {
            break;
        }
        rejected[i] = true;
    }
    rejected
}

#[test]
fn small_cases() {
    assert_eq!((mean(&[]), sample_sd(&[1.0])), (None, None));
    assert_eq!(sample_sd(&[2.0, 4.0]), Some(2_f64.sqrt()));
    assert_eq!(wilcoxon(&[0.0; 4]).p, 1.0);
    assert_eq!(rank_biserial(&[0.0; 4]), 0.0);
    assert_eq!(cohen_dz(&[1.0, 1.0]), None);
    assert!((cohen_dz(&[1.0, 3.0]).unwrap() - 2_f64.sqrt()).abs() < 1e-12);
    assert_eq!(bca(&[3.0, 3.0], &mut [3.0; 5], 0.95), Some([3.0, 3.0]));
    assert_eq!(Bootstrap::new(1, 99, 0).interval(&[1.0], 0.95), None);
    assert_eq!(kendall(&[1.0, 1.0], &[1.0, 2.0]), None);
    assert_eq!(friedman(&[vec![1.0, 1.0], vec![2.0, 2.0]]).unwrap().p, 1.0);
    assert!(friedman(&[]).is_none() && friedman(&[vec![1.0, 2.0], vec![1.0]]).is_none());
    // With 5 pairs nothing can be significant at 0.05, with 6 it can.
    for n in 1..12 {
        assert!((wilcoxon(&vec![1.0; n]).p - smallest_p(n)).abs() < 1e-15);
    }
    assert!(smallest_p(5) > 0.05 && smallest_p(6) < 0.05);
    // Halves of the budget at 4 and 1, then a change at its very end and one beyond.
    let curve = StepFunction::new(vec![(0.0, 4.0), (5.0, 1.0), (10.0, 9.0), (12.0, 7.0)]).unwrap();
    assert_eq!(
        [curve.at(-1.0), curve.at(4.9), curve.at(5.0), curve.at(99.0)],
        [4.0, 4.0, 1.0, 7.0]
    );
    assert_eq!((curve.mean(10.0), curve.mean(4.0)), (2.5, 4.0));
    assert!(StepFunction::new(vec![]).is_none());
}

fn measurements(n: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Vec<f64>> {
    // Quarters from a small range, so that ties happen.
    proptest::collection::vec((-40_i32..40).prop_map(|v| f64::from(v) / 4.0), n)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pairs_may_come_in_any_order(d in measurements(1..30), by in 0_usize..30) {
        let mut turned = d.clone();
        turned.rotate_left(by % d.len());
        turned.reverse();
        prop_assert_eq!(wilcoxon(&d), wilcoxon(&turned));
        prop_assert!((rank_biserial(&d) - rank_biserial(&turned)).abs() < 1e-12);
    }

    #[test]
    fn swapping_sides_flips_the_sign_and_keeps_p(d in measurements(2..70)) {
        let swapped: Vec<f64> = d.iter().map(|v| -v).collect();
        prop_assert!((wilcoxon(&d).p - wilcoxon(&swapped).p).abs() < 1e-12);
        prop_assert_eq!(rank_biserial(&d), -rank_biserial(&swapped));
        match (cohen_dz(&d), cohen_dz(&swapped)) {
            (Some(a), Some(b)) => prop_assert!((a + b).abs() < 1e-9),
            (a, b) => prop_assert_eq!(a, b),
        }
    }

    /// Up to 12 pairs every assignment of signs can be tried.
    #[test]
    fn exact_p_is_the_share_of_sign_assignments_that_are_as_extreme(d in measurements(1..11)) {
        let d: Vec<f64> = d.into_iter().filter(|v| *v != 0.0).collect();
        let r = ranks(&d.iter().map(|v| v.abs()).collect::<Vec<_>>());
        let all: f64 = r.iter().sum();
        let extreme = |positive: f64| (positive - all / 2.0).abs();
        let seen = extreme(wilcoxon(&d).positive) - 1e-9;
        let count = (0..1_u32 << d.len())
            .filter(|signs| {
                let positive = r.iter().enumerate().filter(|(i, _)| signs >> i & 1 == 1);
                extreme(positive.map(|(_, r)| r).sum()) >= seen
            })
            .count();
        let p = count as f64 / f64::from(1_u32 << d.len());
        prop_assert!((wilcoxon(&d).p - p).abs() < 1e-12);
    }

    #[test]
    fn monotone_transforms_keep_ranks(x in measurements(1..40), y in measurements(40)) {
        let transformed: Vec<f64> = x.iter().map(|v| (v / 3.0).exp() + 7.0).collect();
        prop_assert_eq!(ranks(&x), ranks(&transformed));
        prop_assert_eq!(kendall(&x, &y[..x.len()]), kendall(&transformed, &y[..x.len()]));
        let table = |v: &[f64]| v.chunks_exact(3).map(<[f64]>::to_vec).collect::<Vec<_>>();
        prop_assert_eq!(friedman(&table(&x)), friedman(&table(&transformed)));
    }

    #[test]
    fn ranks_sum_up(x in measurements(1..40)) {
        let n = x.len() as f64;
        prop_assert_eq!(ranks(&x).iter().sum::<f64>(), n * (n + 1.0) / 2.0);
        prop_assert_eq!(tie_sizes(&x).iter().sum::<usize>(), x.len());
    }

    #[test]
    fn holm_is_no_smaller_than_p_keeps_their_order_and_rejects_as_holm_said(
        p in proptest::collection::vec(0.0_f64..1.0, 1..12), scale in 0.01_f64..1.0,
    ) {
        let p: Vec<f64> = p.iter().map(|p| p * scale).collect();
        let adjusted = holm(&p);
        for i in 0..p.len() {
            prop_assert!(adjusted[i] >= p[i] && adjusted[i] <= 1.0);
            for j in 0..p.len() {
                prop_assert!(p[i] > p[j] || adjusted[i] <= adjusted[j]);
            }
        }
        let rejected: Vec<bool> = adjusted.iter().map(|a| *a <= 0.05).collect();
        prop_assert_eq!(rejected, holm_rejects(&p, 0.05));
    }

    #[test]
    fn tau_of_an_order_with_itself_is_one(x in proptest::collection::btree_set(-500_i32..500, 2..30)) {
        let x: Vec<f64> = x.into_iter().map(f64::from).collect();
        let turned: Vec<f64> = x.iter().rev().copied().collect();
        prop_assert!((kendall(&x, &x).unwrap().tau - 1.0).abs() < 1e-12);
        prop_assert!((kendall(&x, &turned).unwrap().tau + 1.0).abs() < 1e-12);
    }

    #[test]
    fn intervals_contain_the_mean_and_move_with_the_data(x in measurements(3..20), shift in -8_i32..8) {
        let bootstrap = Bootstrap::new(x.len(), 999, 1);
        let [low, high] = bootstrap.interval(&x, 0.95).unwrap();
        let mean = mean(&x).unwrap();
        prop_assert!(low <= mean + 1e-12 && mean <= high + 1e-12, "{} {} {}", low, mean, high);
        let moved: Vec<f64> = x.iter().map(|v| v + f64::from(shift)).collect();
        let [l, h] = bootstrap.interval(&moved, 0.95).unwrap();
        // Rounding can move a resample that equals the mean to its other side, so the ends move by a few resamples.
        let slack = (high - low) * 0.2 + 1e-9;
        prop_assert!((l - low - f64::from(shift)).abs() < slack && (h - high - f64::from(shift)).abs() < slack);
        let [inner_low, inner_high] = bootstrap.interval(&x, 0.5).unwrap();
        prop_assert!(low <= inner_low + 1e-12 && inner_high <= high + 1e-12);
    }

    #[test]
    fn the_mean_of_a_curve_is_that_of_its_values_on_a_fine_grid(
        points in proptest::collection::vec((0_u32..100, -5_i32..5), 1..10), budget in 1_u32..120,
    ) {
        let points: Vec<(f64, f64)> = points.iter().map(|(x, y)| (f64::from(*x), f64::from(*y))).collect();
        let curve = StepFunction::new(points).unwrap();
        let sum: f64 = (0..budget).map(|x| curve.at(f64::from(x))).sum();
        prop_assert!((curve.mean(f64::from(budget)) - sum / f64::from(budget)).abs() < 1e-9);
    }
}

/// The same values four times over: the interval of the mean is half as wide.
#[test]
fn intervals_shrink_with_the_root_of_the_number() {
    let x: Vec<f64> = (0..30).map(|i| f64::from(i * i % 31)).collect();
    let width = |times: usize| {
        let x = x.repeat(times);
        let [low, high] = Bootstrap::new(x.len(), 9999, 3).interval(&x, 0.95).unwrap();
        high - low
    };
    let ratio = width(1) / width(4);
    assert!((ratio - 2.0).abs() < 0.1, "{ratio}");
}

/// Nominal 95 %: what intervals of few and of many normal measurements really cover.
#[test]
fn intervals_cover_what_the_documentation_says() {
    use rand::{RngExt, SeedableRng};
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
    let mut covered = |n: usize| {
        let bootstrap = Bootstrap::new(n, 499, 4);
        let hit = |_| {
            // Sums of 12 uniform numbers are normal enough.
            let mut one = || (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
            let x: Vec<f64> = (0..n).map(|_| one()).collect();
            let [low, high] = bootstrap.interval(&x, 0.95).unwrap();
            low <= 0.0 && 0.0 <= high
        };
        (0..1000).map(hit).filter(|hit| *hit).count() as f64 / 1000.0
    };
    let (few, many) = (covered(5), covered(20));
    assert!(
        (0.80..0.90).contains(&few) && (0.90..0.96).contains(&many),
        "{few} {many}"
    );
}
