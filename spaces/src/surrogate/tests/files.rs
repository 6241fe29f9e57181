//! The file.

use std::fs;
use std::path::Path;

use nasfw_framework::Error;

use super::*;

/// What is wrong with a file, and what to type.
fn refused(path: &Path) -> (String, String) {
    match Surrogate::open(path) {
        Err(Error::Data { problem, help, .. }) => (problem, help),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_says_the_same_again_and_the_same_fit_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let some = cells(110, 5);
    let (known, unseen) = some.split_at(60);
    let write = |name: &str, seed: u64| {
        let path = dir.path().join(name);
        let mut fitted = surrogate(rows(known), seed);
        fitted.write(&path).unwrap();
        (path, fitted)
    };
    let (path, fitted) = write("one", 3);
    let (again, _) = write("two", 3);
    let bytes = fs::read(&path).unwrap();
    assert!(bytes == fs::read(&again).unwrap());
    let (other, _) = write("three", 4);
    assert!(bytes != fs::read(other).unwrap());

    let opened = Surrogate::open(&path).unwrap();
    assert!(Surrogate::is_one(&path));
    assert_eq!(opened.about, fitted.about);
    for (genotype, _) in known.iter().chain(unseen) {
        assert_eq!(
            opened.answer(genotype).unwrap(),
            fitted.answer(genotype).unwrap()
        );
    }

    // Whatever happens to a byte is noticed, wherever it is.
    let bad = dir.path().join("bad");
    for at in (0..bytes.len()).step_by(bytes.len() / 97) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        fs::write(&bad, &damaged).unwrap();
        let (problem, help) = refused(&bad);
        assert!(
            !problem.is_empty() && help.contains("nasfw bench fit TABLE -o"),
            "{at}: {help}"
        );
    }
    for length in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&bad, &bytes[..length]).unwrap();
        let (problem, _) = refused(&bad);
        assert!(
            problem.contains("truncated") || length < 200,
            "{length}: {problem}"
        );
    }
    fs::write(&bad, [&bytes[..], b"more"].concat()).unwrap();
    assert!(refused(&bad).0.contains("truncated or damaged"));
    // A version to come.
    let mark = b"version\\\":1";
    let at = bytes.windows(mark.len()).position(|w| w == mark).unwrap();
    let mut later = bytes.clone();
    later[at + mark.len() - 1] = b'7';
    fs::write(&bad, later).unwrap();
    assert!(refused(&bad).0.contains("version 7"), "{:?}", refused(&bad));

    fs::write(&bad, "genotype,valid\n").unwrap();
    assert!(refused(&bad).0.contains("no surrogate of nasfw"));
    let (problem, help) = refused(&dir.path().join("nowhere"));
    assert!(
        problem.contains("cannot be read") && help.contains("bench fit"),
        "{problem} {help}"
    );
}

#[test]
fn another_space_is_refused() {
    let surrogate = &example().surrogate;
    let other =
        crate::formats::read("|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|").unwrap();
    let why = surrogate.answer(&other).unwrap_err();
    assert!(
        why.to_string()
            .contains("it knows architectures of nasbench1shot1-s3"),
        "{why}"
    );
    let space = serde_json::json!({ "name": "darts" });
    let nowhere = SurrogateConfig { file: "".into() };
    let why = nowhere.open(&space).err().unwrap();
    assert!(why.to_string().contains("no file is named"), "{why}");
}
