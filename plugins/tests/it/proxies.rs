//! Zero-cost proxies against direct computations: the same small network written a second time in plain operators, with
//! derivatives by differences or by leaves of their own.

use std::collections::BTreeMap;

use nasfw_framework::network::Conv;
use nasfw_framework::proxy::{Start, batch};
use nasfw_framework::rng::normal;
use tch::no_grad;

use super::*;

const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);
const IMAGES: i64 = 6;
const ALL: [&str; 13] = [
    "epe-nas",
    "fisher",
    "flops",
    "grad-norm",
    "grasp",
    "jacov",
    "l2-norm",
    "nwot",
    "params",
    "plain",
    "snip",
    "synflow",
    "zen",
];

fn task(classes: i64) -> Task {
    Task {
        channels: 2,
        height: 6,
        width: 6,
        classes,
    }
}

/// A stem, two branches that each begin with a ReLU of the stem, a third one that nothing reads, a sum, a classifier.
fn network(classes: i64) -> Network {
    let (mut b, images) = NetworkBuilder::new(task(classes));
    let stem = b.conv("stem", images, 4, Conv::same(3));
    let stem = b.batch_norm("stem.norm", stem, true);
    let wide = b.relu(stem);
    let wide = b.conv("wide", wide, 4, Conv::same(3));
    let wide = b.batch_norm("wide.norm", wide, true);
    let thin = b.relu(stem);
    let bias = Conv {
        bias: true,
        ..Conv::same(1)
    };
    let thin = b.conv("thin", thin, 4, bias);
    let idle = b.relu(stem);
    let idle = b.conv("idle", idle, 2, Conv::same(1));
    b.batch_norm("idle.norm", idle, true);
    let sum = b.add(&[wide, thin]);
    let last = b.relu(sum);
    let pooled = b.global_average_pool(last);
    let logits = b.linear("classifier", pooled, classes);
    b.finish(logits, None).unwrap()
}

/// Layers with weights, in their order, and how many weights lead into one of their outputs.
const LAYERS: [(&str, f64); 5] = [
    ("stem.weight", 18.0),
    ("wide.weight", 36.0),
    ("thin.weight", 4.0),
    ("idle.weight", 4.0),
    ("classifier.weight", 4.0),
];

type Named = BTreeMap<String, Tensor>;

/// What the plain network computes on its way.
struct Plain {
    logits: Tensor,
    /// Inputs of all ReLUs, one of each operation.
    relus: Vec<Tensor>,
    features: Tensor,
    /// Batch's unbiased variance at each batch norm, `[channels]`.
    variances: Vec<Tensor>,
}

/// The network in plain operators. `gate` is given the name of each layer and what it puts out.
fn plain(w: &Named, images: &Tensor, norms: bool, gate: &dyn Fn(&str, Tensor) -> Tensor) -> Plain {
    let mut variances = vec![];
    let mut norm = |name: &str, x: Tensor| {
        if !norms {
            return x;
        }
        let over = [0i64, 2, 3];
        let mean = x.mean_dim(over.as_slice(), true, Kind::Double);
        let var = x.var_dim(over.as_slice(), false, true);
        variances.push(x.var_dim(over.as_slice(), true, false));
        let at = |part: &str| w[&format!("{name}.{part}")].view([1, -1, 1, 1]);
        (x - mean) / (var + 1e-5).sqrt() * at("weight") + at("bias")
    };
    let conv = |name: &str, x: &Tensor, padding: i64| {
        let bias = w.get(&format!("{name}.bias"));
        let weight = &w[&format!("{name}.weight")];
        gate(
            name,
            x.conv2d(weight, bias, [1, 1], [padding; 2], [1, 1], 1),
        )
    };
    let bent = |x: &Tensor| x.clamp_min(0.0);
    let stem = norm("stem.norm", conv("stem", images, 1));
    let wide = norm("wide.norm", conv("wide", &bent(&stem), 1));
    let thin = conv("thin", &bent(&stem), 0);
    let _ = norm("idle.norm", conv("idle", &bent(&stem), 0));
    let sum = wide + thin;
    let features = bent(&sum);
    let pooled = features.mean_dim([2i64, 3].as_slice(), false, Kind::Double);
    let logits = pooled.matmul(&w["classifier.weight"].tr()) + &w["classifier.bias"];
    Plain {
        logits: gate("classifier", logits),
        relus: vec![stem.shallow_clone(), stem.shallow_clone(), stem, sum],
        features,
        variances,
    }
}

