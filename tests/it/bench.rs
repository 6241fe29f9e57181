//! Tables through the binary: import, look-up, and what a run keeps of them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use nasfw::framework::Error;
use nasfw::framework::config::RunConfig;
use nasfw::framework::events::Event;
use nasfw::framework::ranks::Ranks;
use nasfw::framework::run::{EVENTS, MANIFEST, RESULT, RUN, RunFolder, read_events};
use nasfw::framework::trainer::{Job, Outcome};
use serde_json::Value;

use crate::program::nasfw;

/// Standard output and error of a command that must end with `code`.
fn said(dir: &Path, code: i32, args: &[&str]) -> (String, String) {
    let out = nasfw(dir, args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&out.stdout), text(&out.stderr));
    assert_eq!(out.status.code(), Some(code), "{args:?}: {stdout}{stderr}");
    // Lines are wrapped for people.
    let plain = stderr
        .split_whitespace()
        .filter(|w| *w != "|")
        .collect::<Vec<_>>()
        .join(" ");
    (stdout, plain)
}

fn search(dir: &Path, name: &str, space: &str, more: &[&str]) -> (String, String) {
    let mut args = vec![
        "run",
        "--strategy",
        "darts",
        "--space",
        space,
        "--dataset",
        "synthetic",
    ];
    args.extend([
        "--epochs",
        "2",
        "--device",
        "cpu",
        "--threads",
        "1",
        "--out",
        ".",
        "--name",
        name,
    ]);
    for set in [
        "space.channels=2",
        "dataset.images=96",
        "trainer.batch_size=12",
    ] {
        args.extend(["--set", set]);
    }
    args.extend(more);
    said(dir, 0, &args)
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// A CSV of one model of NAS-Bench-101, in the form of the partial table.
fn csv_of(pruned: &Value, correct: u32) -> String {
    let matrix = pruned["matrix"].as_array().unwrap();
    let mut bits = 0u64;
    for (x, row) in matrix.iter().enumerate() {
        for (y, edge) in row.as_array().unwrap().iter().enumerate() {
            if edge == 1 {
                bits |= 1 << (x + y * (y - 1) / 2);
            }
        }
    }
    let ops: String = pruned["ops"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|op| match op.as_str().unwrap() {
            "conv3x3-bn-relu" => Some('0'),
            "conv1x1-bn-relu" => Some('1'),
            "maxpool3x3" => Some('2'),
            _ => None,
        })
        .collect();
    format!(
        "hash,vertices,adj_bits,ops,params,train_time_108_s,val_acc_4,val_acc_12,val_acc_36,val_acc_108\n\
         {},{},{bits},{ops},1000,10.5,1000,2000,3000,{correct}\n",
        pruned["hash"].as_str().unwrap(),
        matrix.len(),
    )
}

#[test]
fn a_partial_table_in_a_run_that_is_resumed_step_by_step() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let space = "nasbench1shot1-s3";

    // Without a table: a hint, and a result without regret.
    let (_, hint) = search(dir, "without", space, &[]);
    assert!(
        hint.contains("`nasfw bench import nasbench101 FILE`"),
        "{hint}"
    );
    assert_eq!(hint.matches("bench import").count(), 1, "{hint}");
    let without = json(&dir.join("without").join(RESULT));
    assert!(
        without["benchmark"].is_null() && without["curve"].is_null() && without["known"].is_null()
    );

    // A table that knows just what this search finds.
    let pruned = &without["facts"]["nasbench101"]["pruned"];
    fs::write(dir.join("one.csv"), csv_of(pruned, 9_000)).unwrap();
    let (imported, _) = said(dir, 0, &["bench", "import", "nasbench101", "one.csv"]);
    assert!(imported.contains("1 of 423624 architectures"), "{imported}");
    let (text, progress) = search(dir, "whole", space, &[]);
    assert!(
        text.contains("regret is against the best of 1 of 423624 architectures"),
        "{text}"
    );
    let result = json(&dir.join("whole").join(RESULT));
    assert_eq!(result["genotype"], without["genotype"]);
    assert_eq!(result["known"], true);
    let valid = result["metrics"]["valid"].as_f64().unwrap();
    assert!((valid - 100.0 * 9_000.0 / 9_984.0).abs() < 1e-9);
    assert_eq!(result["regret"]["valid"], 0.0);

    // How far to trust it is said wherever it is shown.
    let outcome: Outcome = serde_json::from_value(result.clone()).unwrap();
    let remarks = outcome.remarks();
    let [undecided, .., rank, elsewhere] = remarks.as_slice() else {
        panic!("{remarks:?}");
    };
    assert!(undecided.contains("coin toss"), "{remarks:?}");
    assert!(rank.contains("rank 1 of the 1 in the table"), "{remarks:?}");
    assert!(
        elsewhere.contains("measured on cifar10, the search saw synthetic"),
        "{remarks:?}"
    );
    assert!(
        progress.contains("regret valid 0.0000 (rank 1 of 1)"),
        "{progress}"
    );
    said(dir, 0, &["report", "whole", "-o", "whole.html"]);
    let page = fs::read_to_string(dir.join("whole.html")).unwrap();
    let (frame, _) = said(dir, 0, &["watch", "whole", "--once"]);
    for remark in &remarks {
        assert!(text.contains(remark), "{remark}: {text}");
        assert!(page.contains(&format!("<li>{remark}.</li>")), "{remark}");
    }
    // A small frame has room for the first.
    assert!(
        frame.contains("undecided: the candidates weigh about"),
        "{frame}"
    );

    // The curve is what the events say.
    let curve = result["curve"].as_array().unwrap();
    let events = read_events(&dir.join("whole").join(EVENTS)).unwrap();
    let seen: Vec<_> = events
        .iter()
        .filter_map(|e| match e {
            Event::Architecture {
                epoch,
                genotype,
                regret,
                known,
                ..
            } => Some((*epoch, genotype, regret, *known)),
            _ => None,
        })
        .collect();
    assert_eq!(curve.len(), 3);
    for (point, (epoch, genotype, regret, known)) in curve.iter().zip(&seen) {
        assert_eq!(point["epoch"], *epoch);
        assert_eq!(point["known"], known.unwrap());
        assert_eq!(point["regret"], serde_json::to_value(regret).unwrap());
        assert_eq!(regret.is_some(), known.unwrap());
        if serde_json::to_value(genotype).unwrap() == result["genotype"] {
            assert_eq!(*known, Some(true));
        }
    }

    // The manifest names the table; what was searched is the same with and without.
    let info: Value =
        serde_json::from_str(&said(dir, 0, &["bench", "info", "nasbench101", "--json"]).0).unwrap();
    let manifest = json(&dir.join("whole").join(MANIFEST));
    assert_eq!(manifest["benchmark"], info["checksum"]);
    assert_eq!(result["benchmark"]["checksum"], info["checksum"]);
    let (queried, _) = said(
        dir,
        0,
        &["bench", "query", "nasbench101", "whole", "--json"],
    );
    let queried: Value = serde_json::from_str(&queried).unwrap();
    assert_eq!(
        queried["metrics"]["valid"]["value"],
        result["metrics"]["valid"]
    );

    // Another seed finds what the table lacks.
    let (text, _) = search(dir, "elsewhere", space, &["--seed", "77"]);
    let elsewhere = json(&dir.join("elsewhere").join(RESULT));
    assert_eq!(elsewhere["known"], false);
    assert!(elsewhere["regret"].is_null());
    assert!(
        text.contains("not in nasbench101 (1 of 423624 architectures"),
        "{text}"
    );
    let (_, lacks) = said(dir, 3, &["bench", "query", "nasbench101", "elsewhere"]);
    assert!(
        lacks.contains("it has 1 of 423624 architectures"),
        "{lacks}"
    );

    // A run that stops after every step ends with the same curve.
    let table = dir.join("cache/nasfw/tables/nasbench101.table");
    let file = format!("benchmark.file={}", table.display());
    search(dir, "named", space, &["--set", &file]);
    let mut config: Value = json(&dir.join("named").join(RUN));
    assert_eq!(json(&dir.join("named").join(RESULT)), result);
    config["common"]["out"] = "x".into();
    let config: RunConfig = serde_json::from_value(config).unwrap();
    let cut = RunFolder::create(dir, "cut").unwrap();
    cut.write_json(RUN, &config).unwrap();
    let flag = AtomicBool::new(true);
    let step = || {
        config.trainer.search(Job {
            config: &config,
            run: &cut,
            listeners: vec![],
            interrupt: &flag,
            ranks: Ranks::alone(),
        })
    };
    let mut interrupted = 0;
    while let Err(error) = step() {
        assert!(matches!(error, Error::Interrupted { .. }), "{error}");
        interrupted += 1;
    }
    assert!(interrupted > 2, "{interrupted}");
    assert_eq!(json(&dir.join("cut").join(RESULT)), result);

    // A run goes on with the table that it began with, or not at all.
    let unfinish = |name: &str| fs::remove_file(dir.join(name).join(RESULT)).unwrap();
    let good = fs::read(&table).unwrap();
    unfinish("whole");
    fs::remove_file(&table).unwrap();
    let (_, gone) = said(dir, 4, &["resume", "whole"]);
    assert!(
        gone.contains("began with is gone") && gone.contains("nasfw bench list"),
        "{gone}"
    );
    unfinish("named");
    let (_, gone) = said(dir, 3, &["resume", "named"]);
    assert!(gone.contains("nasbench101.table: cannot be read"), "{gone}");
    fs::write(dir.join("other.csv"), csv_of(pruned, 9_001)).unwrap();
    said(dir, 0, &["bench", "import", "nasbench101", "other.csv"]);
    let (_, other) = said(dir, 4, &["resume", "whole"]);
    assert!(
        other.contains("another one than this run began with"),
        "{other}"
    );
    fs::write(&table, good).unwrap();
    said(dir, 0, &["resume", "whole"]);
    assert_eq!(json(&dir.join("whole").join(RESULT)), result);
    // One that began without goes on without.
    unfinish("without");
    let (_, hint) = said(dir, 0, &["resume", "without"]);
    assert!(hint.contains("goes on without it"), "{hint}");
    assert_eq!(json(&dir.join("without").join(RESULT)), without);
}

