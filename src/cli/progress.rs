//! Progress: a bar on a terminal, plain lines elsewhere.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use nasfw_framework::Result;
use nasfw_framework::benchmark::Standing;
use nasfw_framework::budget::Unit;
use nasfw_framework::events::{Event, Meter};
use nasfw_framework::listen::{Listener, SharedListener, shared};
use nasfw_framework::printable::counted;
use nasfw_framework::trust::Trust;

use super::render::shown;
use super::view;

static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

fn bar() -> Option<ProgressBar> {
    BAR.lock().map_or(None, |b| b.clone())
}

/// Runs something that prints, with the bar out of the way.
pub fn aside<T>(print: impl FnOnce() -> T) -> T {
    match bar() {
        Some(bar) => bar.suspend(print),
        None => print(),
    }
}

/// Takes the bar away.
pub fn clear() {
    if let Some(bar) = bar() {
        bar.finish_and_clear();
    }
}

/// The listener for where standard error goes. `NASFW_NO_PROGRESS` and `plain` ask for plain lines on a terminal too.
pub fn listener(run: &Path, plain: bool) -> SharedListener {
    let bar = !plain
        && std::io::stderr().is_terminal()
        && std::env::var_os("NASFW_NO_PROGRESS").is_none();
    shared(Progress {
        run: run.to_owned(),
        on_terminal: bar,
        ..Progress::default()
    })
}

#[derive(Debug, Default)]
struct Progress {
    run: PathBuf,
    on_terminal: bool,
    /// Share of the search that was done when this process began.
    first: f64,
    /// Epochs of the last line about the architecture.
    epoch: Option<u64>,
}

/// Prints a line on standard error, above the bar; while the screen is the view's, it waits.
pub fn line(text: &str) {
    let text = shown(text);
    if view::is_on() {
        return view::hold(&text);
    }
    aside(|| {
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    });
}

impl Progress {
    fn start(&mut self, step: u64, total: u64) {
        if !self.on_terminal {
            return;
        }
        let bar = ProgressBar::new(total).with_position(step);
        let style = ProgressStyle::with_template("{bar:16} {pos}/{len} {wide_msg}");
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        if let Ok(mut slot) = BAR.lock() {
            *slot = Some(bar);
        }
    }

    /// Time left at the pace of this process.
    fn left(&self, done: f64, seconds: f64) -> String {
        let share = done - self.first;
        let left = seconds / share * (1.0 - done).max(0.0);
        if share <= 0.0 || !left.is_finite() {
            return String::new();
        }
        // A pace of minutes says nothing of years.
        let left = Duration::from_secs_f64(left.clamp(0.0, 1e9));
        format!("{} left", HumanDuration(left))
    }
}

/// Regret in a line, with the rank where that is known: of test metrics where there are any, and not of short trainings
/// (`…@12`).
fn show_regret(regret: &BTreeMap<String, f64>, trust: &Trust) -> String {
    let long = || regret.iter().filter(|(name, _)| !name.contains('@'));
    let test = long().any(|(name, _)| name.starts_with("test"));
    long()
        .filter(|(name, _)| !test || name.starts_with("test"))
        .map(|(name, v)| match trust.standing.get(name) {
            Some(Standing { rank, of, .. }) => {
                format!(" regret {name} {v:.4} (rank {rank} of {of})")
            }
            None => format!(" regret {} {v:.4}", trust.shown(name)),
        })
        .collect()
}

impl Listener for Progress {
    fn event(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Started {
                step,
                epochs,
                steps_per_epoch,
                device,
                weights,
                arch_params,
                budget,
                done,
            } => {
                let from = if *step > 0 {
                    format!(", going on from step {step}")
                } else {
                    String::new()
                };
                let (plan, total) = match budget {
                    None => (
                        format!(
                            "{} of {}",
                            counted(epochs, "epoch"),
                            counted(steps_per_epoch, "step")
                        ),
                        epochs * steps_per_epoch,
                    ),
                    Some(b) => (
                        format!("a budget of {b}"),
                        if b.unit == Unit::Steps { b.amount } else { 0 },
                    ),
                };
                line(&format!("run folder: {}", self.run.display()));
                line(&format!(
                    "{}, {} on {device}; {plan}{from}",
                    counted(weights, "weight"),
                    counted(arch_params, "architecture parameter")
                ));
                self.first = *done;
                self.start(*step, total);
            }
            Event::Progress {
                step,
                epoch,
                meters,
                entropy,
                seconds,
                done,
                ..
            } => {
                // The images that weights are trained on, where there are two kinds.
                let meter = meters
                    .get("train")
                    .or(meters.get("full"))
                    .or(meters.values().next());
                let figures = meter.map_or(String::new(), |Meter { loss, accuracy, .. }| {
                    format!(" loss {loss:.3} acc {:.1}%", accuracy * 100.0)
                });
                let entropy = entropy.map_or(String::new(), |e| format!(" entropy {e:.3}"));
                let message = format!(
                    "epoch {}{figures}{entropy} {}",
                    epoch + 1,
                    self.left(*done, *seconds)
                );
                let total = (*step as f64 / done).round();
                match bar() {
                    Some(bar) => {
                        bar.set_length(total as u64);
                        bar.set_position(*step);
                        bar.set_message(message);
                    }
                    // The view shows them.
                    None if view::is_on() => {}
                    None => line(&format!("step {step}/{total} {message}")),
                }
            }
            // Those along the way are for figures.
            Event::Architecture { epoch, .. } if self.epoch == Some(*epoch) => {}
            Event::Architecture {
                epoch,
                entropy,
                sharpness,
                metrics,
                regret,
                known,
                trust,
                ..
            } => {
                let show = |name: &str, v: &Option<f64>| {
                    v.map_or(String::new(), |v| format!(" {name} {v:.3}"))
                };
                let figures = match (known, regret) {
                    (Some(false), _) => " not in the benchmark's table".into(),
                    (_, Some(regret)) => show_regret(regret, trust),
                    // Of a strategy that measures for itself.
                    _ => metrics
                        .iter()
                        .flatten()
                        .map(|(k, v)| format!(" {k} {v:.4}"))
                        .collect(),
                };
                self.epoch = Some(*epoch);
                line(&format!(
                    "epochs done: {epoch};{}{}{figures}",
                    show("entropy", entropy),
                    show("largest weight", sharpness)
                ));
            }
            Event::Control { what, .. } => line(what),
            Event::Interrupted { step } => line(&format!("interrupted: step {step} is saved")),
            _ => {}
        }
        Ok(())
    }
}
