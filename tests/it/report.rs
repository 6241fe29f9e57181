//! Figures and reports of real runs, as files and in a browser.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nasfw::framework::events::Event;
use nasfw::framework::run::{EVENTS, RESULT, read_events};
use serde_json::{Value, json};

use crate::program::{good, nasfw};

/// A name that must never become markup.
const NAME: &str = "<script>alert(1)<b> & \"q\"";

/// A short search in `dir/runs/NAME`.
fn run(dir: &Path, name: &str) -> PathBuf {
    let set = [
        "--strategy",
        "vim",
        "--space",
        "toy-planted",
        "--device",
        "cpu",
        "--epochs",
        "2",
        "--set",
        "trainer.architecture_every=2",
        "--set",
        "trainer.log_every=2",
        "--name",
        name,
    ];
    good(dir, &[&["run"][..], &set].concat());
    dir.join("runs").join(name)
}

#[test]
fn figures_and_reports_of_runs() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let run = run(dir, NAME);
    let path = run.to_str().unwrap();
    let list = good(dir, &["figure", path]);
    for kind in [
        "weights",
        "distribution",
        "pictures",
        "entropy",
        "curves",
        "trajectory",
    ] {
        assert!(list.lines().any(|l| l.starts_with(kind)), "{kind}: {list}");
        let svg = good(dir, &["figure", path, kind]);
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    }
    // The same data gives the same bytes, in another process.
    let again = || good(dir, &["figure", path, "curves"]);
    assert_eq!(again(), again());
    // A line per candidate and a point per event, in the figure of a row.
    let svg = good(dir, &["figure", path, "weights", "--edge", "row 1"]);
    // Rows keep their names when the trainer's options are others than when the run was made.
    let config = fs::read_to_string(run.join("run.json")).unwrap();
    let older = config.replacen("\"trainer\": {", "\"trainer\": {\"gone\": 1,", 1);
    assert_ne!(older, config);
    fs::write(run.join("run.json"), older).unwrap();
    assert_eq!(
        good(dir, &["figure", path, "weights", "--edge", "row 1"]),
        svg
    );
    fs::write(run.join("run.json"), config).unwrap();
    let moments = read_events(&run.join(EVENTS)).unwrap();
    let mut steps: Vec<u64> = moments
        .iter()
        .filter_map(|e| match e {
            Event::Architecture { step, .. } => Some(*step),
            _ => None,
        })
        .collect();
    steps.dedup();
    let lines: Vec<&str> = svg
        .split("<path d=\"")
        .skip(1)
        .map(|p| p.split('"').next().unwrap())
        .collect();
    assert_eq!(lines.len(), 4, "toy-planted has four candidates");
    for line in lines {
        assert_eq!(line.matches(['M', 'L']).count(), steps.len(), "{line}");
    }
    good(dir, &["figure", path, "entropy", "-o", "e.png"]);
    assert!(image::open(dir.join("e.png")).unwrap().width() > 500);

    // Twice the same page; the run's name stays text; nothing is fetched.
    let said = good(dir, &["report", path]);
    assert!(said.contains("report.html"), "{said}");
    let page = fs::read_to_string(dir.join("report.html")).unwrap();
    good(dir, &["report", path, "-o", "again.html"]);
    assert!(page == fs::read_to_string(dir.join("again.html")).unwrap());
    assert!(page.contains("&lt;script&gt;alert(1)&lt;b&gt; &amp; "));
    // One script, which is the report's own.
    assert!(page.matches("<script").count() == 1 && !page.contains("<b> &amp;"));
    for outside in ["src=", "url(http", "@import", "<link"] {
        assert!(!page.contains(outside), "{outside}");
    }
    // What differs from the defaults is told.
    assert!(page.contains("trainer.architecture_every"));

    // A drawing as wide as a cell of DARTS, for the browser.
    let result = fs::read_to_string(run.join(RESULT)).unwrap();
    let mut wide: Value = serde_json::from_str(&result).unwrap();
    let edge = |from: usize| json!({"from": from, "op": "sep_conv_5x5"});
    let nodes = (2..6).map(|node: usize| json!({"inputs": [edge(node - 2), edge(node - 1)]}));
    wide["genotype"]["cells"] = json!([{
        "name": "normal", "inputs": ["previous but one", "previous"], "nodes": nodes.collect::<Vec<_>>(),
        "output": [2, 3, 4, 5],
    }]);
    fs::write(run.join(RESULT), wide.to_string()).unwrap();
    good(dir, &["report", path]);
    let wide = fs::read_to_string(dir.join("report.html")).unwrap();

    // A run that was cut off, and one that somebody works on.
    fs::remove_file(run.join("result.json")).unwrap();
    good(dir, &["report", path]);
    let cut = fs::read_to_string(dir.join("report.html")).unwrap();
    assert!(cut.contains("nasfw resume") && cut.contains("would be derived now"));
    let lock = fs::File::create(run.join(".lock")).unwrap();
    lock.lock().unwrap();
    good(dir, &["report", path]);
    assert!(
        fs::read_to_string(dir.join("report.html"))
            .unwrap()
            .contains("still going")
    );

    in_a_browser(dir, &wide);
}

