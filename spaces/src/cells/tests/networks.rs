//! The supernet equals the plain network, and a choice in it equals the network that is trained alone.

use nasfw_framework::network::NetworkOptions;
use nasfw_framework::rng::normal;
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

use super::reference::{ILL, Named, growth, leaves, supernet};
use super::*;
use crate::layers::Role;

pub const SIDE: i64 = 16;

pub fn setup(
    space: &CellSpace,
    seed: u64,
    side: i64,
    options: &SupernetOptions,
) -> (Box<dyn Supernet>, Tensor, Tensor) {
    let net = space.supernet(task(side), options).unwrap();
    assert!(net.layout().names_are_unique());
    let streams = Streams::new(seed);
    let numel = [net.layout().numel()];
    let theta = net.layout().init(streams, Kind::Double, Device::Cpu)
        + normal(&mut streams.at("t", 0), &numel, Kind::Double, Device::Cpu) * 0.1;
    let shape = [3, 3, side, side];
    let images = normal(&mut streams.at("x", 0), &shape, Kind::Double, Device::Cpu);
    (net, theta.detach().set_requires_grad(true), images)
}

/// `plain`: without fused kernels.
pub fn nothing_asked(plain: bool) -> SupernetOptions {
    SupernetOptions {
        plain,
        ..Default::default()
    }
}

pub fn forward(net: &dyn Supernet, theta: &Tensor, images: &Tensor, arch: &RelaxedArch) -> Tensor {
    let stats = Tensor::zeros([0], (Kind::Double, Device::Cpu));
    let weights = Weights {
        params: theta,
        stats: &stats,
    };
    net.forward(weights, images, arch, Mode::Train, Streams::new(5))
        .unwrap()
}

/// Largest difference relative to the largest magnitude.
pub fn deviation(a: &Tensor, b: &Tensor) -> f64 {
    let scale = b.abs().max().double_value(&[]).max(1e-9);
    (a - b).abs().max().double_value(&[]) / scale
}

/// Largest deviation of outputs, and of gradients of a random functional of them.
pub fn compare(a: &Tensor, b: &Tensor, leaves: &[&Tensor]) -> f64 {
    let rng = &mut Streams::new(0).at("probe", 0);
    let probe = normal(rng, &b.size(), Kind::Double, Device::Cpu);
    let grads = |y: &Tensor| {
        let scalar = (y * &probe).sum(Kind::Double);
        let grads = Tensor::run_backward(&[scalar], leaves, false, false);
        let filled = grads
            .into_iter()
            .zip(leaves)
            .map(|(g, leaf)| if g.defined() { g } else { leaf.zeros_like() });
        filled.collect::<Vec<_>>()
    };
    let (ga, gb) = (grads(a), grads(b));
    ga.iter()
        .zip(&gb)
        .map(|(x, y)| deviation(x, y))
        .fold(deviation(a, b), f64::max)
}

pub fn relaxed(space: &CellSpace, seed: u64, signed: bool) -> Vec<Tensor> {
    let group = |g: &Group| {
        let rng = &mut Streams::new(seed).at(&g.name, 0);
        let logits = normal(rng, &g.shape(), Kind::Double, Device::Cpu);
        let w = if signed {
            logits * g.mask(Device::Cpu).to_kind(Kind::Double)
        } else {
            g.softmax(&logits)
        };
        w.detach().set_requires_grad(true)
    };
    space.spec().groups().iter().map(group).collect()
}

fn equals_reference(
    space: &CellSpace,
    seed: u64,
    signed: bool,
    side: i64,
    options: &SupernetOptions,
) -> f64 {
    let arch = RelaxedArch::new(relaxed(space, seed, signed));
    arch_equals_reference(space, seed, side, options, &arch)
}

/// Largest deviation from the plain network of outputs and of gradients in weights, architecture and offsets.
pub fn arch_equals_reference(
    space: &CellSpace,
    seed: u64,
    side: i64,
    options: &SupernetOptions,
    arch: &RelaxedArch,
) -> f64 {
    let (net, theta, images) = setup(space, seed, side, options);
    let ours = forward(net.as_ref(), &theta, &images, &within_rows(space, arch));
    let plain = plain(space, net.as_ref(), &theta, &images, options, arch);
    compare(&ours, &plain, &leaves(&theta, arch))
}

/// [`growth`] in the plain network.
pub fn condition(
    space: &CellSpace,
    seed: u64,
    side: i64,
    options: &SupernetOptions,
    arch: &RelaxedArch,
) -> f64 {
    let (net, theta, images) = setup(space, seed, side, options);
    let run = || plain(space, net.as_ref(), &theta, &images, options, arch);
    growth(run, |a, b| compare(a, b, &leaves(&theta, arch)))
}

