//! What folders may look like, what is said of them, and what is refused.

use super::*;

/// What loading a folder with some settings warns of.
fn notes(settings: Folders, dir: &Path) -> Vec<String> {
    let source = source(dir);
    ImageFolder(settings).load(&source).unwrap();
    source.notes.all()
}

/// Square images of one size in two classes.
fn squares(side: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["train/a", "train/b", "val/a", "val/b"] {
        let folder = dir.path().join(folder);
        fs::create_dir_all(&folder).unwrap();
        for i in 0..2 {
            picture(side, side, i)
                .save(folder.join(format!("{i}.png")))
                .unwrap();
        }
    }
    dir
}

#[test]
fn resize_follows_the_size_unless_it_is_set() {
    let resize = |size, resize| {
        Folders {
            size,
            resize,
            ..settings()
        }
        .resize()
    };
    // 256 of 224 is torchvision's; the others are the nearest to 8/7.
    let follows = [(224, 256), (32, 37), (64, 73), (8, 9), (1024, 1170)];
    assert_eq!(
        follows.map(|(size, _)| resize(size, 0)),
        follows.map(|(_, r)| r)
    );
    assert_eq!(resize(32, 40), 40);
    // What testing sees is the same part of the image for every size.
    for size in [8, 32, 200] {
        let settings = Folders {
            size,
            resize: 0,
            ..settings()
        };
        let [_, _, w, h] = middle_view((700, 700), settings.resize(), size).part;
        assert!((w / 700.0 - 0.875).abs() < 0.02 && w == h, "{w}");
    }
}

#[test]
fn what_testing_cuts_off_and_what_is_blown_up_is_said() {
    let dir = squares(28);
    let with = |size, resize| {
        notes(
            Folders {
                size,
                resize,
                ..settings()
            },
            dir.path(),
        )
    };
    let large = with(224, 0);
    assert!(
        large.len() == 1 && large[0].contains("28×28 pixels are scaled up to 224×224"),
        "{large:?}"
    );
    assert!(
        large[0].contains("64 times") && large[0].contains("dataset.size=28`"),
        "{large:?}"
    );
    assert_eq!(with(28, 0), [""; 0]);
    assert_eq!(with(32, 0), [""; 0]);
    // 8² of 12² is less than half, 8² of 11² is not.
    assert_eq!(with(8, 11), [""; 0]);
    let cut = with(8, 12);
    assert!(
        cut.len() == 1 && cut[0].contains("44 % of an image's area"),
        "{cut:?}"
    );
    assert!(
        cut[0].contains("`--set dataset.resize=9` shows more"),
        "{cut:?}"
    );
}

/// Files of every kind have the same pixels, whatever they are called.
#[test]
fn every_kind_of_file_is_decoded() {
    let dir = squares(12);
    let image = picture(30, 20, 5);
    let class = dir.path().join("train/a");
    let kinds = ["png", "bmp", "TIF", "tiff", "webp"];
    for (i, kind) in kinds.into_iter().enumerate() {
        image.save(class.join(format!("z{i}.{kind}"))).unwrap();
    }
    fs::copy(class.join("z1.bmp"), class.join("z9.jpg")).unwrap();
    let data = load(dir.path()).unwrap();
    let decoded: Vec<Vec<u8>> = (0..data.train.len())
        .map(|i| decode(&data.train, i, None, 8).unwrap())
        .collect();
    let view = middle_view((30, 20), 10, 8);
    let expected = reference(&image, view.part, 8);
    let close = decoded
        .iter()
        .filter(|d| largest_difference(d, &expected) <= 2.0);
    assert_eq!(close.count(), kinds.len() + 1);
}

#[test]
fn what_systems_leave_behind_is_passed_over() {
    let dir = write();
    let before = load(dir.path()).unwrap();
    for name in [
        "Thumbs.db",
        "desktop.ini",
        "Desktop.ini",
        ".DS_Store",
        "._n01_0.JPEG",
    ] {
        for folder in ["", "train", "train/n01", "val/n02"] {
            fs::write(dir.path().join(folder).join(name), "left").unwrap();
        }
    }
    for name in ["__MACOSX", "@eaDir", ".thumbnails"] {
        for folder in ["train", "train/n01", "val"] {
            fs::create_dir(dir.path().join(folder).join(name)).unwrap();
        }
    }
    let after = load(dir.path()).unwrap();
    assert_eq!(after.classes, before.classes);
    assert_eq!(after.checksum(), before.checksum());
}

