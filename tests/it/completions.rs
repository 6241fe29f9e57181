//! `nasfw completions` and `nasfw man`: a shell that completes, and pages that a reader of manuals can show.

use std::fs;
use std::process::{Command, Stdio};

use nasfw::framework::registry::{Kind, Registry};

use crate::program::{good, nasfw, skipped};

/// The verbs that the help names.
fn verbs(help: &str) -> Vec<String> {
    let commands = help.split("Commands:\n").nth(1).unwrap();
    let commands = commands.split("\n\n").next().unwrap();
    let first = |line: &str| {
        let line = line.strip_prefix("  ").filter(|l| !l.starts_with(' '))?;
        line.split_whitespace().next().map(str::to_owned)
    };
    commands.lines().filter_map(first).collect()
}

#[test]
fn bash_completes_verbs_options_and_plugins() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let script = good(dir, &["completions", "bash"]);
    fs::write(dir.join("nasfw.bash"), &script).unwrap();
    let checked = Command::new("bash")
        .args(["-n", "nasfw.bash"])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");

    let complete = |words: &str| -> Vec<String> {
        let last = words.split(' ').count() - 1;
        let line = format!(
            "source ./nasfw.bash; COMP_WORDS=({words}); COMP_CWORD={last}; \
             set -- ${{COMP_WORDS[@]}}; _nasfw nasfw \"${{COMP_WORDS[{last}]}}\" \"${{COMP_WORDS[{}]}}\"; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            last - 1
        );
        let out = Command::new("bash")
            .args(["--norc", "-c", &line])
            .current_dir(dir)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        text.split_whitespace().map(str::to_owned).collect()
    };
    let help = good(dir, &["--help"]);
    let known = verbs(&help);
    assert!(known.len() > 20, "{help}");
    let completed = complete("nasfw ''");
    for verb in &known {
        assert!(completed.contains(verb), "{verb}: {completed:?}");
    }
    assert_eq!(complete("nasfw des"), ["describe"]);
    assert_eq!(complete("nasfw bench imp"), ["import"]);
    assert!(complete("nasfw run --strat").contains(&"--strategy".to_owned()));
    assert_eq!(complete("nasfw run --strategy pc-"), ["pc-darts"]);
    assert_eq!(complete("nasfw retrain --dataset cifar100"), ["cifar100"]);
    let strategies = complete("nasfw run --strategy ''");
    let registry = Registry::load().unwrap();
    for plugin in registry.of(Kind::Strategy) {
        assert!(
            strategies.iter().any(|s| s == plugin.name),
            "{}",
            plugin.name
        );
    }
}

#[test]
fn every_shell_gets_a_script_with_every_verb() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let known = verbs(&good(dir, &["--help"]));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = good(dir, &["completions", shell]);
        for verb in &known {
            assert!(script.contains(verb.as_str()), "{shell} lacks {verb}");
        }
    }
    assert_eq!(nasfw(dir, &["completions", "sh"]).status.code(), Some(2));
}

#[test]
fn every_verb_has_a_manual_page() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    good(dir, &["man", "-o", "pages"]);
    let mut expected: Vec<String> = verbs(&good(dir, &["--help"]));
    expected.retain(|verb| verb != "help");
    expected.extend(["bench-import", "bench-perf", "config-show"].map(str::to_owned));
    let pages: Vec<String> = expected
        .iter()
        .map(|verb| format!("nasfw-{verb}.1"))
        .collect();
    for page in pages.iter().chain([&"nasfw.1".to_owned()]) {
        let text = fs::read_to_string(dir.join("pages").join(page)).unwrap();
        assert!(
            text.contains(".TH ") && text.contains(".SH SYNOPSIS"),
            "{page}: {text}"
        );
    }
    let first = fs::read_to_string(dir.join("pages/nasfw.1")).unwrap();
    assert_eq!(good(dir, &["man"]).trim_end(), first.trim_end());

    let shown = Command::new("man")
        .args(["--warnings", "-l", "pages/nasfw-run.1"])
        .env("MANROFFOPT", "-Tascii")
        .env("LC_ALL", "C.UTF-8")
        .current_dir(dir)
        .output();
    match shown {
        Ok(out) if out.status.success() => {
            assert!(String::from_utf8_lossy(&out.stdout).contains("--strategy"));
        }
        _ => skipped(
            "every_verb_has_a_manual_page",
            "there is no `man` to show one",
        ),
    }
}
