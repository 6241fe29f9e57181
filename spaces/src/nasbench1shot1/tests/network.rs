//! The supernet equals the plain networks.

use nasfw_framework::rng::{normal, uniform};
use nasfw_framework::supernet::BatchNormStats;
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

use super::reference::{Named, relaxed_reference, standalone};
use super::*;
use crate::cells::tests::reference::{ILL, growth, leaves};
use rand::RngExt;
use rand::seq::IndexedRandom;

fn setup(
    v: Variant,
    seed: u64,
    options: &SupernetOptions,
) -> (OneShotSpace, Box<dyn Supernet>, Tensor, Tensor) {
    let space = space(v);
    let net = space.supernet(task(3), options).unwrap();
    let streams = Streams::new(seed);
    let theta = net.layout().init(streams, Kind::Double, Device::Cpu);
    // Scales and shifts away from one and zero, so that a swapped pair shows.
    let theta = theta
        + normal(
            &mut streams.at("t", 0),
            &[net.layout().numel()],
            Kind::Double,
            Device::Cpu,
        ) * 0.1;
    let images = normal(
        &mut streams.at("x", 0),
        &[3, 3, 8, 8],
        Kind::Double,
        Device::Cpu,
    );
    (space, net, theta.set_requires_grad(true), images)
}

fn forward(net: &dyn Supernet, theta: &Tensor, images: &Tensor, arch: &RelaxedArch) -> Tensor {
    let stats = Tensor::zeros([0], (Kind::Double, Device::Cpu));
    net.forward(
        Weights {
            params: theta,
            stats: &stats,
        },
        images,
        arch,
        Mode::Train,
        Streams::new(0),
    )
    .unwrap()
}

/// Largest difference relative to the largest magnitude.
fn deviation(a: &Tensor, b: &Tensor) -> f64 {
    let scale = b.abs().max().double_value(&[]).max(1e-12);
    (a - b).abs().max().double_value(&[]) / scale
}

/// Softmax weights, or any numbers.
fn any_arch(v: Variant, seed: u64, signed: bool) -> RelaxedArch {
    let spec = v.spec().unwrap();
    let weights = spec.groups().iter().map(|g| {
        let rng = &mut Streams::new(seed).at(&g.name, 0);
        let logits = normal(rng, &g.shape(), Kind::Double, Device::Cpu);
        let mask = g.mask(Device::Cpu).to_kind(Kind::Double);
        let w = if signed {
            logits * mask
        } else {
            g.softmax(&logits)
        };
        w.detach().set_requires_grad(true)
    });
    RelaxedArch::new(weights.collect())
}

/// Options drawn from a seed, each asked for every second time; every block and the output keep some input.
fn any_options(v: Variant, seed: u64) -> SupernetOptions {
    let rng = &mut Streams::new(seed).at("options", 0);
    let k = *[1, 1, 2, 4].choose(rng).unwrap();
    let allowed = rng.random_bool(0.5).then(|| {
        let spec = v.spec().unwrap();
        let mut row = |row: &Row| {
            let mut allowed: Vec<bool> = row
                .candidates
                .iter()
                .map(|_| rng.random_bool(0.6))
                .collect();
            let some = rng.random_range(0..allowed.len());
            allowed[some] = true;
            allowed
        };
        let groups = spec.groups().iter();
        groups
            .map(|g| g.rows.iter().map(&mut row).collect())
            .collect()
    });
    SupernetOptions {
        channels: Some(k * *[2, 4].choose(rng).unwrap()),
        allowed,
        partial_channels: Some(k),
        auxiliary_skip: rng.random_bool(0.5),
        skip_dropout: rng.random_bool(0.5),
        drop_path: rng.random_bool(0.5),
        plain: rng.random_bool(0.5),
        ..Default::default()
    }
}

