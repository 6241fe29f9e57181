//! The project's folder, and cargo run inside it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use crate::failure::Failure;
use crate::setup::Libtorch;

/// Where the system's loader looks for libraries first.
const LIBRARY_PATH: &str = if cfg!(target_os = "macos") {
    "DYLD_LIBRARY_PATH"
} else if cfg!(windows) {
    "PATH"
} else {
    "LD_LIBRARY_PATH"
};

/// The checkout of nasfw that this xtask belongs to.
#[derive(Clone)]
pub struct Workspace {
    pub root: PathBuf,
}

impl Workspace {
    /// Cargo tells the program that it runs where its package lies, even after the checkout was
    /// moved.
    pub fn find() -> Result<Self, Failure> {
        let package =
            env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        match Path::new(&package).parent() {
            Some(root) if root.join("Cargo.toml").is_file() => Ok(Workspace { root: root.into() }),
            _ => Err(Failure::new(
                format!("no nasfw around {}", package.display()),
                "run it as `cargo xtask` inside a checkout of nasfw",
            )),
        }
    }

    /// Cargo with the environment in which everything finds libtorch, in the caller's own folder.
    pub fn cargo(&self, libtorch: &Libtorch) -> Result<Command, Failure> {
        let cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        self.building(cargo, libtorch)
    }

    /// A program that calls cargo, with the same environment.
    pub fn building(&self, mut cargo: Command, libtorch: &Libtorch) -> Result<Command, Failure> {
        // What cargo says of this program would be taken for a change by build scripts that look at it (ring's does), and
        // half of everything would be built again whenever cargo is called directly.
        for name in of_package(env::vars_os().map(|(name, _)| name)) {
            cargo.env_remove(name);
        }
        // The private libtorch is named by .cargo/config.toml; a second spelling of the same path
        // would make Cargo compile torch-sys again whenever it is called directly.
        if libtorch.form.is_none() {
            cargo.env("LIBTORCH", &libtorch.torch);
        }
        // The programs' own rpath leads from target/ to target/libtorch, not from elsewhere
        // (CARGO_TARGET_DIR, doctests, a libtorch of the user's).
        let (name, path) = library_path(&libtorch.torch)?;
        cargo.env(name, path);
        if let Some(cxx) = &libtorch.cxx {
            cargo.env("CXX", cxx);
        }
        Ok(cargo)
    }

    /// Builds nasfw and becomes it: same process, so exit code and signals are its own.
    pub fn run_nasfw(&self, libtorch: &Libtorch, args: Vec<OsString>) -> Result<ExitCode, Failure> {
        let mut cargo = self.cargo(libtorch)?;
        cargo.arg("run");
        if self.is_built() {
            cargo.arg("--quiet");
        } else {
            eprintln!("building nasfw; the first time takes some minutes");
        }
        cargo
            .arg("--manifest-path")
            .arg(self.root.join("Cargo.toml"));
        cargo
            .args(["--package", "nasfw", "--bin", "nasfw", "--"])
            .args(args);
        become_it(cargo)
    }

    /// Whether a nasfw lies beside this xtask, which Cargo put into the same folder.
    fn is_built(&self) -> bool {
        let name = format!("nasfw{}", env::consts::EXE_SUFFIX);
        env::current_exe().is_ok_and(|xtask| xtask.with_file_name(name).is_file())
    }
}

/// The variable that tells the loader where libraries lie, and its value with this libtorch first.
pub fn library_path(torch: &Path) -> Result<(&'static str, OsString), Failure> {
    let path = prepended(&torch.join("lib"), env::var_os(LIBRARY_PATH))?;
    Ok((LIBRARY_PATH, path))
}

fn prepended(first: &Path, rest: Option<OsString>) -> Result<OsString, Failure> {
    let rest = rest.unwrap_or_default();
    let folders = env::split_paths(&rest).filter(|folder| !folder.as_os_str().is_empty());
    env::join_paths(std::iter::once(first.to_path_buf()).chain(folders)).map_err(|_| {
        Failure::new(
            format!("the loader cannot be given the folder {}", first.display()),
            "move nasfw to a folder whose path has no colon",
        )
    })
}

/// Becomes the program: same process, so that exit code and signals are its own.
#[cfg(unix)]
pub fn become_it(mut command: Command) -> Result<ExitCode, Failure> {
    use std::os::unix::process::CommandExt;
    let error = command.exec();
    Err(cannot_run(command.get_program(), &error))
}

