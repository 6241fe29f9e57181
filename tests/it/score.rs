//! `nasfw score` and `nasfw rank --proxy`.

use std::fs;

use nasfw::framework::registry::{Kind, Registry};
use serde_json::Value;

use crate::program::{good, nasfw};
use crate::tables::made_up;

const CELL: &str =
    "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|avg_pool_3x3~2|";
const TINY: &str = "--channels 4 --cells 3 --batch 4 --dataset synthetic --set dataset.images=16 --set dataset.size=8 \
                    --device cpu --threads 1";

fn score(dir: &std::path::Path, architectures: &[&str], more: &str) -> Vec<Value> {
    score_on(TINY, dir, architectures, more)
}

fn score_on(images: &str, dir: &std::path::Path, architectures: &[&str], more: &str) -> Vec<Value> {
    let mut args = vec!["score", "--json"];
    args.extend(architectures);
    args.extend(images.split_whitespace().chain(more.split_whitespace()));
    serde_json::from_str(&good(dir, &args)).unwrap()
}

/// Every proxy of this program scores a published cell and a text, a file and a run's result as the same architecture.
#[test]
fn every_proxy_scores_architectures_of_every_form() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let names: Vec<&str> = Registry::load()
        .unwrap()
        .of(Kind::Proxy)
        .map(|p| p.name)
        .collect();
    let proxies: String = names
        .iter()
        .map(|name| format!(" --proxy {name}"))
        .collect();
    let json = good(dir, &["genotype", CELL]);
    fs::write(dir.join("cell.json"), &json).unwrap();
    fs::create_dir(dir.join("run")).unwrap();
    fs::write(
        dir.join("run/result.json"),
        format!("{{\"genotype\": {json}}}"),
    )
    .unwrap();
    let found = score(dir, &["DARTS_V2", CELL, "cell.json", "run"], &proxies);
    assert_eq!(found.len(), 4);
    for scored in &found {
        for name in &names {
            assert!(scored["scores"][name].is_number(), "{name}: {scored}");
        }
    }
    assert_eq!(found[0]["architecture"], "DARTS_V2");
    assert!(found[1]["scores"] == found[2]["scores"] && found[1]["scores"] == found[3]["scores"]);
    assert_ne!(found[0]["scores"], found[1]["scores"]);
    // As a table, too.
    let mut args = vec!["score", CELL];
    let more = format!("{TINY}{proxies}");
    args.extend(more.split_whitespace());
    let text = good(dir, &args);
    assert!(
        text.lines().count() == 2 && text.contains("synflow"),
        "{text}"
    );
}

#[test]
fn seeds_starts_and_settings_of_proxies() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let of = |more: &str| score(dir, &[CELL], more)[0]["scores"].clone();
    let plain = of("--proxy snip --proxy zen --proxy params");
    assert_eq!(plain, of("--proxy snip --proxy zen --proxy params"));
    let other = of("--proxy snip --proxy zen --proxy params --seed 1");
    assert!(plain["snip"] != other["snip"] && plain["params"] == other["params"]);
    // Images that are made up depend on the seed, too: here they are real.
    const IMAGES: &str =
        "--channels 4 --cells 3 --batch 4 --dataset fashion-mnist-mini --device cpu --threads 1";
    let number = |more: &str| {
        let scored = score_on(IMAGES, dir, &[CELL], &format!("--proxy snip {more}"));
        scored[0]["scores"]["snip"].as_f64().unwrap()
    };
    let both = number("--starts 2");
    assert!((both - (number("") + number("--seed 1")) / 2.0).abs() < 1e-9 * both.abs());
    let set = of("--proxy zen --set zen.repeats=2");
    assert_ne!(set["zen"], plain["zen"]);
    for (more, says) in [
        ("--proxy snap", "did you mean `snip`?"),
        ("", "no proxy is named"),
        ("--proxy zen --set zen.repeats=0", "proxy.repeats"),
        ("--proxy zen --set zen.repeat=3", "repeats"),
        ("--proxy zen --set zenrepeats", "KEY=VALUE"),
    ] {
        let mut args = vec!["score", CELL];
        args.extend(TINY.split_whitespace().chain(more.split_whitespace()));
        let out = nasfw(dir, &args);
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(
            out.status.code() == Some(2) && text.contains(says),
            "{more}: {text}"
        );
    }
}

