//! The private libtorch: installed from PyPI's wheel into a folder of its own, whole or not at all.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::Failure;
use crate::machine;

/// The version that tch 0.26 is made for.
pub const VERSION: &str = "2.13.0";

const PIP_HELP: &str = "\
check the network and the disk, then type the same command again: pip keeps what it has downloaded
a mirror of PyPI: export PIP_INDEX_URL=URL
`No matching distribution`: Python 3.10 or newer on glibc is needed, export NASFW_PYTHON=/path/to/python3.12";

/// Which parts of the wheel's dependencies are installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The wheel and the two NVIDIA libraries that `libtorch_cpu.so` itself needs: enough without a
    /// GPU.
    Lean,
    /// The wheel with all its dependencies: CUDA works.
    Full,
    /// The full one with what PyTorch programs need besides, for `cargo xtask peer` alone.
    Python,
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Form::Lean => "lean",
            Form::Full => "full",
            Form::Python => "python",
        }
    }

    fn pip_arguments(self) -> &'static [&'static str] {
        match self {
            // The versions that the wheel's own metadata pins through cuda-toolkit 13.0.3.
            Form::Lean => &[
                "--no-deps",
                "torch==2.13.0",
                "nvidia-cuda-runtime==13.0.96",
                "nvidia-cuda-cupti==13.0.85",
            ],
            Form::Full => &["torch==2.13.0"],
            Form::Python => &["torch==2.13.0", "numpy", "safetensors"],
        }
    }

    /// Free bytes needed on the way: the installed files and the downloaded wheels beside them.
    fn space(self) -> u64 {
        match self {
            Form::Lean => 2_500_000_000,
            Form::Full | Form::Python => 9_000_000_000,
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What has to be installed (`None`: nothing), given what is there, what was asked for, and whether
/// there is a driver. The full form serves a machine without a driver too, so it is replaced only
/// on request.
pub fn plan(installed: Option<Form>, asked: Option<Form>, driver: bool) -> Option<Form> {
    let wanted = asked.unwrap_or(if driver { Form::Full } else { Form::Lean });
    match installed {
        Some(form) if form == wanted => None,
        Some(Form::Full) if asked.is_none() => None,
        _ => Some(wanted),
    }
}

/// The folder that holds the private libtorch: `site-packages`, the `venv` whose pip filled it, and
/// the stamp.
pub struct Home {
    dir: PathBuf,
}

impl Home {
    pub fn new(dir: PathBuf) -> Self {
        Home { dir }
    }

    /// The folder to give as `LIBTORCH`.
    pub fn torch(&self) -> PathBuf {
        self.packages().join("torch")
    }

    fn stamp(&self) -> PathBuf {
        self.dir.join("installed")
    }

    /// The Python whose pip filled `site-packages`.
    pub fn python(&self) -> PathBuf {
        self.dir.join("venv/bin/python")
    }

    /// The installed packages.
    pub fn packages(&self) -> PathBuf {
        self.dir.join("site-packages")
    }

    /// The form that is completely installed in the right version, if any.
    pub fn installed(&self) -> Option<Form> {
        let stamp = fs::read_to_string(self.stamp()).ok()?;
        let form = [Form::Lean, Form::Full, Form::Python]
            .into_iter()
            .find(|form| stamp == stamp_text(*form))?;
        is_libtorch(&self.torch()).then_some(form)
    }

    /// Holds off every other process that would install into this folder, for as long as the
    /// file is open.
    pub fn lock(&self) -> Result<File, Failure> {
        fs::create_dir_all(&self.dir).map_err(|e| Failure::io("create", &self.dir, &e))?;
        let path = self.dir.join("lock");
        let lock = File::create(&path).map_err(|e| Failure::io("create", &path, &e))?;
        if lock.try_lock().is_err() {
            eprintln!("waiting for another process that is installing libtorch");
            lock.lock().map_err(|e| Failure::io("lock", &path, &e))?;
        }
        Ok(lock)
    }

    /// Installs `form` with the pip of a fresh virtual environment of `python`. Everything goes
    /// into a temporary folder that is then renamed, and the stamp is written last: an interrupted
    /// installation is simply done again. The caller holds the [`lock`](Self::lock).
    pub fn install(&self, form: Form, python: &OsString) -> Result<(), Failure> {
        machine::check_python(python)?;
        let partial = self.dir.join("partial");
        remove(&partial)?;
        machine::check_space(&self.dir, form.space())?;

        let venv = self.dir.join("venv");
        let mut make = Command::new(python);
        make.args(["-m", "venv", "--clear"]).arg(&venv);
        let help = "install Python's venv: apt-get install python3-venv";
        run(make, "make a Python virtual environment", help)?;

        let packages = partial.join("site-packages");
        let temporary = partial.join("tmp");
        fs::create_dir_all(&temporary).map_err(|e| Failure::io("create", &temporary, &e))?;
        let mut pip = Command::new(self.python());
        pip.args(["-m", "pip", "--no-input", "install", "--target"]);
        pip.arg(&packages).args(form.pip_arguments());
        // Wheels of gigabytes don't fit every /tmp, and a user's own pip settings must not redirect
        // the packages.
        pip.env("TMPDIR", &temporary);
        pip.env("PIP_USER", "0").env_remove("PIP_TARGET");
        let what = "install libtorch with pip (its own words stand above)";
        run(pip, what, PIP_HELP)?;
        if !is_libtorch(&packages.join("torch")) {
            return Err(Failure::new(
                format!(
                    "pip left no lib/libtorch_cpu.so in {}",
                    packages.join("torch").display()
                ),
                "type the same command again",
            ));
        }
        self.put_in_place(form, &partial, &packages)
    }

    fn put_in_place(&self, form: Form, partial: &Path, packages: &Path) -> Result<(), Failure> {
        let place = self.packages();
        remove(&self.stamp())?;
        if place.exists() {
            rename(&place, &partial.join("replaced"))?;
        }
        rename(packages, &place)?;
        let stamp = partial.join("stamp");
        fs::write(&stamp, stamp_text(form)).map_err(|e| Failure::io("write", &stamp, &e))?;
        rename(&stamp, &self.stamp())?;
        remove(partial)
    }
}

/// Whether `torch` looks like a libtorch.
pub fn is_libtorch(torch: &Path) -> bool {
    let names = ["libtorch_cpu.so", "libtorch_cpu.dylib", "torch_cpu.dll"];
    names
        .iter()
        .any(|name| torch.join("lib").join(name).is_file())
}

fn stamp_text(form: Form) -> String {
    format!("libtorch {VERSION} {form}\n")
}

fn rename(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::rename(from, to).map_err(|e| Failure::io("rename", from, &e))
}

fn remove(path: &Path) -> Result<(), Failure> {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::io("remove", path, &error))
        }
        _ => Ok(()),
    }
}

