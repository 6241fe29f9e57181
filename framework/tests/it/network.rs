//! Standalone networks: against plain libtorch, against closed forms, and what is refused.

use std::collections::HashMap;

use nasfw_framework::Error;
use nasfw_framework::arch::RelaxedArch;
use nasfw_framework::network::{
    Conv, DROP_PATH, LossOptions, Network, NetworkBuilder, Size, Standalone, Value,
};
use nasfw_framework::params::ParamLayout;
use nasfw_framework::rng::Streams;
use nasfw_framework::space::Task;
use nasfw_framework::supernet::{Mode, Supernet, Weights};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

pub const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);

pub fn task(channels: i64, height: i64, width: i64) -> Task {
    Task {
        channels,
        height,
        width,
        classes: 5,
    }
}

/// Parameters and running statistics in a state that tells them all apart.
pub fn weights(network: &Network) -> (Tensor, Tensor) {
    tch::manual_seed(7);
    let params = Tensor::randn([network.layout().numel()], DOUBLE) * 0.5;
    let stats = Tensor::rand([network.stats_layout().numel()], DOUBLE) + 0.5;
    (params, stats)
}

fn by_name(layout: &ParamLayout, flat: &Tensor) -> HashMap<String, Tensor> {
    let entries = layout.named(flat);
    entries.map(|(name, t)| (name.to_owned(), t)).collect()
}

/// One random layer: which, on which earlier value, with which other, how large.
pub type Layer = (u8, usize, usize, i64);

/// The network of a list of layers, and the same as a function of the named parameters and statistics, written with
/// plain libtorch calls: every layer is said twice.
pub fn build(task: Task, layers: &[Layer]) -> Network {
    let (mut b, images) = NetworkBuilder::new(task);
    let mut values = vec![b.conv("stem", images, 4, Conv::same(3))];
    for (i, &(op, x, y, size)) in layers.iter().enumerate() {
        let (x, y) = (values[x % values.len()], values[y % values.len()]);
        let name = format!("layer.{i}");
        let c = b.shape(x)[0];
        let value = match op {
            0 => b.conv(
                &name,
                x,
                size,
                Conv {
                    bias: true,
                    ..Conv::same(1)
                },
            ),
            1 => b.conv(
                &name,
                x,
                2 * size,
                Conv::same(3)
                    .stride(2)
                    .groups(if c % 2 == 0 { 2 } else { 1 }),
            ),
            2 => b.conv(&name, x, c, Conv::same(5).dilation(2).groups(c)),
            3 => b.conv(
                &name,
                x,
                size,
                Conv {
                    kernel: [1, 7],
                    stride: [1, 2],
                    padding: [0, 3],
                    ..Conv::same(1)
                },
            ),
            4 => b.batch_norm(&name, x, size > 2),
            5 => b.relu(x),
            6 => b.max_pool(x, 3, 1 + size % 2, 1),
            7 => b.avg_pool(x, 3, 1 + size % 2, 1),
            8 if b.shape(x) == b.shape(y) => b.add(&[x, y, x]),
            9 if b.shape(x)[1..] == b.shape(y)[1..] && c + b.shape(y)[0] < 40 => b.concat(&[x, y]),
            10 if c > 1 => b.channels(x, 1, c - 1),
            11 => b.shift(x),
            12 => b.zeros(x, 1 + size % 2),
            13 => b.drop_path(x),
            _ => x,
        };
        values.push(value);
    }
    let pooled: Vec<Value> = values
        .iter()
        .rev()
        .take(3)
        .map(|&v| b.global_average_pool(v))
        .collect();
    let joined = b.concat(&pooled);
    let logits = b.linear("classifier", joined, task.classes);
    let last = *values.last().unwrap();
    let auxiliary = b.linear("auxiliary", last, task.classes);
    b.finish(logits, Some(auxiliary)).unwrap()
}