/// Tiny ImageNet: `train/CLASS/images/…` with boxes beside, all of `val/images` and a list.
fn write_tiny() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (c, class) in ["n01", "n02", "n10"].into_iter().enumerate() {
        let folder = dir.path().join("train").join(class);
        fs::create_dir_all(folder.join("images")).unwrap();
        fs::write(folder.join(format!("{class}_boxes.txt")), "x\t0\t0\t1\t1\n").unwrap();
        for i in 0..3 {
            let image = jpeg(&picture(16, 16, 3 * c as u32 + i));
            fs::write(folder.join(format!("images/{class}_{i}.JPEG")), image).unwrap();
        }
    }
    fs::create_dir_all(dir.path().join("val/images")).unwrap();
    fs::create_dir_all(dir.path().join("test/images")).unwrap();
    let mut list = String::new();
    for i in 0..6 {
        let name = format!("val_{i}.JPEG");
        fs::write(
            dir.path().join("val/images").join(&name),
            jpeg(&picture(16, 16, 20 + i)),
        )
        .unwrap();
        list += &format!(
            "{name}\t{}\t0\t32\t44\t62\n",
            ["n10", "n01", "n02"][i as usize % 3]
        );
    }
    fs::write(dir.path().join("val/val_annotations.txt"), list).unwrap();
    dir
}

#[test]
fn tiny_imagenets_layout_is_read() {
    let dir = write_tiny();
    let data = load(dir.path()).unwrap();
    assert_eq!(data.classes, ["n01", "n02", "n10"]);
    assert_eq!(data.train.len(), 9);
    assert_eq!(data.test.labels, [0, 0, 1, 1, 2, 2]);
    // val_1 and val_4 are of the first class, and so on.
    for (at, number) in [21, 24, 22, 25, 20, 23].into_iter().enumerate() {
        let image = picture(16, 16, number);
        let expected = reference(&image, middle_view((16, 16), 10, 8).part, 8);
        let seen = decode(&data.test, at, None, 8).unwrap();
        assert!(largest_difference(&seen, &expected) < 12.0);
    }
    let refused = |damage: &dyn Fn(&Path), words: &str| {
        let dir = write_tiny();
        damage(dir.path());
        let error = load(dir.path()).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.exit_code(), 3);
    };
    let list = |dir: &Path, change: &dyn Fn(String) -> String| {
        let path = dir.join("val/val_annotations.txt");
        fs::write(&path, change(fs::read_to_string(&path).unwrap())).unwrap();
    };
    let unknown = |d: &Path| list(d, &|text| text.replace("n10", "n11"));
    refused(&unknown, "line 1: there are no training images of `n11`");
    let short = |d: &Path| list(d, &|text| text + "val_7.JPEG\n");
    refused(&short, "line 7: a file and its class are expected");
    let twice = |d: &Path| list(d, &|text| format!("{text}{text}"));
    refused(&twice, "line 7: there is no images/val_0.JPEG");
    let fewer = |d: &Path| list(d, &|text| text[text.find('\n').unwrap() + 1..].to_owned());
    refused(&fewer, "val_0.JPEG: is not listed in val_annotations.txt");
    refused(
        &|d| fs::remove_file(d.join("val/images/val_5.JPEG")).unwrap(),
        "line 6: there is no images/val_5.JPEG",
    );
}

#[test]
fn links_and_folders_that_lead_nowhere_are_named() {
    use std::os::unix::fs::symlink;
    let refused = |damage: &dyn Fn(&Path), words: [&str; 2]| {
        let dir = write();
        damage(dir.path());
        let error = load(dir.path()).unwrap_err();
        assert!(
            words.iter().all(|w| error.to_string().contains(w)),
            "{error}"
        );
        assert_eq!(error.exit_code(), 3);
    };
    let link = |to: &'static str| move |d: &Path| symlink(to, d.join("train/n02/x.png")).unwrap();
    refused(
        &link("/gone.png"),
        ["x.png", "is a link to /gone.png, which is not there"],
    );
    refused(&link("/dev/zero"), ["x.png", "is no file"]);
    refused(
        &|d| symlink("/gone", d.join("val/n30")).unwrap(),
        ["n30", "is a link to /gone"],
    );
    refused(
        &|d| fs::create_dir(d.join("train/n02/deeper")).unwrap(),
        ["deeper", "images lie directly in their class's folder"],
    );
    // A link that leads to an image is one.
    let dir = write();
    symlink(
        dir.path().join("train/n01/n01_0.JPEG"),
        dir.path().join("train/n02/x.jpg"),
    )
    .unwrap();
    assert_eq!(load(dir.path()).unwrap().train.len(), 17);
}

/// A small file that is a huge image: the header is enough to refuse it.
#[test]
fn huge_images_are_refused_before_they_are_decoded() {
    let dir = squares(12);
    let path = dir.path().join("train/a/0.png");
    let (side, mut png) = (22_000u32, vec![]);
    let encoder = image::codecs::png::PngEncoder::new(&mut png);
    image::ImageEncoder::write_image(encoder, &[0], 1, 1, image::ExtendedColorType::L8).unwrap();
    // Width and height of the header, and its checksum.
    png[16..20].copy_from_slice(&side.to_be_bytes());
    png[20..24].copy_from_slice(&side.to_be_bytes());
    let mut crc = flate2::Crc::new();
    crc.update(&png[12..29]);
    png[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    fs::write(&path, png).unwrap();
    let data = load(dir.path()).unwrap();
    let error = decode(&data.train, 0, None, 8).unwrap_err().to_string();
    assert!(
        error.contains("0.png: this image has 22000×22000 pixels"),
        "{error}"
    );
}
