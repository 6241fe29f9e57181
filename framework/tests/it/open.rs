//! Networks that are written once: open against decided, against plain libtorch, and what is refused.

use std::collections::HashMap;

use nasfw_framework::Result;
use nasfw_framework::arch::{ArchSpec, Choice, Group, RelaxedArch, Role, Row};
use nasfw_framework::network::{Conv, DROP_PATH, Mixed, Network, NetworkBuilder, Value};
use nasfw_framework::rng::{self, Streams};
use nasfw_framework::supernet::{BatchNormStats, Mode, Supernet, SupernetOptions, Weights};
use nasfw_kernels::profile;
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

use super::network::{DOUBLE, distance, task};

/// A row: the operations that it chooses from, how many it keeps, and whether it halves the size.
type Layer = (Vec<u8>, usize, bool);

/// One row a layer.
fn spec(layers: &[Layer]) -> ArchSpec {
    let row = |(i, (ops, keep, _)): (usize, &Layer)| Row {
        name: format!("row {i}"),
        candidates: ops
            .iter()
            .enumerate()
            .map(|(c, op)| format!("{op}#{c}"))
            .collect(),
        keep: *keep.min(&ops.len()),
    };
    let group = |name: &str, rows: Vec<Row>| Group {
        name: name.into(),
        role: Role::Operations,
        rows,
        edges: None,
    };
    let mut first: Vec<Row> = layers.iter().enumerate().map(row).collect();
    let second = first.split_off(layers.len() / 2);
    let halves = [group("first", first), group("second", second)];
    ArchSpec::new(halves.into_iter().filter(|g| !g.rows.is_empty()).collect()).unwrap()
}

/// Group and row of a layer.
fn place(spec: &ArchSpec, layer: usize) -> (usize, usize) {
    let places = spec.rows().map(|(g, r, _)| (g, r));
    places.collect::<Vec<_>>()[layer]
}

fn conv_norm(b: &mut NetworkBuilder, x: Value, conv: Conv, affine: bool) -> Value {
    let c = b.shape(x)[0];
    let y = b.conv("conv", x, c, conv);
    b.batch_norm("norm", y, affine)
}

/// A stem, the layers, a classifier, once for all.
fn layers(b: &mut NetworkBuilder, images: Value, spec: &ArchSpec, layers: &[Layer]) -> Value {
    let mut x = b.conv("stem", images, 4, Conv::same(3));
    for (i, (ops, _, halved)) in layers.iter().enumerate() {
        let stride = 1 + i64::from(*halved);
        let before = b.avg_pool(x, 3, stride, 1);
        x = b.decide(&format!("layer{i}"), place(spec, i), |b, c| match ops[c] {
            0 => conv_norm(b, x, Conv::same(3).stride(stride), true),
            1 => {
                let y = b.relu(x);
                conv_norm(b, y, Conv::same(1).stride(stride), false)
            }
            2 => {
                let y = conv_norm(b, x, Conv::same(5).stride(stride).groups(4), true);
                let y = b.relu(y);
                let y = b.drop_path(y);
                b.add(&[y, before])
            }
            3 => b.max_pool(x, 3, stride, 1),
            4 => b.zeros(x, stride),
            // A value from around it.
            5 => before,
            // A decision within a candidate: that of the first row again.
            _ => b.decide("inner", (0, 0), |b, inner| match inner {
                0 => conv_norm(b, before, Conv::same(1), true),
                _ => before,
            }),
        });
    }
    let x = b.global_average_pool(x);
    b.linear("classifier", x, b.task().classes)
}

fn open(rows: &[Layer], options: &SupernetOptions) -> Result<Mixed> {
    let spec = spec(rows);
    let (mut b, images) = NetworkBuilder::open(&spec, options, task(2, 9, 8));
    let logits = layers(&mut b, images, &spec, rows);
    b.finish_open(logits)
}

fn chosen(rows: &[Layer], choice: &Choice) -> Result<Network> {
    let spec = spec(rows);
    let (mut b, images) = NetworkBuilder::chosen(&spec, choice, task(2, 9, 8));
    let logits = layers(&mut b, images, &spec, rows);
    b.finish(logits, None)
}

fn running() -> SupernetOptions {
    SupernetOptions {
        batch_norm: BatchNormStats::Running,
        ..SupernetOptions::default()
    }
}

