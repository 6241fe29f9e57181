//! Files as NumPy writes them, made here by `npyz`, and files that are wrong.
#![allow(clippy::unwrap_used)]
use std::io::Write;

use npyz::WriterBuilder;
use npyz::npz::NpzWriter;
use proptest::prelude::*;

use super::*;

/// An array for a file: name, shape and numbers.
enum Array<'a> {
    Bytes(&'a str, Vec<u64>, Vec<u8>),
    Numbers(&'a str, Vec<u64>, Vec<i64>),
}

fn put<T: npyz::AutoSerialize>(
    file: &mut NpzWriter<impl Write + std::io::Seek>,
    name: &str,
    shape: &[u64],
    values: &[T],
) {
    let array = file.array(name, Default::default()).unwrap();
    let mut w = array.default_dtype().shape(shape).begin_nd().unwrap();
    w.extend(values).unwrap();
    w.finish().unwrap();
}

fn written(arrays: &[Array<'_>]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut file = NpzWriter::create(dir.path().join("images.npz")).unwrap();
    for array in arrays {
        match array {
            Array::Bytes(name, shape, values) => put(&mut file, name, shape, values),
            Array::Numbers(name, shape, values) => put(&mut file, name, shape, values),
        }
    }
    file.zip_writer().flush().unwrap();
    drop(file);
    dir
}

fn loaded(dir: &Path) -> Result<ImageData> {
    let arrays = Arrays {
        file: "images.npz".into(),
        split: 0,
    };
    arrays.load(&DataSource {
        dir: Some(dir.into()),
        ..DataSource::default()
    })
}

/// Four arrays of `n` and `m` images under the names of a convention.
fn four(names: [&'static str; 4], shape: [u64; 3], n: u64, m: u64) -> Vec<Array<'static>> {
    let [h, w, c] = shape;
    let bytes = |n: u64, first: u64| {
        (0..n * h * w * c)
            .map(|i| ((first + i * 7) % 251) as u8)
            .collect()
    };
    vec![
        Array::Bytes(names[0], vec![n, h, w, c], bytes(n, 0)),
        Array::Numbers(names[1], vec![n, 1], (0..n as i64).map(|i| i % 3).collect()),
        Array::Bytes(names[2], vec![m, h, w, c], bytes(m, 5)),
        Array::Numbers(names[3], vec![m], (0..m as i64).map(|i| i % 2).collect()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Pixel (row, column) of channel `c` of image `i` is where the planes have it, under both conventions of names.
    #[test]
    fn pixels_and_labels_come_through(
        h in 1u64..5, w in 1u64..5, c in 1u64..4, n in 3u64..7, m in 1u64..4, which in 0usize..2,
    ) {
        let dir = written(&four(USUAL[which], [h, w, c], n, m));
        let data = loaded(dir.path()).unwrap();
        prop_assert_eq!(data.task, Task { channels: c as i64, height: h as i64, width: w as i64, classes: 3 });
        prop_assert_eq!(data.train.labels, (0..n as u16).map(|i| i % 3).collect::<Vec<_>>());
        prop_assert_eq!(data.classes, ["0", "1", "2"]);
        let planes = data.train.images.bytes();
        for i in 0..n { for ch in 0..c { for y in 0..h { for x in 0..w {
            let there = planes[(((i * c + ch) * h + y) * w + x) as usize];
            let meant = ((((i * h + y) * w + x) * c + ch) * 7 % 251) as u8;
            prop_assert_eq!(there, meant);
        }}}}
        // Mean and deviation by their definition.
        for ch in 0..c as usize {
            let of: Vec<f64> = planes.chunks((h * w) as usize).enumerate()
                .filter(|(at, _)| at % c as usize == ch)
                .flat_map(|(_, plane)| plane.iter().map(|b| f64::from(*b) / 255.0)).collect();
            let mean = of.iter().sum::<f64>() / of.len() as f64;
            let std = (of.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / of.len() as f64).sqrt();
            prop_assert!((data.mean[ch] - mean).abs() < 1e-9);
            let wanted = if std > 1e-9 { std } else { data.std[ch] };
            prop_assert!((data.std[ch] - wanted).abs() < 1e-6);
        }
    }

    /// Whatever a file is cut off at or changed to, it is an error or a dataset, never a panic.
    #[test]
    fn broken_files_are_errors(cut in 0usize..900, change in any::<u8>()) {
        let dir = written(&four(USUAL[0], [2, 2, 1], 4, 2));
        let path = dir.path().join("images.npz");
        let mut bytes = std::fs::read(&path).unwrap();
        let at = cut % bytes.len();
        bytes[at] ^= change;
        std::fs::write(&path, &bytes).unwrap();
        let _ = loaded(dir.path());
        bytes.truncate(at);
        std::fs::write(&path, &bytes).unwrap();
        prop_assert!(loaded(dir.path()).is_err());
    }
}

#[test]
fn what_is_wrong_is_said() {
    let says = |arrays: &[Array<'_>], what: &str| {
        let text = loaded(written(arrays).path()).unwrap_err().to_string();
        assert!(text.contains(what), "{text}");
    };
    let good = || four(USUAL[0], [2, 2, 1], 4, 2);
    says(&[], "no arrays");
    says(
        &good()[..3],
        "x_test, x_train, y_train; x_train, y_train, x_test, y_test are needed",
    );
    let with = |at: usize, array: Array<'static>| {
        let mut arrays = good();
        arrays[at] = array;
        arrays
    };
    says(
        &with(0, Array::Numbers("x_train", vec![4, 2, 2], vec![0; 16])),
        "images must be bytes (uint8)",
    );
    says(
        &with(0, Array::Bytes("x_train", vec![16], vec![0; 16])),
        "of shape [16]",
    );
    says(
        &with(2, Array::Bytes("x_test", vec![2, 3, 2, 1], vec![0; 12])),
        "images of [1, 2, 2]",
    );
    says(
        &with(1, Array::Numbers("y_train", vec![4], vec![0, 1, -1, 0])),
        "label -1 at 2",
    );
    says(
        &with(1, Array::Numbers("y_train", vec![2, 2], vec![0; 4])),
        "one class an image",
    );
    says(
        &with(1, Array::Numbers("y_train", vec![3], vec![0, 1, 1])),
        "3 training labels",
    );
    let none = Arrays {
        file: PathBuf::new(),
        split: 0,
    };
    assert!(none.load(&DataSource::default()).is_err());
}
