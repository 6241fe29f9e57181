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
