//! `nasfw run`.

use std::ffi::OsStr;
use std::path::Path;

use clap::Args;
use nasfw_framework::arch::Genotype;
use nasfw_framework::command::{command, resume as resume_command};
use nasfw_framework::config::{Resolved, RunConfig};
use nasfw_framework::device::{choose, load_cuda};
use nasfw_framework::listen::shared;
use nasfw_framework::network::NetworkOptions;
use nasfw_framework::registry::{Kind, Registry};
use nasfw_framework::run::{CONFIG, RUN, RunFolder, TensorBoard, has_checkpoints, need_run};
use nasfw_framework::space::Task;
use nasfw_framework::trainer::{Interrupt, Job};
use nasfw_framework::{Error, Result};

use super::selection::Selection;
use super::view::{self, Live};
use super::{logging, progress, resume, summary, watch};

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
    pub fn carry_out(self) -> Result<()> {
        load_cuda();
        logging::to_terminal();
        let registry = Registry::load()?;
        let resolved = self.selection.resolve(&registry)?;
        let config = RunConfig::new(&registry, &resolved)?;
        let parts = [Kind::Strategy, Kind::Space, Kind::Dataset].map(|k| name_of(&resolved, k));
        begin(&config, &resolved, self.place, &parts.join("-"), self.tui)
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
        return go_on_with_same(&path, config, tui);
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
        return go_on_with_same(&path, config, tui);
    }
    let header = format!("# Made by: {}\n\n", command(std::env::args_os().skip(1)));
    let outcome = run
        .write(CONFIG, (header + &resolved.to_toml()).as_bytes())
        .and_then(|()| run.write_json(RUN, config))
        .and_then(|()| search(config, &run, tui));
    if outcome.is_err() && !torso && !has_checkpoints(run.path()) {
        // Nothing was searched, so nothing is lost.
        let _ = run.discard();
    }
    outcome
}

/// Goes on with a run that must have the settings that were asked for.
fn go_on_with_same(path: &Path, config: &RunConfig, tui: bool) -> Result<()> {
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
    resume::go_on(path, &config.common.data_dir, tui)
}

/// Refuses a strategy that looks architectures up where it could not.
pub fn need_benchmark(config: &RunConfig) -> Result<()> {
    if config.strategy.needs_benchmark() {
        let name = config.strategy.typetag_name();
        config.need_benchmark(&format!("strategy `{name}`"))?;
    }
    Ok(())
}

/// Refuses `--tui` where there is no terminal.
pub fn check_view(tui: bool) -> Result<()> {
    if !tui {
        return Ok(());
    }
    let help = "leave `--tui` out; `nasfw watch RUN` on a terminal shows the run";
    view::need_terminal("--tui", help)
}

/// Searches, or goes on, in a run folder, and says what was found; with `tui` it is shown on a screen of its own.
pub fn search(config: &RunConfig, run: &RunFolder, tui: bool) -> Result<()> {
    logging::to_file(&run.path().join("log.jsonl"))?;
    let interrupt = Interrupt::on_signals(view::restore)?;
    let mut listeners = vec![progress::listener(run.path(), tui)];
    if config.common.tensorboard {
        let space = config.space.build()?;
        let groups = space.spec().groups().iter().map(|g| g.name.clone());
        listeners.push(shared(TensorBoard::new(run.path(), groups.collect())));
    }
    let live = if tui {
        let about = watch::about(run.path())?;
        Some(Live::start(run.path(), about, interrupt.clone())?)
    } else {
        None
    };
    let outcome = config.trainer.search(Job {
        config,
        run,
        listeners,
        interrupt: interrupt.flag(),
    });
    progress::clear();
    drop(live);
    let outcome = outcome.map_err(|e| e.of_run(run.path()))?;
    let next = next(run.path(), config, &outcome.genotype);
    keep_next(run, &next);
    summary::print(&outcome, run.path(), &next)
}

/// File of what to type next.
pub const NEXT: &str = "next.txt";

/// Keeps what to type next in the run folder. The run is over, whatever becomes of that.
pub fn keep_next(run: &RunFolder, next: &[String]) {
    let kept = run.write(NEXT, (next.join("\n") + "\n").as_bytes());
    if let Err(e) = kept {
        tracing::warn!("{e}");
    }
}

/// What to type next: draw it, train it, measure it, repeat it.
pub fn next(run: &Path, config: &RunConfig, genotype: &Genotype) -> Vec<String> {
    let of_run = |verb: &str, more: &[&str]| {
        let words = [OsStr::new(verb), run.as_os_str()].into_iter();
        command(words.chain(more.iter().map(OsStr::new)))
    };
    // The largest that TOML can hold is followed by 0.
    let seed = config.common.seed.wrapping_add(1) & i64::MAX.cast_unsigned();
    let seed = seed.to_string();
    let file = run.join(CONFIG);
    let words = ["run", "--config"].map(OsStr::new).into_iter();
    let words = words.chain([file.as_os_str()]);
    let again = command(words.chain(["--seed", &seed].map(OsStr::new)));
    if config.strategy.typetag_name() == "train" {
        let files = [
            "--onnx",
            "network.onnx",
            "--safetensors",
            "network.safetensors",
        ];
        return vec![of_run("eval", &[]), of_run("export", &files), again];
    }
    // Toy spaces have no network to train.
    let task = Task {
        channels: 3,
        height: 32,
        width: 32,
        classes: 10,
    };
    let trainable = config
        .space
        .build()
        .and_then(|s| s.network(genotype, task, &NetworkOptions::default()))
        .is_ok();
    // The published settings are for a GPU and hours or days.
    let quick: &[&str] = match choose(&config.common.device) {
        Ok(device) if device.is_cuda() => &[],
        _ => &["--preset", "quick"],
    };
    let retrain = of_run("retrain", quick);
    let draw = of_run("draw", &["-o", "cell.svg"]);
    [Some(draw), trainable.then_some(retrain), Some(again)]
        .into_iter()
        .flatten()
        .collect()
}
