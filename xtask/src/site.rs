//! The Python in which the package is tested and developed: `target/python`, with torch and nasfw in sight.
//!
//! torch is the libtorch that Rust is built with, seen through links: torch's libraries look for others relative to where
//! they are found, and so they find the [stand-ins](crate::stand_ins) for CUDA here, and programs in Rust never do.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::failure::Failure;
use crate::libtorch::{Home, VERSION};
use crate::python;
use crate::setup::Libtorch;
use crate::stand_ins;
use crate::workspace::{Workspace, become_it, cannot_run, exit_code};

/// What cargo is asked for to have the module: with the features that everything has in `cargo test --workspace`, so that
/// nothing is built a second time (naming examples takes those of the tests).
pub const BUILD: [&str; 5] = ["build", "--workspace", "--lib", "--bins", "--examples"];

/// The module as cargo leaves it, and as Python looks for it.
const BUILT: &str = "lib_nasfw.so";
const MODULE: &str = "_nasfw.abi3.so";

/// The environment `target/python`.
pub struct Site {
    venv: PathBuf,
}

impl Site {
    /// Where the environment of this workspace is, or will be.
    pub fn of(workspace: &Workspace) -> Self {
        Site {
            venv: workspace.root.join("target").join(python::TESTS.folder),
        }
    }

    /// Its interpreter.
    pub fn python(&self) -> PathBuf {
        self.venv.join("bin/python")
    }

    /// The folder from which torch and nasfw are imported.
    fn packages(&self) -> PathBuf {
        self.venv.join("site")
    }

    /// Makes sure that Python, its packages and torch are there; tries `import torch` once.
    pub fn ensure(&self, workspace: &Workspace, libtorch: &Libtorch) -> Result<(), Failure> {
        let torch = &libtorch.torch;
        if !torch.join("__init__.py").is_file() {
            return Err(Failure::new(
                format!("the libtorch in {} is no Python package", torch.display()),
                "type `unset LIBTORCH` to have one installed, or point it to the folder `torch` of a Python that has \
                 torch 2.13.0",
            ));
        }
        // torch is compiled for one version of Python: the one whose pip fetched it.
        let home = Home::new(workspace.root.join("target/libtorch"));
        let python = match &libtorch.form {
            Some(_) if home.python().exists() => home.python().into_os_string(),
            _ => python::interpreter(),
        };
        if !python::TESTS.ensure_with(&workspace.root.join("target"), &python) {
            return Err(Failure::new(
                format!("{} could not be filled", self.venv.display()),
                "check the network, and that Python has venv (apt-get install python3-venv)",
            ));
        }
        let stamp = self.venv.join("linked");
        let wanted = libtorch.to_string();
        if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
            return Ok(());
        }
        self.link_torch(torch)?;
        let missing = stand_ins::missing(&self.packages().join("torch/lib"))?;
        let compiler = std::env::var_os("CXX").filter(|cxx| !cxx.is_empty());
        let compiler = compiler.or(libtorch.cxx.clone());
        let compiler = compiler.as_deref().unwrap_or(OsStr::new("c++"));
        stand_ins::make(&self.packages().join("torch/lib"), &missing, compiler)?;
        self.name_folders(torch)?;
        self.try_torch()?;
        fs::write(&stamp, wanted).map_err(|e| Failure::io("write", &stamp, &e))
    }

    /// A folder `torch` of links, whose `lib` is a folder of links too: what torch's libraries find from their own places is
    /// then found here.
    fn link_torch(&self, torch: &Path) -> Result<(), Failure> {
        let packages = self.packages();
        if packages.join("torch").exists() {
            let old = packages.join("torch");
            fs::remove_dir_all(&old).map_err(|e| Failure::io("remove", &old, &e))?;
        }
        mirror(
            &packages.join("torch"),
            &entries(torch, |name| name != "lib")?,
        )?;
        mirror(
            &packages.join("torch/lib"),
            &entries(&torch.join("lib"), |_| true)?,
        )?;
        let nvidia = torch.with_file_name("nvidia");
        let link = packages.join("nvidia");
        if nvidia.exists() {
            replace_link(&nvidia, &link)
        } else {
            remove_link(&link)
        }
    }

    /// Puts the folder of links on Python's path, and behind it the one that torch lies in, for its metadata and whatever
    /// else was installed there.
    fn name_folders(&self, torch: &Path) -> Result<(), Failure> {
        let folder = torch.parent().unwrap_or(torch);
        let names = format!("{}\n{}\n", self.packages().display(), folder.display());
        let libraries = self.venv.join("lib");
        let pythons = fs::read_dir(&libraries).map_err(|e| Failure::io("read", &libraries, &e))?;
        for python in pythons.flatten() {
            let site = python.path().join("site-packages");
            if site.is_dir() {
                let path = site.join("nasfw-development.pth");
                fs::write(&path, &names).map_err(|e| Failure::io("write", &path, &e))?;
            }
        }
        Ok(())
    }

    fn try_torch(&self) -> Result<(), Failure> {
        let python = self.python();
        let output = Command::new(&python)
            .args([
                "-W",
                "ignore",
                "-c",
                "import torch; print(torch.__version__)",
            ])
            .output()
            .map_err(|e| cannot_run(python.as_os_str(), &e))?;
        let found = String::from_utf8_lossy(&output.stdout);
        if output.status.success() && found.trim().split('+').next() == Some(VERSION) {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&output.stderr);
        let last = words.lines().next_back().unwrap_or_default();
        Err(Failure::new(
            format!("`import torch` in {}: {found}{last}", python.display()),
            "the Python that torch was installed with has to be the one that is used: `rm -r target/python`, \
             then type the same command again",
        ))
    }

    /// Puts nasfw beside torch: links to the package's files, and to the module that cargo built into `programs`.
    pub fn link_nasfw(&self, workspace: &Workspace, programs: &Path) -> Result<(), Failure> {
        let built = programs.join(BUILT);
        if !built.is_file() {
            return Err(Failure::new(
                format!("cargo left no {}", built.display()),
                "type `cargo xtask test`, which builds it",
            ));
        }
        let sources = workspace.root.join("python/nasfw");
        let is_source = |name: &str| name != "__pycache__" && !name.ends_with(".so");
        let mut links = entries(&sources, is_source)?;
        links.insert(MODULE.into(), built);
        mirror(&self.packages().join("nasfw"), &links)
    }
}

