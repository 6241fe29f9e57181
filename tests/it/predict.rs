//! What a trained network says of image files: it sees them as it saw its own, and another engine that is told by the
//! exported files how to show them says the same.

use std::fs;
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, RgbImage};
use nasfw::framework::dataset::{DataSource, ImageData, Images};
use serde_json::{Value, json};

use crate::pictures::{
    CLASSES, as_dataset, as_files, dataset, onnx_logits, pattern, synthetic, trained,
    trained_on_pictures, trained_on_synthetic,
};
use crate::program::{flat, good, nasfw};

/// The files of a folder of folders, sorted.
fn files(folder: &Path) -> Vec<String> {
    let inside = |folder: &Path| {
        let entries = fs::read_dir(folder).unwrap();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let classes = inside(folder);
    let all = classes.iter().flat_map(|class| inside(class));
    all.map(|path| path.to_str().unwrap().to_owned()).collect()
}

/// What `predict` says of all classes of images, the file's name first.
fn predicted(dir: &Path, images: &[String]) -> Vec<Value> {
    predicted_by(dir, "run", images)
}

/// The same of a run or an exported model.
fn predicted_by(dir: &Path, what: &str, images: &[String]) -> Vec<Value> {
    let images = images.iter().map(String::as_str);
    let args: Vec<&str> = ["predict", what, "--json", "--top", "99"]
        .into_iter()
        .chain(images)
        .collect();
    let said: Value = serde_json::from_str(&good(dir, &args)).unwrap();
    assert_eq!(said["epoch"], 4);
    said["images"].as_array().unwrap().clone()
}

/// Probabilities in the order of the network's outputs. They are told in falling order, with the names of classes.
fn probabilities(said: &Value, names: &[&str]) -> Vec<f64> {
    let top = said["top"].as_array().unwrap();
    assert_eq!(top.len(), names.len());
    let mut all = vec![f64::NAN; names.len()];
    let mut last = 1.0;
    for likely in top {
        let (number, p) = (&likely["number"], likely["probability"].as_f64().unwrap());
        let number = number.as_u64().unwrap() as usize;
        assert_eq!(likely["class"], names[number]);
        assert!(p <= last, "{said}");
        (all[number], last) = (p, p);
    }
    assert!((all.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{said}");
    all
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let sum: f64 = logits.iter().map(|l| l.exp()).sum();
    logits.iter().map(|l| l.exp() / sum).collect()
}

fn largest(row: &[f64]) -> usize {
    (0..row.len())
        .max_by(|a, b| row[*a].total_cmp(&row[*b]))
        .unwrap()
}

/// What the exported files say of the run.
fn exported(dir: &Path) -> Value {
    let files = ["--safetensors", "n.safetensors", "--pytorch", "n.py"];
    let models = ["--onnx", "n.onnx"];
    good(dir, &[&["export", "run"], &files[..], &models].concat());
    let raw = ["--onnx", "raw.onnx", "--raw-pixels"];
    let said = good(dir, &[&["export", "run"], &raw[..]].concat());
    assert!(
        said.contains("raw.onnx: ONNX, operator set 17, raw pixels"),
        "{said}"
    );
    let weights = fs::read(dir.join("n.safetensors")).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&weights).unwrap();
    let text = &header.metadata().as_ref().unwrap()["nasfw"];
    let mut says: Value = serde_json::from_str(text).unwrap();
    for (file, raw) in [("n.onnx", false), ("raw.onnx", true)] {
        says["raw_pixels"] = raw.into();
        let (model, text) = (fs::read(dir.join(file)).unwrap(), says.to_string());
        let has = model.windows(text.len()).any(|w| w == text.as_bytes());
        assert!(has, "{file} does not say {text}");
    }
    says
}

/// Bytes of images, channel after channel, as the numbers that models are fed with.
fn as_numbers(bytes: &[u8]) -> Vec<f32> {
    bytes.iter().map(|b| f32::from(*b)).collect()
}

/// The same, normalised as an exported file says.
fn normalised(bytes: &[u8], pixels: usize, says: &Value) -> Vec<f32> {
    let value = |key: &str, channel: usize| says[key][channel].as_f64().unwrap();
    let divide_by = says["divide_by"].as_f64().unwrap();
    let number = |(i, byte): (usize, &u8)| {
        let channel = i / pixels % says["mean"].as_array().unwrap().len();
        let x = f64::from(*byte) / divide_by;
        ((x - value("mean", channel)) / value("std", channel)) as f32
    };
    bytes.iter().enumerate().map(number).collect()
}

#[test]
fn images_are_what_the_exported_network_says_they_are() {
    for channels in [1, 3] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        trained_on_synthetic(dir, channels, 12);
        let data = synthetic(channels, 12);
        as_files(&dir.join("png"), &data.test, [channels, 12], pattern);
        let files = files(&dir.join("png"));
        assert_eq!(files.len(), data.test.len());
        let names: Vec<&str> = data.classes.iter().map(String::as_str).collect();

        let says = exported(dir);
        let shown = &says["preprocessing"];
        let colours = if channels == 1 { "grey" } else { "RGB" };
        assert_eq!(shown["colours"], colours);
        assert_eq!(
            (&shown["size"], &shown["resize"]),
            (&json!([12, 12]), &json!(12))
        );
        assert_eq!(shown["interpolation"], "bilinear");
        assert_eq!(shown["mean"], says["normalisation"]["mean"]);
        assert_eq!(says["normalisation"]["classes"], json!(names));
        let python = fs::read_to_string(dir.join("n.py")).unwrap();
        let line = format!("\"colours\": \"{colours}\", \"divide_by\": 255.0, \"mean\": MEAN");
        assert!(python.contains(&line), "{python}");

        // Decoded here, one after the other.
        let mut bytes = vec![];
        for file in &files {
            let picture = image::open(file).unwrap();
            let picture = match channels {
                1 => DynamicImage::from(picture.to_luma8()).into_bytes(),
                _ => picture.into_rgb8().into_raw(),
            };
            for channel in 0..channels {
                bytes.extend(picture.iter().skip(channel).step_by(channels));
            }
        }
        let shape = [files.len(), channels, 12, 12];
        let model = |name: &str| fs::read(dir.join(name)).unwrap();
        let pixels = normalised(&bytes, 144, shown);
        let logits = onnx_logits(model("n.onnx"), &shape, pixels);
        let raw = onnx_logits(model("raw.onnx"), &shape, as_numbers(&bytes));

        let found = predicted(dir, &files);
        let mut confusion = vec![vec![0u64; CLASSES]; CLASSES];
        for (i, said) in found.iter().enumerate() {
            assert_eq!(said["file"], files[i]);
            let ours = probabilities(said, &names);
            for theirs in [softmax(&logits[i]), softmax(&raw[i])] {
                for (ours, theirs) in ours.iter().zip(theirs) {
                    assert!((ours - theirs).abs() < 1e-5, "{ours} {theirs}");
                }
            }
            let class = names
                .iter()
                .position(|name| Path::new(&files[i]).parent().unwrap().ends_with(name));
            confusion[class.unwrap()][largest(&logits[i])] += 1;
        }
        exported_models_answer_alike(dir, &files, &found, &names);
        classes_are_judged(dir, &names, &confusion);
        without_images(dir, &files, &found);
    }
}

/// `predict` answers by the exported models as by the run, up to single precision.
fn exported_models_answer_alike(dir: &Path, files: &[String], found: &[Value], names: &[&str]) {
    let elsewhere = tempfile::tempdir().unwrap();
    for model in ["n.onnx", "raw.onnx"] {
        let copy = elsewhere.path().join(model);
        fs::copy(dir.join(model), &copy).unwrap();
        let said = predicted_by(elsewhere.path(), copy.to_str().unwrap(), files);
        assert_eq!(said.len(), found.len());
        for (said, found) in said.iter().zip(found) {
            assert_eq!(said["file"], found["file"]);
            let both = [said, found].map(|said| probabilities(said, names));
            for (theirs, ours) in both[0].iter().zip(&both[1]) {
                assert!((theirs - ours).abs() < 1e-5, "{model}: {said} {found}");
            }
        }
    }
}

/// `eval` says of every class what comes of its images one by one.
fn classes_are_judged(dir: &Path, names: &[&str], confusion: &[Vec<u64>]) {
    let said: Value = serde_json::from_str(&good(dir, &["eval", "run", "--json"])).unwrap();
    assert_eq!(said["confusion"], json!(confusion));
    let text = good(dir, &["eval", "run"]);
    let mut all = [0, 0];
    for (i, row) in confusion.iter().enumerate() {
        let (images, right) = (row.iter().sum::<u64>(), row[i]);
        let accuracy = right as f64 / images as f64;
        let expected = json!({"class": names[i], "images": images, "accuracy": accuracy});
        assert_eq!(said["classes"][i], expected);
        let words = format!("{} {images} {:.2}%", names[i], accuracy * 100.0);
        let line = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .find(|line| line.starts_with(&format!("{words} ")) || *line == words);
        let line = line.unwrap_or_else(|| panic!("no `{words}` in {text}"));
        let most = (0..row.len())
            .filter(|j| *j != i)
            .map(|j| row[j])
            .max()
            .unwrap();
        assert_eq!(line.ends_with(&format!("({most})")), most > 0, "{line}");
        all = [all[0] + images, all[1] + right];
    }
    assert_eq!(said["test"]["images"], all[0] as f64);
    assert_eq!(said["test"]["accuracy"], all[1] as f64 / all[0] as f64);
    assert!(!text.contains("worst"), "{text}");
}

/// The run's own images are not needed, also where they are of no use any more.
fn without_images(dir: &Path, files: &[String], found: &[Value]) {
    let file = dir.join("run/manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    manifest["data"] = "00".into();
    fs::write(&file, manifest.to_string()).unwrap();
    assert_eq!(predicted(dir, files), found);
}

/// Pictures of any size are scaled and cut out as the run's dataset does it.
#[test]
fn pictures_are_shown_as_the_runs_own_dataset_shows_them() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    trained_on_pictures(dir);
    // Nothing of what follows needs the images.
    fs::remove_dir_all(dir.join("own")).unwrap();
    let says = exported(dir);

    // Neither their size nor their format is that of the run's.
    let other = dir.join("other");
    for part in ["train", "val"] {
        for class in ["a", "b"] {
            let folder = other.join(part).join(class);
            fs::create_dir_all(&folder).unwrap();
            for (i, (width, height)) in [(40, 30), (16, 31), (300, 90)].into_iter().enumerate() {
                let picture = RgbImage::from_fn(width, height, |x, y| {
                    image::Rgb([(5 * x + y) as u8, (x * y / 7) as u8, (9 * y) as u8])
                });
                let mut bytes = vec![];
                let encoder = JpegEncoder::new_with_quality(&mut bytes, 90);
                picture.write_with_encoder(encoder).unwrap();
                fs::write(folder.join(format!("{i}.jpg")), bytes).unwrap();
            }
        }
    }
    let folder = dataset("image-folder", &[("size", json!(16))]);
    let source = DataSource {
        dir: Some(other.clone()),
        ..DataSource::default()
    };
    let ImageData { test, .. } = folder.load(&source).unwrap();
    let Images::Source(pictures) = &test.images else {
        panic!("images in files are decoded");
    };
    let mut bytes = vec![0; test.len() * 3 * 256];
    for (i, image) in bytes.chunks_exact_mut(3 * 256).enumerate() {
        pictures.decode(i, None, image).unwrap();
    }
    let shape = [test.len(), 3, 16, 16];
    let model = |name: &str| fs::read(dir.join(name)).unwrap();
    let raw = onnx_logits(model("raw.onnx"), &shape, as_numbers(&bytes));
    let pixels = normalised(&bytes, 256, &says["preprocessing"]);
    let plain = onnx_logits(model("n.onnx"), &shape, pixels);
    let classes = says["normalisation"]["classes"].as_array().unwrap();
    let names: Vec<&str> = classes.iter().map(|name| name.as_str().unwrap()).collect();
    let files = files(&other.join("val"));
    for (i, said) in predicted(dir, &files).iter().enumerate() {
        let ours = probabilities(said, &names);
        for theirs in [softmax(&raw[i]), softmax(&plain[i])] {
            for (ours, theirs) in ours.iter().zip(theirs) {
                assert!((ours - theirs).abs() < 1e-5, "{ours} {theirs}");
            }
        }
    }
    let crop = json!({"size": [16, 16], "resize": 18});
    assert_eq!(says["crop"], crop);
    assert_eq!(says["preprocessing"]["resize"], 18);

    // One of its checkpoints, as text: as many classes as were asked for.
    let checkpoint = fs::read_dir(dir.join("run/checkpoints")).unwrap();
    let mut checkpoints: Vec<_> = checkpoint.map(|entry| entry.unwrap().path()).collect();
    checkpoints.retain(|path| path.extension().is_some_and(|e| e == "safetensors"));
    checkpoints.sort();
    let newest = checkpoints.last().unwrap().to_str().unwrap();
    let text = good(dir, &["predict", newest, &files[0], "--top", "2"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0]), (3, files[0].as_str()), "{text}");
    assert!(lines[1].contains("%  pattern "), "{text}");
}

