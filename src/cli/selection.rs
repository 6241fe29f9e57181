//! What `run`, `config show` and `retrain` have in common: which parts, with which settings.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::Args;
use nasfw_framework::config::{
    ConfigError, Layer, Origin, Resolved, TEXT_LIMIT, environment_key, resolve,
};
use nasfw_framework::registry::Registry;
use nasfw_framework::{Error, Result, input};
use serde_json::Value;

/// An option: dotted key, value as typed, and how it was typed for messages.
pub type Pair = (String, String, String);

/// The parts of a search and its settings.
#[derive(Debug, Args)]
pub struct Selection {
    /// How to search [default: vim] [see `nasfw list strategies`]
    #[arg(long, short = 's', value_name = "NAME")]
    strategy: Option<String>,
    /// Where to search: a name [see `nasfw list spaces`], or a TOML file that declares a space [default: nasbench1shot1-s3]
    #[arg(long, short = 'S', value_name = "NAME|FILE.toml")]
    space: Option<String>,
    /// A limit on what the architecture may cost; may be given again [see `nasfw list costs`]
    #[arg(long, value_name = "NAME=VALUE")]
    limit: Vec<String>,
    /// Named settings of the strategy [see `nasfw describe STRATEGY`]
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    #[command(flatten)]
    settings: Settings,
}

/// Settings from a file, the environment (`NASFW_STRATEGY__LR=0.05`) and these options, the later the stronger.
#[derive(Debug, Clone, Default, Args)]
pub struct Settings {
    /// What to learn from [default: the space's, or else fashion-mnist-mini] [see `nasfw list datasets`]
    #[arg(long, short = 'd', value_name = "NAME")]
    pub dataset: Option<String>,
    /// Seed of every random draw [default: 0]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Epochs of training [default: the space's or the strategy's, as `nasfw config show` says]
    #[arg(long)]
    pub epochs: Option<u64>,
    /// `auto`, `cpu` or `cuda:N` [default: auto]
    #[arg(long)]
    pub device: Option<String>,
    /// CPU threads, 0 for one per core [default: 0]
    #[arg(long)]
    pub threads: Option<u64>,
    /// Folder of the dataset's files [default: where the dataset looks for them]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Folder that gets the run folder [default: runs]
    #[arg(long, short = 'o', value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Also keep what happens with a tracker; may be given again [see `nasfw list trackers`]
    #[arg(long, value_name = "NAME")]
    pub track: Vec<String>,
    /// Also write TensorBoard event files: short for `--track tensorboard`
    #[arg(long)]
    pub tensorboard: bool,
    /// TOML file of settings
    #[arg(long, short = 'c', value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Any other setting, for example `--set strategy.arch.lr=0.05`
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl Selection {
    /// Merges all layers.
    pub fn resolve(&self, registry: &Registry) -> Result<Resolved> {
        let parts = [
            text("strategy.name", "strategy", &self.strategy),
            text("strategy.preset", "preset", &self.preset),
        ];
        let mut parts: Vec<Pair> = parts.into_iter().flatten().collect();
        if let Some(space) = &self.space {
            parts.extend(space_options("space.name", "space", space)?);
        }
        parts.extend(limit_options(&self.limit)?);
        self.settings.resolve(registry, vec![], parts)
    }
}

/// Limits as they are typed, NAME=VALUE.
///
/// # Errors
/// Another form.
pub fn limit_options(limits: &[String]) -> Result<Vec<Pair>> {
    let option = |limit: &String| {
        let (name, value) = limit.split_once('=').ok_or_else(|| Error::Incompatible {
            what: format!("--limit {limit}"),
            why: "this is not of the form NAME=VALUE".into(),
            help: "for example `--limit macs=40M`; `nasfw list costs` names what can be limited"
                .into(),
        })?;
        let key = format!("limits.{}.limit", name.trim());
        Ok((key, quoted(value.trim()), format!("--limit {limit}")))
    };
    limits.iter().map(option).collect()
}

impl Settings {
    /// Merges all layers; `weakest` lies below the file, `parts` beside the options.
    pub fn resolve(
        &self,
        registry: &Registry,
        weakest: Vec<Pair>,
        parts: Vec<Pair>,
    ) -> Result<Resolved> {
        let mut layers = vec![Layer::CommandLine(weakest)];
        if let Some(path) = &self.config {
            let text = input::read_text(path, TEXT_LIMIT).map_err(|e| {
                let problem = format!("{} can't be read: {e}", path.display());
                let help = "`nasfw config show --toml > my.toml` writes a file to begin with";
                Error::Config(Box::new(
                    ConfigError::one("", problem, None).with_help(help),
                ))
            })?;
            layers.push(Layer::File(path.clone(), text));
        }
        layers.push(Layer::Environment(environment()?));
        layers.push(Layer::CommandLine(self.options(parts)?));
        resolve(registry, &layers)
    }