/// Places of the values in order; there are no ties here.
fn places(values: &[f64]) -> Vec<f64> {
    values
        .iter()
        .map(|v| values.iter().filter(|w| *w < v).count() as f64)
        .collect()
}

/// A file that was begun is gone on with: what is in it is taken as it stands.
#[test]
fn proxies_are_ranked_beside_a_table_and_rows_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let table = made_up(dir, 1);
    let set = format!("benchmark.file={}", table.display());
    let rank = |count: &str, more: &[&str]| {
        let mut args = vec!["rank", "--space", "nasbench201", "--architectures", count];
        args.extend(["--json", "--csv", "scores.csv", "--set", &set]);
        args.extend("--proxy params --proxy l2-norm".split_whitespace());
        args.extend(
            TINY.replace("--cells 3", "--cells 1")
                .split_whitespace()
                .map(|s| &*s.to_owned().leak()),
        );
        args.extend(more);
        nasfw(dir, &args)
    };
    let out = rank("4", &[]);
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let begun = fs::read_to_string(dir.join("scores.csv")).unwrap();
    assert_eq!(begun.lines().count(), 5);
    assert!(
        begun.starts_with("architecture,test/cifar10,params,l2-norm\n|"),
        "{begun}"
    );
    let changed = begun.replacen(",0.0", ",7.0", 1);
    fs::write(dir.join("scores.csv"), &changed).unwrap();
    let out = rank("9", &[]);
    let json: Value = serde_json::from_slice(&out.stdout).unwrap();
    let rows = fs::read_to_string(dir.join("scores.csv")).unwrap();
    assert!(
        rows.starts_with(&changed) && rows.lines().count() == 10,
        "{rows}"
    );
    // Spearman's ρ by its formula, of l2 norms, which are all different; the table's values have ties.
    let column = |i: usize| -> Vec<f64> {
        let values = rows
            .lines()
            .skip(1)
            .map(|row| row.split(',').nth(i).unwrap().parse().unwrap());
        values.collect()
    };
    let (norms, accuracies) = (column(3), column(1));
    let mean_places = |values: &[f64]| -> Vec<f64> {
        let below = places(values);
        let same = |v: &f64| values.iter().filter(|w| *w == v).count() as f64;
        values
            .iter()
            .zip(below)
            .map(|(v, b)| b + (same(v) - 1.0) / 2.0)
            .collect()
    };
    let (x, y) = (mean_places(&norms), mean_places(&accuracies));
    let mean = (x.len() as f64 - 1.0) / 2.0;
    let dot = |a: &[f64], b: &[f64]| {
        a.iter()
            .zip(b)
            .map(|(a, b)| (a - mean) * (b - mean))
            .sum::<f64>()
    };
    let rho = dot(&x, &y) / (dot(&x, &x) * dot(&y, &y)).sqrt();
    let of = |name: &str| {
        json["proxies"]
            .as_array()
            .unwrap()
            .iter()
            .find(|p| p["proxy"] == name)
            .unwrap()
            .clone()
    };
    assert!(
        (of("l2-norm")["spearman"].as_f64().unwrap() - rho).abs() < 1e-12,
        "{json}"
    );
    assert_eq!(
        (&json["architectures"], &json["metric"]),
        (&9.into(), &"test/cifar10".into())
    );
    assert!(of("vote")["tau"].is_number());
    // Other columns are another file.
    let out = rank("4", &["--proxy", "flops"]);
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        !out.status.success() && text.contains("its columns are not"),
        "{text}"
    );
}