/// Of many classes the worst are shown, and the most frequent mistakes.
#[test]
fn of_many_classes_the_worst_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let set = "--dataset synthetic --set dataset.classes=24 --set dataset.size=8 --set dataset.images=96 --set \
               dataset.test_images=96 --set dataset.noise=1.0";
    trained(dir, &set.split_whitespace().collect::<Vec<_>>());
    let said: Value = serde_json::from_str(&good(dir, &["eval", "run", "--json"])).unwrap();
    let classes = said["classes"].as_array().unwrap();
    let mut worst: Vec<f64> = (classes.iter())
        .filter_map(|class| class["accuracy"].as_f64())
        .collect();
    worst.sort_by(f64::total_cmp);
    let text = good(dir, &["eval", "run"]);
    let (_, table) = text.split_once("the 10 worst of 24 classes\n").unwrap();
    let (worst_ones, mistakes) = table
        .split_once("\n\nthe most frequent mistakes\n")
        .unwrap();
    let shown: Vec<f64> = worst_ones
        .lines()
        .skip(1)
        .map(|line| {
            let percent = line.split_whitespace().find_map(|w| w.strip_suffix('%'));
            percent.unwrap().parse().unwrap()
        })
        .collect();
    assert_eq!(shown.len(), 10, "{text}");
    for (shown, expected) in shown.iter().zip(&worst) {
        assert!((shown - expected * 100.0).abs() < 0.006, "{text}");
    }
    let rows = said["confusion"].as_array().unwrap().iter().enumerate();
    let mut counts: Vec<u64> = rows
        .flat_map(|(i, row)| {
            let others = row.as_array().unwrap().iter().enumerate();
            let others = others.filter(move |(j, _)| *j != i);
            others.map(|(_, n)| n.as_u64().unwrap()).collect::<Vec<_>>()
        })
        .filter(|n| *n > 0)
        .collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let shown: Vec<u64> = (mistakes.lines())
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words[words.len() - 3].parse().unwrap()
        })
        .collect();
    assert!(
        !shown.is_empty() && shown[..] == counts[..shown.len()],
        "{text}"
    );
}