fn free(_: &str, x: Tensor) -> Tensor {
    x
}

/// −log p of each label, in the mean.
fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Tensor {
    let log_p = logits.log_softmax(-1, Kind::Double);
    -log_p
        .gather(1, &labels.unsqueeze(1), false)
        .mean(Kind::Double)
}

struct Fixture {
    network: Network,
    batch: Batch,
}

impl Fixture {
    fn new(classes: i64) -> Self {
        let images = normal(
            &mut Streams::new(9).at("images", 0),
            &[IMAGES, 2, 6, 6],
            DOUBLE.0,
            DOUBLE.1,
        );
        // Three of one class, two of another, one alone.
        let labels = Tensor::from_slice(&[0i64, 1, 0, 2, 1, 0]);
        Self {
            network: network(classes),
            batch: Batch {
                images,
                labels,
                split: None,
            },
        }
    }

    fn start(&self) -> Start<'_> {
        Start::new(&self.network, &self.batch, Streams::new(4)).unwrap()
    }

    fn named(&self, flat: &Tensor) -> Named {
        let named = self.network.layout().named(flat);
        named.map(|(name, t)| (name.to_owned(), t)).collect()
    }

    /// Fresh weights as leaves of their own.
    fn leaves(&self) -> Named {
        let named = self.named(&self.start().weights().detach()).into_iter();
        named
            .map(|(name, t)| (name, t.copy().set_requires_grad(true)))
            .collect()
    }

    /// Gradients of the plain network's loss in its kernels; zero where it depends on none.
    fn slopes(&self, w: &Named) -> Vec<(Tensor, Tensor)> {
        let logits = plain(w, &self.batch.images, true, &free).logits;
        let loss = cross_entropy(&logits, &self.batch.labels);
        let leaves: Vec<&Tensor> = LAYERS.iter().map(|(name, _)| &w[*name]).collect();
        let gradients = Tensor::run_backward(&[loss], &leaves, true, false).into_iter();
        let both = leaves.iter().zip(gradients).map(|(w, g)| {
            let g = if g.defined() { g } else { w.zeros_like() };
            (w.detach(), g.detach())
        });
        both.collect()
    }
}

/// A registered proxy with its defaults, or with a setting.
fn proxy(name: &str, set: &[(&str, Value)]) -> Box<dyn Proxy> {
    let registry = Registry::load().unwrap();
    let plugin = registry.get(Plugins::Proxy, name).unwrap();
    let mut section = plugin.default_section().unwrap();
    for (key, value) in set {
        section[*key] = value.clone();
    }
    plugin.proxy(&section).unwrap()
}

fn score(name: &str, start: &Start<'_>) -> f64 {
    proxy(name, &[]).score(start).unwrap()
}

fn sum(t: &Tensor) -> f64 {
    t.sum(Kind::Double).double_value(&[])
}

fn near(a: f64, b: f64, tolerance: f64) {
    assert!(
        (a - b).abs() <= tolerance * (1.0 + b.abs()),
        "{a} is not {b}"
    );
}

#[test]
fn the_thirteen_are_there() {
    let registry = Registry::load().unwrap();
    let names: Vec<&str> = registry.of(Plugins::Proxy).map(|p| p.name).collect();
    assert!(ALL.iter().all(|name| names.contains(name)), "{names:?}");
}

#[test]
fn the_network_is_the_plain_one() {
    let f = Fixture::new(3);
    let start = f.start();
    let ours = start.logits(&start.weights(), &f.batch.images).unwrap();
    let theirs = plain(&f.leaves(), &f.batch.images, true, &free).logits;
    assert!((ours - theirs).abs().max().double_value(&[]) < 1e-12);
}

