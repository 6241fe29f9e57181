//! Progress: a bar on a terminal, plain lines elsewhere.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use nasfw_framework::Result;
use nasfw_framework::benchmark::Standing;
use nasfw_framework::budget::Unit;
use nasfw_framework::events::{Event, Meter};
use nasfw_framework::listen::{Listener, SharedListener, lock};
use nasfw_framework::printable::counted;
use nasfw_framework::registry::cost_in_words;
use nasfw_framework::trust::Trust;

use super::lines::fitted;
use super::pace::Pace;
use super::render::shown;
use super::terminal::{Stream, is_quiet, width};
use super::view;

/// How often it is looked whether a line is due, also in a step that takes long.
const TICK: Duration = Duration::from_millis(250);

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
    let progress = Arc::new(Mutex::new(Progress {
        run: run.to_owned(),
        on_terminal: bar,
        ..Progress::default()
    }));
    let kept = Arc::downgrade(&progress);
    let ticks = std::thread::Builder::new().name("progress".into());
    // Without it there are the lines at the ends of epochs.
    let _ = ticks.spawn(move || {
        while let Some(progress) = kept.upgrade() {
            lock(&progress).tick();
            drop(progress);
            std::thread::sleep(TICK);
        }
    });
    progress
}

#[derive(Debug, Default)]
struct Progress {
    run: PathBuf,
    on_terminal: bool,
    /// None before the search begins, and after its end.
    pace: Option<Pace>,
    /// Steps that are planned; 0 where something else decides.
    planned: u64,
    /// Epoch of the last step.
    epoch: u64,
    /// What the last report of the search said, behind a space.
    figures: String,
    /// Steps of the last line.
    told: Option<u64>,
    /// Epochs of the last line about the architecture.
    found: Option<u64>,
}

/// Prints a line of progress on standard error, as [`insist`] does; not where only results and errors are wanted.
pub fn line(text: &str) {
    if !is_quiet() {
        insist(text);
    }
}

/// Prints a line on standard error, above the bar; while the screen is the view's, it waits.
pub fn insist(text: &str) {
    let text = fitted(&shown(text), width(Stream::Error));
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

    /// Shows where the search is, if it is time.
    fn tick(&mut self) {
        let Some(pace) = &mut self.pace else {
            return;
        };
        let now = Instant::now();
        if bar().is_some() || pace.is_due(now) {
            self.show();
        }
    }

    /// Shows where the search is.
    fn show(&mut self) {
        let Some(pace) = &self.pace else {
            return;
        };
        let step = pace.step();
        let all = match pace.done() {
            done if done > 0.0 && step > 0 => (step as f64 / done).round() as u64,
            _ => self.planned,
        };
        let mut message = format!("epoch {}{}{}", self.epoch + 1, self.figures, pace.words());
        if let Some(bar) = bar() {
            bar.set_length(all);
            bar.set_position(step);
            bar.set_message(message);
            return;
        }
        // Where nothing else is new, this is.
        if step == 0 || self.told == Some(step) {
            let waited = HumanDuration(pace.waited(Instant::now()));
            message += &format!(", {waited} in the next step");
        }
        self.told = Some(step);
        // A view shows all of it.
        match all {
            _ if view::is_on() => {}
            0 => line(&format!("step {step} {message}")),
            all => line(&format!("step {step}/{all} {message}")),
        }
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
                ..
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
                self.pace = Some(Pace::new(Instant::now(), *step, *done));
                self.planned = total;
                self.epoch = step.checked_div(*steps_per_epoch).unwrap_or(0);
                self.start(*step, total);
            }
            Event::Progress {
                step,
                meters,
                entropy,
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
                self.figures = figures + &entropy;
                // The last one is shown whenever it comes.
                if *done >= 1.0 && self.told != Some(*step) {
                    self.show();
                }
            }
            // Those along the way are for figures.
            Event::Architecture { epoch, .. } if self.found == Some(*epoch) => {}
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
                        .map(|(k, v)| match cost_in_words(k, *v) {
                            Some(cost) => format!(" {k} {cost}"),
                            None => format!(" {k} {v:.4}"),
                        })
                        .collect(),
                };
                self.found = Some(*epoch);
                line(&format!(
                    "epochs done: {epoch};{}{}{figures}",
                    show("entropy", entropy),
                    show("largest weight", sharpness)
                ));
            }
            Event::Control { what, .. } => line(what),
            Event::Interrupted { step } => {
                self.pace = None;
                line(&format!("interrupted: step {step} is saved"));
            }
            Event::Finished { .. } => self.pace = None,
            _ => {}
        }
        Ok(())
    }

    fn stepped(&mut self, step: u64, epoch: u64, done: f64) {
        self.epoch = epoch;
        if let Some(pace) = &mut self.pace {
            pace.stepped(Instant::now(), step, done);
        }
    }
}