/// docs/studies/vim.md shows what its recorded runs give.
#[test]
fn the_studys_figures_come_from_its_recorded_runs() {
    let study = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/studies/vim");
    for (figure, run, kind, edge) in [
        ("pictures", "confirmation-104", "pictures", None),
        ("weights", "confirmation-104", "weights", None),
        ("distribution", "confirmation-104", "distribution", None),
        ("ingredients", "vim-ingredients", "weights", Some("0->3")),
        ("regret", "vim-1shot1", "regret", None),
        (
            "darts-space",
            "vim-darts-space",
            "weights",
            Some("normal/0->2"),
        ),
    ] {
        let shown = study.join("figures").join(figure).with_extension("svg");
        let run = study.join(run);
        let mut line = vec!["figure", run.to_str().unwrap(), kind];
        line.extend(edge.iter().flat_map(|edge| ["--edge", edge]));
        assert_eq!(
            good(&study, &line),
            fs::read_to_string(shown).unwrap(),
            "{figure}"
        );
    }
}

#[test]
fn what_is_wrong_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let run = run(dir, "r");
    fs::create_dir(dir.join("empty")).unwrap();
    let cut = dir.join("runs/cut");
    fs::create_dir(&cut).unwrap();
    for file in ["run.json", "config.toml", "events.jsonl"] {
        fs::copy(run.join(file), cut.join(file)).unwrap();
    }
    fs::write(cut.join("result.json"), "{\"genotype\":").unwrap();
    for (args, code, says) in [
        (&["figure", "nowhere"][..], 4, "this is no run folder"),
        (&["report", "empty"], 4, "this is no run folder"),
        (
            &["report", "runs/cut"],
            4,
            "result.json: it can't be understood",
        ),
        (
            &["figure", "runs/r", "wieghts"],
            2,
            "did you mean `weights`?",
        ),
        (
            &["figure", "runs/r", "weights", "--edge", "x"],
            2,
            "no such row or group",
        ),
        (
            &["figure", "runs/r", "weights", "-o", "f.gif"],
            2,
            "`.svg`, `.png` or `.pdf`",
        ),
        (
            &["report", "runs/r", "-o", "no/such/folder.html"],
            5,
            "cannot write",
        ),
        (&["report"], 2, "required"),
    ] {
        let out = nasfw(dir, args);
        let text = String::from_utf8_lossy(&out.stderr).replace("\n    ", " ");
        assert_eq!(out.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.contains(says), "{args:?}: {text}");
    }
}

#[test]
fn a_report_of_a_comparison() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let plan = "strategies = [\"darts\"]\nspaces = [\"toy-planted\"]\nseeds = 2\n\
                budgets = [{ unit = \"steps\", amount = 4 }]\n[set]\ndevice = \"cpu\"\n\
                \"trainer.architecture_every\" = 2\n";
    fs::write(dir.join("plan.toml"), plan).unwrap();
    let early = nasfw(dir, &["report", "plan.toml"]);
    let text = String::from_utf8_lossy(&early.stderr).into_owned();
    assert_eq!(early.status.code(), Some(4), "{text}");
    assert!(text.contains("has not begun"), "{text}");

    good(dir, &["compare", "plan.toml"]);
    let list = good(dir, &["figure", "runs/plan"]);
    assert!(list.contains("regret") && list.contains("ranks"), "{list}");
    good(dir, &["figure", "runs/plan", "--all", "figures/of/it"]);
    let bytes = |name: &str| fs::read(dir.join("figures/of/it").join(name)).unwrap();
    for name in [
        "regret",
        "ranks",
        "curves",
        "weights",
        "darts-curves",
        "random-curves",
    ] {
        assert!(bytes(&format!("{name}.svg")).starts_with(b"<svg"), "{name}");
    }
    // One strategy here has weights, so the panel is the run's own.
    let (first, trial) = ("toy-planted-4steps-s0", "runs/plan/trials/darts-");
    let run = format!("{trial}{first}");
    let row = good(dir, &["figure", &run, "weights", "--edge", "row 1"]);
    let other = good(dir, &["figure", "runs/plan", "weights", "--edge", "row 1"]);
    assert_eq!(row, other);
    let wrong = nasfw(dir, &["figure", "runs/plan", "weights", "--edge", "x"]);
    assert!(!wrong.status.success());
    good(dir, &["report", "plan.toml", "-o", "a.html"]);
    good(dir, &["report", "runs/plan", "-o", "b.html"]);
    let page = fs::read_to_string(dir.join("a.html")).unwrap();
    assert!(page == fs::read_to_string(dir.join("b.html")).unwrap());
    assert!(page.contains("random-architectures (control)"));
    assert!(page.contains("<section id=\"trial-1\">") && page.contains("href=\"#trial-1\""));
    assert!(!page.contains("not complete"));

    // Cut off: the comparison is what is there so far.
    fs::remove_file(dir.join("runs/plan/comparison.json")).unwrap();
    let results = Command::new("find")
        .args(["runs/plan", "-name", "result.json"])
        .current_dir(dir)
        .output()
        .unwrap();
    let results = String::from_utf8(results.stdout).unwrap();
    assert_eq!(results.lines().count(), 6);
    fs::remove_file(dir.join(results.lines().next().unwrap())).unwrap();
    good(dir, &["report", "runs/plan", "-o", "c.html"]);
    let page = fs::read_to_string(dir.join("c.html")).unwrap();
    assert!(page.contains("not complete"), "a trial has no result");
}

