//! Latency: networks in pieces, tables of how long these take, limits by them, and what a benchmark knows within limits.

use std::collections::HashMap;
use std::fs;

use nasfw::framework::network::{Network, NetworkOptions, OnnxOptions};
use nasfw::framework::registry::{Kind, Registry};
use nasfw::framework::rng::{self, Streams};
use nasfw::framework::space::{SearchSpace, Task};
use nasfw::framework::supernet::{Mode, Weights};
use rten::{Model, Value as Number};
use serde_json::Value;
use tch::{Device, Kind as Float, Tensor};

use crate::program::{flat, good, nasfw, python, result, skipped, toy_folder};

const TASK: Task = Task {
    channels: 3,
    height: 32,
    width: 32,
    classes: 10,
};

fn space(name: &str) -> Box<dyn SearchSpace> {
    let registry = Registry::load().unwrap();
    let plugin = registry.get(Kind::Space, name).unwrap();
    let section = plugin.default_section().unwrap();
    plugin.space(&section).unwrap().build().unwrap()
}

/// A random architecture's network.
fn network(name: &str, seed: u64) -> Network {
    let space = space(name);
    let size = NetworkOptions {
        channels: (name != "mobile").then_some(4),
        cells: (name != "mobile").then_some(if name == "darts" { 3 } else { 1 }),
        auxiliary: false,
    };
    let choice = space.random(&mut Streams::new(seed).at("choice", 0));
    space
        .network(&space.genotype(&choice), TASK, &size)
        .unwrap()
}

/// Numbers `AxBxC` of a shape; `A` alone counts as `Ax1x1`.
fn sizes(shape: &str) -> [i64; 3] {
    let mut sizes = shape.split('x').map(|n| n.parse::<i64>().unwrap());
    [(); 3].map(|()| sizes.next().unwrap_or(1))
}

/// Multiply-adds of a piece, from nothing but its key.
fn macs(key: &str) -> i64 {
    let words: Vec<&str> = key.split(' ').collect();
    let number = |prefix: char| {
        let found = words
            .iter()
            .find_map(|w| w.strip_prefix(prefix)?.parse::<i64>().ok());
        found.unwrap_or(1)
    };
    let shapes = words.iter().find(|w| w.contains("->")).unwrap();
    let (from, to) = shapes.split_once("->").unwrap();
    let ([inputs, ..], [outputs, rows, columns]) =
        (sizes(from.split('+').next().unwrap()), sizes(to));
    match words[0].strip_prefix("conv") {
        Some(kernel) => {
            let [rows_of, columns_of, _] = sizes(kernel);
            rows_of * columns_of * inputs / number('g') * outputs * rows * columns
        }
        None if words[0] == "linear" => inputs * outputs,
        None => 0,
    }
}

/// What keys say adds up to what the network counts itself, where nothing in it is idle.
#[test]
fn pieces_are_the_whole_network() {
    for name in ["darts", "mobile", "robust-s2"] {
        for seed in 0..4 {
            let network = network(name, seed);
            let all: i64 = network.pieces().iter().map(|piece| macs(piece.key())).sum();
            assert_eq!(all, network.size().macs, "{name} {seed}");
        }
    }
}

/// Values of a model that has several inputs.
fn run(
    model: Vec<u8>,
    values: &HashMap<String, (Vec<usize>, Vec<f32>)>,
) -> (String, (Vec<usize>, Vec<f32>)) {
    let model = Model::load(model).unwrap();
    let name = |id| model.node_info(id).unwrap().name().unwrap().to_owned();
    let inputs = model.input_ids().iter().map(|&id| {
        let (shape, numbers) = &values[&name(id)];
        let value = Number::from_shape(shape.as_slice(), numbers.clone()).unwrap();
        (id, value.into())
    });
    let outputs = model.output_ids();
    let found = model
        .run(inputs.collect(), outputs, None)
        .unwrap()
        .remove(0);
    let image = found.clone().into_shape_vec::<f32, 4>();
    let image = image.map(|(shape, numbers)| (shape.to_vec(), numbers));
    let value = image.unwrap_or_else(|_| {
        let (shape, numbers) = found.into_shape_vec::<f32, 2>().unwrap();
        (shape.to_vec(), numbers)
    });
    (name(outputs[0]), value)
}

