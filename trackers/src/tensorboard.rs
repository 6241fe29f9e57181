//! TensorBoard event files: what the events say, in the form that TensorBoard and its readers know.
//!
//! A file is a sequence of records: length (u64), its masked CRC-32C, a protocol-buffer message `Event`, the message's
//! masked CRC-32C, all little-endian (TensorFlow, `tsl/lib/io/record_writer.h`). The messages are those of
//! `tensorflow/core/util/event.proto` and `tensorflow/core/framework/summary.proto`, with the fields used here.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use nasfw_framework::config::flatten;
use nasfw_framework::draw::Drawing;
use nasfw_framework::listen::shared;
use nasfw_framework::prelude::*;
use nasfw_framework::register;
use nasfw_framework::run::name_of;
use prost::Message;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Folder of the event files in a run's folder.
const FOLDER: &str = "tensorboard";
/// How the names of event files begin; TensorBoard looks for it, and reads the files of a folder in order of names.
const PREFIX: &str = "events.out.tfevents.";
/// Buckets of a histogram.
const BUCKETS: usize = 30;

/// The tracker `tensorboard`: one event file per process, in a run's folder `tensorboard`.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorBoard {}

register! {
    tracker "tensorboard" => TensorBoard,
    summary: "event files of TensorBoard in the run's folder: curves, weights of candidates, genotypes and their drawings, settings",
    source: "TensorFlow's tsl/lib/io/record_writer.h and core/util/event.proto",
    defaults: "[tracker]\n",
    example: "nasfw run --strategy darts --space toy-conv --track tensorboard",
}

#[typetag::serde(name = "tensorboard")]
impl Tracker for TensorBoard {
    fn track(&self, run: Tracked<'_>) -> Result<SharedListener> {
        Ok(shared(Files::of(run)))
    }
}

/// Writes the event file of this process.
#[derive(Debug)]
struct Files {
    /// Name of the run.
    name: String,
    folder: PathBuf,
    /// Names of what is decided.
    groups: Vec<Group>,
    /// Settings by their dotted keys, which TensorBoard calls hyperparameters.
    settings: BTreeMap<String, Value>,
    /// Whether this process goes on from a checkpoint.
    goes_on: bool,
    /// Opened by the first event.
    open: Option<(PathBuf, File)>,
    /// Steps done at the newest event.
    step: u64,
    /// The architecture that was drawn last.
    drawn: Option<Genotype>,
}

impl Files {
    fn of(run: Tracked<'_>) -> Self {
        Self {
            name: name_of(run.run),
            folder: run.run.join(FOLDER),
            groups: run.groups.to_vec(),
            settings: flatten(run.config),
            goes_on: run.goes_on,
            open: None,
            step: 0,
            drawn: None,
        }
    }

    /// A new file, after all that are there.
    fn open(&mut self) -> Result<()> {
        let folder = &self.folder;
        fs::create_dir_all(folder).map_err(Error::io("create the folder", folder))?;
        let newest = fs::read_dir(folder)
            .map_err(Error::io("read", folder))?
            .filter_map(|entry| number(entry.ok()?.file_name().to_str()?))
            .max();
        // Names count seconds; a clock that was set back, or two starts in one second, must not change the order.
        let number = newest.map_or(0, |n| n + 1).max(now() as u64);
        let path = folder.join(format!("{PREFIX}{number:010}.{}", std::process::id()));
        let file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(&path)
            .map_err(Error::io("create", &path))?;
        self.open = Some((path, file));
        self.write(
            0,
            proto::Event {
                file_version: Some("brain.Event:2".into()),
                ..Default::default()
            },
        )?;
        if newest.is_some() {
            // What earlier processes did beyond the checkpoint that this one goes on from did not happen.
            let first = if self.goes_on { self.step + 1 } else { 0 };
            self.forget(first)?;
        }
        let value = vec![self.hyperparameters()];
        self.write(
            self.step,
            proto::Event {
                summary: Some(proto::Summary { value }),
                ..Default::default()
            },
        )
    }

