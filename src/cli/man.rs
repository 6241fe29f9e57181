//! `nasfw man`.

use std::path::{Path, PathBuf};

use clap::{Args, Command};
use nasfw_framework::command::by_own_name;
use nasfw_framework::{Error, Result};

use super::output::{say, write_file};

/// Options of `man`.
#[derive(Debug, Args)]
pub struct Man {
    /// Write a page for this program and one for every verb into this folder, instead of printing the first
    #[arg(long, short = 'o', value_name = "DIR")]
    output: Option<PathBuf>,
}

impl Man {
    /// Prints the manual page of `command`, which is this program, or writes all pages.
    pub fn carry_out(self, command: Command) -> Result<()> {
        let mut command = command.disable_help_subcommand(true);
        command.build();
        let Some(folder) = self.output else {
            say(page(command)?.1);
            return Ok(());
        };
        std::fs::create_dir_all(&folder).map_err(Error::io("create the folder", &folder))?;
        write(&command, &folder)?;
        say(format!("written to {}", folder.display()));
        Ok(())
    }
}

/// Writes the page of a command and those of its verbs.
fn write(command: &Command, folder: &Path) -> Result<()> {
    let (name, text) = page(command.clone())?;
    write_file(&folder.join(name), text.as_bytes())?;
    let mut verbs = command.get_subcommands();
    verbs.try_for_each(|verb| write(verb, folder))
}

/// The name of a page's file, and its text.
fn page(command: Command) -> Result<(String, String)> {
    let man = clap_mangen::Man::new(command);
    let mut text = vec![];
    man.render(&mut text).map_err(|e| Error::Invalid {
        what: "manual page".into(),
        why: e.to_string(),
    })?;
    let text = String::from_utf8_lossy(&text);
    Ok((man.get_filename(), by_own_name(&text).into_owned()))
}