/// The models of all pieces, one after the other, compute what the network does.
#[test]
fn models_of_pieces_make_the_network() {
    for name in ["darts", "mobile", "nasbench201", "nasbench1shot1-s3"] {
        let network = network(name, 7);
        let streams = Streams::new(1);
        let params = network.layout().init(streams, Float::Float, Device::Cpu);
        let stats = network
            .stats_layout()
            .init(streams, Float::Float, Device::Cpu);
        let weights = Weights {
            params: &params,
            stats: &stats,
        };
        let shape = [2, TASK.channels, TASK.height, TASK.width];
        let images = rng::normal(
            &mut streams.at("images", 0),
            &shape,
            Float::Float,
            Device::Cpu,
        );
        let numbers = |t: &Tensor| Vec::<f32>::try_from(t.contiguous().view([-1])).unwrap();
        let here = network
            .forward(weights, &images, Mode::Eval, 0.0, streams)
            .unwrap()
            .main;
        let pixels = (shape.map(|n| n as usize).to_vec(), numbers(&images));
        // Step 0 is the images, which a piece that reads nothing takes by their name.
        let mut values = HashMap::from([
            ("x0".to_owned(), pixels.clone()),
            ("images".to_owned(), pixels),
        ]);
        let mut last = vec![];
        for piece in network.pieces() {
            let (output, found) = run(network.onnx_piece(weights, &piece).unwrap(), &values);
            last.clone_from(&found.1);
            assert!(
                values.insert(output, found).is_none(),
                "{name}: {}",
                piece.key()
            );
        }
        for (a, b) in last.iter().zip(numbers(&here)) {
            assert!((a - b).abs() < 1e-4 * (1.0 + b.abs()), "{name}: {a} {b}");
        }
        assert_eq!(last.len(), 20, "{name}");
        // The same network in one model.
        assert!(network.onnx(weights, OnnxOptions::default()).is_ok());
    }
}

const MEASURE: [&str; 13] = [
    "bench",
    "latency",
    "--space",
    "toy.toml",
    "--dataset",
    "synthetic",
    "--threads",
    "1",
    "--repeats",
    "3",
    "--check",
    "5",
    "--json",
];
const SEARCH: [&str; 13] = [
    "run",
    "--strategy",
    "darts",
    "--space",
    "toy.toml",
    "--dataset",
    "synthetic",
    "--set",
    "dataset.images=64",
    "--epochs",
    "2",
    "--threads",
    "1",
];

