//! Errors of the framework: what was wrong, where, and what to type.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::command::{command, quoted, resume};
use crate::files::{CONFIG, RUN, has_checkpoints};
use crate::settings::ConfigError;

/// `Result` with the framework's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in a search, with the exit code that the binary ends with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] Box<ConfigError>),
    /// No plugin of this kind has this name.
    #[error("no {kind} is called `{name}`")]
    UnknownPlugin {
        /// `strategy`, `space`, …
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// The registered name that looks most like it.
        similar: Option<String>,
        /// All registered names.
        known: Vec<String>,
    },
    /// The registry itself is inconsistent.
    #[error("the plugin registry is inconsistent: {0}")]
    Registry(String),
    /// Parts that do not go together.
    #[error("{what}: {why}")]
    Incompatible {
        /// The pair, for example `strategy `gdas` on space `x``.
        what: String,
        /// Why not.
        why: String,
        /// What to type instead.
        help: String,
    },
    /// Something was asked of a part that it does not have, and need not have.
    #[error("{who} has no {what}")]
    HasNone {
        /// The part, for example `this distribution`.
        who: &'static str,
        /// What it does not have.
        what: &'static str,
    },
    /// A value inside the program or a file does not make sense.
    #[error("invalid {what}: {why}")]
    Invalid {
        /// What is invalid.
        what: String,
        /// Why.
        why: String,
    },
    /// A data file is missing, truncated or corrupt.
    #[error("{}: {problem}", path.display())]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to type.
        help: String,
    },
    /// A run folder or checkpoint can't be used.
    #[error("{}: {problem}", path.display())]
    Run {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to type.
        help: String,
    },
    /// Reading or writing failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// `write`, `create`, …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The device asked for can't be used.
    #[error("device `{device}` can't be used: {why}")]
    Device {
        /// As it was asked for.
        device: String,
        /// Why not.
        why: String,
    },
    /// The search stopped learning.
    #[error("{what} is not finite at step {step}")]
    NotFinite {
        /// Which number.
        what: String,
        /// Global step, from 0.
        step: u64,
        /// The run folder, where there is one.
        run: Option<PathBuf>,
    },
    /// Stopped by a signal after a checkpoint was written.
    #[error("interrupted at step {step}; everything up to it is saved")]
    Interrupted {
        /// Steps done.
        step: u64,
        /// The run folder.
        run: PathBuf,
    },
    /// Work on several runs was stopped by a signal; each of them is saved.
    #[error("{what}")]
    Stopped {
        /// What was stopped, and how far it got.
        what: String,
        /// What to type to go on.
        help: String,
    },
    /// Another process of the same run is gone.
    #[error("process {rank} of {world} has lost another one: {why}")]
    Lost {
        /// Number of this process.
        rank: usize,
        /// How many there are.
        world: usize,
        /// What was noticed.
        why: String,
    },
    /// A plugin's own error.
    #[error("{plugin}: {message}")]
    Plugin {
        /// Name of the plugin.
        plugin: String,
        /// Its message.
        message: String,
    },
    /// libtorch refused an operation.
    #[error("libtorch: {}", first_line(&.0.to_string()))]
    Tensor(#[from] tch::TchError),
}

/// `None` where a part says that it does not have what was asked of it ([`Error::HasNone`]). Whoever can do without
/// asks through this; for anybody else `?` ends the search with the message.
pub fn if_any<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(Error::HasNone { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}

/// The run folder around a file, if it can be gone on with: it has a checkpoint.
fn begun_around(path: &Path) -> Option<&Path> {
    path.ancestors()
        .take(3)
        .find(|p| p.join(RUN).is_file() && has_checkpoints(p))
}

/// libtorch appends its C++ stack to every message.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

impl Error {
    /// Attaches what was being done to an I/O error.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// Whether something can't be written, so that another place for it may help.
    pub fn is_about_output(&self) -> bool {
        let writes = ["write", "create", "open", "shorten", "rename", "remove"];
        matches!(self, Self::Io { action, .. } if writes.iter().any(|w| action.starts_with(w)))
    }

    /// The same error as one of the run in this folder.
    pub fn of_run(self, folder: &Path) -> Self {
        match self {
            Self::NotFinite { what, step, .. } => Self::NotFinite {
                what,
                step,
                run: Some(folder.to_owned()),
            },
            other => other,
        }
    }

    /// The exit code of the binary, as documented in docs/cli.md.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::UnknownPlugin { .. } | Self::Incompatible { .. } => 2,
            Self::Data { .. } => 3,
            Self::Run { .. } => 4,
            Self::Io { .. } => 5,
            Self::Device { .. } => 6,
            Self::NotFinite { .. } => 7,
            Self::Lost { .. } => 8,
            Self::Interrupted { .. } | Self::Stopped { .. } => 130,
            Self::Registry(_)
            | Self::HasNone { .. }
            | Self::Invalid { .. }
            | Self::Plugin { .. }
            | Self::Tensor(_) => 1,
        }
    }

    /// What to type, where that is known.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Config(e) => e.help.clone(),
            Self::UnknownPlugin {
                kind,
                similar,
                known,
                ..
            } => {
                let list = match *kind {
                    "strategy" => "nasfw list strategies".to_owned(),
                    "plugin" => "nasfw list".to_owned(),
                    kind => format!("nasfw list {kind}s"),
                };
                Some(match similar {
                    Some(s) => format!("did you mean `{s}`? `{list}` shows all"),
                    None => format!(
                        "known: {}. Is the crate of the plugin linked into this binary?",
                        known.join(", ")
                    ),
                })
            }
            Self::Incompatible { help, .. }
            | Self::Data { help, .. }
            | Self::Run { help, .. }
            | Self::Stopped { help, .. } => Some(help.clone()),
            Self::Io { source, path, .. } => Some(match (source.kind(), self.is_about_output()) {
                (ErrorKind::StorageFull, _) => match begun_around(path) {
                    Some(run) => format!(
                        "the disk is full: free some space, then go on with `{}`",
                        resume(run)
                    ),
                    None => "the disk is full: free some space, then type the command again".into(),
                },
                (ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem, true) => {
                    "you can't write there".into()
                }
                (ErrorKind::PermissionDenied, false) => format!(
                    "you may not read it; `ls -ld {}` shows who may",
                    quoted(path)
                ),
                (_, true) => "check the path".into(),
                (_, false) => return None,
            }),
            Self::Device { .. } => Some(
                "use `--device cpu`, or type `nasfw doctor` to see what was found on this machine"
                    .into(),
            ),
            Self::NotFinite { run, .. } => {
                let file = run.as_ref().map(|run| run.join(CONFIG));
                let file = file.map_or("FILE".into(), |file| file.into_os_string());
                let again = command([OsStr::new("run"), OsStr::new("--config"), &file]);
                Some(format!(
                    "begin again with lower learning rates, `{again} --set trainer.weights.lr=…` (and the strategy's \
                     own), or clip harder, `--set trainer.weights.clip=…`"
                ))
            }
            Self::Lost { .. } => Some(
                "the process that ended says why; start all of them again, with `--name NAME --resume` or by `resume`: \
                 the run goes on from its newest checkpoint"
                    .into(),
            ),
            Self::Interrupted { run, .. } => Some(format!("go on with `{}`", resume(run))),
            _ => None,
        }
    }
}