/// Largest deviation from the plain network of outputs and gradients.
fn off_reference(v: Variant, seed: u64, options: &SupernetOptions, arch: &RelaxedArch) -> f64 {
    let (_, net, theta, images) = setup(v, seed, options);
    let ours = forward(net.as_ref(), &theta, &images, arch);
    let named = Named::new(net.layout(), &theta);
    let plain = relaxed_reference(v, options, &named, &images, arch, Streams::new(0));
    compare(&ours, &plain, &leaves(&theta, arch))
}

/// [`growth`] in the plain network.
fn condition(v: Variant, seed: u64, options: &SupernetOptions, arch: &RelaxedArch) -> f64 {
    let (_, net, theta, images) = setup(v, seed, options);
    let named = Named::new(net.layout(), &theta);
    let run = || relaxed_reference(v, options, &named, &images, arch, Streams::new(0));
    growth(run, |a, b| compare(a, b, &leaves(&theta, arch)))
}

/// Largest deviation of output and gradients of a random functional of it.
fn compare(a: &Tensor, b: &Tensor, leaves: &[&Tensor]) -> f64 {
    let probe = normal(
        &mut Streams::new(0).at("probe", 0),
        &b.size(),
        Kind::Double,
        Device::Cpu,
    );
    let grads = |y: &Tensor| {
        let grads = Tensor::run_backward(&[(y * &probe).sum(Kind::Double)], leaves, false, false);
        let filled = grads.into_iter().zip(leaves);
        filled
            .map(|(g, leaf)| if g.defined() { g } else { leaf.zeros_like() })
            .collect::<Vec<_>>()
    };
    let outputs = deviation(a, b);
    let (ga, gb) = (grads(a), grads(b));
    ga.iter()
        .zip(&gb)
        .map(|(x, y)| deviation(x, y))
        .fold(outputs, f64::max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn the_supernet_equals_the_plain_reference(v in any_variant(), seed in any::<u64>(), signed in any::<bool>(), plain in any::<bool>()) {
        let options = SupernetOptions { plain, ..Default::default() };
        let arch = any_arch(v, seed, signed);
        let worst = off_reference(v, seed, &options, &arch);
        prop_assert!(worst < 1e-9, "{} {worst}", v.name);
    }

    #[test]
    fn the_supernet_with_options_equals_the_plain_reference(v in any_variant(), seed in any::<u64>(), signed in any::<bool>()) {
        let options = any_options(v, seed);
        let mut arch = any_arch(v, seed, signed);
        let rng = &mut Streams::new(seed).at("scalars", 0);
        for name in ["auxiliary-skip", "skip-dropout", "drop-path"] {
            arch.scalars.insert(name.into(), *[0.0, 0.3, 0.6].choose(rng).unwrap());
        }
        if rng.random_bool(0.5) {
            let groups = arch.weights.iter().map(|w| {
                let rows = [w.size()[0]];
                normal(rng, &rows, Kind::Double, Device::Cpu).set_requires_grad(true)
            });
            arch.offsets = Some(groups.collect());
        }
        prop_assume!(condition(v, seed, &options, &arch) < ILL);
        let worst = off_reference(v, seed, &options, &arch);
        prop_assert!(worst < 1e-8, "{} {options:?} {:?} {worst}", v.name, arch.scalars);
    }

    #[test]
    fn a_choice_equals_its_standalone_network(v in any_variant(), seed in any::<u64>()) {
        let (space, net, theta, images) = setup(v, seed, &SupernetOptions::default());
        let choice = space.spec.uniform(&mut Streams::new(seed).at("choice", 0));
        let masked = choice.one_hot(&space.spec, Kind::Double, Device::Cpu);
        let dense = RelaxedArch::new(masked.weights.iter().map(Tensor::copy).collect());
        let ours = forward(net.as_ref(), &theta, &images, &masked);
        let named = Named::new(net.layout(), &theta);
        let alone = standalone(&named, &images, &space.genotype(&choice));
        let worst = compare(&ours, &alone, &[&theta]);
        prop_assert!(worst < 1e-9, "{} {choice:?} {worst}", v.name);
        let computed = forward(net.as_ref(), &theta, &images, &dense);
        let again = forward(net.as_ref(), &theta, &images, &masked);
        let worst = compare(&again, &computed, &[&theta]);
        prop_assert!(worst < 1e-9, "masks changed something: {worst}");
    }

    /// Masked projections leave the running statistics of what they skip alone and move the others as usual.
    #[test]
    fn masks_keep_running_statistics(v in any_variant(), seed in any::<u64>()) {
        let space = space(v);
        let options = SupernetOptions { batch_norm: BatchNormStats::Running, ..Default::default() };
        let net = space.supernet(task(3), &options).unwrap();
        let streams = Streams::new(seed);
        let theta = net.layout().init(streams, Kind::Double, Device::Cpu);
        let images = normal(&mut streams.at("x", 0), &[3, 3, 8, 8], Kind::Double, Device::Cpu);
        let choice = space.spec.uniform(&mut streams.at("choice", 0));
        let masked = choice.one_hot(&space.spec, Kind::Double, Device::Cpu);
        let dense = RelaxedArch::new(masked.weights.iter().map(Tensor::copy).collect());
        let start = net.stats_layout().init(streams, Kind::Double, Device::Cpu);
        let after = |arch: &RelaxedArch| {
            let stats = start.copy();
            let weights = Weights { params: &theta, stats: &stats };
            let _ = net.forward(weights, &images, arch, Mode::Train, streams).unwrap();
            stats
        };
        let (few, all) = (after(&masked), after(&dense));
        let moved = few.ne_tensor(&start);
        prop_assert!(few.where_self(&moved, &all).allclose(&all, 1e-9, 1e-12, false));
        // What a block joined by the output reads and computes has moved.
        let named = Named::new(&net.stats_layout(), &moved.to_kind(Kind::Double));
        let joined = *choice.kept(OUTPUT, 0).last().unwrap();
        for (name, op) in [("conv3x3", 1), ("conv1x1", 2)] {
            let used = choice.kept(OPS, joined - 1) == [op];
            let mean = named.get(&format!("cells.0.node{joined}.{name}.bn.running_mean"));
            prop_assert!(!used || mean.min().double_value(&[]) == 1.0, "{choice:?}");
        }
    }
}

#[test]
fn grey_images_small_images_and_running_statistics_work() {
    let space = space(S2);
    for (channels, side) in [(1, 2), (1, 7), (3, 5)] {
        let task = Task {
            channels,
            height: side,
            width: side,
            classes: 4,
        };
        let options = SupernetOptions {
            batch_norm: BatchNormStats::Running,
            channels: Some(3),
            cells: Some(4),
            ..Default::default()
        };
        let net = space.supernet(task, &options).unwrap();
        let theta = net.layout().init(Streams::new(1), Kind::Float, Device::Cpu);
        let stats = net
            .stats_layout()
            .init(Streams::new(1), Kind::Float, Device::Cpu);
        let start = stats.copy();
        let images = uniform(
            &mut Streams::new(2).at("x", 0),
            &[5, channels, side, side],
            Kind::Float,
            Device::Cpu,
        );
        let arch = space.spec.uniform(&mut Streams::new(3).at("c", 0)).one_hot(
            &space.spec,
            Kind::Float,
            Device::Cpu,
        );
        let weights = Weights {
            params: &theta,
            stats: &stats,
        };
        let run = |mode| {
            net.forward(weights, &images, &arch, mode, Streams::new(0))
                .unwrap()
        };
        let before = run(Mode::Eval);
        assert_eq!(before.size(), [5, 4]);
        assert_eq!(
            deviation(&stats, &start),
            0.0,
            "evaluation leaves the statistics alone"
        );
        let trained = run(Mode::Train);
        assert!(deviation(&stats, &start) > 0.0, "training moves them");
        assert!(deviation(&run(Mode::Eval), &before) > 0.0);
        assert!(f64::try_from(trained.isfinite().all().to_kind(Kind::Double)).unwrap() == 1.0);
    }
}
