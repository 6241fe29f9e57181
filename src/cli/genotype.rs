//! `nasfw genotype`, and how every verb reads the architecture that it is given.

use std::path::Path;

use clap::{Args, ValueEnum};
use nasfw_framework::arch::Genotype as Architecture;
use nasfw_framework::command::command;
use nasfw_framework::run::{RESULT, read_json};
use nasfw_framework::trainer::Outcome;
use nasfw_framework::{Error, Result, input};
use nasfw_spaces::formats::{self, FormatError};
use nasfw_spaces::published;
use tracing::info;

use super::output::say;
use super::{logging, origin};

/// Options of `genotype`.
#[derive(Debug, Args)]
pub struct Genotype {
    /// A run folder, a file, FILE:NAME where a file has several, a published cell's name, or a genotype as text
    #[arg(required_unless_present = "list")]
    what: Option<String>,
    /// Form to print it in
    #[arg(long, default_value = "json")]
    format: Format,
    /// The published cells and their figures instead
    #[arg(long, conflicts_with_all = ["what", "format"])]
    list: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
    Darts,
    Nasbench201,
    Nasbench101,
}

impl Genotype {
    /// Prints.
    pub fn carry_out(self) -> Result<()> {
        let Some(what) = self.what else {
            return list();
        };
        let format = match self.format {
            Format::Json => formats::Format::Json,
            Format::Darts => formats::Format::Darts,
            Format::Nasbench201 => formats::Format::Nasbench201,
            Format::Nasbench101 => formats::Format::Nasbench101,
        };
        let genotype = load(&what, &[])?;
        logging::to_terminal();
        origin::note(&what, &genotype)?;
        let text = format.write(&genotype).map_err(|e| Error::Incompatible {
            what: format!("genotype `{what}` as {}", format.name()),
            why: e.to_string(),
            help: "`--format json` can say every genotype".into(),
        })?;
        say(text);
        Ok(())
    }
}

fn list() -> Result<()> {
    let all = published::all()?;
    let names: Vec<String> = all
        .iter()
        .map(|p| match p.aliases.first() {
            Some(alias) => format!("{} ({alias})", p.name),
            None => p.name.clone(),
        })
        .collect();
    let width = names.iter().map(|n| n.chars().count()).max().unwrap_or(0);
    say(format!(
        "{:width$}  {:>9} {:>8} {:>8}  published\n{:width$}  {:>9} {:>8} {:>8}",
        "name", "space", "CIFAR", "ImageNet", "", "", "params", "params"
    ));
    for (p, name) in all.iter().zip(names) {
        let params = |size: Option<(u64, u64)>| {
            size.map_or("-".into(), |s| format!("{:.2} M", s.0 as f64 / 1e6))
        };
        say(format!(
            "{name:width$}  {:>9} {:>8} {:>8}  {}",
            p.space,
            params(p.cifar),
            params(p.imagenet),
            p.figures
        ));
    }
    Ok(())
}

/// The architecture that `what` names: a run folder's result, a file in any form, one of several in a file
/// (`FILE:NAME`), of a front (`RUN:front.3`), a published cell, or text in any form. `others` are names that the caller understands
/// besides, for the suggestion.
///
/// # Errors
/// What is wrong with the file or the text, and where; for an unknown name the most similar one.
pub fn load(what: &str, others: &[&str]) -> Result<Architecture> {
    let path = Path::new(what);
    if path.is_dir() && !path.join(RESULT).exists() {
        return Err(Error::Run {
            path: path.into(),
            problem: "there is no result in this folder yet".into(),
            help: format!(
                "if it is a run, finish it with `{}`",
                command(["resume", what])
            ),
        });
    }
    if let Some((path, which)) = origin::file_of(what) {
        return file(&path, which);
    }
    if formats::Format::of(what).is_some() {
        return formats::read(what).map_err(|e| Error::Incompatible {
            what: "the genotype on the command line".into(),
            why: e.to_string(),
            help: "`nasfw genotype DARTS_V2 --format darts` shows the form; put the text in single quotes, or into a \
                   file"
                .into(),
        });
    }
    if let Some(cell) = published::find(what)? {
        return cell.genotype();
    }
    let nearest = published::nearest(what, others)?;
    let list = "`nasfw genotype --list` shows the published cells";
    Err(Error::Incompatible {
        what: format!("`{what}`"),
        why: format!(
            "this is no run folder, no file{} and no published cell",
            if others.is_empty() { "" } else { ", no space" }
        ),
        help: nearest.map_or(list.into(), |n| format!("did you mean `{n}`? {list}")),
    })
}

/// Of a run's result the member of its front with this number.
fn member(path: &Path, number: &str) -> Result<Architecture> {
    let outcome: Outcome = read_json(path, "only the result of a run has a front")?;
    let mut members = outcome.front.map_or(vec![], |front| front.members);
    let place = number.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
    match place.filter(|place| *place < members.len()) {
        Some(place) => Ok(members.swap_remove(place).genotype),
        None => Err(Error::Data {
            path: path.into(),
            problem: format!("there is no member {number} of its front"),
            help: match members.len() {
                0 => "it has none: docs/constraints.md tells which searches find fronts".into(),
                n => format!("its members are front.1 to front.{n}, the best in the metric first"),
            },
        }),
    }
}

/// The genotype `which` of a file, or the only one.
fn file(path: &Path, which: Option<&str>) -> Result<Architecture> {
    if let Some(number) = which.and_then(|which| which.strip_prefix("front.")) {
        return member(path, number);
    }
    let bytes = input::read(path, formats::MAX_BYTES as u64).map_err(Error::io("read", path))?;
    let chosen = formats::decode(&bytes).and_then(|text| formats::choose(&text, which));
    let chosen = chosen.map_err(|e| Error::Data {
        path: path.into(),
        help: match &e {
            FormatError::Several { example, .. } => format!(
                "choose one by its name or line, or the `first` or `last`: {}:{example}",
                path.display()
            ),
            FormatError::NoSuch { .. } => format!(
                "choose one by its name or line, or the `first` or `last`: {}:last",
                path.display()
            ),
            _ => "give a run folder, its result.json, or a file with a genotype: JSON, or the text form of DARTS, \
                  NAS-Bench-201 or NAS-Bench-101"
                .into(),
        },
        problem: e.to_string(),
    })?;
    if !chosen.passed_over.is_empty() {
        info!(
            "passed over in {}: {}",
            path.display(),
            chosen.passed_over.join(", ")
        );
    }
    Ok(chosen.genotype)
}
