//! `cargo xtask VERB`: sets nasfw up on a bare machine, runs it and checks it.
//!
//! Plain Rust without libtorch, so that it builds in seconds where nothing else is installed yet. The launcher of a release
//! is made of the same parts.

// A command-line tool talks through stdout and stderr.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod book;
mod cli;
mod dist;
mod driver;
mod elf;
mod embedded_data;
mod failure;
mod fuzz;
mod launcher;
mod libtorch;
mod machine;
mod peer;
mod python;
mod setup;
mod site;
mod skips;
mod stand_ins;
#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used)]
mod testing;
mod verify;
mod wheel;
mod workspace;

use std::process::ExitCode;

use cli::Verb;
use failure::Failure;
use workspace::Workspace;

/// `cargo xtask`: carries out the verb that was typed.
pub fn carry_out() -> ExitCode {
    ended(run)
}

/// The program `nasfw` of a release: finds libtorch, or fetches it once, and becomes the program beside it.
pub fn launch() -> ExitCode {
    ended(launcher::launch)
}

fn ended(carry_out: impl FnOnce() -> Result<ExitCode, Failure>) -> ExitCode {
    // A reader that has gone away (`| head`) ends the program, as it ends others.
    sigpipe::reset();
    carry_out().unwrap_or_else(|failure| {
        eprintln!("{failure}");
        ExitCode::from(failure.code)
    })
}

fn run() -> Result<ExitCode, Failure> {
    let verb = cli::parse(
        std::env::args_os().skip(1),
        std::env::var_os("NASFW_LIBTORCH"),
    )?;
    match verb {
        Verb::Help => {
            print!("{}", cli::HELP);
            Ok(ExitCode::SUCCESS)
        }
        Verb::EmbeddedData { from } => embedded_data::build(&Workspace::find()?, from),
        Verb::Setup(options) => {
            let libtorch = setup::setup(&Workspace::find()?, &options)?;
            eprintln!(
                "{libtorch} is ready: `cargo xtask nasfw run`, `cargo run` and `cargo test` work"
            );
            Ok(ExitCode::SUCCESS)
        }
        Verb::Nasfw { form, args } => {
            let workspace = Workspace::find()?;
            let libtorch = setup::setup(&workspace, &cli::SetupOptions { form, into: None })?;
            workspace.run_nasfw(&libtorch, args)
        }
        Verb::Python { form, args } => {
            let workspace = Workspace::find()?;
            let libtorch = setup::setup(&workspace, &cli::SetupOptions { form, into: None })?;
            site::python(&workspace, &libtorch, args)
        }
        Verb::Wheel { form, out } => {
            let workspace = Workspace::find()?;
            let libtorch = setup::setup(&workspace, &cli::SetupOptions { form, into: None })?;
            wheel::wheel(&workspace, &libtorch, out)
        }
        Verb::Book { form } => {
            let workspace = Workspace::find()?;
            let libtorch = setup::setup(&workspace, &cli::SetupOptions { form, into: None })?;
            book::book(&workspace, &libtorch)
        }
        Verb::Dist { form, out } => {
            let workspace = Workspace::find()?;
            let libtorch = setup::setup(&workspace, &cli::SetupOptions { form, into: None })?;
            dist::dist(&workspace, &libtorch, out)
        }
        Verb::Peer { form, options } => {
            let workspace = Workspace::find()?;
            let libtorch = setup::setup(&workspace, &cli::SetupOptions { form, into: None })?;
            peer::peer(&workspace, &libtorch, &options)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Fuzz { form, options } => {
            let workspace = Workspace::find()?;
            let libtorch = setup::setup(&workspace, &cli::SetupOptions { form, into: None })?;
            fuzz::fuzz(&workspace, &libtorch, options)
        }
        Verb::Test { form, all, args } => {
            let workspace = Workspace::find()?;
            let libtorch = setup::setup(&workspace, &cli::SetupOptions { form, into: None })?;
            verify::verify(&workspace, &libtorch, all, args)
        }
    }
}
