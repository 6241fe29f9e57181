//! Checkpoints: one safetensors file with all tensors, and in its header all numbers, of a search.

mod format;

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tch::{Kind, Tensor};

pub(crate) use format::Header;

use super::derive::derive;
use crate::arch::Choice;
use crate::error::{Error, Result};
use crate::run::{CHECKPOINTS, RunFolder};
use crate::search::{Search, leaf};
use crate::strategy::{Split, Strategy, StrategyState};
use crate::tensors::to_bytes;

/// How many of the latest checkpoints are kept: the newest, and the one before should that be damaged.
const KEPT: usize = 2;
/// How often a folder is listed whose checkpoints are gone before they are read: their writer keeps only the newest.
const LISTS: u32 = 5;

/// A checkpoint in memory.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub header: Header,
    tensors: BTreeMap<String, Tensor>,
    path: PathBuf,
}

fn split_name(split: Split) -> String {
    format!("meter.{split:?}").to_lowercase()
}

/// What is wrong with a checkpoint, and what to do.
fn broken(path: &Path, problem: String) -> Error {
    Error::Run {
        path: path.to_owned(),
        problem,
        help: "the file is damaged; start a new run with `nasfw run`, or put a good copy back"
            .into(),
    }
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
    search.clock.saves += 1;
    same_for_all(search, &all, &state.values)?;
    if !run.is_ours() {
        return Ok(());
    }
    let header = Header {
        finished: finished.map(str::to_owned),
        theta_steps,
        phi_steps,
        batch_size: search.settings.batch_size,
        micro_batch: search.settings.micro_batch,
        weight_decay: search.theta_optimizer.config().weight_decay,
        scalars: search.scalars.clone(),
        strategy: state.values,
        ..Header::new(fingerprint, search.clock.clone(), events_bytes)
    };
    let bytes = format::encode(header, all)?;

    run.check()?;
    let folder = run.path().join(CHECKPOINTS);
    // Never the run folder itself: one that was moved away must not come back.
    match fs::create_dir(&folder) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => {
            return Err(Error::io("create the folder", &folder)(e));
        }
        _ => {}
    }
    // A process that goes on does so from the numbered one, and may then need any of the past.
    if history {
        run.put(&history_file(run.path(), search.clock.epoch), &bytes)?;
    }
    run.put(
        &folder.join(format!("{:09}.safetensors", search.clock.saves)),
        &bytes,
    )?;
    prune(run)
}

/// Refuses to keep what the processes of a run do not agree on.
fn same_for_all(
    search: &Search,
    tensors: &[(String, &Tensor)],
    values: &serde_json::Value,
) -> Result<()> {
    if search.ranks.world() == 1 {
        return Ok(());
    }
    let mut all = vec![
        (
            "the number of steps".to_owned(),
            format!("{:?}", search.clock),
        ),
        ("the strategy's state".to_owned(), values.to_string()),
    ];
    for (name, tensor) in tensors {
        let digest = blake3::hash(&to_bytes(tensor)?.bytes).to_hex();
        all.push((format!("`{name}`"), digest.to_string()));
    }
    let all: Vec<_> = all.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    search.ranks.agree(
        &all,
        "processors of different makes round differently: take hosts of one kind; where they are, the strategy draws or \
         measures something that is not the same in every process",
    )
}

/// Drops all checkpoints but the newest.
pub(crate) fn prune(run: &RunFolder) -> Result<()> {
    if !run.is_ours() {
        return Ok(());
    }
    for old in numbered(run.path())?.iter().rev().skip(KEPT) {
        let _ = fs::remove_file(old);
    }
    Ok(())
}

fn history_file(run: &Path, epoch: u64) -> PathBuf {
    run.join(CHECKPOINTS)
        .join(format!("epoch-{epoch:05}.safetensors"))
}

/// The numbered checkpoints, oldest first.
fn numbered(run: &Path) -> Result<Vec<PathBuf>> {
    let folder = run.join(CHECKPOINTS);
    let entries = match fs::read_dir(&folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(vec![]),
        entries => entries.map_err(Error::io("read the folder", &folder))?,
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| number(p).is_some())
        .collect();
    files.sort();
    Ok(files)
}

/// The number that a checkpoint is named by.
fn number(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_suffix(".safetensors")?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok())?
}

/// BLAKE3 of all tensors of the newest checkpoint: names, kinds, shapes, places in memory, numbers; none when the run has
/// not written any. `fingerprint` is [`crate::config::RunConfig::fingerprint`] of the run.
///
/// # Errors
/// Checkpoints that can't be read, and those of another run.
pub fn digest(run: &Path, fingerprint: &str) -> Result<Option<String>> {
    newest(run, fingerprint)?.map(|c| c.digest()).transpose()
}

