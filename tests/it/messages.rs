//! What the program says: only text, true, and what can be typed next.

use std::fs;
use std::path::Path;

use nasfw::framework::printable::printable;

use crate::program::{good, nasfw, tiny};

/// Exit code and standard error, without the line breaks of its box.
fn refused(dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    let out = nasfw(dir, args);
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    let words: Vec<&str> = text.split_whitespace().filter(|w| *w != "|").collect();
    (out.status.code(), words.join(" "))
}

#[track_caller]
fn says((code, text): (Option<i32>, String), wanted: i32, parts: &[&str], never: &[&str]) {
    assert_eq!(code, Some(wanted), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part}: {text}");
    }
    for part in never {
        assert!(!text.contains(part), "{part}: {text}");
    }
}

#[test]
fn what_looks_architectures_up_says_which_table_it_lacks_before_it_begins() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let evolution = ["run", "--strategy", "regularized-evolution", "--space"];
    let on = |space| refused(dir, &[&evolution[..], &[space]].concat());
    says(
        on("nasbench201"),
        2,
        &[
            "the table of nasbench201",
            "is not imported",
            "`nasfw bench import nasbench201 FILE`",
        ],
        &["no benchmark knows", "run folder"],
    );
    says(
        on("toy-conv"),
        2,
        &["no benchmark knows the architectures of space `toy-conv`"],
        &[],
    );
    let unwanted = [
        &evolution[..],
        &["toy-planted", "--set", "benchmark.name=none"],
    ]
    .concat();
    says(
        refused(dir, &unwanted),
        2,
        &["`toy-planted`, and this run has none"],
        &[],
    );
    fs::write(
        dir.join("plan.toml"),
        "name = 'c'\nseeds = 2\nstrategies = ['regularized-evolution']\nspaces = ['nasbench201']\n\
         budgets = [{ unit = 'steps', amount = 10 }]\n",
    )
    .unwrap();
    says(
        refused(dir, &["compare", "plan.toml"]),
        2,
        &["is not imported"],
        &[],
    );
    assert!(!dir.join("runs").exists(), "nothing was written");

    assert!(tiny(dir, "r", &[]).status.success());
    says(
        refused(dir, &["rank", "runs/r"]),
        2,
        &["no benchmark knows the architectures of space `toy-conv`"],
        &[],
    );
}

#[test]
fn advice_about_output_names_the_option_that_the_verb_has() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("file"), "").unwrap();
    for args in [
        &["draw", "toy-conv", "-o", "file/x.svg"][..],
        &["genotype", "DARTS_V2", "--format", "darts"],
    ] {
        let (code, text) = refused(dir, args);
        if code != Some(0) {
            says(
                (code, text),
                5,
                &["choose another file with `-o FILE`"],
                &["--out"],
            );
        }
    }
    says(
        refused(dir, &["run", "--space", "toy-conv", "--out", "file/runs"]),
        5,
        &["another folder with `--out DIR`"],
        &[],
    );
    says(
        refused(dir, &["doctor", "-o", "file/runs"]),
        5,
        &["`-o DIR`"],
        &["--out"],
    );
}

#[test]
fn a_files_ending_is_what_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let begins = |file: &str, with: &[u8]| {
        let bytes = fs::read(dir.join(file)).unwrap();
        assert!(bytes.starts_with(with), "{file}");
    };
    for (file, with) in [
        ("x.png", &b"\x89PNG\r\n\x1a\n"[..]),
        ("x.PNG", b"\x89PNG\r\n\x1a\n"),
        ("x.svg", b"<svg "),
        ("x.dot", b"digraph "),
        ("x.gv", b"digraph "),
        ("x", b"<svg "),
        ("x.pdf", b"%PDF-"),
        ("x.tex", b"% needs "),
    ] {
        assert_eq!(good(dir, &["draw", "DARTS_V2", "-o", file]), "");
        begins(file, with);
    }
    for args in [
        &["draw", "DARTS_V2", "-o", "y.v2"][..],
        &["draw", "DARTS_V2", "-o", "y.html"],
        &["draw", "DARTS_V2", "--format", "svg", "-o", "y.png"],
        &["draw", "DARTS_V2", "--format", "png"],
        &["draw", "DARTS_V2", "--format", "pdf"],
        &["draw", "DARTS_V2", "--format", "dot", "--width", "85"],
        &["report", "runs/r", "-o", "y.pdf"],
        &["report", "runs/r", "-o", "y.svg"],
        &["export", "runs/r", "--onnx", "y.safetensors"],
        &["export", "runs/r", "--safetensors", "y.onnx"],
        &["bench", "perf", "--machine", "--json", "y.csv"],
    ] {
        let (code, text) = refused(dir, args);
        assert_eq!(code, Some(2), "{args:?}: {text}");
        assert!(text.contains("help:"), "{text}");
    }
    assert!(
        fs::read_dir(dir)
            .unwrap()
            .flatten()
            .all(|e| !e.file_name().to_string_lossy().starts_with('y'))
    );
}

#[test]
fn all_that_is_wrong_with_settings_is_said_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(
        dir.join("my.toml"),
        "[strategy]\nname = \"darts\"\norder = 3\n[strategy.arch]\nlr = \"fast\"\nbetas = 1\n\
         [trainer]\nepochs = 0\nbatch_size = 1\nfoo = 1\nepochz = 3\n[space]\nname = \"toy-conv\"\n",
    )
    .unwrap();
    let (code, text) = refused(
        dir,
        &[
            "run",
            "--config",
            "my.toml",
            "--set",
            "trainer.augment.flip=7",
            "--set",
            "precision=half",
        ],
    );
    assert_eq!(code, Some(2));
    for part in [
        "string \"fast\"",
        "invalid type: integer `1`",
        "0 is out of range",
        "1 is out of range",
        "did you mean `trainer.epochs`?",
        "`trainer.augment.flip`",
        "`half`",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("tf32"), "{text}");
    assert_eq!(text.matches("no such option").count(), 2, "{text}");
}

