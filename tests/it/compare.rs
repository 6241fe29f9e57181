//! `nasfw compare` and `nasfw rank`: whole comparisons by real processes, killed, interrupted, failing, and plans that
//! are refused.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nasfw::analysis::compare::{
    Comparison, Labels, Measured, Ranking, Setting, State, VerdictOutcome, figures,
};

use crate::program::{self, good, nasfw};

fn write(dir: &Path, text: &str) {
    fs::write(dir.join("plan.toml"), text).unwrap();
}

fn comparison(dir: &Path, name: &str) -> Comparison {
    let text = fs::read_to_string(dir.join("runs").join(name).join("comparison.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The controls, and DARTS on rows that can be judged one by one: a difference that is known to be there.
const PLANTED: &str = r#"
name = "planted"
seeds = 12
strategies = [{ name = "darts", settings = { strategy.arch.lr = 0.1 } }]
spaces = ["toy-planted"]
budgets = [{ unit = "steps", amount = 40 }]
rank = { architectures = 30, batches = 1 }
[set]
space.coupling = 0.0
device = "cpu"
threads = 1
"#;

/// A message without the line breaks of its box.
fn flat(text: &str) -> String {
    program::flat(text.as_bytes())
}

#[test]
fn a_whole_comparison_finds_what_was_planted_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), PLANTED);
    let said = good(dir.path(), &["compare", "plan.toml", "--jobs", "2"]);
    assert!(said.contains("darts: better than random"), "{said}");
    let c = comparison(dir.path(), "planted");
    assert!(!c.partial && c.trials.iter().all(|t| t.state == State::Done));
    assert_eq!(c.strategies, ["darts", "random", "random-architectures"]);
    assert_eq!(c.controls, ["random", "random-architectures"]);
    let s = &c.settings[0];
    assert_eq!((s.seeds.len(), s.pairs.len(), s.grid.len()), (12, 3, 101));
    assert_eq!((s.metric.as_deref(), s.grid[100]), (Some("value"), 40.0));
    let darts = &s.strategies[0];
    for verdict in &darts.verdicts {
        assert_eq!(verdict.outcome, VerdictOutcome::Better, "{said}");
    }

    // All of it once more, by hand, from what the runs left.
    for f in &s.strategies {
        for (i, seed) in s.seeds.iter().enumerate() {
            let trial = c
                .trials
                .iter()
                .find(|t| t.strategy == f.strategy && t.seed == *seed);
            let run = dir.path().join("runs/planted").join(&trial.unwrap().run);
            let result: serde_json::Value =
                serde_json::from_str(&fs::read_to_string(run.join("result.json")).unwrap())
                    .unwrap();
            assert_eq!(result["metrics"]["value"], f.metric.values[i]);
            assert_eq!(
                result["regret"]["value"],
                f.regret.as_ref().unwrap().values[i]
            );
            let curve = result["curve"].as_array().unwrap();
            // The regret at the end of every step, then their mean.
            let at = |step: u64| {
                let point = curve.iter().rfind(|p| p["step"].as_u64().unwrap() <= step);
                point.unwrap()["regret"]["value"].as_f64().unwrap()
            };
            let mean = (0..40).map(at).sum::<f64>() / 40.0;
            let area = f.anytime.as_ref().unwrap().area.values[i];
            assert!((mean - area).abs() < 1e-12, "{mean} {area}");
        }
    }
    // The toy's supernet is the landscape itself. Values that are equal in truth may differ in their last bit.
    let tau = darts.tau.as_ref().unwrap();
    assert!(tau.values.len() == 12 && tau.mean > 0.95, "{tau:?}");
    assert!(s.strategies[1..].iter().all(|f| f.tau.is_none()));

    // The null: one control against itself, under another name and with other seeds.
    let drawn: Vec<_> = c
        .trials
        .iter()
        .filter(|t| t.strategy == "random-architectures")
        .collect();
    let measured: Vec<Measured> = drawn
        .iter()
        .enumerate()
        .map(|(i, t)| {
            let mut result = (*t).clone();
            result.seed = t.seed / 2;
            result.strategy = ["one", "other"][i % 2].into();
            Measured {
                result,
                curve: None,
                tau: None,
            }
        })
        .collect();
    let labels = ["one", "other"].map(str::to_owned);
    let empty = Setting {
        strategies: vec![],
        pairs: vec![],
        notes: vec![],
        ranks: None,
        ..s.clone()
    };
    let labels = Labels {
        all: &labels,
        controls: &labels,
    };
    let null = figures(empty, &measured, labels, 0.05);
    assert_eq!(null.seeds.len(), 6);
    assert!(
        null.strategies[0]
            .sentence
            .starts_with("not distinguishable from other"),
        "{null:?}"
    );

    // Typed again, nothing runs and the same is said.
    assert_eq!(said, good(dir.path(), &["compare", "plan.toml"]));
    // A plan may grow, but not change.
    write(dir.path(), &PLANTED.replace("seeds = 12", "seeds = 13"));
    let out = nasfw(dir.path(), &["compare", "plan.toml", "--jobs", "2"]);
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.success() && text.contains("36 of 39 trials are done already"),
        "{text}"
    );
    assert_eq!(
        comparison(dir.path(), "planted").settings[0].seeds.len(),
        13
    );
    write(
        dir.path(),
        &PLANTED
            .replace("lr = 0.1", "lr = 0.2")
            .replace("seeds = 12", "seeds = 13"),
    );
    let out = nasfw(dir.path(), &["compare", "plan.toml"]);
    let text = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(4), "{text}");
    assert!(
        flat(&text).contains("`strategy.arch.lr` of darts was 0.1 and is 0.2"),
        "{text}"
    );
    write(dir.path(), PLANTED);
    let text = nasfw(dir.path(), &["compare", "plan.toml"]);
    let text = String::from_utf8_lossy(&text.stderr);
    assert!(
        flat(&text).contains("s12 is no longer in the plan"),
        "{text}"
    );

    // `rank` by itself.
    let run = "runs/planted/trials/darts-toy-planted-40steps-s0";
    let said = good(
        dir.path(),
        &[
            "rank",
            run,
            "--architectures",
            "10",
            "--seed",
            "5",
            "--json",
        ],
    );
    let ranking: Ranking = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (ranking.architectures.len(), ranking.metric.as_str()),
        (10, "value")
    );
    for (run, why) in [
        (
            "runs/planted/trials/random-toy-planted-40steps-s0",
            "learns no distribution",
        ),
        ("nowhere", "no run folder"),
    ] {
        let out = nasfw(dir.path(), &["rank", run]);
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && flat(&text).contains(why), "{text}");
    }
}

