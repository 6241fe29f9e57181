//! Networks with their weights, and what nasfw says of them.

use std::fs;
use std::path::Path;

use nasfw::framework::network::{Conv, Network, NetworkBuilder, PyTorchNotes, Value};
use nasfw::framework::prelude::Task;
use nasfw::framework::rng::{Rng, Streams};
use nasfw::framework::supernet::{Mode, Weights};
use nasfw::tch::{Device, Kind, Reduction, Tensor};
use rand::RngExt;
use serde_json::{Map, json};

/// Rate of the step of SGD, and weight of the auxiliary classifier's loss.
const RATE: f64 = 0.01;
const AUXILIARY: f64 = 0.4;
/// Images of a batch.
const IMAGES: i64 = 3;

/// A network, its file and its weights.
pub struct Case {
    pub name: String,
    pub network: Network,
    /// The network that it is compared with, of the same layouts.
    reference: Network,
    pub source: String,
    seed: u64,
}

/// Logits, auxiliary ones and loss of a training batch.
type Trained = (Tensor, Option<Tensor>, Tensor);

impl Case {
    pub fn new(name: &str, network: Network, reference: Network, seed: u64) -> Self {
        assert_eq!(network.layout(), reference.layout());
        let notes = PyTorchNotes {
            genotype: name.into(),
            images: None,
        };
        Self {
            name: name.into(),
            source: network.pytorch(&notes).unwrap(),
            network,
            reference,
            seed,
        }
    }

    fn train(&self, params: &Tensor, stats: &Tensor, images: &Tensor, labels: &Tensor) -> Trained {
        let weights = Weights { params, stats };
        let logits = (self.reference)
            .forward(weights, images, Mode::Train, 0.0, Streams::new(1))
            .unwrap();
        let loss = |logits: &Tensor| {
            logits.cross_entropy_loss::<Tensor>(labels, None, Reduction::Mean, -100, 0.0)
        };
        let sum = match &logits.auxiliary {
            Some(auxiliary) => loss(&logits.main) + loss(auxiliary) * AUXILIARY,
            None => loss(&logits.main),
        };
        (logits.main, logits.auxiliary, sum)
    }

    fn eval(&self, params: &Tensor, stats: &Tensor, images: &Tensor) -> Tensor {
        let weights = Weights { params, stats };
        nasfw::tch::no_grad(|| {
            (self.reference)
                .forward(weights, images, Mode::Eval, 0.0, Streams::new(1))
                .unwrap()
                .main
        })
    }

    /// File, weights and what comes of them.
    pub fn write(&self, folder: &Path) {
        nasfw::tch::manual_seed(self.seed as i64);
        let options = (Kind::Float, Device::Cpu);
        let Task {
            channels,
            height,
            width,
            classes,
        } = self.network.task();
        let (layout, stats_layout) = (self.network.layout(), self.network.stats_layout());
        let streams = Streams::new(self.seed);
        let start = layout.init(streams, Kind::Float, Device::Cpu);
        let start_stats = stats_layout.init(streams, Kind::Float, Device::Cpu);
        let params = &start + Tensor::randn(start.size(), options) * 0.03;
        // About those of a network in its first steps, so that the images reach the logits.
        let stats = Tensor::rand(start_stats.size(), options) * 0.25 + 0.05;
        let images = Tensor::randn([IMAGES, channels, height, width], options);
        let labels = Tensor::randint(classes, [IMAGES], (Kind::Int64, Device::Cpu));
        let written = |name: &str, params: &Tensor, stats: &Tensor| {
            let weights = Weights { params, stats };
            let bytes = self.network.safetensors(weights, "{}").unwrap();
            fs::write(folder.join(name), bytes).unwrap();
        };
        written("start.safetensors", &start, &start_stats);
        written("weights.safetensors", &params, &stats);

        let eval = self.eval(&params, &stats, &images);
        let double = |t: &Tensor| t.to_kind(Kind::Double);
        let (params, stats, exact) = (double(&params), double(&stats), double(&images));
        let params = params.set_requires_grad(true);
        let (train, auxiliary, before) = self.train(&params, &stats, &exact, &labels);
        let gradient = Tensor::run_backward(&[&before], &[&params], false, false);
        let params = params.detach() - &gradient[0] * RATE;
        let (_, _, loss) = self.train(&params, &stats, &exact, &labels);
        let after = self.eval(&params, &stats, &exact);
        let losses = Tensor::stack(&[before.detach(), loss], 0);
        let mut data = vec![
            ("images", images),
            ("labels", labels),
            ("eval", eval),
            ("train", train.detach()),
            ("loss", losses),
            ("after", after),
        ];
        data.extend(auxiliary.map(|logits| ("auxiliary", logits.detach())));
        let data: Vec<(&str, Tensor)> = data
            .into_iter()
            .map(|(name, t)| (name, t.contiguous()))
            .collect();
        Tensor::write_safetensors(&data, folder.join("data.safetensors")).unwrap();
        let shapes: Map<_, _> = layout
            .entries()
            .map(|(name, shape)| (name.to_owned(), json!(shape)))
            .collect();
        let case = json!({ "parameters": shapes });
        fs::write(folder.join("case.json"), case.to_string()).unwrap();
        fs::write(folder.join("network.py"), &self.source).unwrap();
    }
}

