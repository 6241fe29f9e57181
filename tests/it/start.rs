//! The tutorial, docs/start.md, typed as it stands there: pictures, search, report, training, export, and the same answer from
//! nasfw and from onnxruntime.
//!
//! `RECORD_START=1 cargo test --test it start` writes what the commands say, and the pictures, into the page.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::program::{good, python, skipped};

const PAGE: &str = "docs/start.md";
/// Pictures that the page shows, which the walk draws.
const DRAWN: [&str; 2] = ["cell.svg", "weights.svg"];
/// What a search decides is not told to the letter: processors round differently.
const DECIDED: [&str; 6] = ["node", "nodes", "output", "undecided", "decided", "WARN"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A part of the page: text, or a command with what it says.
enum Piece {
    Text(String),
    Typed { command: String, said: String },
}

/// The pieces of a page, line by line. A command stands behind `$ ` in a block `console`, and goes on where a line ends in `\`.
fn pieces(page: &str) -> Vec<Piece> {
    let (mut pieces, mut console, mut open) = (vec![], false, false);
    for line in page.split_inclusive('\n') {
        let is_fence = line.starts_with("```");
        console = if is_fence {
            line == "```console\n"
        } else {
            console
        };
        match pieces.last_mut() {
            Some(Piece::Typed { command, .. }) if open => *command += line,
            _ if console && line.starts_with("$ ") => pieces.push(Piece::Typed {
                command: line.to_owned(),
                said: String::new(),
            }),
            Some(Piece::Typed { said, .. }) if console => *said += line,
            Some(Piece::Text(text)) => *text += line,
            _ => pieces.push(Piece::Text(line.to_owned())),
        }
        open = console && line.ends_with("\\\n");
    }
    pieces
}

/// Types a command in a folder, with the program and the Python of the walk; what it says is that of a pipe, without progress.
fn typed(dir: &Path, command: &str) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_nasfw")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let line = command.strip_prefix("$ ").unwrap().trim_end();
    let out = Command::new("timeout")
        .args(["300", "sh", "-c", &format!("{{ {line}\n}} 2>&1")])
        .current_dir(dir)
        .env("PATH", format!("{}:{path}", program.display()))
        .env("NO_COLOR", "1")
        .env("XDG_CACHE_HOME", dir.join("cache"))
        .output()
        .unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{command}{said}");
    let lines = said.lines().filter(|line| !line.starts_with("step "));
    lines.map(|line| format!("{line}\n")).collect()
}

/// How the lines begin, without numbers: what is the same on every machine.
fn shape(said: &str) -> Vec<String> {
    let first = |line: &str| {
        line.split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let mut words: Vec<String> = said.lines().map(first).collect();
    words.retain(|word| !DECIDED.contains(&word.as_str()));
    for word in &mut words {
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            *word = "NUMBER".into();
        }
    }
    words
}

/// What was said by the command that begins with these words.
fn said_by<'a>(all: &'a [(String, String)], begin: &str) -> &'a str {
    let of = all
        .iter()
        .find(|(command, _)| command[2..].starts_with(begin));
    &of.unwrap_or_else(|| panic!("no `{begin}` in {PAGE}")).1
}

#[test]
fn the_tutorial_says_what_comes() {
    let Some(python) = python("onnxruntime", "ONNXRUNTIME_PYTHON") else {
        return skipped(
            "the_tutorial_says_what_comes",
            "no Python with onnxruntime in target/onnxruntime",
        );
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let environment = python.parent().and_then(Path::parent).unwrap();
    symlink(environment, dir.join("env")).unwrap();
    for folder in ["datasets", "examples"] {
        symlink(root().join(folder), dir.join(folder)).unwrap();
    }

    let page = fs::read_to_string(root().join(PAGE)).unwrap();
    let (mut recorded, mut all) = (String::new(), vec![]);
    for piece in pieces(&page) {
        match piece {
            Piece::Text(text) => recorded += &text,
            Piece::Typed { command, said } => {
                let found = typed(dir, &command);
                if std::env::var_os("RECORD_START").is_none() {
                    assert_eq!(shape(&found), shape(&said), "{command}{found}");
                }
                write!(recorded, "{command}{found}").unwrap();
                all.push((command, found));
            }
        }
    }
    if std::env::var_os("RECORD_START").is_some() {
        fs::write(root().join(PAGE), recorded).unwrap();
        let shown = root().join("docs/start");
        fs::create_dir_all(&shown).unwrap();
        for file in DRAWN {
            fs::copy(dir.join(file), shown.join(file)).unwrap();
        }
    }

    // Of three classes that look different, most pictures are known.
    let evaluated = said_by(&all, "nasfw eval");
    let top1 = evaluated
        .lines()
        .find_map(|line| line.strip_prefix("top-1"));
    let top1: f64 = top1.unwrap().trim().trim_end_matches('%').parse().unwrap();
    assert!(top1 > 60.0, "{evaluated}");
    let ours = said_by(&all, "nasfw predict runs/network");
    assert_eq!(ours.lines().count(), 4, "{ours}");
    for other in [
        "env/bin/python examples/own-images/classify.py",
        "nasfw predict network.onnx",
    ] {
        assert_eq!(ours, said_by(&all, other));
    }

    // Pictures of another shape are scaled and cut out, and networks that take raw pixels do the rest.
    let photo = dir.join("photo.png");
    let gradient = |x: u32, y: u32| image::Rgb([(3 * x) as u8, (5 * y) as u8, (x ^ y) as u8]);
    image::RgbImage::from_fn(83, 51, gradient)
        .save(&photo)
        .unwrap();
    let export = [
        "export",
        "runs/network",
        "--onnx",
        "raw.onnx",
        "--raw-pixels",
    ];
    good(dir, &export);
    let ours = percentages(&good(dir, &["predict", "runs/network", "photo.png"]));
    for model in ["network.onnx", "raw.onnx"] {
        let command = format!("$ env/bin/python examples/own-images/classify.py {model} photo.png");
        let theirs = percentages(&typed(dir, &command));
        for ((class, ours), (other, theirs)) in ours.iter().zip(&theirs) {
            // Scaled bytes may differ by one.
            assert!(
                class == other && (ours - theirs).abs() < 1.0,
                "{ours} {theirs}"
            );
        }
    }
}

/// Classes with percentages, below the name of the file.
fn percentages(said: &str) -> Vec<(String, f64)> {
    let of = |line: &str| {
        let (number, class) = line.split_once('%').unwrap();
        (class.trim().to_owned(), number.trim().parse().unwrap())
    };
    said.lines().skip(1).map(of).collect()
}

#[test]
fn the_tutorial_shows_the_script_that_is_there_and_what_it_needs() {
    let page = fs::read_to_string(root().join(PAGE)).unwrap();
    let script = fs::read_to_string(root().join("examples/own-images/classify.py")).unwrap();
    let shown = format!("<!-- classify -->\n```python\n{script}```\n<!-- /classify -->");
    assert!(page.contains(&shown), "{PAGE} shows another classify.py");
    let installed = fs::read_to_string(root().join("xtask/src/python.rs")).unwrap();
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix("env/bin/pip install "));
    for package in line.unwrap().split_whitespace() {
        let package = format!("\"{}\"", package.trim_matches('"'));
        assert!(
            installed.contains(&package),
            "the test has another {package}"
        );
    }
}
