//! The binary of this crate knows our strategy and our space beside the first-party ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod retrain;

use std::path::Path;
use std::process::{Command, Output};

/// Runs the program in a folder, with its cache in there, too.
fn own(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_own-strategy"))
        .args(args)
        .current_dir(dir)
        .env("NASFW_NO_PROGRESS", "1")
        .env("NO_COLOR", "1")
        .env("XDG_CACHE_HOME", dir.join("cache"))
        .output()
        .unwrap()
}

/// Whether that went well, and all that was said.
fn said(dir: &Path, args: &[&str]) -> (bool, String) {
    let out = own(dir, args);
    let text = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
    (out.status.success(), text)
}

#[test]
fn it_lists_our_strategy_beside_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let (ok, text) = said(dir.path(), &["list", "strategies"]);
    assert!(ok, "{text}");
    for name in ["annealed", "darts", "random", "vim"] {
        assert!(
            text.contains(&format!("  {name} ")),
            "{name} is missing in {text}"
        );
    }
    let (ok, text) = said(dir.path(), &["describe", "annealed"]);
    assert!(
        ok && text.contains("own-strategy") && text.contains("cold = 0.1"),
        "{text}"
    );
}

/// What it says can be typed: by its own name, and quoted where a shell would not take it for what it is.
#[test]
fn hints_go_by_our_name_and_can_be_pasted() {
    let dir = tempfile::tempdir().unwrap();
    let own = |args: &[&str]| said(dir.path(), args).1;
    let said = own(&[
        "run",
        "--strategy",
        "annealed",
        "--space",
        "toy-conv",
        "--epochs",
        "1",
        "--set",
        "dataset.images=64",
        "--threads",
        "1",
        "--out",
        "my runs",
        "--name",
        "it's",
    ]);
    let next = r"own-strategy draw 'my runs/it'\''s' -o cell.svg";
    assert!(said.contains(next), "{said}");
    // A shell takes it as it stands, but for where this program is.
    let line = next.replace("own-strategy", env!("CARGO_BIN_EXE_own-strategy"));
    let pasted = Command::new("sh")
        .args(["-c", &line])
        .current_dir(dir.path())
        .status()
        .unwrap();
    assert!(pasted.success() && dir.path().join("cell.svg").is_file());
    let made = std::fs::read_to_string(dir.path().join("my runs/it's/config.toml")).unwrap();
    assert!(
        made.starts_with("# Made by: own-strategy run --strategy annealed"),
        "{made}"
    );

    for (args, hint) in [
        (
            &["run", "--strategy", "anealed"][..],
            "`own-strategy list strategies`",
        ),
        (&["resume", "nowhere"], "`own-strategy resume runs/NAME`"),
        (&["--help"], "own-strategy run --strategy vim"),
        (&["describe", "darts"], "own-strategy run --strategy darts"),
        (
            &["run", "--set", "trainer.foo=1"],
            "`own-strategy config show`",
        ),
        (
            &["watch", "my runs"],
            r"own-strategy watch 'my runs/it'\''s'",
        ),
        (&["bench", "list"], "own-strategy bench import nasbench201"),
    ] {
        let said = own(args);
        assert!(
            said.contains(hint) && !said.contains("nasfw "),
            "{hint}: {said}"
        );
    }
}

#[test]
fn it_runs_our_strategy_on_a_first_party_space() {
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "run",
        "--strategy",
        "annealed",
        "--space",
        "nasbench1shot1-s1",
        "--dataset",
        "synthetic",
        "--epochs",
        "2",
        "--out",
        ".",
        "--name",
        "r",
        "--threads",
        "1",
        "--set",
        "space.channels=2",
        "--set",
        "space.cells=3",
        "--set",
        "dataset.images=96",
        "--set",
        "trainer.batch_size=24",
    ];
    let (ok, text) = said(dir.path(), &args);
    assert!(ok, "{text}");
    let result = std::fs::read_to_string(dir.path().join("r/result.json")).unwrap();
    let result: serde_json::Value = serde_json::from_str(&result).unwrap();
    assert_eq!(result["genotype"]["space"], "nasbench1shot1-s1");
    assert!(
        result["entropy"].as_f64().unwrap() < 0.999,
        "the distribution has moved"
    );
}
