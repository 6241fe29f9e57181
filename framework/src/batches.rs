//! Batches. A dataset that fits lives on the device, and shuffling, gathering and augmenting are a few batched
//! operations; of any other, the next batches are decoded on threads while the device works on the present one.

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::seq::SliceRandom;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

use crate::dataset::{ImageData, ImageSource, Images, Part};
use crate::error::{Error, Result};
use crate::network::channels_last;
use crate::rng::{Rng, Streams};
use crate::space::Task;
use crate::strategy::Split;

/// How many batches are decoded ahead, for each split.
const AHEAD: usize = 2;

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

    /// At most `n` batches, in order, that share its memory: of one size, but for the last, which may be smaller.
    pub fn parts(&self, n: i64) -> Vec<Batch> {
        let cut = |t: &Tensor| t.chunk(n.max(1), 0);
        cut(&self.images)
            .into_iter()
            .zip(cut(&self.labels))
            .map(|(images, labels)| Batch {
                images,
                labels,
                split: self.split,
            })
            .collect()
    }
}

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

/// How batches of the architecture's half follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// A fresh permutation every pass, as a data loader does.
    Shuffled,
    /// Every batch drawn anew from all images, which is what `next(iter(loader))` of DARTS's published search does.
    Fresh,
}

/// Which training batch. Its content is a pure function of this and the run's seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Draw {
    pub split: Split,
    pub order: Order,
    /// Passes over the split before it.
    pub pass: u64,
    /// Its number in the pass.
    pub index: u64,
    pub batch_size: usize,
}

/// The images of a run: on the device, or decoded as they are needed.
pub(crate) struct Batches {
    train: Held,
    test: Held,
    /// Training images that belong to the weights.
    split: usize,
    ahead: BTreeMap<Split, Ahead<Draw>>,
    /// The order of a pass over each split, kept because shuffling a million images takes longer than a small batch.
    shuffled: RefCell<BTreeMap<Split, (u64, Vec<i64>)>>,
    mean: Tensor,
    std: Tensor,
    kind: Kind,
    streams: Streams,
    /// Time that training batches took since it was last asked for.
    pub spent: Duration,
}

/// One part of the dataset.
struct Held {
    images: Store,
    /// `[n]`, int64, on the device.
    labels: Tensor,
}

enum Store {
    /// Bytes `[n, channels, height, width]` on the device.
    Device(Tensor),
    Decoder(Decoder),
}

impl Held {
    fn new(part: &Part, task: Task, device: Device) -> Result<Self> {
        let shape = [task.channels, task.height, task.width];
        let images = match &part.images {
            Images::Bytes(bytes) => {
                let [c, h, w] = shape;
                let bytes = Tensor::from_slice(bytes).view([-1, c, h, w]);
                Store::Device(bytes.to_device(device))
            }
            Images::Source(source) => Store::Decoder(Decoder::new(source, shape)?),
        };
        let labels: Vec<i64> = part.labels.iter().map(|&l| i64::from(l)).collect();
        Ok(Self {
            images,
            labels: Tensor::from_slice(&labels).to_device(device),
        })
    }

    fn len(&self) -> usize {
        self.labels.size()[0] as usize
    }

    /// Bytes and labels of some rows, the bytes from `decoded` if they have to be decoded.
    fn rows(
        &self,
        rows: &[i64],
        decoded: impl FnOnce(&Decoder) -> Result<Tensor>,
    ) -> Result<(Tensor, Tensor)> {
        let device = self.labels.device();
        let rows = Tensor::from_slice(rows).to_device(device);
        let images = match &self.images {
            Store::Device(images) => images.index_select(0, &rows),
            Store::Decoder(decoder) => decoded(decoder)?.to_device(device),
        };
        Ok((images, self.labels.index_select(0, &rows)))
    }
}

/// Decodes images of a source on threads.
struct Decoder {
    source: Arc<dyn ImageSource>,
    /// Channels, height, width.
    shape: [i64; 3],
    pool: ThreadPool,
}

/// A batch that is being decoded.
type Decoding = Receiver<Result<Vec<u8>>>;