/// SNIP as its paper has it: the gradient in masks that multiply the weights; the others by leaves of their own.
#[test]
fn saliencies_of_first_order() {
    let f = Fixture::new(3);
    let (start, w) = (f.start(), f.leaves());
    let slopes = f.slopes(&w);
    let masks: Vec<Tensor> = slopes
        .iter()
        .map(|(w, _)| w.ones_like().set_requires_grad(true))
        .collect();
    let mut masked = f.leaves();
    for ((name, _), mask) in LAYERS.iter().zip(&masks) {
        let product = masked[*name].detach() * mask;
        masked.insert((*name).to_owned(), product);
    }
    let loss = cross_entropy(
        &plain(&masked, &f.batch.images, true, &free).logits,
        &f.batch.labels,
    );
    let leaves: Vec<&Tensor> = masks.iter().collect();
    let sensitivity = Tensor::run_backward(&[loss], &leaves, false, false);
    let snip: f64 = sensitivity
        .iter()
        .filter(|g| g.defined())
        .map(|g| sum(&g.abs()))
        .sum();
    near(score("snip", &start), snip, 1e-10);
    let plain: f64 = slopes.iter().map(|(w, g)| sum(&(w * g))).sum();
    near(score("plain", &start), plain, 1e-10);
    assert!(snip > 2.0 * plain.abs() && plain.abs() > 1e-6);
    let norms: f64 = slopes.iter().map(|(_, g)| sum(&(g * g)).sqrt()).sum();
    near(score("grad-norm", &start), norms, 1e-10);
    let weights: f64 = slopes.iter().map(|(w, _)| sum(&(w * w)).sqrt()).sum();
    near(score("l2-norm", &start), weights, 1e-10);
}

/// The product of the Hessian with the gradient by differences of gradients along it.
#[test]
fn grasp_is_a_difference_of_gradients() {
    let f = Fixture::new(3);
    let w = f.leaves();
    let slopes = f.slopes(&w);
    let moved = |by: f64| {
        let mut moved = f.leaves();
        for ((name, _), (at, g)) in LAYERS.iter().zip(&slopes) {
            moved.insert((*name).to_owned(), (at + g * by).set_requires_grad(true));
        }
        f.slopes(&moved)
    };
    let step = 1e-5;
    let (up, down) = (moved(step), moved(-step));
    let terms = slopes
        .iter()
        .zip(up.iter().zip(&down))
        .map(|((w, _), ((_, up), (_, down)))| -sum(&(w * (up - down))) / (2.0 * step));
    let expected: f64 = terms.sum();
    assert!(expected.abs() > 1e-4);
    near(score("grasp", &f.start()), expected, 1e-5);
}

/// Σ over pixels of a ∂L/∂a is the derivative of the loss in a factor of a channel of an image.
#[test]
fn fisher_is_by_gates_of_channels() {
    let f = Fixture::new(3);
    let w = f.leaves();
    let outputs = BTreeMap::from([
        ("stem", 4),
        ("wide", 4),
        ("thin", 4),
        ("idle", 2),
        ("classifier", 3),
    ]);
    let gates: BTreeMap<&str, Tensor> = outputs
        .iter()
        .map(|(name, c)| {
            (
                *name,
                Tensor::ones([IMAGES, *c], DOUBLE).set_requires_grad(true),
            )
        })
        .collect();
    let gate = |name: &str, x: Tensor| match x.dim() {
        4 => x * gates[name].view([IMAGES, -1, 1, 1]),
        _ => x * &gates[name],
    };
    let logits = plain(&w, &f.batch.images, true, &gate).logits;
    let loss = cross_entropy(&logits, &f.batch.labels);
    let mut expected = 0.0;
    for (weight, inputs) in LAYERS {
        let gate = &gates[weight.strip_suffix(".weight").unwrap()];
        let slope = Tensor::run_backward(&[&loss], &[gate], true, false).remove(0);
        if slope.defined() {
            expected += inputs * 0.5 * sum(&slope.square()) / IMAGES as f64;
        }
    }
    assert!(expected > 1e-6);
    near(score("fisher", &f.start()), expected, 1e-10);
}