    /// The settings, for TensorBoard's plugin of hyperparameters (`tensorboard/plugins/hparams/plugin_data.proto`).
    fn hyperparameters(&self) -> proto::Value {
        let start = proto::SessionStart {
            hparams: (self.settings.iter())
                .map(|(key, value)| (key.clone(), value.into()))
                .collect(),
            group_name: self.name.clone(),
            start_time_secs: now(),
        };
        let content = proto::Hyperparameters {
            session_start_info: Some(start),
        };
        proto::Value {
            tag: "_hparams_/session_start_info".into(),
            metadata: Some(proto::Metadata {
                plugin_data: Some(proto::PluginData {
                    plugin_name: "hparams".into(),
                    content: content.encode_to_vec(),
                }),
            }),
            // A value of some kind is asked for.
            tensor: Some(proto::Tensor {
                dtype: proto::DT_FLOAT,
                shape: Some(proto::Shape {
                    dim: vec![proto::Dim { size: 0 }],
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// Tells readers to drop everything from step `first` on.
    fn forget(&mut self, first: u64) -> Result<()> {
        self.write(
            first,
            proto::Event {
                session_log: Some(proto::SessionLog {
                    status: proto::START,
                }),
                ..Default::default()
            },
        )
    }

    /// The architecture as an image, if it is another one than before.
    fn drawing(&mut self, genotype: &Genotype) -> Option<proto::Value> {
        if self.drawn.as_ref() == Some(genotype) {
            return None;
        }
        self.drawn = Some(genotype.clone());
        image("cell", &Drawing::of_genotype(genotype).svg())
    }

    /// The event's numbers, and other values of it.
    fn numbers(&mut self, event: &Event, mut values: Vec<proto::Value>) -> Result<()> {
        let Some((step, numbers)) = event.scalars() else {
            return Ok(());
        };
        values.extend(numbers.into_iter().map(|(tag, v)| scalar(tag, v)));
        self.summary(step, values)
    }

    fn summary(&mut self, step: u64, values: Vec<proto::Value>) -> Result<()> {
        if step < self.step {
            // The strategy rolled back, and these steps are done again.
            self.forget(step)?;
        }
        self.step = step;
        self.write(
            step,
            proto::Event {
                summary: Some(proto::Summary { value: values }),
                ..Default::default()
            },
        )
    }

    fn write(&mut self, step: u64, mut event: proto::Event) -> Result<()> {
        let Some((path, file)) = &mut self.open else {
            return Ok(());
        };
        event.wall_time = now();
        event.step = step as i64;
        // Unbuffered, so that a crash of the process loses nothing.
        file.write_all(&record(&event.encode_to_vec()))
            .map_err(Error::io("write", path))
    }
}

impl Listener for Files {
    fn event(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Started { step, .. } => {
                self.step = *step;
                self.open()
            }
            Event::Architecture {
                marginals,
                genotype,
                ..
            } => {
                let mut values = vec![text("genotype", &genotype.to_string())];
                values.extend(self.drawing(genotype));
                for (group, rows) in self.groups.iter().zip(marginals.iter().flatten()) {
                    let name = &group.name;
                    for (row, weights) in group.rows.iter().zip(rows) {
                        let weights = row.candidates.iter().zip(weights);
                        values.extend(weights.map(|(candidate, weight)| {
                            scalar(format!("weights/{name}/{}/{candidate}", row.name), *weight)
                        }));
                    }
                    let weights: Vec<f64> = rows.iter().flatten().copied().collect();
                    values.push(proto::Value {
                        tag: format!("marginals/{name}"),
                        histo: Some(histogram(&weights)),
                        ..Default::default()
                    });
                }
                self.numbers(event, values)
            }
            Event::Checkpoint { .. } | Event::Finished { .. } => match &self.open {
                Some((path, file)) => file.sync_data().map_err(Error::io("write", path)),
                None => Ok(()),
            },
            _ => self.numbers(event, vec![]),
        }
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64())
}

/// The number in the name of an event file.
fn number(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.split('.').next()?.parse().ok()
}

/// A message as it stands in the file.
fn record(message: &[u8]) -> Vec<u8> {
    let masked = |bytes: &[u8]| {
        crc32c::crc32c(bytes)
            .rotate_right(15)
            .wrapping_add(0xa282_ead8)
            .to_le_bytes()
    };
    let length = (message.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), message, &masked(message)].concat()
}

fn scalar(tag: String, value: f64) -> proto::Value {
    proto::Value {
        tag,
        simple_value: Some(value as f32),
        ..Default::default()
    }
}

/// Text for TensorBoard's plugin of that name, which takes Markdown: indented by four, it stays as it is.
fn text(tag: &str, text: &str) -> proto::Value {
    let indented: String = text.lines().map(|line| format!("    {line}\n")).collect();
    proto::Value {
        tag: tag.into(),
        metadata: Some(proto::Metadata {
            plugin_data: Some(proto::PluginData {
                plugin_name: "text".into(),
                content: vec![],
            }),
        }),
        tensor: Some(proto::Tensor {
            dtype: proto::DT_STRING,
            shape: Some(proto::Shape {
                dim: vec![proto::Dim { size: 1 }],
            }),
            string_val: vec![indented.into_bytes()],
        }),
        ..Default::default()
    }
}

/// A picture of an SVG document; none where it is too large for one.
#[cfg(feature = "png")]
fn image(tag: &str, svg: &str) -> Option<proto::Value> {
    /// Pixels for each of the SVG's: TensorBoard shows images small, and enlarges them.
    const SCALE: f32 = 1.5;
    let picture = nasfw_pictures::png(svg, SCALE);
    let picture =
        picture.inspect_err(|e| tracing::warn!("TensorBoard has no image of this cell: {e}"));
    let picture = picture.ok()?;
    Some(proto::Value {
        tag: tag.into(),
        image: Some(proto::Image {
            height: picture.height as i32,
            width: picture.width as i32,
            colorspace: proto::RGBA,
            encoded: picture.bytes,
        }),
        ..Default::default()
    })
}

/// A program without pictures writes none.
#[cfg(not(feature = "png"))]
fn image(_tag: &str, _svg: &str) -> Option<proto::Value> {
    None
}

/// Equal buckets from the smallest value to the largest.
fn histogram(values: &[f64]) -> proto::Histogram {
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if values.is_empty() {
        return proto::Histogram::default();
    }
    let width = (max - min) / BUCKETS as f64;
    let count = if width > 0.0 { BUCKETS } else { 1 };
    let mut bucket = vec![0.0; count];
    for value in values {
        let place = if width > 0.0 {
            ((value - min) / width) as usize
        } else {
            0
        };
        bucket[place.min(count - 1)] += 1.0;
    }
    let mut bucket_limit: Vec<f64> = (1..count).map(|i| min + width * i as f64).collect();
    bucket_limit.push(max);
    proto::Histogram {
        min,
        max,
        num: values.len() as f64,
        sum: values.iter().sum(),
        sum_squares: values.iter().map(|v| v * v).sum(),
        bucket_limit,
        bucket,
    }
}

/// The messages. Of fields in a `oneof`, exactly one is given.
mod proto {
    use std::collections::BTreeMap;

    use nasfw_framework::settings::in_words;
    use prost::Message;
    use serde_json::Value as Json;

    /// `SessionLog.SessionStatus`
    pub const START: i32 = 1;
    /// `Summary.Image.colorspace`
    #[cfg(feature = "png")]
    pub const RGBA: i32 = 4;
    /// `DataType`
    pub const DT_FLOAT: i32 = 1;
    pub const DT_STRING: i32 = 7;

    #[derive(Clone, PartialEq, Message)]
    pub struct Event {
        #[prost(double, tag = "1")]
        pub wall_time: f64,
        #[prost(int64, tag = "2")]
        pub step: i64,
        #[prost(string, optional, tag = "3")]
        pub file_version: Option<String>,
        #[prost(message, optional, tag = "5")]
        pub summary: Option<Summary>,
        #[prost(message, optional, tag = "7")]
        pub session_log: Option<SessionLog>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct SessionLog {
        #[prost(int32, tag = "1")]
        pub status: i32,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Summary {
        #[prost(message, repeated, tag = "1")]
        pub value: Vec<Value>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Value {
        #[prost(string, tag = "1")]
        pub tag: String,
        #[prost(float, optional, tag = "2")]
        pub simple_value: Option<f32>,
        #[prost(message, optional, tag = "4")]
        pub image: Option<Image>,
        #[prost(message, optional, tag = "5")]
        pub histo: Option<Histogram>,
        #[prost(message, optional, tag = "8")]
        pub tensor: Option<Tensor>,
        #[prost(message, optional, tag = "9")]
        pub metadata: Option<Metadata>,
    }

    /// `Summary.Image`
    #[derive(Clone, PartialEq, Message)]
    pub struct Image {
        #[prost(int32, tag = "1")]
        pub height: i32,
        #[prost(int32, tag = "2")]
        pub width: i32,
        #[prost(int32, tag = "3")]
        pub colorspace: i32,
        #[prost(bytes = "vec", tag = "4")]
        pub encoded: Vec<u8>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Metadata {
        #[prost(message, optional, tag = "1")]
        pub plugin_data: Option<PluginData>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct PluginData {
        #[prost(string, tag = "1")]
        pub plugin_name: String,
        #[prost(bytes = "vec", tag = "2")]
        pub content: Vec<u8>,
    }

    /// `HParamsPluginData`
    #[derive(Clone, PartialEq, Message)]
    pub struct Hyperparameters {
        #[prost(message, optional, tag = "3")]
        pub session_start_info: Option<SessionStart>,
    }

    /// `SessionStartInfo`
    #[derive(Clone, PartialEq, Message)]
    pub struct SessionStart {
        #[prost(btree_map = "string, message", tag = "1")]
        pub hparams: BTreeMap<String, Setting>,
        #[prost(string, tag = "4")]
        pub group_name: String,
        #[prost(double, tag = "5")]
        pub start_time_secs: f64,
    }

    /// `google.protobuf.Value`
    #[derive(Clone, PartialEq, Message)]
    pub struct Setting {
        #[prost(double, optional, tag = "2")]
        pub number: Option<f64>,
        #[prost(string, optional, tag = "3")]
        pub text: Option<String>,
        #[prost(bool, optional, tag = "4")]
        pub switch: Option<bool>,
    }

    impl From<&Json> for Setting {
        /// Numbers and switches as they are, all else in words.
        fn from(value: &Json) -> Self {
            let (number, switch) = (value.as_f64(), value.as_bool());
            let plain = number.is_none() && switch.is_none();
            Self {
                number,
                text: plain.then(|| in_words(value)),
                switch,
            }
        }
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Histogram {
        #[prost(double, tag = "1")]
        pub min: f64,
        #[prost(double, tag = "2")]
        pub max: f64,
        #[prost(double, tag = "3")]
        pub num: f64,
        #[prost(double, tag = "4")]
        pub sum: f64,
        #[prost(double, tag = "5")]
        pub sum_squares: f64,
        #[prost(double, repeated, tag = "6")]
        pub bucket_limit: Vec<f64>,
        #[prost(double, repeated, tag = "7")]
        pub bucket: Vec<f64>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Tensor {
        #[prost(int32, tag = "1")]
        pub dtype: i32,
        #[prost(message, optional, tag = "2")]
        pub shape: Option<Shape>,
        #[prost(bytes = "vec", repeated, tag = "8")]
        pub string_val: Vec<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Shape {
        #[prost(message, repeated, tag = "2")]
        pub dim: Vec<Dim>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Dim {
        #[prost(int64, tag = "1")]
        pub size: i64,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::collections::BTreeMap;
    use std::path::Path;

    use nasfw_framework::events::Meter;
    use serde_json::json;

    use super::*;

    /// CRC-32C bit by bit, from its polynomial (RFC 3720, B.4).
    fn crc(bytes: &[u8]) -> u32 {
        let mut crc = !0u32;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
            }
        }
        !crc
    }

    fn checked(bytes: &[u8], sum: &[u8]) {
        let masked = u32::from_le_bytes(sum.try_into().unwrap());
        let rotated = masked.wrapping_sub(0xa282_ead8);
        assert_eq!(rotated.rotate_left(15), crc(bytes));
    }

    fn messages(mut bytes: &[u8]) -> Vec<&[u8]> {
        let mut all = vec![];
        while !bytes.is_empty() {
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            checked(&bytes[..8], &bytes[8..12]);
            let message = &bytes[12..12 + length];
            checked(message, &bytes[12 + length..16 + length]);
            all.push(message);
            bytes = &bytes[16 + length..];
        }
        all
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                break;
            }
        }
        value
    }

    /// Fields of a message by number, from the wire format alone; numbers as their eight or fewer bytes.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut all = vec![];
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let length = match key & 7 {
                0 => {
                    all.push((key >> 3, varint(&mut bytes).to_le_bytes().to_vec()));
                    continue;
                }
                1 => 8,
                2 => varint(&mut bytes) as usize,
                5 => 4,
                other => panic!("wire type {other}"),
            };
            all.push((key >> 3, bytes[..length].to_vec()));
            bytes = &bytes[length..];
        }
        all
    }

    fn field(message: &[u8], number: u64) -> Option<Vec<u8>> {
        let found = fields(message).into_iter().find(|(n, _)| *n == number);
        found.map(|(_, bytes)| bytes)
    }

    fn double(message: &[u8], number: u64) -> f64 {
        f64::from_le_bytes(field(message, number).unwrap().try_into().unwrap())
    }

    fn started(step: u64) -> Event {
        Event::Started {
            step,
            epochs: 1,
            steps_per_epoch: 10,
            budget: None,
            done: 0.0,
            device: "CPU".into(),
            weights: 1,
            arch_params: 1,
            groups: vec![],
        }
    }

    fn progress(step: u64, loss: f64) -> Event {
        let meter = Meter {
            loss,
            accuracy: 0.5,
            top5: None,
            images: 8.0,
        };
        Event::Progress {
            step,
            epoch: 0,
            meters: [("train".to_owned(), meter)].into(),
            entropy: Some(0.25),
            lr: 0.1,
            scalars: BTreeMap::new(),
            done: 0.5,
            seconds: 1.0,
        }
    }

    fn row(name: &str) -> Row {
        Row {
            name: name.into(),
            candidates: vec!["skip".into(), "conv".into()],
            keep: 1,
        }
    }

    fn board(run: &Path, goes_on: bool) -> Files {
        Files::of(Tracked {
            run,
            config: &json!({"strategy": {"lr": 0.5, "name": "darts"}, "deterministic": true}),
            groups: &[Group {
                name: "normal".into(),
                role: Role::Operations,
                rows: ["0->1", "0->2"].map(row).to_vec(),
                edges: None,
            }],
            step: 0,
            goes_on,
        })
    }

    fn files(run: &Path) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(run.join(FOLDER))
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        files.sort();
        files
    }

    #[test]
    fn records_and_messages_are_those_of_the_formats() {
        // RFC 3720, B.4: 32 bytes of zeros.
        assert_eq!(crc(&[0; 32]), 0x8a91_36aa);
        let dir = tempfile::tempdir().unwrap();
        let mut board = board(dir.path(), false);
        board.event(&started(0)).unwrap();
        board.event(&progress(3, 1.5)).unwrap();
        let genotype = Genotype {
            space: "toy".into(),
            cells: vec![],
        };
        board
            .event(&Event::Architecture {
                step: 4,
                epoch: 0,
                images: 0,
                seconds: 0.0,
                simulated: 0.0,
                marginals: Some(vec![vec![vec![0.25, 0.75], vec![0.5, 0.5]]]),
                entropy: None,
                sharpness: None,
                genotype,
                metrics: None,
                regret: None,
                known: None,
                trust: Default::default(),
            })
            .unwrap();
        let bytes = fs::read(&files(dir.path())[0]).unwrap();
        let all = messages(&bytes);
        assert_eq!(field(all[0], 3).unwrap(), b"brain.Event:2");
        let start = field(&field(all[1], 5).unwrap(), 1).unwrap();
        assert_eq!(field(&start, 1).unwrap(), b"_hparams_/session_start_info");
        assert_eq!(field(all[2], 2).unwrap(), 3u64.to_le_bytes());
        let loss = field(&field(all[2], 5).unwrap(), 1).unwrap();
        assert_eq!(field(&loss, 1).unwrap(), b"loss/train");
        assert_eq!(field(&loss, 2).unwrap(), 1.5f32.to_le_bytes());
        let summary = field(all[3], 5).unwrap();
        let weights: Vec<(String, f32)> = fields(&summary)
            .into_iter()
            .filter_map(|(_, value)| {
                let name = String::from_utf8(field(&value, 1).unwrap()).unwrap();
                let number = field(&value, 2)?;
                name.starts_with("weights/")
                    .then(|| (name, f32::from_le_bytes(number.try_into().unwrap())))
            })
            .collect();
        let expected = [
            ("0->1/skip", 0.25),
            ("0->1/conv", 0.75),
            ("0->2/skip", 0.5),
            ("0->2/conv", 0.5),
        ];
        let expected = expected.map(|(name, weight)| (format!("weights/normal/{name}"), weight));
        assert_eq!(weights, expected);
        let histo = fields(&summary)
            .into_iter()
            .find(|(_, v)| field(v, 1).unwrap() == b"marginals/normal")
            .and_then(|(_, v)| field(&v, 5))
            .unwrap();
        let numbers = [1, 2, 3, 4, 5].map(|n| double(&histo, n));
        assert_eq!(numbers, [0.25, 0.75, 4.0, 2.0, 1.125]);
        let counts: f64 = field(&histo, 7)
            .unwrap()
            .chunks(8)
            .map(|c| f64::from_le_bytes(c.try_into().unwrap()))
            .sum();
        assert_eq!(counts, 4.0);
    }

    #[test]
    fn a_resumed_run_and_a_rollback_tell_readers_what_to_drop() {
        let dir = tempfile::tempdir().unwrap();
        let first_dropped = |file: &Path| {
            let bytes = fs::read(file).unwrap();
            let found = messages(&bytes)
                .into_iter()
                .find(|m| field(m, 7).is_some())?;
            Some(field(found, 2).map_or(0, |s| u64::from_le_bytes(s.try_into().unwrap())))
        };
        // Whether the process goes on, steps done then, what must be dropped.
        let processes = [(false, 0, None), (false, 0, Some(0)), (true, 6, Some(7))];
        for (i, (goes_on, step, dropped)) in processes.into_iter().enumerate() {
            let mut board = board(dir.path(), goes_on);
            board.event(&started(step)).unwrap();
            let files = files(dir.path());
            assert_eq!(files.len(), i + 1);
            assert_eq!(first_dropped(files.last().unwrap()), dropped);
        }
        let other = tempfile::tempdir().unwrap();
        let mut board = board(other.path(), false);
        for event in [started(0), progress(5, 1.0), progress(3, 1.0)] {
            board.event(&event).unwrap();
        }
        assert_eq!(first_dropped(&files(other.path())[0]), Some(3));
    }

    proptest::proptest! {
        #[test]
        fn histograms_lose_no_value(values in proptest::collection::vec(-2.0..3.0f64, 0..50)) {
            let h = histogram(&values);
            proptest::prop_assert_eq!(h.bucket.len(), h.bucket_limit.len());
            proptest::prop_assert!(h.bucket_limit.is_sorted());
            proptest::prop_assert_eq!(h.bucket.iter().sum::<f64>(), values.len() as f64);
        }
    }
}
