//! Crops: which part of an image becomes the square that the network sees.

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;
use nasfw_framework::dataset::CenterCrop;
use nasfw_framework::rng::Rng;
use nasfw_framework::{Error, Result};
use rand::RngExt;

/// Channels of grey images and of coloured ones.
pub(super) const GREY: i64 = 1;
pub(super) const COLOURS: i64 = 3;
/// The longest shorter side that images are scaled to.
pub(super) const LONGEST_SIDE: i64 = 4096;
/// Aspect ratios of random crops.
const ASPECT: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0];

/// A square view of an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct View {
    /// Left, top, width, height of the pixels that may be seen.
    pub(super) seen: [u32; 4],
    /// Left, top, width, height, within those, of what becomes the square.
    pub(super) part: [f64; 4],
    /// Rows and columns of the square.
    pub(super) size: u32,
}

/// Rows (and columns) of what is cut out of pictures, and the length of the shorter side that these are scaled to.
///
/// # Errors
/// Shapes that are neither square nor grey nor of three colours. Where the pictures are from and what to do instead is
/// said then.
pub(super) fn square(
    channels: i64,
    crop: CenterCrop,
    (from, help): (&str, &str),
) -> Result<(u32, u32)> {
    let CenterCrop {
        size: [rows, columns],
        resize,
    } = crop;
    let within = rows == columns && 1 <= rows && rows <= resize && resize <= LONGEST_SIDE;
    if within && [GREY, COLOURS].contains(&channels) {
        return Ok((rows as u32, resize as u32));
    }
    Err(Error::Incompatible {
        what: format!("images of shape {channels}×{rows}×{columns} from {from}"),
        why: "squares in grey or in three colours are cut out of these (channels, rows, columns)"
            .into(),
        help: help.into(),
    })
}

/// The view of torchvision's `RandomResizedCrop`: a random part of the area with a random aspect ratio, the middle
/// where ten tries do not fit.
pub(super) fn random_view(
    (width, height): (u32, u32),
    scale: [f64; 2],
    size: u32,
    rng: &mut Rng,
) -> View {
    let (w, h) = (f64::from(width), f64::from(height));
    let view = |seen: [u32; 4]| View {
        seen,
        part: [0.0, 0.0, f64::from(seen[2]), f64::from(seen[3])],
        size,
    };
    for _ in 0..10 {
        let area = w * h * rng.random_range(scale[0]..=scale[1]);
        let aspect = rng.random_range(ASPECT[0].ln()..=ASPECT[1].ln()).exp();
        let crop_w = (area * aspect).sqrt().round_ties_even();
        let crop_h = (area / aspect).sqrt().round_ties_even();
        if (1.0..=w).contains(&crop_w) && (1.0..=h).contains(&crop_h) {
            let (crop_w, crop_h) = (crop_w as u32, crop_h as u32);
            let top = rng.random_range(0..=height - crop_h);
            let left = rng.random_range(0..=width - crop_w);
            return view([left, top, crop_w, crop_h]);
        }
    }
    let crop_w = w.min((h * ASPECT[1]).round_ties_even()).max(1.0) as u32;
    let crop_h = h.min((w / ASPECT[0]).round_ties_even()).max(1.0) as u32;
    view([(width - crop_w) / 2, (height - crop_h) / 2, crop_w, crop_h])
}

/// The view of torchvision's `Resize(resize)` and `CenterCrop(size)`. Only the middle is computed.
pub(super) fn middle_view((width, height): (u32, u32), resize: u32, size: u32) -> View {
    let short = f64::from(width.min(height));
    let sides = [width, height].map(f64::from);
    let scaled = sides.map(|side| (f64::from(resize) * side / short).floor());
    let corner = scaled.map(|side| ((side - f64::from(size)) / 2.0).round_ties_even());
    // Where the whole side is seen, rounding must not put the end beyond it.
    let [(left, w), (top, h)] = [0, 1].map(|i| {
        let ratio = sides[i] / scaled[i];
        let begin = corner[i] * ratio;
        (begin, (f64::from(size) * ratio).min(sides[i] - begin))
    });
    View {
        seen: [0, 0, width, height],
        part: [left, top, w, h],
        size,
    }
}

impl View {
    /// The pixels of this view, scaled bilinearly with antialiasing as Pillow does.
    pub(super) fn of(self, image: &RgbImage) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
        let [left, top, width, height] = self.seen;
        // Of one type of pixels: the untyped call would compile the resizer of all thirteen into this crate.
        let pixels =
            TypedImageRef::<U8x3>::from_buffer(image.width(), image.height(), image.as_raw())?;
        let seen = TypedCroppedImage::from_ref(&pixels, left, top, width, height)?;
        let mut square = TypedImage::<U8x3>::new(self.size, self.size);
        let [left, top, width, height] = self.part;
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
            .crop(left, top, width, height);
        Resizer::new().resize_typed(&seen, &mut square, &options)?;
        Ok(square.pixels().iter().flat_map(|pixel| pixel.0).collect())
    }
}