/// Differences of the sum of all logits, pixel by pixel, `[image][pixel]`.
fn jacobian(f: &Fixture) -> Vec<Vec<f64>> {
    let w = f.leaves();
    let total = |images: &Tensor| no_grad(|| sum(&plain(&w, images, true, &free).logits));
    let step = 1e-5;
    let pixels = f.batch.images.numel() as i64;
    let slope = |i: i64| {
        let moved = |by: f64| {
            let images = f.batch.images.contiguous().copy();
            let _ = images.view([-1]).get(i).g_add_scalar_(by);
            total(&images)
        };
        (moved(step) - moved(-step)) / (2.0 * step)
    };
    let all: Vec<f64> = (0..pixels).map(slope).collect();
    all.chunks((pixels / IMAGES) as usize)
        .map(<[f64]>::to_vec)
        .collect()
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let (ma, mb) = (mean(a), mean(b));
    let dot = |x: &[f64], mx: f64, y: &[f64], my: f64| {
        x.iter()
            .zip(y)
            .map(|(x, y)| (x - mx) * (y - my))
            .sum::<f64>()
    };
    dot(a, ma, b, mb) / (dot(a, ma, a, ma) * dot(b, mb, b, mb)).sqrt()
}

/// Determinant and inverse's trace instead of eigenvalues: Σ log(λ + ε) = log |R + ε|, Σ 1/(λ + ε) = tr (R + ε)⁻¹.
#[test]
fn jacov_is_by_the_determinant() {
    let f = Fixture::new(3);
    let rows = jacobian(&f);
    let n = rows.len();
    let epsilon = 0.01;
    let at =
        |i: usize, j: usize| correlation(&rows[i], &rows[j]) + if i == j { epsilon } else { 0.0 };
    let matrix: Vec<f64> = (0..n * n).map(|k| at(k / n, k % n)).collect();
    let matrix = Tensor::from_slice(&matrix).view([n as i64, -1]);
    let expected = -matrix.det().log().double_value(&[]) - sum(&matrix.inverse().diagonal(0, 0, 1));
    let found = proxy("jacov", &[("epsilon", epsilon.into())])
        .score(&f.start())
        .unwrap();
    near(found, expected, 1e-5);
    // By default small eigenvalues weigh more.
    assert!(score("jacov", &f.start()) < found);
}

#[test]
fn epe_nas_is_class_by_class() {
    let epsilon = 0.01;
    let classes: [&[usize]; 3] = [&[0, 2, 5], &[1, 4], &[3]];
    for many in [3, 101] {
        let f = Fixture::new(many);
        let rows = jacobian(&f);
        let of = |images: &[usize]| -> f64 {
            let pairs = images
                .iter()
                .flat_map(|i| images.iter().map(move |j| (*i, *j)));
            pairs
                .map(|(i, j)| (correlation(&rows[i], &rows[j]).abs() + epsilon).ln())
                .sum()
        };
        let expected = if many == 3 {
            classes.iter().map(|c| of(c).abs()).sum()
        } else {
            // The one that is alone has no part: two classes, two pairs of them.
            let e: Vec<f64> = classes[..2]
                .iter()
                .map(|c| of(c) / c.len() as f64)
                .collect();
            2.0 * (e[0] - e[1]).abs() / 2.0
        };
        let found = proxy("epe-nas", &[("epsilon", epsilon.into())])
            .score(&f.start())
            .unwrap();
        near(found, expected, 1e-5);
    }
}

/// Agreements counted one by one, the determinant by elimination; a ReLU that three operations share counts three times.
#[test]
fn nwot_counts_agreeing_relus() {
    let f = Fixture::new(3);
    let relus = plain(&f.leaves(), &f.batch.images, true, &free).relus;
    let codes: Vec<Vec<bool>> = (0..IMAGES)
        .map(|i| {
            relus
                .iter()
                .flat_map(|r| numbers(&r.get(i)))
                .map(|x| x > 0.0)
                .collect()
        })
        .collect();
    let n = codes.len();
    let mut k: Vec<Vec<f64>> = (0..n)
        .map(|i| {
            (0..n)
                .map(|j| {
                    codes[i]
                        .iter()
                        .zip(&codes[j])
                        .filter(|(a, b)| a == b)
                        .count() as f64
                })
                .collect()
        })
        .collect();
    let mut log_determinant = 0.0;
    for i in 0..n {
        // Positive definite: no pivoting is needed.
        log_determinant += k[i][i].ln();
        let (above, below) = k.split_at_mut(i + 1);
        let pivot = &above[i];
        for row in below {
            let factor = row[i] / pivot[i];
            for (x, p) in row.iter_mut().zip(pivot).skip(i) {
                *x -= factor * p;
            }
        }
    }
    assert_eq!(codes[0].len(), 4 * 4 * 36);
    near(score("nwot", &f.start()), log_determinant, 1e-10);
}