/// Of random search with parameter sharing the accuracy in its own supernet comes first by name; nobody else has one.
#[test]
fn a_strategys_own_figure_is_not_compared() {
    let plan = |metric: &str, spaces: &str| {
        format!(
            r#"
seeds = 2
strategies = ["rsps", "darts"]
spaces = [{spaces}]
budgets = [{{ unit = "steps", amount = 6 }}]
{metric}
set = {{ device = "cpu", threads = 1 }}
"#
        )
    };
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &plan("", "\"toy-planted\", \"toy-conv\""));
    let said = good(dir.path(), &["compare", "plan.toml", "--jobs", "2"]);
    assert!(
        said.contains("toy-planted, 6 steps: value, 2 seeds\n"),
        "{said}"
    );
    assert!(
        flat(&said).contains("`value` is compared, the first by name"),
        "{said}"
    );
    assert!(
        flat(&said).contains("darts has none; random has none; random-architectures has none; rsps has supernet-accuracy"),
        "{said}"
    );
    let c = comparison(dir.path(), "plan");
    assert_eq!(c.settings[0].metric.as_deref(), Some("value"));
    assert_eq!(
        (c.settings[0].strategies.len(), &c.settings[1].metric),
        (4, &None)
    );

    write(
        dir.path(),
        &plan(
            "metric = \"supernet-accuracy\"",
            "\"toy-planted\", \"toy-conv\"",
        ),
    );
    let out = nasfw(dir.path(), &["compare", "plan.toml"]);
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(
        !out.status.success() && flat(&text).contains("random has value; random-architectures has value; rsps has supernet-accuracy, value"),
        "{text}"
    );
    assert!(
        flat(&text).contains("`metric` of the plan can be value"),
        "{text}"
    );
}

/// Trials that are long enough to be disturbed.
const LONG: &str = r#"
name = "long"
seeds = [3]
strategies = ["vim"]
spaces = ["toy-conv"]
budgets = [{ unit = "steps", amount = 60 }]
[set]
device = "cpu"
threads = 1
trainer.checkpoint_every = 7
trainer.log_every = 1
"#;