impl Decoder {
    /// On as many threads as libtorch has (`threads` in the configuration).
    fn new(source: &Arc<dyn ImageSource>, shape: [i64; 3]) -> Result<Self> {
        let pool = ThreadPoolBuilder::new()
            .num_threads(usize::try_from(tch::get_num_threads()).unwrap_or(1))
            .thread_name(|i| format!("decode {i}"))
            // A panic drops the sender of its batch, which whoever waits for it reports.
            .panic_handler(|_| {})
            .build()
            .map_err(|e| Self::failed(e.to_string()))?;
        Ok(Self {
            source: Arc::clone(source),
            shape,
            pool,
        })
    }

    fn failed(why: String) -> Error {
        Error::Invalid {
            what: "image decoder".into(),
            why,
        }
    }

    /// Begins to decode `rows`; the image at place i of a training batch has the randomness `random.at("image", i)`.
    fn start(&self, rows: Vec<i64>, random: Option<Streams>) -> Decoding {
        let (send, receive) = sync_channel(1);
        let source = Arc::clone(&self.source);
        let bytes = self.shape.iter().product::<i64>() as usize;
        self.pool.spawn_fifo(move || {
            let mut images = vec![0; rows.len() * bytes];
            let done = images
                .par_chunks_mut(bytes)
                .zip(&rows)
                .enumerate()
                .try_for_each(|(i, (image, &row))| {
                    let mut random = random.map(|streams| streams.at("image", i as u64));
                    source.decode(row as usize, random.as_mut(), image)
                });
            // Nobody may be waiting any more, after a rollback for example.
            let _ = send.send(done.map(|()| images));
        });
        receive
    }

    /// Waits for a batch: bytes `[n, channels, height, width]` on the host.
    fn wait(&self, decoding: &Decoding) -> Result<Tensor> {
        let images = decoding
            .recv()
            .map_err(|_| Self::failed("one of its threads died".into()))??;
        let [c, h, w] = self.shape;
        Ok(Tensor::from_slice(&images).view([-1, c, h, w]))
    }
}

/// Batches that are decoded before they are asked for.
struct Ahead<K>(VecDeque<(K, Decoding)>);

