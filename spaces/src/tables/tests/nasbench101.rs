use std::collections::BTreeMap;
use std::io::Read as _;

use nasfw_framework::rng::Streams;
use nasfw_framework::space::SpaceConfig;
use proptest::prelude::*;
use serde_json::json;

use super::super::nasbench101::{FAMILY, NasBench101};
use super::super::{Builder, Measure, source};
use super::{benchmark, data, genotype, import, import_bytes, mean, refused};
use crate::formats;
use crate::nasbench1shot1::{OneShot1, OneShot2, OneShot3};

// ---- the published format, written anew ------------------------------------------------------------------------

/// CRC32C bit by bit, masked as TensorFlow does.
fn crc(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
        }
    }
    !crc
}

fn masked(bytes: &[u8]) -> u32 {
    let crc = crc(bytes);
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut out = length.to_vec();
    out.extend(masked(&length).to_le_bytes());
    out.extend(data);
    out.extend(masked(data).to_le_bytes());
    out
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let n = three.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - three.len()));
        for i in 0..4 {
            let digit = DIGITS[(n >> (18 - 6 * i) & 63) as usize];
            text.push(if i > three.len() { '=' } else { digit.into() });
        }
    }
    text
}

/// A protocol buffer field of 64 bits.
fn double(field: u8, value: f64) -> Vec<u8> {
    [&[field << 3 | 1][..], &value.to_le_bytes()].concat()
}

/// Start, half-way and end of training; the numbers of the first two are others.
fn metrics(params: u32, epochs: u64, seconds: f64, valid: f64, test: f64) -> Vec<u8> {
    let mut out = vec![];
    for (share, better) in [(0.0, 0.1), (0.5, 0.5), (1.0, 1.0)] {
        let fields = [
            epochs as f64 * share,
            seconds * share,
            1.0,
            valid * better,
            test * better,
        ];
        let mut one: Vec<u8> = fields
            .iter()
            .zip(1..)
            .flat_map(|(x, i)| double(i, *x))
            .collect();
        one.extend(b"\x32\x04path");
        out.extend([0x0a, one.len() as u8]);
        out.extend(one);
    }
    out.push(0x10);
    let mut rest = params;
    while rest >= 128 {
        out.push(rest as u8 | 128);
        rest >>= 7;
    }
    out.push(rest as u8);
    out.extend(double(3, 9.0 * seconds));
    out
}

/// Two published models and the smallest one: hash, matrix, labels, parameters.
const MODELS: [(&str, &str, &str, u32); 3] = [
    (
        "00005c142e6f48ac74fdcf73e3439874",
        "0100110001000000010010000010000001000000010000000",
        "input,conv3x3-bn-relu,maxpool3x3,conv3x3-bn-relu,conv3x3-bn-relu,conv1x1-bn-relu,output",
        8_555_530,
    ),
    (
        "0000718c96730a92ea6d5242f8ce77e2",
        "0100000001000000010000000111000001000000010000000",
        "input,conv1x1-bn-relu,conv1x1-bn-relu,conv3x3-bn-relu,conv1x1-bn-relu,conv3x3-bn-relu,output",
        5_878_154,
    ),
    (
        "043721b9c7fe8c5fad811d47d83132ec",
        "0100",
        "input,output",
        882_570,
    ),
];

fn record(model: usize, epochs: u64, metrics: &[u8]) -> Vec<u8> {
    let (hash, matrix, labels, _) = MODELS[model];
    let text = json!([hash, epochs, matrix, labels, base64(metrics)]).to_string();
    framed(text.as_bytes())
}

/// Number of correct images of a run, different for every run.
fn count(model: usize, epochs: u64, repeat: u64) -> u64 {
    9_000 - 300 * model as u64 + 2 * epochs + 17 * repeat
}

/// As the published files are: every accuracy a 32-bit fraction of 9,984.
fn fraction(count: u64) -> f64 {
    f64::from(count as f32 / 9_984.0)
}

fn file(lengths: &[u64]) -> Vec<u8> {
    let mut out = vec![];
    for &epochs in lengths {
        for repeat in 0..3 {
            for (model, (_, _, _, params)) in MODELS.iter().enumerate() {
                let c = count(model, epochs, repeat);
                let seconds = 1_769.127_929_687_5 + repeat as f64;
                let m = metrics(*params, epochs, seconds, fraction(c), fraction(c - 5));
                out.extend(record(model, epochs, &m));
            }
        }
    }
    out
}

#[test]
fn the_crc_is_the_published_one() {
    assert_eq!(crc(b"123456789"), 0xe306_9283);
    assert_eq!(base64(b"light w"), "bGlnaHQgdw==");
}

fn key(model: usize) -> Vec<u8> {
    (FAMILY.parse_key)(MODELS[model].0).unwrap()
}

