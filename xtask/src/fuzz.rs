//! `cargo xtask fuzz`: the long run of `tests/fuzz`.

use std::process::ExitCode;

use crate::cli::FuzzOptions;
use crate::failure::Failure;
use crate::setup::Libtorch;
use crate::workspace::{Workspace, cannot_run, exit_code};

/// Reads so many inputs with every reader; the test says what came of it.
pub fn fuzz(
    workspace: &Workspace,
    libtorch: &Libtorch,
    options: FuzzOptions,
) -> Result<ExitCode, Failure> {
    let mut cargo = workspace.cargo(libtorch)?;
    cargo.current_dir(&workspace.root);
    // The whole workspace, as the tests are built: with fewer packages, dependencies would be built again with other features.
    cargo.args(["test", "--workspace", "--test", "fuzz"]);
    cargo.args(["--", "many_inputs", "--exact", "--ignored", "--nocapture"]);
    let number = |n: Option<usize>| n.map(|n| n.to_string().into());
    for (name, value) in [
        ("FUZZ_INPUTS", number(options.inputs)),
        ("FUZZ_SEED", number(options.seed)),
        ("FUZZ_READER", options.reader),
    ] {
        if let Some(value) = value {
            cargo.env(name, value);
        }
    }
    let status = cargo.status();
    let status = status.map_err(|error| cannot_run(cargo.get_program(), &error))?;
    Ok(exit_code(status))
}