impl<K: Copy + PartialEq> Ahead<K> {
    /// The batch `key`, after [`AHEAD`] batches that `next` foresees have been started too. Nothing depends on whether
    /// `key` was foreseen but time.
    fn take(
        &mut self,
        key: K,
        next: impl Fn(K) -> Option<K>,
        start: impl Fn(K) -> Decoding,
    ) -> Decoding {
        let Self(queue) = self;
        while queue.front().is_some_and(|(k, _)| *k != key) {
            queue.pop_front();
        }
        let first = match queue.pop_front() {
            Some((_, decoding)) => decoding,
            None => start(key),
        };
        let mut last = queue.back().map_or(key, |(k, _)| *k);
        while queue.len() < AHEAD
            && let Some(k) = next(last)
        {
            queue.push_back((k, start(k)));
            last = k;
        }
        first
    }
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
        let scale = |v: &[f64]| {
            Tensor::from_slice(v)
                .view([1, -1, 1, 1])
                .to_kind(kind)
                .to_device(device)
                * 255.0
        };
        Ok(Self {
            train: Held::new(&data.train, data.task, device)?,
            test: Held::new(&data.test, data.task, device)?,
            split: data.split.unwrap_or(data.train.len() / 2),
            ahead: BTreeMap::new(),
            shuffled: RefCell::default(),
            mean: scale(&data.mean),
            std: scale(&data.std),
            kind,
            streams,
            spent: Duration::ZERO,
        })
    }

    /// First index and length of a split, in file order.
    fn range(&self, split: Split) -> (usize, usize) {
        let (n, at) = (self.train.len(), self.split);
        match split {
            Split::Full => (0, n),
            Split::Train => (0, at),
            Split::Val => (at, n - at),
        }
    }

    /// Batches in one pass over a split; the last one may be smaller.
    pub fn per_pass(&self, split: Split, batch_size: usize) -> u64 {
        self.range(split).1.div_ceil(batch_size) as u64
    }

    /// The batch that follows, if nothing unforeseen happens.
    fn after(&self, draw: Draw) -> Draw {
        let (pass, index) = if draw.index + 1 < self.per_pass(draw.split, draw.batch_size) {
            (draw.pass, draw.index + 1)
        } else {
            (draw.pass + 1, 0)
        };
        Draw {
            pass,
            index,
            ..draw
        }
    }

    /// Which training images a batch consists of.
    fn rows(&self, draw: Draw) -> Vec<i64> {
        let (first, len) = self.range(draw.split);
        let name = format!("batch {:?}", draw.split);
        match draw.order {
            Order::Shuffled => {
                let mut shuffled = self.shuffled.borrow_mut();
                let (pass, all) = shuffled.entry(draw.split).or_default();
                if all.is_empty() || *pass != draw.pass {
                    *pass = draw.pass;
                    *all = (first as i64..(first + len) as i64).collect();
                    all.shuffle(&mut self.streams.at(&name, draw.pass));
                }
                let from = (draw.index as usize * draw.batch_size).min(len);
                all[from..(from + draw.batch_size).min(len)].to_vec()
            }
            Order::Fresh => {
                let mut rng = self.streams.child(&name, draw.pass).at("fresh", draw.index);
                rand::seq::index::sample(&mut rng, len, draw.batch_size.min(len))
                    .into_iter()
                    .map(|i| (first + i) as i64)
                    .collect()
            }
        }
    }

    /// A training batch, a pure function of its arguments and the run's seed.
    ///
    /// # Errors
    /// What a source says of a file that it can't decode.
    pub fn batch(&mut self, draw: Draw, augment: Augment) -> Result<Batch> {
        let began = Instant::now();
        let batch = self.augmented(draw, augment);
        self.spent += began.elapsed();
        batch
    }

    fn augmented(&mut self, draw: Draw, augment: Augment) -> Result<Batch> {
        let rows = self.rows(draw);
        let mut ahead = self
            .ahead
            .remove(&draw.split)
            .unwrap_or(Ahead(VecDeque::new()));
        let found = self.train.rows(&rows, |decoder| {
            let start = |d: Draw| {
                let views = self.streams.child(&format!("view {:?}", d.split), d.pass);
                decoder.start(self.rows(d), Some(views.child("batch", d.index)))
            };
            decoder.wait(&ahead.take(draw, |d| Some(self.after(d)), start))
        });
        self.ahead.insert(draw.split, ahead);
        let (bytes, labels) = found?;
        let rng = |name: &str| {
            let streams = self
                .streams
                .child(&format!("{name} {:?}", draw.split), draw.pass);
            streams.at("batch", draw.index)
        };
        Ok(no_grad(|| {
            let images = augment.jitter(&bytes.to_kind(self.kind), 255.0, &mut rng("jitter"));
            let images = augment.apply(&self.normalise(&images), &mut rng("augment"));
            Batch {
                images: channels_last(&images),
                labels,
                split: Some(draw.split),
            }
        }))
    }

    /// The first `limit` batches of the test images in file order, not augmented.
    pub fn test(
        &self,
        batch_size: usize,
        limit: usize,
    ) -> impl Iterator<Item = Result<Batch>> + '_ {
        let all = (0, self.test.len());
        self.in_order(&self.test, all, batch_size, limit, None)
    }

    /// The first `limit` batches of a split in file order, not augmented.
    pub fn plain(
        &self,
        split: Split,
        batch_size: usize,
        limit: usize,
    ) -> impl Iterator<Item = Result<Batch>> + '_ {
        let range = self.range(split);
        self.in_order(&self.train, range, batch_size, limit, Some(split))
    }

    fn in_order<'a>(
        &'a self,
        part: &'a Held,
        (first, len): (usize, usize),
        batch_size: usize,
        limit: usize,
        split: Option<Split>,
    ) -> impl Iterator<Item = Result<Batch>> + 'a {
        let batches = len.div_ceil(batch_size).min(limit);
        let rows = move |i: usize| -> Vec<i64> {
            let from = first + i * batch_size;
            let to = (from + batch_size).min(first + len);
            (from as i64..to as i64).collect()
        };
        let mut ahead = Ahead(VecDeque::new());
        (0..batches).map(move |i| {
            let (bytes, labels) = part.rows(&rows(i), |decoder| {
                let next = |i| (i + 1 < batches).then_some(i + 1);
                decoder.wait(&ahead.take(i, next, |i| decoder.start(rows(i), None)))
            })?;
            Ok(Batch {
                images: channels_last(&self.normalise(&bytes.to_kind(self.kind))),
                labels,
                split,
            })
        })
    }

    /// Mean 0 and deviation 1 for every channel, from values in [0, 255].
    fn normalise(&self, images: &Tensor) -> Tensor {
        (images - &self.mean) / &self.std
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
