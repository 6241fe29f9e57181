//! Datasets' files.

use std::fs;
use std::path::Path;

use nasfw::framework::Result;
use nasfw::framework::dataset::{DataSource, Dataset, ImageData, Images};
use nasfw_datasets::{Cifar10, Cifar100, ImageNet16, fashion_mnist};

use super::{Read, corpus, refused};

#[rustfmt::skip]
pub const PICKLE: &[&[u8]] = &[
    b"\x80\x02",
    b"\x80\x04",
    b"\x95",
    b"}",
    b"]",
    b"(",
    b")",
    b"q\0",
    b"h\0",
    b"r\xff\xff\xff\x7f",
    b"j\0\0\0\0",
    b"\x94",
    b"U\x04data",
    b"X\x04\0\0\0data",
    b"C\x04data",
    b"K\x01",
    b"M\x01\x01",
    b"J\xff\xff\xff\xff",
    b"\x8a\x08",
    b"\x8b\xff\xff\xff\x7f",
    b"e",
    b"u",
    b"s",
    b"a",
    b"t",
    b"l",
    b"d",
    b"0",
    b"1",
    b"2",
    b"R",
    b"b",
    b"i",
    b"o",
    b"cos\nsystem\n",
    b"cnumpy.core.multiarray\n_reconstruct\n",
    b"cnumpy\ndtype\n",
    b"N",
    b"I01\n",
    b"L99\n",
    b"G",
    b"T\xff\xff\xff\xff",
    b"B\xff\xff\xff\x7f",
    b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
    b".",
    b"labels",
    b"fine_labels",
    b"\x86\x87",
    b"((((",
    b"]]]]",
    b"}}}}",
];
#[rustfmt::skip]
pub const PNG: &[&[u8]] = &[
    b"IHDR",
    b"IDAT",
    b"IEND",
    b"PLTE",
    b"tRNS",
    b"acTL",
    b"fcTL",
    b"iCCP",
    b"zTXt",
    b"\0\0\x55\xf0",
    b"\0\0\0\0",
    b"\x10\x06\0\0\x01",
    b"\x08\x03\0\0\0",
    b"\x01\0\0\0\0",
];
#[rustfmt::skip]
pub const OTHERS: &[&[u8]] = &[
    b"BM", b"II*\0", b"MM\0*", b"RIFF", b"WEBP", b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"\x01\x01\x03\0", b"\0\x01\x04\0", b"\x55\xf0\0\0",
];
#[rustfmt::skip]
pub const JPEG: &[&[u8]] = &[
    b"\xff\xd8",
    b"\xff\xd9",
    b"\xff\xc0",
    b"\xff\xc2",
    b"\xff\xc4",
    b"\xff\xda",
    b"\xff\xdb",
    b"\xff\xdd",
    b"\xff\xe1",
    b"\xff\xff",
    b"\xff\0",
    b"\x55\xf0",
    b"\xff\xd0",
];

/// All of a dataset: its images, too, where they are decoded one by one.
fn loaded(data: Result<ImageData>) -> bool {
    let data = match data {
        Ok(data) => data,
        Err(error) => return refused(&error),
    };
    let mut good = true;
    drop(data.checksum());
    for part in [&data.train, &data.test] {
        let Images::Source(source) = &part.images else {
            continue;
        };
        let bytes = data.task.channels * data.task.height * data.task.width;
        let mut image = vec![0; usize::try_from(bytes).unwrap()];
        for i in 0..part.len() {
            if let Err(error) = source.decode(i, None, &mut image) {
                good = refused(&error);
            }
        }
    }
    good
}

fn at(folder: &Path) -> DataSource {
    DataSource {
        dir: Some(folder.to_owned()),
        ..DataSource::default()
    }
}

/// A batch of CIFAR-10 beside whole ones, and the training images of CIFAR-100. Each has its whole file in the corpus,
/// with so many images.
fn cifar(
    folder: &Path,
    [ten, hundred]: [(&str, usize); 2],
    ending: &str,
    [train, test]: [&str; 2],
) -> Read {
    let place = |name: &str, files: &[String], whole: &str| {
        let place = folder.join(name);
        fs::create_dir(&place).unwrap();
        for file in files {
            fs::copy(corpus().join(whole), place.join(file)).unwrap();
        }
        place
    };
    let others = [
        "data_batch_2",
        "data_batch_3",
        "data_batch_4",
        "data_batch_5",
        "test_batch",
    ];
    let others = others.map(|name| format!("{name}{ending}"));
    let tens = place("ten", &others, ten.0);
    let hundreds = place("hundred", &[test.to_owned()], hundred.0);
    let [first, train] = [format!("data_batch_1{ending}"), train.to_owned()];
    let rows = [[5 * ten.1, ten.1], [hundred.1, hundred.1]];
    Box::new(move |bytes| {
        fs::write(tens.join(&first), bytes).unwrap();
        let ten = loaded(Cifar10::read_folder(&tens, rows[0], &at(&tens)));
        fs::write(hundreds.join(&train), bytes).unwrap();
        loaded(Cifar100::read_folder(&hundreds, rows[1], &at(&hundreds))) || ten
    })
}

