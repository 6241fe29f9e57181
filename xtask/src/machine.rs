//! What a bare machine must offer: Linux, a C++ compiler, Python with venv, disk space.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;

use crate::driver::find_program;
use crate::failure::Failure;
use crate::libtorch::VERSION;

/// Refuses machines for which PyPI has no libtorch with the files that are needed.
pub fn check_platform(os: &str, arch: &str) -> Result<(), Failure> {
    if os == "linux" && matches!(arch, "x86_64" | "aarch64") {
        return Ok(());
    }
    Err(Failure::new(
        format!("libtorch can be installed on Linux x86_64 and aarch64 only, this is {os} {arch}"),
        format!(
            "install libtorch {VERSION} by hand (for example `pip install torch=={VERSION}`) and point to it:\n\
             export LIBTORCH=$(python3 -c 'import os, torch; print(os.path.dirname(torch.__file__))')\n\
             then type the same command again"
        ),
    ))
}

/// The C++ compiler that torch-sys will be compiled with: `CXX` if set, else the first of `c++`,
/// `g++`, `clang++` on `path`. Returns the name to put into `CXX` when it is not the default.
pub fn find_compiler(cxx: Option<OsString>, path: &OsStr) -> Result<Option<OsString>, Failure> {
    if cxx.is_some_and(|cxx| !cxx.is_empty()) || find_program("c++", path).is_some() {
        return Ok(None);
    }
    let other = ["g++", "clang++"]
        .into_iter()
        .find(|name| find_program(name, path).is_some());
    match other {
        Some(name) => Ok(Some(name.into())),
        None => Err(Failure::new(
            "no C++ compiler found: neither c++, g++ nor clang++ is on the PATH",
            "install one, then type the same command again\n\
             Debian, Ubuntu: apt-get install g++\n\
             Fedora: dnf install gcc-c++",
        )),
    }
}

