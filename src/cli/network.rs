//! Networks as Python files.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use nasfw_framework::arch::{Choice, Genotype};
use nasfw_framework::command::{command, quoted};
use nasfw_framework::config::RunConfig;
use nasfw_framework::network::{Network, NetworkOptions, PyTorchNotes};
use nasfw_framework::registry::Registry;
use nasfw_framework::run::{MANIFEST, Manifest, RESULT, RUN, read_stored};
use nasfw_framework::space::Task;
use nasfw_framework::trainer::Inputs;
use nasfw_framework::{Error, Result};

use super::builder::builder;
use super::eval::{self, Changes};
use super::genotype;
use super::origin::Origin;

/// Images and classes of an architecture of which nothing says what it is for: those of CIFAR-10.
const TASK: Task = Task {
    channels: 3,
    height: 32,
    width: 32,
    classes: 10,
};

/// How large a network is to be ([`network_source`]). What is none is as the space's paper evaluates, or as what the
/// architecture was found on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkSize {
    /// The space that builds it, by name or by the TOML file that declares it, instead of the architecture's own.
    pub space: Option<String>,
    /// Initial channels.
    pub channels: Option<i64>,
    /// Number of cells.
    pub cells: Option<usize>,
    /// Whether it has a second classifier, for training.
    pub auxiliary: bool,
    /// Number of classes.
    pub classes: Option<i64>,
    /// Channels, rows and columns of an image.
    pub image: Option<[i64; 3]>,
}

impl NetworkSize {
    /// The options of the command line that it says something of.
    fn asked(&self) -> Vec<&'static str> {
        [
            ("--space", self.space.is_some()),
            ("--channels", self.channels.is_some()),
            ("--cells", self.cells.is_some()),
            ("--auxiliary", self.auxiliary),
            ("--classes", self.classes.is_some()),
            ("--image", self.image.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, asked)| asked.then_some(name))
        .collect()
    }

    /// The images and classes.
    ///
    /// # Errors
    /// Numbers below 1.
    fn task(&self, found: Task) -> Result<Task> {
        let [channels, height, width] =
            self.image
                .unwrap_or([found.channels, found.height, found.width]);
        let task = Task {
            channels,
            height,
            width,
            classes: self.classes.unwrap_or(found.classes),
        };
        if [channels, height, width, task.classes]
            .iter()
            .any(|&n| n < 1)
        {
            return Err(Error::Incompatible {
                what: format!(
                    "a network for images of {channels}×{height}×{width} and {} classes",
                    task.classes
                ),
                why: "each of these numbers must be at least 1".into(),
                help: "for example `--image 3x32x32 --classes 10`".into(),
            });
        }
        Ok(task)
    }
}

/// A network as a Python file that needs torch alone ([`Network::pytorch`]).
///
/// `what` is a run that `nasfw retrain` made or one of its checkpoints, whose trained weights then fit; or an architecture
/// in any form that `nasfw retrain` takes: a run folder, a file, `FILE:NAME`, a published cell's name, a genotype as text.
/// Settings of the space that it was found with come along. Where nothing says for which images and how many classes, it
/// is for 3×32×32 and 10. Files are read, nothing is written; a run's dataset is only needed where a run of an older
/// version does not say what its images are.
///
/// # Errors
/// Whatever is wrong with `what`; sizes for a trained run, whose network is as it is; sizes that the space can't build.
pub fn network_source(what: impl AsRef<OsStr>, size: &NetworkSize) -> Result<String> {
    Ok(described(what.as_ref(), size, None)?.1)
}

/// The same with the network; `data_dir` is where a run's dataset is now, if it has moved.
pub fn described(
    what: &OsStr,
    size: &NetworkSize,
    data_dir: Option<PathBuf>,
) -> Result<(Network, String)> {
    let registry = Registry::load()?;
    let (network, notes) = match trained(Path::new(what))? {
        Some((run, config)) => {
            refuse(&run, size)?;
            of_run(Path::new(what), &run, &config, data_dir)?
        }
        None => of_genotype(&registry, &what.to_string_lossy(), size)?,
    };
    let text = network.pytorch(&notes)?;
    Ok((network, text))
}

/// Whether a size is asked for of a network that is trained, and so has one.
///
/// # Errors
/// Where it is.
pub fn check_size(what: &OsStr, size: &NetworkSize) -> Result<()> {
    match trained(Path::new(what))? {
        Some((run, _)) => refuse(&run, size),
        None => Ok(()),
    }
}

fn refuse(run: &Path, size: &NetworkSize) -> Result<()> {
    let asked = size.asked();
    if asked.is_empty() {
        return Ok(());
    }
    let result = run.join(RESULT);
    let words = ["export".as_ref(), result.as_os_str(), "--pytorch".as_ref()];
    let words = words.into_iter().chain([OsStr::new("FILE.py")]);
    Err(Error::Incompatible {
        what: format!(
            "{} for the network of run {}",
            asked.join(", "),
            quoted(run)
        ),
        why: "it is trained, and has the size that it was trained in".into(),
        help: format!(
            "leave {} out; for its architecture in another size, without weights, name its result: `{}`",
            if asked.len() == 1 { "it" } else { "them" },
            command(words)
        ),
    })
}

