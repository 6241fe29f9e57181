//! `nasfw bench perf`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use nasfw_framework::Result;
use nasfw_framework::config::{Origin, RunConfig};
use nasfw_framework::device::{choose, load_cuda};
use nasfw_framework::perf::{Machine, Report, Steps, Timing, measure};
use nasfw_framework::printable::counted;
use nasfw_framework::registry::{Kind, Registry};
use serde_json::{Value, json};

use crate::cli::logging;
use crate::cli::output::{format_of, say, write_file};
use crate::cli::selection::{Pair, Settings, space_options, text};

/// What is measured where nothing is named.
const USUAL: [&str; 2] = ["darts", "vim"];
/// Where a space has no images of its own: CIFAR-10's shape, enough of them that no batch is cut short.
const SYNTHETIC: [(&str, &str); 5] = [
    ("dataset.name", "'synthetic'"),
    ("dataset.channels", "3"),
    ("dataset.size", "32"),
    ("dataset.classes", "10"),
    ("dataset.test_images", "16"),
];
/// So that strategies that share a search's steps among architectures don't come to a border at every step.
const EPOCHS: &str = "50";

/// Options of `bench perf`.
#[derive(Debug, Args)]
pub struct Perf {
    /// Whose supernet: a name [see `nasfw list spaces`], or a TOML file that declares a space
    #[arg(
        long,
        short = 'S',
        value_name = "NAME|FILE.toml",
        required_unless_present = "machine"
    )]
    space: Option<String>,
    /// A strategy beside the bare supernet, several times for several; `none` for none [default: darts and vim]
    #[arg(long, short = 's', value_name = "NAME")]
    strategy: Vec<String>,
    /// Timed steps of each
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    steps: u64,
    /// Steps before them
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    warmup: u64,
    /// Images a batch
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(2..=1_000_000))]
    batch: u64,
    /// Images, where the space's own or made-up ones of 3×32×32 won't do [see `nasfw list datasets`]
    #[arg(long, short = 'd', value_name = "NAME")]
    dataset: Option<String>,
    /// Folder of the dataset's files
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// `auto`, `cpu` or `cuda:N` [default: auto]
    #[arg(long)]
    device: Option<String>,
    /// CPU threads, 0 for one per core [default: 0]
    #[arg(long)]
    threads: Option<u64>,
    /// Also measure what the machine can do: floating-point operations and bytes a second
    #[arg(long)]
    machine: bool,
    /// Write the numbers as JSON, with `-` to standard output and nothing else there
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
    /// Any other setting, for example `--set space.channels=8`
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Perf {
    /// Measures and prints.
    pub fn carry_out(self) -> Result<()> {
        if let Some(file) = &self.json {
            format_of("--json", file, &[("json", ())])?;
        }
        load_cuda();
        logging::to_terminal();
        let machine = match self.machine {
            true => Some(Machine::measure(choose(
                self.device.as_deref().unwrap_or("auto"),
            )?)),
            false => None,
        };
        let (value, shown) = match &self.space {
            None => (
                json!({ "machine": machine }),
                machine.map(limits).unwrap_or_default(),
            ),
            Some(space) => {
                let report = Report {
                    machine,
                    ..self.report(space)?
                };
                let mut value =
                    json!({ "space": space, "steps": self.steps, "warmup": self.warmup });
                merge(&mut value, json!(report));
                (value, self.shown(space, &report))
            }
        };
        match &self.json {
            Some(path) if path == Path::new("-") => say(format!("{value:#}")),
            Some(path) => {
                write_file(path, format!("{value:#}\n").as_bytes())?;
                say(shown);
            }
            None => say(shown),
        }
        Ok(())
    }

    fn report(&self, space: &str) -> Result<Report> {
        let registry = Registry::load()?;
        let mut names: Vec<&str> = self.strategy.iter().map(String::as_str).collect();
        if names.is_empty() {
            let known = |name: &&str| registry.get(Kind::Strategy, name).is_ok();
            names = USUAL.into_iter().filter(known).collect();
        }
        names.retain(|name| *name != "none");
        let weakest = self.weakest(&registry, space)?;
        let config = |strategy: Option<&str>| {
            let mut parts = space_options("space.name", "space", space)?;
            parts.extend(text(
                "strategy.name",
                "strategy",
                &strategy.map(str::to_owned),
            ));
            let batch = self.batch.to_string();
            parts.push((
                "trainer.batch_size".into(),
                batch,
                format!("--batch {}", self.batch),
            ));
            let resolved = self
                .settings(|_| true)
                .resolve(&registry, weakest.clone(), parts)?;
            RunConfig::new(&registry, &resolved)
        };
        let strategies = names
            .iter()
            .map(|name| Ok(((*name).to_owned(), config(Some(name))?)))
            .collect::<Result<_>>()?;
        let steps = Steps {
            timed: usize::try_from(self.steps).unwrap_or(usize::MAX),
            warmup: usize::try_from(self.warmup).unwrap_or(usize::MAX),
        };
        measure(&|| config(names.first().copied()), strategies, steps)
    }

    /// The options that `run` has, too; of the others those whose key is wanted.
    fn settings(&self, wanted: impl Fn(&str) -> bool) -> Settings {
        let key = |pair: &str| pair.split('=').next().unwrap_or_default().trim().to_owned();
        Settings {
            dataset: self.dataset.clone(),
            data_dir: self.data_dir.clone(),
            device: self.device.clone(),
            threads: self.threads,
            set: self
                .set
                .iter()
                .filter(|pair| wanted(&key(pair)))
                .cloned()
                .collect(),
            ..Settings::default()
        }
    }

    /// Settings below all that the user says: no table, enough steps, images if neither user nor space name any.
    fn weakest(&self, registry: &Registry, space: &str) -> Result<Vec<Pair>> {
        let pair = |(key, value): (&str, &str)| {
            (key.to_owned(), value.to_owned(), "bench perf".to_owned())
        };
        let mut weakest = vec![
            pair(("trainer.epochs", EPOCHS)),
            pair(("benchmark.name", "'none'")),
        ];
        let names = self.settings(|key| key.ends_with(".name"));
        let named = names.resolve(
            registry,
            vec![],
            space_options("space.name", "space", space)?,
        )?;
        if named.origin("dataset.name") == Some(&Origin::Default) {
            weakest.extend(SYNTHETIC.map(pair));
            weakest.push(pair(("dataset.images", &(16 * self.batch).to_string())));
        }
        Ok(weakest)
    }

    fn shown(&self, space: &str, r: &Report) -> String {
        let macs = r.macs.map_or(String::new(), |m| {
            format!(", {:.1} million multiply-adds an image", m as f64 / 1e6)
        });
        let images: Vec<String> = r.images.iter().map(ToString::to_string).collect();
        let mut out = format!(
            "{space} on {}: {}{macs}\nbatches of {}; {} of each, in turn, after {} of warm-up\n\n",
            r.device,
            counted(r.parameters, "weight"),
            images.join("×"),
            counted(self.steps, "step"),
            self.warmup,
        );
        let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
        rows.push(row("plain", &r.plain.timing));
        rows.extend(r.joint.iter().map(|timing| row("joint", timing)));
        rows.extend(r.strategies.iter().map(|(name, timing)| row(name, timing)));
        out += &table(&rows);
        out += "\nplain: the bare supernet, all candidates at fixed weights, one batch; forward, backward, update of the \
                weights\n";
        if r.joint.is_some() {
            out += "joint: the same with the gradient of the architecture; ratios are medians of steps side by side\n";
        }
        out += "\n";
        if let Some(path) = r.single_path {
            let _ = writeln!(
                out,
                "single path: {} a step with one drawn candidate a row, {:.2} of one candidate everywhere ({}, mean over \
                 candidates), {:.2} of all candidates",
                seconds(path.sampled),
                path.ratio,
                seconds(path.everywhere),
                path.of_all,
            );
        }
        if let Some(bytes) = r.plain.libraries_bytes {
            let _ = writeln!(
                out,
                "memory: {} MB were taken before the supernet was built",
                bytes / 1_000_000
            );
        }
        if let Some(machine) = r.machine {
            let _ = writeln!(out, "{}", limits(machine));
            if let Some(flops) = r.flops() {
                let reached = flops / r.plain.timing.seconds / 1e9;
                let _ = writeln!(
                    out,
                    "a plain step needs {:.1} GFLOP and reaches {reached:.1} GFLOP/s, {:.1} % of that",
                    flops / 1e9,
                    100.0 * reached / machine.gflops,
                );
            }
        }
        out
    }
}

