//! TensorBoard's own reader for the tests, in a virtual environment below the target folder. Without a network or Python
//! the test that needs it says that it was skipped.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// What is installed. The reader of version 2 still asks for setuptools' `pkg_resources`.
const PACKAGES: [&str; 2] = ["tensorboard==2.21.0", "setuptools<81"];

/// Installs the reader into `venv` unless it is there; says so when that does not work.
pub fn ensure(venv: &Path) {
    let stamp = venv.join("installed");
    let wanted = PACKAGES.join(" ");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return;
    }
    eprintln!("installing TensorBoard's reader for a test, about 150 MB, once");
    let python = std::env::var_os("NASFW_PYTHON").filter(|python| !python.is_empty());
    let python = python.unwrap_or_else(|| "python3".into());
    let pip = ["-m", "pip", "--no-input", "install", "--quiet"];
    let pip = pip.into_iter().chain([
        "--disable-pip-version-check",
        "--timeout",
        "10",
        "--retries",
        "1",
    ]);
    let install: Vec<OsString> = pip.chain(PACKAGES).map(OsString::from).collect();
    let done = run(
        &python,
        &["-m".into(), "venv".into(), "--clear".into(), venv.into()],
    ) && run(&venv.join("bin/python").into(), &install)
        && fs::write(&stamp, wanted).is_ok();
    if !done {
        eprintln!("it could not be installed; the test that needs it is skipped");
    }
}

fn run(program: &OsString, args: &[OsString]) -> bool {
    let status = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::testing::put_script;

    #[test]
    fn a_program_s_failure_or_absence_is_only_told() {
        let dir = tempfile::TempDir::new().unwrap();
        let script = dir.path().join("python");
        put_script(&script, "#!/bin/sh\nexit \"$1\"\n");
        let program = script.clone().into_os_string();
        assert!(run(&program, &["0".into()]));
        assert!(!run(&program, &["3".into()]));
        assert!(!run(&"/nowhere/python".into(), &[]));
    }
}
