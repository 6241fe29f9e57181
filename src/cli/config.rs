//! `nasfw config`.

use clap::{Args, Subcommand};
use nasfw_framework::Result;
use nasfw_framework::config::{RunConfig, flatten};
use nasfw_framework::registry::Registry;

use super::output::say;
use super::selection::Selection;

/// Origins stand in one column, but for those of settings longer than this.
const WIDEST: usize = 160;

/// What to do with a configuration.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Every value, and where it comes from.
    #[command(after_help = "Example:\n  nasfw config show --strategy vim --toml")]
    Show(Show),
}

/// Options of `config show`.
#[derive(Debug, Args)]
pub struct Show {
    #[command(flatten)]
    selection: Selection,
    /// As a TOML file for `nasfw run --config`
    #[arg(long)]
    toml: bool,
}

impl Config {
    /// Prints the configuration, if it is valid.
    pub fn carry_out(self) -> Result<()> {
        let Self::Show(show) = self;
        let registry = Registry::load()?;
        let resolved = show.selection.resolve(&registry)?;
        RunConfig::new(&registry, &resolved)?;
        if show.toml {
            say(resolved.to_toml());
            return Ok(());
        }
        let leaves = flatten(&resolved.value);
        let settings: Vec<(&String, String)> = leaves
            .iter()
            .map(|(key, value)| (key, format!("{key} = {value}")))
            .collect();
        let lengths = settings.iter().map(|(_, s)| s.chars().count());
        // The text of a declared space is no reason to push every origin out of sight.
        let width = lengths.filter(|n| *n <= WIDEST).max().unwrap_or(0);
        for (key, setting) in &settings {
            let origin = resolved
                .origin(key)
                .map_or(String::new(), ToString::to_string);
            say(format!("{setting:width$}  # {origin}"));
        }
        Ok(())
    }
}