/// Which sample is kept by drop path is not the reference's business: it runs at the rate zero here.
fn reference(
    layers: &[Layer],
    p: &HashMap<String, Tensor>,
    s: &HashMap<String, Tensor>,
    images: &Tensor,
    train: bool,
) -> (Tensor, Tensor) {
    let none = None::<&Tensor>;
    let mut values = vec![images.conv2d(&p["stem.weight"], none, [1, 1], [1, 1], [1, 1], 1)];
    for (i, &(op, x, y, size)) in layers.iter().enumerate() {
        let (x, y) = (&values[x % values.len()], &values[y % values.len()]);
        let w = p.get(&format!("layer.{i}.weight"));
        let bias = p.get(&format!("layer.{i}.bias"));
        let c = x.size()[1];
        let stride = [1 + size % 2, 1 + size % 2];
        let value = match op {
            0 => x.conv2d(w.unwrap(), bias, [1, 1], [0, 0], [1, 1], 1),
            1 => x.conv2d(
                w.unwrap(),
                none,
                [2, 2],
                [1, 1],
                [1, 1],
                if c % 2 == 0 { 2 } else { 1 },
            ),
            2 => x.conv2d(w.unwrap(), none, [1, 1], [4, 4], [2, 2], c),
            3 => x.conv2d(w.unwrap(), none, [1, 2], [0, 3], [1, 1], 1),
            4 => {
                // By the formula, not by libtorch's batch norm.
                let over = [0i64, 2, 3];
                let stat = |part: &str| s[&format!("layer.{i}.{part}")].view([1, c, 1, 1]);
                let (mean, var) = if train {
                    let mean = x.mean_dim(over.as_slice(), true, Kind::Double);
                    let var = (x - &mean)
                        .square()
                        .mean_dim(over.as_slice(), true, Kind::Double);
                    (mean, var)
                } else {
                    (stat("running_mean"), stat("running_var"))
                };
                let normal = (x - mean) / (var + 1e-5).sqrt();
                match (w, bias) {
                    (Some(w), Some(b)) => normal * w.view([1, c, 1, 1]) + b.view([1, c, 1, 1]),
                    _ => normal,
                }
            }
            5 => x.clamp_min(0.0),
            6 => x.max_pool2d([3, 3], stride, [1, 1], [1, 1], false),
            7 => {
                let ones = Tensor::ones([1, 1, 3, 3], DOUBLE);
                let sum = |t: &Tensor| t.conv2d(&ones, none, stride, [1, 1], [1, 1], 1);
                let [n, c, h, w] = x.size()[..] else {
                    unreachable!()
                };
                let sums =
                    sum(&x.reshape([n * c, 1, h, w])) / sum(&Tensor::ones([1, 1, h, w], DOUBLE));
                let [.., h, w] = sums.size()[..] else {
                    unreachable!()
                };
                sums.reshape([n, c, h, w])
            }
            8 if x.size() == y.size() => x * 2.0 + y,
            9 if x.size()[2..] == y.size()[2..] && c + y.size()[1] < 40 => Tensor::cat(&[x, y], 1),
            10 if c > 1 => x.slice(1, 1, c, 1),
            11 => {
                let (h, w) = (x.size()[2], x.size()[3]);
                let moved = x.zeros_like();
                if h > 1 && w > 1 {
                    moved
                        .narrow(2, 0, h - 1)
                        .narrow(3, 0, w - 1)
                        .copy_(&x.narrow(2, 1, h - 1).narrow(3, 1, w - 1));
                }
                moved
            }
            12 => x
                .slice(2, None, None, stride[0])
                .slice(3, None, None, stride[0])
                .zeros_like(),
            _ => x.shallow_clone(),
        };
        values.push(value);
    }
    let last = values.last().unwrap();
    let pooled: Vec<Tensor> = values
        .iter()
        .rev()
        .take(3)
        .map(|v| v.flatten(2, -1).mean_dim(-1, false, Kind::Double))
        .collect();
    let linear = |name: &str, x: &Tensor| {
        x.matmul(&p[&format!("{name}.weight")].tr()) + &p[&format!("{name}.bias")]
    };
    (
        linear("classifier", &Tensor::cat(&pooled, 1)),
        linear("auxiliary", &last.flatten(1, -1)),
    )
}

