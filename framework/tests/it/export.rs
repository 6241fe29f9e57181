//! Exported networks: ONNX models run by another engine, and weights read back.

use nasfw_framework::inputs::Normalisation;
use nasfw_framework::network::{
    Conv, Network, NetworkBuilder, ONNX_OPSET, ONNX_OPSETS, OnnxOptions,
};
use nasfw_framework::rng::Streams;
use nasfw_framework::supernet::{Mode, Weights};
use proptest::prelude::*;
use rten::{Model, Value};
use safetensors::SafeTensors;
use tch::{Kind, Tensor};

use crate::network::{DOUBLE, Layer, build, distance, task, weights};

/// Logits of an exported model in rten, in double precision.
fn rten(model: &[u8], images: &Tensor) -> Tensor {
    let pixels = Vec::<f32>::try_from(images.to_kind(Kind::Float).flatten(0, -1)).unwrap();
    let shape: Vec<usize> = images.size().iter().map(|&n| n as usize).collect();
    let model = Model::load(model.to_vec()).unwrap();
    let input = Value::from_shape(&shape, pixels).unwrap();
    let output = model.run_one(input.into(), None).unwrap();
    let (shape, logits) = output.into_shape_vec::<f32, 2>().unwrap();
    Tensor::from_slice(&logits)
        .view(shape.map(|n| n as i64))
        .to_kind(Kind::Double)
}

fn agree(network: &Network, images: &Tensor, opset: i64) -> f64 {
    let (params, stats) = weights(network);
    let weights = Weights {
        params: &params,
        stats: &stats,
    };
    let ours = network
        .forward(weights, images, Mode::Eval, 0.0, Streams::new(1))
        .unwrap();
    let options = OnnxOptions {
        opset,
        metadata: "{}",
        ..OnnxOptions::default()
    };
    let model = network.onnx(weights, options).unwrap();
    distance(&rten(&model, images), &ours.main)
}

/// A network in which every operation that is not random reaches the logits.
fn with_everything() -> Network {
    let (mut b, images) = NetworkBuilder::new(task(3, 11, 8));
    let stem = b.conv(
        "stem",
        images,
        6,
        Conv {
            bias: true,
            ..Conv::same(3)
        },
    );
    let x = b.batch_norm("affine", stem, true);
    let x = b.relu(x);
    let depthwise = b.conv(
        "depthwise",
        x,
        6,
        Conv::same(5).dilation(2).groups(6).stride(2),
    );
    let plain = b.batch_norm("plain", depthwise, false);
    let max = b.max_pool(x, 3, 2, 1);
    let avg = b.avg_pool(x, 3, 2, 1);
    let shifted = b.shift(x);
    let odd = b.conv("odd", shifted, 6, Conv::same(1).stride(2));
    let wide = b.conv(
        "wide",
        x,
        6,
        Conv {
            kernel: [1, 7],
            stride: [2, 2],
            padding: [0, 3],
            ..Conv::same(1)
        },
    );
    let zeros = b.zeros(x, 2);
    let dropped = b.drop_path(max);
    let sum = b.add(&[plain, dropped, avg, odd, wide, zeros]);
    let part = b.channels(sum, 1, 3);
    let joined = b.concat(&[part, sum, zeros]);
    let pooled = b.global_average_pool(joined);
    let all = b.flatten(part);
    let logits = b.concat(&[pooled, all]);
    let logits = b.linear("hidden", logits, 7);
    let logits = b.relu(logits);
    let logits = b.linear("classifier", logits, 5);
    let logits = b.drop_path(logits);
    b.finish(logits, None).unwrap()
}