/// Runs the program, with its exit code.
#[cfg(not(unix))]
pub fn become_it(mut command: Command) -> Result<ExitCode, Failure> {
    let status = command.status();
    status
        .map(exit_code)
        .map_err(|error| cannot_run(command.get_program(), &error))
}

/// The error of a program that could not be started.
pub fn cannot_run(program: &OsStr, error: &std::io::Error) -> Failure {
    Failure::new(
        format!("cannot run {}: {error}", program.display()),
        "check your Rust installation",
    )
}

/// The exit code of a finished child, or as shells do 128 + n where signal n ended it.
pub fn exit_code(status: ExitStatus) -> ExitCode {
    #[cfg(unix)]
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    #[cfg(not(unix))]
    let signal: Option<i32> = None;
    let code = status
        .code()
        .or(signal.map(|signal| 128 + signal))
        .unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// The variables by which Cargo tells a program that it runs of that program's package.
fn of_package(names: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    names.filter(|name| {
        let name = name.to_string_lossy();
        name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "OUT_DIR"
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn libtorch(form: Option<crate::libtorch::Form>) -> Libtorch {
        Libtorch {
            torch: "/opt/torch".into(),
            form,
            cxx: Some("clang++".into()),
        }
    }

    fn variable(command: &Command, name: &str) -> Option<OsString> {
        command
            .get_envs()
            .find(|(key, _)| *key == name)
            .and_then(|(_, value)| value)
            .map(Into::into)
    }

    #[test]
    fn cargo_does_not_hear_of_this_package() {
        let workspace = Workspace::find().unwrap();
        let cargo = workspace.cargo(&libtorch(None)).unwrap();
        let removed: Vec<_> = (cargo.get_envs())
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| name)
            .collect();
        // As in every test that cargo runs.
        for name in [
            "CARGO_PKG_NAME",
            "CARGO_MANIFEST_DIR",
            "CARGO_PKG_VERSION_MAJOR",
        ] {
            assert!(env::var_os(name).is_some(), "{name}");
            assert!(removed.contains(&OsStr::new(name)), "{name}");
        }
        let kept = [
            "CARGO_HOME",
            "CARGO_INCREMENTAL",
            "CARGO_TARGET_DIR",
            "PATH",
        ];
        assert_eq!(of_package(kept.iter().map(OsString::from)).count(), 0);
    }

    #[test]
    fn cargo_finds_the_user_s_libtorch_and_compiler() {
        let workspace = Workspace::find().unwrap();
        let cargo = workspace.cargo(&libtorch(None)).unwrap();
        assert_eq!(variable(&cargo, "LIBTORCH"), Some("/opt/torch".into()));
        assert_eq!(variable(&cargo, "CXX"), Some("clang++".into()));
        let libraries = variable(&cargo, LIBRARY_PATH).unwrap();
        assert_eq!(
            env::split_paths(&libraries).next(),
            Some("/opt/torch/lib".into())
        );
    }

    #[test]
    fn the_private_libtorch_is_left_to_cargo_s_configuration() {
        let workspace = Workspace::find().unwrap();
        let cargo = workspace
            .cargo(&libtorch(Some(crate::libtorch::Form::Lean)))
            .unwrap();
        assert_eq!(variable(&cargo, "LIBTORCH"), None);
        let config = std::fs::read_to_string(workspace.root.join(".cargo/config.toml")).unwrap();
        assert!(config.contains("LIBTORCH = { value = \"target/libtorch/site-packages/torch\""));
    }

    #[test]
    fn the_library_path_keeps_what_was_there_but_no_empty_entry() {
        let path = |rest: &str| prepended(Path::new("/t/lib"), Some(rest.into())).unwrap();
        assert_eq!(prepended(Path::new("/t/lib"), None).unwrap(), "/t/lib");
        assert_eq!(path("/a:/b"), "/t/lib:/a:/b");
        assert_eq!(path(":/a:"), "/t/lib:/a");
        assert!(prepended(Path::new("/a:b"), None).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn exit_codes_and_signals_pass_through() {
        let status = |script: &str| Command::new("sh").args(["-c", script]).status().unwrap();
        assert_eq!(exit_code(status("exit 0")), ExitCode::SUCCESS);
        assert_eq!(exit_code(status("exit 101")), ExitCode::from(101));
        assert_eq!(exit_code(status("kill -TERM $$")), ExitCode::from(143));
    }
}