pub fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    if a.numel() == 0 {
        return 0.0;
    }
    (a - b).abs().max().double_value(&[]) / b.abs().max().double_value(&[]).max(1.0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_random_network_and_its_gradient_are_those_of_plain_libtorch(
        layers in proptest::collection::vec((0u8..14, 0usize..20, 0usize..20, 1i64..6), 1..14),
        channels in 1i64..4,
        height in 1i64..10,
        width in 1i64..10,
        train in any::<bool>(),
    ) {
        let task = task(channels, height, width);
        let network = build(task, &layers);
        let (params, stats) = weights(&network);
        // Enough pixels for every batch norm that rounding is not blown up by a variance near zero.
        let images = Tensor::randn([16, channels, height, width], DOUBLE);
        let before = stats.copy();
        let mode = if train { Mode::Train } else { Mode::Eval };
        let flat = params.copy().set_requires_grad(true);
        let ours = network
            .forward(Weights { params: &flat, stats: &stats }, &images, mode, 0.0, Streams::new(1))
            .unwrap();
        let leaf = params.copy().set_requires_grad(true);
        let (main, auxiliary) = reference(
            &layers,
            &by_name(network.layout(), &leaf),
            &by_name(network.stats_layout(), &before),
            &images,
            train,
        );
        prop_assert!(distance(&ours.main, &main) < 1e-8);
        prop_assert_eq!(ours.auxiliary.is_some(), train);
        prop_assert!(train || distance(&stats, &before) == 0.0);
        let (mut our_sum, mut sum) = (ours.main.square().sum(Kind::Double), main.square().sum(Kind::Double));
        if let Some(a) = &ours.auxiliary {
            prop_assert!(distance(a, &auxiliary) < 1e-8);
            our_sum += a.sum(Kind::Double);
            sum += auxiliary.sum(Kind::Double);
        }
        let gradient = |sum: Tensor, of: &Tensor| Tensor::run_backward(&[sum], &[of], false, false).remove(0);
        prop_assert!(distance(&gradient(our_sum, &flat), &gradient(sum, &leaf)) < 1e-6);
    }
}

#[test]
fn running_statistics_follow_the_batch_with_the_set_momentum() {
    let (mut b, images) = NetworkBuilder::new(task(2, 3, 4));
    b.batch_norm_settings(0.25, 1e-3);
    let x = b.batch_norm("bn", images, false);
    let x = b.global_average_pool(x);
    let logits = b.linear("classifier", x, 5);
    let network = b.finish(logits, None).unwrap();
    let (params, stats) = weights(&network);
    let before = by_name(network.stats_layout(), &stats.copy());
    let images = Tensor::randn([6, 2, 3, 4], DOUBLE) * 3.0 + 1.0;
    let weights = Weights {
        params: &params,
        stats: &stats,
    };
    network
        .forward(weights, &images, Mode::Train, 0.0, Streams::new(1))
        .unwrap();
    let after = by_name(network.stats_layout(), &stats);
    let pixels = images.transpose(0, 1).reshape([2, -1]);
    let mean = &before["bn.running_mean"] * 0.75 + pixels.mean_dim(1, false, Kind::Double) * 0.25;
    let var = &before["bn.running_var"] * 0.75 + pixels.var_dim(1, true, false) * 0.25;
    assert!(distance(&after["bn.running_mean"], &mean) < 1e-12);
    assert!(distance(&after["bn.running_var"], &var) < 1e-12);
    let one = Tensor::zeros([6, 2, 3, 4], DOUBLE);
    let eval = network
        .forward(weights, &one, Mode::Eval, 0.0, Streams::new(1))
        .unwrap()
        .main;
    let p = by_name(network.layout(), &params);
    let normal = -mean / (var + 1e-3).sqrt();
    let expected = p["classifier.weight"].mv(&normal) + &p["classifier.bias"];
    assert!(distance(&eval.get(2), &expected) < 1e-12);
}

/// Images → drop path → mean → linear layer that passes a channel on.
fn dropping(noise: bool) -> Network {
    let (mut b, images) = NetworkBuilder::new(task(1, 2, 2));
    let x = if noise {
        b.noise(images, 2)
    } else {
        b.drop_path(images)
    };
    let x = if noise { x } else { b.drop_path(x) };
    let x = b.global_average_pool(x);
    let logits = b.linear("classifier", x, 5);
    b.finish(logits, None).unwrap()
}