/// What the made-up table says of an architecture, in thousandths of a percent.
fn made_up(key: &str, column: usize) -> u64 {
    let number = key.bytes().fold(0, |n, d| 5 * n + u64::from(d - b'0'));
    (number * 61 + column as u64 * 7_919) % 100_000
}

#[test]
fn a_complete_table_in_a_run_on_nas_bench_201() {
    let columns = "params_c10,params_c100,params_in16,macs_c10,c10_val200_s0,c10_val200_s1,c10_val200_s2,\
        c100_val200_s0,c100_val200_s1,c100_val200_s2,in16_val200_s0,in16_val200_s1,in16_val200_s2,c10_test200,\
        c100_test200,in16_test200,c10_val12,c10_test12,c100_val12,c100_test12,in16_val12,in16_test12,c10_train_s,\
        c100_train_s,in16_train_s,c10_latency_s";
    let test = columns.split(',').position(|c| c == "c10_test200").unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let mut csv = format!("ops,{columns}\n");
    let mut best = 0;
    for i in 0..15_625u32 {
        let key: String = (0..6)
            .map(|d| char::from(b'0' + (i / 5u32.pow(d) % 5) as u8))
            .collect();
        csv += &key;
        for column in 0..26 {
            let n = made_up(&key, column);
            write!(csv, ",{}.{:03}", n / 1000, n % 1000).unwrap();
        }
        csv += "\n";
        best = best.max(made_up(&key, test));
    }
    fs::write(dir.join("made-up.csv"), csv).unwrap();
    let (imported, _) = said(
        dir,
        0,
        &[
            "bench",
            "import",
            "nasbench201",
            "made-up.csv",
            "-o",
            "t.table",
        ],
    );
    assert!(imported.contains("all 15625 architectures"), "{imported}");
    said(dir, 0, &["bench", "verify", "t.table"]);
    search(
        dir,
        "run",
        "nasbench201",
        &["--set", "space.cells=1", "--set", "benchmark.file=t.table"],
    );

    let result = json(&dir.join("run").join(RESULT));
    let ops = [
        "none",
        "skip_connect",
        "nor_conv_1x1",
        "nor_conv_3x3",
        "avg_pool_3x3",
    ];
    let nodes = result["genotype"]["cells"][0]["nodes"].as_array().unwrap();
    let mut key = String::new();
    for (i, node) in nodes.iter().enumerate() {
        for from in 0..=i {
            let edge = node["inputs"]
                .as_array()
                .unwrap()
                .iter()
                .find(|e| e["from"] == from);
            let op = edge.map_or("none", |e| e["op"].as_str().unwrap());
            key += &ops.iter().position(|o| *o == op).unwrap().to_string();
        }
    }
    let expected = made_up(&key, test) as f64 / 1000.0;
    assert_eq!(result["metrics"]["test/cifar10"], expected, "{key}");
    assert_eq!(
        result["regret"]["test/cifar10"],
        best as f64 / 1000.0 - expected
    );
    assert_eq!(result["curve"].as_array().unwrap().len(), 3);
    assert_eq!(result["curve"][2]["metrics"], result["metrics"]);

    // The best within a limit, against all keys. A convolution of k × k has 9 or 1 · C² weights and a batch norm of C channels,
    // five cells in each of three stages; with 3 × 3 everywhere there are 1.531546 million (Dong and Yang 2020).
    let edge = |op: u8| {
        let kernel = match op {
            b'2' => 1,
            b'3' => 9,
            _ => return 0,
        };
        [16, 32, 64]
            .map(|c| 5 * (kernel * c * c + 2 * c))
            .iter()
            .sum::<i64>()
    };
    let params = |key: &str| 1_531_546 - 6 * edge(b'3') + key.bytes().map(edge).sum::<i64>();
    let keys = (0..15_625_u32).map(|i| {
        let digit = |d| char::from(b'0' + (i / 5_u32.pow(d) % 5) as u8);
        (0..6).rev().map(digit).collect::<String>()
    });
    let within: Vec<String> = keys.filter(|key| params(key) <= 600_000).collect();
    let most = within.iter().map(|key| made_up(key, test)).max().unwrap();
    let best = [
        "bench",
        "best",
        "--space",
        "nasbench201",
        "--limit",
        "params=600K",
        "--metric",
        "test/cifar10",
        "--set",
        "benchmark.file=t.table",
        "--json",
    ];
    let (best, _) = said(dir, 0, &best);
    let best: Value = serde_json::from_str(&best).unwrap();
    assert_eq!(best["known"], 15_625);
    assert_eq!(best["within"], within.len());
    let first = &best["best"][0];
    assert_eq!(first["metrics"]["test/cifar10"], most as f64 / 1000.0);
    assert!(first["costs"]["params"].as_f64().unwrap() <= 600_000.0);
    assert_eq!(best["best"].as_array().unwrap().len(), 3);
    assert_eq!(
        result["benchmark"]["optimum"],
        "the best of all 15625 architectures"
    );

    // All notations name the same row.
    fs::write(dir.join("genotype.json"), result["genotype"].to_string()).unwrap();
    let (string, _) = said(dir, 0, &["genotype", "run", "--format", "nasbench201"]);
    let queries = [key.as_str(), string.trim(), "run", "genotype.json"];
    let answers = queries.map(|q| said(dir, 0, &["bench", "query", "t.table", q]).0);
    assert!(
        answers[0].contains(&format!("test/cifar10                 {expected:.4} %")),
        "{}",
        answers[0]
    );
    assert!(answers.iter().all(|a| *a == answers[0]));

    // A flipped bit of a row.
    let mut bytes = fs::read(dir.join("t.table")).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(dir.join("t.table"), bytes).unwrap();
    let (_, corrupt) = said(dir, 3, &["bench", "verify", "t.table"]);
    assert!(
        corrupt.contains("rows are corrupt") && corrupt.contains("bench import nasbench201 FILE"),
        "{corrupt}"
    );
}