fn images() -> Tensor {
    let rng = &mut Streams::new(3).at("images", 0);
    rng::normal(rng, &[8, 2, 9, 8], Kind::Double, Device::Cpu)
}

/// Parameters and running statistics that tell all layers apart.
fn weights(net: &dyn Supernet) -> (Tensor, Tensor) {
    let draw = |name, n| rng::normal(&mut Streams::new(4).at(name, 0), &[n], DOUBLE.0, DOUBLE.1);
    let params = draw("params", net.layout().numel()) * 0.5;
    let stats = draw("stats", net.stats_layout().numel()).abs() + 0.5;
    (params, stats)
}

/// The part of a decided network, by names; every one of them is in the open one, but for running statistics where that
/// keeps none.
fn carried(open: &Mixed, network: &Network, params: &Tensor, stats: &Tensor) -> (Tensor, Tensor) {
    let layouts = [
        (open.layout().clone(), network.layout(), params),
        (open.stats_layout(), network.stats_layout(), stats),
    ];
    let [params, stats] = layouts.map(|(whole, part, flat)| {
        let named: HashMap<&str, Tensor> = whole.named(flat).collect();
        let names = part.entries().map(|(name, _)| name);
        let names = names.filter(|_| whole.numel() > 0);
        let parts: Vec<Tensor> = names.map(|name| named[name].reshape([-1])).collect();
        match parts.is_empty() {
            true => Tensor::zeros([0], DOUBLE),
            false => Tensor::cat(&parts, 0),
        }
    });
    (params, stats)
}