/// Names of layers that Python or torch reads otherwise.
const NAMES: [&str; 22] = [
    "modules.0.projections.1.conv",
    "modules.0.projections.1.bn",
    "train",
    "forward",
    "for.if",
    "type.0",
    "type.1",
    "a-b.c d",
    "é\"'\\",
    "_modules.x",
    "weight.bias",
    "T_destination",
    "dropped",
    "run_modules_0",
    "0.1.2",
    "stem",
    "stem.bn",
    "stem.children.0",
    "part.s0",
    "x1.images",
    "IMAGE.nn.torch.F",
    "put.self",
];

/// A network whose layers have these names, and one that does not reach the logits.
pub fn with_names() -> Network {
    let task = Task {
        channels: 3,
        height: 6,
        width: 6,
        classes: 5,
    };
    let (mut b, images) = NetworkBuilder::new(task);
    let mut x = images;
    for (i, name) in NAMES.iter().enumerate() {
        x = b.conv(name, x, 4 + i as i64 % 3, Conv::same(1));
        x = b.batch_norm(&format!("bn{i}.{name}"), x, i % 2 == 0);
        if i % 3 == 0 {
            x = b.relu(x);
        }
    }
    b.conv("idle.conv", x, 3, Conv::same(3));
    let pooled = b.global_average_pool(x);
    let logits = b.linear("cells", pooled, 5);
    b.finish(logits, None).unwrap()
}

/// Names of some layers: alone, in rows, in groups, in cells.
fn name(rng: &mut Rng, i: usize) -> String {
    match rng.random_range(0..6) {
        0 => format!("layer{i}"),
        1 => format!("cells.{}.node{i}.op.0", i / 5),
        2 => format!("cells.{}.edge.{i}", i / 5),
        3 => format!("row.{i}"),
        4 => format!("group{}.layer{i}", i / 7),
        _ => format!("pair{i}"),
    }
}