    fn options(&self, mut options: Vec<Pair>) -> Result<Vec<Pair>> {
        let number = |key: &str, option: &str, value: Option<u64>| {
            value.map(|v| (key.to_owned(), v.to_string(), format!("--{option} {v}")))
        };
        let path = |option: &str, path: &Option<PathBuf>| {
            let path = path.as_ref().map(|path| in_words(option, path.as_os_str()));
            path.transpose()
        };
        let own = [
            text("dataset.name", "dataset", &self.dataset),
            number("seed", "seed", self.seed),
            number("trainer.epochs", "epochs", self.epochs),
            text("device", "device", &self.device),
            number("threads", "threads", self.threads),
            text("data_dir", "data-dir", &path("--data-dir", &self.data_dir)?),
            text("out", "out", &path("--out", &self.out)?),
            self.trackers(),
        ];
        options.extend(own.into_iter().flatten());
        for pair in &self.set {
            let (key, value) = pair.split_once('=').ok_or_else(|| Error::Incompatible {
                what: format!("--set {pair}"),
                why: "this is not of the form KEY=VALUE".into(),
                help: "for example `--set strategy.arch.lr=0.05`".into(),
            })?;
            options.push((
                key.trim().into(),
                value.trim().into(),
                format!("--set {pair}"),
            ));
        }
        Ok(options)
    }

    /// The trackers that are asked for. As any option, they stand before those of a file.
    fn trackers(&self) -> Option<Pair> {
        let named = self
            .track
            .iter()
            .map(|name| (name.as_str(), format!("--track {name}")));
        let short = self
            .tensorboard
            .then(|| ("tensorboard", "--tensorboard".into()));
        let (names, typed): (Vec<&str>, Vec<String>) = named.chain(short).unzip();
        let list = || toml::Value::from(names.clone()).to_string();
        (!names.is_empty()).then(|| ("trackers".into(), list(), typed.join(" ")))
    }
}

/// The environment as far as settings may be in it.
fn environment() -> Result<Vec<(String, String)>> {
    let mut variables = vec![];
    for (name, value) in std::env::vars_os() {
        if let Some(name) = name.to_str().filter(|name| environment_key(name).is_some()) {
            variables.push((name.to_owned(), in_words(name, &value)?));
        }
    }
    Ok(variables)
}

/// A value as text: what a run is made of is kept in files of text.
fn in_words(option: &str, value: &OsStr) -> Result<String> {
    value.to_str().map(str::to_owned).ok_or_else(|| {
        let shown = value.to_string_lossy();
        let problem = format!("`{shown}` is not UTF-8, which a configuration is kept in");
        let origin = Origin::CommandLine(option.to_owned());
        let help =
            "give it in UTF-8; a folder with such a name can be renamed, or linked to with `ln -s`";
        Error::Config(Box::new(
            ConfigError::one("", problem, Some(origin)).with_help(help),
        ))
    })
}

/// Settings that choose a space: its name at `name` and, for the name of a TOML file, its text as the definition among its
/// settings, which lie at `settings`.
pub fn space_options(name: &str, settings: &str, space: &str) -> Result<Vec<Pair>> {
    let option = format!("--space {space}");
    let set = |key: &str, value: &str| (key.to_owned(), quoted(value), option.clone());
    if !space.ends_with(".toml") {
        return Ok(vec![set(name, space)]);
    }
    let text = input::read_text(Path::new(space), TEXT_LIMIT).map_err(|e| {
        let problem = format!("{space} can't be read: {e}");
        let help = "`nasfw describe custom` shows what such a file looks like";
        Error::Config(Box::new(
            ConfigError::one("space", problem, None).with_help(help),
        ))
    })?;
    let definition = format!("{settings}.definition");
    Ok(vec![set(name, "custom"), set(&definition, &text)])
}

/// An option whose value is text.
pub fn text(key: &str, option: &str, value: &Option<String>) -> Option<Pair> {
    value
        .as_ref()
        .map(|v| (key.to_owned(), quoted(v), format!("--{option} {v}")))
}

/// As a TOML string, so that a folder called `1` stays a folder.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A setting as an option, with where it comes from.
pub fn pair(key: &str, value: &Value, from: &str) -> Result<Pair> {
    let value = toml::Value::try_from(value).map_err(|e| Error::Invalid {
        what: from.into(),
        why: e.to_string(),
    })?;
    Ok((key.into(), value.to_string(), from.into()))
}