#[test]
fn drop_path_keeps_the_mean_is_drawn_per_image_and_from_the_given_streams() {
    let network = dropping(false);
    let params = Tensor::ones([network.layout().numel()], DOUBLE);
    let stats = Tensor::zeros([0], DOUBLE);
    let weights = Weights {
        params: &params,
        stats: &stats,
    };
    let images = Tensor::ones([4000, 1, 2, 2], DOUBLE);
    let run = |mode, rate, seed| {
        let out = network
            .forward(weights, &images, mode, rate, Streams::new(seed))
            .unwrap();
        Vec::<f64>::try_from((out.main - 1.0).select(1, 0)).unwrap()
    };
    let values = run(Mode::Train, 0.25, 1);
    let full = 1.0 / (0.75 * 0.75);
    let kept = values.iter().filter(|v| (**v - full).abs() < 1e-9).count();
    assert!(values.iter().all(|v| *v == 0.0 || (*v - full).abs() < 1e-9));
    // 4000 draws with probability 0.75² have a standard deviation of 31.
    assert!((kept as f64 - 2250.0).abs() < 160.0, "{kept}");
    assert_eq!(values, run(Mode::Train, 0.25, 1));
    assert_ne!(values, run(Mode::Train, 0.25, 2));
    assert!(run(Mode::Eval, 0.25, 1).iter().all(|v| *v == 1.0));
    assert!(run(Mode::Train, 0.0, 1).iter().all(|v| *v == 1.0));
}

#[test]
fn noise_is_standard_normal_and_fresh_in_evaluation_too() {
    let network = dropping(true);
    let params = Tensor::ones([network.layout().numel()], DOUBLE);
    let stats = Tensor::zeros([0], DOUBLE);
    let weights = Weights {
        params: &params,
        stats: &stats,
    };
    let images = Tensor::zeros([4000, 1, 2, 2], DOUBLE);
    let run = |seed| {
        let out = network
            .forward(weights, &images, Mode::Eval, 0.0, Streams::new(seed))
            .unwrap();
        (out.main - 1.0).select(1, 0)
    };
    let values = run(1);
    // One pixel of four is left at stride 2, so the mean over pixels is a single draw.
    assert!(values.mean(Kind::Double).double_value(&[]).abs() < 0.08);
    assert!((values.std(true).double_value(&[]) - 1.0).abs() < 0.06);
    assert_eq!(distance(&values, &run(1)), 0.0);
    assert!(distance(&values, &run(2)) > 0.1);
}

#[test]
fn counts_are_the_closed_forms_and_unread_layers_count() {
    let (mut b, images) = NetworkBuilder::new(Task {
        channels: 3,
        height: 9,
        width: 7,
        classes: 10,
    });
    let x = b.conv("stem", images, 8, Conv::same(3).stride(2)); // 5×4
    let x = b.batch_norm("bn", x, true);
    let x = b.conv("depthwise", x, 8, Conv::same(5).groups(8));
    let x = b.conv(
        "point",
        x,
        6,
        Conv {
            bias: true,
            ..Conv::same(1)
        },
    );
    let x = b.batch_norm("plain", x, false);
    b.conv("unread", x, 2, Conv::same(1));
    let a = b.conv("auxiliary.conv", x, 4, Conv::same(1));
    let a = b.linear("auxiliary.classifier", a, 10);
    let x = b.global_average_pool(x);
    let logits = b.linear("classifier", x, 10);
    let network = b.finish(logits, Some(a)).unwrap();
    let unread = 6 * 2;
    assert_eq!(
        network.size(),
        Size {
            params: 27 * 8 + 16 + 25 * 8 + 8 * 6 + 6 + unread + 60 + 10,
            auxiliary_params: 6 * 4 + (4 * 20 * 10 + 10),
            macs: 20 * (27 * 8 + 25 * 8 + 8 * 6 + unread) + 60,
        }
    );
    assert_eq!(
        network.layout().numel(),
        network.size().params + network.size().auxiliary_params
    );
    assert_eq!(network.stats_layout().numel(), 2 * (8 + 6));
}

