//! Fused kernels in single precision are as exact as libtorch's own operators: both against double precision.
#![allow(clippy::unwrap_used, clippy::panic)]

use nasfw_framework::prelude::*;
use nasfw_framework::registry::{Kind as Plugin, Parse, Registry};
use nasfw_framework::rng::{Streams, normal};
// Links the spaces.
use nasfw_spaces as _;
use tch::{Device, Kind, Tensor};

const SIDE: i64 = 12;

/// A registered space with few cells of 16 channels, which fill the widest vectors.
fn space(registry: &Registry, name: &str) -> Box<dyn SearchSpace> {
    let plugin = registry.get(Plugin::Space, name).unwrap();
    let mut section = plugin.default_section().unwrap();
    section["channels"] = 16.into();
    section["cells"] = if name == "nasbench201" { 1 } else { 3 }.into();
    let Parse::Space(parse) = plugin.parse else {
        panic!("{name} is no space");
    };
    parse(&section).unwrap().build().unwrap()
}

/// Logits, and gradients of a functional of them with respect to weights and architecture, all in double precision; and
/// how many fused operations ran.
fn run(
    space: &dyn SearchSpace,
    asked: &SupernetOptions,
    plain: bool,
    kind: Kind,
) -> (Vec<Tensor>, u64) {
    let task = Task {
        channels: 3,
        height: SIDE,
        width: SIDE,
        classes: 10,
    };
    let options = SupernetOptions {
        plain,
        ..asked.clone()
    };
    let net = space.supernet(task, &options).unwrap();
    let streams = Streams::new(3);
    let draw = |name: &str, shape: &[i64]| {
        normal(&mut streams.at(name, 0), shape, Kind::Double, Device::Cpu).to_kind(kind)
    };
    let start = net.layout().init(streams, Kind::Double, Device::Cpu);
    let theta = start.to_kind(kind).set_requires_grad(true);
    let images = draw("images", &[8, 3, SIDE, SIDE]);
    let stats = Tensor::zeros([0], (kind, Device::Cpu));
    let weights: Vec<Tensor> = space
        .spec()
        .groups()
        .iter()
        .map(|g| {
            let logits = draw(&g.name, &g.shape());
            g.softmax(&logits).detach().set_requires_grad(true)
        })
        .collect();
    let mut arch = RelaxedArch::new(weights.iter().map(Tensor::shallow_clone).collect());
    for scalar in ["auxiliary-skip", "skip-dropout"] {
        arch.scalars.insert(scalar.into(), 0.5);
    }
    let (all, names) = nasfw_kernels::profile::names(|| {
        let vectors = Weights {
            params: &theta,
            stats: &stats,
        };
        let logits = net
            .forward(vectors, &images, &arch, Mode::Train, streams)
            .unwrap();
        let scalar = (&logits * draw("probe", &logits.size())).sum(kind);
        let leaves: Vec<&Tensor> = std::iter::once(&theta).chain(&weights).collect();
        let mut all = Tensor::run_backward(&[scalar], &leaves, false, false);
        all.push(logits);
        all
    });
    let fused = names
        .iter()
        .filter(|(name, _)| {
            name.starts_with("nasfw::separable") || name.starts_with("nasfw::blend")
        })
        .map(|(_, n)| n)
        .sum();
    let all = all.iter().map(|t| t.detach().to_kind(Kind::Double));
    (all.collect(), fused)
}

/// Root of the mean squared difference, relative to that of `b`.
fn off(a: &Tensor, b: &Tensor) -> f64 {
    let norm = |t: &Tensor| t.square().sum(Kind::Double).sqrt().double_value(&[]);
    norm(&(a - b)) / norm(b).max(1e-12)
}

/// Requires that fused kernels ran, and that they are as exact as libtorch's operators.
fn is_as_exact(name: &str, asked: &SupernetOptions) {
    let registry = Registry::load().unwrap();
    let space = space(&registry, name);
    let (exact, none) = run(space.as_ref(), asked, true, Kind::Double);
    assert_eq!(none, 0, "{name}: the plain path has fused operations");
    let (libtorch, _) = run(space.as_ref(), asked, true, Kind::Float);
    let (ours, some) = run(space.as_ref(), asked, false, Kind::Float);
    assert!(some > 0, "{name}: no fused operation ran");
    for (i, exact) in exact.iter().enumerate() {
        let (ours, libtorch) = (off(&ours[i], exact), off(&libtorch[i], exact));
        assert!(
            ours < 1e-5_f64.max(3.0 * libtorch),
            "{name} {i}: fused kernels are off by {ours:.1e}, libtorch's operators by {libtorch:.1e}"
        );
    }
}

#[test]
fn single_precision_is_as_exact_as_libtorch() {
    for name in [
        "darts",
        "nasbench201",
        "robust-s4",
        "nasbench1shot1-s1",
        "nasbench1shot1-s3",
    ] {
        is_as_exact(name, &SupernetOptions::default());
    }
}

#[test]
fn what_strategies_ask_for_is_as_exact_as_libtorch() {
    let asked = SupernetOptions {
        partial_channels: Some(2),
        auxiliary_skip: true,
        skip_dropout: true,
        ..Default::default()
    };
    for name in ["darts", "nasbench201", "nasbench1shot1-s1"] {
        is_as_exact(name, &asked);
    }
}