/// By leaves, and, of a chain, in closed form: the flow through each layer is the sum of the logits but for the biases.
#[test]
fn synflow_is_the_flow_of_absolute_weights() {
    let f = Fixture::new(3);
    let w: Named = f
        .leaves()
        .into_iter()
        .map(|(name, t)| (name, t.detach().abs().set_requires_grad(true)))
        .collect();
    let out = plain(&w, &Tensor::ones([1, 2, 6, 6], DOUBLE), false, &free)
        .logits
        .sum(Kind::Double);
    let flow = |name: &str| {
        let slope = Tensor::run_backward(&[&out], &[&w[name]], true, false).remove(0);
        if slope.defined() {
            sum(&(slope * w[name].detach()))
        } else {
            0.0
        }
    };
    let expected: f64 = LAYERS.iter().map(|(name, _)| flow(name)).sum();
    near(score("synflow", &f.start()), expected.ln(), 1e-10);
    // Images have no part in it.
    let mut other = Fixture::new(3);
    other.batch.images *= 2.0;
    assert_eq!(
        score("synflow", &f.start()),
        score("synflow", &other.start())
    );

    let (mut b, images) = NetworkBuilder::new(task(3));
    let mut x = images;
    for i in 0..40 {
        x = b.conv(&format!("{i}"), x, 8, Conv::same(3));
        x = b.batch_norm(&format!("{i}.norm"), x, true);
        x = b.relu(x);
    }
    let pooled = b.global_average_pool(x);
    let logits = b.linear("classifier", pooled, 3);
    let chain = b.finish(logits, None).unwrap();
    // Single precision would do here, too, but the score must not depend on it.
    for kind in [Kind::Double, Kind::Float] {
        let batch = Batch {
            images: f.batch.images.to_kind(kind),
            labels: f.batch.labels.shallow_clone(),
            split: None,
        };
        let start = Start::new(&chain, &batch, Streams::new(4)).unwrap();
        let w: Named = chain
            .layout()
            .named(&start.weights().detach().to_kind(Kind::Double).abs())
            .map(|(name, t)| (name.to_owned(), t))
            .collect();
        let mut x = Tensor::ones([1, 2, 6, 6], DOUBLE);
        for i in 0..40 {
            x = x.conv2d::<Tensor>(&w[&format!("{i}.weight")], None, [1, 1], [1, 1], [1, 1], 1);
        }
        let pooled = x.mean_dim([2i64, 3].as_slice(), false, Kind::Double);
        let flow = sum(&pooled.matmul(&w["classifier.weight"].tr()));
        near(score("synflow", &start), (41.0 * flow).ln(), 1e-10);
    }
}