#[test]
fn records_become_means_and_repeats() {
    let (full, _dir) =
        import_bytes(&FAMILY, "nasbench_full.tfrecord", &file(&[4, 12, 36, 108])).unwrap();
    full.verify().unwrap();
    let names: Vec<&str> = full
        .header()
        .metrics
        .iter()
        .map(|m| m.name.as_str())
        .collect();
    assert_eq!(names.len(), 13);
    for (model, (_, _, _, params)) in MODELS.iter().enumerate() {
        for (epochs, suffix) in [(108, ""), (36, "@36"), (12, "@12"), (4, "@4")] {
            let mean_of =
                |what: &str| mean(&full, &key(model), &format!("{what}{suffix}")).unwrap();
            let fractions: Vec<f64> = (0..3).map(|r| fraction(count(model, epochs, r))).collect();
            let expected = 100.0 * fractions.iter().sum::<f64>() / 3.0;
            assert!((mean_of("valid") - expected).abs() < 1e-5, "{expected}");
            assert!((mean_of("test") - expected + 100.0 * 5.0 / 9_984.0).abs() < 1e-5);
            assert_eq!(mean_of("train-seconds"), 1_770.127_929_687_5);
        }
        assert_eq!(mean(&full, &key(model), "params"), Some((*params).into()));
    }
    let best = 100.0 * (count(0, 108, 1) as f64) / 9_984.0;
    assert!((full.header().optimum["valid"] - best).abs() < 1e-9);
    // The kept numbers are images, so two bytes are enough.
    let valid = &full.header().metrics[1];
    assert!(
        valid.columns.iter().all(|c| c.divisor == 99.84),
        "{valid:?}"
    );

    let (short, _dir) = import_bytes(&FAMILY, "nasbench_only108.tfrecord", &file(&[108])).unwrap();
    assert_eq!(short.header().metrics.len(), 4);
    assert_eq!(mean(&short, &key(1), "test"), mean(&full, &key(1), "test"));
}

/// Records can be repeated and metrics be padded without end: both have a limit.
#[test]
fn endless_records_are_refused() {
    let m = metrics(MODELS[0].3, 108, 1.0, fraction(9_000), fraction(8_000));
    let refused = |bytes: &[u8]| refused(&FAMILY, "a.tfrecord", bytes);
    let again = refused(&record(0, 108, &m).repeat(41));
    assert!(
        again.contains("record 41: this architecture has more than 40 runs"),
        "{again}"
    );
    // Two bytes each, which would become a message of a hundred.
    let padded = [m, b"\x0a\x00".repeat(30_000)].concat();
    let padded = refused(&record(0, 108, &padded));
    assert!(
        padded.contains("record 1: its metrics are longer than 64 KiB"),
        "{padded}"
    );
    // A text of the file does not fill the screen.
    let (_, matrix, labels, _) = MODELS[0];
    let text = json!(["x".repeat(9_999), 108, matrix, labels, ""]).to_string();
    assert!(refused(&framed(text.as_bytes())).len() < 300);
}

#[test]
fn every_damaged_byte_of_a_record_file_is_noticed() {
    let good = file(&[108]);
    let records: Vec<usize> = {
        let (mut at, mut ends) = (0, vec![0]);
        while let Some(length) = good.get(at..at + 8) {
            at += 16 + u64::from_le_bytes(length.try_into().unwrap()) as usize;
            ends.push(at);
        }
        ends
    };
    // Three records.
    let whole = &good[..records[3]];
    assert!(import_bytes(&FAMILY, "a.tfrecord", whole).is_ok());
    for at in (0..whole.len()).step_by(5) {
        let mut bad = whole.to_vec();
        bad[at] ^= 1 << (at % 8);
        let error = refused(&FAMILY, "a.tfrecord", &bad);
        assert!(error.contains("record "), "byte {at}: {error}");
        if !records.contains(&at) {
            let error = refused(&FAMILY, "a.tfrecord", &whole[..at]);
            assert!(error.contains("is truncated"), "length {at}: {error}");
        }
    }
    assert!(refused(&FAMILY, "a.tfrecord", b"").contains("no rows"));
}

