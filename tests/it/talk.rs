//! How the program talks: how much, with colours or not, and soon.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nasfw::framework::registry::{Kind, Registry};
use serde_json::Value;

use crate::program::{good, kept, nasfw, tiny};

#[test]
fn quiet_leaves_results_and_errors_and_verbose_says_more() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let usual = tiny(dir, "usual", &[]);
    assert!(usual.status.success(), "{usual:?}");
    assert!(text(&usual.stderr).contains("run folder: runs/usual"));
    assert!(text(&usual.stdout).contains("\nnext:\n"));
    assert!(!text(&usual.stderr).contains("DEBUG"));

    for (name, more) in [("before", &["-q"][..]), ("long", &["--quiet"])] {
        let quiet = tiny(dir, name, more);
        assert!(quiet.status.success(), "{quiet:?}");
        assert_eq!(text(&quiet.stderr), "");
        let said = text(&quiet.stdout);
        assert!(
            said.contains(&format!("result: runs/{name}/result.json")),
            "{said}"
        );
        assert!(!said.contains("next:"), "{said}");
    }
    // Files are the same.
    let lines = |name: &str| {
        let text = fs::read_to_string(dir.join("runs").join(name).join("events.jsonl")).unwrap();
        text.lines().count()
    };
    assert_eq!(lines("usual"), lines("long"));

    let loud = tiny(dir, "loud", &["-v"]);
    assert!(
        text(&loud.stderr).contains("DEBUG"),
        "{}",
        text(&loud.stderr)
    );
    for words in [&["-q", "describe", "nothing"][..], &["-q", "describe"]] {
        let out = nasfw(dir, words);
        assert_eq!(out.status.code(), Some(2));
        assert!(!out.stderr.is_empty());
    }
}

#[test]
fn colours_are_as_the_option_and_the_environment_say() {
    let dir = tempfile::tempdir().unwrap();
    let coloured = |option: Option<&str>, variables: &[(&str, &str)], words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nasfw"));
        for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
            command.env_remove(name);
        }
        command.args(option.map(|when| format!("--color={when}")));
        let out = command
            .args(words)
            .envs(variables.iter().copied())
            .env("TERM", "xterm")
            .current_dir(dir.path())
            .output()
            .unwrap();
        [out.stdout, out.stderr].concat().contains(&0x1b)
    };
    let no = ("NO_COLOR", "1");
    let force = ("CLICOLOR_FORCE", "1");
    for words in [
        &["describe", "nothing"][..],
        &["list", "--help"],
        &["--help"],
    ] {
        for (option, variables, wanted) in [
            // Nothing here is a terminal.
            (None, &[][..], false),
            (Some("auto"), &[], false),
            (Some("always"), &[], true),
            (Some("never"), &[], false),
            (None, &[force], true),
            (None, &[("CLICOLOR_FORCE", "0")], false),
            (None, &[force, ("CLICOLOR", "0")], true),
            (None, &[no, force], false),
            (None, &[("NO_COLOR", ""), force], true),
            (Some("always"), &[no], true),
            (Some("never"), &[force], false),
        ] {
            let found = coloured(option, variables, words);
            assert_eq!(found, wanted, "{option:?} {variables:?} {words:?}");
        }
    }
}

#[test]
fn lists_have_singular_names_and_break_between_words() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (one, many) in [
        ("strategy", "strategies"),
        ("space", "spaces"),
        ("dataset", "datasets"),
        ("benchmark", "benchmarks"),
        ("trainer", "trainers"),
        ("tracker", "trackers"),
        ("proxy", "proxies"),
    ] {
        assert_eq!(good(dir, &["list", one]), good(dir, &["list", many]));
    }
    let narrow = Command::new(env!("CARGO_BIN_EXE_nasfw"))
        .arg("list")
        .env("COLUMNS", "70")
        .output()
        .unwrap();
    let narrow = String::from_utf8(narrow.stdout).unwrap();
    assert!(
        narrow.lines().all(|line| line.chars().count() <= 70),
        "{narrow}"
    );
    // Whole words, in their order.
    let words: Vec<&str> = narrow.split_whitespace().collect();
    let wide = good(dir, &["list"]);
    assert_eq!(words, wide.split_whitespace().collect::<Vec<_>>());
    let registry = Registry::load().unwrap();
    let summary = registry.get(Kind::Strategy, "vim").unwrap().summary;
    assert!(wide.contains(summary));
}

