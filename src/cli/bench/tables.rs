//! The tables that searches find by themselves, and the surrogates beside them.

use std::path::PathBuf;

use clap::Args;
use nasfw_framework::Result;
use nasfw_framework::command::command;
use nasfw_framework::dataset::cache_folder;
use nasfw_spaces::surrogate::Surrogate;
use nasfw_spaces::tables::FAMILIES;
use serde_json::{Value, json};

use super::super::output::say;
use super::{describe, fit};

/// Options of `bench list`.
#[derive(Debug, Args)]
pub struct List {
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl List {
    /// Prints them, or JSON.
    pub fn carry_out(self) -> Result<()> {
        let mut all = vec![];
        for family in FAMILIES {
            let path = family.default_file()?;
            let opened = path.exists().then(|| family.open(&path));
            if self.json {
                all.push(json!({
                    "name": family.name, "file": path, "spaces": family.spaces, "takes": family.takes,
                    "table": opened.as_ref().and_then(|t| t.as_ref().ok()).map(describe),
                    "error": opened.as_ref().and_then(|t| t.as_ref().err()).map(ToString::to_string),
                }));
                continue;
            }
            let state = match opened {
                None => "not imported".into(),
                Some(Ok(table)) => table.header().coverage(),
                Some(Err(e)) => e.to_string(),
            };
            say(format!(
                "{}: {state}\n  file    {}\n  spaces  {}\n  import  {} FILE, with {}",
                family.name,
                path.display(),
                family.spaces.join(", "),
                command(["bench", "import", family.name]),
                family.takes
            ));
        }
        for path in surrogates()? {
            match Surrogate::open(&path) {
                Ok(surrogate) if self.json => all.push(fit::describe(&surrogate, &path)),
                Ok(surrogate) => fit::print(&surrogate, &path),
                Err(e) if self.json => all.push(json!({
                    "name": "surrogate", "file": path, "error": e.to_string()
                })),
                Err(e) => say(format!("surrogate: {e}")),
            }
        }
        if self.json {
            say(format!("{:#}", Value::Array(all)));
        }
        Ok(())
    }
}

/// The tables that searches find by themselves, each with what it covers and where it is, and the surrogates beside them.
///
/// # Errors
/// A table that is there but can't be used.
pub fn imported() -> Result<Vec<String>> {
    let mut all = vec![];
    if cache_folder().is_none() {
        return Ok(all);
    }
    for family in FAMILIES {
        let path = family.default_file()?;
        if path.exists() {
            let covers = family.open(&path)?.header().coverage();
            all.push(format!("{}: {covers} in {}", family.name, path.display()));
        }
    }
    for path in surrogates()? {
        Surrogate::open(&path)?;
        all.push(format!("surrogate in {}", path.display()));
    }
    Ok(all)
}

/// The surrogates that lie where tables are looked for, by name.
fn surrogates() -> Result<Vec<PathBuf>> {
    let mut found = vec![];
    for family in FAMILIES {
        let table = family.default_file()?;
        let files = table.parent().and_then(|f| std::fs::read_dir(f).ok());
        let files = files
            .into_iter()
            .flatten()
            .filter_map(std::result::Result::ok);
        found.extend(files.map(|f| f.path()).filter(|f| Surrogate::is_one(f)));
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}