pub fn cifar_binary(folder: &Path) -> Read {
    let whole = [("cifar-binary/rows", 2), ("cifar-binary/hundred", 1)];
    cifar(folder, whole, ".bin", ["train.bin", "test.bin"])
}

pub fn cifar_pickle(folder: &Path) -> Read {
    let whole = [("cifar-pickle/ten-2", 3), ("cifar-pickle/hundred", 2)];
    cifar(folder, whole, "", ["train", "test"])
}

/// Eleven batches, of which the first one is replaced.
pub fn imagenet16(folder: &Path) -> Read {
    let folder = folder.to_owned();
    let whole = fs::read(corpus().join("imagenet16/whole")).unwrap();
    for i in 2..=10 {
        fs::write(folder.join(format!("train_data_batch_{i}")), &whole).unwrap();
    }
    fs::write(folder.join("val_data"), &whole).unwrap();
    let dataset = ImageNet16 {
        classes: 3,
        per_class: 0,
    };
    Box::new(move |bytes| {
        fs::write(folder.join("train_data_batch_1"), bytes).unwrap();
        loaded(dataset.load(&at(&folder)))
    })
}

/// Four files of four images, of which those of the training images or labels are replaced.
pub fn idx(folder: &Path) -> Read {
    let folder = folder.to_owned();
    let whole = |name: &str| fs::read(corpus().join("idx").join(name)).unwrap();
    let (images, labels) = (whole("images"), whole("labels"));
    let write = move |name: &str, bytes: &[u8]| {
        fs::write(folder.join(name), bytes)
            .map(|()| folder.clone())
            .unwrap()
    };
    write("t10k-images-idx3-ubyte", &images);
    write("t10k-labels-idx1-ubyte", &labels);
    Box::new(move |bytes| {
        write("train-labels-idx1-ubyte", &labels);
        let folder = write("train-images-idx3-ubyte", bytes);
        let as_images = loaded(fashion_mnist::read_folder(&folder, [4, 4], &at(&folder)));
        write("train-images-idx3-ubyte", &images);
        write("train-labels-idx1-ubyte", bytes);
        loaded(fashion_mnist::read_folder(&folder, [4, 4], &at(&folder))) || as_images
    })
}

/// Parts of a `.npz` file of NumPy.
pub const NPZ: &[&[u8]] = &[
    b"PK\x03\x04",
    b"PK\x01\x02",
    b"PK\x05\x06",
    b"\x93NUMPY\x01\0",
    b"'descr': '|u1'",
    b"'descr': '<i8'",
    b"'descr': '<U4'",
    b"'fortran_order': True",
    b"'shape': (2, 2, 2)",
    b"'shape': (99999999999,)",
    b"x_train.npy",
    b"classes.npy",
];

pub fn npz(folder: &Path) -> Read {
    let folder = folder.to_owned();
    let section = serde_json::json!({ "name": "arrays", "file": "images.npz", "split": 0 });
    let dataset: Box<dyn Dataset> = serde_json::from_value(section).unwrap();
    Box::new(move |bytes| {
        fs::write(folder.join("images.npz"), bytes).unwrap();
        loaded(dataset.load(&at(&folder)))
    })
}

/// Two classes of one image in each part, one of which is replaced.
fn folders(folder: &Path, ending: &'static str) -> Read {
    let folder = folder.to_owned();
    let whole = fs::read(corpus().join("image-png/whole.png")).unwrap();
    for (part, class) in [("train", "a"), ("train", "b"), ("val", "a"), ("val", "b")] {
        let place = folder.join(part).join(class);
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("0.png"), &whole).unwrap();
    }
    let file = folder.join("train/a").join(format!("1.{ending}"));
    let section = serde_json::json!({
        "name": "image-folder", "size": 16, "resize": 16, "crop_scale": [0.5, 1.0], "weights_fraction": 0.5,
        "arch_fraction": 0.5, "check": false,
    });
    let dataset: Box<dyn Dataset> = serde_json::from_value(section).unwrap();
    Box::new(move |bytes| {
        fs::write(&file, bytes).unwrap();
        loaded(dataset.load(&at(&folder)))
    })
}

pub fn png(folder: &Path) -> Read {
    folders(folder, "png")
}

pub fn bmp(folder: &Path) -> Read {
    folders(folder, "bmp")
}

pub fn tiff(folder: &Path) -> Read {
    folders(folder, "tiff")
}

pub fn webp(folder: &Path) -> Read {
    folders(folder, "webp")
}

pub fn jpeg(folder: &Path) -> Read {
    folders(folder, "jpg")
}
