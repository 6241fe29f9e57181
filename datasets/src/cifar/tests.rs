//! Small files of both versions that these tests make.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;

use super::*;
use crate::test_pickles::{PROTOCOLS, Pickle};

const ROWS: usize = 7;

/// A file of the binary version.
fn batch(format: &Format, rows: usize, salt: usize) -> Vec<u8> {
    (0..rows)
        .flat_map(|i| {
            let labels = [
                (i % 20) as u8,
                ((i * 7 + salt) % format.classes().len()) as u8,
            ];
            let labels = labels[2 - format.label_bytes..].to_vec();
            labels
                .into_iter()
                .chain((0..IMAGE).map(move |p| ((p * 31 + i + salt) % 256) as u8))
        })
        .collect()
}

/// The same images in the Python version.
fn pickled(format: &Format, protocol: u8, binary: &[u8]) -> Vec<u8> {
    let (images, labels) = super::binary(format, binary, ROWS).unwrap();
    let labels: Vec<u32> = labels.into_iter().map(|l| l as u32).collect();
    let shape = [labels.len() as u32, IMAGE as u32];
    Pickle::batch(protocol, shape, &images, &labels, format.label_key)
}

fn write(format: &Format) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (i, (name, _)) in format.versions[0].files().enumerate() {
        fs::write(dir.path().join(name), batch(format, ROWS, i)).unwrap();
    }
    dir
}

/// The Python version; every file in another protocol.
fn write_python(format: &Format) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let version = &format.versions[1];
    for (i, (name, _)) in version.files().enumerate() {
        let bytes = pickled(format, PROTOCOLS[i % 4], &batch(format, ROWS, i));
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    let names = Pickle::names(2, version.names_key.unwrap(), &format.classes());
    fs::write(dir.path().join(version.names), names).unwrap();
    dir
}

/// What is read of a version's folder or archive.
fn read_place(format: &Format, version: usize, path: &Path) -> Result<ImageData> {
    let version = &format.versions[version];
    let rows = [ROWS * version.train.len(), ROWS];
    let path = path.to_owned();
    read(
        format,
        &Place { version, path },
        rows,
        &DataSource::default(),
    )
}

#[test]
fn both_formats_are_read_in_file_order() {
    for format in [&CIFAR10, &CIFAR100] {
        let dir = write(format);
        let data = read_place(format, 0, dir.path()).unwrap();
        let files = format.versions[0].train.len();
        assert_eq!(data.train.len(), ROWS * files);
        assert_eq!(
            data.train.labels[1],
            7 % format.classes().len() as u16,
            "the last label byte counts"
        );
        let first = &batch(format, ROWS, 0)[format.label_bytes..format.label_bytes + IMAGE];
        assert_eq!(&data.train.images.bytes()[..IMAGE], first);
        let test = &batch(format, ROWS, files)[format.label_bytes..format.label_bytes + IMAGE];
        assert_eq!(&data.test.images.bytes()[..IMAGE], test);
        assert_eq!(data.classes, format.classes(), "published names");
    }
}

/// A folder or an archive, binary or for Python: the same images are the same data.
#[test]
fn versions_and_archives_hold_the_same() {
    for format in [&CIFAR10, &CIFAR100] {
        let folders = [write(format), write_python(format)];
        let sums = folders.iter().enumerate().flat_map(|(version, folder)| {
            let archive = folder.path().join("archive.tar.gz");
            let file = GzEncoder::new(File::create(&archive).unwrap(), Compression::fast());
            let mut tar = tar::Builder::new(file);
            let inner = format.versions[version].folder;
            tar.append_dir_all(inner, folder.path()).unwrap();
            tar.into_inner().unwrap().finish().unwrap();
            [folder.path().to_owned(), archive].map(|path| {
                let data = read_place(format, version, &path).unwrap();
                assert_eq!(data.classes, format.classes());
                data.checksum()
            })
        });
        let sums: Vec<String> = sums.collect();
        assert!(sums.iter().all(|sum| *sum == sums[0]), "{sums:?}");
    }
}

