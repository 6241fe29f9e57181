use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::nasbench201::{FAMILY, NasBench201};
use super::super::source;
use super::{benchmark, closed, data, genotype, import, import_bytes, mean, refused};
use crate::formats;

const COLUMNS: &str = "idx,ops,params_c10_reported,params_c10,params_c100,params_in16,macs_c10,\
    c10_val200_s0,c10_val200_s1,c10_val200_s2,c100_val200_s0,c100_val200_s1,c100_val200_s2,\
    in16_val200_s0,in16_val200_s1,in16_val200_s2,c10_test200,c100_test200,in16_test200,c10_val12,\
    c10_test12,c100_val12,c100_test12,in16_val12,in16_test12,c10_train_s,c100_train_s,in16_train_s,\
    c10_latency_s";

/// Name of the metric, and number of the repeat, that a column becomes.
fn metric(column: &str) -> Option<(String, usize)> {
    let dataset = |short: &str| match short {
        "c10" => "cifar10",
        "c100" => "cifar100",
        _ => "imagenet16-120",
    };
    let (left, right) = column.split_once('_')?;
    Some(match (left, right) {
        ("params", "c10_reported") => return None,
        ("params", d) => (format!("params/{}", dataset(d)), 0),
        ("macs", d) => (format!("macs/{}", dataset(d)), 0),
        (d, "test200") => (format!("test/{}", dataset(d)), 0),
        (d, "val12") => (format!("valid/{}@12", dataset(d)), 0),
        (d, "test12") => (format!("test/{}@12", dataset(d)), 0),
        (d, "train_s") => (format!("train-seconds/{}", dataset(d)), 0),
        (d, "latency_s") => (format!("latency-seconds/{}", dataset(d)), 0),
        (d, seed) => (
            format!("valid/{}", dataset(d)),
            seed.strip_prefix("val200_s")?.parse().unwrap(),
        ),
    })
}

/// Compares every number of a CSV text with what its table answers.
fn equals_csv(table: &super::Table, csv: &str) -> usize {
    let mut lines = csv.lines();
    let columns: Vec<&str> = lines.next().unwrap().split(',').collect();
    let ops = columns.iter().position(|c| *c == "ops").unwrap();
    let places: Vec<Option<(usize, usize)>> = columns
        .iter()
        .map(|c| {
            let (name, repeat) = metric(c)?;
            let at = table.header().metrics.iter().position(|m| m.name == name);
            Some((at.unwrap(), repeat))
        })
        .collect();
    let mut rows = 0;
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        let row = table.row(fields[ops].as_bytes()).unwrap().unwrap();
        for (field, place) in fields.iter().zip(&places) {
            if let Some((at, repeat)) = *place {
                let expected: Option<f64> = (!field.is_empty()).then(|| field.parse().unwrap());
                assert_eq!(row.repeats[at][repeat], expected, "{line}");
            }
        }
        rows += 1;
    }
    rows
}

#[test]
fn the_published_table_is_kept_number_by_number() {
    let Some(path) = data("nasbench201.csv.gz") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let table = import(&FAMILY, &[&path], &dir).unwrap();
    table.verify().unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut source::open(&path).unwrap(), &mut text).unwrap();
    assert_eq!(equals_csv(&table, &text), 15_625);

    let header = table.header();
    assert!(header.complete());
    for (name, best) in [
        ("cifar10", 94.373),
        ("cifar100", 73.513),
        ("imagenet16-120", 47.311),
    ] {
        let found = header.optimum[&format!("test/{name}")];
        assert!((found - best).abs() < 6e-4, "{name}: {found}");
    }
    // What a search that collapses finds.
    for (name, test) in [
        ("cifar10", 54.30),
        ("cifar100", 15.61),
        ("imagenet16-120", 16.32),
    ] {
        let found = mean(&table, b"111111", &format!("test/{name}")).unwrap();
        assert!((found - test).abs() < 0.006, "{name}: {found}");
    }
    assert!(table.bytes() < 2_000_000);

    let config = NasBench201 {
        file: table.path().into(),
    };
    let known = benchmark(&config, "nasbench201").unwrap().unwrap();
    assert_eq!(
        known.provenance().checksum.as_deref(),
        Some(table.checksum())
    );
    let skips = cell([1; 6]);
    let score = known.query(&skips).unwrap().unwrap();
    assert_eq!(score.seconds, Some(574.06));
    assert_eq!(score.facts["params/cifar10"], 73_306.0);
    assert_eq!(score.metrics.len(), 12);
    let seeds = (39.632 + 39.836 + 39.84) / 3.0;
    assert!((score.metrics["valid/cifar10"] - seeds).abs() < 1e-9);
}

