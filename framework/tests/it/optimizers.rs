//! Flat SGD and Adam against libtorch's own optimizers, on the same losses.

use nasfw_framework::optim::{OptimizerConfig, Rule, clip_norm};
use nasfw_framework::schedule::Shape;
use proptest::prelude::*;
use tch::nn::OptimizerConfig as _;
use tch::{Device, Kind, Tensor, nn};

fn config(optimizer: Rule) -> OptimizerConfig {
    OptimizerConfig {
        optimizer,
        lr: 0.1,
        lr_min: 0.0,
        schedule: Shape::Constant,
        momentum: 0.0,
        nesterov: false,
        betas: [0.9, 0.999],
        eps: 1e-8,
        weight_decay: 0.0,
        clip: 0.0,
    }
}

/// A loss with curvature and cross terms, so that a wrong order of operations shows.
fn loss(w: &Tensor, step: i64) -> Tensor {
    let target = Tensor::arange(w.numel() as i64, (Kind::Double, Device::Cpu)).sin() * step as f64;
    let bowl = (w - target.cos()).square() * (w.cos() + 1.5);
    bowl.sum(Kind::Double) + w.tanh().prod(Kind::Double)
}

/// Ten steps of ours and of libtorch's from the same start; the largest difference of the weights.
fn difference(ours: &OptimizerConfig, theirs: &mut nn::Optimizer, w: &mut Tensor, lr: f64) -> f64 {
    let mut flat = w.detach().copy().set_requires_grad(true);
    let mut optimizer = ours.build(&flat);
    let mut worst: f64 = 0.0;
    for step in 0..10 {
        theirs.zero_grad();
        loss(w, step).backward();
        theirs.step();
        let value = loss(&flat, step);
        let grads = Tensor::run_backward(&[value], &[&flat], false, false);
        optimizer.step(&mut flat, &grads[0], lr);
        let scale = w.abs().max().double_value(&[]).max(1.0);
        worst = worst.max((&flat - &*w).abs().max().double_value(&[]) / scale);
    }
    worst
}