#[test]
fn names_of_classes_come_from_the_files_where_they_fit() {
    let names: Vec<String> = (0..10).map(|i| format!("class {i}")).collect();
    let texts: Vec<&str> = names.iter().map(String::as_str).collect();
    let read = |version: usize, dir: &tempfile::TempDir, content: &[u8]| {
        fs::write(dir.path().join(CIFAR10.versions[version].names), content).unwrap();
        read_place(&CIFAR10, version, dir.path()).unwrap().classes
    };
    let (binary, python) = (write(&CIFAR10), write_python(&CIFAR10));
    assert_eq!(read(0, &binary, texts.join("\n").as_bytes()), names);
    for protocol in PROTOCOLS {
        let good = Pickle::names(protocol, "label_names", &texts);
        assert_eq!(read(1, &python, &good), names);
        // Too few, twice the same, damaged: the published names.
        for bad in [
            Pickle::names(protocol, "label_names", &texts[1..]),
            Pickle::names(protocol, "label_names", &["cat"; 10]),
            good[..good.len() - 3].to_vec(),
        ] {
            assert_eq!(read(1, &python, &bad), CIFAR10.classes());
        }
    }
}

/// Python's own pickler, with classes that reduce as NumPy's do.
#[test]
fn what_python_pickles_is_read() {
    const SCRIPT: &str = r#"
import pickle, sys, types
def module(name):
    sys.modules[name] = m = types.ModuleType(name)
    return m
numpy, core, multi = module("numpy"), module("numpy.core"), module("numpy.core.multiarray")
class dtype:
    def __reduce__(self): return dtype, ("u1", False, True), (3, "|", None, None, None, -1, -1, 0)
class ndarray:
    def __init__(self, rows, data): self.rows, self.data = rows, data
    def __reduce__(self): return _reconstruct, (ndarray, (0,), b"b"), (1, (self.rows, 3072), dtype(), False, self.data)
def _reconstruct(*args): pass
for thing, home in ((dtype, numpy), (ndarray, numpy), (_reconstruct, multi)):
    thing.__module__ = home.__name__
    setattr(home, thing.__name__, thing)
binary, out, key, protocol = sys.argv[1:3] + sys.argv[3:4] + [int(sys.argv[4])]
rows = open(binary, "rb").read()
rows = [rows[i : i + 3073] for i in range(0, len(rows), 3073)]
array = ndarray(len(rows), b"".join(row[1:] for row in rows))
batch = {"batch_label": "a batch", key: [row[0] for row in rows], "data": array, "filenames": ["x.png"] * len(rows)}
if len(sys.argv) > 5: batch = {name.encode(): value for name, value in batch.items()}
pickle.dump(batch, open(out, "wb"), protocol)
"#;
    let dir = write(&CIFAR10);
    let first = dir.path().join("data_batch_1.bin");
    let python = |protocol: &str, keys: &[&str]| {
        let mut python = std::process::Command::new("python3");
        python.arg("-c").arg(SCRIPT).arg(&first);
        python
            .arg(dir.path().join("out"))
            .args(["labels", protocol]);
        python.args(keys).status()
    };
    if python("2", &[]).is_err() {
        skipped();
        return;
    }
    let binary = super::binary(&CIFAR10, &fs::read(&first).unwrap(), ROWS).unwrap();
    for protocol in ["2", "3", "4", "5"] {
        for keys in [&[][..], &["as bytes"]] {
            assert!(python(protocol, keys).unwrap().success());
            let bytes = fs::read(dir.path().join("out")).unwrap();
            let read = super::pickled(&CIFAR10, &bytes, ROWS);
            assert_eq!(read.unwrap(), binary, "{protocol} {keys:?}");
        }
    }
    assert!(python("0", &[]).unwrap().success());
    let error = super::pickled(&CIFAR10, &fs::read(dir.path().join("out")).unwrap(), ROWS);
    assert!(error.unwrap_err().contains("protocol 2"));
}

#[allow(clippy::print_stderr)]
fn skipped() {
    eprintln!("skipped: there is no python3");
}