#[test]
fn the_published_pickles_agree_with_the_table() {
    let names = ["cifar10", "cifar100", "imagenet"];
    let pickles: Option<Vec<_>> = names.iter().map(|n| data(&format!("{n}.pkl"))).collect();
    let (Some(pickles), Some(csv)) = (pickles, data("nasbench201.csv.gz")) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let paths: Vec<&Path> = pickles.iter().map(|p| p.as_path()).collect();
    let pickled = import(&FAMILY, &paths, &dir).unwrap();
    let other = tempfile::tempdir().unwrap();
    let table = import(&FAMILY, &[&csv], &other).unwrap();
    assert!(pickled.header().complete());
    for i in 0..15_625u32 {
        let key: Vec<u8> = (0..6).map(|d| b'0' + (i / 5u32.pow(d) % 5) as u8).collect();
        for name in ["cifar10", "cifar100", "imagenet16-120"] {
            let metric = format!("valid/{name}");
            let (a, b) = (mean(&pickled, &key, &metric), mean(&table, &key, &metric));
            // The CSV is rounded to four decimals.
            assert!(
                (a.unwrap() - b.unwrap()).abs() < 5.1e-5,
                "{metric}: {a:?}, {b:?}"
            );
        }
    }
}

/// A cell by the convention of genotypes: `none` is no edge.
fn cell(digits: [usize; 6]) -> nasfw_framework::arch::Genotype {
    let ops = [
        "none",
        "skip_connect",
        "nor_conv_1x1",
        "nor_conv_3x3",
        "avg_pool_3x3",
    ];
    let edges = [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)];
    let nodes: Vec<Value> = (1..=3)
        .map(|node| {
            let inputs: Vec<Value> = edges
                .iter()
                .zip(digits)
                .filter(|((to, _), digit)| *to == node && *digit != 0)
                .map(|((_, from), digit)| json!({ "from": from, "op": ops[digit] }))
                .collect();
            json!({ "inputs": inputs })
        })
        .collect();
    genotype(json!({
        "space": "nasbench201",
        "cells": [{ "name": "cell", "inputs": ["input"], "nodes": nodes, "output": [3] }]
    }))
}

#[test]
fn a_published_string_is_its_key() {
    let text = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|none~2|";
    let read = formats::read(text).unwrap();
    assert_eq!(read, cell([3, 0, 4, 1, 2, 0]));
    let key = (FAMILY.key)(&read).unwrap().unwrap();
    assert_eq!(key, b"304120");
    assert_eq!((FAMILY.show_key)(&key), text);
    assert_eq!((FAMILY.parse_key)("304120"), Some(key));
    for none in ["304125", "30412", "3041200", text] {
        assert_eq!((FAMILY.parse_key)(none), None);
    }
}

#[test]
fn what_is_no_cell_has_no_key_and_what_is_of_another_space_is_an_error() {
    let mut two_on_an_edge = cell([1; 6]);
    let again = two_on_an_edge.cells[0].nodes[0].inputs[0].clone();
    two_on_an_edge.cells[0].nodes[0].inputs.push(again);
    let mut unknown = cell([1; 6]);
    unknown.cells[0].nodes[2].inputs[0].op = Some("sep_conv_3x3".into());
    let mut output = cell([1; 6]);
    output.cells[0].output = vec![2, 3];
    for none in [two_on_an_edge, unknown, output] {
        assert_eq!((FAMILY.key)(&none).unwrap(), None);
    }
    let mut foreign = cell([1; 6]);
    foreign.space = "darts".into();
    assert_eq!((FAMILY.key)(&foreign).unwrap_err().exit_code(), 2);
}

/// A CSV of rows given as key and other fields.
fn csv(rows: &BTreeMap<String, Vec<String>>) -> String {
    let mut text = COLUMNS.to_owned() + "\n";
    for (i, (key, fields)) in rows.iter().enumerate() {
        text += &format!("{i},{key},7,{}\n", fields.join(","));
    }
    text
}

