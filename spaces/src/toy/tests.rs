#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use nasfw_framework::prelude::*;
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

use super::planted::{Landscape, Planted, random_weights};
use super::quadratic::{Problem, Quadratic};

fn planted(rows: usize, candidates: usize, coupling: f64, landscape: u64) -> Planted {
    Planted {
        rows,
        candidates,
        coupling,
        landscape,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_planted_choice_is_the_only_best_one(rows in 2usize..5, k in 2usize..5, c in 0.0f64..=1.0, landscape in any::<u64>()) {
        let config = planted(rows, k, c, landscape);
        let (l, space) = (Landscape::new(&config), config.build().unwrap());
        let best = Choice::new(vec![l.best.iter().map(|&b| vec![b]).collect()]);
        prop_assert!((l.value(&best) - 1.0).abs() < 1e-12);
        for choice in space.spec().enumerate().filter(|x| *x != best) {
            prop_assert!(l.value(&choice) < 1.0 - 1e-9, "{choice:?}");
        }
    }

    /// The extension is the expectation over independent rows, by enumeration.
    #[test]
    fn the_extension_is_the_expected_value(rows in 2usize..5, k in 2usize..4, c in 0.0f64..=1.0, seed in any::<u64>()) {
        let config = planted(rows, k, c, seed);
        let (l, space) = (Landscape::new(&config), config.build().unwrap());
        let p = random_weights(&config, seed);
        let mean: f64 = space.spec().enumerate().map(|choice| {
            let weight: f64 = (0..rows).map(|r| p.double_value(&[r as i64, choice.kept(0, r)[0] as i64])).product();
            weight * l.value(&choice)
        }).sum();
        prop_assert!((l.extended(&p).double_value(&[]) - mean).abs() < 1e-12);
    }

    #[test]
    fn quadratic_closed_forms_are_finite_differences(problem in any::<u64>(), seed in any::<u64>(), xi in 0.01f64..1.0) {
        let q = Problem::new(&Quadratic { rows: 2, candidates: 3, dimension: 5, problem });
        let draw = |name, n| nasfw_framework::rng::normal(&mut Streams::new(seed).at(name, 0), &[n], Kind::Double, Device::Cpu);
        let (p, w) = (draw("p", 6), draw("w", 5));
        let val = |w: &Tensor| ((w - &q.b).square().sum(Kind::Double) * 0.5).double_value(&[]);
        let step = |p: &Tensor| &w - (&w - q.a.mv(p)) * xi;
        let (exact, one) = (q.hypergradient(&p), q.one_step_hypergradient(&w, &p, xi));
        for i in 0..6 {
            let mut e = vec![0.0; 6];
            e[i] = 1e-6;
            let e = Tensor::from_slice(&e);
            let slope = |f: &dyn Fn(&Tensor) -> f64| (f(&(&p + &e)) - f(&(&p - &e))) / 2e-6;
            prop_assert!((slope(&|p| val(&q.solution(p))) - exact.double_value(&[i as i64])).abs() < 1e-6);
            prop_assert!((slope(&|p| val(&step(p))) - one.double_value(&[i as i64])).abs() < 1e-6);
        }
    }
}

/// With full coupling every row, the others being uniform, prefers its decoy; without, its best candidate.
#[test]
fn coupling_misleads_row_by_row_judgement() {
    for (coupling, misled) in [(0.0, false), (1.0, true)] {
        for landscape in 0..5 {
            let config = planted(4, 4, coupling, landscape);
            let (l, space) = (Landscape::new(&config), config.build().unwrap());
            for row in 0..4 {
                let mut sums = [0.0; 4];
                for choice in space.spec().enumerate() {
                    sums[choice.kept(0, row)[0]] += l.value(&choice);
                }
                let preferred = (0..4).max_by(|a, b| sums[*a].total_cmp(&sums[*b])).unwrap();
                let expected = if misled { l.decoy[row] } else { l.best[row] };
                assert_eq!(
                    preferred, expected,
                    "coupling {coupling}, landscape {landscape}, row {row}"
                );
            }
        }
    }
}

#[test]
fn genotypes_go_there_and_back() {
    let quadratic = Quadratic {
        rows: 2,
        candidates: 3,
        dimension: 5,
        problem: 1,
    };
    let spaces: [Box<dyn SearchSpace>; 3] = [
        planted(3, 3, 0.5, 0).build().unwrap(),
        quadratic.build().unwrap(),
        super::conv::ToyConv { channels: 2 }.build().unwrap(),
    ];
    for space in spaces {
        for choice in space.spec().enumerate() {
            let genotype = space.genotype(&choice);
            genotype.check().unwrap();
            assert_eq!(space.choice(&genotype).unwrap(), choice);
        }
        let nothing = Genotype {
            space: "x".into(),
            cells: vec![],
        };
        assert!(space.choice(&nothing).is_err());
    }
}

/// A one-hot architecture computes what is chosen and nothing else: masked candidates change nothing.
#[test]
fn masks_of_the_tiny_cell_change_nothing() {
    let space = super::conv::ToyConv { channels: 3 }.build().unwrap();
    let task = Task {
        channels: 2,
        height: 5,
        width: 5,
        classes: 4,
    };
    let net = space.supernet(task, &SupernetOptions::default()).unwrap();
    let params = net
        .layout()
        .init(Streams::new(1), Kind::Double, Device::Cpu);
    let stats = net
        .stats_layout()
        .init(Streams::new(1), Kind::Double, Device::Cpu);
    let weights = Weights {
        params: &params,
        stats: &stats,
    };
    let images = nasfw_framework::rng::normal(
        &mut Streams::new(2).at("x", 0),
        &[4, 2, 5, 5],
        Kind::Double,
        Device::Cpu,
    );
    for choice in space.spec().enumerate() {
        let masked = choice.one_hot(space.spec(), Kind::Double, Device::Cpu);
        let dense = RelaxedArch::new(masked.weights.iter().map(Tensor::copy).collect());
        let a = net
            .forward(weights, &images, &masked, Mode::Train, Streams::new(0))
            .unwrap();
        let b = net
            .forward(weights, &images, &dense, Mode::Train, Streams::new(0))
            .unwrap();
        assert!((a - b).abs().max().double_value(&[]) < 1e-12);
    }
}
