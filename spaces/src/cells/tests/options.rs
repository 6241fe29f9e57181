//! What a strategy may ask of a supernet: against the plain network, and against what it must come to.

use nasfw_framework::rng::normal;
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

use super::networks::*;
use super::reference::ILL;
use super::*;

/// Options drawn from a seed; every second time each is asked for. Channels fill fused kernels or not.
fn any_options(space: &CellSpace, seed: u64) -> SupernetOptions {
    let rng = &mut Streams::new(seed).at("options", 0);
    let k = *[1, 1, 2, 4].choose(rng).unwrap();
    let allowed = rng.random_bool(0.5).then(|| {
        let groups = space.spec().groups().iter();
        let mut row = |row: &Row| {
            row.candidates
                .iter()
                .map(|_| rng.random_bool(0.7))
                .collect()
        };
        groups
            .map(|g| g.rows.iter().map(&mut row).collect())
            .collect()
    });
    SupernetOptions {
        channels: Some(k * *[2, 4].choose(rng).unwrap()),
        allowed,
        partial_channels: (k > 1 || rng.random_bool(0.5)).then_some(k),
        auxiliary_skip: rng.random_bool(0.5),
        skip_dropout: rng.random_bool(0.5),
        drop_path: rng.random_bool(0.4),
        plain: rng.random_bool(0.3),
        ..Default::default()
    }
}

/// An architecture with a mask, scalars and offsets, each every second time.
fn any_arch(space: &CellSpace, seed: u64) -> RelaxedArch {
    let rng = &mut Streams::new(seed).at("arch", 0);
    let mut arch = RelaxedArch::new(relaxed(space, seed, rng.random_bool(0.5)));
    if rng.random_bool(0.5) {
        let active: Vec<Vec<Vec<bool>>> = (space.spec().groups().iter())
            .map(|g| {
                let row = |row: &Row| {
                    row.candidates
                        .iter()
                        .map(|_| rng.random_bool(0.6))
                        .collect()
                };
                g.rows.iter().map(row).collect()
            })
            .collect();
        for (weights, active) in arch.weights.iter_mut().zip(&active) {
            let width = weights.size()[1] as usize;
            let padded = active
                .iter()
                .flat_map(|row| (0..width).map(|c| f64::from(u8::from(row.get(c) == Some(&true)))));
            let mask = Tensor::from_slice(&padded.collect::<Vec<_>>()).view_as(weights);
            *weights = (weights.detach() * mask).set_requires_grad(true);
        }
        arch.active = Some(active);
    }
    for name in ["auxiliary-skip", "skip-dropout", "drop-path"] {
        let value = *[0.0, 0.3, 0.6].choose(rng).unwrap();
        arch.scalars.insert(name.into(), value);
    }
    if rng.random_bool(0.5) {
        let offsets = space.spec().groups().iter().map(|g| {
            let rng = &mut Streams::new(seed).at("offset", g.rows.len() as u64);
            let rows = [g.rows.len() as i64];
            normal(rng, &rows, Kind::Double, Device::Cpu).set_requires_grad(true)
        });
        arch.offsets = Some(offsets.collect());
    }
    arch
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: Option::None, ..ProptestConfig::with_cases(16) })]

    #[test]
    fn made_up_supernets_with_options_equal_the_plain_reference(seed in any::<u64>(), side in prop::sample::select(vec![16i64, 20])) {
        let space = any_space(seed);
        let options = any_options(&space, seed);
        let arch = any_arch(&space, seed);
        let condition = condition(&space, seed, side, &options, &arch);
        prop_assume!(condition < ILL);
        let worst = arch_equals_reference(&space, seed, side, &options, &arch);
        prop_assert!(worst < 1e-8, "{space:?} {options:?} {:?} {:?} {worst}", arch.active, arch.scalars);
    }
}

