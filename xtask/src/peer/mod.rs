//! `cargo xtask peer`: nasfw against a plain PyTorch program (benches/peer), on the same machine, in turn.

mod equality;
mod figures;

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::cli::PeerOptions;
use crate::failure::Failure;
use crate::libtorch::{Form, Home, VERSION};
use crate::setup::{self, Libtorch};
use crate::workspace::{Workspace, cannot_run, library_path};
use figures::{Goals, Measured, Table};

/// Steps before those that are timed, and those, of every process.
const WARMUP: usize = 1;
const STEPS: usize = 5;

/// What cargo builds and runs: nasfw, and the example that writes what a supernet computes.
const NASFW: [&str; 2] = ["--bin", "nasfw"];
const EXAMPLE: [&str; 2] = ["--example", "peer"];

/// A space that is compared.
pub struct Space {
    /// Its name, in nasfw and in benches/peer.
    pub name: &'static str,
    /// Images a step, as published.
    batch: usize,
    /// Cells (NAS-Bench-201: a stage) of the small networks that are compared number by number.
    few_cells: usize,
    goals: Goals,
}

const fn space(name: &'static str, batch: usize, few_cells: usize, goals: Goals) -> Space {
    Space {
        name,
        batch,
        few_cells,
        goals,
    }
}

/// All spaces that are compared.
pub const SPACES: [Space; 3] = [
    space("darts", 64, 3, Goals::new(0.40, Some(0.50))),
    space("nasbench201", 64, 2, Goals::new(0.60, None)),
    space("nasbench1shot1-s3", 96, 3, Goals::new(0.60, None)),
];

/// The two programs.
struct Programs<'a> {
    workspace: &'a Workspace,
    libtorch: &'a Libtorch,
    home: Home,
}

/// Installs PyTorch, builds nasfw, checks that both compute the same, and times them in turn.
pub fn peer(
    workspace: &Workspace,
    libtorch: &Libtorch,
    options: &PeerOptions,
) -> Result<(), Failure> {
    let home = Home::new(workspace.root.join("target/peer"));
    setup::ensure(&home, Some(Form::Python))?;
    let programs = Programs {
        workspace,
        libtorch,
        home,
    };
    programs.build()?;
    let spaces: Vec<&Space> = SPACES.iter().filter(|s| options.wants(s.name)).collect();
    let equality = match options.skip_equality {
        true => Value::Null,
        false => equality::check(&programs, &spaces)?,
    };
    let mut results = vec![];
    for space in spaces {
        let (mut reference, mut nasfw) = (vec![], vec![]);
        let batch = options.batch.unwrap_or(space.batch);
        for repeat in 1..=options.repeats {
            eprintln!("timing {}: {repeat} of {}", space.name, options.repeats);
            reference.push(programs.time_reference(space.name, batch)?);
            nasfw.push(programs.time_nasfw(space.name, batch)?);
        }
        let table = Table::new(
            &Measured::all(&reference, "")?,
            &Measured::all(&nasfw, "/plain")?,
            &space.goals,
        )?;
        println!("{} (batch {batch})\n{table}", space.name);
        results.push(json!({
            "space": space.name, "batch": batch, "ratios": table.json(),
            "reference": reference, "nasfw": nasfw,
        }));
    }
    let Some(file) = &options.json else {
        return Ok(());
    };
    let report = json!({
        "torch": VERSION, "repeats": options.repeats, "warmup": WARMUP, "steps": STEPS,
        "equality": equality, "spaces": results,
    });
    fs::write(file, format!("{report:#}\n")).map_err(|e| Failure::io("write", file, &e))
}

