//! Batches: the dataset lives on the device, and shuffling, gathering and augmenting are a few batched operations.

use rand::RngExt;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

use crate::dataset::{ImageData, Part};
use crate::error::{Error, Result};
use crate::rng::{Rng, Streams};
use crate::strategy::Split;

/// A batch, normalised and augmented, on the device.
#[derive(Debug)]
pub struct Batch {
    /// `[n, channels, height, width]`.
    pub images: Tensor,
    /// `[n]`, int64.
    pub labels: Tensor,
    /// Which part of the training images it came from; none for test images.
    pub split: Option<Split>,
}

impl Batch {
    /// Number of images.
    pub fn len(&self) -> i64 {
        self.labels.size()[0]
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Random changes to training images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augment {
    /// Random crop after padding by so many pixels of zero; 0 means none.
    pub crop_padding: i64,
    /// Horizontal flip of half of the images.
    pub flip: bool,
    /// Side of a square set to zero (the mean) at a random place, clipped to the image; 0 means none.
    pub cutout: i64,
}

/// How batches of the architecture's half follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// A fresh permutation every pass, as a data loader does.
    Shuffled,
    /// Every batch drawn anew from all images, which is what `next(iter(loader))` of DARTS's published search does.
    Fresh,
}

/// The images of a run on the device.
#[derive(Debug)]
pub(crate) struct Batches {
    images: Tensor,
    labels: Tensor,
    test: (Tensor, Tensor),
    mean: Tensor,
    std: Tensor,
    kind: Kind,
    streams: Streams,
}

impl Batches {
    pub fn new(data: &ImageData, streams: Streams, kind: Kind, device: Device) -> Result<Self> {
        for (name, part) in [("training", &data.train), ("test", &data.test)] {
            if part.len() < 2 {
                return Err(Error::Invalid {
                    what: "dataset".into(),
                    why: format!("it has {} {name} images, at least 2 are needed", part.len()),
                });
            }
        }
        let to = |p: &Part| p.tensors(data.task, device);
        let (images, labels) = to(&data.train);
        let scale = |v: &[f64]| {
            Tensor::from_slice(v)
                .view([1, -1, 1, 1])
                .to_kind(kind)
                .to_device(device)
                * 255.0
        };
        Ok(Self {
            images,
            labels,
            test: to(&data.test),
            mean: scale(&data.mean),
            std: scale(&data.std),
            kind,
            streams,
        })
    }

    /// First index and length of a split, in file order.
    fn range(&self, split: Split) -> (usize, usize) {
        let n = self.labels.size()[0] as usize;
        match split {
            Split::Full => (0, n),
            Split::Train => (0, n / 2),
            Split::Val => (n / 2, n - n / 2),
        }
    }

    /// Batches in one pass over a split; the last one may be smaller.
    pub fn per_pass(&self, split: Split, batch_size: usize) -> u64 {
        self.range(split).1.div_ceil(batch_size) as u64
    }

    /// Batch number `index` of pass `pass` over a split. A pure function of its arguments and the run's seed.
    pub fn batch(
        &self,
        split: Split,
        order: Order,
        (pass, index): (u64, u64),
        batch_size: usize,
        augment: Augment,
    ) -> Batch {
        let (first, len) = self.range(split);
        let name = format!("batch {split:?}");
        let rows: Vec<i64> = match order {
            Order::Shuffled => {
                let mut all: Vec<i64> = (first as i64..(first + len) as i64).collect();
                all.shuffle(&mut self.streams.at(&name, pass));
                let from = (index as usize * batch_size).min(len);
                all[from..(from + batch_size).min(len)].to_vec()
            }
            Order::Fresh => {
                let mut rng = self.streams.child(&name, pass).at("fresh", index);
                rand::seq::index::sample(&mut rng, len, batch_size.min(len))
                    .into_iter()
                    .map(|i| (first + i) as i64)
                    .collect()
            }
        };
        no_grad(|| {
            let rows = Tensor::from_slice(&rows).to_device(self.labels.device());
            let images = self.normalise(&self.images.index_select(0, &rows));
            let labels = self.labels.index_select(0, &rows);
            let mut rng = self
                .streams
                .child(&format!("augment {split:?}"), pass)
                .at("batch", index);
            let images = augment.apply(&images, &mut rng);
            Batch {
                images: channels_last(&images),
                labels,
                split: Some(split),
            }
        })
    }

    /// The test images in file order, not augmented.
    pub fn test(&self, batch_size: usize) -> impl Iterator<Item = Batch> + '_ {
        self.in_order(
            &self.test.0,
            &self.test.1,
            0,
            self.test.1.size()[0],
            batch_size,
            None,
        )
    }

    /// The images of a split in file order, not augmented.
    pub fn plain(&self, split: Split, batch_size: usize) -> impl Iterator<Item = Batch> + '_ {
        let (first, len) = self.range(split);
        self.in_order(
            &self.images,
            &self.labels,
            first as i64,
            len as i64,
            batch_size,
            Some(split),
        )
    }

    fn in_order<'a>(
        &'a self,
        images: &'a Tensor,
        labels: &'a Tensor,
        first: i64,
        len: i64,
        batch_size: usize,
        split: Option<Split>,
    ) -> impl Iterator<Item = Batch> + 'a {
        (0..len).step_by(batch_size).map(move |at| {
            let n = (batch_size as i64).min(len - at);
            Batch {
                images: channels_last(&self.normalise(&images.narrow(0, first + at, n))),
                labels: labels.narrow(0, first + at, n),
                split,
            }
        })
    }

    fn normalise(&self, bytes: &Tensor) -> Tensor {
        (bytes.to_kind(self.kind) - &self.mean) / &self.std
    }
}

/// The same tensor with channels innermost in memory, which convolutions on CPUs and GPUs prefer.
fn channels_last(images: &Tensor) -> Tensor {
    images
        .permute([0, 2, 3, 1])
        .contiguous()
        .permute([0, 3, 1, 2])
}

impl Augment {
    /// Crop, flip and cutout of normalised images `[n, c, h, w]`: padding and cutout are zero, the mean.
    pub fn apply(self, images: &Tensor, rng: &mut Rng) -> Tensor {
        let size = images.size();
        let (n, h, w) = (size[0], size[2], size[3]);
        let device = images.device();
        let mut draw = |below: i64| -> Tensor {
            let v: Vec<i64> = (0..n)
                .map(|_| {
                    if below > 1 {
                        rng.random_range(0..below)
                    } else {
                        0
                    }
                })
                .collect();
            Tensor::from_slice(&v).view([n, 1, 1]).to_device(device)
        };
        let p = self.crop_padding;
        let (dy, dx) = (draw(2 * p + 1), draw(2 * p + 1));
        let flip = draw(if self.flip { 2 } else { 1 });
        let (cy, cx) = (draw(h), draw(w));
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
                .view([n, 1, h, w]);
            out = out.masked_fill(&hole, 0.0);
        }
        out
    }
}
