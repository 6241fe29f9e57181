//! By ONNX Runtime, in a Python's process.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nasfw_analysis::stats::quantile;
use nasfw_framework::network::{Network, NetworkBuilder, OnnxOptions};
use nasfw_framework::rng::Streams;
use nasfw_framework::run::Worker;
use nasfw_framework::space::Task;
use nasfw_framework::supernet::Weights;
use nasfw_framework::{Error, Result};
use serde::Deserialize;
use serde_json::json;
use tch::{Device, Kind, Tensor};

use super::{Measure, Measured};

/// The program that measures.
const PROGRAM: &str = include_str!("measure.py");

/// Has files of models measured by a Python.
pub struct Onnx {
    python: PathBuf,
    device: &'static str,
    threads: usize,
    batch: i64,
    repeats: usize,
    version: String,
}

/// What the program says.
#[derive(Debug, Deserialize)]
struct Said {
    version: String,
    #[serde(default)]
    seconds: Vec<Vec<f64>>,
}

impl Onnx {
    /// On a device with so many CPU threads, 0 for one per core.
    pub fn new(
        python: &Path,
        device: &str,
        threads: usize,
        batch: i64,
        repeats: usize,
    ) -> Result<Self> {
        let mut measure = Self {
            python: python.to_owned(),
            device: match device {
                "auto" | "cpu" => "CPUExecutionProvider",
                _ => "CUDAExecutionProvider",
            },
            threads,
            batch,
            repeats,
            version: String::new(),
        };
        // Says at once what is missing.
        measure.version = measure.run(&[])?.version;
        Ok(measure)
    }

    /// Seconds of every file, `repeats` times.
    fn run(&self, files: &[PathBuf]) -> Result<Said> {
        let job = json!({
            "files": files, "threads": self.threads, "batch": self.batch, "repeats": self.repeats, "provider": self.device,
        });
        let failed = |why: String| {
            Error::Incompatible {
            what: format!("`{}` with onnxruntime", self.python.display()),
            why,
            help: "make one, and name it: `python3 -m venv venv && venv/bin/pip install onnxruntime`, then \
                   `--python venv/bin/python`"
                .into(),
        }
        };
        let mut child = Command::new(&self.python)
            .args(["-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| failed(format!("it can't be started: {e}")))?;
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(job.to_string().as_bytes()) {
                // Then it has something to say.
                Err(e) if e.kind() == ErrorKind::BrokenPipe => {}
                other => other.map_err(|e| failed(e.to_string()))?,
            }
        }
        let output = child
            .wait_with_output()
            .map_err(|e| failed(e.to_string()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().rfind(|line| !line.trim().is_empty());
            return Err(failed(
                last.unwrap_or("it failed and said nothing").to_owned(),
            ));
        }
        serde_json::from_slice(&output.stdout)
            .map_err(|e| failed(format!("it answered something else: {e}")))
    }
}

/// Calls a function with a network's random weights.
fn with_weights<T>(network: &Network, f: impl FnOnce(Weights<'_>) -> Result<T>) -> Result<T> {
    let init = |layout: &nasfw_framework::params::ParamLayout| -> Tensor {
        layout.init(Streams::new(0), Kind::Float, Device::Cpu)
    };
    let (params, stats) = (init(network.layout()), init(network.stats_layout()));
    f(Weights {
        params: &params,
        stats: &stats,
    })
}

/// A model that computes next to nothing: what a call takes.
fn nothing() -> Result<Vec<u8>> {
    let task = Task {
        channels: 1,
        height: 1,
        width: 1,
        classes: 1,
    };
    let (mut b, images) = NetworkBuilder::new(task);
    let x = b.relu(images);
    let x = b.global_average_pool(x);
    let logits = b.linear("classifier", x, 1);
    let network = b.finish(logits, None)?;
    with_weights(&network, |weights| {
        network.onnx_piece(weights, &network.pieces()[0])
    })
}

impl Measure for Onnx {
    fn measure(&mut self, covering: &[Network], others: &[Network]) -> Result<Measured> {
        let folder = tempfile::tempdir().map_err(Error::io("create", &std::env::temp_dir()))?;
        let mut files = vec![];
        let mut write = |model: Vec<u8>| -> Result<()> {
            let file = folder.path().join(format!("{}.onnx", files.len()));
            fs::write(&file, model).map_err(Error::io("write", &file))?;
            files.push(file);
            Ok(())
        };
        write(nothing()?)?;
        for network in covering.iter().chain(others) {
            write(with_weights(network, |weights| {
                network.onnx(weights, OnnxOptions::default())
            })?)?;
        }
        let mut keys = vec![];
        for network in covering {
            for piece in network.pieces() {
                let key = piece.key().to_owned();
                if !keys.contains(&key) {
                    write(with_weights(network, |weights| {
                        network.onnx_piece(weights, &piece)
                    })?)?;
                    keys.push(key);
                }
            }
        }
        let mut seconds = self.run(&files)?.seconds;
        if seconds.len() != files.len() {
            return Err(Error::Invalid {
                what: "answer of the Python that measures".into(),
                why: format!("{} times for {} models", seconds.len(), files.len()),
            });
        }
        let pieces = seconds.split_off(1 + covering.len() + others.len());
        let others = seconds.split_off(1 + covering.len());
        let covering = seconds.split_off(1);
        // A call takes this, whatever it is of: a piece in its place does not.
        let call = quantile(&seconds[0], 0.5).unwrap_or_default();
        let without = |took: Vec<f64>| took.iter().map(|s| (s - call).max(0.0)).collect();
        Ok(Measured {
            pieces: keys
                .into_iter()
                .zip(pieces.into_iter().map(without))
                .collect(),
            covering,
            others,
        })
    }

    fn describe(&self) -> String {
        let threads = match self.threads {
            0 => "a thread per core".to_owned(),
            n => nasfw_framework::printable::counted(n, "thread"),
        };
        format!(
            "ONNX Runtime {}, {}, {threads} ({})",
            self.version,
            self.device,
            Worker::this().processor
        )
    }
}