/// With the same draws: features of both images, and running variances after both passes.
#[test]
fn zen_is_the_change_of_the_features() {
    let f = Fixture::new(3);
    let start = f.start();
    let once = |repeat: u64| {
        let noise = |name: &str| {
            let rng = &mut start.rng(&format!("zen {name} {repeat}"));
            normal(rng, &[IMAGES, 2, 6, 6], DOUBLE.0, DOUBLE.1)
        };
        let w: Named = f
            .named(&start.weights().detach())
            .into_iter()
            .map(|(name, t)| {
                let t = match LAYERS.iter().any(|(layer, _)| *layer == name) {
                    true => normal(
                        &mut start.rng(&format!("zen {repeat} {name}")),
                        &t.size(),
                        DOUBLE.0,
                        DOUBLE.1,
                    ),
                    false if name.ends_with("bias") => t.zeros_like(),
                    false => t.ones_like(),
                };
                (name, t)
            })
            .collect();
        let images = noise("images");
        let changed = &images + noise("change") * 0.03;
        let [a, b] = [images, changed].map(|x| plain(&w, &x, true, &free));
        let moved = sum(&(a.features - b.features).abs()) / IMAGES as f64;
        let mut scales = 0.0;
        for (a, b) in a.variances.iter().zip(&b.variances) {
            let running = a.ones_like() * 0.9 + a * 0.1;
            let running = running * 0.9 + b * 0.1;
            scales += (sum(&running) / running.numel() as f64).sqrt().ln();
        }
        assert_eq!(a.variances.len(), 3);
        moved.ln() + scales
    };
    let found = proxy("zen", &[("gamma", 0.03.into()), ("repeats", 2.into())]);
    let expected = (once(0) + once(1)) / 2.0;
    near(found.score(&start).unwrap(), expected, 1e-9);
    // Images have no part in it.
    let mut other = Fixture::new(3);
    other.batch.images *= 2.0;
    assert_eq!(score("zen", &start), score("zen", &other.start()));
}

#[test]
fn sizes_are_those_of_the_counters() {
    let f = Fixture::new(3);
    // Kernels, biases, three pairs of batch norms' parameters.
    let params = (4 * 18 + 4 * 36 + 4 * 4 + 2 * 4 + 3 * 4) + (4 + 3) + 2 * (4 + 4 + 2);
    assert_eq!(f.network.size().params, params);
    near(score("params", &f.start()), params as f64 / 1e6, 1e-12);
    let macs = 36 * (4 * 18 + 4 * 36 + 4 * 4 + 2 * 4) + 3 * 4;
    near(score("flops", &f.start()), f64::from(macs) / 1e6, 1e-12);
}

/// An architecture that answers the same whatever it sees gets scores, or none, but ends nothing.
#[test]
fn an_architecture_that_sees_nothing_is_scored() {
    let space = super::spied::space("nasbench201");
    let weights: Marginals = vec![vec![vec![1.0, 0.0, 0.0, 0.0, 0.0]; 6]];
    let genotype = space.genotype(&space.derive(&weights));
    let options = NetworkOptions {
        channels: Some(4),
        cells: Some(1),
        auxiliary: false,
    };
    let task = Task {
        height: 8,
        width: 8,
        ..task(3)
    };
    let network = space.network(&genotype, task, &options).unwrap();
    assert!(!network.sees_images());
    let images = normal(
        &mut Streams::new(1).at("images", 0),
        &[4, 2, 8, 8],
        Kind::Float,
        Device::Cpu,
    );
    let batch = Batch {
        images,
        labels: Tensor::from_slice(&[0i64, 1, 2, 0]),
        split: None,
    };
    let start = Start::new(&network, &batch, Streams::new(0)).unwrap();
    for name in ALL {
        let score = score(name, &start);
        let blind = ["jacov", "epe-nas", "synflow"].contains(&name);
        assert!(!(blind && score.is_finite()), "{name}: {score}");
    }
}

#[test]
fn a_batch_is_drawn_by_its_seed_and_one_image_is_too_few() {
    let part = |n: u8| nasfw_framework::dataset::Part {
        images: (0..n).flat_map(|i| [i; 72]).collect::<Vec<u8>>().into(),
        labels: (0..u16::from(n)).map(|i| i % 3).collect(),
    };
    let data = ImageData {
        task: task(3),
        train: part(20),
        test: part(4),
        split: None,
        mean: vec![0.5; 2],
        std: vec![0.25; 2],
        classes: vec!["a".into(), "b".into(), "c".into()],
    };
    let draw = |n, seed| batch(&data, n, Streams::new(seed), DOUBLE).unwrap();
    assert!(draw(8, 1).images.equal(&draw(8, 1).images));
    assert!(!draw(8, 1).images.equal(&draw(8, 2).images));
    assert_eq!((draw(8, 1).len(), draw(99, 1).len()), (8, 20));
    let network = network(3);
    let one = Start::new(&network, &draw(8, 1).parts(8)[0], Streams::new(0)).map(drop);
    assert!(one.unwrap_err().to_string().contains("need two"));
}
