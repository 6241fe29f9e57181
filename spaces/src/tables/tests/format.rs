use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;

use super::super::{Builder, FAMILIES, Kind, Measure, Table};

fn builder(rows: BTreeMap<Vec<u8>, Vec<Option<f64>>>) -> Builder {
    let measure = |name: &str, score, repeats| Measure {
        name: name.into(),
        unit: "%",
        score,
        repeats,
    };
    Builder {
        name: "nasbench201",
        source: "a test".into(),
        of: 10,
        key_bytes: 3,
        measures: vec![measure("a", true, 2), measure("b", false, 1)],
        rows,
    }
}

fn small() -> BTreeMap<Vec<u8>, Vec<Option<f64>>> {
    (0..5u8)
        .map(|i| {
            let x = f64::from(i);
            let row = vec![Some(x / 10.0), (i != 2).then_some(x), Some(x.sqrt())];
            (vec![i, 7 - i, 1], row)
        })
        .collect()
}

fn written(builder: &Builder) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.table");
    builder.write(&path).unwrap();
    (dir, path)
}

/// Opening or verifying notices that the file is not as it was.
fn noticed(path: &std::path::Path) -> bool {
    match Table::open(path) {
        Err(e) => {
            assert!(e.help().unwrap().contains("nasfw bench"), "{e}");
            true
        }
        Ok(table) => table.verify().is_err(),
    }
}

#[test]
fn every_flipped_bit_and_every_length_is_noticed() {
    let (_dir, path) = written(&builder(small()));
    assert!(!noticed(&path));
    let good = std::fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bad).unwrap();
        assert!(noticed(&path), "byte {at}");
        std::fs::write(&path, &good[..at]).unwrap();
        assert!(Table::open(&path).is_err(), "truncated at {at}");
    }
    std::fs::write(&path, [&good[..], b"x"].concat()).unwrap();
    assert!(Table::open(&path).is_err());
}

#[test]
fn the_bytes_are_those_of_the_documentation() {
    let (_dir, path) = written(&builder(small()));
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(&bytes[..8], b"NASFWTAB");
    assert_eq!(bytes[8..12], [1, 0, 0, 0]);
    let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[48..48 + length]).unwrap();
    let mut covered = bytes[..16].to_vec();
    covered.extend(&bytes[48..48 + length]);
    assert_eq!(blake3::hash(&covered).as_bytes()[..], bytes[16..48]);
    let body = &bytes[48 + length..];
    assert_eq!(header["rows_blake3"], blake3::hash(body).to_hex().as_str());
    assert_eq!((&header["rows"], &header["of"]), (&5.into(), &10.into()));
    assert_eq!(header["optimum"], serde_json::json!({ "a": 2.2 }));
    let columns: Vec<_> = header["metrics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["columns"])
        .collect();
    assert_eq!(
        serde_json::to_value(columns).unwrap(),
        serde_json::json!([
            [{"kind": "u16", "divisor": 10.0}, {"kind": "u16", "divisor": 1.0}],
            [{"kind": "f64", "divisor": 1.0}]
        ])
    );
    // Row 2: its key, 0.2 as 2 tenths, nothing, the square root of 2.
    assert_eq!(body.len(), 5 * 15);
    assert_eq!(body[30..37], [2, 5, 1, 2, 0, 255, 255]);
    assert_eq!(body[37..45], 2f64.sqrt().to_le_bytes());
}

#[test]
fn what_is_no_table_is_refused_with_what_to_type() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.table");
    let open = || Table::open(&path).unwrap_err();
    assert!(open().help().unwrap().contains("nasfw bench list"));
    for foreign in [&b""[..], b"\x80\x04pickle", b"ops,idx\n", &[0; 4096]] {
        std::fs::write(&path, foreign).unwrap();
        let error = open();
        assert!(error.to_string().contains("no table of nasfw"), "{error}");
        assert!(error.help().unwrap().contains("nasfw bench import"));
    }
    let newer = [&b"NASFWTAB"[..], &2u32.to_le_bytes(), &[0; 36]].concat();
    std::fs::write(&path, newer).unwrap();
    assert!(
        open()
            .to_string()
            .contains("version 2, this program reads version 1")
    );
    std::fs::create_dir(dir.path().join("folder")).unwrap();
    assert!(Table::open(&dir.path().join("folder")).is_err());
}

/// Changes a table's header, gives it the right checksum, and asks whether that is noticed.
fn forged(rows: BTreeMap<Vec<u8>, Vec<Option<f64>>>, from: &str, to: &str) -> bool {
    let (_dir, path) = written(&builder(rows));
    let good = std::fs::read(&path).unwrap();
    let length = u32::from_le_bytes(good[12..16].try_into().unwrap()) as usize;
    let text = std::str::from_utf8(&good[48..48 + length]).unwrap();
    assert!(text.contains(from));
    let text = text.replace(from, to);
    let start = [&good[..12], &(text.len() as u32).to_le_bytes()].concat();
    let sum = blake3::Hasher::new()
        .update(&start)
        .update(text.as_bytes())
        .finalize();
    let bytes = [
        &start[..],
        sum.as_bytes(),
        text.as_bytes(),
        &good[48 + length..],
    ]
    .concat();
    std::fs::write(&path, bytes).unwrap();
    noticed(&path)
}