fn row(value: &str) -> Vec<String> {
    vec![value.into(); 26]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn import_and_query_return_what_the_csv_says(
        rows in proptest::collection::btree_map(
            "[0-4]{6}",
            proptest::collection::vec("[0-9]{1,7}|[0-9]{1,3}\\.[0-9]{1,6}|", 26),
            1..30,
        ),
    ) {
        let text = csv(&rows);
        let (table, _dir) = import_bytes(&FAMILY, "a.csv", text.as_bytes()).unwrap();
        prop_assert_eq!(equals_csv(&table, &text), rows.len());
        prop_assert_eq!(table.header().rows, rows.len() as u64);
        table.verify().unwrap();
    }

    #[test]
    fn a_standing_is_the_place_among_all_rows(
        values in proptest::collection::btree_map("[0-4]{6}", 0u32..20, 1..25),
    ) {
        let rows = values.iter().map(|(key, v)| (key.clone(), row(&format!("{v}.5")))).collect();
        let (table, _dir) = import_bytes(&FAMILY, "a.csv", csv(&rows).as_bytes()).unwrap();
        let config = NasBench201 { file: table.path().into() };
        let known = benchmark(&config, "nasbench201").unwrap().unwrap();
        prop_assert!(known.datasets().contains(&"cifar10".to_owned()));
        let mean = values.values().map(|v| f64::from(*v) + 0.5).sum::<f64>() / values.len() as f64;
        for (key, mine) in &values {
            let digits: Vec<usize> = key.bytes().map(|b| usize::from(b - b'0')).collect();
            let score = known.query(&cell(digits.try_into().unwrap())).unwrap().unwrap();
            let standing = known.standing(&score).unwrap()["test/cifar10"];
            let better = values.values().filter(|v| *v > mine).count() as u64;
            prop_assert_eq!((standing.rank, standing.of), (better + 1, values.len() as u64));
            prop_assert!((standing.mean - mean).abs() < 1e-9);
        }
    }

    #[test]
    fn keys_of_genotypes_strings_and_digits_agree(digits in proptest::array::uniform6(0usize..5)) {
        let key: String = digits.iter().map(ToString::to_string).collect();
        let genotype = cell(digits);
        prop_assert_eq!((FAMILY.key)(&genotype).unwrap().unwrap(), key.as_bytes());
        let shown = (FAMILY.show_key)(key.as_bytes());
        prop_assert_eq!(formats::read(&shown).unwrap(), genotype);
    }

    #[test]
    fn damaged_pickles_do_not_end_the_program(at in 0usize..1_000, byte in any::<u8>(), cut in 0usize..1_000) {
        let mut bytes = pickle(&sample());
        let (at, cut) = (at % bytes.len(), cut % bytes.len());
        let whole = bytes.clone();
        bytes[at] = byte;
        let _ = import_bytes(&FAMILY, "cifar10.pkl", &bytes);
        let truncated = refused(&FAMILY, "cifar10.pkl", &[&[0x80], &whole[1..cut.max(1)]].concat());
        prop_assert!(truncated.contains("no pickle of the published form"), "{}", truncated);
    }
}

#[test]
fn wrong_csv_is_refused_with_the_line() {
    let refused = |text: String| refused(&FAMILY, "a.csv", text.as_bytes());
    let rows = BTreeMap::from([
        ("012340".to_owned(), row("1")),
        ("012341".to_owned(), row("2")),
    ]);
    let good = csv(&rows);
    assert!(import_bytes(&FAMILY, "a.csv", good.as_bytes()).is_ok());
    assert!(
        refused(good.replace("c10_val12", "c10_val13"))
            .contains("line 1: there is no column `c10_val13`")
    );
    assert!(refused(good.replace("idx", "ops")).contains("two columns are called `ops`"));
    let missing = refused("ops,c10_val12\n000000,1\n".into());
    assert!(
        missing.contains("columns are missing: c10_val200_s0"),
        "{missing}"
    );
    assert!(refused(good.replace("012341", "01234x")).contains("line 3, column `ops`"));
    assert!(
        refused(good.replace("012341", "012340"))
            .contains("line 3, column `ops`: this architecture has been seen")
    );
    assert!(refused(good.replace(",2,2,", ",2,two,")).contains("line 3, column `"));
    assert!(refused(good.replace(",2,2,", ",2,inf,")).contains("`inf` is no number"));
    assert!(refused(good.trim_end().trim_end_matches(",2").into()).contains("line: 3"));
    assert!(refused(COLUMNS.to_owned() + "\n").contains("it has no rows"));
    assert!(refused(String::new()).contains("columns are missing"));
    assert!(refused("\u{1f}\u{8b}".into()).contains("line 1"));
    // A gzip file that is cut.
    let cut = super::refused(&FAMILY, "a.csv.gz", &[0x1f, 0x8b, 8, 0, 0]);
    assert!(
        cut.contains("line 1") || cut.contains("cannot be read"),
        "{cut}"
    );
}

