//! A trained network sees other images as it saw those that it was trained on, and is judged by classes of the same
//! names, wherever the images come from.

use std::fs;
use std::path::Path;

use image::DynamicImage;
use serde_json::{Value, json};

use crate::pictures::{
    CLASSES, as_dataset, onnx_logits, pattern, synthetic, trained_on_pictures, trained_on_synthetic,
};
use crate::program::{good, nasfw};

fn measured(dir: &Path, more: &[&str]) -> Value {
    let text = good(dir, &[&["eval", "run", "--json"], more].concat());
    serde_json::from_str::<Value>(&text).unwrap()["test"].clone()
}

fn refused(dir: &Path, more: &[&str], code: i32) -> String {
    let out = nasfw(dir, &[&["eval", "run"], more].concat());
    let text = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{text}");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The same images, the same labels: figures differ by rounding alone.
fn assert_equal(found: &Value, expected: &Value, digits: f64) {
    for figure in ["accuracy", "top5", "images"] {
        assert_eq!(
            found[figure], expected[figure],
            "{figure}: {found} {expected}"
        );
    }
    let [found, expected] = [found, expected].map(|v| v["loss"].as_f64().unwrap());
    assert!(
        (found / expected - 1.0).abs() < digits,
        "{found} {expected}"
    );
}

/// What the exported ONNX model is worth on a folder of PNG files, by what is written in it of how they are to be shown.
/// Files must need no scaling.
fn exported(dir: &Path, folder: &Path) -> Value {
    let files = ["--onnx", "n.onnx", "--safetensors", "n.safetensors"];
    good(dir, &[&["export", "run"], &files[..]].concat());
    let model = fs::read(dir.join("n.onnx")).unwrap();
    let weights = fs::read(dir.join("n.safetensors")).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&weights).unwrap();
    let text = &header.metadata().as_ref().unwrap()["nasfw"];
    assert!(
        model.windows(text.len()).any(|w| w == text.as_bytes()),
        "both files say the same"
    );
    let says: Value = serde_json::from_str(text).unwrap();
    let numbers = |v: &Value| -> Vec<f64> {
        let all = v.as_array().unwrap().iter();
        all.map(|n| n.as_f64().unwrap()).collect()
    };
    let scaling = &says["normalisation"];
    let (mean, std) = (numbers(&scaling["mean"]), numbers(&scaling["std"]));
    let classes: Vec<&str> = scaling["classes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c.as_str().unwrap())
        .collect();

    let (mut pixels, mut labels, mut shape) = (vec![], vec![], [0; 4]);
    for class in fs::read_dir(folder).unwrap() {
        let class = class.unwrap();
        let name = class.file_name().into_string().unwrap();
        let label = classes.iter().position(|c| *c == name).unwrap();
        for file in fs::read_dir(class.path()).unwrap() {
            let mut picture = image::open(file.unwrap().path()).unwrap();
            if !says["crop"].is_null() {
                assert_eq!(says["crop"]["resize"], picture.height());
                let size = numbers(&says["crop"]["size"]);
                let (rows, columns) = (size[0] as u32, size[1] as u32);
                let top = (picture.height() - rows) / 2;
                let left = (picture.width() - columns) / 2;
                picture = picture.crop_imm(left, top, columns, rows);
            }
            let (rows, columns) = (picture.height() as usize, picture.width() as usize);
            let bytes = match mean.len() {
                1 => DynamicImage::from(picture.to_luma8()).into_bytes(),
                _ => picture.into_rgb8().into_raw(),
            };
            for c in 0..mean.len() {
                let channel = bytes.iter().skip(c).step_by(mean.len());
                pixels.extend(channel.map(|b| ((f64::from(*b) / 255.0 - mean[c]) / std[c]) as f32));
            }
            labels.push(label);
            shape = [labels.len(), mean.len(), rows, columns];
        }
    }
    let logits = onnx_logits(model, &shape, pixels);
    let (mut loss, mut top1, mut top5) = (0.0, 0, 0);
    for (row, label) in logits.iter().zip(&labels) {
        let above = row.iter().filter(|l| **l > row[*label]).count();
        top1 += usize::from(above == 0);
        top5 += usize::from(above < 5);
        loss += row.iter().map(|l| l.exp()).sum::<f64>().ln() - row[*label];
    }
    let n = labels.len() as f64;
    json!({
        "loss": loss / n,
        "accuracy": top1 as f64 / n,
        "top5": top5 as f64 / n,
        "images": n,
    })
}

#[test]
fn the_same_pictures_give_the_same_figures_wherever_they_come_from() {
    for channels in [1, 3] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        trained_on_synthetic(dir, channels, 12);
        let own = measured(dir, &[]);
        assert!(
            own["accuracy"].as_f64().unwrap() > 2.0 / CLASSES as f64,
            "a network that has not learnt says nothing of labels: {own}"
        );
        assert_eq!(measured(dir, &["--dataset", "synthetic"]), own);

        let data = synthetic(channels, 12);
        as_dataset(&dir.join("png"), &data.test, [channels, 12], pattern);
        let png = ["--dataset", "image-folder", "--data-dir", "png"];
        assert_equal(&measured(dir, &png), &own, 1e-12);
        assert_equal(&exported(dir, &dir.join("png/val")), &own, 1e-5);

        // Classes that the network does not know are named, with those that are left.
        let zebra = |c| {
            if c == 3 {
                Some("zebra".into())
            } else {
                pattern(c)
            }
        };
        as_dataset(&dir.join("other"), &data.test, [channels, 12], zebra);
        let other = ["--dataset", "image-folder", "--data-dir", "other"];
        let text = refused(dir, &other, 2);
        assert!(
            text.contains("does not know the classes `zebra`") && text.contains("`pattern 3`"),
            "{text}"
        );

        // A run of an earlier version does not say what it takes; its own images do, as long as they are its own.
        let file = dir.join("run/manifest.json");
        let mut manifest: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(manifest["inputs"]["task"]["height"], 12);
        manifest.as_object_mut().unwrap().remove("inputs");
        fs::write(&file, manifest.to_string()).unwrap();
        assert_eq!(measured(dir, &[]), own);
        assert_equal(&measured(dir, &png), &own, 1e-12);
        manifest["data"] = "00".into();
        fs::write(&file, manifest.to_string()).unwrap();
        for more in [&[][..], &png] {
            let text = refused(dir, more, 4);
            assert!(text.contains("own images"), "{text}");
        }
    }
}

/// Of files, too: a run's own crop is that of all other folders, and classes may be fewer.
#[test]
fn folders_are_cut_out_as_the_runs_own_and_classes_go_by_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (own, data) = trained_on_pictures(dir);
    let whole = measured(dir, &[]);
    assert_equal(&exported(dir, &dir.join("own/val")), &whole, 1e-5);
    assert_eq!(measured(dir, &own), whole);

    // Without the first classes, so that every number is another one.
    let some = |c| pattern(c).filter(|_| c > 4);
    as_dataset(&dir.join("some"), &data.test, [3, 18], some);
    let found = measured(dir, &["--dataset", "image-folder", "--data-dir", "some"]);
    assert_equal(&found, &exported(dir, &dir.join("some/val")), 1e-5);
    assert_ne!(found["images"], whole["images"]);
}

#[test]
fn images_of_another_shape_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    trained_on_synthetic(dir, 3, 12);
    let text = refused(dir, &["--dataset", "fashion-mnist-mini"], 2);
    assert!(
        text.contains("1×28×28") && text.contains("3×12×12"),
        "{text}"
    );
    let text = refused(dir, &["--dataset", "image-foldr"], 2);
    assert!(text.contains("image-folder"), "{text}");
}
