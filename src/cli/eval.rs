//! `nasfw eval`.

use std::path::{Path, PathBuf};

use clap::Args;
use console::{Alignment, measure_text_width, pad_str};
use nasfw_framework::config::RunConfig;
use nasfw_framework::dataset::{DataSource, Dataset};
use nasfw_framework::registry::{Kind, Registry};
use nasfw_framework::run::{EVALUATION, to_json, write_whole};
use nasfw_framework::trainer::{ClassFigures, Evaluation, Measured, Reopen, Reopened};
use nasfw_framework::{Error, Result};

use super::output::{say, say_json};
use super::ready::ready;

/// The most classes that are all shown.
const SHOWN_WHOLE: usize = 20;
/// How many are shown of more.
const WORST: usize = 10;
/// Columns that a class's name has at most.
const WIDEST: usize = 32;

/// What may be other than when a run was made: nothing that decides what it is.
#[derive(Debug, Default)]
pub struct Changes {
    /// The dataset that is measured on, by name. The run's own keeps the run's settings.
    pub dataset: Option<String>,
    /// Where that dataset's files are.
    pub data_dir: Option<PathBuf>,
    /// The device.
    pub device: Option<String>,
    /// Whether it is not measured, so that no images are needed.
    pub without_images: bool,
}

/// The run that a folder, or a checkpoint in one, is of.
pub fn run_of(what: &Path) -> &Path {
    if !what.is_file() {
        return what;
    }
    // RUN/checkpoints/NUMBER.safetensors
    match what.parent().and_then(Path::parent) {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Opens a run, or one of its checkpoints.
pub fn open(what: &Path, mut changes: Changes) -> Result<Reopened> {
    let checkpoint = what.is_file().then_some(what);
    let run = run_of(what);
    let mut config = RunConfig::of_run(run)?;
    let fingerprint = config.fingerprint()?;
    config.common.device = changes.device.unwrap_or(config.common.device);
    let own = config.dataset.typetag_name();
    let other = changes.dataset.filter(|name| name != own);
    let other = other.map(|name| default_dataset(&name)).transpose()?;
    let other = other.map(|dataset| {
        let dir = changes.data_dir.take();
        (
            dataset,
            DataSource {
                dir,
                ..config.common.source()
            },
        )
    });
    config.common.data_dir = changes.data_dir.unwrap_or(config.common.data_dir);
    config.trainer.reopen(Reopen {
        config: &config,
        fingerprint: &fingerprint,
        run,
        checkpoint,
        on: match &other {
            Some((dataset, source)) => Measured::Other(dataset.as_ref(), source),
            None if changes.without_images => Measured::Nothing,
            None => Measured::Own,
        },
    })
}

/// A dataset with its default settings.
fn default_dataset(name: &str) -> Result<Box<dyn Dataset>> {
    let registry = Registry::load()?;
    let plugin = registry.get(Kind::Dataset, name)?;
    plugin.dataset(&plugin.default_section()?)
}

/// Options of `eval`.
#[derive(Debug, Args)]
pub struct Eval {
    /// A run folder, or one of its checkpoints
    what: PathBuf,
    /// Another dataset to measure on: its images are shown as the run's are, its classes go by their names [default: the
    /// run's]
    #[arg(long, short = 'd', value_name = "NAME")]
    dataset: Option<String>,
    /// Where the dataset's files are, if they have moved or `--dataset` names another one
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// `auto`, `cpu` or `cuda:N` instead of the run's
    #[arg(long)]
    device: Option<String>,
    /// Keep what is measured as `evaluation.json` in the run's folder, where its report finds it
    #[arg(long, conflicts_with = "dataset")]
    keep: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Eval {
    /// Measures.
    pub fn carry_out(self) -> Result<()> {
        ready()?;
        if self.keep && self.what.is_file() {
            return Err(Error::Incompatible {
                what: "--keep".into(),
                why: "what is kept stands for the run, and this is one of its checkpoints".into(),
                help: "name the run's folder, or leave `--keep` out".into(),
            });
        }
        let changes = Changes {
            dataset: self.dataset,
            data_dir: self.data_dir,
            device: self.device,
            without_images: false,
        };
        let opened = open(&self.what, changes)?;
        let found = opened.evaluate()?;
        let path = self.what.join(EVALUATION);
        if self.keep {
            write_whole(&path, &to_json(EVALUATION, &found)?)?;
        }
        if self.json {
            return say_json("evaluation", &found);
        }
        let test = &found.test;
        say(format!("after epoch    {}", found.epoch));
        say(format!("test images    {}", test.images));
        say(format!("loss           {:.4}", test.loss));
        say(format!("top-1          {:.2}%", test.accuracy * 100.0));
        if let Some(top5) = test.top5 {
            say(format!("top-5          {:.2}%", top5 * 100.0));
        }
        match &found.cost {
            Some(cost) => {
                say(format!("parameters     {}", cost.params));
                say(format!("multiply-adds  {}", cost.macs));
            }
            None if opened.is_alone() => {
                let params = opened.weights().params.numel();
                say(format!("parameters     {params}"));
            }
            None => say(
                "the weights are those of a supernet; `nasfw retrain` trains the architecture alone",
            ),
        }
        by_class(&found);
        if self.keep {
            say(format!("\nresult: {}", path.display()));
        }
        Ok(())
    }
}

/// Prints what becomes of every class: of all of them, or of those that come off worst.
fn by_class(found: &Evaluation) {
    let mut classes: Vec<(usize, &ClassFigures)> = found.classes.iter().enumerate().collect();
    let shortened = classes.len() > SHOWN_WHOLE;
    if shortened {
        let accuracy = |class: &ClassFigures| class.accuracy.unwrap_or(f64::INFINITY);
        classes.sort_by(|(_, a), (_, b)| accuracy(a).total_cmp(&accuracy(b)));
        classes.truncate(WORST);
    }
    let names = found.classes.iter();
    let names = names.map(|class| measure_text_width(&class.class));
    let wide = names.max().unwrap_or_default().clamp(5, WIDEST);
    let name = |text: &str| pad_str(text, wide, Alignment::Left, Some("…")).into_owned();
    let title = match shortened {
        true => format!("the {WORST} worst of {} classes", found.classes.len()),
        false => "class by class".to_owned(),
    };
    if !classes.is_empty() {
        say(format!("\n{title}"));
        say(format!(
            "{}  images    right  most mistaken for",
            name("class")
        ));
    }
    for (i, class) in classes {
        let right = match class.accuracy {
            Some(accuracy) => format!("{:.2}%", accuracy * 100.0),
            None => "–".to_owned(),
        };
        let mistake = found.mistakes.iter().find(|mistake| mistake.class == i);
        let mistake = mistake.map_or(String::new(), |m| {
            format!("  {} ({})", found.classes[m.taken_for].class, m.images)
        });
        say(format!(
            "{}  {:>6}  {right:>7}{mistake}",
            name(&class.class),
            class.images
        ));
    }
    if shortened && !found.mistakes.is_empty() {
        say("\nthe most frequent mistakes");
        for mistake in found.mistakes.iter().take(WORST) {
            let [is, other] = [mistake.class, mistake.taken_for].map(|i| &found.classes[i]);
            say(format!(
                "{}  taken for {}  {:>6} of {}",
                name(&is.class),
                name(&other.class),
                mistake.images,
                is.images
            ));
        }
    }
}