/// Reads the newest good checkpoint of a run; none when the run has not written any. A damaged one is passed over,
/// with a warning, in favour of the one before.
pub(crate) fn newest(run: &Path, fingerprint: &str) -> Result<Option<Checkpoint>> {
    let mut lists = 0;
    'list: loop {
        lists += 1;
        let mut first_error = None;
        for path in numbered(run)?.iter().rev() {
            match read(path, fingerprint) {
                Ok(checkpoint) => return Ok(Some(checkpoint)),
                // A process that works on the run has written newer ones meanwhile.
                Err(Error::Io { source, .. })
                    if source.kind() == ErrorKind::NotFound && lists < LISTS =>
                {
                    continue 'list;
                }
                Err(e) => {
                    tracing::warn!("{e}; trying the checkpoint before it");
                    first_error.get_or_insert(e);
                }
            }
        }
        return first_error.map_or(Ok(None), Err);
    }
}

/// Reads the checkpoint that was kept at the end of an epoch.
pub(crate) fn of_epoch(run: &Path, epoch: u64, fingerprint: &str) -> Result<Checkpoint> {
    let path = history_file(run, epoch);
    let kept = read(&path, fingerprint)?;
    if kept.header.clock.epoch != epoch {
        let problem = format!("it is of epoch {}", kept.header.clock.epoch);
        return Err(broken(&path, problem));
    }
    Ok(kept)
}

/// Reads a checkpoint of the run whose settings have this fingerprint.
pub(crate) fn read(path: &Path, fingerprint: &str) -> Result<Checkpoint> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    let (header, tensors) = format::decode(&bytes).map_err(|problem| broken(path, problem))?;
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

/// Whether these are the bytes of a whole checkpoint.
///
/// # Errors
/// [`Error::Run`] with what is wrong, `path` being where they are from.
pub fn check(path: &Path, bytes: &[u8]) -> Result<()> {
    let read = format::decode(bytes);
    read.map(|_| ()).map_err(|problem| broken(path, problem))
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

    /// BLAKE3 of all tensors: names, kinds, shapes, places in memory, numbers.
    pub fn digest(&self) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        for (name, tensor) in &self.tensors {
            // As they were written, whatever was made of them.
            let strides = self.header.layouts.get(name);
            let about = format!(
                "{name} {:?} {:?} {strides:?}\0",
                tensor.kind(),
                tensor.size()
            );
            hasher
                .update(about.as_bytes())
                .update(&to_bytes(tensor)?.bytes);
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// What is wrong with it.
    pub fn broken(&self, problem: String) -> Error {
        broken(&self.path, problem)
    }

    /// Puts everything back into a search of the same configuration and on the same images.
    pub fn restore(&self, search: &mut Search) -> Result<()> {
        self.put_back(search)?;
        self.fits(search)
    }

    /// Puts weights, φ, optimizers, meters and clock back.
    fn put_back(&self, search: &mut Search) -> Result<()> {
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
        // A leaf where there is a distribution, also one that no optimizer but a rule of the strategy's own moves.
        let phi = get("phi", &search.phi)?;
        search.phi = match search.phi.requires_grad() {
            true => leaf(phi),
            false => phi,
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
        search.meters = BTreeMap::new();
        for split in [Split::Full, Split::Train, Split::Val] {
            let name = split_name(split);
            if let Some(sums) = state(&name) {
                if sums.size() != [3] || sums.kind() != Kind::Double {
                    return Err(wrong(&name));
                }
                search.meters.insert(split, sums);
            }
        }
        search.settings.batch_size = h.batch_size;
        search.settings.micro_batch = h.micro_batch;
        search.scalars = h.scalars.clone();
        search.clock = h.clock.clone();
        search.account();
        Ok(())
    }

    /// Puts everything back to be looked at, whatever images there are, the strategy having its own state already, and
    /// gives what it derives.
    pub fn reopen(&self, search: &mut Search, strategy: &dyn Strategy) -> Result<Choice> {
        self.put_back(search)?;
        derive(strategy, search)
            .map_err(|e| self.broken(format!("nothing can be derived from it: {e}")))
    }

    /// Whether the places in the images that the clock names exist.
    pub fn fits(&self, search: &Search) -> Result<()> {
        let clock = &search.clock;
        let steps = search.steps_per_epoch();
        if clock.step_in_epoch > steps {
            return Err(self.broken(format!(
                "`step_in_epoch` is {} of {steps} steps",
                clock.step_in_epoch
            )));
        }
        for (split, (_, index)) in &clock.drawn {
            // Batches can have been smaller.
            let most = search.images_of(*split);
            if *index > most {
                return Err(self.broken(format!("`drawn` is batch {index} of {most} images")));
            }
        }
        Ok(())
    }
}