/// Runs a command whose words all go to stderr: stdout belongs to nasfw.
fn run(mut command: Command, what: &str, help: &str) -> Result<(), Failure> {
    let status = command
        .stdin(Stdio::null())
        .stdout(io::stderr())
        .status()
        .map_err(|e| Failure::new(format!("could not {what}: {e}"), help))?;
    match status.success() {
        true => Ok(()),
        false => Err(Failure::new(format!("could not {what}: {status}"), help)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_plan_follows_wish_driver_and_what_is_there() {
        use Form::{Full, Lean};
        let table = [
            // installed, asked, driver, to install
            (None, None, false, Some(Lean)),
            (None, None, true, Some(Full)),
            (None, Some(Lean), true, Some(Lean)),
            (None, Some(Full), false, Some(Full)),
            (Some(Lean), None, false, None),
            (Some(Lean), None, true, Some(Full)),
            (Some(Lean), Some(Lean), true, None),
            (Some(Lean), Some(Full), false, Some(Full)),
            (Some(Full), None, false, None),
            (Some(Full), None, true, None),
            (Some(Full), Some(Lean), false, Some(Lean)),
            (Some(Full), Some(Full), true, None),
        ];
        for (installed, asked, driver, expected) in table {
            let planned = plan(installed, asked, driver);
            assert_eq!(planned, expected, "{installed:?} {asked:?} {driver}");
        }
    }

    #[test]
    fn pip_is_asked_for_the_version_of_tch() {
        for form in [Form::Lean, Form::Full, Form::Python] {
            let wheel = format!("torch=={VERSION}");
            assert!(form.pip_arguments().contains(&wheel.as_str()));
        }
    }

    #[cfg(unix)]
    mod with_a_fake_python {
        use super::super::*;
        use tempfile::TempDir;

        /// A `python` that makes an environment whose pip writes a libtorch, logs how it was
        /// called, and fails half way while a file called `broken` lies beside it.
        const PYTHON: &str = r#"#!/bin/sh
here=$(dirname "$0")
case "$1 $2" in
"-c import"*) exit 0 ;;
"-m venv") mkdir -p "$4/bin" && cp "$0" "$4/bin/python" && echo "$here" >"$4/bin/origin" ;;
"-m pip")
    origin=$(cat "$here/origin")
    echo "$* (PIP_USER=$PIP_USER TMPDIR=$TMPDIR)" >>"$origin/calls"
    mkdir -p "$6/torch/lib"
    echo "$*" >"$6/torch/how"
    if [ -e "$origin/broken" ]; then exit 1; fi
    echo elf >"$6/torch/lib/libtorch_cpu.so" ;;
*) echo "unexpected: $*" >&2; exit 64 ;;
esac
"#;

        struct Machine {
            dir: TempDir,
            home: Home,
        }

        impl Machine {
            fn new() -> Self {
                let dir = TempDir::new().unwrap();
                let python = dir.path().join("python3");
                crate::testing::put_script(&python, PYTHON);
                let home = Home::new(dir.path().join("libtorch"));
                Machine { dir, home }
            }

            fn install(&self, form: Form) -> Result<(), Failure> {
                let _lock = self.home.lock().unwrap();
                self.home
                    .install(form, &self.dir.path().join("python3").into())
            }

            fn calls(&self) -> String {
                fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default()
            }

            fn broken(&self, broken: bool) {
                let file = self.dir.path().join("broken");
                if broken {
                    fs::write(file, "").unwrap()
                } else {
                    fs::remove_file(file).unwrap()
                }
            }
        }

        #[test]
        fn a_fresh_install_is_stamped_and_leaves_nothing_temporary() {
            let machine = Machine::new();
            assert_eq!(machine.home.installed(), None);
            machine.install(Form::Lean).unwrap();
            assert_eq!(machine.home.installed(), Some(Form::Lean));
            assert!(
                machine
                    .calls()
                    .contains("--no-deps torch==2.13.0 nvidia-cuda-runtime==")
            );
            let mut left: Vec<_> = fs::read_dir(machine.dir.path().join("libtorch"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            left.sort();
            assert_eq!(left, ["installed", "lock", "site-packages", "venv"]);
        }

        #[test]
        fn lean_becomes_full() {
            let machine = Machine::new();
            machine.install(Form::Lean).unwrap();
            machine.install(Form::Full).unwrap();
            assert_eq!(machine.home.installed(), Some(Form::Full));
            let how = fs::read_to_string(machine.home.torch().join("how")).unwrap();
            assert!(
                how.ends_with("torch==2.13.0\n") && !how.contains("--no-deps"),
                "{how}"
            );
        }

        #[test]
        fn a_failed_install_changes_nothing_and_is_redone() {
            let machine = Machine::new();
            machine.broken(true);
            let failure = machine.install(Form::Lean).unwrap_err().to_string();
            assert!(failure.contains("install libtorch with pip"), "{failure}");
            assert!(failure.contains("check the network"), "{failure}");
            assert_eq!(machine.home.installed(), None);
            machine.broken(false);
            machine.install(Form::Lean).unwrap();
            machine.broken(true);
            machine.install(Form::Full).unwrap_err();
            assert_eq!(
                machine.home.installed(),
                Some(Form::Lean),
                "the old one still works"
            );
        }

        #[test]
        fn what_is_half_there_does_not_count() {
            let machine = Machine::new();
            // Killed before the stamp.
            machine.install(Form::Lean).unwrap();
            fs::remove_file(machine.home.stamp()).unwrap();
            assert_eq!(machine.home.installed(), None);
            machine.install(Form::Lean).unwrap();
            // The stamp of another version.
            fs::write(machine.home.stamp(), "libtorch 2.12.0 lean\n").unwrap();
            assert_eq!(machine.home.installed(), None);
            machine.install(Form::Lean).unwrap();
            // The files deleted by hand.
            fs::remove_dir_all(machine.home.torch()).unwrap();
            assert_eq!(machine.home.installed(), None);
            machine.install(Form::Lean).unwrap();
            assert_eq!(machine.home.installed(), Some(Form::Lean));
        }

        #[test]
        fn pip_works_inside_the_folder_whatever_the_user_s_settings() {
            let machine = Machine::new();
            machine.install(Form::Lean).unwrap();
            let partial = machine
                .dir
                .path()
                .join("libtorch/partial")
                .display()
                .to_string();
            let calls = machine.calls();
            assert!(
                calls.contains(&format!("--target {partial}/site-packages ")),
                "{calls}"
            );
            assert!(
                calls.contains(&format!("(PIP_USER=0 TMPDIR={partial}/tmp)")),
                "{calls}"
            );
        }
    }
}
