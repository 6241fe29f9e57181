//! Decoding the image files of a part, within limits.

use std::io::{self, Cursor};
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageDecoder, ImageReader, Limits, RgbImage};
use nasfw_framework::dataset::ImageSource;
use nasfw_framework::rng::Rng;
use nasfw_framework::{Error, Result, input};

use super::layout::{File, Layout};
use super::settings::Folders;
use super::view::{View, middle_view, random_view};

/// A longer file is no training image.
const LONGEST: u64 = 256 << 20;
/// The most pixels of an image: larger ones take more memory than they are worth on every decoding thread.
const MOST_PIXELS: u64 = 50_000_000;
/// The most bytes that an image may be decoded to, whatever its pixels are made of.
const MOST_BYTES: u64 = 256 << 20;
/// Files whose headers are looked at to say what the images are.
const LOOKED_AT: usize = 32;

/// The image files of one part.
#[derive(Debug)]
pub(super) struct Files {
    pub settings: Folders,
    /// Whether images have one channel, not three.
    pub grey: bool,
    pub folder: PathBuf,
    pub files: Vec<File>,
}

impl ImageSource for Files {
    fn decode(&self, index: usize, random: Option<&mut Rng>, out: &mut [u8]) -> Result<()> {
        let file = &self.files[index];
        let image = self.read(file)?;
        let Folders {
            size, crop_scale, ..
        } = self.settings;
        let view = match random {
            Some(rng) => random_view(image.dimensions(), crop_scale, size, rng),
            None => middle_view(image.dimensions(), self.settings.resize(), size),
        };
        show(&image, view, self.grey, out).map_err(|e| self.problem(file, e))
    }

    /// BLAKE3 of the sorted paths and lengths of the files: reading all bytes would take as long as an epoch.
    fn checksum(&self) -> String {
        let mut names: Vec<&File> = self.files.iter().collect();
        names.sort_by(|a, b| a.path.cmp(&b.path));
        let mut hash = blake3::Hasher::new();
        for file in names {
            hash.update(file.path.to_string_lossy().as_bytes());
            hash.update(format!("\0{}\n", file.bytes).as_bytes());
        }
        hash.finalize().to_hex().to_string()
    }
}

impl Files {
    fn problem(&self, file: &File, problem: String) -> Error {
        let path = self.folder.join(&file.path);
        Error::Data {
            help: format!(
                "replace {} by a good copy or remove it, then start a new run; `--set dataset.check=true` finds all \
                 bad files before a search begins",
                path.display()
            ),
            path,
            problem,
        }
    }

    /// The pixels of a file, whatever its name says of the format.
    pub(super) fn read(&self, file: &File) -> Result<RgbImage> {
        read(&self.folder.join(&file.path)).map_err(|problem| self.problem(file, problem))
    }
}

/// The pixels of a file, or what is wrong with it.
pub(super) fn read(path: &Path) -> Result<RgbImage, String> {
    let bytes = input::read(path, LONGEST).map_err(|e| format!("cannot be read: {e}"))?;
    for (is_cut, kind) in [(is_cut_jpeg(&bytes), "JPEG"), (is_cut_png(&bytes), "PNG")] {
        if is_cut {
            return Err(format!("this {kind} file is truncated"));
        }
    }
    decode(&bytes)
}

/// Writes what a view shows of an image, channel after channel: red, green and blue, or grey alone.
pub(super) fn show(image: &RgbImage, view: View, grey: bool, out: &mut [u8]) -> Result<(), String> {
    let pixels = view.of(image).map_err(|e| e.to_string())?;
    if grey {
        // Pillow's weights, which leave a grey pixel as it is.
        for (pixel, to) in pixels.as_chunks::<3>().0.iter().zip(out) {
            let [r, g, b] = pixel.map(u32::from);
            *to = ((19_595 * r + 38_470 * g + 7_471 * b + 0x8000) >> 16) as u8;
        }
        return Ok(());
    }
    // From pixel after pixel to plane after plane.
    let planes = (view.size * view.size) as usize;
    for (i, pixel) in pixels.as_chunks::<3>().0.iter().enumerate() {
        for (channel, value) in pixel.iter().enumerate() {
            out[channel * planes + i] = *value;
        }
    }
    Ok(())
}