#[test]
fn records_that_lie_are_refused() {
    let good = metrics(1, 108, 1.0, 0.9, 0.9);
    let refused = |hash: &str, epochs: u64, matrix: &str, labels: &str, metrics: &str| {
        let text = json!([hash, epochs, matrix, labels, metrics]).to_string();
        refused(&FAMILY, "a.tfrecord", &framed(text.as_bytes()))
    };
    let (hash, matrix, labels, _) = MODELS[0];
    let encoded = base64(&good);
    let other = MODELS[1].0;
    assert!(
        refused(other, 108, matrix, labels, &encoded).contains("its graph has the hash 00005c14")
    );
    assert!(refused("x", 108, matrix, labels, &encoded).contains("`x` is no hash"));
    assert!(refused(hash, 108, "01", labels, &encoded).contains("no adjacency matrix of 7"));
    assert!(
        refused(
            hash,
            108,
            matrix,
            &labels.replace("maxpool3x3", "skip"),
            &encoded
        )
        .contains("`skip`")
    );
    assert!(refused(hash, 108, matrix, labels, "*").contains("base 64"));
    assert!(refused(hash, 108, matrix, labels, &base64(&good[..40])).contains("decoded"));
    assert!(refused(hash, 108, matrix, labels, &base64(&[])).contains("lacks the evaluation"));
    assert!(refused(hash, 100, matrix, labels, &encoded).contains("100 epochs"));
    let impossible = base64(&metrics(1, 108, 1.0, 1.5, 0.9));
    assert!(
        refused(hash, 108, matrix, labels, &impossible)
            .contains("validation accuracy is no fraction")
    );
    let text = super::refused(&FAMILY, "a.tfrecord", &framed(b"[1, 2]"));
    assert!(text.contains("not of the published form"), "{text}");
}

// ---- the partial table -----------------------------------------------------------------------------------------

const HEADER: &str = "hash,vertices,adj_bits,ops,params,train_time_108_s,val_acc_4,val_acc_12,val_acc_36,val_acc_108\n";
const LINE: &str =
    "00005c142e6f48ac74fdcf73e3439874,7,1205349,02001,8555530,1768.976,3599,4213,8987,9290\n";

#[test]
fn the_partial_table_is_kept_number_by_number() {
    let Some(path) = data("nasbench101_subset.csv.gz") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let table = import(&FAMILY, &[&path], &dir).unwrap();
    table.verify().unwrap();
    assert_eq!((table.header().rows, table.header().of), (30_001, 423_624));
    let mut text = String::new();
    source::open(&path)
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    let mut best: f64 = 0.0;
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let number = |i: usize| fields[i].parse::<f64>().unwrap();
        let key = (FAMILY.parse_key)(fields[0]).unwrap();
        let row = table.row(&key).unwrap().unwrap();
        let values: Vec<f64> = row
            .repeats
            .concat()
            .into_iter()
            .map(Option::unwrap)
            .collect();
        let expected = [number(9), number(8), number(7), number(6)].map(|n| n / 99.84);
        assert_eq!(
            values,
            [&[number(4), number(5)], &expected[..]].concat(),
            "{line}"
        );
        best = best.max(number(9));
    }
    assert!((table.header().optimum["valid"] - 100.0 * best / 9_984.0).abs() < 1e-9);
}

#[test]
fn wrong_csv_is_refused_with_the_line() {
    let good = format!("{HEADER}{LINE}");
    assert!(import_bytes(&FAMILY, "a.csv", good.as_bytes()).is_ok());
    let refused = |text: String| refused(&FAMILY, "a.csv", text.as_bytes());
    assert!(refused(good.replace("0000", "0001")).contains("line 2, column `hash`: 00005c14"));
    assert!(refused(good.replace("02001", "02003")).contains("line 2, column `ops`"));
    assert!(refused(good.replace("02001", "0200")).contains("line 2, column `vertices`"));
    assert!(refused(good.replace("1205349", "x")).contains("line 2, column `adj_bits`"));
    assert!(refused(good.replace("1205349", "1")).contains("no path"));
    assert!(refused(good.replace("9290", "9990")).contains("line 2, column `val_acc_108`"));
    assert!(
        refused(good.clone() + LINE)
            .contains("line 3, column `hash`: this architecture has been seen")
    );
    assert!(refused(good.replace("params", "parameters")).contains("no column `parameters`"));
}

// ---- look-ups --------------------------------------------------------------------------------------------------

