//! `cargo xtask dist`: a release, which is an archive of the program, its launcher, manual pages and completions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::elf::Library;
use crate::embedded_data::sha256;
use crate::failure::Failure;
use crate::launcher::PROGRAM;
use crate::setup::Libtorch;
use crate::wheel::{Tools, foreign, remove, run};
use crate::workspace::{Workspace, cannot_run};

/// Where the program looks for libtorch if the launcher does not say: beside it in the archive's folder.
const RPATH: &str = "$ORIGIN/../libtorch/site-packages/torch/lib";

/// Scripts by shell, and where systems look for them.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/nasfw"),
    ("zsh", "share/zsh/site-functions/_nasfw"),
    ("fish", "share/fish/vendor_completions.d/nasfw.fish"),
];

/// Packs a release into `out`, and prints the archive's path and size.
pub fn dist(
    workspace: &Workspace,
    libtorch: &Libtorch,
    out: Option<PathBuf>,
) -> Result<ExitCode, Failure> {
    let target = workspace.root.join("target");
    let tools = Tools::below(&target)?;
    let out = out.unwrap_or_else(|| target.join("dist"));
    create(&out)?;
    let program = built(workspace, libtorch, "nasfw", "nasfw")?;
    let launcher = built(workspace, libtorch, "xtask", "nasfw-launcher")?;

    let name = format!(
        "nasfw-{}-{}-{}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        std::env::consts::OS
    );
    let work = target.join("dist-build");
    remove(&work)?;
    let folder = work.join(&name);
    let bin = folder.join("bin");
    create(&bin)?;
    copy(&launcher, &bin.join("nasfw"))?;
    let packed = bin.join(PROGRAM);
    create(&folder.join("libexec"))?;
    copy(&program, &packed)?;
    for file in ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        copy(&workspace.root.join(file), &folder.join(file))?;
    }
    let mut patchelf = tools.tool("patchelf");
    patchelf.args(["--set-rpath", RPATH]).arg(&packed);
    run(
        patchelf,
        "patchelf could not set where the program looks for libtorch",
    )?;
    let mut strip = Command::new("strip");
    strip.arg(&packed).arg(bin.join("nasfw"));
    run(strip, "the programs could not be stripped of their symbols")?;
    let faults = faults(&Library::read(&packed)?);
    if !faults.is_empty() {
        return Err(Failure::new(
            format!(
                "{} would not work elsewhere: {}",
                packed.display(),
                faults.join("; ")
            ),
            "look at xtask/src/dist.rs",
        ));
    }

    // What is packed runs, and says what its manual and the shells are to know.
    let says = |words: &[&str]| -> Result<Vec<u8>, Failure> {
        let mut nasfw = Command::new(bin.join("nasfw"));
        nasfw.args(words).env("LIBTORCH", &libtorch.torch);
        let output = nasfw.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let output = output.map_err(|e| cannot_run(nasfw.get_program(), &e))?;
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(Failure::new(
                format!(
                    "the packed program ended with {}: nasfw {}",
                    output.status,
                    words.join(" ")
                ),
                "its own words stand above",
            )),
        }
    };
    let manual = folder.join("share/man/man1");
    says(&["man", "-o", &manual.to_string_lossy()])?;
    for (shell, place) in COMPLETIONS {
        let place = folder.join(place);
        create(place.parent().unwrap_or(&folder))?;
        let script = says(&["completions", shell])?;
        fs::write(&place, script).map_err(|e| Failure::io("write", &place, &e))?;
    }

    let archive = out.join(format!("{name}.tar.gz"));
    let mut tar = Command::new("tar");
    // The same files give the same bytes.
    tar.args([
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mtime=@0",
    ]);
    tar.arg("--use-compress-program=gzip -9n").arg("-cf");
    tar.arg(&archive).arg("-C").arg(&work).arg(&name);
    run(tar, "tar could not write the archive")?;
    remove(&work)?;
    let bytes = fs::read(&archive).map_err(|e| Failure::io("read", &archive, &e))?;
    let sum = archive.with_extension("gz.sha256");
    let line = format!("{}  {name}.tar.gz\n", sha256(&bytes));
    fs::write(&sum, line).map_err(|e| Failure::io("write", &sum, &e))?;
    println!("{} ({:.1} MB)", archive.display(), bytes.len() as f64 / 1e6);
    Ok(ExitCode::SUCCESS)
}

/// Builds a program, and says where it is.
fn built(
    workspace: &Workspace,
    libtorch: &Libtorch,
    package: &str,
    program: &str,
) -> Result<PathBuf, Failure> {
    let mut cargo = workspace.cargo(libtorch)?;
    cargo.args(["build", "--locked", "--manifest-path"]);
    cargo.arg(workspace.root.join("Cargo.toml"));
    cargo.args(["--package", package, "--bin", program]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    let output = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|e| cannot_run(cargo.get_program(), &e))?;
    let found = executable(&output.stdout);
    found.filter(|_| output.status.success()).ok_or_else(|| {
        Failure::new(
            format!("cargo could not build {program} ({})", output.status),
            "its own words stand above",
        )
    })
}

/// The program that Cargo's messages name last.
fn executable(messages: &[u8]) -> Option<PathBuf> {
    let text = String::from_utf8_lossy(messages);
    text.lines().rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    })
}

/// Why a program would not work where an archive is unpacked.
fn faults(program: &Library) -> Vec<String> {
    let mut faults = vec![];
    if program.rpaths != [RPATH] {
        faults.push(format!(
            "it looks for libraries in {}",
            program.rpaths.join(":")
        ));
    }
    if program.rpaths_first {
        faults.push("LD_LIBRARY_PATH does not come first".into());
    }
    faults.extend(foreign(program));
    faults
}

fn create(folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder).map_err(|e| Failure::io("create", folder, &e))
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    let copied = fs::copy(from, to).map(|_| ());
    copied.map_err(|e| Failure::io("write", to, &e))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn cargo_says_which_program_it_built() {
        let messages = br#"{"reason":"compiler-artifact","executable":null}
{"reason":"compiler-artifact","executable":"/t/debug/other"}
{"reason":"compiler-artifact","executable":"/t/debug/nasfw"}
{"reason":"build-finished","success":true}
"#;
        assert_eq!(executable(messages), Some("/t/debug/nasfw".into()));
        assert_eq!(executable(b"{\"reason\":\"build-finished\"}\n"), None);
    }

    #[test]
    fn a_program_that_would_not_work_elsewhere_is_found() {
        let library = |rpath: &str, first: bool, needed: &str| Library {
            rpaths: vec![rpath.into()],
            rpaths_first: first,
            needed: vec![needed.into()],
            ..Library::default()
        };
        assert!(faults(&library(RPATH, false, "libtorch_cpu.so")).is_empty());
        for (program, words) in [
            (
                library("/home/me/torch/lib", false, "libc.so.6"),
                "/home/me/torch/lib",
            ),
            (library(RPATH, true, "libc.so.6"), "LD_LIBRARY_PATH"),
            (
                library(RPATH, false, "libpython3.11.so.1.0"),
                "libpython3.11",
            ),
        ] {
            let faults = faults(&program).join("; ");
            assert!(faults.contains(words), "{faults}");
        }
    }
}
