//! Pictures as a network takes them that was trained on others.

use super::*;

const CROP: CenterCrop = CenterCrop {
    size: [8, 8],
    resize: 10,
};

fn shown(dir: &Path, channels: i64, crop: CenterCrop) -> Result<ImageData> {
    // Settings of one's own are of no account.
    let other = Folders {
        size: 64,
        resize: 0,
        ..settings()
    };
    ImageFolder(other).load_as(&source(dir), channels, crop)
}

#[test]
fn pictures_are_cut_out_as_the_networks_own() {
    let dir = write();
    assert_eq!(ImageFolder(settings()).crop(), Some(CROP));
    let follows = Folders {
        size: 224,
        resize: 0,
        ..settings()
    };
    let torchvision = CenterCrop {
        size: [224, 224],
        resize: 256,
    };
    assert_eq!(ImageNet(follows).crop(), Some(torchvision));

    let own = load(dir.path()).unwrap();
    let colours = shown(dir.path(), 3, CROP).unwrap();
    let greys = shown(dir.path(), 1, CROP).unwrap();
    assert_eq!(
        (colours.task, &colours.test.labels),
        (own.task, &own.test.labels)
    );
    assert_eq!((greys.task.channels, greys.mean.len()), (1, 1));
    for i in 0..own.test.len() {
        let pixels = decode(&own.test, i, None, 8).unwrap();
        assert_eq!(decode(&colours.test, i, None, 8).unwrap(), pixels);
        let Images::Source(source) = &greys.test.images else {
            panic!("these images are decoded");
        };
        let mut grey = vec![0; 64];
        source.decode(i, None, &mut grey).unwrap();
        for (p, found) in grey.iter().enumerate() {
            // ITU-R BT.601, as Pillow's mode L.
            let [r, g, b] = [0, 1, 2].map(|c| f64::from(pixels[64 * c + p]));
            let expected = 0.299 * r + 0.587 * g + 0.114 * b;
            assert!(
                (f64::from(*found) - expected).abs() < 0.502,
                "{found} {expected}"
            );
        }
    }
}

#[test]
fn a_grey_picture_keeps_its_pixels() {
    let dir = tempfile::tempdir().unwrap();
    let picture = image::GrayImage::from_fn(16, 16, |x, y| image::Luma([(16 * y + x) as u8]));
    for folder in ["train/a", "train/b", "val/a", "val/b"] {
        let folder = dir.path().join(folder);
        fs::create_dir_all(&folder).unwrap();
        picture.save(folder.join("0.png")).unwrap();
    }
    let whole = CenterCrop {
        size: [16, 16],
        resize: 16,
    };
    let data = shown(dir.path(), 1, whole).unwrap();
    let Images::Source(source) = &data.test.images else {
        panic!("these images are decoded");
    };
    let mut pixels = vec![0; 256];
    source.decode(1, None, &mut pixels).unwrap();
    assert_eq!(pixels, picture.into_raw());
}

#[test]
fn shapes_that_pictures_do_not_have_are_refused() {
    let dir = write();
    let crop = |rows, columns, resize| CenterCrop {
        size: [rows, columns],
        resize,
    };
    let shapes = [
        (2, CROP),
        (3, crop(8, 9, 10)),
        (3, crop(8, 8, 7)),
        (3, crop(0, 0, 4)),
        (1, crop(-8, -8, 8)),
        (3, crop(1 << 40, 1 << 40, 1 << 41)),
    ];
    for (channels, crop) in shapes {
        let error = shown(dir.path(), channels, crop).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
    }
}

/// Files by themselves are shown as those of a dataset are, in the order in which they are named.
#[test]
fn single_files_are_shown_as_a_dataset_shows_them() {
    let dir = write();
    for channels in [1, 3] {
        let data = shown(dir.path(), channels, CROP).unwrap();
        let Images::Source(source) = &data.test.images else {
            panic!("these images are decoded");
        };
        let names = |class: &str| {
            let names = ["a picture.PNG".to_owned(), format!("{class}_0.JPEG")];
            names.map(|name| dir.path().join("val").join(class).join(name))
        };
        let mut files: Vec<PathBuf> = ["n01", "n02", "n10"]
            .iter()
            .flat_map(|c| names(c))
            .collect();
        let one = channels as usize * 64;
        let found = pictures(&files, channels, CROP).unwrap();
        assert_eq!(found.len(), files.len() * one);
        for (i, found) in found.chunks_exact(one).enumerate() {
            let mut expected = vec![0; one];
            source.decode(i, None, &mut expected).unwrap();
            assert_eq!(found, expected, "{channels} channels, image {i}");
        }
        files.reverse();
        let reversed = pictures(&files, channels, CROP).unwrap();
        let reversed: Vec<u8> = reversed
            .chunks_exact(one)
            .rev()
            .flatten()
            .copied()
            .collect();
        assert_eq!(reversed, found);
    }
    assert!(pictures(&[], 3, CROP).unwrap().is_empty());
}

#[test]
fn single_files_that_are_no_images_are_named() {
    let dir = write();
    let whole = dir.path().join("val/n01/n01_0.JPEG");
    let (cut, text) = (dir.path().join("cut.png"), dir.path().join("text.jpg"));
    let bytes = fs::read(dir.path().join("val/n01/a picture.PNG")).unwrap();
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    fs::write(&text, "no image").unwrap();
    let missing = dir.path().join("missing.png");
    for (file, why) in [
        (cut, "truncated"),
        (text, "no image that can be decoded"),
        (missing, "cannot be read"),
        (dir.path().join("val"), "it is a folder"),
    ] {
        // The first bad one is named.
        let files = [whole.clone(), file.clone(), dir.path().join("other.png")];
        let error = pictures(&files, 3, CROP).unwrap_err();
        let text = error.to_string();
        let named = file.to_str().unwrap();
        assert!(text.contains(named) && text.contains(why), "{text}");
        assert_eq!(error.exit_code(), 3, "{text}");
    }
    let wide = CenterCrop {
        size: [8, 9],
        resize: 10,
    };
    assert_eq!(pictures(&[whole], 3, wide).unwrap_err().exit_code(), 2);
}
