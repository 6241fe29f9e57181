//! The processes, and what they exchange.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nasfw_kernels::group::{Group, nccl_version};
use tch::{Device, Kind, TchError, Tensor};

use super::launcher::Launcher;
use crate::error::{Error, Result};

/// So many numbers are sent whole to everybody rather than summed a slice by each.
const FEW: i64 = 4096;

/// What carries gradients from process to process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Gloo, by way of the CPU.
    Gloo,
    /// NCCL, from GPU to GPU.
    Nccl,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gloo => "gloo",
            Self::Nccl => "nccl",
        })
    }
}

impl FromStr for Transport {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "gloo" => Ok(Self::Gloo),
            "nccl" => Ok(Self::Nccl),
            _ => Err("use `gloo` (by way of the CPU) or `nccl` (from GPU to GPU)".into()),
        }
    }
}

/// The processes of a run, of which this is one. All of them make the same calls in the same order.
#[derive(Debug, Clone)]
pub struct Ranks {
    group: Option<Arc<Group>>,
    rank: usize,
    world: usize,
    local: usize,
    over: Transport,
    /// Microseconds of exchanges, and of waiting for the others.
    spent: Arc<AtomicU64>,
}

impl Ranks {
    /// One process, this one.
    pub fn alone() -> Self {
        Self {
            group: None,
            rank: 0,
            world: 1,
            local: 0,
            over: Transport::Gloo,
            spent: Arc::default(),
        }
    }

    /// Joins the processes that a launcher started, and waits until all are there. One that does not answer for `timeout` is
    /// given up, then and later.
    ///
    /// # Errors
    /// A process that was not started by this launcher; others that don't come; NCCL where it can't be loaded.
    pub fn join(launcher: Launcher, over: Transport, timeout: Duration) -> Result<Self> {
        if over == Transport::Nccl {
            nccl_version().map_err(|e| Error::Incompatible {
                what: "--ranks-over nccl".into(),
                why: plain(&e),
                help: "use `--ranks-over gloo`, or put the folder of libnccl.so.2 into LD_LIBRARY_PATH (it comes with PyTorch for \
                       CUDA, in `site-packages/nvidia/nccl/lib`)"
                    .into(),
            })?;
        }
        let says = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (meeting, local) = launcher.meeting(says, timeout)?;
        let mut ranks = Self {
            rank: meeting.rank,
            world: meeting.world,
            local,
            over,
            ..Self::alone()
        };
        if ranks.world > 1 {
            let group = Group::join(&meeting).map_err(|e| {
                let (host, port) = (&meeting.host, meeting.port);
                ranks.lost(&e, &format!("they were to meet at {host}:{port}"))
            })?;
            ranks.group = Some(Arc::new(group));
        }
        Ok(ranks)
    }

    /// Number of this process, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many processes there are.
    pub fn world(&self) -> usize {
        self.world
    }

    /// Whether this is the process that writes, and talks to people.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// The GPU of this process, where each process of a host has one.
    pub(crate) fn gpu(&self) -> String {
        format!("cuda:{}", self.local)
    }

    /// Whether this process computes number `i` of what is shared out.
    pub(crate) fn has(&self, i: usize) -> bool {
        i % self.world == self.rank
    }

    /// The sums of `count` lists of tensors, in order: ((t₀ + t₁) + t₂) + …, whatever the number of processes. `part(i)`
    /// gives list `i`, of the same kinds and shapes for every `i`; each process is asked for its own ones only.
    ///
    /// # Errors
    /// Those of `part`, and a process that is lost.
    pub(crate) fn sum_in_order(
        &self,
        count: usize,
        mut part: impl FnMut(usize) -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        let Some(group) = &self.group else {
            let mut sums = part(0)?;
            for i in 1..count {
                let pairs = sums.iter_mut().zip(part(i)?);
                pairs.for_each(|(sum, term)| *sum += term);
            }
            return Ok(sums);
        };
        // Per kind of number the sum, or this process's slice of it, and the length of the whole.
        let (mut sums, mut shapes): (Vec<(Tensor, i64)>, _) = (vec![], vec![]);
        for first in (0..count).step_by(self.world) {
            let here = self.world.min(count - first);
            // One that has none computes another's: what it sends is not added, but it must know the shapes.
            let own = part(first + self.rank.min(here - 1))?;
            for (i, flat) in self.flatten(&own).iter().enumerate() {
                let parts = self.parts(group, flat)?;
                if first == 0 {
                    sums.push((parts.get(0).copy(), flat.numel() as i64));
                }
                for rank in usize::from(first == 0)..here {
                    sums[i].0 += parts.get(rank as i64);
                }
            }
            shapes = own;
        }
        let whole = |(sum, n): (Tensor, i64)| match n <= FEW {
            true => Ok(sum),
            false => Ok(self.gathered(group, &sum)?.view(-1).narrow(0, 0, n)),
        };
        let flat = sums.into_iter().map(whole).collect::<Result<Vec<_>>>()?;
        unflatten(&flat, &shapes)
    }