/// Chromium, where it is: the page is taken as it is meant, asks for nothing, says nothing on the console and is no
/// wider than a phone, on which the text of its drawing, too wide for it, can be read.
fn in_a_browser(dir: &Path, page: &str) {
    let browser = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| {
            Command::new(name)
                .arg("--version")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|s| s.success())
        });
    let Some(browser) = browser else {
        let line = "SKIPPED: figures_and_reports_of_runs: no Chromium to look at the page with";
        println!("{line}");
        if let Some(log) = std::env::var_os("NASFW_SKIP_LOG") {
            use std::io::Write;
            let mut log = fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(log)
                .unwrap();
            writeln!(log, "{line}").unwrap();
        }
        return;
    };
    // The page within a frame as wide as a phone; what it measures there becomes the outer page's text.
    fs::write(dir.join("page.html"), page).unwrap();
    let outer = r#"<!DOCTYPE html><iframe id="f" src="page.html" style="width:390px;height:800px;border:0"></iframe>
<pre id="out"></pre><script>
document.getElementById('f').onload = e => {
  const d = e.target.contentDocument;
  const drawings = [...d.querySelectorAll('.cells svg')];
  const scale = s => s.getBoundingClientRect().width / s.viewBox.baseVal.width;
  document.getElementById('out').textContent = 'TOO WIDE BY ' + (d.documentElement.scrollWidth - d.documentElement.clientWidth)
    + ' FIGURES ' + d.querySelectorAll('figure svg[role=img]').length
    + ' DRAWN ' + Math.max(...drawings.map(s => s.viewBox.baseVal.width)) + ' TEXT '
    + Math.min(...drawings.map(s => parseFloat(s.getAttribute('font-size')) * scale(s))).toFixed(1)
    + ' SCRIPTS ' + d.scripts.length
    + ' SORTS ' + (d.querySelectorAll('table.sortable th button').length > 0)
    + ' FETCHED ' + e.target.contentWindow.performance.getEntriesByType('resource').length;
};
</script>"#;
    fs::write(dir.join("outer.html"), outer).unwrap();
    let out = Command::new("timeout")
        .args([
            "60",
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
        ])
        .args([
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
        ])
        .args([
            "--disable-sync",
            "--allow-file-access-from-files",
            "--enable-logging=stderr",
        ])
        .args(["--virtual-time-budget=5000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", dir.join("profile").display()))
        .arg(format!("file://{}", dir.join("outer.html").display()))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&out.stdout).into_owned();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(dom.contains("TOO WIDE BY 0 "), "{dom}\n{said}");
    assert!(dom.contains("SCRIPTS 1 SORTS true FETCHED 0"), "{dom}");
    assert!(!dom.contains("FIGURES 0"), "{dom}");
    let measured = |what: &str| -> f64 {
        let (_, after) = dom.split_once(what).unwrap();
        after.split_whitespace().next().unwrap().parse().unwrap()
    };
    assert!(measured("DRAWN ") > 400.0, "{dom}");
    assert!(measured("TEXT ") >= 10.0, "{dom}");
    assert!(!said.contains("CONSOLE"), "{said}");
}