/// The official files are recognised, whatever they are called.
#[test]
fn official_files_are_recognised() {
    let torch = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.";
    for (name, content, words) in [
        ("NAS-Bench-201-v1_1-096897.pth", &torch[..], "torch.save"),
        (
            "new.pth",
            b"PK\x03\x04\x00\x00archive/data.pkl",
            "torch.save",
        ),
        (
            "NATS-tss-v1_0-3ffb9.pickle.pbz2",
            b"BZh91AY&SY",
            "NATS-Bench's pickles",
        ),
    ] {
        let text = refused(&FAMILY, name, content);
        assert!(
            text.contains(words) && text.contains("authors' own Python package"),
            "{text}"
        );
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("000000.pickle.pbz2"), "BZh9").unwrap();
    let error = import(&FAMILY, &[dir.path()], &dir).unwrap_err();
    assert!(error.to_string().contains("as NATS-Bench's is"), "{error}");
    assert!(
        error
            .help()
            .unwrap()
            .contains("bench import nasbench201 nasbench201.csv")
    );
}

/// A megabyte of gzip that is a gigabyte of one line, or of one quotation: the line is refused, not held.
#[test]
fn a_line_without_an_end_is_refused() {
    use std::io::Write;
    let rows = BTreeMap::from([("012340".to_owned(), row("1"))]);
    for begin in [String::new(), csv(&rows), csv(&rows) + "\""] {
        for byte in [b'1', b'\n', b','] {
            let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::best());
            gzip.write_all(begin.as_bytes()).unwrap();
            gzip.write_all(&vec![byte; 300_000]).unwrap();
            let text = refused(&FAMILY, "a.csv.gz", &gzip.finish().unwrap());
            assert!(
                text.contains("line is longer than 64 KiB"),
                "{byte}: {text}"
            );
        }
    }
}

/// A million values that wait on the stack.
#[test]
fn a_pickle_that_only_piles_up_is_refused() {
    let piled = [&b"\x80\x04"[..], &vec![b'}'; 3 << 20], b"."].concat();
    let text = refused(&FAMILY, "cifar10.pkl", &piled);
    assert!(text.contains("more than two million values"), "{text}");
}

type Sample = BTreeMap<&'static str, BTreeMap<&'static str, Vec<f64>>>;

fn sample() -> Sample {
    let one = |x: f64, seeds| {
        BTreeMap::from([
            ("train_time", vec![x; seeds]),
            (
                "val_acc",
                (0..seeds).map(|s| 90.0 + x + s as f64 / 8.0).collect(),
            ),
            ("latency", vec![0.01; seeds]),
            ("model_size", vec![0.1; seeds]),
        ])
    };
    BTreeMap::from([("421211", one(1.5, 3)), ("000000", one(0.25, 2))])
}

/// As Python's pickle module writes it: protocol 4, a frame, texts numbered and referred to again.
fn pickle(sample: &Sample) -> Vec<u8> {
    let mut numbers: BTreeMap<&str, u8> = BTreeMap::new();
    let mut next = 0;
    let mut body = vec![b'}', 0x94, b'('];
    next += 1;
    fn text(t: &'static str, body: &mut Vec<u8>, numbers: &mut BTreeMap<&str, u8>, next: &mut u8) {
        if let Some(n) = numbers.get(t) {
            body.extend([b'h', *n]);
            return;
        }
        body.extend([0x8c, t.len() as u8]);
        body.extend(t.bytes());
        body.push(0x94);
        numbers.insert(t, *next);
        *next += 1;
    }
    for (key, one) in sample {
        text(key, &mut body, &mut numbers, &mut next);
        body.extend([b'}', 0x94, b'(']);
        next += 1;
        for (name, values) in one {
            text(name, &mut body, &mut numbers, &mut next);
            body.extend([b']', 0x94, b'(']);
            next += 1;
            for v in values {
                body.push(b'G');
                body.extend(v.to_be_bytes());
            }
            body.push(b'e');
        }
        body.push(b'u');
    }
    body.extend(b"u.");
    [
        &[0x80, 4, 0x95][..],
        &(body.len() as u64).to_le_bytes(),
        &body,
    ]
    .concat()
}

