//! What models are worth, on functions that are known.

use nasfw_framework::benchmark::Benchmark;

use super::*;

#[test]
fn unseen_architectures_are_ranked_and_their_intervals_hold() {
    let Example {
        unseen, surrogate, ..
    } = example();
    let (mut truth, mut said, mut inside) = (vec![], vec![], [0; LEVELS.len()]);
    for (genotype, value) in unseen {
        let Some(Answer::Predicted(p)) = surrogate.answer(genotype).unwrap() else {
            panic!("this one is not known");
        };
        for (count, [low, high]) in inside.iter_mut().zip(p.intervals) {
            assert!(low <= p.value && p.value <= high, "{p:?}");
            *count += usize::from((low..=high).contains(value));
        }
        truth.push(*value);
        said.push(p.value);
    }
    // The formula itself reaches 0.89 here, for it does not know the noise; the number of vertices alone 0.3.
    let reached = tau(&truth, &said);
    assert!(reached > 0.78, "τ {reached}");
    let figures = &surrogate.about.figures;
    assert!(
        (figures.tau.unwrap() - reached).abs() < 0.05,
        "{figures} {reached}"
    );
    assert!(figures.r2 > 0.8 && figures.error < 0.6, "{figures}");
    for ((level, count), held) in LEVELS.iter().zip(inside).zip(figures.inside) {
        let share = count as f64 / unseen.len() as f64;
        assert!((share - level).abs() < 0.07, "{share} of {level}");
        assert!((held - level).abs() < 0.03, "{held} of {level}");
    }
}

#[test]
fn intervals_are_wider_where_values_are_noisier() {
    let Example {
        unseen, surrogate, ..
    } = example();
    let mut widths = [vec![], vec![]];
    for (genotype, _) in unseen {
        if let Some(Answer::Predicted(p)) = surrogate.answer(genotype).unwrap() {
            let [low, high] = p.intervals[1];
            widths[usize::from(worth(genotype) < 90.0)].push(high - low);
        }
    }
    let [quiet, noisy] = widths.map(|w| w.iter().sum::<f64>() / w.len() as f64);
    assert!(noisy > 1.3 * quiet, "{noisy} {quiet}");
}

#[test]
fn values_that_mean_nothing_are_said_to_mean_nothing() {
    // Everybody gets somebody else's value.
    let mut shuffled = cells(420, 3);
    let values: Vec<f64> = shuffled.iter().map(|c| c.1).collect();
    for (i, cell) in shuffled.iter_mut().enumerate() {
        cell.1 = values[(i * 101 + 7) % values.len()];
    }
    let figures = surrogate(rows(&shuffled), 0).about.figures;
    assert!(
        figures.tau.unwrap().abs() < 0.2 && figures.r2 < 0.2,
        "{figures}"
    );
    // Its intervals hold all the same, for they are wide.
    assert!((figures.inside[1] - 0.8).abs() < 0.07, "{figures}");
}

#[test]
fn what_is_known_is_answered_exactly_and_what_is_predicted_is_marked() {
    let Example {
        known,
        unseen,
        surrogate,
    } = example();
    let benchmark: &dyn Benchmark = surrogate;
    let best = known.iter().map(|c| c.1).fold(f64::MIN, f64::max);
    assert_eq!(benchmark.optimum()["valid"], best);
    for (genotype, value) in known {
        let score = benchmark.query(genotype).unwrap().unwrap();
        assert_eq!(score.metrics["valid"].to_bits(), value.to_bits());
        assert!(score.predicted.is_empty());
    }
    for (genotype, _) in unseen {
        let score = benchmark.query(genotype).unwrap().unwrap();
        let [low, high] = score.predicted["valid"];
        assert!(low < high && score.metrics["valid"] <= best);
    }
    let said = benchmark.provenance();
    assert!(said.source.contains("Kendall's τ 0."), "{}", said.source);
    assert!(
        said.optimum.contains("700 architectures"),
        "{}",
        said.optimum
    );
}

#[test]
fn too_little_to_learn_from_is_refused() {
    let some = cells(90, 4);
    let few = fit(&rows(&some[..20]), 0, |_, _| {}).unwrap_err();
    assert!(
        few.to_string().contains("20 architectures are too few"),
        "{few}"
    );
    let same: Vec<_> = some.into_iter().map(|(g, _)| (g, 7.0)).collect();
    let same = fit(&rows(&same), 0, |_, _| {}).unwrap_err();
    assert!(
        same.to_string()
            .contains("all architectures have the same value"),
        "{same}"
    );
}
