//! `nasfw completions`.

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Arg, Args, Command};
use clap_complete::{Shell, generate};
use nasfw_framework::Result;
use nasfw_framework::command::program;
use nasfw_framework::registry::{Kind, Registry};

use super::output::say;

/// Options of `completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Prints the script that makes a shell complete the words of `command`, which is this program.
    pub fn carry_out(self, command: Command) -> Result<()> {
        let registry = Registry::load()?;
        let mut command = with_names(command, &registry);
        let mut script = vec![];
        generate(self.shell, &mut command, program(), &mut script);
        say(String::from_utf8_lossy(&script));
        Ok(())
    }
}

/// The command whose options that take a plugin take the names of this program's.
fn with_names(command: Command, registry: &Registry) -> Command {
    let verb = command.get_name().to_owned();
    let named = |arg: Arg| {
        let kinds = kinds_of(&verb, arg.get_id().as_str());
        if kinds.is_empty() || !arg.get_action().takes_values() {
            return arg;
        }
        let names: Vec<PossibleValue> = kinds
            .iter()
            .flat_map(|kind| registry.of(*kind))
            .map(|plugin| PossibleValue::new(plugin.name).help(plugin.summary))
            .collect();
        arg.value_parser(PossibleValuesParser::new(names))
    };
    command
        .mut_args(named)
        .mut_subcommands(|verb| with_names(verb, registry))
}

/// The kinds of plugins that an argument names.
fn kinds_of(verb: &str, argument: &str) -> &'static [Kind] {
    match (verb, argument) {
        (_, "strategy") => &[Kind::Strategy],
        (_, "space") => &[Kind::Space],
        (_, "dataset") => &[Kind::Dataset],
        (_, "proxy") => &[Kind::Proxy],
        (_, "track") | ("track", "to") => &[Kind::Tracker],
        ("describe", "name") => &Kind::ALL,
        _ => &[],
    }
}