fn start(seed: i64) -> (nn::VarStore, Tensor) {
    tch::manual_seed(seed);
    let mut vs = nn::VarStore::new(Device::Cpu);
    vs.set_kind(Kind::Double);
    let w = vs.root().var(
        "w",
        &[7],
        nn::Init::Randn {
            mean: 0.0,
            stdev: 1.0,
        },
    );
    vs.double();
    (vs, w)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn sgd_equals_libtorch(
        seed in 0i64..1000,
        lr in 1e-4f64..0.05,
        momentum in prop_oneof![Just(0.0), 0.1f64..0.95],
        decay in prop_oneof![Just(0.0), 1e-5f64..0.1],
        nesterov in any::<bool>(),
    ) {
        let nesterov = nesterov && momentum > 0.0;
        let (vs, _) = start(seed);
        let mut w = vs.variables()["w"].shallow_clone();
        let mut theirs = nn::Sgd { momentum, dampening: 0.0, wd: decay, nesterov }.build(&vs, lr).unwrap();
        let ours = OptimizerConfig { momentum, nesterov, weight_decay: decay, ..config(Rule::Sgd) };
        prop_assert!(difference(&ours, &mut theirs, &mut w, lr) < 1e-12);
    }

    #[test]
    fn adam_equals_libtorch(
        seed in 0i64..1000,
        lr in 1e-4f64..0.1,
        b1 in 0.0f64..0.95,
        b2 in 0.5f64..0.9999,
        decay in prop_oneof![Just(0.0), 1e-5f64..0.1],
    ) {
        let (vs, _) = start(seed);
        let mut w = vs.variables()["w"].shallow_clone();
        let mut theirs =
            nn::Adam { beta1: b1, beta2: b2, wd: decay, eps: 1e-8, amsgrad: false }.build(&vs, lr).unwrap();
        let ours = OptimizerConfig { betas: [b1, b2], weight_decay: decay, ..config(Rule::Adam) };
        prop_assert!(difference(&ours, &mut theirs, &mut w, lr) < 1e-12);
    }

    #[test]
    fn clipping_keeps_direction_and_bounds_the_norm(values in prop::collection::vec(-10.0f64..10.0, 1..30), max in 0.01f64..20.0) {
        let g = Tensor::from_slice(&values);
        let norm = g.norm().double_value(&[]);
        let clipped = clip_norm(&g, max);
        if norm <= max {
            prop_assert!((&clipped - &g).abs().max().double_value(&[]) < 1e-5 * norm.max(1.0));
        } else {
            prop_assert!((clipped.norm().double_value(&[]) - max).abs() < 1e-4 * max);
            let cosine = (&clipped * &g).sum(Kind::Double).double_value(&[]) / (clipped.norm().double_value(&[]) * norm);
            prop_assert!((cosine - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn saved_state_goes_on_as_if_never_saved(rule in prop_oneof![Just(Rule::Sgd), Just(Rule::Adam), Just(Rule::RmsProp)], n in 1i64..6) {
        let c = OptimizerConfig { momentum: 0.9, weight_decay: 1e-3, ..config(rule) };
        let run = |upto: i64, w: &mut Tensor, o: &mut nasfw_framework::optim::FlatOptimizer, from: i64| {
            for step in from..upto {
                let g = Tensor::run_backward(&[loss(w, step)], &[&*w], false, false);
                o.step(w, &g[0], 0.01);
            }
        };
        let start = || Tensor::arange(5, (Kind::Double, Device::Cpu)).set_requires_grad(true);
        let mut whole = start();
        let mut o = c.build(&whole);
        run(2 * n, &mut whole, &mut o, 0);
        let mut halves = start();
        let mut first = c.build(&halves);
        run(n, &mut halves, &mut first, 0);
        let ([a, b], steps) = first.state();
        let mut second = c.build(&halves);
        prop_assert!(second.restore(a.1.copy(), b.1.copy(), steps));
        run(2 * n, &mut halves, &mut second, n);
        prop_assert_eq!(Vec::<f64>::try_from(&whole).unwrap(), Vec::<f64>::try_from(&halves).unwrap());
    }
}

#[test]
fn a_state_of_another_shape_is_refused() {
    let c = config(Rule::Adam);
    let mut o = c.build(&Tensor::zeros([3], (Kind::Float, Device::Cpu)));
    let t = || Tensor::zeros([4], (Kind::Float, Device::Cpu));
    assert!(!o.restore(t(), t(), 3));
    assert_eq!(o.state().1, 0);
}

/// Three steps of `tf.train.RMSPropOptimizer(0.2, 0.9, momentum=0.9, epsilon=1.0)` with L2 decay 1e-4, by hand.
#[test]
fn rmsprop_is_tensorflows() {
    let c = OptimizerConfig {
        betas: [0.0, 0.9],
        eps: 1.0,
        momentum: 0.9,
        weight_decay: 1e-4,
        ..config(Rule::RmsProp)
    };
    let mut w = Tensor::from_slice(&[1.0f64]);
    let mut o = c.build(&w);
    for (gradient, expected) in [
        (0.5, 0.927910775248173),
        (-1.0, 1.0068874790681972),
        (2.0, 0.8106489502937789),
    ] {
        o.step(&mut w, &Tensor::from_slice(&[gradient]), 0.2);
        assert!(
            (w.double_value(&[0]) - expected).abs() < 1e-14,
            "{gradient}"
        );
    }
}

#[test]
fn schedules_of_retraining_hit_their_published_points() {
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-15, "{a} is not {b}");
    // DARTS on CIFAR: the last of 600 epochs still has a rate above zero.
    near(Shape::Cosine.over(0.025, 0.0, 300.0, 600.0), 0.0125);
    assert!(Shape::Cosine.over(0.025, 0.0, 599.0, 600.0) > 1e-8);
    // DARTS on ImageNet: 0.1 × 0.97 an epoch.
    let end = 0.1 * 0.97f64.powi(250);
    for e in [0, 1, 100, 249] {
        near(
            Shape::Exponential.over(0.1, end, f64::from(e), 250.0),
            0.1 * 0.97f64.powi(e),
        );
    }
    // PC-DARTS on ImageNet, T = 250: lr·(T−5−e)/(T−5), then lr·(T−e)/(5(T−5)).
    let tail = |e: f64| Shape::LinearTail.over(0.5, 0.0, e, 250.0);
    near(tail(0.0), 0.5);
    near(tail(4.0), 0.5 * 241.0 / 245.0);
    near(tail(244.0), 0.5 / 245.0);
    near(tail(245.0), 0.5 * 5.0 / (5.0 * 245.0));
    near(tail(249.0), 0.5 / (5.0 * 245.0));
    near(tail(250.0), 0.0);
    near(Shape::LinearTail.over(0.5, 0.0, 1.0, 2.0), 0.25);
}

#[test]
fn schedules_hit_their_published_points() {
    // DARTS: 0.025 to 0.001 over 50 epochs; the middle of a cosine is the mean of its ends.
    let (hi, lo) = (0.025, 0.001);
    for (shape, middle) in [
        (Shape::Cosine, 0.013),
        (Shape::Linear, 0.013),
        (Shape::Constant, hi),
    ] {
        assert!((shape.at(hi, lo, 0.0) - hi).abs() < 1e-15);
        assert!((shape.at(hi, lo, 0.5) - middle).abs() < 1e-15);
    }
    assert!((Shape::Cosine.at(hi, lo, 1.0) - lo).abs() < 1e-15);
    assert!(
        (Shape::Linear.at(hi, lo, 7.0) - lo).abs() < 1e-15,
        "beyond its end a schedule stays"
    );
    // CosineAnnealingLR(T_max=50, eta_min=0.001) after 10 epochs.
    assert!((Shape::Cosine.at(hi, lo, 0.2) - 0.022_708_203_932_499_37).abs() < 1e-15);
}
