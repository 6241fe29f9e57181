//! `nasfw run`.

use std::path::Path;

use clap::Args;
use nasfw_framework::command::resume as resume_command;
use nasfw_framework::config::{Resolved, RunConfig};
use nasfw_framework::registry::Kind;
use nasfw_framework::run::{CONFIG, RUN, RunFolder, has_checkpoints, need_run};
use nasfw_framework::{Error, Result};

use super::processes::{Processes, announce, follow};
use super::ready::ready;
use super::resume;
use super::searching::{check_view, search};
use super::selection::Selection;
use super::submission::Handover;
use crate::host::Host;

/// Options of `run`.
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    handover: Handover,
    #[command(flatten)]
    processes: Processes,
    /// Show the search on a screen of its own: curves, entropy per edge, the architecture so far
    #[arg(long, conflicts_with = "on")]
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
        let registry = ready()?;
        let mut resolved = self.selection.resolve(&registry)?;
        self.handover.fix_threads(&mut resolved);
        let config = RunConfig::new(&registry, &resolved)?;
        let parts = [Kind::Strategy, Kind::Space, Kind::Dataset].map(|k| name_of(&resolved, k));
        begin(
            host,
            &config,
            &resolved,
            self.place,
            &parts.join("-"),
            self.tui,
            &Carriers {
                handover: &self.handover,
                processes: &self.processes,
            },
        )
    }
}

/// Who carries a run out.
#[derive(Debug)]
pub struct Carriers<'a> {
    /// An engine, if it is not this process.
    pub handover: &'a Handover,
    /// This process alone, or with others.
    pub processes: &'a Processes,
}

/// Name of the plugin of a kind.
pub fn name_of(resolved: &Resolved, kind: Kind) -> String {
    resolved.section(kind)["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// Trains in a new run folder, called as the user says or else after `parts`, the seed and the time, or hands that to a
/// cluster's engine. Goes on with the run that is there already, if the user says so.
pub fn begin(
    host: &Host,
    config: &RunConfig,
    resolved: &Resolved,
    place: Place,
    parts: &str,
    tui: bool,
    by: &Carriers<'_>,
) -> Result<()> {
    check_view(tui)?;
    let handover = by.handover;
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
    let ranks = by.processes.join_with(config)?;
    if !ranks.is_first() {
        return follow(host, &ranks, Some(&config.common.data_dir));
    }
    let out = &config.common.out;
    let path = out.join(&name);
    let go_on = || {
        same_settings(&path, config)?;
        let data_dir = &config.common.data_dir;
        match handover.engine() {
            Some(engine) => handover.submit(host, engine, &path, Some(data_dir)),
            None => resume::go_on(host, &path, data_dir, tui, &ranks),
        }
    };
    if place.resume && path.is_dir() {
        if need_run(&path).is_ok() {
            return go_on();
        }
        // One that a process left before it wrote anything that matters is begun in.
        if !RunFolder::is_torso(&path) {
            need_run(&path)?;
        }
    }
    if let Some(engine) = handover.engine().filter(|_| handover.is_dry_run()) {
        return handover.show_first(engine, &path, config.common.threads);
    }
    let run = match place.resume {
        true => RunFolder::at(&path)?,
        false => RunFolder::create(out, &name)?,
    };
    // Somebody else may have begun it meanwhile.
    if place.resume && need_run(&path).is_ok() {
        drop(run);
        return go_on();
    }
    let header = format!("# Made by: {}\n\n", host.typed());
    let outcome =
        run.write(CONFIG, (header + &resolved.to_toml()).as_bytes())
            .and_then(|()| run.write_json(RUN, config))
            .and_then(|()| match handover.engine() {
                Some(engine) => handover.submit(host, engine, run.path(), None),
                None => announce(&ranks, run.path())
                    .and_then(|()| search(host, config, &run, tui, &ranks)),
            });
    if outcome.is_err() && !has_checkpoints(run.path()) {
        // Nothing was searched, so nothing is lost.
        let _ = run.discard();
    }
    outcome
}

/// Refuses to go on with a run that has other settings than were asked for.
fn same_settings(path: &Path, config: &RunConfig) -> Result<()> {
    let begun = RunConfig::of_run(path)?;
    if begun.is_same_search(config)? {
        return Ok(());
    }
    Err(Error::Run {
        path: path.to_owned(),
        problem: "this run was begun with other settings".into(),
        help: format!(
            "`{}` goes on with it as it was begun; give other settings another `--name`",
            resume_command(path)
        ),
    })
}

/// Refuses a strategy that looks architectures up where it could not.
pub fn need_benchmark(config: &RunConfig) -> Result<()> {
    if config.strategy.needs_benchmark() {
        let name = config.strategy.name();
        config.need_benchmark(&format!("strategy `{name}`"))?;
    }
    Ok(())
}