const HEAD: [&str; 15] = [
    "step",
    "median",
    "from",
    "to",
    "images/s",
    "peak MB",
    "calls",
    "leaves",
    "of plain",
    "of joint",
    "data",
    "forward",
    "backward",
    "optimizer",
    "rest",
];

fn row(name: &str, t: &Timing) -> Vec<String> {
    let from = t.samples.iter().copied().fold(f64::INFINITY, f64::min);
    let to = t.samples.iter().copied().fold(0.0, f64::max);
    let total: f64 = t.phases.named().iter().map(|(_, s)| s).sum();
    let mut row = vec![
        name.to_owned(),
        seconds(t.seconds),
        seconds(from),
        seconds(to),
        format!("{:.0}", t.images_per_second),
        t.peak_bytes
            .map_or("?".into(), |b| (b / 1_000_000).to_string()),
        t.operators.all.to_string(),
        t.operators.leaves.to_string(),
        format!("{:.2}", t.ratio),
        t.ratio_joint.map_or("-".into(), |r| format!("{r:.2}")),
    ];
    row.extend(
        t.phases
            .named()
            .map(|(_, s)| format!("{:.1} %", 100.0 * s / total)),
    );
    row
}

/// Lines of columns, the first one to the left, the others to the right.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|c| {
            rows.iter()
                .filter_map(|r| r.get(c))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(i, (cell, &w))| {
            if i == 0 {
                format!("{cell:w$}")
            } else {
                format!("{cell:>w$}")
            }
        });
        cells.collect::<Vec<_>>().join("  ") + "\n"
    };
    rows.iter().map(line).collect()
}

fn seconds(s: f64) -> String {
    match s {
        s if s < 1e-3 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

fn limits(machine: Machine) -> String {
    format!(
        "machine: {:.1} GFLOP/s in a product of large f32 matrices, {:.1} GB/s in a copy",
        machine.gflops, machine.gbytes
    )
}

/// Adds the entries of an object to another.
fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}