/// What is said to people fits into the terminal, has the same words as ever, and no command in two pieces.
#[test]
fn sentences_are_broken_between_words() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let said = |columns: Option<&str>, words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nasfw"));
        command.args(words).current_dir(dir).env_remove("COLUMNS");
        let out = kept(command.envs(columns.map(|c| ("COLUMNS", c))))
            .output()
            .unwrap();
        String::from_utf8([out.stdout, out.stderr].concat()).unwrap()
    };
    // Bars are between the pieces of a message, marks before each piece of a comment; times are never the same.
    let words = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .filter(|line| !line.contains(" in this process"));
        let words = lines.flat_map(str::split_whitespace);
        let words = words.filter(|word| !["|", "#", "help:"].contains(word));
        let text = words.collect::<Vec<_>>().join(" ");
        // How fast a step was differs, too.
        let (before, step) = text.split_once("step 1/1").unwrap_or((text.as_str(), ""));
        let (_, after) = step
            .split_once("steps/s")
            .or(step.split_once("a step"))
            .unwrap_or_default();
        (before.to_owned() + after)
            .split(' ')
            .map(str::to_owned)
            .collect()
    };
    let search = "run --space toy-conv --epochs 1 --threads 1 --set dataset.images=64 --name";
    let search = |name: &'static str| search.split(' ').chain([name]).collect::<Vec<_>>();
    let cases = [
        (vec!["describe", "nothing"], vec!["describe", "nothing"]),
        (vec!["describe", "vim"], vec!["describe", "vim"]),
        (vec!["doctor"], vec!["doctor"]),
        (
            vec!["run", "--limit", "mac=3M"],
            vec!["run", "--limit", "mac=3M"],
        ),
        (search("narrow"), search("broad_")),
    ];
    for (narrow, broad) in cases {
        let (shown, wide) = (said(Some("60"), &narrow), said(None, &broad));
        assert_eq!(
            words(&shown),
            words(&wide.replace("broad_", "narrow")),
            "{narrow:?}"
        );
        let long = |text: &str| text.lines().filter(|l| l.chars().count() > 60).count();
        assert!(long(&wide) > 0, "{wide}");
        for line in shown.lines().filter(|line| line.chars().count() > 60) {
            let setting = line.contains(" = ") && !line.starts_with('#');
            let one = line.split_whitespace().count() < 3;
            assert!(
                setting || one || line.contains("nasfw "),
                "{narrow:?}: {line}"
            );
        }
        for command in wide.split('`').skip(1).step_by(2) {
            assert!(shown.contains(command), "{command}: {shown}");
        }
    }
}

/// What the help of `run` says is a setting's default is what `config show` has without any option.
#[test]
fn defaults_in_the_help_are_those_of_the_settings() {
    let dir = tempfile::tempdir().unwrap();
    let help = good(dir.path(), &["run", "--help"]);
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let settings = good(dir.path(), &["config", "show", "--toml"]);
    let settings: toml::Table = settings.parse().unwrap();
    for (option, key) in [
        ("--strategy", "strategy"),
        ("--space", "space"),
        ("--seed", "seed"),
        ("--device", "device"),
        ("--threads", "threads"),
        ("--out", "out"),
    ] {
        let about = help.split(&format!("{option} <")).nth(1).unwrap();
        let said = about.split("[default: ").nth(1).unwrap();
        let said = said.split(']').next().unwrap();
        let value = &settings[key];
        let value = value.get("name").unwrap_or(value);
        let value = value.as_str().map_or(value.to_string(), str::to_owned);
        assert_eq!(said, value, "{option}");
    }
}

/// Whoever waits sees within seconds that the search is at work, how fast, and for how long; also where no step is
/// reported for a long time.
#[test]
fn a_search_says_soon_how_fast_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let line = "run --strategy darts --space toy-conv --name long --threads 1 --epochs 100000 --set \
                trainer.log_every=1000000 --set trainer.architecture_every=0 --set trainer.checkpoint_every=1000000 \
                --set dataset.images=60000 --set trainer.batch_size=2";
    let mut child = Command::new(env!("CARGO_BIN_EXE_nasfw"))
        .args(line.split_whitespace())
        .current_dir(dir.path())
        .env("NASFW_NO_PROGRESS", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = child.stderr.take().unwrap();
    let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
    let began = lines
        .find(|l| l.starts_with("run folder: "))
        .map(|_| Instant::now());
    let first = lines.find(|l| l.starts_with("step "));
    let took = began.unwrap().elapsed();
    let second = lines.find(|l| l.starts_with("step "));
    child.kill().unwrap();
    child.wait().unwrap();
    let (first, second) = (first.unwrap(), second.unwrap());
    assert!(took < Duration::from_secs(6), "{took:?}: {first}");
    assert!(
        second.contains("epoch 1") && second.ends_with(" left"),
        "{second}"
    );
    assert!(
        second.contains(" steps/s ") || second.contains(" s a step "),
        "{second}"
    );
    // What a program reads is by steps, as ever.
    let events = fs::read_to_string(dir.path().join("runs/long/events.jsonl")).unwrap();
    let kinds: Vec<Value> = events
        .lines()
        .filter_map(|l| serde_json::from_str(l).ok())
        .collect();
    assert!(kinds.iter().all(|e| e["event"] != "progress"), "{events}");
}