/// A table is measured here, a search goes by it, and what it found costs what the rows add up to.
#[test]
fn a_limit_by_a_measured_table() {
    let dir = toy_folder();
    let dir = dir.path();
    let said: Value =
        serde_json::from_str(&good(dir, &[&MEASURE[..], &["-o", "t.csv"]].concat())).unwrap();
    assert_eq!(said["networks"], 5);
    assert!(
        said["predicted"]
            .as_array()
            .unwrap()
            .iter()
            .all(|s| s.as_f64().unwrap() > 0.0)
    );
    let text = fs::read_to_string(dir.join("t.csv")).unwrap();
    let about: Vec<&str> = text.lines().filter(|line| line.starts_with('#')).collect();
    assert!(
        about[0].contains("space toy.toml") && about[1].contains("synthetic"),
        "{about:?}"
    );
    let mut reader = csv::ReaderBuilder::new()
        .comment(Some(b'#'))
        .from_reader(text.as_bytes());
    let rows = reader.records().map(|row| {
        let row = row.unwrap();
        (row[0].to_owned(), row[1].parse::<f64>().unwrap())
    });
    let rows: HashMap<String, f64> = rows.collect();
    assert!(
        rows.keys().any(|key| key.starts_with("conv3x3")),
        "{rows:?}"
    );

    let search = |name: &str, limit: &str, table: &str| {
        let table = format!("limits.latency.table={table}");
        let own = ["--name", name, "--limit", limit, "--set", &table];
        nasfw(dir, &[&SEARCH[..], &own].concat())
    };
    // Nothing is that fast: the message says what the fastest is.
    let out = search("fast", "latency=0.001us", "t.csv");
    assert!(!out.status.success());
    let says = flat(&out.stderr);
    assert!(
        says.contains("no architecture") && says.contains("latency"),
        "{says}"
    );
    let out = search("slow", "latency=10s", "t.csv");
    assert!(out.status.success(), "{}", flat(&out.stderr));
    let found = result(dir, "slow");
    let cost = found["metrics"]["cost/latency"].as_f64().unwrap();
    let least: f64 = rows["network"];
    assert!(
        cost >= least && cost <= rows.values().sum::<f64>() * 9.0,
        "{cost} {rows:?}"
    );
    // Twice the seconds, twice the cost, and the run knows that it is another table.
    let twice = text.lines().map(|line| match line.split_once(',') {
        Some((piece, rest)) if !line.starts_with('#') && piece != "piece" => {
            let seconds: f64 = rest.split(',').next().unwrap().parse().unwrap();
            format!("{piece},{},,,", 2.0 * seconds)
        }
        _ => line.to_owned(),
    });
    fs::write(dir.join("twice.csv"), twice.collect::<Vec<_>>().join("\n")).unwrap();
    let out = search("twice", "latency=10s", "twice.csv");
    assert!(out.status.success(), "{}", flat(&out.stderr));
    let double = result(dir, "twice")["metrics"]["cost/latency"]
        .as_f64()
        .unwrap();
    assert_eq!(found["genotype"], result(dir, "twice")["genotype"]);
    assert!((double / cost - 2.0).abs() < 1e-9, "{double} {cost}");
    // Units of other costs, a table of other networks, one that is none, and none.
    for (limit, table, problem) in [
        ("latency=12M", "t.csv", "a number with s, ms or us"),
        ("latency=10s", "nowhere.csv", "nowhere.csv"),
        ("latency=10s", "toy.toml", "piece"),
        ("latency=10s", "", "it needs a table"),
    ] {
        let out = search("never", limit, table);
        assert!(!out.status.success(), "{limit} {table}");
        let says = flat(&out.stderr);
        assert!(says.contains(problem) && says.contains("latency"), "{says}");
        assert!(!dir.join("runs/never").exists(), "{limit} {table}");
    }
    let other = [&SEARCH[..], &["--name", "never", "--limit", "latency=10s"]].concat();
    let other = [
        &other[..],
        &[
            "--set",
            "limits.latency.table=t.csv",
            "--set",
            "limits.network.channels=8",
        ],
    ]
    .concat();
    let says = flat(&nasfw(dir, &other).stderr);
    assert!(
        says.contains("t.csv") && says.contains("it lacks"),
        "{says}"
    );
}