#[test]
fn registered_supernets_with_options_equal_the_plain_reference() {
    for (i, name) in NAMES.into_iter().enumerate() {
        let space = parts(name);
        for seed in 0..2 {
            let seed = 10 * i as u64 + seed;
            let (options, arch) = (any_options(&space, seed), any_arch(&space, seed));
            let worst = arch_equals_reference(&space, seed, SIDE, &options, &arch);
            assert!(worst < 1e-8, "{name} {seed} {options:?} {worst}");
        }
    }
}

/// Partial channels on odd sizes: half the size is rounded up in the bypass as elsewhere.
#[test]
fn odd_sizes_bypass_the_plain_reference() {
    let options = SupernetOptions {
        channels: Some(8),
        partial_channels: Some(4),
        auxiliary_skip: true,
        ..Default::default()
    };
    let space = parts("darts");
    let mut arch = RelaxedArch::new(relaxed(&space, 1, false));
    arch.scalars.insert("auxiliary-skip".into(), 0.5);
    let worst = arch_equals_reference(&space, 1, 9, &options, &arch);
    assert!(worst < 1e-8, "{worst}");
}

/// Options that ask for nothing leave the network as it is, bit by bit: all candidates allowed, K = 1, scalars of zero
/// or none.
#[test]
fn options_that_ask_for_nothing_change_nothing() {
    for (name, plain) in [
        ("darts", false),
        ("nasbench201", false),
        ("robust-s1", true),
    ] {
        let space = parts(name);
        let none = nothing_asked(plain);
        let all = |r: &Row| vec![true; r.candidates.len()];
        let groups = space.spec().groups().iter();
        let asked = SupernetOptions {
            allowed: Some(groups.map(|g| g.rows.iter().map(all).collect()).collect()),
            partial_channels: Some(1),
            skip_dropout: true,
            drop_path: true,
            ..none.clone()
        };
        let (net, theta, images) = setup(&space, 1, SIDE, &none);
        let (same, ..) = setup(&space, 1, SIDE, &asked);
        assert_eq!(same.layout(), net.layout());
        let mut arch = RelaxedArch::new(relaxed(&space, 1, true));
        let before = forward(net.as_ref(), &theta, &images, &arch);
        assert_eq!(
            forward(same.as_ref(), &theta, &images, &arch),
            before,
            "{name}"
        );
        for scalar in ["skip-dropout", "drop-path"] {
            arch.scalars.insert(scalar.into(), 0.0);
        }
        assert_eq!(
            forward(same.as_ref(), &theta, &images, &arch),
            before,
            "{name}"
        );
        // The auxiliary identities may have weights, which their names keep apart.
        let asked = SupernetOptions {
            auxiliary_skip: true,
            ..none
        };
        let (beside, ..) = setup(&space, 1, SIDE, &asked);
        let carried = beside
            .layout()
            .init(Streams::new(9), Kind::Double, Device::Cpu);
        let carried = beside.layout().carry(&carried, net.layout(), &theta);
        for weight in [Option::None, Some(0.0)] {
            arch.scalars.clear();
            arch.scalars
                .extend(weight.map(|w| ("auxiliary-skip".to_owned(), w)));
            let output = forward(beside.as_ref(), &carried, &images, &arch);
            assert_eq!(output, before, "{name}");
        }
    }
}