impl Programs<'_> {
    fn build(&self) -> Result<(), Failure> {
        // One by one, as `cargo run` asks for them: together they would have other features.
        for target in [NASFW, EXAMPLE] {
            let mut cargo = self.workspace.cargo(self.libtorch)?;
            cargo.current_dir(&self.workspace.root);
            cargo.args(["build", "--package", "nasfw"]).args(target);
            let status = cargo
                .status()
                .map_err(|e| cannot_run(cargo.get_program(), &e))?;
            if !status.success() {
                return Err(Failure::new(
                    "nasfw could not be built (cargo's words stand above)",
                    "mend that, then type the same command again",
                ));
            }
        }
        Ok(())
    }

    /// What `cargo run` with these arguments prints: nasfw or the example.
    fn cargo_run<S: AsRef<OsStr>>(
        &self,
        target: [&str; 2],
        args: impl IntoIterator<Item = S>,
    ) -> Result<String, Failure> {
        let mut cargo = self.workspace.cargo(self.libtorch)?;
        cargo.current_dir(&self.workspace.root);
        cargo
            .args(["run", "--quiet", "--package", "nasfw"])
            .args(target);
        cargo.arg("--").args(args);
        output(cargo)
    }

    /// What the PyTorch program prints as JSON.
    fn python<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Value, Failure> {
        let mut python = Command::new(self.home.python());
        python
            .arg(self.workspace.root.join("benches/peer/reference.py"))
            .args(args);
        python.env("PYTHONPATH", self.home.packages());
        python.env("PYTHONDONTWRITEBYTECODE", "1");
        python.env("PYTHONNOUSERSITE", "1");
        // Its own libtorch, not the one nasfw is built with.
        let (name, path) = library_path(&self.home.torch())?;
        python.env(name, path);
        json(&output(python)?, "the PyTorch program")
    }

    fn time_reference(&self, space: &str, batch: usize) -> Result<Value, Failure> {
        let mut args = vec!["time".to_owned(), space.to_owned()];
        args.extend(sizes(batch));
        self.python(args)
    }

    fn time_nasfw(&self, space: &str, batch: usize) -> Result<Value, Failure> {
        let mut args: Vec<String> = ["bench", "perf", "--strategy", "none", "--json", "-"]
            .map(str::to_owned)
            .to_vec();
        args.extend(["--space".to_owned(), space.to_owned()]);
        args.extend(sizes(batch));
        json(&self.cargo_run(NASFW, args)?, "`nasfw bench perf`")
    }

    /// Has nasfw write what it computes, in a file of its own.
    fn export(&self, args: &[String]) -> Result<PathBuf, Failure> {
        let file = self.workspace.root.join("target/peer/nasfw.safetensors");
        let args = args.iter().map(OsStr::new).chain([file.as_os_str()]);
        self.cargo_run(EXAMPLE, args)?;
        Ok(file)
    }
}

/// Options that both programs take.
fn sizes(batch: usize) -> [String; 6] {
    let [batch, warmup, steps] = [batch, WARMUP, STEPS].map(|n| n.to_string());
    let [b, w, s] = ["--batch", "--warmup", "--steps"].map(str::to_owned);
    [b, batch, w, warmup, s, steps]
}

/// A command's stdout. Its stderr is shown where it fails.
fn output(mut command: Command) -> Result<String, Failure> {
    let program = command.get_program().to_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| cannot_run(&program, &e))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let args: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
        return Err(Failure::new(
            format!(
                "{} {} failed ({}):\n{words}",
                program.display(),
                args.join(" "),
                output.status
            ),
            "a signal 9 means that memory ran out: try a smaller --batch",
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn json(text: &str, who: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|e| {
        Failure::new(
            format!("{who} printed no JSON: {e}\n{text}"),
            "this is a bug of nasfw; please report it",
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_failing_program_is_shown_with_its_words() {
        let run = |script: &str| {
            let mut sh = Command::new("sh");
            sh.args(["-c", script]);
            output(sh)
        };
        assert_eq!(run("echo words; echo noise >&2").unwrap(), "words\n");
        let failure = run("echo out of luck >&2; exit 3").unwrap_err().to_string();
        assert!(failure.contains("out of luck"), "{failure}");
        assert!(failure.contains("exit status: 3"), "{failure}");
    }

    #[test]
    fn what_is_no_json_is_named() {
        assert_eq!(json("{\"a\": 1}\n", "it").unwrap()["a"], 1);
        let failure = json("Traceback", "the PyTorch program").unwrap_err();
        assert!(failure.message.contains("the PyTorch program"), "{failure}");
        assert!(failure.message.contains("Traceback"), "{failure}");
    }
}
