//! `nasfw watch`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;
use nasfw_analysis::compare::{BEGUN, TRIALS};
use nasfw_framework::command::command;
use nasfw_framework::registry::Registry;
use nasfw_framework::run::{EVENTS, RUN, RunFolder, read_json};
use nasfw_framework::trainer::Interrupt;
use nasfw_framework::{Error, Result};
use ratatui::crossterm::terminal;
use serde_json::Value;

use super::output::say;
use super::view::{self, About, Follower, Left};

/// Frame of `--once` where there is no terminal to ask.
const FRAME: (u16, u16) = (100, 40);

/// Options of `watch`.
#[derive(Debug, Args)]
pub struct Watch {
    /// A run folder, or a folder of runs: then the newest that is running
    #[arg(default_value = "runs", value_name = "RUN")]
    run: PathBuf,
    /// Print one frame as text and end
    #[arg(long)]
    once: bool,
}

impl Watch {
    /// Watches until the user leaves.
    pub fn carry_out(self) -> Result<()> {
        Registry::load()?;
        let run = find(&self.run)?;
        let about = about(&run)?;
        if self.once {
            let mut follower = Follower::new(&run, about);
            follower.poll().map_err(Error::io("read", &run))?;
            follower.look_for_process();
            let (width, height) = terminal::size().unwrap_or(FRAME);
            say(view::to_text(&follower.state, width, height.max(2) - 1));
            return Ok(());
        }
        let typed = watch(&self.run);
        view::need_terminal(
            &typed,
            &format!("type `{typed} --once`, which prints one frame as text"),
        )?;
        let interrupt = Interrupt::on_signals(view::restore)?;
        let left = view::show(&run, about, None, interrupt.flag())?;
        if interrupt.is_asked() || left == Left::TerminalGone {
            std::process::exit(130);
        }
        Ok(())
    }
}

/// What the settings of a run say.
pub fn about(run: &Path) -> Result<About> {
    let help = "the file was cut or edited; watch another run";
    let json: Value = read_json(&run.join(RUN), help)?;
    Ok(About::new(run.display().to_string(), &json))
}

/// The run that is meant.
fn find(path: &Path) -> Result<PathBuf> {
    if path.join(RUN).is_file() {
        return Ok(path.to_owned());
    }
    // A comparison's folder has its runs in a folder of their own.
    let inside = |folder: &Path| {
        std::fs::read_dir(folder.join(TRIALS)).or_else(|_| std::fs::read_dir(folder))
    };
    let mut runs: Vec<(SystemTime, PathBuf)> = inside(path)
        .map_err(|e| wrong(path, format!("it can't be read: {e}"), vec![]))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .flat_map(|found| match found.join(BEGUN).is_file() {
            true => inside(&found)
                .into_iter()
                .flatten()
                .flatten()
                .map(|e| e.path())
                .collect(),
            false => vec![found],
        })
        .filter(|run| run.join(RUN).is_file())
        .map(|run| {
            // A run that has just begun has no events yet.
            let file = [run.join(EVENTS), run.join(RUN)];
            let times = file
                .iter()
                .filter_map(|f| f.metadata().ok()?.modified().ok());
            (times.max().unwrap_or(SystemTime::UNIX_EPOCH), run)
        })
        .collect();
    runs.sort();
    let running = runs
        .iter()
        .rev()
        .find(|(_, run)| RunFolder::holder(run).is_some());
    match running {
        Some((_, run)) => Ok(run.clone()),
        None if runs.is_empty() => Err(wrong(path, "there is no run in it".into(), vec![])),
        None => {
            let runs = runs.into_iter().rev().map(|(_, run)| run).collect();
            Err(wrong(path, "no run in it is running".into(), runs))
        }
    }
}

/// The command that watches a run.
fn watch(run: &Path) -> String {
    command([OsStr::new("watch"), run.as_os_str()])
}

fn wrong(path: &Path, problem: String, runs: Vec<PathBuf>) -> Error {
    let newest: Vec<String> = runs.iter().take(5).map(|run| watch(run)).collect();
    Error::Run {
        path: path.to_owned(),
        problem,
        help: if newest.is_empty() {
            "give the folder that `nasfw run` printed, or the folder around it".into()
        } else {
            format!("the newest runs:\n{}", newest.join("\n"))
        },
    }
}
