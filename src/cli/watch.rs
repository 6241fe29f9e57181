//! `nasfw watch`.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use clap::Args;
use nasfw_framework::registry::Registry;
use nasfw_framework::run::{EVENTS, RUN, RunFolder, read_json};
use nasfw_framework::trainer::on_signals;
use nasfw_framework::{Error, Result};
use ratatui::crossterm::terminal;
use serde_json::Value;

use super::output::say;
use super::view::{self, About, Follower};

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
        let typed = format!("nasfw watch {}", self.run.display());
        view::need_terminal(
            &typed,
            &format!("type `{typed} --once`, which prints one frame as text"),
        )?;
        let signal = on_signals()?;
        view::show(&run, about, None, &signal)?;
        if signal.load(Ordering::SeqCst) {
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
    let mut runs: Vec<(SystemTime, PathBuf)> = std::fs::read_dir(path)
        .map_err(|e| wrong(path, format!("it can't be read: {e}"), vec![]))?
        .filter_map(|entry| Some(entry.ok()?.path()))
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

fn wrong(path: &Path, problem: String, runs: Vec<PathBuf>) -> Error {
    let newest: Vec<String> = runs
        .iter()
        .take(5)
        .map(|run| format!("nasfw watch {}", run.display()))
        .collect();
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