/// Of one type for all that is done with a content: each other one would compile all decoders anew.
fn reader(bytes: &[u8]) -> io::Result<ImageReader<Cursor<&[u8]>>> {
    ImageReader::new(Cursor::new(bytes)).with_guessed_format()
}

/// The pixels of a file's content.
fn decode(bytes: &[u8]) -> Result<RgbImage, String> {
    let undecodable = |e: image::ImageError| format!("is no image that can be decoded: {e}");
    let mut reader = reader(bytes).map_err(|e| undecodable(e.into()))?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MOST_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(undecodable)?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err("this image has no pixels".into());
    }
    if u64::from(width) * u64::from(height) > MOST_PIXELS || decoder.total_bytes() > MOST_BYTES {
        return Err(format!(
            "this image has {width}×{height} pixels and {} MiB decoded; at most 50 million pixels and 256 MiB are read, \
             so scale it down",
            decoder.total_bytes() >> 20
        ));
    }
    let image = DynamicImage::from_decoder(decoder).map_err(undecodable)?;
    Ok(image.into_rgb8())
}

/// Width and height as a file's header has them; none where it can't be read, which decoding it will say.
fn dimensions(folder: &Path, file: &File) -> Option<(u32, u32)> {
    let bytes = input::read(&folder.join(&file.path), LONGEST).ok()?;
    let (w, h) = reader(&bytes).ok()?.into_dimensions().ok()?;
    (w > 0 && h > 0).then_some((w, h))
}

/// Whether a JPEG file ends before its image does: no end marker follows the last scan. Decoders fill what is missing
/// with grey and say nothing.
fn is_cut_jpeg(bytes: &[u8]) -> bool {
    let is = |marker: u8| move |pair: &[u8]| pair == [0xff, marker];
    let end = bytes.windows(2).rposition(is(0xd9));
    let open = end.is_none_or(|end| bytes[end..].windows(2).any(is(0xda)));
    bytes.starts_with(&[0xff, 0xd8]) && open
}

/// Whether a PNG file has no end: where only the end is missing, decoders say nothing.
fn is_cut_png(bytes: &[u8]) -> bool {
    let end = b"IEND\xae\x42\x60\x82";
    let ends = || bytes.windows(end.len()).rposition(|w| w == end).is_some();
    bytes.starts_with(b"\x89PNG") && !ends()
}

/// What the images of a dataset are, by the headers of some of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shape {
    /// Smallest and largest width and height.
    pub width: (u32, u32),
    pub height: (u32, u32),
    /// Median length of the shorter side.
    pub short: u32,
    /// Mean fraction of the area that the middle view of testing shows.
    pub seen: f64,
}

impl Shape {
    /// Looks at some of the test images, evenly spread; none where none of them can be read.
    pub(super) fn of(settings: &Folders, layout: &Layout) -> Option<Self> {
        let files = layout.test_files.iter().flatten();
        let step = files.clone().count().div_ceil(LOOKED_AT).max(1);
        let sizes: Vec<_> = files
            .step_by(step)
            .filter_map(|file| dimensions(&layout.test, file))
            .collect();
        let seen = |&(w, h): &(u32, u32)| {
            let [_, _, width, height] = middle_view((w, h), settings.resize(), settings.size).part;
            width * height / (f64::from(w) * f64::from(h))
        };
        let range = |side: fn(&(u32, u32)) -> u32| {
            let sides = sizes.iter().map(side);
            Some((sides.clone().min()?, sides.max()?))
        };
        let mut short: Vec<u32> = sizes.iter().map(|(w, h)| *w.min(h)).collect();
        short.sort_unstable();
        Some(Self {
            width: range(|s| s.0)?,
            height: range(|s| s.1)?,
            short: *short.get(short.len() / 2)?,
            seen: sizes.iter().map(seen).sum::<f64>() / sizes.len() as f64,
        })
    }

    /// Width and height in words.
    pub(super) fn words(&self) -> String {
        let Self { width, height, .. } = self;
        match (width.0 == width.1, height.0 == height.1) {
            (true, true) => format!("{}×{} pixels", width.0, height.0),
            _ => format!(
                "{}×{} to {}×{} pixels",
                width.0, height.0, width.1, height.1
            ),
        }
    }
}