/// A header with a right checksum that says nonsense.
#[test]
fn headers_that_lie_do_not_get_far() {
    let empty = |from: &str, to: &str| forged(BTreeMap::new(), from, to);
    assert!(!empty("\"rows\":0", "\"rows\":0"));
    // Without rows the length of the file says nothing of their width, and a look-up would make room for one.
    assert!(empty("\"key_bytes\":3", "\"key_bytes\":1099511627776"));
    assert!(empty("\"divisor\":1.0", "\"divisor\":0.0"));
    let forged = |from: &str, to: &str| forged(small(), from, to);
    assert!(forged("\"rows\":5", "\"rows\":18446744073709551615"));
    assert!(forged("\"rows\":5", "\"rows\":-1"));
    assert!(forged("\"key_bytes\":3", "\"key_bytes\":0"));
    assert!(forged(
        "\"key_bytes\":3",
        "\"key_bytes\":18446744073709551615"
    ));
    assert!(forged("\"a\":2.2", "\"a\":2.3"));
    assert!(forged("\"name\"", "\"nome\""));
    assert!(!forged("\"rows\":5", "\"rows\":5"));
}

#[test]
fn rows_out_of_order_are_noticed() {
    let (_dir, path) = written(&builder(small()));
    let bytes = std::fs::read(&path).unwrap();
    let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let mut body = bytes[48 + length..].to_vec();
    body[..30].rotate_left(15);
    let text = std::str::from_utf8(&bytes[48..48 + length]).unwrap();
    let before = blake3::hash(&bytes[48 + length..]).to_hex();
    let text = text.replace(before.as_str(), blake3::hash(&body).to_hex().as_str());
    let sum = blake3::Hasher::new()
        .update(&bytes[..16])
        .update(text.as_bytes())
        .finalize();
    std::fs::write(
        &path,
        [&bytes[..16], sum.as_bytes(), text.as_bytes(), &body].concat(),
    )
    .unwrap();
    let error = Table::open(&path).unwrap().verify().unwrap_err();
    assert!(error.to_string().contains("the key of row 1"), "{error}");
}

#[test]
fn names_are_looked_up() {
    for family in FAMILIES {
        assert_eq!(super::Family::named(family.name).unwrap().name, family.name);
    }
    let error = super::Family::named("nasbench102").unwrap_err();
    assert!(error.help().unwrap().contains("nasbench101"));
}

/// Numbers of all the kinds that tables hold, and of none.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        (0u32..200_000, 0..5).prop_map(|(n, digits)| f64::from(n) / 10f64.powi(digits)),
        (0u32..=9_984).prop_map(|n| f64::from(n) / 99.84),
        any::<f32>()
            .prop_map(f64::from)
            .prop_filter("finite", |x| x.is_finite()),
        any::<f64>().prop_filter("finite", |x| x.is_finite()),
        Just(f64::from(u16::MAX)),
        Just(f64::from(u32::MAX)),
        Just(-1.0),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn what_is_written_is_read(
        kind in 0..3usize,
        rows in proptest::collection::btree_map(
            proptest::collection::vec(any::<u8>(), 3),
            proptest::collection::vec(proptest::option::weighted(0.9, number()), 3),
            0..40,
        ),
        absent in proptest::collection::vec(any::<u8>(), 3),
    ) {
        // Columns of one kind of number are the rule; keep the first `kind` ones mixed.
        let rows: BTreeMap<_, Vec<Option<f64>>> = rows
            .into_iter()
            .map(|(k, row)| {
                let row = row.iter().enumerate();
                let row = row.map(|(i, x)| x.map(|x| if i < kind { x } else { (x as u16).into() }));
                (k, row.collect())
            })
            .collect();
        let (_dir, path) = written(&builder(rows.clone()));
        let table = Table::open(&path).unwrap();
        table.verify().unwrap();
        for (key, row) in &rows {
            let found = table.row(key).unwrap().unwrap();
            prop_assert_eq!(&found.repeats.concat(), row);
        }
        prop_assert_eq!(table.row(&absent).unwrap().is_some(), rows.contains_key(&absent));
        prop_assert_eq!(table.row(&absent[..2]).unwrap(), None);
    }
}

#[test]
fn columns_are_as_narrow_as_their_numbers_allow() {
    let kind = |values: &[f64]| {
        let rows = values.iter().enumerate();
        let rows = rows
            .map(|(i, v)| (vec![0, 0, i as u8], vec![Some(*v), None, None]))
            .collect();
        let (_dir, path) = written(&builder(rows));
        let column = Table::open(&path).unwrap().header().metrics[0].columns[0];
        (column.kind, column.divisor)
    };
    assert_eq!(kind(&[0.0, 65_534.0]), (Kind::U16, 1.0));
    assert_eq!(kind(&[65_535.0]), (Kind::U32, 1.0));
    assert_eq!(kind(&[54.2967, 94.3733]), (Kind::U32, 10_000.0));
    assert_eq!(kind(&[9_227.0 / 99.84, 1.0 / 99.84]), (Kind::U16, 99.84));
    assert_eq!(kind(&[-0.5]), (Kind::F32, 1.0));
    assert_eq!(kind(&[std::f64::consts::PI]), (Kind::F64, 1.0));
}

#[test]
fn numbers_that_are_not_finite_and_rows_that_do_not_fit_are_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.table");
    for row in [vec![Some(f64::NAN), None, None], vec![None; 2]] {
        let rows = BTreeMap::from([(vec![0, 0, 0], row)]);
        assert!(builder(rows).write(&path).is_err());
    }
    assert!(
        builder(BTreeMap::from([(vec![0], vec![None; 3])]))
            .write(&path)
            .is_err()
    );
    assert!(!path.exists());
}