/// A run does not go on by another table than it began with, whatever it reads the table for, and says that it predicts.
#[test]
fn a_run_keeps_its_table() {
    let dir = toy_folder();
    let dir = dir.path();
    good(dir, &[&MEASURE[..], &["-o", "t.csv"]].concat());
    let text = fs::read_to_string(dir.join("t.csv")).unwrap();
    let other = text.replace("network,", "other,1.0,,,\nnetwork,");
    fs::write(dir.join("other.csv"), &other).unwrap();
    let random = [&["run", "--strategy", "random"], &SEARCH[3..]].concat();
    let limit = [
        "--limit",
        "latency=10s",
        "--set",
        "limits.latency.table=t.csv",
    ];
    let front = [
        "--set",
        r#"strategy.costs=[{name="latency",table="t.csv"}]"#,
        "--set",
        "strategy.samples=2",
    ];
    for (name, search, own) in [("limit", &SEARCH[..], limit), ("front", &random[..], front)] {
        let said = good(dir, &[search, &["--name", name], &own].concat());
        let said = flat(said.as_bytes());
        assert!(said.contains("cost/latency (predicted): "), "{said}");
        assert!(
            said.contains("the sum of a network's pieces in t.csv; 5 other random networks: "),
            "{said}"
        );
        fs::write(dir.join("t.csv"), &other).unwrap();
        let run = format!("runs/{name}");
        let table = good(dir, &["table", &run]);
        let line = table
            .lines()
            .skip_while(|l| !l.contains("cost/latency (predicted)"));
        let cells = flat(line.take(2).collect::<Vec<_>>().join(" ").as_bytes());
        let units = [" us", " ms", " s"];
        assert!(units.iter().any(|u| cells.contains(u)), "{table}");
        fs::remove_file(dir.join(&run).join("result.json")).unwrap();
        let out = nasfw(dir, &["resume", &run]);
        assert!(!out.status.success());
        let says = flat(&out.stderr);
        assert!(
            says.contains("the table of `latency` is another one"),
            "{says}"
        );
        fs::write(dir.join("t.csv"), &text).unwrap();
        good(dir, &["resume", &run]);
    }
    // Two tables of one cost would be one metric.
    let base = [
        &random[..],
        &front,
        &[
            "--limit",
            "latency=10s",
            "--set",
            "limits.latency.table=other.csv",
        ],
    ]
    .concat();
    let says = flat(&nasfw(dir, &base).stderr);
    assert!(says.contains("read different tables of it"), "{says}");
}

/// ONNX Runtime is asked in another process, and what is missing there is said.
#[test]
fn a_table_by_onnx_runtime() {
    let dir = toy_folder();
    let dir = dir.path();
    let measure = [
        &MEASURE[..],
        &["--backend", "onnx", "-o", "t.csv", "--python"],
    ]
    .concat();
    let out = nasfw(dir, &[&measure[..], &["no-such-python"]].concat());
    let says = flat(&out.stderr);
    assert!(
        !out.status.success() && says.contains("pip install onnxruntime"),
        "{says}"
    );
    let Some(python) = python("onnxruntime", "ONNXRUNTIME_PYTHON") else {
        skipped(
            "a_table_by_onnx_runtime",
            "no Python with onnxruntime in target/onnxruntime",
        );
        return;
    };
    let said = good(dir, &[&measure[..], &[python.to_str().unwrap()]].concat());
    let said: Value = serde_json::from_str(&said).unwrap();
    assert!(
        said["about"][2].as_str().unwrap().contains("ONNX Runtime"),
        "{said}"
    );
    let text = fs::read_to_string(dir.join("t.csv")).unwrap();
    assert!(text.contains("\nconv3x3 "), "{text}");
    good(
        dir,
        &[
            &SEARCH[..],
            &[
                "--limit",
                "latency=10s",
                "--set",
                "limits.latency.table=t.csv",
            ],
        ]
        .concat(),
    );
}

/// Against all architectures, counted one by one.
#[test]
fn the_best_within_limits() {
    let dir = toy_folder();
    let dir = dir.path();
    // A surrogate-free space whose values are known by a closed form.
    let best = |limit: &[&str]| -> Value {
        let own = [
            "bench",
            "best",
            "--space",
            "toy-planted",
            "--json",
            "--count",
            "1000000",
        ];
        serde_json::from_str(&good(dir, &[&own[..], limit].concat())).unwrap()
    };
    let all = best(&[]);
    let values = |found: &Value| -> Vec<f64> {
        let metric = found["metric"].as_str().unwrap();
        let each = found["best"].as_array().unwrap().iter();
        each.map(|k| k["metrics"][metric].as_f64().unwrap())
            .collect()
    };
    let sorted = values(&all);
    assert!(sorted.windows(2).all(|pair| pair[0] >= pair[1]) && sorted.len() > 10);
    assert_eq!(all["known"].as_u64().unwrap() as usize, sorted.len());
    let out = nasfw(dir, &["bench", "best", "--space", "darts"]);
    assert!(!out.status.success());
    assert!(
        flat(&out.stderr).contains("architectures"),
        "{}",
        flat(&out.stderr)
    );
}