/// Dropping happens in training alone, at a rate above zero, and is a function of the noise; other rates are refused.
#[test]
fn what_is_dropped_follows_from_mode_rate_and_noise() {
    let cell = CellType::dense("cell", 1, 1, &[Op::Skip], Option::None, Output::Last);
    let space = CellSpace::new("one", vec![cell], Skeleton::Residual, 2, 1).unwrap();
    let options = SupernetOptions {
        skip_dropout: true,
        drop_path: true,
        ..Default::default()
    };
    let (net, theta, images) = setup(&space, 2, 8, &options);
    let stats = Tensor::zeros([0], (Kind::Double, Device::Cpu));
    let output = |mode, name: &str, rate: f64, draw: u64| {
        let mut arch = RelaxedArch::new(vec![Tensor::from_slice(&[1.0]).view([1, 1])]);
        arch.scalars.insert(name.into(), rate);
        let weights = Weights {
            params: &theta,
            stats: &stats,
        };
        let noise = Streams::new(draw);
        tch::no_grad(|| net.forward(weights, &images, &arch, mode, noise)).unwrap()
    };
    for name in ["skip-dropout", "drop-path"] {
        let whole = output(Mode::Train, name, 0.0, 0);
        assert_eq!(
            output(Mode::Eval, name, 0.5, 0),
            output(Mode::Eval, name, 0.0, 0)
        );
        assert_ne!(output(Mode::Train, name, 0.5, 0), whole);
        assert_ne!(
            output(Mode::Train, name, 0.5, 0),
            output(Mode::Train, name, 0.5, 1)
        );
        assert_eq!(
            output(Mode::Train, name, 0.5, 1),
            output(Mode::Train, name, 0.5, 1)
        );
    }
    for rate in [1.0, -0.1, f64::NAN] {
        let mut arch = RelaxedArch::new(vec![Tensor::from_slice(&[1.0]).view([1, 1])]);
        arch.scalars.insert("drop-path".into(), rate);
        let weights = Weights {
            params: &theta,
            stats: &stats,
        };
        let result = net.forward(weights, &images, &arch, Mode::Train, Streams::new(0));
        assert!(result.err().unwrap().to_string().contains("drop-path"));
    }
}

/// Factors are 0 or 1 / (1 − rate), as often as the rate says, and one in the mean.
#[test]
fn dropout_factors_are_one_in_the_mean() {
    let like = Tensor::zeros([1], (Kind::Double, Device::Cpu));
    for (i, rate) in [0.1, 0.4, 0.7].into_iter().enumerate() {
        let rng = &mut Streams::new(3).at("mask", i as u64);
        let n = 20_000.0;
        let factors = crate::options::dropout(rng, &[n as i64], rate, &like);
        let zero = factors.eq(0.0).sum(Kind::Double).double_value(&[]);
        let other = (&factors * (1.0 - rate))
            .eq(1.0)
            .sum(Kind::Double)
            .double_value(&[]);
        assert_eq!(zero + other, n);
        let deviation = (n * rate * (1.0 - rate)).sqrt();
        assert!((zero - n * rate).abs() < 5.0 * deviation, "{rate}: {zero}");
        let error = (rate / (1.0 - rate) / n).sqrt();
        let mean = factors.mean(Kind::Double).double_value(&[]);
        assert!((mean - 1.0).abs() < 5.0 * error, "{rate}: {mean}");
    }
}

/// A candidate that is not allowed has no weights; weights of the others are as many as before.
#[test]
fn candidates_that_are_not_allowed_have_no_weights() {
    let space = parts("nasbench201");
    let rows = space.spec().groups()[0].rows.len();
    for (column, op) in [Op::None, Op::Skip, Op::Conv1, Op::Conv3, Op::AvgPool3]
        .into_iter()
        .enumerate()
    {
        let mut row = vec![true; 5];
        row[column] = false;
        let options = SupernetOptions {
            allowed: Some(vec![vec![row; rows]]),
            ..Default::default()
        };
        let (without, ..) = setup(&space, 0, SIDE, &options);
        let (with, ..) = setup(&space, 0, SIDE, &nothing_asked(false));
        let names = |net: &dyn Supernet| -> Vec<String> {
            net.layout()
                .entries()
                .map(|(name, _)| name.to_owned())
                .collect()
        };
        let of_others = |name: &String| !name.contains(&format!(".{}.", op.name()));
        let expected: Vec<String> = names(with.as_ref()).into_iter().filter(of_others).collect();
        assert_eq!(names(without.as_ref()), expected);
    }
    for wrong in [
        vec![],
        vec![vec![vec![true; 5]; 5]],
        vec![vec![vec![true; 4]; 6]],
    ] {
        let options = SupernetOptions {
            allowed: Some(wrong),
            ..Default::default()
        };
        let error = space.supernet(task(SIDE), &options).err().unwrap();
        assert!(error.to_string().contains("allowed"));
    }
}
