//! The file of a surrogate: safetensors, with what it says of itself as JSON, and a checksum over every byte.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::PoisonError;

use nasfw_framework::run::write_whole;
use nasfw_framework::{Error, Result, input, sealed};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::figures::Figures;
use super::fit::MOST_FEATURES;
use super::key::Key;
use super::model::{Calibration, Model, Vocabulary};
use super::network::Net;
use super::target::Curve;

/// The version of the format, and of how features are counted, that this program writes and reads.
pub const VERSION: u32 = 1;
/// The field of a safetensors file's metadata that names it as one of these.
const MARK: &str = "nasfw-surrogate";
/// In so many first bytes the mark stands.
const START: usize = 256;
/// The largest file that is read.
const MAX_BYTES: u64 = 1 << 30;
/// The most networks of a file.
const MOST_MEMBERS: usize = 1024;

/// What a file says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// See [`VERSION`].
    pub version: u32,
    /// What is known and predicted.
    pub metric: String,
    /// Spaces whose architectures it knows.
    pub spaces: Vec<String>,
    /// Files that it was fitted to.
    pub source: String,
    /// Datasets that the values were measured on, as far as known.
    pub datasets: Vec<String>,
    /// Epochs of the trainings, where known.
    pub epochs: Option<u64>,
    /// What the fit's random numbers began with.
    pub seed: u64,
    /// Number of architectures whose values are known.
    pub rows: usize,
    /// What cross-validation said.
    pub figures: Figures,
    /// Between scores and values.
    pub curve: Curve,
    /// How far measured scores lay from predicted ones.
    pub calibration: Calibration,
    /// BLAKE3 of the file with zeros in this place.
    pub digest: String,
}

/// A surrogate: values that are known, and a model of all others.
#[derive(Debug)]
pub struct Surrogate {
    /// What it says of itself.
    pub about: About,
    /// Keys of the architectures that are known, rising.
    pub keys: Vec<Key>,
    /// The value of each.
    pub values: Vec<f64>,
    /// What predicts the others.
    pub model: Model,
    /// The best of the values that are known.
    pub optimum: BTreeMap<String, f64>,
}