#[test]
fn what_is_wrong_is_said_with_what_to_type() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let refused = |code, args: &[&str]| said(dir, code, args).1;
    assert!(refused(2, &["bench", "info", "nasbench102"]).contains("did you mean"));
    assert!(
        refused(3, &["bench", "info", "nasbench201"])
            .contains("`nasfw bench import nasbench201 FILE`")
    );
    assert!(refused(3, &["bench", "verify", "nothing.table"]).contains("nasfw bench list"));
    fs::write(dir.join("foreign.table"), "PK").unwrap();
    assert!(refused(3, &["bench", "info", "foreign.table"]).contains("no table of nasfw"));
    assert!(
        refused(3, &["bench", "import", "nasbench201", "gone.csv"])
            .contains("gone.csv: cannot be read")
    );
    assert!(refused(2, &["bench", "import", "nasbench101", "a", "b"]).contains("it takes one"));
    fs::write(dir.join("a.csv"), "ops,colour\n").unwrap();
    assert!(
        refused(3, &["bench", "import", "nasbench201", "a.csv"])
            .contains("line 1: there is no column `colour`")
    );
    let (list, _) = said(dir, 0, &["bench", "list"]);
    assert_eq!(list.matches("not imported").count(), 2);
    assert!(
        list.contains(&format!(
            "{}",
            dir.join("cache/nasfw/tables/nasbench201.table").display()
        )),
        "{list}"
    );
    // A benchmark on a space that it does not know.
    let run = [
        "run",
        "--space",
        "toy-conv",
        "--set",
        "benchmark.name=nasbench201",
        "--out",
        ".",
    ];
    assert!(refused(2, &run).contains("benchmark `nasbench201` on space `toy-conv`"));
}
