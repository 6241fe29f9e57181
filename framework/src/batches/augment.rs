//! Random changes to training images, a batch at once: crop, flip, cutout and colours.

use rand::RngExt;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::rng::Rng;

/// Random changes to training images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augment {
    /// Random crop after padding by so many pixels of zero; 0 means none.
    pub crop_padding: i64,
    /// Horizontal flip of half of the images.
    pub flip: bool,
    /// Side of a square set to zero (the mean) at a random place, clipped to the image; 0 means none.
    pub cutout: i64,
    /// Share of images that the square is cut out of.
    #[serde(default = "Augment::always")]
    pub cutout_probability: f64,
    /// Strengths of random changes of brightness, contrast, saturation (each 0 to 1) and hue (0 to 0.5), as
    /// torchvision's `ColorJitter`; 0 means none.
    pub color_jitter: [f64; 4],
}

impl Augment {
    fn always() -> f64 {
        1.0
    }
}

impl Default for Augment {
    /// Images as they are.
    fn default() -> Self {
        Self {
            crop_padding: 0,
            flip: false,
            cutout: 0,
            cutout_probability: 1.0,
            color_jitter: [0.0; 4],
        }
    }
}

impl Augment {
    /// Random brightness, contrast, saturation and hue of images `[n, c, h, w]` in [0, `white`], in torchvision's
    /// definition (`ColorJitter`): every image has its own factors, drawn from [1 − strength, 1 + strength], for the
    /// hue a turn of the colour circle in [−strength, strength]; the order of the four is drawn for each batch.
    /// Saturation and hue leave images alone that have no three channels.
    pub fn jitter(self, images: &Tensor, white: f64, rng: &mut Rng) -> Tensor {
        if self.color_jitter == [0.0; 4] {
            return images.shallow_clone();
        }
        let (n, channels) = (images.size()[0], images.size()[1]);
        let mut out = images / white;
        let mut order = [0, 1, 2, 3];
        order.shuffle(rng);
        for which in order {
            let strength = self.color_jitter[which];
            let centre = if which == HUE { 0.0 } else { 1.0 };
            let factors: Vec<f64> = (0..n)
                .map(|_| centre + strength * rng.random_range(-1.0..=1.0))
                .map(|factor| {
                    if which == HUE {
                        factor
                    } else {
                        factor.max(0.0)
                    }
                })
                .collect();
            if strength == 0.0 || (which >= SATURATION && channels != 3) {
                continue;
            }
            let factors = Tensor::from_slice(&factors)
                .view([n, 1, 1, 1])
                .to_kind(out.kind())
                .to_device(out.device());
            // Away from something, or towards it.
            let rest: Tensor = 1.0 - &factors;
            let blend = |other: &Tensor| (&out * &factors + other * &rest).clamp(0.0, 1.0);
            out = match which {
                BRIGHTNESS => (&out * &factors).clamp(0.0, 1.0),
                CONTRAST => blend(&grey(&out).mean_dim([1i64, 2, 3].as_slice(), true, None)),
                SATURATION => blend(&grey(&out)),
                _ => turn_hue(&out, &factors),
            };
        }
        out * white
    }

    /// Crop, flip and cutout of normalised images `[n, c, h, w]`: padding and cutout are zero, the mean.
    pub fn apply(self, images: &Tensor, rng: &mut Rng) -> Tensor {
        let size = images.size();
        let (n, h, w) = (size[0], size[2], size[3]);
        let device = images.device();
        let p = self.crop_padding;
        // How many places there are for the crop (down, right), the flip, and the cutout (down, right).
        let places = [2 * p + 1, 2 * p + 1, 1 + i64::from(self.flip), h, w];
        let mut drawn = Vec::with_capacity(places.len() * n as usize);
        for below in places {
            drawn.extend((0..n).map(|_| match below {
                ..=1 => 0,
                _ => rng.random_range(0..below),
            }));
        }
        let share = self.cutout_probability;
        drawn.extend((0..n).map(|_| match share {
            1.0.. => 1,
            _ => i64::from(rng.random::<f64>() < share),
        }));
        // One copy to the device.
        let drawn = Tensor::from_slice(&drawn)
            .view([6, n, 1, 1])
            .to_device(device);
        let [dy, dx, flip, cy, cx, cut] = [0, 1, 2, 3, 4, 5].map(|i| drawn.get(i));
        let int = (Kind::Int64, device);
        let (ys, xs) = (
            Tensor::arange(h, int).view([1, h, 1]),
            Tensor::arange(w, int).view([1, 1, w]),
        );
        let mut out = images.shallow_clone();
        if p > 0 || self.flip {
            // Where pixel (y, x) of the result comes from in the padded image; one gather does crop and flip.
            let from_y = &ys + &dy;
            let from_x = (&xs - &flip * (&xs * 2 - (w - 1))) + &dx;
            let padded = out.constant_pad_nd([p, p, p, p]);
            let (ph, pw) = (h + 2 * p, w + 2 * p);
            let index = (from_y * pw + from_x)
                .view([n, 1, h * w])
                .expand([n, size[1], h * w], false);
            out = padded
                .view([n, size[1], ph * pw])
                .gather(2, &index, false)
                .view([n, size[1], h, w]);
        }
        if self.cutout > 0 {
            // The square covers [c − s/2, c + s/2), as the published implementation does.
            let half = self.cutout / 2;
            let inside = |at: &Tensor, centre: &Tensor| {
                let d = at - centre;
                d.ge(-half).logical_and(&d.lt(self.cutout - half))
            };
            let hole = inside(&ys, &cy)
                .logical_and(&inside(&xs, &cx))
                .logical_and(&cut.gt(0))
                .view([n, 1, h, w]);
            out = out.masked_fill(&hole, 0.0);
        }
        out
    }
}

const BRIGHTNESS: usize = 0;
const CONTRAST: usize = 1;
const SATURATION: usize = 2;
const HUE: usize = 3;

/// Luminance `[n, 1, h, w]` of colour images (ITU-R 601-2); the images themselves if they have no three channels.
fn grey(images: &Tensor) -> Tensor {
    if images.size()[1] != 3 {
        return images.shallow_clone();
    }
    let channel = |i: i64| images.narrow(1, i, 1);
    channel(0) * 0.2989 + channel(1) * 0.587 + channel(2) * 0.114
}

/// Turns the hue of colour images `[n, 3, h, w]` in [0, 1] by `turns` `[n, 1, 1, 1]` of the colour circle, through HSV.
fn turn_hue(images: &Tensor, turns: &Tensor) -> Tensor {
    let [r, g, b] = [0, 1, 2].map(|i| images.narrow(1, i, 1));
    let value = images.amax([1i64].as_slice(), true);
    let chroma = &value - images.amin([1i64].as_slice(), true);
    // Grey has no hue: any finite number will do.
    let safe = chroma.where_scalarother(&chroma.gt(0.0), 1.0);
    let sixths = ((&g - &b) / &safe).where_self(
        &r.eq_tensor(&value),
        &(((&b - &r) / &safe + 2.0).where_self(&g.eq_tensor(&value), &((&r - &g) / &safe + 4.0))),
    );
    let sixths = sixths + turns * 6.0;
    // value − chroma · clamp(min(k, 4 − k), 0, 1) with k = (n + hue) mod 6, n = 5, 3, 1 for red, green, blue.
    let channels = [5.0, 3.0, 1.0].map(|n| {
        let k = (&sixths + n).remainder(6.0);
        &value - &chroma * k.minimum(&(4.0 - &k)).clamp(0.0, 1.0)
    });
    Tensor::cat(&channels, 1)
}