impl Surrogate {
    /// Writes the file, whole or not at all, and fills in its checksum.
    ///
    /// # Errors
    /// Whatever the disk has to say.
    pub fn write(&mut self, path: &Path) -> Result<()> {
        let invalid = |why: String| Error::Invalid {
            what: "surrogate".into(),
            why,
        };
        self.about.digest = sealed::blank();
        let about = serde_json::to_string(&self.about).map_err(|e| invalid(e.to_string()))?;
        let (n, features) = (self.keys.len(), self.model.vocabulary.names.len());
        let all = self
            .model
            .members
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let members = all.len();
        let vocabulary = &self.model.vocabulary;
        let numel = self.model.net.numel();
        let flat = Tensor::f_cat(&all, 0)?.to_kind(Kind::Half).contiguous();
        let mut weights = vec![0; flat.numel() * 2];
        flat.f_copy_data_u8(&mut weights, flat.numel())?;
        let parts = [
            (
                "features",
                Dtype::U64,
                vec![features],
                le(&vocabulary.names, |x| x.to_le_bytes()),
            ),
            (
                "scales",
                Dtype::F32,
                vec![features],
                le(&vocabulary.scales, |x| x.to_le_bytes()),
            ),
            (
                "keys",
                Dtype::U8,
                vec![n, size_of::<Key>()],
                self.keys.concat(),
            ),
            (
                "values",
                Dtype::F64,
                vec![n],
                le(&self.values, |x| x.to_le_bytes()),
            ),
            (
                "networks",
                Dtype::F16,
                vec![members, numel as usize],
                weights,
            ),
        ];
        let views = parts.iter().map(|(name, kind, shape, bytes)| {
            TensorView::new(*kind, shape.clone(), bytes).map(|view| (*name, view))
        });
        let views = views
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| invalid(e.to_string()))?;
        let metadata = HashMap::from([(MARK.to_owned(), about)]);
        let mut bytes =
            safetensors::serialize(views, Some(metadata)).map_err(|e| invalid(e.to_string()))?;
        self.about.digest =
            sealed::seal(&mut bytes).ok_or_else(|| invalid("its checksum has no place".into()))?;
        if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(Error::io("create the folder", folder))?;
        }
        write_whole(path, &bytes)
    }

    /// Whether a file begins as these do, whatever comes then.
    pub fn is_one(path: &Path) -> bool {
        use std::io::Read;
        let mut start = vec![];
        let read = std::fs::File::open(path)
            .and_then(|file| file.take(START as u64).read_to_end(&mut start));
        read.is_ok() && begins_as_one(&start)
    }

    /// Reads a file and checks all of it.
    ///
    /// # Errors
    /// A missing, truncated, corrupt or foreign file, each with what to type.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = input::read(path, MAX_BYTES).map_err(|e| Error::Data {
            path: path.into(),
            problem: format!("cannot be read: {e}"),
            help: "`nasfw bench fit TABLE -o FILE` makes a surrogate; `--set benchmark.file=FILE` says where it is".into(),
        })?;
        Self::decode(&bytes).map_err(|problem| Error::Data {
            path: path.into(),
            problem,
            help: format!(
                "make it again: `nasfw bench fit TABLE -o {}`",
                path.display()
            ),
        })
    }

    /// The surrogate in the bytes of a file, or what is wrong with them.
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let foreign = "this is no surrogate of nasfw";
        let (_, metadata) =
            SafeTensors::read_metadata(bytes).map_err(|e| match begins_as_one(bytes) {
                true => format!("it is truncated or damaged: {e}"),
                false => foreign.to_owned(),
            })?;
        let about = metadata
            .metadata()
            .as_ref()
            .and_then(|m| m.get(MARK))
            .ok_or(foreign)?;
        let version = serde_json::from_str::<serde_json::Value>(about)
            .ok()
            .and_then(|v| v["version"].as_u64());
        if let Some(other) = version.filter(|v| *v != u64::from(VERSION)) {
            return Err(format!(
                "its format has version {other}, this program reads version {VERSION}"
            ));
        }
        let about: About = serde_json::from_str(about)
            .map_err(|e| format!("its header can't be understood: {e}"))?;
        if !sealed::is_whole(bytes, &about.digest) {
            return Err("it is damaged (checksum)".into());
        }
        let file = SafeTensors::deserialize(bytes)
            .map_err(|e| format!("it is truncated or damaged: {e}"))?;
        let tensor =
            |name: &str, kind: Dtype, dimensions: usize| -> Result<(Vec<usize>, Vec<u8>), String> {
                let view = file
                    .tensor(name)
                    .map_err(|e| format!("it lacks `{name}`: {e}"))?;
                match view.dtype() == kind && view.shape().len() == dimensions {
                    true => Ok((view.shape().to_vec(), view.data().to_vec())),
                    false => Err(format!(
                        "its `{name}` has another kind or shape than is expected"
                    )),
                }
            };
        let (names, scales) = (
            tensor("features", Dtype::U64, 1)?,
            tensor("scales", Dtype::F32, 1)?,
        );
        let (keys, values) = (
            tensor("keys", Dtype::U8, 2)?,
            tensor("values", Dtype::F64, 1)?,
        );
        let (shape, weights) = tensor("networks", Dtype::F16, 2)?;
        let vocabulary = Vocabulary {
            names: from_le(&names.1, u64::from_le_bytes),
            scales: from_le(&scales.1, f32::from_le_bytes),
        };
        let keys: Vec<Key> = keys.1.as_chunks().0.to_vec();
        let values: Vec<f64> = from_le(&values.1, f64::from_le_bytes);
        let net = Net::new(names.0[0].min(MOST_FEATURES) as i64);
        let sound = vocabulary.names.len() == vocabulary.scales.len()
            && (1..=MOST_FEATURES).contains(&vocabulary.names.len())
            && vocabulary.names.is_sorted_by(|a, b| a < b)
            && keys.is_sorted_by(|a, b| a < b)
            && keys.len() == values.len()
            && keys.len() == about.rows
            && values.iter().all(|v| v.is_finite())
            && (1..=MOST_MEMBERS).contains(&shape[0])
            && shape[1] as i64 == net.numel()
            && about.calibration.is_sound();
        if !sound {
            return Err("its parts do not fit each other".into());
        }
        about.curve.check().map_err(|e| e.to_string())?;
        let size = [shape[0] as i64, shape[1] as i64];
        let networks =
            Tensor::f_from_data_size(&weights, &size, Kind::Half).map_err(|e| e.to_string())?;
        // Each in memory of its own, as after the fit: sums over rows that begin elsewhere may be rounded otherwise.
        let networks = networks.to_kind(Kind::Float).unbind(0);
        let members: Vec<Tensor> = networks.iter().map(Tensor::copy).collect();
        let best = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Ok(Self {
            optimum: [(about.metric.clone(), best)].into(),
            keys,
            values,
            model: Model {
                vocabulary,
                net,
                members: members.into(),
                curve: about.curve.clone(),
                calibration: about.calibration.clone(),
            },
            about,
        })
    }
}

/// Whether bytes begin as those of a file do, whatever comes then.
fn begins_as_one(bytes: &[u8]) -> bool {
    String::from_utf8_lossy(&bytes[..bytes.len().min(START)]).contains(MARK)
}

fn le<T: Copy, const N: usize>(numbers: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    numbers.iter().flat_map(|&x| bytes(x)).collect()
}

fn from_le<T, const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|b| number(*b)).collect()
}