#[test]
fn another_engine_gets_the_same_logits_for_every_operation_batch_size_and_operator_set() {
    let network = with_everything();
    for opset in ONNX_OPSETS {
        for n in [1, 4] {
            let images = Tensor::randn([n, 3, 11, 8], DOUBLE);
            let distance = agree(&network, &images, opset);
            assert!(
                distance < 1e-5,
                "operator set {opset}, {n} images: {distance}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn another_engine_gets_the_same_logits_for_random_networks(
        layers in proptest::collection::vec((0u8..14, 0usize..20, 0usize..20, 1i64..6), 1..14),
        channels in 1i64..4,
        height in 1i64..10,
        width in 1i64..10,
    ) {
        let layers: Vec<Layer> = layers;
        let network = build(task(channels, height, width), &layers);
        let images = Tensor::randn([2, channels, height, width], DOUBLE);
        let distance = agree(&network, &images, ONNX_OPSET);
        prop_assert!(distance < 1e-5, "{}", distance);
    }
}

/// Raw pixels in a model that normalises, and normalised ones in a plain model.
#[test]
fn a_model_that_normalises_by_itself_gives_the_same_logits_for_raw_pixels() {
    let network = with_everything();
    let (params, stats) = weights(&network);
    let weights = Weights {
        params: &params,
        stats: &stats,
    };
    let (mean, std) = ([0.4914, 0.4822, 0.1], [0.247, 0.2435, 0.9]);
    let scaling = |mean: &[f64], std: &[f64]| Normalisation {
        mean: mean.to_vec(),
        std: std.to_vec(),
        classes: vec![],
    };
    let plain = network.onnx(weights, OnnxOptions::default()).unwrap();
    for opset in ONNX_OPSETS {
        let options = OnnxOptions {
            opset,
            raw: Some(&scaling(&mean, &std)),
            ..OnnxOptions::default()
        };
        let raw = network.onnx(weights, options).unwrap();
        let named = Model::load(raw.clone()).unwrap();
        assert!(named.find_node("pixels").is_some());
        for n in [1, 3] {
            let pixels = Tensor::randint(256, [n, 3, 11, 8], DOUBLE);
            let [mean, std] = [mean, std].map(|v| Tensor::from_slice(&v).view([1, 3, 1, 1]));
            let images = (&pixels / 255.0 - mean) / std;
            let (found, expected) = (rten(&raw, &pixels), rten(&plain, &images));
            let apart = distance(&found, &expected);
            assert!(apart < 1e-5, "operator set {opset}: {apart}");
            assert!(distance(&rten(&plain, &pixels), &expected) > 1e-2);
        }
    }
    for raw in [scaling(&mean[..2], &std), scaling(&mean, &std[..1])] {
        let options = OnnxOptions {
            raw: Some(&raw),
            ..OnnxOptions::default()
        };
        let error = network.onnx(weights, options).unwrap_err().to_string();
        assert!(error.contains("for 3 channels"), "{error}");
    }
}

#[test]
fn noise_is_drawn_by_the_other_engine_too() {
    let (mut b, images) = NetworkBuilder::new(task(1, 4, 4));
    let x = b.noise(images, 2);
    let x = b.channels(x, 0, 1);
    let logits = b.linear("classifier", x, 5);
    let network = b.finish(logits, None).unwrap();
    // The first output passes the first pixel on.
    let params = Tensor::zeros([network.layout().numel()], DOUBLE);
    let _ = params.narrow(0, 0, 1).fill_(1.0);
    let stats = Tensor::zeros([0], DOUBLE);
    let model = network
        .onnx(
            Weights {
                params: &params,
                stats: &stats,
            },
            OnnxOptions::default(),
        )
        .unwrap();
    let images = Tensor::zeros([4000, 1, 4, 4], DOUBLE);
    let draws = rten(&model, &images).select(1, 0);
    assert!(draws.mean(Kind::Double).double_value(&[]).abs() < 0.08);
    assert!((draws.std(true).double_value(&[]) - 1.0).abs() < 0.06);
    assert!(distance(&draws, &rten(&model, &images).select(1, 0)) > 0.1);
}

#[test]
fn models_name_their_constants_and_leave_out_what_no_logit_depends_on() {
    let (mut b, images) = NetworkBuilder::new(task(1, 4, 4));
    let x = b.conv("conv", images, 2, Conv::same(3));
    let x = b.batch_norm("bn", x, true);
    b.conv("unread", x, 2, Conv::same(1));
    let auxiliary = b.linear("auxiliary", x, 5);
    let logits = b.linear("classifier", x, 5);
    let network = b.finish(logits, Some(auxiliary)).unwrap();
    let (params, stats) = weights(&network);
    let weights = Weights {
        params: &params,
        stats: &stats,
    };
    let plain = OnnxOptions::default();
    let model = Model::load(network.onnx(weights, plain).unwrap()).unwrap();
    for (name, _) in network
        .layout()
        .entries()
        .chain(network.stats_layout().entries())
    {
        let left_out = name.starts_with("unread") || name.starts_with("auxiliary");
        assert_eq!(model.find_node(name).is_none(), left_out, "{name}");
    }
    assert!(model.find_node("images").is_some() && model.find_node("logits").is_some());
    for opset in [12, 22] {
        let other = OnnxOptions { opset, ..plain };
        let error = network.onnx(weights, other).unwrap_err().to_string();
        assert!(error.contains("sets 13 to 21"), "{error}");
    }
    let wrong = Weights {
        params: &stats,
        stats: &stats,
    };
    assert!(
        network
            .onnx(wrong, plain)
            .unwrap_err()
            .to_string()
            .contains("parameters of shape")
    );
    assert!(
        network
            .safetensors(wrong, "")
            .unwrap_err()
            .to_string()
            .contains("parameters of shape")
    );
}

#[test]
fn a_weights_file_holds_every_entry_by_name_and_is_the_same_every_time() {
    let network = with_everything();
    let (params, stats) = weights(&network);
    let weights = Weights {
        params: &params,
        stats: &stats,
    };
    let file = network.safetensors(weights, r#"{"space":"x"}"#).unwrap();
    assert_eq!(
        file,
        network.safetensors(weights, r#"{"space":"x"}"#).unwrap()
    );
    let (_, header) = SafeTensors::read_metadata(&file).unwrap();
    assert_eq!(
        header.metadata().as_ref().unwrap()["nasfw"],
        r#"{"space":"x"}"#
    );
    let read = SafeTensors::deserialize(&file).unwrap();
    let mut entries = 0;
    for (layout, flat) in [
        (network.layout(), &params),
        (network.stats_layout(), &stats),
    ] {
        for (name, tensor) in layout.named(flat) {
            let view = read.tensor(name).unwrap();
            assert_eq!(
                view.shape(),
                tensor
                    .size()
                    .iter()
                    .map(|&n| n as usize)
                    .collect::<Vec<_>>()
            );
            let values: Vec<f64> = view
                .data()
                .chunks(8)
                .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
                .collect();
            assert_eq!(values, Vec::<f64>::try_from(tensor.flatten(0, -1)).unwrap());
            entries += 1;
        }
    }
    assert_eq!(read.len(), entries);
}