#[test]
fn graphs_hashes_and_genotypes_name_the_same_row() {
    let (table, _dir) =
        import_bytes(&FAMILY, "a.csv", format!("{HEADER}{LINE}").as_bytes()).unwrap();
    let (hash, digits, labels, _) = MODELS[0];
    let matrix: Vec<Vec<u8>> = digits
        .as_bytes()
        .chunks(7)
        .map(|r| r.iter().map(|b| b - b'0').collect())
        .collect();
    let labels: Vec<&str> = labels.split(',').collect();
    let graph = json!({ "matrix": matrix, "ops": labels });
    let nodes: Vec<_> = (1..6)
        .map(|to| {
            let inputs: Vec<_> = (0..to)
                .filter(|&from| matrix[from][to] == 1)
                .map(|from| json!({ "from": from }))
                .collect();
            json!({ "op": labels[to], "inputs": inputs })
        })
        .collect();
    let output: Vec<usize> = (0..6).filter(|&from| matrix[from][6] == 1).collect();
    let cell = json!({
        "space": "nasbench101",
        "cells": [{ "name": "cell", "inputs": ["input"], "nodes": nodes, "output": output }]
    });
    for text in [graph.to_string(), cell.to_string()] {
        let key = (FAMILY.key)(&formats::read(&text).unwrap())
            .unwrap()
            .unwrap();
        assert_eq!((FAMILY.show_key)(&key), hash);
    }
    assert_eq!((FAMILY.parse_key)(hash), Some(key(0)));
    assert_eq!((FAMILY.parse_key)(&hash[1..]), None);

    let config = NasBench101 {
        file: table.path().into(),
    };
    let known = benchmark(&config, "nasbench101").unwrap().unwrap();
    let score = known.query(&genotype(cell.clone())).unwrap().unwrap();
    assert!((score.metrics["valid"] - 100.0 * 9_290.0 / 9_984.0).abs() < 1e-9);
    assert_eq!(
        (score.seconds, score.facts["params"]),
        (Some(1_768.976), 8_555_530.0)
    );
    assert_eq!(
        known.provenance().optimum,
        "the best of 1 of 423624 architectures"
    );
    // No path to the output, and an operation that the benchmark does not know.
    let mut nowhere = genotype(cell.clone());
    nowhere.cells[0].output.clear();
    assert_eq!(known.query(&nowhere).unwrap(), None);
    let mut unknown = genotype(cell);
    unknown.cells[0].nodes[0].op = None;
    assert_eq!(known.query(&unknown).unwrap(), None);
}

/// The spaces of NAS-Bench-1Shot1 encode their cells by their own recursion, with a vertex that leads nowhere.
#[test]
fn keys_are_the_hashes_that_nas_bench_1shot1_gives() {
    let settings = json!({ "channels": 16, "cells": 9, "bn_momentum": 0.997 });
    let spaces: [Box<dyn SpaceConfig>; 3] = [
        Box::new(serde_json::from_value::<OneShot1>(settings.clone()).unwrap()),
        Box::new(serde_json::from_value::<OneShot2>(settings.clone()).unwrap()),
        Box::new(serde_json::from_value::<OneShot3>(settings).unwrap()),
    ];
    for (s, config) in spaces.iter().enumerate() {
        let space = config.build().unwrap();
        for i in 0..200 {
            let choice = space
                .spec()
                .uniform(&mut Streams::new(s as u64).at("choice", i));
            let genotype = space.genotype(&choice);
            let facts = space.facts(&genotype);
            let key = (FAMILY.key)(&genotype)
                .unwrap()
                .map(|k| (FAMILY.show_key)(&k));
            assert_eq!(
                key.as_deref(),
                facts["nasbench101"]
                    .pointer("/pruned/hash")
                    .and_then(|h| h.as_str())
            );
        }
    }
}

/// A table with every architecture that it says there are.
fn complete() -> (tempfile::TempDir, NasBench101) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.table");
    let measure = |name: &str| Measure {
        name: name.into(),
        unit: "%",
        score: true,
        repeats: 1,
    };
    let rows = (0..MODELS.len())
        .map(|m| (key(m), vec![Some(90.0 + m as f64); 3]))
        .collect::<BTreeMap<_, _>>();
    let builder = Builder {
        name: "nasbench101",
        source: "a test".into(),
        of: MODELS.len() as u64,
        key_bytes: 16,
        measures: ["valid", "test", "test@36"].map(measure).to_vec(),
        rows,
    };
    builder.write(&path).unwrap();
    (dir, NasBench101 { file: path })
}

#[test]
fn regret_in_nas_bench_1shot1_is_measured_from_the_published_optimum() {
    let (_dir, config) = complete();
    for (space, test_error) in [
        ("nasbench1shot1-s1", 0.054_487_168_788_909_91),
        ("nasbench1shot1-s2", 0.057_592_153_549_194_336),
        ("nasbench1shot1-s3", 0.053_385_436_534_881_59),
    ] {
        let known = benchmark(&config, space).unwrap().unwrap();
        let best = known.optimum();
        assert!((best["test"] - 100.0 * (1.0 - test_error)).abs() < 1e-9);
        assert!(best["valid"] > best["test"] && best.len() == 2);
        assert!(known.provenance().optimum.contains("NAS-Bench-1Shot1"));
    }
    let all = benchmark(&config, "nasbench101").unwrap().unwrap();
    assert_eq!(all.optimum()["test"], 92.0);
    assert_eq!(all.provenance().optimum, "the best of all 3 architectures");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn random_bytes_are_no_record_file(bytes in proptest::collection::vec(any::<u8>(), 1..200)) {
        refused(&FAMILY, "a.tfrecord", &bytes);
        let _ = import_bytes(&FAMILY, "a.csv", &bytes);
    }
}