/// Checks that `python` runs and can make a virtual environment with pip.
pub fn check_python(python: &OsStr) -> Result<(), Failure> {
    let name = python.display();
    let check = "import sys, venv, ensurepip; sys.exit(0 if sys.version_info >= (3, 10) else 3)";
    let output = Command::new(python).args(["-c", check]).output().map_err(|error| {
        Failure::new(
            format!("cannot run `{name}`: {error}"),
            "Python 3.10 or newer fetches libtorch; install it, then type the same command again\n\
             Debian, Ubuntu: apt-get install python3-venv\n\
             Fedora: dnf install python3\n\
             a Python elsewhere: export NASFW_PYTHON=/path/to/python3",
        )
    })?;
    if output.status.success() {
        return Ok(());
    }
    if output.status.code() == Some(3) {
        return Err(Failure::new(
            format!("`{name}` is older than Python 3.10, for which libtorch {VERSION} is made"),
            "point to a newer one: export NASFW_PYTHON=/path/to/python3.12",
        ));
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let reason = words
        .lines()
        .next_back()
        .unwrap_or("no reason given")
        .trim();
    Err(Failure::new(
        format!("`{name}` cannot make virtual environments: {reason}"),
        "install Python's venv and ensurepip, then type the same command again\n\
         Debian, Ubuntu: apt-get install python3-venv\n\
         a Python elsewhere: export NASFW_PYTHON=/path/to/python3",
    ))
}

/// Checks that the file system of `folder` has `needed` bytes left. Where `df` can't tell, pip
/// will.
pub fn check_space(folder: &Path, needed: u64) -> Result<(), Failure> {
    let Ok(output) = Command::new("df").arg("-Pk").arg(folder).output() else {
        return Ok(());
    };
    match available_bytes(&String::from_utf8_lossy(&output.stdout)) {
        Some(free) if free < needed => Err(Failure::new(
            format!(
                "not enough disk space in {}: {:.1} GB free, {:.1} GB needed",
                folder.display(),
                free as f64 / 1e9,
                needed as f64 / 1e9
            ),
            "free some, then type the same command again; `cargo xtask setup --into DIR` \
             installs elsewhere, then `export LIBTORCH=DIR/site-packages/torch`",
        )),
        _ => Ok(()),
    }
}

/// The fourth column of `df -Pk` in bytes.
fn available_bytes(df: &str) -> Option<u64> {
    let row = df.lines().nth(1)?;
    // The device's name may hold blanks, so count from the right: ... available, capacity, mount
    // point.
    let capacity = row.find("% ")?;
    let columns: Vec<&str> = row[..capacity].split_whitespace().collect();
    let kilobytes: u64 = columns.get(columns.len().checked_sub(2)?)?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn other_platforms_are_told_how_to_go_on() {
        assert!(check_platform("linux", "x86_64").is_ok());
        assert!(check_platform("linux", "aarch64").is_ok());
        for (os, arch) in [
            ("macos", "aarch64"),
            ("linux", "riscv64"),
            ("windows", "x86_64"),
        ] {
            let failure = check_platform(os, arch).unwrap_err().to_string();
            assert!(failure.contains(os) && failure.contains(arch), "{failure}");
            assert!(failure.contains("LIBTORCH="), "{failure}");
        }
    }

    #[test]
    fn the_compiler_is_looked_for_by_its_usual_names() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().as_os_str();
        let failure = find_compiler(None, path).unwrap_err().to_string();
        assert!(failure.contains("apt-get install g++"), "{failure}");
        assert_eq!(find_compiler(Some("mine".into()), path).unwrap(), None);
        std::fs::write(dir.path().join("clang++"), "").unwrap();
        assert_eq!(find_compiler(None, path).unwrap(), Some("clang++".into()));
        std::fs::write(dir.path().join("g++"), "").unwrap();
        assert_eq!(
            find_compiler(Some("".into()), path).unwrap(),
            Some("g++".into())
        );
        std::fs::write(dir.path().join("c++"), "").unwrap();
        assert_eq!(find_compiler(None, path).unwrap(), None);
    }

    #[test]
    fn a_missing_python_says_what_to_install() {
        let failure = check_python(OsStr::new("/nowhere/python3"))
            .unwrap_err()
            .to_string();
        assert!(failure.contains("/nowhere/python3"), "{failure}");
        assert!(
            failure.contains("apt-get install python3-venv"),
            "{failure}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_python_without_ensurepip_or_too_old_is_refused() {
        let dir = TempDir::new().unwrap();
        let python = dir.path().join("python3");
        let refused = |script: &str| {
            crate::testing::put_script(&python, script);
            check_python(python.as_os_str()).unwrap_err().to_string()
        };
        let missing =
            "#!/bin/sh\necho \"ModuleNotFoundError: No module named 'ensurepip'\" >&2; exit 1\n";
        let failure = refused(missing);
        assert!(failure.contains("No module named 'ensurepip'"), "{failure}");
        assert!(failure.contains("python3-venv"), "{failure}");
        let failure = refused("#!/bin/sh\nexit 3\n");
        assert!(failure.contains("older than Python 3.10"), "{failure}");
    }

    #[test]
    fn free_space_is_read_from_df() {
        let head = "Filesystem 1024-blocks Used Available Capacity Mounted on\n";
        let free = |row: &str| available_bytes(&format!("{head}{row}\n"));
        assert_eq!(free("/dev/vda 100 60 40 60% /"), Some(40 * 1024));
        assert_eq!(free("my share 100 60 40 60% /mnt/a b"), Some(40 * 1024));
        assert_eq!(free("- - - - - /proc"), None);
        assert_eq!(available_bytes(""), None);
        let failure = check_space(Path::new("/"), u64::MAX)
            .unwrap_err()
            .to_string();
        assert!(failure.contains("not enough disk space"), "{failure}");
        assert!(check_space(Path::new("/"), 1).is_ok());
    }
}