#[test]
fn the_shift_completes_a_factorized_reduction_of_odd_sizes_too() {
    for (height, width) in [(1, 1), (4, 6), (5, 7), (2, 3)] {
        let (mut b, images) = NetworkBuilder::new(task(1, height, width));
        let shifted = b.shift(images);
        let halves = [images, shifted].map(|x| {
            let name = if x == shifted { "second" } else { "first" };
            b.conv(name, x, 1, Conv::same(1).stride(2))
        });
        let joined = b.concat(&halves);
        let (h, w) = ((height + 1) / 2, (width + 1) / 2);
        assert_eq!(b.shape(joined), [2, h, w]);
        let logits = b.linear("classifier", joined, 5);
        let network = b.finish(logits, None).unwrap();
        // The convolutions pass on, the classifier's first output sums the second half.
        let params = Tensor::zeros([network.layout().numel()], DOUBLE);
        let p = by_name(network.layout(), &params);
        for name in ["first.weight", "second.weight"] {
            let _ = p[name].shallow_clone().fill_(1.0);
        }
        let _ = p["classifier.weight"]
            .narrow(0, 0, 1)
            .narrow(1, h * w, h * w)
            .fill_(1.0);
        let images = Tensor::randn([2, 1, height, width], DOUBLE);
        let stats = Tensor::zeros([0], DOUBLE);
        let weights = Weights {
            params: &params,
            stats: &stats,
        };
        let out = network
            .forward(weights, &images, Mode::Eval, 0.0, Streams::new(1))
            .unwrap()
            .main;
        let odd = images.slice(2, 1, None, 2).slice(3, 1, None, 2);
        let expected = odd.sum_dim_intlist([1i64, 2, 3].as_slice(), false, Kind::Double);
        assert!(distance(&out.select(1, 0), &expected) < 1e-12);
    }
}

#[test]
fn what_does_not_fit_is_an_error_and_the_first_one_is_told() {
    let small = || {
        let (mut b, images) = NetworkBuilder::new(task(3, 6, 6));
        let x = b.avg_pool(images, 5, 3, 0);
        let x = b.conv(
            "two",
            x,
            4,
            Conv {
                padding: [0, 0],
                ..Conv::same(2)
            },
        );
        let x = b.global_average_pool(x);
        let logits = b.linear("classifier", x, 5);
        b.finish(logits, None)
    };
    let error = small().unwrap_err();
    assert!(matches!(error, Error::Incompatible { .. }), "{error}");
    assert!(
        error.to_string().contains("images of 6×6 pixels"),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("1×1 pixels are left where `two` is"),
        "{error}"
    );

    let refused = |wrong: &dyn Fn(&mut NetworkBuilder, Value) -> Value| {
        let (mut b, images) = NetworkBuilder::new(task(3, 6, 6));
        let x = wrong(&mut b, images);
        let logits = b.linear("classifier", x, 5);
        b.finish(logits, None).unwrap_err().to_string()
    };
    assert!(refused(&|b, x| b.conv("c", x, 4, Conv::same(1).groups(2))).contains("in 2 groups"));
    assert!(refused(&|b, x| b.conv("classifier", x, 4, Conv::same(1))).contains("one name"));
    assert!(refused(&|b, x| b.channels(x, 2, 2)).contains("of 3 channels"));
    assert!(refused(&|b, _| b.add(&[])).contains("a sum of nothing"));
    assert!(
        refused(&|b, x| {
            let y = b.max_pool(x, 2, 2, 0);
            b.add(&[x, y])
        })
        .contains("[3, 6, 6] and [3, 3, 3]")
    );
    assert!(
        refused(&|b, x| {
            let y = b.global_average_pool(x);
            b.max_pool(y, 1, 1, 0)
        })
        .contains("needs an image")
    );
    assert!(refused(&|b, x| b.max_pool(x, 3, 1, 2)).contains("padding 2"));
    let (b, images) = NetworkBuilder::new(task(5, 1, 1));
    assert!(
        b.finish(images, None)
            .unwrap_err()
            .to_string()
            .contains("logits of shape")
    );
    let (mut b, images) = NetworkBuilder::new(task(0, 1, 1));
    let logits = b.linear("classifier", images, 5);
    assert!(b.finish(logits, None).is_err());
}