/// `cargo xtask python`: becomes the Python that sees this checkout's nasfw.
pub fn python(
    workspace: &Workspace,
    libtorch: &Libtorch,
    args: Vec<OsString>,
) -> Result<ExitCode, Failure> {
    let site = Site::of(workspace);
    site.ensure(workspace, libtorch)?;
    let mut cargo = workspace.cargo(libtorch)?;
    cargo.current_dir(&workspace.root).args(BUILD);
    let programs = programs()?;
    if programs.join(BUILT).is_file() {
        cargo.arg("--quiet");
    }
    // What Python prints is its own.
    cargo.stdout(std::io::stderr());
    let status = cargo.status();
    let status = status.map_err(|error| cannot_run(cargo.get_program(), &error))?;
    if !status.success() {
        return Ok(exit_code(status));
    }
    site.link_nasfw(workspace, &programs)?;
    let mut python = Command::new(site.python());
    python.args(args);
    become_it(python)
}

/// The folder into which cargo puts what it builds: this program's own.
pub fn programs() -> Result<PathBuf, Failure> {
    let itself = std::env::current_exe();
    let folder = itself.as_deref().ok().and_then(Path::parent);
    folder.map(Path::to_path_buf).ok_or_else(|| {
        Failure::new(
            "the folder of this program is not known",
            "run it as `cargo xtask` inside a checkout of nasfw",
        )
    })
}

/// The entries of a folder whose names are wanted.
fn entries(
    folder: &Path,
    wanted: impl Fn(&str) -> bool,
) -> Result<BTreeMap<OsString, PathBuf>, Failure> {
    let failed = |e| Failure::io("read", folder, &e);
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if wanted(&name.to_string_lossy()) {
            let path = folder.join(&name);
            found.insert(name, path);
        }
    }
    Ok(found)
}

/// Makes `folder` hold these links, and no others; what is no link stays.
fn mirror(folder: &Path, links: &BTreeMap<OsString, PathBuf>) -> Result<(), Failure> {
    fs::create_dir_all(folder).map_err(|e| Failure::io("create", folder, &e))?;
    for (name, path) in entries(folder, |_| true)? {
        if !links.contains_key(&name) {
            remove_link(&path)?;
        }
    }
    links
        .iter()
        .try_for_each(|(name, to)| replace_link(to, &folder.join(name)))
}

fn replace_link(to: &Path, link: &Path) -> Result<(), Failure> {
    if fs::read_link(link).is_ok_and(|there| there == to) {
        return Ok(());
    }
    remove_link(link)?;
    symlink(to, link).map_err(|e| Failure::io("link", link, &e))
}