#[test]
fn each_mistake_names_the_file() {
    let check = |damage: fn(&mut Vec<u8>), words: &str| {
        let dir = write(&CIFAR10);
        let path = dir.path().join("data_batch_3.bin");
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let error = read_place(&CIFAR10, 0, dir.path()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(words) && text.contains("data_batch_3.bin"),
            "{text}"
        );
        assert_eq!(error.exit_code(), 3);
    };
    check(|b| b.truncate(b.len() - 1), "truncated");
    check(|b| b.push(0), "are expected");
    check(|b| b[3073] = 10, "image 1 (from 0) has label 10");
    check(Vec::clear, "holds 0 of");
    let python = |content: &[u8], words: &str| {
        let dir = write_python(&CIFAR10);
        fs::write(dir.path().join("data_batch_3"), content).unwrap();
        let error = read_place(&CIFAR10, 1, dir.path()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(words) && text.contains("data_batch_3"),
            "{text}"
        );
        assert_eq!(error.exit_code(), 3);
    };
    let (two, seven) = (vec![0; 2 * IMAGE], vec![0; 7 * IMAGE]);
    let pickle = |rows: u32, data: &[u8], labels: &[u32], key: &str| {
        Pickle::batch(2, [rows, 3072], data, labels, key)
    };
    python(
        &pickle(2, &two, &[0, 1], "labels"),
        "2 images, 7 are expected",
    );
    python(&pickle(7, &seven, &[0; 7], "fine_labels"), "no `labels`");
    python(
        &pickle(7, &seven, &[10; 7], "labels"),
        "image 0 (from 0) has label 10",
    );
    python(b"", "no pickle");
}

#[test]
fn a_missing_batch_and_a_missing_folder_say_what_to_type() {
    let dir = write(&CIFAR10);
    fs::remove_file(dir.path().join("data_batch_2.bin")).unwrap();
    let error = read_place(&CIFAR10, 0, dir.path()).unwrap_err();
    assert!(error.to_string().contains("data_batch_2.bin"), "{error}");
    let at = |dir: PathBuf| DataSource {
        dir: Some(dir),
        ..Default::default()
    };
    let error = Cifar10::default()
        .load(&at(dir.path().join("nowhere")))
        .unwrap_err();
    assert!(
        error
            .help()
            .unwrap()
            .contains("--dataset cifar10 --data-dir DIR"),
        "{error}"
    );
    // Of two incomplete versions, the one with more files is told of.
    fs::write(dir.path().join("test_batch"), "").unwrap();
    let error = Cifar10::default().load(&at(dir.path().into())).unwrap_err();
    assert!(
        error.to_string().contains("data_batch_1.bin: holds"),
        "{error}"
    );
}

/// Content that was not published is used, and the run's manifest says so.
#[test]
fn other_content_is_noted() {
    for (dir, version) in [(write(&CIFAR10), 0), (write_python(&CIFAR10), 1)] {
        let source = DataSource::default();
        let place = Place {
            version: &CIFAR10.versions[version],
            path: dir.path().into(),
        };
        read(&CIFAR10, &place, [5 * ROWS, ROWS], &source).unwrap();
        let notes = source.notes.all();
        assert!(
            notes.len() == 1 && notes[0].contains("not what was published as cifar10"),
            "{notes:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happens to a file, reading it gives an error or the bytes that are in it, never a panic.
    #[test]
    fn damage_is_an_error_or_harmless(file in 0usize..6, cut in prop::option::of(0.0f64..1.0), at in 0.0f64..1.0, value in any::<u8>(), python in any::<bool>()) {
        let dir = if python { write_python(&CIFAR10) } else { write(&CIFAR10) };
        let version = usize::from(python);
        let path = dir.path().join(CIFAR10.versions[version].files().nth(file).unwrap().0);
        let mut bytes = fs::read(&path).unwrap();
        let at = ((bytes.len() - 1) as f64 * at) as usize;
        bytes[at] = value;
        if let Some(cut) = cut {
            bytes.truncate((bytes.len() as f64 * cut) as usize);
        }
        fs::write(&path, &bytes).unwrap();
        match read_place(&CIFAR10, version, dir.path()) {
            Ok(data) => {
                prop_assert!(cut.is_none());
                prop_assert!(data.train.labels.iter().chain(&data.test.labels).all(|l| *l < 10));
            }
            Err(error) => prop_assert_eq!(error.exit_code(), 3),
        }
    }
}