#[test]
fn numbers_that_toml_can_not_hold_are_out_of_range() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let seed = "9223372036854775808";
    let set = format!("seed={seed}");
    says(
        refused(dir, &["run", "--seed", seed]),
        2,
        &["out of range", "9223372036854775807"],
        &["string"],
    );
    says(
        refused(dir, &["run", "--set", &set]),
        2,
        &["out of range"],
        &["string"],
    );
    fs::write(dir.join("my.toml"), format!("seed = {seed}\n")).unwrap();
    says(
        refused(dir, &["run", "--config", "my.toml"]),
        2,
        &["my.toml"],
        &["string"],
    );
    good(dir, &["config", "show", "--seed", "9223372036854775807"]);
    assert!(!dir.join("runs").exists());
}

#[test]
fn a_search_that_diverges_says_how_to_begin_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let out = tiny(
        dir,
        "r",
        &[
            "--out",
            "my runs",
            "--set",
            "trainer.weights.lr=1e38",
            "--set",
            "trainer.batch_size=8",
            "--set",
            "trainer.weights.clip=0",
        ],
    );
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(7), "{text}");
    let again = "nasfw run --config 'my runs/r/config.toml' --set trainer.weights.lr=";
    assert!(text.lines().any(|l| l.contains(again)), "{text}");
    // And so it goes.
    good(
        dir,
        &[
            "run",
            "--config",
            "my runs/r/config.toml",
            "--set",
            "trainer.weights.lr=0.01",
            "--name",
            "s",
        ],
    );
}

#[test]
fn a_comparison_is_watched_by_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    assert!(tiny(dir, "r", &["--out", "runs/c/trials"]).status.success());
    fs::write(dir.join("runs/c/trials.json"), "[]").unwrap();
    for folder in ["runs/c", "runs"] {
        says(
            refused(dir, &["watch", folder, "--once"]),
            4,
            &["no run in it is running", "nasfw watch runs/c/trials/r"],
            &["there is no run"],
        );
    }
}

#[test]
fn one_is_no_plural() {
    let dir = tempfile::tempdir().unwrap();
    let out = tiny(dir.path(), "r", &[]);
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(text.contains("on cpu, 1 thread; 1 epoch of "), "{text}");
    let text = good(dir.path(), &["doctor"]);
    assert!(
        text.contains(" strategies, ") && !text.contains(" strategy,"),
        "{text}"
    );
}

/// Names that steer a terminal, in every file that is read and in what is typed: nothing that is printed or drawn does.
#[test]
fn nothing_steers_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    const EVIL: &str = "\u{1b}]0;x\u{7}\u{1b}[2J\u{9b}1m\u{202e}\u{0}\r";
    let json = serde_json::to_string(EVIL).unwrap();
    let json = json.trim_matches('"');
    assert!(tiny(dir, "r", &[]).status.success());
    let run = dir.join("runs/r");
    for (file, from, to) in [
        (
            "result.json",
            "\"name\": \"cell\"",
            format!("\"name\": \"cell{json}\""),
        ),
        (
            "result.json",
            "\"reason\": \"",
            format!("\"reason\": \"{json}"),
        ),
        (
            "events.jsonl",
            "all epochs are done",
            format!("all epochs{json}"),
        ),
        (
            "run.json",
            "\"device\": \"",
            format!("\"device\": \"{json}"),
        ),
    ] {
        let text = fs::read_to_string(run.join(file)).unwrap();
        assert!(
            file != "result.json" || text.contains(from),
            "{from}: {text}"
        );
        fs::write(run.join(file), text.replace(from, &to)).unwrap();
    }
    let toml = format!(
        "[strategy]\nname = \"darts\"\n[trainer]\n\"a{json}\" = 1\nepochs = \"{json}\" # {EVIL}\n"
    );
    fs::write(dir.join("my.toml"), toml.replace(['\0', '\r'], "")).unwrap();
    let typed = EVIL.replace('\0', "");
    let key = format!("trainer.{typed}=1");
    let value = format!("trainer.epochs={typed}");
    let path = format!("nowhere{typed}");
    for args in [
        &["draw", "runs/r"][..],
        &["draw", "runs/r", "--format", "dot"],
        &["genotype", "runs/r"],
        &["resume", "runs/r"],
        &["report", "runs/r", "-o", "r.html"],
        &["figure", "runs/r", "entropy"],
        &["watch", "runs/r", "--once"],
        &["runs"],
        &["runs", &path],
        &["table", "runs/r"],
        &["config", "show", "--config", "my.toml"],
        &["run", "--set", &key],
        &["run", "--set", &value],
        &["run", "--config", "my.toml"],
        &["config", "show", "--set", &format!("out={typed}")],
        &["resume", &path],
        &["draw", &path],
        &["run", "--strategy", &path],
        &["describe", &path],
        &["watch", &path],
        &["eval", &path],
        &["bench", "info", &path],
    ] {
        let out = nasfw(dir, args);
        for text in [&out.stdout, &out.stderr] {
            let text = String::from_utf8_lossy(text);
            assert_eq!(printable(&text), text, "{args:?}");
        }
    }
    let html = fs::read_to_string(dir.join("r.html")).unwrap();
    let shown = printable(&html);
    let first = html.chars().zip(shown.chars()).position(|(a, b)| a != b);
    let around: String = html
        .chars()
        .skip(first.unwrap_or(0).saturating_sub(60))
        .take(90)
        .collect();
    assert!(shown == html, "{around:?}");
}
