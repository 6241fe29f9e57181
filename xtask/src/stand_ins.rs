//! Empty stand-ins for the CUDA libraries that the lean libtorch lacks, so that `import torch` works without a GPU.
//!
//! Python loads torch with all its libraries, and the loader wants every name of them resolved. Nothing of CUDA is called on
//! the way. These libraries may never be found by programs in Rust: they would think that CUDA is here.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::elf::{Library, Undefined};
use crate::failure::Failure;

/// What `import torch` loads by name; all else follows from what these need.
const ROOTS: [&str; 2] = ["libtorch_global_deps.so", "libtorch_python.so"];

/// Libraries of the system, which the loader finds by itself.
const SYSTEM: [&str; 9] = [
    "ld-linux",
    "libc.",
    "libdl.",
    "libgcc_s.",
    "libm.",
    "libpthread.",
    "librt.",
    "libstdc++.",
    "libutil.",
];

/// What one stand-in has to define.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct StandIn {
    /// Names without a version.
    plain: BTreeSet<String>,
    /// Names of every version.
    versions: BTreeMap<String, BTreeSet<String>>,
}

/// The libraries that torch's in `folder` need and that are nowhere, each with what it has to define.
pub fn missing(folder: &Path) -> Result<BTreeMap<String, StandIn>, Failure> {
    let mut found: BTreeMap<String, Library> = BTreeMap::new();
    let mut absent = BTreeSet::new();
    let mut queue: Vec<(String, PathBuf)> = ROOTS
        .iter()
        .map(|name| (name.to_string(), folder.join(name)))
        .collect();
    while let Some((name, path)) = queue.pop() {
        if found.contains_key(&name) {
            continue;
        }
        let library = Library::read(&path)?;
        let origin = path.parent().unwrap_or(folder);
        for needed in &library.needed {
            if SYSTEM.iter().any(|system| needed.starts_with(system)) {
                continue;
            }
            match beside(origin, &library.rpaths, needed) {
                Some(path) => queue.push((needed.clone(), path)),
                None => drop(absent.insert(needed.clone())),
            }
        }
        found.insert(name, library);
    }
    Ok(assigned(found.values(), absent))
}

/// The file of a needed library, in the folders that the needing one names.
fn beside(origin: &Path, rpaths: &[String], name: &str) -> Option<PathBuf> {
    let folders = rpaths
        .iter()
        .map(|folder| match folder.strip_prefix("$ORIGIN") {
            Some(rest) => origin.join(rest.trim_start_matches('/')),
            None => PathBuf::from(folder),
        });
    folders
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// Gives every undefined name to the absent library that has to have it; those without a version go to the first one.
fn assigned<'a>(
    libraries: impl Iterator<Item = &'a Library> + Clone,
    absent: BTreeSet<String>,
) -> BTreeMap<String, StandIn> {
    let defined: BTreeSet<&String> = libraries.clone().flat_map(|l| &l.defined).collect();
    let mut stand_ins: BTreeMap<String, StandIn> = absent
        .into_iter()
        .map(|name| (name, StandIn::default()))
        .collect();
    for Undefined { name, version } in libraries.flat_map(|l| &l.undefined) {
        match version {
            Some((version, file)) => {
                if let Some(stand_in) = stand_ins.get_mut(file) {
                    let names = stand_in.versions.entry(version.clone()).or_default();
                    names.insert(name.clone());
                }
            }
            // Names of Python are the interpreter's.
            None if defined.contains(name) || name.starts_with("Py") || name.starts_with("_Py") => {
            }
            None => {
                if let Some(mut first) = stand_ins.first_entry() {
                    first.get_mut().plain.insert(name.clone());
                }
            }
        }
    }
    stand_ins
}

/// Compiles a stand-in for every library that is missing into `folder`. `compiler` may have words behind it, as `CXX` may.
pub fn make(
    folder: &Path,
    missing: &BTreeMap<String, StandIn>,
    compiler: &OsStr,
) -> Result<(), Failure> {
    let compiler = compiler.to_string_lossy();
    let mut words = compiler.split_whitespace();
    let program = words.next().unwrap_or("c++");
    let words: Vec<&str> = words.collect();
    for (name, stand_in) in missing {
        let source = folder.join(format!("{name}.c"));
        let script = folder.join(format!("{name}.map"));
        for (path, text) in [(&source, stand_in.source()), (&script, stand_in.script())] {
            fs::write(path, text).map_err(|e| Failure::io("write", path, &e))?;
        }
        let mut cc = Command::new(program);
        cc.args(&words)
            .args(["-x", "c", "-w", "-O1", "-fno-builtin", "-fPIC", "-shared"]);
        cc.arg(format!("-Wl,-soname,{name}"));
        if !stand_in.versions.is_empty() {
            cc.arg(format!("-Wl,--version-script,{}", script.display()));
        }
        cc.arg("-o").arg(folder.join(name)).arg(&source);
        let help = "a C++ compiler makes stand-ins for CUDA's libraries: set CXX to one that works";
        let output = cc.output();
        let output =
            output.map_err(|e| Failure::new(format!("cannot run {program}: {e}"), help))?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            let message = format!("{program} could not compile {}: {words}", source.display());
            return Err(Failure::new(message, help));
        }
        for path in [source, script] {
            fs::remove_file(&path).map_err(|e| Failure::io("remove", &path, &e))?;
        }
    }
    Ok(())
}