#[test]
fn wrong_input_of_a_forward_pass_is_an_error() {
    let (mut b, images) = NetworkBuilder::new(task(1, 2, 2));
    let x = b.max_pool(images, 2, 2, 0);
    let x = b.batch_norm("bn", x, false);
    let logits = b.linear("classifier", x, 5);
    let network = b.finish(logits, None).unwrap();
    let (params, stats) = weights(&network);
    let (one, other) = (
        Tensor::zeros([1, 1, 2, 2], DOUBLE),
        Tensor::zeros([2, 1, 2, 3], DOUBLE),
    );
    let run = |params: &Tensor, stats: &Tensor, images: &Tensor, mode, rate| {
        network
            .forward(
                Weights { params, stats },
                images,
                mode,
                rate,
                Streams::new(0),
            )
            .map(|_| ())
            .map_err(|e| e.to_string())
    };
    assert_eq!(run(&params, &stats, &one, Mode::Eval, 0.0), Ok(()));
    assert!(
        run(&params, &stats, &one, Mode::Train, 0.0)
            .unwrap_err()
            .contains("no variance")
    );
    assert!(
        run(&params, &stats, &other, Mode::Eval, 0.0)
            .unwrap_err()
            .contains("not [n, 1, 2, 2]")
    );
    assert!(
        run(&stats, &stats, &one, Mode::Eval, 0.0)
            .unwrap_err()
            .contains("parameters")
    );
    assert!(
        run(&params, &params, &one, Mode::Eval, 0.0)
            .unwrap_err()
            .contains("running statistics")
    );
    assert!(
        run(&params, &stats, &one, Mode::Train, 1.0)
            .unwrap_err()
            .contains("rate 1")
    );
}

#[test]
fn the_trainers_view_adds_the_auxiliary_loss_and_judges_the_main_logits() {
    let (mut b, images) = NetworkBuilder::new(task(1, 2, 2));
    let x = b.drop_path(images);
    let logits = b.linear("main", x, 5);
    let auxiliary = b.linear("auxiliary", images, 5);
    let net = Standalone::new(
        b.finish(logits, Some(auxiliary)).unwrap(),
        LossOptions {
            auxiliary: 0.4,
            label_smoothing: 0.1,
        },
    )
    .unwrap();
    let (params, stats) = weights(net.network());
    let weights = Weights {
        params: &params,
        stats: &stats,
    };
    let images = Tensor::randn([64, 1, 2, 2], DOUBLE);
    let labels = Tensor::arange(64, (Kind::Int64, Device::Cpu)).remainder(5);
    let mut arch = RelaxedArch::new(vec![]);
    let run = |arch: &RelaxedArch, mode| {
        net.forward(weights, &images, arch, mode, Streams::new(3))
            .unwrap()
    };
    let (train, eval) = (run(&arch, Mode::Train), run(&arch, Mode::Eval));
    assert_eq!((train.size(), eval.size()), (vec![64, 10], vec![64, 5]));

    // Smoothed labels written out: 0.9 on the label plus 0.1 / 5 everywhere.
    let targets = labels.one_hot(5).to_kind(Kind::Double) * 0.9 + 0.02;
    let loss = |x: Tensor| -(x.log_softmax(1, Kind::Double) * &targets).sum(Kind::Double) / 64.0;
    let (main, auxiliary) = (train.narrow(1, 0, 5), train.narrow(1, 5, 5));
    assert!(distance(&main, &eval) < 1e-12);
    let expected = loss(main.shallow_clone()) + loss(auxiliary) * 0.4;
    assert!(distance(&net.loss(&train, &labels), &expected) < 1e-12);
    assert!(distance(&net.loss(&eval, &labels), &loss(main)) < 1e-12);
    let right = |x: &Tensor| net.correct(x, &labels).double_value(&[]);
    assert_eq!(right(&train), right(&eval));
    let all = labels.one_hot(5).to_kind(Kind::Double);
    let none = -all.shallow_clone();
    assert_eq!((right(&all), right(&none)), (64.0, 0.0));
    assert_eq!(right(&Tensor::cat(&[&none, &all], 1)), 0.0);
    assert_eq!(right(&Tensor::cat(&[&all, &none], 1)), 64.0);

    arch.scalars.insert(DROP_PATH.into(), 0.5);
    assert!(distance(&run(&arch, Mode::Train), &train) > 0.0);
    assert_eq!(distance(&run(&arch, Mode::Eval), &eval), 0.0);
}