#[test]
fn a_pickle_is_read_like_the_published_ones() {
    let bytes = pickle(&sample());
    let (table, dir) = import_bytes(&FAMILY, "cifar100.pkl", &bytes).unwrap();
    assert!(!table.header().complete());
    assert_eq!(mean(&table, b"421211", "valid/cifar100"), Some(91.625));
    let seeds = &table.row(b"000000").unwrap().unwrap().repeats[0];
    assert_eq!(seeds, &[Some(90.25), Some(90.375), None]);
    assert_eq!(mean(&table, b"421211", "train-seconds/cifar100"), Some(1.5));
    assert_eq!(
        mean(&table, b"421211", "latency-seconds/cifar100"),
        Some(0.01)
    );
    assert_eq!(table.row(b"111111").unwrap(), None);

    // Several datasets; one of them lacks an architecture.
    let mut fewer = sample();
    fewer.remove("000000");
    let first = dir.path().join("cifar10.pkl");
    std::fs::write(&first, pickle(&fewer)).unwrap();
    let both = import(&FAMILY, &[&first, &dir.path().join("cifar100.pkl")], &dir).unwrap();
    assert_eq!(mean(&both, b"000000", "valid/cifar10"), None);
    assert_eq!(mean(&both, b"000000", "valid/cifar100"), Some(90.3125));
    assert_eq!(mean(&both, b"421211", "valid/cifar10"), Some(91.625));
    assert!(import(&FAMILY, &[&first, &first], &dir).is_err());
    let renamed = dir.path().join("svhn.pkl");
    std::fs::write(&renamed, &bytes).unwrap();
    let error = import(&FAMILY, &[&renamed], &dir).unwrap_err().to_string();
    assert!(error.contains("name says its dataset"), "{error}");
}

#[test]
fn a_hostile_pickle_is_an_error() {
    let refused = |bytes: &[u8]| refused(&FAMILY, "cifar10.pkl", bytes);
    // Calls os.system.
    let call = b"\x80\x04c__builtin__\neval\n(\x8c\x011tR.";
    assert!(
        refused(call).contains("instruction 0x63"),
        "{}",
        refused(call)
    );
    // A million lists in each other, and a million dictionaries.
    let deep = [
        &b"\x80\x04"[..],
        &vec![b']'; 1 << 20],
        &vec![b'a'; 1 << 20],
        b".",
    ]
    .concat();
    assert!(refused(&deep).contains("other than numbers"));
    let dictionaries = [
        &b"\x80\x04"[..],
        &b"}\x8c\x01a".repeat(1 << 18),
        b"}",
        &vec![b's'; 1 << 18],
        b".",
    ]
    .concat();
    assert!(refused(&dictionaries).contains("no dictionary of"));
    assert!(refused(b"\x80\x04]\x94.").contains("no dictionary of"));
    assert!(refused(b"\x80\x04}.").contains("no dictionary of"));
    let mut sample = sample();
    sample
        .get_mut("421211")
        .unwrap()
        .insert("val_acc", vec![f64::NAN]);
    assert!(refused(&pickle(&sample)).contains("architecture `421211`: a number is not finite"));
    sample.get_mut("421211").unwrap().remove("val_acc");
    assert!(refused(&pickle(&sample)).contains("1 to 3 values of `val_acc`"));
}

#[test]
fn a_named_table_must_be_there_and_fit() {
    let rows = BTreeMap::from([("012340".to_owned(), row("1"))]);
    let (table, dir) = import_bytes(&FAMILY, "a.csv", csv(&rows).as_bytes()).unwrap();
    let config = |file: &Path| NasBench201 { file: file.into() };
    let there = config(table.path());
    let partial = benchmark(&there, "nasbench201").unwrap().unwrap();
    assert_eq!(
        partial.provenance().optimum,
        "the best of 1 of 15625 architectures"
    );
    assert_eq!(partial.query(&cell([1; 6])).unwrap(), None);
    assert!(partial.query(&cell([0, 1, 2, 3, 4, 0])).unwrap().is_some());
    assert_eq!(closed(benchmark(&there, "darts")).exit_code(), 2);
    let gone = config(&dir.path().join("gone.table"));
    let error = closed(benchmark(&gone, "nasbench201"));
    assert_eq!(error.exit_code(), 3);
    assert!(error.help().unwrap().contains("nasfw bench import"));
}
