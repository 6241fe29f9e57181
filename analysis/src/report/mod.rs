//! Reports: one HTML file that needs nothing else. One script, which the page can do without, and a content policy that
//! allows it alone and forbids every request.

mod comparison;
mod parts;
mod run;
mod settings;
mod side_by_side;
#[cfg(test)]
pub(crate) mod tests;

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use nasfw_framework::Error;
use nasfw_framework::palette::{self, Tone};
use sha2::{Digest as _, Sha256};

use crate::compare::{Comparison, State as TrialState};
use crate::record::Record;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The style with the colours that it names, on light and on dark ground. Paper is light.
fn style() -> String {
    let [warning, warning_ink, warning_line] = palette::WARNING;
    let tones = [
        ("ground", palette::GROUND),
        ("card", palette::CARD),
        ("ink", palette::INK),
        ("soft", palette::SOFT),
        ("line", palette::RULE),
        ("link", palette::LINK),
        ("warn", warning),
        ("warn-ink", warning_ink),
        ("warn-line", warning_line),
    ];
    let set = |colour: fn(&Tone) -> &'static str| {
        let set = tones
            .iter()
            .map(|(name, tone)| format!("--{name}:{};", colour(tone)));
        format!(":root{{{}}}", set.collect::<String>())
    };
    format!(
        "{}@media screen and (prefers-color-scheme: dark){{{}{}}}\n{STYLE}",
        set(|t| t.light),
        set(|t| t.dark),
        palette::dark_rules()
    )
}

/// What the page may do: nothing but its own style and script.
fn policy() -> String {
    let script = STANDARD.encode(Sha256::digest(SCRIPT));
    format!("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{script}'")
}

/// What a report is about.
#[derive(Debug)]
pub enum Report {
    /// Runs, side by side if there are several.
    Runs(Vec<Record>),
    /// A comparison with those of its runs that can be read.
    Comparison {
        /// The comparison.
        comparison: Box<Comparison>,
        /// Its folder.
        folder: PathBuf,
        /// The runs, in the order of the trials: none of a trial that has not begun, the error of a run that can't be
        /// read.
        runs: Vec<Option<Result<Record, Error>>>,
    },
}

impl Report {
    /// The report of a comparison, with what its folder has of runs.
    pub fn of_comparison(comparison: Comparison, folder: &Path) -> Self {
        let runs = comparison.trials.iter().map(|trial| {
            let path = folder.join(&trial.run);
            let begun = trial.state != TrialState::Missing && path.is_dir();
            begun.then(|| Record::read(&path))
        });
        Self::Comparison {
            runs: runs.collect(),
            comparison: Box::new(comparison),
            folder: folder.to_owned(),
        }
    }

    /// The whole page. Equal runs give equal bytes.
    pub fn html(&self) -> String {
        let (title, body) = match self {
            Self::Runs(runs) => match runs.as_slice() {
                [run] => (run::title(run), run::section(run, 0)),
                runs => (
                    format!("{} runs side by side", runs.len()),
                    html! {
                        (contents(runs.iter().enumerate().map(|(i, r)| (run::anchor(i), r.name()))))
                        (side_by_side::section(runs))
                        @for (i, r) in runs.iter().enumerate() { (run::section(r, i)) }
                    },
                ),
            },
            Self::Comparison {
                comparison,
                folder,
                runs,
            } => (
                format!("Comparison {}", comparison.name),
                comparison::sections(comparison, folder, runs),
            ),
        };
        page(&title, &body).into_string()
    }
}

/// Links to the parts of a page.
fn contents(links: impl Iterator<Item = (String, String)>) -> Markup {
    html! {
        nav aria-label="Contents" {
            ul { @for (anchor, name) in links { li { a href={ "#" (anchor) } { (name) } } } }
        }
    }
}

fn page(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content=(policy());
                meta name="generator" content={ "nasfw " (env!("CARGO_PKG_VERSION")) };
                title { (parts::clean(title)) }
                style { (PreEscaped(style())) }
            }
            body {
                header { h1 { (parts::clean(title)) } }
                main { (body) }
                footer { "Made by nasfw " (env!("CARGO_PKG_VERSION")) "." }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
}
