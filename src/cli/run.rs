//! `nasfw run`.

use std::path::Path;

use clap::Args;
use nasfw_framework::command::resume as resume_command;
use nasfw_framework::config::{Resolved, RunConfig};
use nasfw_framework::device::load_cuda;
use nasfw_framework::registry::{Kind, Registry};
use nasfw_framework::run::{CONFIG, RUN, RunFolder, has_checkpoints, need_run};
use nasfw_framework::{Error, Result};

use super::searching::{check_view, search};
use super::selection::Selection;
use super::{logging, resume};
use crate::host::Host;

/// Options of `run`.
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    place: Place,
    /// Show the search on a screen of its own: curves, entropy per edge, the architecture so far
    #[arg(long)]
    tui: bool,
}

/// Which folder a run is in.
#[derive(Debug, Args)]
pub struct Place {
    /// Name of the run folder [default: what is searched or trained, seed and time]
    #[arg(long)]
    name: Option<String>,
    /// Go on with the run of this name if there is one; for jobs that may be started again
    #[arg(long, requires = "name")]
    resume: bool,
}

impl Run {
    /// Searches in a new run folder.
    pub fn carry_out(self, host: &Host) -> Result<()> {
        load_cuda();
        logging::to_terminal();
        let registry = Registry::load()?;
        let resolved = self.selection.resolve(&registry)?;
        let config = RunConfig::new(&registry, &resolved)?;
        let parts = [Kind::Strategy, Kind::Space, Kind::Dataset].map(|k| name_of(&resolved, k));
        begin(
            host,
            &config,
            &resolved,
            self.place,
            &parts.join("-"),
            self.tui,
        )
    }
}

/// Name of the plugin of a kind.
pub fn name_of(resolved: &Resolved, kind: Kind) -> String {
    resolved.section(kind)["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// Trains in a new run folder, called as the user says or else after `parts`, the seed and the time. Goes on with the
/// run that is there already, if the user says so.
pub fn begin(
    host: &Host,
    config: &RunConfig,
    resolved: &Resolved,
    place: Place,
    parts: &str,
    tui: bool,
) -> Result<()> {
    check_view(tui)?;
    let name = match place.name {
        Some(name) if name.contains('/') || name.is_empty() || name.starts_with('.') => {
            return Err(Error::Incompatible {
                what: format!("--name {name}"),
                why: "this is no name of a folder".into(),
                help: "give a plain name here, and the folder around it with `--out DIR`".into(),
            });
        }
        Some(name) => name,
        None => format!(
            "{parts}-s{}-{}",
            config.common.seed,
            jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S"),
        ),
    };
    need_benchmark(config)?;
    let out = &config.common.out;
    let path = out.join(&name);
    // One that a process left before it wrote anything that matters is begun in.
    let torso = place.resume && path.is_dir();
    if torso && need_run(&path).is_ok() {
        return go_on_with_same(host, &path, config, tui);
    }
    if torso && !RunFolder::is_torso(&path) {
        need_run(&path)?;
    }
    let run = match place.resume {
        true => RunFolder::at(&path)?,
        false => RunFolder::create(out, &name)?,
    };
    // Somebody else may have begun it meanwhile.
    if place.resume && need_run(&path).is_ok() {
        drop(run);
        return go_on_with_same(host, &path, config, tui);
    }
    let header = format!("# Made by: {}\n\n", host.typed());
    let outcome = run
        .write(CONFIG, (header + &resolved.to_toml()).as_bytes())
        .and_then(|()| run.write_json(RUN, config))
        .and_then(|()| search(host, config, &run, tui));
    if outcome.is_err() && !torso && !has_checkpoints(run.path()) {
        // Nothing was searched, so nothing is lost.
        let _ = run.discard();
    }
    outcome
}

/// Goes on with a run that must have the settings that were asked for.
fn go_on_with_same(host: &Host, path: &Path, config: &RunConfig, tui: bool) -> Result<()> {
    let begun = RunConfig::of_run(path)?;
    if begun.fingerprint()? != config.fingerprint()? {
        return Err(Error::Run {
            path: path.to_owned(),
            problem: "this run was begun with other settings".into(),
            help: format!(
                "`{}` goes on with it as it was begun; give other settings another `--name`",
                resume_command(path)
            ),
        });
    }
    resume::go_on(host, path, &config.common.data_dir, tui)
}

/// Refuses a strategy that looks architectures up where it could not.
pub fn need_benchmark(config: &RunConfig) -> Result<()> {
    if config.strategy.needs_benchmark() {
        let name = config.strategy.name();
        config.need_benchmark(&format!("strategy `{name}`"))?;
    }
    Ok(())
}
