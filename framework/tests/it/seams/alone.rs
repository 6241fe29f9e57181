//! H25 in networks that are trained alone.

use nasfw_framework::network::{Conv, NetworkBuilder};
use nasfw_framework::observe;

use super::*;

/// What ReLUs of a network take is told before it is rectified, where that is otherwise done in place; logits and gradients
/// stay, and a gradient at the place is that through the ReLU alone.
#[test]
fn networks_tell_what_their_relus_take() {
    let task = Task {
        channels: 2,
        height: 5,
        width: 5,
        classes: 3,
    };
    let (mut b, images) = NetworkBuilder::new(task);
    let stem = b.conv("stem", images, 4, Conv::same(3));
    let norm = b.batch_norm("norm", stem, true);
    let first = b.relu(norm);
    let second = b.conv("second", first, 4, Conv::same(1));
    let bent = b.relu(second);
    // Read beside its ReLU.
    let sum = b.add(&[second, bent]);
    let pooled = b.global_average_pool(sum);
    let logits = b.linear("classifier", pooled, task.classes);
    let network = b.finish(logits, None).unwrap();
    let options = (Kind::Double, tch::Device::Cpu);
    let params = network.layout().init(Streams::new(3), options.0, options.1);
    let params = params.set_requires_grad(true);
    let draw = &mut Streams::new(3).at("images", 0);
    let images = nasfw_framework::rng::normal(draw, &[3, 2, 5, 5], options.0, options.1);
    let pass = || {
        let stats = network
            .stats_layout()
            .init(Streams::new(3), options.0, options.1);
        let weights = Weights {
            params: &params,
            stats: &stats,
        };
        network
            .forward(weights, &images, Mode::Train, 0.0, Streams::new(0))
            .unwrap()
            .main
    };
    let plain = pass();
    let (logits, told) = observe::values(Wanted::ReluInputs, pass);
    assert!(logits.equal(&plain));
    let slopes = |y: &Tensor, x: &Tensor| {
        Tensor::run_backward(&[y.square().sum(Kind::Double)], &[x], true, false).remove(0)
    };
    assert_eq!(slopes(&logits, &params), slopes(&plain, &params));

    let all: std::collections::HashMap<_, _> = network.layout().named(&params).collect();
    let stem = images.conv2d::<Tensor>(&all["stem.weight"], None, [1, 1], [1, 1], [1, 1], 1);
    let mean = stem.mean_dim([0i64, 2, 3].as_slice(), true, options.0);
    let var = (&stem - &mean)
        .square()
        .mean_dim([0i64, 2, 3].as_slice(), true, options.0);
    let norm = (stem - mean) / (var + 1e-5).sqrt();
    let second = norm.clamp_min(0.0).conv2d::<Tensor>(
        &all["second.weight"],
        None,
        [1, 1],
        [0, 0],
        [1, 1],
        1,
    );
    assert_eq!(told.len(), 2);
    assert!(gap(&told[0].tensor, &norm) < 1e-12 && norm.min().double_value(&[]) < -0.1);
    assert!(gap(&told[1].tensor, &second) < 1e-12);
    assert_ne!(told[0].name, told[1].name);
    // Zero where the ReLU is off, although what it takes is also read beside it.
    let off = told[1].tensor.le(0.0).to_kind(options.0);
    let slope = slopes(&logits, &told[1].tensor);
    assert_eq!((slope.abs() * &off).max().double_value(&[]), 0.0);
    assert!(
        slope.abs().max().double_value(&[]) > 1e-6 && off.sum(options.0).double_value(&[]) > 0.0
    );
}
