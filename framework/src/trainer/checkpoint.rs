//! Checkpoints: one safetensors file with all tensors, and in its header all numbers, of a search.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::run::{CHECKPOINTS, RunFolder, write_whole};
use crate::search::{Clock, Search, leaf};
use crate::strategy::{Split, Strategy, StrategyState};

const VERSION: u32 = 1;
const HEADER: &str = "nasfw";
/// How many of the latest checkpoints are kept: the newest, and the one before should that be damaged.
const KEPT: usize = 2;

/// Numbers of a checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Header {
    version: u32,
    fingerprint: String,
    pub clock: Clock,
    pub finished: Option<String>,
    pub events_bytes: u64,
    theta_steps: i64,
    phi_steps: i64,
    batch_size: usize,
    /// Chosen when the run began: a process that goes on must not choose again.
    #[serde(default)]
    micro_batch: Option<usize>,
    weight_decay: f64,
    scalars: BTreeMap<String, f64>,
    strategy: Value,
    /// BLAKE3 of all tensors, so that a flipped bit is noticed.
    pub digest: String,
}

/// A checkpoint in memory.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub header: Header,
    tensors: BTreeMap<String, Tensor>,
    path: PathBuf,
}

pub(crate) struct Bytes {
    dtype: Dtype,
    shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl View for Bytes {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        self.bytes.as_slice().into()
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

pub(crate) fn to_bytes(tensor: &Tensor) -> Result<Bytes> {
    let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
    let dtype = match tensor.kind() {
        Kind::Float => Dtype::F32,
        Kind::Double => Dtype::F64,
        Kind::Int64 => Dtype::I64,
        Kind::Uint8 => Dtype::U8,
        Kind::Bool => Dtype::BOOL,
        other => {
            return Err(Error::Invalid {
                what: "strategy state".into(),
                why: format!("checkpoints hold no tensors of kind {other:?}"),
            });
        }
    };
    let shape = tensor.size().iter().map(|&n| n as usize).collect();
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(Bytes {
        dtype,
        shape,
        bytes,
    })
}

fn to_tensor(view: &safetensors::tensor::TensorView<'_>) -> Result<Tensor> {
    let kind = match view.dtype() {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::I64 => Kind::Int64,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        other => {
            return Err(Error::Invalid {
                what: "checkpoint".into(),
                why: format!("it holds a tensor of type {other:?}"),
            });
        }
    };
    let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
    Ok(Tensor::f_from_data_size(view.data(), &shape, kind)?)
}

fn digest(parts: &BTreeMap<String, Bytes>) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, part) in parts {
        hasher
            .update(name.as_bytes())
            .update(&[0])
            .update(&part.bytes);
    }
    hasher.finalize().to_hex().to_string()
}

fn split_name(split: Split) -> String {
    format!("meter.{split:?}").to_lowercase()
}