/// The run of one architecture that a folder or a checkpoint in it is of.
fn trained(what: &Path) -> Result<Option<(PathBuf, RunConfig)>> {
    let run = eval::run_of(what);
    if !may_be_trained(what) || !run.join(RUN).is_file() {
        return Ok(None);
    }
    let config = RunConfig::of_run(run)?;
    let is_alone = config.space.typetag_name() == "standalone";
    Ok(is_alone.then(|| (run.to_owned(), config)))
}

/// Whether this is a folder or a checkpoint, and so something that can have weights.
fn may_be_trained(what: &Path) -> bool {
    what.is_dir() || what.is_file() && what.extension().is_some_and(|e| e == "safetensors")
}

/// The network of a trained run, without its weights and its images.
fn of_run(
    what: &Path,
    run: &Path,
    config: &RunConfig,
    data_dir: Option<PathBuf>,
) -> Result<(Network, PyTorchNotes)> {
    let manifest: Manifest = read_stored(run, MANIFEST)?;
    let Some(inputs) = manifest.inputs else {
        let changes = Changes {
            data_dir,
            device: Some("cpu".into()),
            ..Changes::default()
        };
        let opened = eval::open(what, changes)?;
        let notes = notes(&opened.genotype(), opened.inputs())?;
        return Ok((opened.network()?, notes));
    };
    let settings = serde_json::to_value(&config.space).unwrap_or_default();
    let options = NetworkOptions {
        auxiliary: settings["auxiliary"]
            .as_f64()
            .is_some_and(|weight| weight > 0.0),
        ..NetworkOptions::default()
    };
    let space = config.space.build()?;
    let genotype = space.genotype(&Choice::new(vec![vec![vec![0]]]));
    let network = space.network(&genotype, inputs.task, &options)?;
    Ok((network, notes(&genotype, &inputs)?))
}

/// The network of an architecture.
fn of_genotype(
    registry: &Registry,
    what: &str,
    size: &NetworkSize,
) -> Result<(Network, PyTorchNotes)> {
    let genotype = genotype::load(what, &[])?;
    let origin = Origin::of(what, &genotype)?;
    let manifest = Path::new(what).join(MANIFEST);
    let found = match manifest.is_file() {
        true => read_stored::<Manifest>(Path::new(what), MANIFEST)?.inputs,
        false => None,
    };
    let task = size.task(found.map_or(TASK, |inputs| inputs.task))?;
    let options = NetworkOptions {
        channels: size.channels,
        cells: size.cells,
        auxiliary: size.auxiliary,
    };
    let space = builder(registry, &genotype, &origin, size.space.as_deref())?;
    let network = space.network(&genotype, task, &options).map_err(helped)?;
    let notes = PyTorchNotes {
        genotype: written(&genotype)?,
        images: None,
    };
    Ok((network, notes))
}

/// An error of a network that is built, with what can be typed here: spaces think of a training.
fn helped(error: Error) -> Error {
    match error {
        Error::Incompatible { what, why, help } => {
            let help = match what.as_str() {
                _ if what.starts_with("images of") => {
                    "choose others with `--image CHANNELSxROWSxCOLUMNS`".into()
                }
                _ if what.starts_with("an auxiliary classifier") => {
                    "leave `--auxiliary` out".into()
                }
                _ => help,
            };
            Error::Incompatible { what, why, help }
        }
        other => other,
    }
}

fn notes(genotype: &Genotype, inputs: &Inputs) -> Result<PyTorchNotes> {
    Ok(PyTorchNotes {
        genotype: written(genotype)?,
        images: Some(inputs.clone()),
    })
}

fn written(genotype: &Genotype) -> Result<String> {
    serde_json::to_string(genotype).map_err(|e| Error::Invalid {
        what: "genotype".into(),
        why: e.to_string(),
    })
}

/// What can't be exported with weights: an architecture that is not trained.
///
/// # Errors
/// Where `what` is one.
pub fn need_weights(what: &OsStr, asked: &str) -> Result<()> {
    let path = Path::new(what);
    if may_be_trained(path) {
        return Ok(());
    }
    let text = what.to_string_lossy();
    genotype::load(&text, &[])?;
    Err(Error::Incompatible {
        what: format!("{asked} of {}", quoted(path)),
        why: "this is an architecture without trained weights".into(),
        help: format!(
            "`{}` trains it; `{}` writes its network without weights",
            command(["retrain", text.as_ref()]),
            command(["export", text.as_ref(), "--pytorch", "FILE.py"])
        ),
    })
}
