//! Numbers, names and files beyond what can be: a message, at once, and nothing is made.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const PLAN: &str = "strategies = [\"random\"]\nspaces = [\"toy-planted\"]\nbudgets = [{ unit = \"steps\", amount = 1 }]\n";

/// What a command says; it must take a moment only.
fn say<S: AsRef<OsStr>>(folder: &Path, args: &[S]) -> (i32, String) {
    said(
        Command::new(env!("CARGO_BIN_EXE_nasfw"))
            .args(args)
            .current_dir(folder),
    )
}

fn said(command: &mut Command) -> (i32, String) {
    let began = Instant::now();
    let Output { status, stderr, .. } = command.env("NASFW_LOG", "warn").output().unwrap();
    // Help is wrapped to the width of a terminal.
    let stderr = String::from_utf8_lossy(&stderr);
    let stderr = stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(began.elapsed() < Duration::from_secs(60), "{stderr}");
    (status.code().unwrap_or(-1), stderr)
}

#[test]
fn numbers_beyond_what_can_be_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let run = |sets: &[&str]| {
        let mut args = vec!["run"];
        args.extend(sets.iter().flat_map(|set| ["--set", set]));
        say(place.path(), &args)
    };
    let evolution = [
        "strategy.name=regularized-evolution",
        "strategy.sample=1000000000000",
    ];
    for (sets, named) in [
        (
            &evolution[..],
            "`strategy.sample`: 1000000000000 is out of range",
        ),
        (
            &["threads=100000"],
            "`threads`: 100000 is out of range, it must be from 0 to 1024",
        ),
        // Of a setting that says nothing of its own range.
        (
            &["trainer.log_every=9000000000"],
            "no count can be beyond 1000000000",
        ),
        (
            &["dataset.name=synthetic", "dataset.images=900000000"],
            "bytes are too many",
        ),
    ] {
        let (code, stderr) = run(sets);
        assert_eq!(code, 2, "{sets:?}: {stderr}");
        assert!(stderr.contains(named), "{sets:?}: {stderr}");
    }
    for seeds in ["400000000", "9223372036854775807"] {
        let plan = place.path().join("plan.toml");
        fs::write(&plan, format!("{PLAN}seeds = {seeds}\n")).unwrap();
        let (code, stderr) = say(place.path(), &["compare", "plan.toml"]);
        assert_eq!(code, 2, "{stderr}");
        assert!(
            stderr.contains(&format!("{seeds} are too many, 100000 are the most")),
            "{stderr}"
        );
    }
    assert!(!place.path().join("runs").exists());
}

/// A run folder whose configuration was edited, or made before there was a limit.
#[test]
fn a_run_with_a_number_beyond_what_can_be_says_how_to_go_on() {
    let place = tempfile::tempdir().unwrap();
    let sets = [
        "strategy.name=random",
        "space.name=toy-planted",
        "strategy.score=none",
    ];
    let mut args = vec!["run", "--name", "r", "--threads=1"];
    args.extend(sets.iter().flat_map(|set| ["--set", set]));
    let (code, stderr) = say(place.path(), &args);
    assert_eq!(code, 0, "{stderr}");
    let file = place.path().join("runs/r/run.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("\"threads\": 1", "\"threads\": 100000")).unwrap();
    for verb in ["resume", "eval", "rank"] {
        let (code, stderr) = say(place.path(), &[verb, "runs/r"]);
        assert_eq!(code, 4, "{verb}: {stderr}");
        assert!(
            stderr.contains("`threads`: 100000 is out of range"),
            "{verb}: {stderr}"
        );
        assert!(
            stderr.contains("nasfw run --config runs/r/config.toml"),
            "{verb}: {stderr}"
        );
    }
}

#[test]
fn files_without_an_end_and_keys_without_number_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let (code, stderr) = say(place.path(), &["config", "show", "--config", "/dev/zero"]);
    assert_eq!(code, 2, "{stderr}");
    assert!(
        stderr.contains("/dev/zero can't be read: it is larger than 1 MiB"),
        "{stderr}"
    );

    let keys: String = (0..100_000).map(|i| format!("k{i}=1\n")).collect();
    fs::write(place.path().join("many.toml"), keys).unwrap();
    let (code, stderr) = say(place.path(), &["config", "show", "--config", "many.toml"]);
    assert_eq!(code, 2, "{stderr}");
    assert!(
        stderr.contains("99980 more options are unknown"),
        "{stderr}"
    );
    assert!(stderr.len() < 20_000, "{} bytes", stderr.len());

    let dots = format!("{}x=1", "a.".repeat(15_000));
    let (code, stderr) = say(place.path(), &["config", "show", "--set", &dots]);
    assert_eq!(code, 2, "{stderr}");
    assert!(
        stderr.contains("15001 parts are too many for a dotted key"),
        "{stderr}"
    );
    fs::write(place.path().join("dots.toml"), &dots).unwrap();
    let (code, stderr) = say(place.path(), &["config", "show", "--config", "dots.toml"]);
    assert_eq!(code, 2, "{stderr}");
    let name = format!("NASFW_{}X", "A__".repeat(15_000));
    let mut show = Command::new(env!("CARGO_BIN_EXE_nasfw"));
    let (code, stderr) = said(show.args(["config", "show"]).env(name, "1"));
    assert_eq!(code, 2, "{stderr}");
}

#[test]
fn a_long_value_is_shown() {
    let place = tempfile::tempdir().unwrap();
    let long = format!("data_dir={}", "x".repeat(70_000));
    let out = Command::new(env!("CARGO_BIN_EXE_nasfw"))
        .args(["config", "show", "--set", &long])
        .current_dir(place.path())
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let text = String::from_utf8(out.stdout).unwrap();
    let of = |key: &str| text.lines().find(|line| line.starts_with(key)).unwrap();
    assert!(of("data_dir").len() > 70_000);
    assert!(
        of("device").len() < 200,
        "its origin is where it can be seen"
    );
}

#[test]
fn names_that_are_no_text_are_refused_where_a_configuration_keeps_them() {
    let place = tempfile::tempdir().unwrap();
    let strange = OsStr::from_bytes(b"b\xffd");
    for option in ["--out", "--data-dir"] {
        let args = [OsStr::new("run"), OsStr::new(option), strange];
        let (code, stderr) = say(place.path(), &args);
        assert_eq!(code, 2, "{stderr}");
        assert!(
            stderr.contains("is not UTF-8") && stderr.contains(option),
            "{stderr}"
        );
    }
    let mut show = Command::new(env!("CARGO_BIN_EXE_nasfw"));
    let (code, stderr) = said(show.args(["config", "show"]).env("NASFW_OUT", strange));
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("NASFW_OUT"), "{stderr}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    // Where a name is not kept it may be anything.
    let args = ["genotype", "DARTS_V2"].map(OsStr::new);
    let (code, stderr) = say(place.path(), &args);
    assert_eq!(code, 0, "{stderr}");
    fs::write(
        place.path().join(strange),
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    )
    .unwrap();
    let (code, _) = say(place.path(), &[OsStr::new("figure"), strange]);
    assert!((2..=5).contains(&code), "{code}");
}