fn begin(dir: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_nasfw"))
        .args(["compare", "plan.toml", "--jobs", "2"])
        .current_dir(dir)
        .env("XDG_CACHE_HOME", dir.join("cache"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until the first trial has made so many steps.
fn wait_for_steps(dir: &Path, child: &mut Child, steps: usize) {
    let began = Instant::now();
    let log = dir.join("runs/long/trials/vim-toy-conv-60steps-s3/events.jsonl");
    let made = || fs::read_to_string(&log).map_or(0, |l| l.matches("\"progress\"").count());
    while made() < steps {
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        assert!(
            began.elapsed() < Duration::from_secs(100),
            "it does not move"
        );
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// Processes whose parent is `pid`.
fn children(pid: u32) -> Vec<u32> {
    let stat = |pid: u32| fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    let all = fs::read_dir("/proc").unwrap();
    all.filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok())
        .filter(|p| {
            let fields = stat(*p).and_then(|s| Some(s.rsplit_once(')')?.1.to_owned()));
            fields.is_some_and(|f| f.split_whitespace().nth(1) == Some(&pid.to_string()))
        })
        .collect()
}

fn kill(pid: u32, signal: i32) {
    // SAFETY: the process is ours and has not been waited for, or is a child of such a one.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

#[test]
fn a_comparison_survives_kill_9_of_all_or_of_the_parent_alone_and_ctrl_c() {
    let whole = tempfile::tempdir().unwrap();
    write(whole.path(), LONG);
    good(whole.path(), &["compare", "plan.toml"]);
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), LONG);

    // Everything at once, as when the power goes.
    let mut parent = begin(dir.path());
    wait_for_steps(dir.path(), &mut parent, 9);
    let own = children(parent.id());
    assert!(!own.is_empty());
    kill(parent.id(), libc::SIGSTOP);
    own.iter().for_each(|c| kill(*c, libc::SIGKILL));
    kill(parent.id(), libc::SIGKILL);
    parent.wait().unwrap();

    // The parent alone, with the next comparison begun at once: it has to wait for the children that still save.
    let mut parent = begin(dir.path());
    wait_for_steps(dir.path(), &mut parent, 20);
    kill(parent.id(), libc::SIGKILL);
    parent.wait().unwrap();

    // Ctrl-C.
    let mut parent = begin(dir.path());
    wait_for_steps(dir.path(), &mut parent, 35);
    kill(parent.id(), libc::SIGINT);
    let out = parent.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(130), "{text}");
    assert!(
        flat(&text).contains("to go on, type the same command again: nasfw compare plan.toml"),
        "{text}"
    );
    let so_far = comparison(dir.path(), "long");
    assert!(so_far.partial && so_far.settings[0].seeds.is_empty());
    assert!(
        so_far.trials.iter().any(|t| t.state == State::Unfinished),
        "{so_far:?}"
    );

    let out = begin(dir.path()).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{text}");
    let log = fs::read_to_string(
        dir.path()
            .join("runs/long/logs/vim-toy-conv-60steps-s3.log"),
    )
    .unwrap();
    let step = log.split("going on from step ").nth(1).expect("it goes on");
    let step: u64 = step.split_whitespace().next().unwrap().parse().unwrap();
    assert!(step >= 35, "Ctrl-C saved the step that it came at: {step}");
    assert_eq!(
        comparison(dir.path(), "long"),
        comparison(whole.path(), "long")
    );
    for trial in comparison(whole.path(), "long").trials {
        let result = |dir: &Path| {
            fs::read(dir.join("runs/long").join(&trial.run).join("result.json")).unwrap()
        };
        assert_eq!(result(dir.path()), result(whole.path()));
    }
}

/// A step that a trial's newest process reported.
fn last_step(events: &Path, kind: &str) -> Option<u64> {
    let text = fs::read_to_string(events).ok()?;
    let mut lines = text.lines().rev();
    let line = lines.find(|l| l.contains(&format!("\"event\":\"{kind}\"")))?;
    let event: serde_json::Value = serde_json::from_str(line).unwrap();
    event["step"].as_u64()
}

/// As Slurm does: every process of the job gets the signal, and what `compare` passes on comes on top.
#[test]
fn a_signal_to_every_process_of_a_comparison_loses_no_step() {
    let dir = tempfile::tempdir().unwrap();
    let budgets = "[{ unit = \"steps\", amount = 4 }, { unit = \"steps\", amount = 50000 }]";
    let plan = LONG.replace("[{ unit = \"steps\", amount = 60 }]", budgets);
    write(
        dir.path(),
        &plan.replace("checkpoint_every = 7", "checkpoint_every = 100000"),
    );
    let trials = dir.path().join("runs/long/trials");
    // The short trials come first: of the strategy and of the controls, which every plan has.
    let long = ["vim", "random"].map(|s| format!("{s}-toy-conv-50000steps-s3"));
    let events = |id: &str| trials.join(id).join("events.jsonl");
    let mut saved = [0, 0];
    for parent_first in [false, true] {
        let mut parent = begin(dir.path());
        let began = Instant::now();
        for (id, saved) in long.iter().zip(saved) {
            while last_step(&events(id), "progress").is_none_or(|step| step < saved + 3) {
                assert!(parent.try_wait().unwrap().is_none(), "it ended too early");
                assert!(
                    began.elapsed() < Duration::from_secs(100),
                    "{id} does not move"
                );
                std::thread::sleep(Duration::from_millis(3));
            }
        }
        let mut all = children(parent.id());
        assert_eq!(all.len(), 2);
        all.insert(if parent_first { 0 } else { 2 }, parent.id());
        all.iter().for_each(|process| kill(*process, libc::SIGTERM));
        let out = parent.wait_with_output().unwrap();
        let text = flat(&String::from_utf8_lossy(&out.stderr));
        assert_eq!(out.status.code(), Some(130), "{text}");

        let so_far = comparison(dir.path(), "long");
        let done = so_far.trials.iter().filter(|t| t.state == State::Done);
        let (done, all) = (done.count(), so_far.trials.len());
        assert_eq!((done, all), (all / 2, 2 * so_far.strategies.len()));
        let last = format!("interrupted with {done} of {all} trials done; those at work are saved");
        assert!(
            text.contains(&last) && !text.contains("did not end as asked"),
            "{text}"
        );
        for (id, saved) in long.iter().zip(&mut saved) {
            let trial = so_far.trials.iter().find(|t| t.run.ends_with(id)).unwrap();
            assert_eq!(trial.state, State::Unfinished);
            // The second process went on from where the first one was interrupted.
            assert_eq!(last_step(&events(id), "started"), Some(*saved));
            let text = fs::read_to_string(events(id)).unwrap();
            assert!(
                text.lines().last().unwrap().contains("\"interrupted\""),
                "{id}: {text}"
            );
            let step = last_step(&events(id), "interrupted").unwrap();
            assert_eq!(last_step(&events(id), "progress"), Some(step));
            assert!(step >= *saved + 3);
            *saved = step;
        }
    }
}

#[test]
fn a_failing_trial_ends_no_other_and_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        r#"
seeds = 2
strategies = [{ name = "darts", settings = { trainer.weights.lr = 1e38, trainer.weights.clip = 0.0 } }]
spaces = ["toy-planted"]
budgets = [{ unit = "steps", amount = 20 }]
set = { device = "cpu", threads = 1 }
"#,
    );
    for _ in 0..2 {
        let out = nasfw(dir.path(), &["compare", "plan.toml"]);
        let text = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(4), "{text}");
        assert!(
            text.contains("2 of 6 trials failed") && text.contains("not finite"),
            "{text}"
        );
        let c = comparison(dir.path(), "plan");
        assert!(c.partial && c.settings[0].strategies.is_empty());
        for t in &c.trials {
            let failed = t.strategy == "darts";
            assert_eq!(t.state, if failed { State::Failed } else { State::Done });
            assert_eq!(
                t.error.as_ref().is_some_and(|e| e.contains("not finite")),
                failed
            );
        }
        let said = String::from_utf8_lossy(&out.stdout);
        assert!(
            said.contains("partial: 4 of 6 trials are done, 2 failed"),
            "{said}"
        );
    }
}