/// A random network of all operations but noise.
pub fn with_everything(seed: u64) -> Network {
    let rng = &mut Streams::new(seed).at("network", 0);
    let task = Task {
        channels: rng.random_range(1..4),
        height: rng.random_range(5..12),
        width: rng.random_range(5..12),
        classes: 5,
    };
    let (mut b, images) = NetworkBuilder::new(task);
    let mut values = vec![b.conv("stem", images, 4, Conv::same(3))];
    for i in 0..rng.random_range(5..40) {
        let mut pick = || {
            // Mostly what is new.
            let from = values.len().saturating_sub(rng.random_range(1..6));
            values[rng.random_range(from..values.len())]
        };
        let (x, y) = (pick(), pick());
        values.push(operation(&mut b, rng, i, x, y));
    }
    let pooled: Vec<Value> = values
        .iter()
        .rev()
        .take(rng.random_range(1..4))
        .map(|&v| b.global_average_pool(v))
        .collect();
    let mut x = b.concat(&pooled);
    if rng.random_bool(0.3) {
        x = b.linear("hidden.0", x, 6);
        x = b.batch_norm("hidden.1", x, rng.random_bool(0.5));
        x = b.relu(x);
        x = b.drop_path(x);
    }
    let mut logits = b.linear("classifier", x, task.classes);
    if rng.random_bool(0.2) {
        logits = b.relu(logits);
    }
    let auxiliary = rng.random_bool(0.6).then(|| {
        let at = values[rng.random_range(0..values.len())];
        let x = b.relu(at);
        let x = b.conv("auxiliary.0", x, 5, Conv::same(1));
        let x = b.batch_norm("auxiliary.1", x, true);
        let x = b.relu(x);
        b.linear("auxiliary.classifier", x, task.classes)
    });
    b.finish(logits, auxiliary).unwrap()
}

fn operation(b: &mut NetworkBuilder, rng: &mut Rng, i: usize, x: Value, y: Value) -> Value {
    let name = name(rng, i);
    let [c, h, w] = b.shape(x);
    let same_size = b.shape(x)[1..] == b.shape(y)[1..];
    let stride = if h > 2 && w > 2 {
        rng.random_range(1..3)
    } else {
        1
    };
    match rng.random_range(0..18) {
        0 => {
            let bias = rng.random_bool(0.5);
            b.conv(
                &name,
                x,
                rng.random_range(1..7),
                Conv {
                    bias,
                    ..Conv::same(1)
                },
            )
        }
        1 => b.conv(
            &name,
            x,
            2 * c.min(8),
            Conv::same(3)
                .stride(stride)
                .groups(if c % 2 == 0 { 2 } else { 1 }),
        ),
        2 => b.conv(&name, x, c, Conv::same(5).dilation(2).groups(c)),
        3 => {
            let wide = Conv {
                kernel: [1, 7],
                stride: [1, stride],
                padding: [0, 3],
                ..Conv::same(1)
            };
            b.conv(&name, x, 4, wide)
        }
        4 | 5 => b.batch_norm(&name, x, rng.random_bool(0.5)),
        6 | 7 => b.relu(x),
        8 => b.max_pool(x, 3, stride, 1),
        9 => b.avg_pool(x, 3, stride, 1),
        10 if h > 1 && w > 1 => b.avg_pool(x, 2, stride, 0),
        11 if b.shape(x) == b.shape(y) => b.add(&[x, y, x]),
        12 if same_size && c + b.shape(y)[0] < 30 => b.concat(&[x, y]),
        13 if c > 1 => b.channels(x, 1, c - 1),
        14 => b.shift(x),
        15 => {
            let zeros = b.zeros(x, 1);
            let dropped = b.drop_path(zeros);
            let terms = [[zeros, x], [dropped, x], [x, dropped], [dropped, zeros]];
            b.add(&terms[rng.random_range(0..4)])
        }
        16 if h > 2 && w > 2 => {
            let x = b.relu(x);
            let shifted = b.shift(x);
            let half = Conv::same(1).stride(2);
            let first = b.conv(&format!("{name}.1.first"), x, 2, half);
            let second = b.conv(&format!("{name}.1.second"), shifted, 3, half);
            let x = b.concat(&[first, second]);
            b.batch_norm(&format!("{name}.2"), x, true)
        }
        _ => {
            // A chain by positions.
            let x = b.relu(x);
            let x = b.conv(&format!("{name}.1"), x, 4, Conv::same(3));
            let x = b.batch_norm(&format!("{name}.2"), x, true);
            let x = b.relu(x);
            let x = b.conv(&format!("{name}.4"), x, 3, Conv::same(1));
            b.drop_path(x)
        }
    }
}