    /// One vector for every kind of number in the tensors, where it can be sent from.
    fn flatten(&self, tensors: &[Tensor]) -> Vec<Tensor> {
        let place = |t: &Tensor| match self.over {
            Transport::Gloo => Device::Cpu,
            Transport::Nccl => t.device(),
        };
        let flat = kinds(tensors).into_iter().map(|kind| {
            let of_kind = tensors.iter().filter(|t| t.kind() == kind);
            let parts = of_kind.map(|t| t.to_device(place(t)).contiguous().view(-1));
            Tensor::cat(&parts.collect::<Vec<_>>(), 0)
        });
        flat.collect()
    }

    /// A row a process: its vector, or where it is long the slice of it that this process adds up.
    fn parts(&self, group: &Group, flat: &Tensor) -> Result<Tensor> {
        let (n, world) = (flat.numel() as i64, self.world as i64);
        if n <= FEW {
            return self.gathered(group, flat);
        }
        let padded = match n % world {
            0 => flat.shallow_clone(),
            over => flat.constant_pad_nd([0, world - over]),
        };
        self.timed(|| group.slices(&padded))
    }

    fn gathered(&self, group: &Group, mine: &Tensor) -> Result<Tensor> {
        self.timed(|| group.gather(mine))
    }

    fn timed(&self, call: impl FnOnce() -> Result<Tensor, TchError>) -> Result<Tensor> {
        let began = Instant::now();
        let done = call().map_err(|e| self.gone(&e));
        let spent = began.elapsed().as_micros() as u64;
        self.spent.fetch_add(spent, Ordering::Relaxed);
        done
    }

    /// The sum of every process's vector, in the order of the processes, with a graph.
    ///
    /// # Errors
    /// A process that is lost.
    pub(super) fn sum(&self, mine: &Tensor) -> Result<Tensor> {
        let Some(group) = &self.group else {
            return Ok(mine.shallow_clone());
        };
        let flat = mine.to_device(Device::Cpu).contiguous();
        let sum = self.timed(|| group.sum(&flat))?;
        Ok(sum.to_device(mine.device()))
    }

    /// Time of exchanges, and of waiting for the others, since the last call.
    pub(crate) fn take_time(&self) -> Duration {
        Duration::from_micros(self.spent.swap(0, Ordering::Relaxed))
    }

    /// The rows of a table, of which each process has computed those that it [has](Self::has), in order: `[count, m]`.
    ///
    /// # Errors
    /// A process that is lost.
    pub(crate) fn rows(&self, own: &[Tensor], count: usize, like: &Tensor) -> Result<Tensor> {
        if count == 0 {
            return Ok(like.unsqueeze(0).narrow(0, 0, 0));
        }
        let Some(group) = &self.group else {
            return Ok(Tensor::stack(own, 0));
        };
        let each = count.div_ceil(self.world);
        let mut own: Vec<Tensor> = own.iter().map(|row| row.to_device(Device::Cpu)).collect();
        own.resize_with(each, || like.to_device(Device::Cpu).zeros_like());
        let all = self.gathered(group, &Tensor::cat(&own, 0))?;
        // [process, round, m] to [round, process, m]
        let all = all
            .view([self.world as i64, each as i64, -1])
            .transpose(0, 1);
        let rows = all.reshape([(self.world * each) as i64, -1]);
        Ok(rows.narrow(0, 0, count as i64).to_device(like.device()))
    }

    /// The numbers of every process, in the order of the processes.
    ///
    /// # Errors
    /// A process that is lost.
    pub(crate) fn say<const N: usize>(&self, mine: [i64; N]) -> Result<Vec<[i64; N]>> {
        let Some(group) = &self.group else {
            return Ok(vec![mine]);
        };
        let all = self.gathered(group, &Tensor::from_slice(&mine))?;
        let rows = (0..self.world as i64).map(|rank| {
            let row = Vec::<i64>::try_from(all.get(rank))?;
            Ok(std::array::from_fn(|i| row[i]))
        });
        rows.collect()
    }