fn plain(
    space: &CellSpace,
    net: &dyn Supernet,
    theta: &Tensor,
    images: &Tensor,
    options: &SupernetOptions,
    arch: &RelaxedArch,
) -> Tensor {
    let named = Named::new(net.layout(), theta);
    let arch = within_rows(space, arch);
    supernet(space, options, &named, images, &arch, Streams::new(5))
}

/// What stands in the padding of a shorter row means nothing, nor does its gradient.
fn within_rows(space: &CellSpace, arch: &RelaxedArch) -> RelaxedArch {
    let mask = |g: &Group| g.mask(Device::Cpu).to_kind(Kind::Double);
    let groups = space.spec().groups().iter().zip(&arch.weights);
    let copies = |of: &Vec<Tensor>| of.iter().map(Tensor::shallow_clone).collect();
    RelaxedArch {
        weights: groups.map(|(g, w)| w * mask(g)).collect(),
        active: arch.active.clone(),
        offsets: arch.offsets.as_ref().map(copies),
        cells: Option::None,
        log_prob: Option::None,
        scalars: arch.scalars.clone(),
    }
}

/// Weights of the network of a genotype, taken from those of the supernet; scales one and shifts zero where the
/// supernet learns none.
fn carried(space: &CellSpace, choice: &Choice, from: &Named, network: &ParamLayout) -> Tensor {
    let genotype = space.genotype(choice);
    let parts = network.entries().map(|(name, shape)| {
        let (head, part) = name.rsplit_once('.').unwrap();
        let fields: Vec<&str> = name.split('.').collect();
        let node = fields.iter().position(|f| f.starts_with("node"));
        let t = match node {
            Some(at) => {
                // cells.0.node1.edge0.OP.LAYER… is the part of an edge of cells.0.fromS.OP.LAYER…
                let block = fields[..at].join(".");
                let residual = block.starts_with("stage");
                let i: usize = if residual {
                    0
                } else {
                    fields[1].parse().unwrap()
                };
                let reduce = !residual
                    && space.cells.len() == 2
                    && (i == space.count / 3 || i == 2 * space.count / 3);
                let cell = &space.cells[usize::from(reduce)];
                let n: usize = fields[at][4..].parse().unwrap();
                let k: usize = fields[at + 1][4..].parse().unwrap();
                let edge = &genotype.cells[usize::from(reduce)].nodes[n - 1].inputs[k];
                let op = Op::from_name(edge.op.as_deref().unwrap()).unwrap();
                let to = cell.inputs + n - 1;
                let alike = |e: &&CellEdge| e.from == edge.from && e.candidates.contains(&op);
                let total = cell.edges.iter().filter(alike).count() as i64;
                let before = |e: &&CellEdge| alike(e) && e.to < to;
                let place = cell.edges.iter().filter(before).count() as i64;
                let rest = fields[at + 2..].join(".");
                from.maybe(&format!("{block}.from{}.{rest}", edge.from))
                    .map(|t| {
                        let n = t.size()[0] / total;
                        t.narrow(0, place * n, n)
                    })
            }
            None => from.maybe(name).map(Tensor::shallow_clone),
        };
        let t = t.unwrap_or_else(|| {
            let options = (Kind::Double, Device::Cpu);
            let _ = head;
            match part {
                "weight" => Tensor::ones(shape, options),
                _ => Tensor::zeros(shape, options),
            }
        });
        assert_eq!(t.size(), shape, "{name}");
        t.reshape([-1])
    });
    Tensor::cat(&parts.collect::<Vec<_>>(), 0)
}

/// A random choice in the space.
fn any_choice(space: &CellSpace, seed: u64) -> Choice {
    // Noise draws its own numbers in either network, so it is left out.
    let quiet = space.cells.iter().cloned().map(|mut cell| {
        for edge in &mut cell.edges {
            if edge.candidates.iter().any(|op| *op != Op::Noise) {
                edge.candidates.retain(|op| *op != Op::Noise);
            }
        }
        cell
    });
    let quiet = CellSpace::new("quiet", quiet.collect(), space.skeleton, 2, space.count).unwrap();
    let drawn = quiet.genotype(&quiet.random(&mut Streams::new(seed).at("choice", 0)));
    space.choice(&drawn).unwrap()
}