/// Writes the state of a search into its run folder, and drops checkpoints that are no longer needed.
pub(crate) fn save(
    run: &RunFolder,
    search: &mut Search,
    strategy: &dyn Strategy,
    fingerprint: &str,
    events_bytes: u64,
    finished: Option<&str>,
    history: bool,
) -> Result<()> {
    let state = strategy.state()?;
    let mut parts = BTreeMap::new();
    let ([first, second], theta_steps) = search.theta_optimizer.state();
    let mut all: Vec<(String, &Tensor)> = vec![
        ("theta".into(), &search.theta),
        ("stats".into(), &search.stats),
        ("phi".into(), &search.phi),
        ("theta.first".into(), first.1),
        ("theta.second".into(), second.1),
    ];
    let mut phi_steps = 0;
    if let Some(optimizer) = &search.phi_optimizer {
        let ([first, second], steps) = optimizer.state();
        all.extend([
            ("phi.first".into(), first.1),
            ("phi.second".into(), second.1),
        ]);
        phi_steps = steps;
    }
    all.extend(
        search
            .meters
            .iter()
            .map(|(split, sums)| (split_name(*split), sums)),
    );
    all.extend(
        state
            .tensors
            .iter()
            .map(|(name, t)| (format!("strategy.{name}"), t)),
    );
    for (name, tensor) in all {
        parts.insert(name, to_bytes(tensor)?);
    }
    search.clock.saves += 1;
    let header = Header {
        version: VERSION,
        fingerprint: fingerprint.into(),
        clock: search.clock.clone(),
        finished: finished.map(str::to_owned),
        events_bytes,
        theta_steps,
        phi_steps,
        batch_size: search.settings.batch_size,
        micro_batch: search.settings.micro_batch,
        weight_decay: search.theta_optimizer.config().weight_decay,
        scalars: search.scalars.clone(),
        strategy: state.values,
        digest: digest(&parts),
    };
    let invalid = |e: String| Error::Invalid {
        what: "checkpoint".into(),
        why: e,
    };
    let json = serde_json::to_string(&header).map_err(|e| invalid(e.to_string()))?;
    let metadata = HashMap::from([(HEADER.to_owned(), json)]);
    let bytes =
        safetensors::serialize(parts, Some(metadata)).map_err(|e| invalid(e.to_string()))?;

    let folder = run.path().join(CHECKPOINTS);
    fs::create_dir_all(&folder).map_err(Error::io("create the folder", &folder))?;
    write_whole(
        &folder.join(format!("{:09}.safetensors", search.clock.saves)),
        &bytes,
    )?;
    if history {
        write_whole(&history_file(run, search.clock.epoch), &bytes)?;
    }
    for old in numbered(run)?.iter().rev().skip(KEPT) {
        let _ = fs::remove_file(old);
    }
    Ok(())
}

fn history_file(run: &RunFolder, epoch: u64) -> PathBuf {
    run.path()
        .join(CHECKPOINTS)
        .join(format!("epoch-{epoch:05}.safetensors"))
}

/// The numbered checkpoints, oldest first.
fn numbered(run: &RunFolder) -> Result<Vec<PathBuf>> {
    let folder = run.path().join(CHECKPOINTS);
    if !folder.exists() {
        return Ok(vec![]);
    }
    let entries = fs::read_dir(&folder).map_err(Error::io("read the folder", &folder))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| {
            let name = p.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            name.strip_suffix(".safetensors")
                .is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
        })
        .collect();
    files.sort();
    Ok(files)
}

/// Reads the newest good checkpoint of a run; none when the run has not written any. A damaged one is passed over,
/// with a warning, in favour of the one before.
pub(crate) fn newest(run: &RunFolder, fingerprint: &str) -> Result<Option<Checkpoint>> {
    let mut first_error = None;
    for path in numbered(run)?.iter().rev() {
        match read(path, fingerprint) {
            Ok(checkpoint) => return Ok(Some(checkpoint)),
            Err(e) => {
                tracing::warn!("{e}; trying the checkpoint before it");
                first_error.get_or_insert(e);
            }
        }
    }
    first_error.map_or(Ok(None), Err)
}

/// Reads the checkpoint that was kept at the end of an epoch.
pub(crate) fn of_epoch(run: &RunFolder, epoch: u64, fingerprint: &str) -> Result<Checkpoint> {
    read(&history_file(run, epoch), fingerprint)
}

