//! What is fitted: CSV files and imported tables.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use super::*;
use crate::tables::Family;

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("table.csv");
    fs::write(&path, text).unwrap();
    (dir, path)
}

fn read(text: &str, space: Option<&str>, metric: Option<&str>) -> Result<Rows, String> {
    let (_dir, path) = file(text);
    Rows::of_csv(&path, space, metric).map_err(|e| e.to_string())
}

const CELL: &str = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|";
const OTHER: &str = "|nor_conv_1x1~0|+|none~0|none~1|+|none~0|none~1|none~2|";

#[test]
fn genotypes_of_any_form_are_read() {
    let rows = read(
        &format!("valid,genotype\n91.5,{CELL}\n 90 ,{OTHER}\n91.5,{CELL}\n"),
        None,
        None,
    )
    .unwrap();
    assert_eq!((rows.metric.as_str(), rows.rows.len()), ("valid", 2));
    assert_eq!(rows.spaces, ["nasbench201"]);
    let darts = "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1), ('sep_conv_3x3', 0), ('skip_connect', 1), \
                 ('sep_conv_3x3', 0), ('skip_connect', 1), ('sep_conv_3x3', 0), ('skip_connect', 1)], \
                 normal_concat=range(2, 6), reduce=[('sep_conv_3x3', 0), ('skip_connect', 1), ('sep_conv_3x3', 0), \
                 ('skip_connect', 1), ('sep_conv_3x3', 0), ('skip_connect', 1), ('sep_conv_3x3', 0), ('skip_connect', 1)], \
                 reduce_concat=range(2, 6))";
    for (space, expected) in [(None, "darts"), (Some("robust-s2"), "robust-s2")] {
        let rows = read(&format!("genotype,acc\n\"{darts}\",97\n"), space, None).unwrap();
        assert_eq!(
            (
                rows.spaces[0].as_str(),
                rows.rows[0].genotype.space.as_str()
            ),
            (expected, expected)
        );
    }
    let matrix = r#"{""matrix"": [[0,1,0],[0,0,1],[0,0,0]], ""ops"": [""input"", ""conv3x3-bn-relu"", ""output""]}"#;
    let rows = read(
        &format!("genotype,acc\n\"{matrix}\",97\n"),
        Some("nasbench1shot1-s3"),
        None,
    )
    .unwrap();
    assert!(rows.spaces.contains(&"nasbench1shot1-s1".to_owned()));
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let pooled = "Genotype(normal=[('max_pool_3x3', 0), ('skip_connect', 1)], normal_concat=[2], \
                  reduce=[('max_pool_3x3', 0), ('skip_connect', 1)], reduce_concat=[2])";
    for (text, space, metric, expected) in [
        (
            "architecture,valid\n".to_owned(),
            None,
            None,
            "line 1: columns are missing: genotype",
        ),
        (
            format!("genotype\n{CELL}\n"),
            None,
            None,
            "no column of values beside `genotype`",
        ),
        (
            format!("genotype,a,b\n{CELL},1,2\n"),
            None,
            None,
            "several columns of values: a, b",
        ),
        (
            format!("genotype,a,b\n{CELL},1,2\n"),
            None,
            Some("c"),
            "it has no metric `c`",
        ),
        (
            format!("genotype,a\n{CELL},1\n{OTHER},NaN\n"),
            None,
            None,
            "line 3, column `a`: `NaN` is no number",
        ),
        (
            format!("genotype,a\n{CELL},\n"),
            None,
            None,
            "line 2, column `a`: a number is expected",
        ),
        (
            format!("genotype,a\n{CELL},inf\n"),
            None,
            None,
            "line 2, column `a`: `inf` is no number",
        ),
        (
            format!("genotype,a\n{CELL},1\n{CELL},2\n"),
            None,
            None,
            "seen before, with the value 1, now 2",
        ),
        (
            "genotype,a\n|conv~0|,1\n".to_owned(),
            None,
            None,
            "line 2, column `genotype`",
        ),
        (
            format!("genotype,a\n{CELL},1\n\"{pooled}\",1\n"),
            None,
            None,
            "line 3, column `genotype`",
        ),
        (
            format!("genotype,a\n{CELL},1\n"),
            Some("darts"),
            None,
            "space `nasbench201`, not of `darts`",
        ),
        (
            format!("genotype,a\n\"{pooled}\",1\n"),
            Some("robust-s2"),
            None,
            "space `robust-s2` does not contain it",
        ),
        (
            format!("genotype,a\n{CELL},1\n"),
            Some("dart"),
            None,
            "no space is called `dart`",
        ),
        (format!("genotype,a\n{CELL},1,5\n"), None, None, "line"),
    ] {
        let why = read(&text, space, metric).unwrap_err();
        assert!(why.contains(expected), "{text}: {why}");
    }
}

#[test]
fn several_files_are_one_table_if_they_agree() {
    let part = |text: &str| read(text, None, None).unwrap();
    let one = part(&format!("genotype,a\n{CELL},1\n"));
    let both = one
        .clone()
        .and(part(&format!("genotype,a\n{OTHER},2\n")))
        .unwrap();
    assert_eq!(both.rows.len(), 2);
    for (text, expected) in [
        (format!("genotype,b\n{OTHER},2\n"), "one has `a`, one `b`"),
        (format!("genotype,a\n{CELL},2\n"), "with the value 1, now 2"),
    ] {
        let why = one.clone().and(part(&text)).unwrap_err().to_string();
        assert!(why.contains(expected), "{why}");
    }
}

/// Rows of a table that was imported from a file with this text.
fn imported(family: &'static Family, text: &str, metric: Option<&str>) -> Result<Rows, String> {
    let (dir, path) = file(text);
    let table = dir.path().join("table");
    (family.import)(&[path]).unwrap().write(&table).unwrap();
    Rows::of_table(family, &family.open(&table).unwrap(), metric).map_err(|e| e.to_string())
}

#[test]
fn imported_tables_give_their_architectures_back() {
    let family = Family::named("nasbench101").unwrap();
    let mut text = "hash,vertices,adj_bits,ops,params,train_time_108_s,val_acc_4,val_acc_12,val_acc_36,val_acc_108\n".to_owned();
    let mut expected = std::collections::BTreeMap::new();
    for (genotype, _) in cells(30, 6) {
        let spec = nasbench101_spec(&genotype).unwrap();
        let ops: String = spec
            .operations()
            .iter()
            .map(|op| op.index().to_string())
            .collect();
        let correct = 9000 + expected.len();
        writeln!(
            text,
            "{},{},{},{ops},1,1,1,2,3,{correct}",
            spec.hash(),
            spec.vertices(),
            spec.bits()
        )
        .unwrap();
        expected.insert(spec.digest(), (spec.hash(), correct as f64 / 99.84));
    }
    let rows = imported(family, &text, None).unwrap();
    assert_eq!((rows.metric.as_str(), rows.epochs), ("valid", Some(108)));
    assert_eq!(rows.rows.len(), expected.len());
    for row in &rows.rows {
        let (hash, value) = &expected[&row.key];
        assert_eq!(nasbench101_spec(&row.genotype).unwrap().hash(), *hash);
        assert!((row.value - value).abs() < 1e-9);
    }
    let none = imported(family, &text, Some("test")).unwrap_err();
    assert!(none.contains("no metric `test`"), "{none}");
}