/// A choice in the supernet against its standalone network and against the supernet without a mask.
fn equals_standalone(space: &CellSpace, choice: &Choice, seed: u64, side: i64) -> f64 {
    let (net, theta, images) = setup(space, seed, side, &nothing_asked(false));
    let masked = choice.one_hot(space.spec(), Kind::Double, Device::Cpu);
    let dense = RelaxedArch::new(masked.weights.iter().map(Tensor::copy).collect());
    let ours = forward(net.as_ref(), &theta, &images, &masked);
    let unmasked = forward(net.as_ref(), &theta, &images, &dense);
    let mut worst = compare(&ours, &unmasked, &[&theta]);
    let options = NetworkOptions {
        channels: Some(2),
        cells: Some(space.count),
        auxiliary: false,
    };
    let genotype = space.genotype(choice);
    let named = Named::new(net.layout(), &theta);
    let mut alone = |role: Role| {
        let network = space
            .standalone(&genotype, task(side), &options, role)
            .unwrap();
        let params = carried(space, choice, &named, network.layout());
        let streams = Streams::new(0);
        let stats = network
            .stats_layout()
            .init(streams, Kind::Double, Device::Cpu);
        let weights = Weights {
            params: &params,
            stats: &stats,
        };
        let output = network.forward(weights, &images, Mode::Train, 0.0, streams);
        let again = forward(net.as_ref(), &theta, &images, &masked);
        worst = worst.max(compare(&again, &output.unwrap().main, &[&theta]));
    };
    if genotype.to_string().contains("noise(") {
        return worst;
    }
    alone(space.skeleton.search_role());
    // The network of the evaluation is the same where no pooling lacks the search's batch norm and the stem is as wide.
    let pools = |c: &Cell| {
        let mut ops = c
            .nodes
            .iter()
            .flat_map(|n| &n.inputs)
            .filter_map(|e| e.op.as_deref());
        ops.any(|op| op.contains("pool"))
    };
    let norms = matches!(space.skeleton, Skeleton::Darts(_)) && genotype.cells.iter().any(pools);
    if !norms && space.skeleton != Skeleton::Darts(Stem::ImageNet) {
        alone(Role::Evaluation);
    }
    worst
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: Option::None, ..ProptestConfig::with_cases(12) })]

    #[test]
    fn made_up_supernets_equal_the_plain_reference(seed in any::<u64>(), signed in any::<bool>(), side in prop::sample::select(vec![16i64, 20]), plain in any::<bool>()) {
        let space = any_space(seed);
        let options = nothing_asked(plain);
        let arch = RelaxedArch::new(relaxed(&space, seed, signed));
        let condition = condition(&space, seed, side, &options, &arch);
        prop_assume!(condition < ILL);
        let worst = arch_equals_reference(&space, seed, side, &options, &arch);
        prop_assert!(worst < 1e-8, "{space:?} {condition} {worst}");
    }

    #[test]
    fn choices_of_made_up_spaces_equal_their_networks(seed in any::<u64>()) {
        let space = any_space(seed);
        let choice = any_choice(&space, seed);
        let mut arch = choice.one_hot(space.spec(), Kind::Double, Device::Cpu);
        arch.weights = arch.weights.iter().map(|w| w.set_requires_grad(true)).collect();
        let condition = condition(&space, seed, SIDE, &nothing_asked(false), &arch);
        prop_assume!(condition < ILL);
        let worst = equals_standalone(&space, &choice, seed, SIDE);
        prop_assert!(worst < 1e-8, "{space:?} {condition} {worst}");
    }
}

#[test]
fn registered_supernets_equal_the_plain_reference() {
    for (seed, name) in NAMES.into_iter().enumerate() {
        for plain in [false, true] {
            let worst =
                equals_reference(&parts(name), seed as u64, true, SIDE, &nothing_asked(plain));
            assert!(worst < 1e-8, "{name} {plain} {worst}");
        }
    }
}

#[test]
fn choices_of_every_registered_space_equal_their_networks() {
    for (seed, name) in NAMES.into_iter().enumerate() {
        let (space, seed) = (parts(name), seed as u64);
        let worst = equals_standalone(&space, &any_choice(&space, seed), seed, SIDE);
        assert!(worst < 1e-8, "{name} {worst}");
    }
}

/// Odd sizes round up everywhere, so that halves fit together.
#[test]
fn odd_sizes_equal_the_plain_reference() {
    for (name, side) in [
        ("darts", 9),
        ("darts", 7),
        ("darts-imagenet", 19),
        ("robust-s4", 5),
    ] {
        let worst = equals_reference(&parts(name), 3, true, side, &nothing_asked(false));
        assert!(worst < 1e-8, "{name} {side} {worst}");
    }
}

#[test]
fn images_and_sizes_that_do_not_fit_are_refused() {
    let says = |name: &str, task: Task, options: &SupernetOptions| {
        let error = registered(name).supernet(task, options).err().unwrap();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    };
    let none = SupernetOptions::default();
    assert!(says("darts", task(3), &none).contains("at least 4×4"));
    assert!(says("darts-imagenet", task(15), &none).contains("at least 16×16"));
    assert!(says("nasbench201", task(10), &none).contains("divisible by 4"));
    let odd = SupernetOptions {
        channels: Some(3),
        ..Default::default()
    };
    assert!(says("darts", task(16), &odd).contains("two halves"));
    let partial = SupernetOptions {
        partial_channels: Some(4),
        ..Default::default()
    };
    assert!(says("darts", task(16), &partial).contains("2 channels can't be split into 4"));
}