#[test]
fn bad_plans_are_refused_with_their_place_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let plan = "seeds = 2\nstrategies = [\"darts\"]\nspaces = [\"toy-planted\"]\nbudgets = [{ unit = \"steps\", amount = 5 }]\n";
    let cases = [
        (
            "seeds = 2",
            "sead = 2",
            "plan.toml:1:",
            "did you mean `seeds`?",
        ),
        ("seeds = 2", "seeds = 0", "plan.toml:1:", "at least one"),
        (
            "seeds = 2",
            "seeds = [1, 1]",
            "plan.toml:1:",
            "1 comes twice",
        ),
        (
            "seeds = 2",
            "seeds = \"two\"",
            "plan.toml:1:",
            "a number of seeds, or a list of seeds",
        ),
        (
            "seeds = 2",
            "seeds = 2\nlevel = 5",
            "plan.toml:2:",
            "it must be above 0 and below 1",
        ),
        ("seeds = 2", "seeds = [", "plan.toml:", "TOML"),
        (
            "\"darts\"",
            "\"drats\"",
            "plan.toml:2:",
            "did you mean `darts`?",
        ),
        (
            "\"darts\"",
            "3",
            "plan.toml:2:",
            "a strategy's name, or a table",
        ),
        (
            "\"darts\"",
            "\"darts\", \"darts\"",
            "plan.toml:2:",
            "comes twice",
        ),
        (
            "\"darts\"",
            "{ name = \"darts\", labl = \"d\" }",
            "plan.toml:2:",
            "did you mean `label`?",
        ),
        (
            "\"darts\"",
            "{ name = \"vim\", label = \"random\" }",
            "plan.toml:2:",
            "is that of a control",
        ),
        (
            "\"darts\"",
            "{ name = \"darts\", settings = { lr = 1 } }",
            "plan.toml:2:",
            "full keys",
        ),
        (
            "\"darts\"",
            "{ name = \"darts\", settings = { strategy.arch.rl = 1 } }",
            "plan.toml:2:",
            "did you mean `strategy.arch.lr`?",
        ),
        (
            "\"darts\"",
            "{ name = \"darts\", preset = \"x\" }",
            "plan.toml:2:",
            "has no preset `x`",
        ),
        (
            "\"toy-planted\"",
            "\"toy-plantde\"",
            "plan.toml:3:",
            "did you mean `toy-planted`?",
        ),
        (
            "\"toy-planted\"",
            "\"none.toml\"",
            "",
            "none.toml can't be read",
        ),
        (
            "\"steps\"",
            "\"step\"",
            "plan.toml:4:",
            "did you mean `steps`?",
        ),
        (
            "\"steps\"",
            "\"none\"",
            "plan.toml:4:",
            "it must be \"steps\"",
        ),
        ("amount = 5", "amount = 0", "plan.toml:4:", "at least 1"),
        (
            "amount = 5 }]",
            "amount = 5 }]\nset = { seed = 3 }",
            "plan.toml:5:",
            "this is said by `seeds`",
        ),
        (
            "amount = 5 }]",
            "amount = 5 }]\n[set]\ntrainer.batch_size = 1",
            "plan.toml:6:",
            "it must be from 2 to 1048576",
        ),
        (
            "amount = 5 }]",
            "amount = 5 }]\n[set]\ntrainer.batch_size = \"x\"",
            "plan.toml:6:",
            "invalid type",
        ),
    ];
    for (from, to, place, why) in cases {
        assert!(plan.contains(from));
        write(dir.path(), &plan.replace(from, to));
        let out = nasfw(dir.path(), &["compare", "plan.toml"]);
        let text = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{to}: {text}");
        assert!(
            text.contains(place) && flat(&text).contains(why),
            "{to}: {place} {why}\n{text}"
        );
        assert!(!dir.path().join("runs").exists(), "{to}");
    }
    let out = nasfw(dir.path(), &["compare", "none.toml"]);
    assert_eq!(out.status.code(), Some(2));

    write(dir.path(), plan);
    let said = good(dir.path(), &["compare", "plan.toml", "--dry-run"]);
    assert!(
        said.contains("6 trials in runs/plan") && said.matches("nasfw run ").count() == 6,
        "{said}"
    );
    // Seed after seed.
    let seeds: Vec<bool> = said.lines().take(6).map(|l| l.contains("seed=1")).collect();
    assert_eq!(seeds, [false, false, false, true, true, true]);
    assert!(!dir.path().join("runs").exists());
}

#[test]
fn the_example_plans_are_plans() {
    let dir = tempfile::tempdir().unwrap();
    let plans = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/comparisons");
    let mut count = 0;
    for plan in fs::read_dir(plans).unwrap() {
        let plan = plan.unwrap().path();
        let said = good(
            dir.path(),
            &["compare", plan.to_str().unwrap(), "--dry-run"],
        );
        assert!(said.contains("random-architectures"), "{said}");
        count += 1;
    }
    assert!(count >= 4, "{count}");
    assert!(!dir.path().join("runs").exists());
}