impl StandIn {
    /// Functions of these names, which end the program with a word.
    fn source(&self) -> String {
        let mut text = String::from(
            "extern long write(int, const void *, unsigned long);\n\
             extern void abort(void);\n\
             static void called(void) {\n    \
             static const char words[] = \"a function of CUDA was called, and this libtorch has none: \
             cargo xtask setup --full\\n\";\n    \
             write(2, words, sizeof words - 1);\n    abort();\n}\n",
        );
        for name in self.plain.iter().chain(self.versions.values().flatten()) {
            text += &format!("void {name}(void) {{ called(); }}\n");
        }
        text
    }

    /// The linker's script that gives names their versions.
    fn script(&self) -> String {
        let line = |(version, names): (&String, &BTreeSet<String>)| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            format!("{version} {{ global: {}; }};\n", names.join("; "))
        };
        self.versions.iter().map(line).collect()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use tempfile::TempDir;

    /// Compiles a library out of C.
    fn compile(folder: &Path, name: &str, source: &str, words: &[&str]) {
        let file = folder.join(format!("{name}.c"));
        fs::write(&file, source).unwrap();
        let mut cc = Command::new("c++");
        cc.args(["-x", "c", "-shared", "-fPIC", "-Wl,--no-as-needed"]);
        cc.arg(format!("-Wl,-soname,{name}"));
        cc.arg("-o")
            .arg(folder.join(name))
            .arg(&file)
            .args(["-x", "none"])
            .args(words);
        let output = cc.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// A `torch/lib` whose two roots need a library that is there, in a neighbour's folder, and one that was removed, for a
    /// function with a version and one without.
    fn torch() -> (TempDir, PathBuf) {
        let dir = TempDir::new().unwrap();
        let (lib, other) = (dir.path().join("torch/lib"), dir.path().join("nvidia/lib"));
        fs::create_dir_all(&lib).unwrap();
        fs::create_dir_all(&other).unwrap();
        let script = other.join("map");
        fs::write(&script, "libcudnn.so.9 { global: with_version; };").unwrap();
        let absent = "void with_version(void) {} void without(void) {}";
        compile(
            &other,
            "libcudnn.so.9",
            absent,
            &[&format!("-Wl,--version-script,{}", script.display())],
        );
        compile(&other, "libcudart.so.13", "void present(void) {}", &[]);
        let rpath = "-Wl,--disable-new-dtags,-rpath,$ORIGIN/../../nvidia/lib:$ORIGIN";
        let source = "void with_version(void); void without(void); void present(void); void PyNone(void); \
                      __attribute__((weak)) void perhaps(void);\n\
                      void root(void) { with_version(); without(); present(); PyNone(); if (perhaps) perhaps(); }";
        let libraries =
            ["libcudnn.so.9", "libcudart.so.13"].map(|name| other.join(name).display().to_string());
        compile(
            &lib,
            "libtorch_python.so",
            source,
            &[rpath, &libraries[0], &libraries[1]],
        );
        compile(&lib, "libtorch_global_deps.so", "", &[rpath, &libraries[1]]);
        fs::remove_file(other.join("libcudnn.so.9")).unwrap();
        (dir, lib)
    }

    #[test]
    fn what_is_absent_is_found_with_the_names_that_it_has_to_define() {
        let (_dir, lib) = torch();
        let missing = missing(&lib).unwrap();
        let names: Vec<&String> = missing.keys().collect();
        assert_eq!(names, ["libcudnn.so.9"]);
        let set = |name: &str| BTreeSet::from([name.to_owned()]);
        let expected = StandIn {
            plain: set("without"),
            versions: BTreeMap::from([("libcudnn.so.9".to_owned(), set("with_version"))]),
        };
        assert_eq!(missing["libcudnn.so.9"], expected);
    }

    #[test]
    fn stand_ins_make_it_complete_and_leave_nothing_else() {
        let (_dir, lib) = torch();
        make(&lib, &missing(&lib).unwrap(), OsStr::new("c++ -O0")).unwrap();
        assert!(missing(&lib).unwrap().is_empty());
        let stand_in = Library::read(&lib.join("libcudnn.so.9")).unwrap();
        for name in ["with_version", "without"] {
            assert!(
                stand_in.defined.iter().any(|defined| defined == name),
                "{name}"
            );
        }
        assert!(!lib.join("libcudnn.so.9.c").exists() && !lib.join("libcudnn.so.9.map").exists());
    }

    #[test]
    fn a_compiler_that_fails_is_named() {
        let (_dir, lib) = torch();
        let missing = missing(&lib).unwrap();
        for compiler in ["/nowhere/c++", "false"] {
            let failure = make(&lib, &missing, OsStr::new(compiler)).unwrap_err();
            assert!(failure.to_string().contains(compiler), "{failure}");
            assert!(failure.help.contains("CXX"), "{failure}");
        }
    }
}