/// Reads a checkpoint of the run whose settings have this fingerprint.
pub(crate) fn read(path: &Path, fingerprint: &str) -> Result<Checkpoint> {
    let broken = |problem: String| Error::Run {
        path: path.to_owned(),
        problem,
        help: "the file is damaged; start a new run with `nasfw run`, or put a good copy back"
            .into(),
    };
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| broken(format!("this is not a whole checkpoint: {e}")))?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes)
        .map_err(|e| broken(format!("its header can't be read: {e}")))?;
    let json = metadata
        .metadata()
        .as_ref()
        .and_then(|m| m.get(HEADER))
        .ok_or_else(|| broken("it holds tensors, but it is not a checkpoint of nasfw".into()))?;
    let header: Header = serde_json::from_str(json)
        .map_err(|e| broken(format!("its header can't be understood: {e}")))?;
    if header.version != VERSION {
        return Err(broken(format!(
            "it is of format {}, this version of nasfw reads format {VERSION}",
            header.version
        )));
    }
    let mut tensors = BTreeMap::new();
    let mut parts = BTreeMap::new();
    for (name, view) in file.tensors() {
        let tensor = to_tensor(&view)?;
        parts.insert(name.clone(), to_bytes(&tensor)?);
        tensors.insert(name, tensor);
    }
    if digest(&parts) != header.digest {
        return Err(broken("its numbers do not match its checksum".into()));
    }
    if header.fingerprint != fingerprint {
        return Err(Error::Run {
            path: path.to_owned(),
            problem: "this checkpoint belongs to another configuration".into(),
            help: "a run goes on only with the settings it began with; start a new run with `nasfw run` \
                   for other settings"
                .into(),
        });
    }
    Ok(Checkpoint {
        header,
        tensors,
        path: path.to_owned(),
    })
}

impl Checkpoint {
    /// The strategy's own state.
    pub fn strategy_state(&self) -> StrategyState {
        let tensors = self
            .tensors
            .iter()
            .filter_map(|(name, t)| Some((name.strip_prefix("strategy.")?.to_owned(), t.copy())))
            .collect();
        StrategyState {
            values: self.header.strategy.clone(),
            tensors,
        }
    }

    /// Puts weights, φ, optimizers, meters and clock back into a search of the same configuration.
    pub fn restore(&self, search: &mut Search) -> Result<()> {
        let wrong = |what: &str| Error::Run {
            path: self.path.clone(),
            problem: format!("`{what}` does not fit the supernet or the distribution of this run"),
            help: "the plugin has changed since the run began; start a new run with `nasfw run`"
                .into(),
        };
        let device = search.device();
        let get = |name: &str, like: &Tensor| -> Result<Tensor> {
            let t = self.tensors.get(name).ok_or_else(|| wrong(name))?;
            if t.size() != like.size() || t.kind() != like.kind() {
                return Err(wrong(name));
            }
            Ok(t.to_device(device).copy())
        };
        let h = &self.header;
        search.theta = leaf(get("theta", &search.theta)?);
        search.stats = get("stats", &search.stats)?;
        search.phi = match search.phi_optimizer {
            Some(_) => leaf(get("phi", &search.phi)?),
            None => get("phi", &search.phi)?,
        };
        let state = |name: &str| self.tensors.get(name).map(|t| t.to_device(device).copy());
        if let (Some(first), Some(second)) = (state("theta.first"), state("theta.second"))
            && !search.theta_optimizer.restore(first, second, h.theta_steps)
        {
            return Err(wrong("theta.first"));
        }
        search.theta_optimizer.set_weight_decay(h.weight_decay);
        if let Some(optimizer) = &mut search.phi_optimizer {
            let (Some(first), Some(second)) = (state("phi.first"), state("phi.second")) else {
                return Err(wrong("phi.first"));
            };
            if !optimizer.restore(first, second, h.phi_steps) {
                return Err(wrong("phi.first"));
            }
        }
        search.meters = [Split::Full, Split::Train, Split::Val]
            .into_iter()
            .filter_map(|split| Some((split, state(&split_name(split))?)))
            .collect();
        search.settings.batch_size = h.batch_size;
        search.settings.micro_batch = h.micro_batch;
        search.scalars = h.scalars.clone();
        let saves = search.clock.saves.max(h.clock.saves);
        search.clock = Clock {
            saves,
            ..h.clock.clone()
        };
        search.account();
        Ok(())
    }
}
