//! A search in a run folder: who listens, how it is interrupted, and what to type next.

use std::ffi::OsStr;
use std::path::Path;

use nasfw_framework::Result;
use nasfw_framework::arch::Genotype;
use nasfw_framework::command::command;
use nasfw_framework::config::RunConfig;
use nasfw_framework::device::choose;
use nasfw_framework::network::NetworkOptions;
use nasfw_framework::ranks::Ranks;
use nasfw_framework::run::{CONFIG, RunFolder};
use nasfw_framework::space::Task;
use nasfw_framework::trainer::{Interrupt, Job};

use super::terminal::is_quiet;
use super::{logging, progress, summary, view};
use crate::host::Host;

/// Refuses `--tui` where there is no terminal.
pub fn check_view(tui: bool) -> Result<()> {
    if !tui {
        return Ok(());
    }
    let help = "leave `--tui` out; `nasfw watch RUN` on a terminal shows the run";
    view::need_terminal("--tui", help)
}

/// Searches, or goes on, in a run folder, and says what was found; with `tui` it is shown on a screen of its own. Of several
/// processes the first one has told the others of the folder, and it alone says anything.
pub fn search(
    host: &Host,
    config: &RunConfig,
    run: &RunFolder,
    tui: bool,
    ranks: &Ranks,
) -> Result<()> {
    let interrupt = host.interrupt(view::restore)?;
    let mut listeners = vec![];
    host.works_in(run.path());
    if ranks.is_first() {
        logging::to_file(&run.path().join("log.jsonl"))?;
        listeners.extend(host.listeners().to_vec());
        if host.shows_progress() && !is_quiet() {
            listeners.push(progress::listener(run.path(), tui));
        }
    }
    let outcome = {
        let _live = tui.then(|| live(run.path(), &interrupt)).transpose()?;
        let outcome = config.trainer.search(Job {
            config,
            run,
            listeners,
            interrupt: interrupt.flag(),
            ranks: ranks.clone(),
        });
        progress::clear();
        outcome
    };
    let outcome = outcome.map_err(|e| e.of_run(run.path()))?;
    if !ranks.is_first() {
        return Ok(());
    }
    let next = next(run.path(), config, &outcome.genotype);
    keep_next(run, &next);
    summary::print(&outcome, run.path(), &next)
}

/// The search on a screen of its own.
#[cfg(feature = "tui")]
fn live(run: &Path, interrupt: &Interrupt) -> Result<view::Live> {
    let about = super::watch::about(run)?;
    view::Live::start(run, about, interrupt.clone())
}

/// [`check_view`] has refused it.
#[cfg(not(feature = "tui"))]
fn live(_run: &Path, _interrupt: &Interrupt) -> Result<view::Live> {
    Ok(view::Live)
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
    if config.strategy.name() == "train" {
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