fn remove_link(link: &Path) -> Result<(), Failure> {
    match link.is_symlink() {
        true => fs::remove_file(link).map_err(|e| Failure::io("remove", link, &e)),
        false => Ok(()),
    }
}

#[cfg(unix)]
fn symlink(to: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(to, link)
}

#[cfg(not(unix))]
fn symlink(_to: &Path, _link: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use tempfile::TempDir;

    /// A checkout with a package of these files, and a folder of built programs.
    fn checkout(files: &[&str]) -> (TempDir, Workspace, PathBuf) {
        let dir = TempDir::new().unwrap();
        let (sources, programs) = (dir.path().join("python/nasfw"), dir.path().join("debug"));
        fs::create_dir_all(sources.join("__pycache__")).unwrap();
        fs::create_dir(&programs).unwrap();
        for file in files {
            fs::write(sources.join(file), file).unwrap();
        }
        let workspace = Workspace {
            root: dir.path().into(),
        };
        (dir, workspace, programs)
    }

    #[test]
    fn the_package_is_linked_with_the_module_and_follows_the_sources() {
        let (dir, workspace, programs) = checkout(&["__init__.py", "old.py", "_nasfw.stale.so"]);
        let site = Site::of(&workspace);
        let failure = site.link_nasfw(&workspace, &programs).unwrap_err();
        assert!(
            failure.to_string().contains("cargo xtask test"),
            "{failure}"
        );
        fs::write(programs.join(BUILT), "module").unwrap();
        site.link_nasfw(&workspace, &programs).unwrap();
        let package = dir.path().join("target/python/site/nasfw");
        let names = || {
            let found = entries(&package, |_| true).unwrap();
            let names: Vec<String> = found.keys().map(|n| n.to_string_lossy().into()).collect();
            names.join(" ")
        };
        assert_eq!(names(), "__init__.py _nasfw.abi3.so old.py");
        assert_eq!(fs::read_to_string(package.join(MODULE)).unwrap(), "module");

        let sources = dir.path().join("python/nasfw");
        fs::remove_file(sources.join("old.py")).unwrap();
        fs::write(sources.join("new.py"), "new").unwrap();
        fs::create_dir(package.join("__pycache__")).unwrap();
        site.link_nasfw(&workspace, &programs).unwrap();
        assert_eq!(names(), "__init__.py __pycache__ _nasfw.abi3.so new.py");
    }

    #[test]
    fn torch_is_seen_from_a_folder_of_its_own() {
        let (dir, workspace, _programs) = checkout(&[]);
        let torch = dir.path().join("packages/torch");
        fs::create_dir_all(torch.join("lib")).unwrap();
        fs::create_dir_all(dir.path().join("packages/nvidia")).unwrap();
        fs::write(torch.join("__init__.py"), "").unwrap();
        fs::write(torch.join("lib/libtorch.so"), "").unwrap();
        let site = Site::of(&workspace);
        site.link_torch(&torch).unwrap();
        let seen = site.packages().join("torch");
        // A link to the folder would let libraries look for others where the true ones lie.
        assert!(!seen.is_symlink() && !seen.join("lib").is_symlink());
        assert_eq!(
            fs::read_link(seen.join("__init__.py")).unwrap(),
            torch.join("__init__.py")
        );
        assert!(seen.join("lib/libtorch.so").is_symlink());
        assert!(site.packages().join("nvidia").is_symlink());

        // What was made for another libtorch goes.
        fs::write(seen.join("lib/libcudnn.so.9"), "a stand-in").unwrap();
        fs::remove_dir(dir.path().join("packages/nvidia")).unwrap();
        site.link_torch(&torch).unwrap();
        assert!(!seen.join("lib/libcudnn.so.9").exists());
        assert!(!site.packages().join("nvidia").is_symlink());
    }

    #[test]
    fn a_libtorch_that_is_no_python_package_is_refused() {
        let (dir, workspace, _programs) = checkout(&[]);
        let libtorch = Libtorch {
            torch: dir.path().join("libtorch"),
            form: None,
            cxx: None,
        };
        let failure = Site::of(&workspace)
            .ensure(&workspace, &libtorch)
            .unwrap_err();
        assert!(failure.message.contains("no Python package"), "{failure}");
        assert!(failure.help.contains("unset LIBTORCH"), "{failure}");
    }
}
