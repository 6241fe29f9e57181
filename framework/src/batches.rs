//! Batches. A dataset that fits lives on the device, and shuffling, gathering and augmenting are a few batched
//! operations; of any other, the next batches are decoded on threads while the device works on the present one.

mod augment;
mod halves;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use rand::seq::SliceRandom;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

use crate::dataset::{ImageData, ImageSource, Images, Part, Task};
use crate::error::{Error, Result};
use crate::network::channels_last;
use crate::rng::Streams;
pub use augment::Augment;
use halves::Halves;

/// Which images a strategy trains on, and so how many steps an epoch has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataPlan {
    /// All training images; an epoch passes over them once.
    Full,
    /// The first half (in file order) for weights, the second for the architecture; an epoch passes over the first
    /// half once. Both halves are augmented.
    Halves,
    /// No epoch of images: so many steps, for strategies that ask a benchmark or score without training.
    Steps(u64),
}

/// A part of the training images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// All of them.
    Full,
    /// The first half.
    Train,
    /// The second half.
    Val,
}

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    halves: Halves,
    ahead: BTreeMap<Split, Ahead<Draw>>,
    /// The order of a pass over each split, kept because shuffling a million images takes longer than a small batch.
    shuffled: RefCell<BTreeMap<Split, (u64, Vec<i64>)>>,
    mean: Tensor,
    std: Tensor,
    kind: Kind,
    streams: Streams,
    /// Whether a batch of one image can be trained on; where it can't, the last batch of a pass takes in what would be
    /// one.
    pub lone: bool,
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
            halves: match data.split {
                Some(weights) => Halves {
                    weights,
                    drawn: None,
                },
                None => Halves::of(&data.train.labels),
            },
            ahead: BTreeMap::new(),
            shuffled: RefCell::default(),
            mean: scale(&data.mean),
            std: scale(&data.std),
            kind,
            streams,
            lone: true,
            spent: Duration::ZERO,
        })
    }

    /// Refuses splits that there are no batches of.
    ///
    /// # Errors
    /// A split without images, or with a single one that can't be trained on.
    pub fn require(&self, splits: &[Split]) -> Result<()> {
        let least = if self.lone { 1 } else { 2 };
        let small = splits.iter().find(|split| self.len(**split) < least);
        small.map_or(Ok(()), |split| Err(self.too_small(*split)))
    }

    fn too_small(&self, split: Split) -> Error {
        let (all, len) = (self.train.len(), self.len(split));
        let whose = match split {
            Split::Full => "training",
            Split::Train => "the weights' part of the data",
            Split::Val => "the architecture's part of the data",
        };
        Error::Incompatible {
            what: "a search on these images".into(),
            why: format!(
                "of {all} training images {whose} has {len}, which is too few for a batch"
            ),
            help: "take more images of each class, or divide them in another way; `nasfw config show` lists the \
                   dataset's options"
                .into(),
        }
    }

    /// Number of images of a split.
    fn len(&self, split: Split) -> usize {
        let (n, weights) = (self.train.len(), self.halves.weights);
        match split {
            Split::Full => n,
            Split::Train => weights,
            Split::Val => n - weights,
        }
    }

    /// The training image at a place of a split.
    fn row(&self, split: Split, place: usize) -> i64 {
        let place = match split {
            Split::Full => return place as i64,
            Split::Train => place,
            Split::Val => self.halves.weights + place,
        };
        let drawn = self.halves.drawn.as_ref();
        drawn.map_or(place as i64, |order| order[place])
    }

    /// Batches in one pass over a split. The last one may be smaller, and has one image more where that can't be alone.
    pub fn per_pass(&self, split: Split, batch_size: usize) -> u64 {
        self.count(self.len(split), batch_size) as u64
    }

    /// Batches that `images` images come in.
    fn count(&self, images: usize, batch_size: usize) -> usize {
        let joins = !self.lone && images > batch_size && images % batch_size == 1;
        images.div_ceil(batch_size) - usize::from(joins)
    }

    /// First place and end of batch `index`.
    fn span(&self, index: usize, batch_size: usize, images: usize) -> (usize, usize) {
        let begin = (index * batch_size).min(images);
        let last = index + 1 >= self.count(images, batch_size);
        let end = if last { images } else { begin + batch_size };
        (begin, end.min(images))
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
        let len = self.len(draw.split);
        let name = format!("batch {:?}", draw.split);
        match draw.order {
            Order::Shuffled => {
                let mut shuffled = self.shuffled.borrow_mut();
                let (pass, all) = shuffled.entry(draw.split).or_default();
                if all.is_empty() || *pass != draw.pass {
                    *pass = draw.pass;
                    *all = (0..len).map(|place| self.row(draw.split, place)).collect();
                    all.shuffle(&mut self.streams.at(&name, draw.pass));
                }
                let (begin, end) = self.span(draw.index as usize, draw.batch_size, len);
                all[begin..end].to_vec()
            }
            Order::Fresh => {
                let mut rng = self.streams.child(&name, draw.pass).at("fresh", draw.index);
                rand::seq::index::sample(&mut rng, len, draw.batch_size.min(len))
                    .into_iter()
                    .map(|place| self.row(draw.split, place))
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
        let (len, row) = (self.test.len(), |place| place as i64);
        self.in_order(&self.test, (len, row), batch_size, limit, None)
    }

    /// The first `limit` batches of a split in file order, not augmented.
    pub fn plain(
        &self,
        split: Split,
        batch_size: usize,
        limit: usize,
    ) -> impl Iterator<Item = Result<Batch>> + '_ {
        let row = move |place| self.row(split, place);
        self.in_order(
            &self.train,
            (self.len(split), row),
            batch_size,
            limit,
            Some(split),
        )
    }

    fn in_order<'a>(
        &'a self,
        part: &'a Held,
        (len, row): (usize, impl Fn(usize) -> i64 + 'a),
        batch_size: usize,
        limit: usize,
        split: Option<Split>,
    ) -> impl Iterator<Item = Result<Batch>> + 'a {
        let batches = self.count(len, batch_size).min(limit);
        let rows = move |i: usize| -> Vec<i64> {
            let (begin, end) = self.span(i, batch_size, len);
            (begin..end).map(&row).collect()
        };
        let mut ahead = Ahead(VecDeque::new());
        (0..batches).map(move |i| {
            let (bytes, labels) = part.rows(&rows(i), |decoder| {
                let next = |i| (i + 1 < batches).then_some(i + 1);
                decoder.wait(&ahead.take(i, next, |i| decoder.start(rows(i), None)))
            })?;
            Ok(Batch {
                images: self.shown(&bytes),
                labels,
                split,
            })
        })
    }

    /// Bytes `[n, channels, height, width]` as a network sees them, not augmented.
    pub fn shown(&self, bytes: &Tensor) -> Tensor {
        channels_last(&self.normalise(&bytes.to_kind(self.kind)))
    }

    /// Mean 0 and deviation 1 for every channel, from values in [0, 255].
    fn normalise(&self, images: &Tensor) -> Tensor {
        (images - &self.mean) / &self.std
    }
}