#[test]
fn what_can_not_be_predicted_is_refused_with_what_to_type() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    trained_on_synthetic(dir, 3, 12);
    let data = synthetic(3, 12);
    as_dataset(&dir.join("png"), &data.test, [3, 12], pattern);
    let good_one = files(&dir.join("png/val"))[0].clone();
    let bytes = fs::read(&good_one).unwrap();
    fs::write(dir.join("cut.png"), &bytes[..bytes.len() / 2]).unwrap();
    fs::write(dir.join("text.jpg"), "no image").unwrap();
    fs::write(dir.join("n.onnx"), "a model").unwrap();
    let export = ["--safetensors", "n.safetensors", "--onnx", "net.onnx"];
    good(dir, &[&["export", "run"], &export[..]].concat());
    // Words are as long as before, so that the files stay ONNX models.
    let model = fs::read(dir.join("net.onnx")).unwrap();
    for (file, word, other) in [
        ("foreign.onnx", "nasfw", "other"),
        ("old.onnx", "preprocessing", "pre-processed"),
    ] {
        let mut changed = model.clone();
        for i in 0..=model.len() - word.len() {
            if model[i..].starts_with(word.as_bytes()) {
                changed[i..i + word.len()].copy_from_slice(other.as_bytes());
            }
        }
        fs::write(dir.join(file), changed).unwrap();
    }
    let search = "run --strategy random --space toy-conv --epochs 1 --out . --name search --device cpu --threads 1";
    good(dir, &search.split_whitespace().collect::<Vec<_>>());
    for (args, code, parts) in [
        (&["run"][..], 2, &["IMAGE"][..]),
        (&["run", &good_one, "--top", "0"], 2, &["--top"]),
        (
            &["run", &good_one, "missing.png"],
            3,
            &[
                "missing.png: cannot be read",
                "JPEG, PNG, WebP, BMP or TIFF",
            ],
        ),
        (
            &["run", "cut.png"],
            3,
            &["cut.png: this PNG file is truncated"],
        ),
        (
            &["run", "text.jpg"],
            3,
            &["text.jpg: is no image that can be decoded"],
        ),
        (
            &["run", "png"],
            3,
            &[
                "png: cannot be read: it is a folder",
                "nasfw predict RUN FOLDER/*",
            ],
        ),
        (
            &["nowhere", &good_one],
            4,
            &["nowhere: this is no run folder"],
        ),
        (
            &["n.onnx", &good_one],
            3,
            &[
                "n.onnx: it is no ONNX model",
                "nasfw export runs/NAME --onnx",
            ],
        ),
        (
            &["foreign.onnx", &good_one],
            3,
            &[
                "it has no property `nasfw`",
                "only models that `nasfw export",
            ],
        ),
        (
            &["old.onnx", &good_one],
            3,
            &["missing field `preprocessing`", "write it again"],
        ),
        (
            &["net.onnx", &good_one, "--device", "cpu"],
            2,
            &["--device", "leave them out"],
        ),
        (&["gone.onnx", &good_one], 5, &["gone.onnx"]),
        (
            &["n.safetensors", &good_one],
            2,
            &[
                "no checkpoint in a run folder",
                "nasfw predict runs/NAME IMAGE",
            ],
        ),
        (&[&good_one, "run"], 2, &["no checkpoint in a run folder"]),
        (
            &["search", &good_one],
            2,
            &["supernet", "nasfw retrain RUN"],
        ),
        (&["run", &good_one, "--device", "cuda:99"], 6, &["cuda:99"]),
    ] {
        let out = nasfw(dir, &[&["predict"], args].concat());
        let text = flat(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{args:?}: {text}");
        for part in parts {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    let out = nasfw(
        dir,
        &[
            "export",
            "run",
            "--safetensors",
            "w.safetensors",
            "--raw-pixels",
        ],
    );
    assert_eq!(out.status.code(), Some(2));
    assert!(flat(&out.stderr).contains("--onnx"));
}