fn random_chain() -> impl Strategy<Value = Vec<Layer>> {
    // Few sizes can be halved twice; the rest is left to chance.
    let layer = (
        proptest::collection::vec(0u8..7, 1..5),
        1usize..3,
        any::<bool>(),
    );
    proptest::collection::vec(layer, 1..5).prop_map(|mut layers| {
        // The first row is decided within others, and can't be within itself.
        for op in &mut layers[0].0 {
            *op %= 6;
        }
        layers
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    /// Logits and gradients, with masks and without.
    #[test]
    fn the_open_network_of_one_hot_weights_is_that_of_the_choice(
        rows in random_chain(),
        seed in any::<u64>(),
        empty in 0usize..4,
        masked in any::<bool>(),
        tracked in any::<bool>(),
    ) {
        let spec = spec(&rows);
        let mut choice = spec.uniform(&mut Streams::new(seed).at("choice", 0));
        if empty < 1 && rows.len() > 1 {
            // A row that keeps nothing: the last one.
            let mut kept = choice.groups().to_vec();
            kept.last_mut().unwrap().last_mut().unwrap().clear();
            choice = Choice::new(kept);
        }
        let options = if tracked { running() } else { SupernetOptions::default() };
        let (open, network) = (open(&rows, &options).unwrap(), chosen(&rows, &choice).unwrap());
        let mut arch = choice.one_hot(&spec, DOUBLE.0, DOUBLE.1);
        if !masked {
            arch.active = None;
        }
        let (params, stats) = weights(&open);
        let network_stats = network.stats_layout().init(Streams::new(0), DOUBLE.0, DOUBLE.1);
        let named = carried(&open, &network, &params, &stats).0;
        let network_stats = match tracked {
            true => carried(&open, &network, &params, &stats).1,
            false => network_stats,
        };
        prop_assert_eq!(open.stats_layout().numel() > 0, tracked && open.stats_layout().entries().count() > 0);
        let leaf = |t: &Tensor| t.copy().set_requires_grad(true);
        let (whole, part) = (leaf(&params), leaf(&named));
        let images = images();
        for mode in [Mode::Train, Mode::Eval] {
            if mode == Mode::Eval && !tracked {
                // By the batch's statistics the supernet is the same in evaluation.
                let run = |mode| {
                    let weights = Weights { params: &params, stats: &stats };
                    open.forward(weights, &images, &arch, mode, Streams::new(1)).unwrap()
                };
                prop_assert!(distance(&run(Mode::Eval), &run(Mode::Train)) == 0.0);
                continue;
            }
            let weights = Weights { params: &whole, stats: &stats };
            let ours = open.forward(weights, &images, &arch, mode, Streams::new(1)).unwrap();
            let weights = Weights { params: &part, stats: &network_stats };
            let theirs = network.forward(weights, &images, mode, 0.0, Streams::new(1)).unwrap().main;
            prop_assert!(distance(&ours, &theirs) < 1e-12, "{:?}: {}", mode, distance(&ours, &theirs));
            let gradient = |loss: Tensor, of: &Tensor| {
                Tensor::run_backward(&[loss], &[of], false, false).remove(0)
            };
            let ours = gradient(ours.square().sum(DOUBLE.0), &whole);
            let theirs = gradient(theirs.square().sum(DOUBLE.0), &part);
            let ours_named = carried(&open, &network, &ours, &stats).0;
            prop_assert!(distance(&ours_named, &theirs) < 1e-9);
            // And nothing else has a gradient.
            let rest = ours.square().sum(DOUBLE.0) - ours_named.square().sum(DOUBLE.0);
            prop_assert!(rest.double_value(&[]).abs() <= 1e-9 * (1.0 + ours.square().sum(DOUBLE.0).double_value(&[])));
        }
        if tracked && masked {
            // Training moved the statistics of what was computed alike; without the mask that is more.
            prop_assert!(distance(&carried(&open, &network, &params, &stats).1, &network_stats) < 1e-12);
        }
    }
}

/// Two rows: a convolution with batch norm or the identity, then one of two convolutions.
fn two_rows() -> (Vec<Layer>, ArchSpec) {
    let rows = vec![(vec![0, 5, 2], 1, false), (vec![1, 0], 1, true)];
    let spec = spec(&rows);
    (rows, spec)
}

#[test]
fn mixed_weights_give_the_weighted_sum_and_its_gradients() {
    let (rows, spec) = two_rows();
    let net = open(&rows, &SupernetOptions::default()).unwrap();
    let (params, stats) = weights(&net);
    let leaf = |t: Tensor| t.set_requires_grad(true);
    let draw = |name, n| rng::normal(&mut Streams::new(6).at(name, 0), &[n], DOUBLE.0, DOUBLE.1);
    let logits = draw("logits", spec.numel());
    let run = |by_hand: bool| {
        let params = leaf(params.copy());
        let alpha = leaf(logits.copy());
        let offsets = leaf(draw("offsets", 2));
        let mix = spec.softmax(&alpha);
        let images = images();
        let out = if by_hand {
            // Every layer once more, with plain libtorch.
            let p: HashMap<&str, Tensor> = net.layout().named(&params).collect();
            let none = None::<&Tensor>;
            let norm = |x: &Tensor, name: &str| {
                let over = [0i64, 2, 3];
                let mean = x.mean_dim(over.as_slice(), true, DOUBLE.0);
                let var = (x - &mean)
                    .square()
                    .mean_dim(over.as_slice(), true, DOUBLE.0);
                let normal = (x - mean) / (var + 1e-5).sqrt();
                match p.get(format!("{name}.weight").as_str()) {
                    Some(w) => {
                        normal * w.view([1, -1, 1, 1])
                            + p[format!("{name}.bias").as_str()].view([1, -1, 1, 1])
                    }
                    None => normal,
                }
            };
            let conv = |x: &Tensor, name: &str, stride: i64, groups: i64| {
                let w = &p[format!("{name}.weight").as_str()];
                let pad = w.size()[2] / 2;
                x.conv2d(w, none, [stride; 2], [pad; 2], [1, 1], groups)
            };
            let weight = |row: usize, c: i64| mix[row].get(0).get(c);
            let x = conv(&images, "stem", 1, 1);
            let mean = x.avg_pool2d([3, 3], [1, 1], [1, 1], false, false, None);
            let full = norm(&conv(&x, "layer0.0#0.conv", 1, 1), "layer0.0#0.norm");
            let deep = norm(&conv(&x, "layer0.2#2.conv", 1, 4), "layer0.2#2.norm");
            let x = full * weight(0, 0)
                + &mean * weight(0, 1)
                + (deep.clamp_min(0.0) + &mean) * weight(0, 2)
                + offsets.get(0);
            let bare = conv(&x.clamp_min(0.0), "layer1.1#0.conv", 2, 1);
            let bare = norm(&bare, "layer1.1#0.norm");
            let full = norm(&conv(&x, "layer1.0#1.conv", 2, 1), "layer1.0#1.norm");
            let x = bare * weight(1, 0) + full * weight(1, 1) + offsets.get(1);
            let x = x.mean_dim([2i64, 3].as_slice(), false, DOUBLE.0);
            x.matmul(&p["classifier.weight"].tr()) + &p["classifier.bias"]
        } else {
            let arch = RelaxedArch::new(mix).with_offsets(offsets.split(1, 0));
            let weights = Weights {
                params: &params,
                stats: &stats,
            };
            net.forward(weights, &images, &arch, Mode::Train, Streams::new(1))
                .unwrap()
        };
        let loss = out.square().sum(DOUBLE.0);
        let slopes = Tensor::run_backward(&[loss], &[&params, &alpha, &offsets], false, false);
        (out.detach(), slopes)
    };
    let ((ours, our_slopes), (theirs, slopes)) = (run(false), run(true));
    assert!(distance(&ours, &theirs) < 1e-12);
    for (ours, theirs) in our_slopes.iter().zip(&slopes) {
        assert!(theirs.abs().max().double_value(&[]) > 0.0);
        assert!(distance(ours, theirs) < 1e-9);
    }
}

#[test]
fn what_is_masked_is_not_computed_nor_what_only_that_reads() {
    // The pooling before each row is read by the identity and by the depthwise candidate alone.
    let rows: Vec<Layer> = vec![(vec![0, 5, 2], 1, false), (vec![1, 0], 1, false)];
    let (spec, net) = (
        spec(&rows),
        open(&rows, &SupernetOptions::default()).unwrap(),
    );
    let (params, stats) = weights(&net);
    let images = images();
    let arch = |kept: [usize; 2]| {
        let choice = Choice::new(vec![vec![vec![kept[0]]], vec![vec![kept[1]]]]);
        choice.one_hot(&spec, DOUBLE.0, DOUBLE.1)
    };
    let run = |params: &Tensor, arch: &RelaxedArch| {
        let weights = Weights {
            params,
            stats: &stats,
        };
        net.forward(weights, &images, arch, Mode::Train, Streams::new(1))
    };
    // Stem and what is kept; without the mask all that is there.
    for (arch, convolutions, poolings) in [
        (arch([0, 1]), 3, 0),
        (arch([1, 0]), 2, 1),
        (arch([2, 0]), 3, 1),
        (RelaxedArch::new(arch([0, 1]).weights), 5, 1),
    ] {
        let (_, names) = profile::names(|| run(&params, &arch).unwrap());
        let calls = |name: &str| names.get(name).copied().unwrap_or(0);
        assert_eq!(calls("aten::conv2d"), convolutions, "{names:?}");
        assert_eq!(calls("aten::avg_pool2d"), poolings, "{names:?}");
    }
    // What is not computed may be anything.
    let poisoned = params.copy();
    for (name, mut part) in net.layout().named(&poisoned) {
        if name.starts_with("layer0.2") || name.starts_with("layer1.1") {
            let _ = part.fill_(f64::NAN);
        }
    }
    let kept = arch([0, 1]);
    assert!(
        distance(
            &run(&poisoned, &kept).unwrap(),
            &run(&params, &kept).unwrap()
        ) == 0.0
    );
    let open = RelaxedArch::new(kept.weights);
    assert!(
        run(&poisoned, &open)
            .unwrap()
            .double_value(&[0, 0])
            .is_nan()
    );
    // With nothing kept a row is its offset alone.
    let mut none = arch([0, 1]);
    none.active.as_mut().unwrap()[1][0].fill(false);
    let none = none.with_offsets(vec![
        Tensor::zeros([1], DOUBLE),
        Tensor::full([1], 0.5, DOUBLE),
    ]);
    let named: HashMap<&str, Tensor> = net.layout().named(&params).collect();
    let row_sums = named["classifier.weight"].sum_dim_intlist([1i64].as_slice(), false, DOUBLE.0);
    let expected = row_sums * 0.5 + &named["classifier.bias"];
    assert!(distance(&run(&params, &none).unwrap().get(3), &expected) < 1e-12);
}

#[test]
fn a_drop_path_has_its_own_numbers_whatever_is_masked() {
    let rows: Vec<Layer> = vec![(vec![2, 2], 1, false), (vec![2, 5], 1, false)];
    let options = SupernetOptions {
        drop_path: true,
        ..SupernetOptions::default()
    };
    let (spec, net) = (spec(&rows), open(&rows, &options).unwrap());
    let (params, stats) = weights(&net);
    let images = images();
    let run = |masked: bool, rate: f64, mode, seed| {
        let choice = Choice::new(vec![vec![vec![1]], vec![vec![0]]]);
        let mut arch = choice.one_hot(&spec, DOUBLE.0, DOUBLE.1);
        arch.scalars.insert(DROP_PATH.into(), rate);
        if !masked {
            arch.active = None;
        }
        let weights = Weights {
            params: &params,
            stats: &stats,
        };
        net.forward(weights, &images, &arch, mode, Streams::new(seed))
    };
    let dropped = run(true, 0.5, Mode::Train, 1).unwrap();
    assert!(distance(&dropped, &run(false, 0.5, Mode::Train, 1).unwrap()) < 1e-12);
    assert!(distance(&dropped, &run(true, 0.0, Mode::Train, 1).unwrap()) > 1e-3);
    assert!(distance(&dropped, &run(true, 0.5, Mode::Train, 2).unwrap()) > 1e-3);
    let eval = run(true, 0.5, Mode::Eval, 1).unwrap();
    assert!(distance(&eval, &run(true, 0.0, Mode::Train, 1).unwrap()) == 0.0);
    assert!(run(true, 1.0, Mode::Train, 1).is_err());
}

#[test]
fn candidates_that_are_not_allowed_do_not_exist() {
    let (rows, spec) = two_rows();
    let allowed = |lacking: [&[usize]; 2]| {
        let row = |(r, lacking): (usize, &&[usize])| {
            (0..rows[r].0.len())
                .map(|c| !lacking.contains(&c))
                .collect()
        };
        let rows = lacking.iter().enumerate().map(row).map(|row| vec![row]);
        SupernetOptions {
            allowed: Some(rows.collect()),
            ..SupernetOptions::default()
        }
    };
    let net = open(&rows, &allowed([&[0], &[1]])).unwrap();
    let names: Vec<&str> = net.layout().entries().map(|(name, _)| name).collect();
    let has = |start: &str| names.iter().any(|name| name.starts_with(start));
    assert!(has("layer0.2#2.") && has("layer1.1#0."), "{names:?}");
    assert!(!has("layer0.0#0.") && !has("layer1.0#1."), "{names:?}");
    // A row without candidates is zero, and has the shape that its candidates have.
    let (params, stats) = {
        let net = open(&rows, &allowed([&[], &[0, 1]])).unwrap();
        assert_eq!(
            net.layout()
                .entries()
                .filter(|(n, _)| n.starts_with("layer1"))
                .count(),
            0
        );
        let (params, stats) = weights(&net);
        let arch = RelaxedArch::new(spec.softmax(&Tensor::zeros([spec.numel()], DOUBLE)));
        let weights = Weights {
            params: &params,
            stats: &stats,
        };
        let out = net.forward(weights, &images(), &arch, Mode::Train, Streams::new(1));
        let bias = net
            .layout()
            .named(&params)
            .find(|(n, _)| *n == "classifier.bias")
            .unwrap()
            .1;
        assert!(distance(&out.unwrap().get(0), &bias) == 0.0);
        (params, stats)
    };
    drop((params, stats));
    assert!(
        open(
            &rows,
            &SupernetOptions {
                allowed: Some(vec![]),
                ..Default::default()
            }
        )
        .is_err()
    );
}

#[test]
fn it_works_for_other_kinds() {
    let (rows, spec) = two_rows();
    let net = open(&rows, &SupernetOptions::default()).unwrap();
    let (params, stats) = weights(&net);
    let run = |kind: Kind| {
        let of = |t: &Tensor| t.to_kind(kind);
        let logits = Tensor::zeros([spec.numel()], DOUBLE);
        let arch = RelaxedArch::new(spec.softmax(&logits).iter().map(of).collect());
        let (params, stats) = (of(&params), of(&stats));
        let weights = Weights {
            params: &params,
            stats: &stats,
        };
        let out = net
            .forward(weights, &of(&images()), &arch, Mode::Train, Streams::new(1))
            .unwrap();
        assert_eq!(out.kind(), kind);
        out.to_kind(Kind::Double)
    };
    let exact = run(Kind::Double);
    assert!(distance(&run(Kind::Float), &exact) < 1e-4);
    assert!(distance(&run(Kind::BFloat16), &exact) < 0.2);
}

#[test]
fn what_does_not_fit_is_refused() {
    let (rows, spec) = two_rows();
    let why = |result: Result<()>| result.unwrap_err().to_string();
    let finished =
        |open: bool, build: &dyn Fn(&mut NetworkBuilder, Value) -> Value| -> Result<()> {
            let choice = Choice::new(vec![vec![vec![0]], vec![vec![0]]]);
            let (mut b, images) = match open {
                true => NetworkBuilder::open(&spec, &SupernetOptions::default(), task(2, 9, 8)),
                false => NetworkBuilder::chosen(&spec, &choice, task(2, 9, 8)),
            };
            let x = build(&mut b, images);
            let x = b.flatten(x);
            let logits = b.linear("classifier", x, 5);
            match open {
                true => b.finish_open(logits).map(drop),
                false => b.finish(logits, None).map(drop),
            }
        };
    for open in [true, false] {
        let said = why(finished(open, &|b, x| b.decide("there", (1, 1), |_, _| x)));
        assert!(
            said.contains("`there`") && said.contains("no such row"),
            "{said}"
        );
        let twice = |b: &mut NetworkBuilder, x| {
            let y = b.decide("same", (0, 0), |b, _| b.batch_norm("norm", x, true));
            b.decide("same", (0, 0), |b, _| b.batch_norm("norm", y, true))
        };
        let said = why(finished(open, &twice));
        assert!(said.contains("one name"), "{said}");
    }
    let shapes = |b: &mut NetworkBuilder, x| {
        b.decide("shapes", (0, 0), |b, c| b.avg_pool(x, 3, 1 + c as i64, 1))
    };
    let said = why(finished(true, &shapes));
    assert!(
        said.contains("shapes of shapes") && said.contains("[2, 5, 4]"),
        "{said}"
    );

    // One form can't be finished as the other, nor without an architecture.
    let options = SupernetOptions::default();
    let (mut b, images) = NetworkBuilder::open(&spec, &options, task(2, 9, 8));
    let logits = layers(&mut b, images, &spec, &rows);
    let said = why(b.finish(logits, None).map(drop));
    assert!(said.contains("`finish_open`"), "{said}");
    let (mut b, images) = NetworkBuilder::new(task(2, 9, 8));
    let logits = b.linear("classifier", images, 5);
    assert!(why(b.finish_open(logits).map(drop)).contains("decided"));
    let (mut b, images) = NetworkBuilder::new(task(2, 9, 8));
    let x = b.decide("early", (0, 0), |_, _| images);
    let logits = b.linear("classifier", x, 5);
    assert!(why(b.finish(logits, None).map(drop)).contains("`early`"));
    let other = Choice::new(vec![vec![vec![7]], vec![vec![0]]]);
    assert!(why(chosen(&rows, &other).map(drop)).contains("choice"));

    // Architectures of another space are no reason to panic.
    let net = open(&rows, &options).unwrap();
    let (params, stats) = weights(&net);
    let fits = || RelaxedArch::new(spec.softmax(&Tensor::zeros([spec.numel()], DOUBLE)));
    let wide = || Tensor::zeros([2, 3], DOUBLE);
    for (arch, says) in [
        (RelaxedArch::new(vec![]), "groups"),
        (fits().with_weights(vec![wide(), wide()]), "`first`"),
        (fits().with_offsets(vec![]), "`offsets`"),
        (
            fits().with_active(vec![vec![vec![true; 3]], vec![vec![]]]),
            "`active`",
        ),
    ] {
        let weights = Weights {
            params: &params,
            stats: &stats,
        };
        let out = net.forward(
            weights,
            &super::open::images(),
            &arch,
            Mode::Train,
            Streams::new(1),
        );
        let said = out.unwrap_err().to_string();
        assert!(said.contains(says), "{said}");
    }
}