    /// Makes sure that all processes have the same: names, and texts that are compared.
    ///
    /// # Errors
    /// One that has something else, for all processes; a process that is lost.
    pub fn agree(&self, on: &[(&str, &str)], help: &str) -> Result<()> {
        let Some(group) = &self.group else {
            return Ok(());
        };
        let hashes: Vec<u8> = on
            .iter()
            .flat_map(|(_, text)| *blake3::hash(text.as_bytes()).as_bytes())
            .collect();
        let all = self.gathered(group, &Tensor::from_slice(&hashes))?;
        let all: Vec<Vec<u8>> = Vec::try_from(all)?;
        let other = all.iter().enumerate().find_map(|(rank, hashes)| {
            let pairs = hashes.chunks(32).zip(all[0].chunks(32));
            let differs = pairs.zip(on).find(|((a, b), _)| a != b);
            differs.map(|(_, (what, _))| (rank, what))
        });
        let Some((rank, what)) = other else {
            return Ok(());
        };
        Err(Error::Incompatible {
            what: format!("process {rank} of {}", self.world),
            why: format!("{what} differs from that of process 0"),
            help: help.into(),
        })
    }

    /// What every process says, in the order of the processes.
    ///
    /// # Errors
    /// A process that is lost.
    pub fn texts(&self, mine: &str) -> Result<Vec<String>> {
        let Some(group) = &self.group else {
            return Ok(vec![mine.to_owned()]);
        };
        let lengths = self.say([mine.len() as i64])?;
        let lengths = lengths.iter().map(|[n]| usize::try_from(*n).unwrap_or(0));
        let lengths: Vec<usize> = lengths.collect();
        let mut bytes = mine.as_bytes().to_vec();
        bytes.resize(lengths.iter().copied().max().unwrap_or(0) + 1, 0);
        let all = self.gathered(group, &Tensor::from_slice(&bytes))?;
        let texts = lengths.iter().enumerate().map(|(rank, length)| {
            let mut said = Vec::<u8>::try_from(all.get(rank as i64))?;
            said.truncate(*length);
            Ok(String::from_utf8_lossy(&said).into_owned())
        });
        texts.collect()
    }

    pub(super) fn gone(&self, why: &TchError) -> Error {
        self.lost(why, "it ended, or did not answer in time")
    }

    fn lost(&self, why: &TchError, what: &str) -> Error {
        Error::Lost {
            rank: self.rank,
            world: self.world,
            why: format!("{what} ({})", plain(why)),
        }
    }
}

/// The reverse of [`Ranks::flatten`], with the shapes and devices of `like`.
fn unflatten(flat: &[Tensor], like: &[Tensor]) -> Result<Vec<Tensor>> {
    let kinds = kinds(like);
    let mut begins = vec![0; flat.len()];
    let tensors = like.iter().map(|t| {
        let i = kinds.iter().position(|kind| *kind == t.kind());
        let i = i.unwrap_or_default();
        let n = t.numel() as i64;
        let own = flat[i].f_narrow(0, begins[i], n)?;
        begins[i] += n;
        Ok(own.f_view_as(t)?.to_device(t.device()))
    });
    tensors.collect()
}

/// The first line of what libtorch says; more would be its own stack.
fn plain(error: &TchError) -> String {
    let text = match error {
        TchError::Torch(text) => text.clone(),
        other => other.to_string(),
    };
    text.lines().next().unwrap_or_default().to_owned()
}

fn kinds(tensors: &[Tensor]) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = vec![];
    for t in tensors {
        if !kinds.contains(&t.kind()) {
            kinds.push(t.kind());
        }
    }
    kinds
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_process_adds_in_order_and_knows_tables_without_rows() {
        let alone = Ranks::alone();
        let values = [1e16, 1.0, -1e16, 1.0];
        let one = |i: usize| Ok(vec![Tensor::from(values[i])]);
        let sum = alone.sum_in_order(values.len(), one).unwrap();
        // Another order gives 2, or 1 at another place.
        assert_eq!(sum[0].double_value(&[]), ((1e16 + 1.0) - 1e16) + 1.0);
        let like = Tensor::zeros([5], (Kind::Double, Device::Cpu));
        assert_eq!(alone.rows(&[], 0, &like).unwrap().size(), [0, 5]);
        let rows = [1.0, 2.0].map(|x| like.ones_like() * x);
        let all = alone.rows(&rows, 2, &like).unwrap();
        assert_eq!((all.size(), all.double_value(&[1, 4])), (vec![2, 5], 2.0));
    }
}
