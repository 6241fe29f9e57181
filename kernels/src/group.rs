//! Processes that exchange tensors: libtorch's `torch.distributed` over Gloo, and NCCL for those that are on GPUs.

use std::ffi::{CString, NulError, c_char, c_int, c_void};
use std::ptr;
use std::time::Duration;

use tch::{Device, TchError, Tensor};
use torch_sys::C_tensor;

use crate::message::{Message, check};

unsafe extern "C" {
    fn nasfw_group_join(
        out: *mut *mut c_void,
        host: *const c_char,
        port: u16,
        rank: c_int,
        world: c_int,
        serves: bool,
        prefix: *const c_char,
        interface: *const c_char,
        timeout_ms: i64,
    ) -> Message;
    fn nasfw_group_slices(
        group: *mut c_void,
        out: *mut *mut C_tensor,
        flat: *const C_tensor,
    ) -> Message;
    fn nasfw_group_gather(
        group: *mut c_void,
        out: *mut *mut C_tensor,
        mine: *const C_tensor,
    ) -> Message;
    fn nasfw_group_sum(
        group: *mut c_void,
        out: *mut *mut C_tensor,
        mine: *const C_tensor,
    ) -> Message;
    fn nasfw_nccl_version(out: *mut c_int) -> Message;
    fn nasfw_group_leave(group: *mut c_void);
}

/// Where processes meet, and which of them this one is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meeting {
    /// Host of the store that they find each other by.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Number of this process, from 0.
    pub rank: usize,
    /// Number of all processes.
    pub world: usize,
    /// Whether this process serves the store.
    pub serves: bool,
    /// What names in the store begin with: another one for every start.
    pub prefix: String,
    /// The network interface; none means the one towards the store.
    pub interface: Option<String>,
    /// After so long without an answer another process is given up.
    pub timeout: Duration,
}

/// Whether a backward pass failed because a process did that it had to go through with ([`Group::sum`]).
pub fn is_lost(error: &TchError) -> bool {
    matches!(error, TchError::Torch(text) if text.contains("another process is lost: "))
}

/// Version of NCCL, such as 22304 for 2.23.4. It is loaded for that, and needs no GPU.
///
/// # Errors
/// A library that is not there, or can't be loaded.
pub fn nccl_version() -> Result<i32, TchError> {
    let mut version = 0;
    // SAFETY: the number lives during the call.
    check(unsafe { nasfw_nccl_version(&mut version) })?;
    Ok(version)
}

/// A group of processes. Every call is one that all of them make, in the same order.
#[derive(Debug)]
pub struct Group {
    handle: *mut c_void,
    world: i64,
}

// SAFETY: libtorch's group locks what its calls share, and the handle is only given back when the last owner drops it.
unsafe impl Send for Group {}
// SAFETY: as above.
unsafe impl Sync for Group {}

impl Group {
    /// Joins the others, and waits for them.
    ///
    /// # Errors
    /// A store that can't be reached, processes that don't come, texts with a zero byte.
    pub fn join(meeting: &Meeting) -> Result<Self, TchError> {
        let text =
            |text: &str| CString::new(text).map_err(|e: NulError| TchError::Convert(e.to_string()));
        let number = |n: usize| c_int::try_from(n).map_err(|e| TchError::Convert(e.to_string()));
        let (host, prefix) = (text(&meeting.host)?, text(&meeting.prefix)?);
        let interface = text(meeting.interface.as_deref().unwrap_or_default())?;
        let (rank, world) = (number(meeting.rank)?, number(meeting.world)?);
        let mut handle = ptr::null_mut();
        // SAFETY: the texts live during the call, which copies them.
        check(unsafe {
            nasfw_group_join(
                &mut handle,
                host.as_ptr(),
                meeting.port,
                rank,
                world,
                meeting.serves,
                prefix.as_ptr(),
                interface.as_ptr(),
                i64::try_from(meeting.timeout.as_millis()).unwrap_or(i64::MAX),
            )
        })?;
        Ok(Self {
            handle,
            world: world.into(),
        })
    }

    /// Of every process's vector `[world × n]` the slice that is this process's: `[world, n]`, a row a process.
    ///
    /// # Errors
    /// A vector that can't be cut or is not contiguous; a process that is gone or does not answer; a GPU without NCCL.
    pub fn slices(&self, flat: &Tensor) -> Result<Tensor, TchError> {
        if flat.numel() as i64 % self.world != 0 {
            return Err(TchError::Shape(format!(
                "{} numbers can't be cut in {}",
                flat.numel(),
                self.world
            )));
        }
        self.call(flat, nasfw_group_slices)
    }

    /// Every process's vector `[n]`, of one length for all: `[world, n]`, a row a process.
    ///
    /// # Errors
    /// A vector that is not contiguous; a process that is gone or does not answer; a GPU without NCCL.
    pub fn gather(&self, mine: &Tensor) -> Result<Tensor, TchError> {
        self.call(mine, nasfw_group_gather)
    }

    /// The sum of every process's vector `[n]`, in the order of the processes. It has first derivatives: to find them all
    /// processes go backward through it.
    ///
    /// # Errors
    /// A vector that is not on the CPU or not contiguous; a process that is gone or does not answer.
    pub fn sum(&self, mine: &Tensor) -> Result<Tensor, TchError> {
        match mine.device() {
            Device::Cpu => self.call(mine, nasfw_group_sum),
            _ => Err(TchError::Shape(
                "sums with a graph are taken on the CPU".into(),
            )),
        }
    }

    fn call(
        &self,
        vector: &Tensor,
        f: unsafe extern "C" fn(*mut c_void, *mut *mut C_tensor, *const C_tensor) -> Message,
    ) -> Result<Tensor, TchError> {
        if vector.dim() != 1 || !vector.is_contiguous() {
            return Err(TchError::Shape(
                "processes exchange contiguous vectors".into(),
            ));
        }
        let mut out = ptr::null_mut();
        // SAFETY: the group and the vector live during the call.
        check(unsafe { f(self.handle, &mut out, vector.as_ptr()) })?;
        // SAFETY: on success it is a new tensor, ours to own.
        Ok(unsafe { Tensor::from_ptr(out) })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: it was made by `join`, and nobody has it any more.
        unsafe { nasfw_group_leave(self.handle) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::TcpListener;
    use std::thread;
    use tch::Kind;

    /// As many members as `world`, in threads of this process.
    fn together<T: Send>(world: usize, f: impl Fn(usize, Group) -> T + Sync) -> Vec<T> {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        thread::scope(|threads| {
            let of = |rank| Meeting {
                host: "127.0.0.1".into(),
                port,
                rank,
                world,
                serves: rank == 0,
                prefix: "test".into(),
                interface: None,
                timeout: Duration::from_secs(20),
            };
            let f = &f;
            let members: Vec<_> = (0..world)
                .map(|rank| threads.spawn(move || f(rank, Group::join(&of(rank)).unwrap())))
                .collect();
            members.into_iter().map(|m| m.join().unwrap()).collect()
        })
    }

    #[test]
    fn rows_are_in_the_order_of_the_ranks() {
        for kind in [Kind::Float, Kind::Double, Kind::Int64, Kind::Uint8] {
            let seen = together(3, |rank, group| {
                let rank = rank as i64;
                // Number i of rank r is 10 r + i.
                let mine =
                    (Tensor::arange(6, (Kind::Int64, Device::Cpu)) + rank * 10).to_kind(kind);
                let (slices, all) = (group.slices(&mine).unwrap(), group.gather(&mine).unwrap());
                assert!(group.slices(&mine.narrow(0, 0, 4)).is_err());
                let numbers =
                    |t: Tensor| Vec::<Vec<f64>>::try_from(t.to_kind(Kind::Double)).unwrap();
                (numbers(slices), numbers(all))
            });
            for (rank, (slices, all)) in seen.into_iter().enumerate() {
                let row = |r: usize, from: usize, to: usize| -> Vec<f64> {
                    (from..to).map(|i| (10 * r + i) as f64).collect()
                };
                let of = |from, to| (0..3).map(|r| row(r, from, to)).collect::<Vec<_>>();
                assert_eq!(slices, of(2 * rank, 2 * rank + 2), "{kind:?}");
                assert_eq!(all, of(0, 6), "{kind:?}");
            }
        }
    }

    /// L = Σ_r (r + 1) · s³, with s = Σ_r x_r: dL/dx_r = 3 s² Σ_r (r + 1) for every r.
    #[test]
    fn a_sum_is_differentiated_through_all_processes() {
        let seen = together(3, |rank, group| {
            let x = Tensor::from_slice(&[0.5 * rank as f64, 1.0]).set_requires_grad(true);
            let s = group.sum(&x).unwrap();
            let own = s.pow_tensor_scalar(3).sum(Kind::Double) * (rank + 1) as f64;
            let slope = Tensor::run_backward(&[own], &[&x], false, false).remove(0);
            let twice = group.sum(&x).unwrap().square().sum(Kind::Double);
            assert!(Tensor::f_run_backward(&[twice], &[&x], true, true).is_err());
            Vec::<f64>::try_from(slope).unwrap()
        });
        let expected: Vec<f64> = [1.5f64, 3.0].map(|s| 3.0 * s * s * 6.0).to_vec();
        assert_eq!(seen, [expected.clone(), expected.clone(), expected]);
    }

    #[test]
    fn who_is_gone_in_a_backward_pass_is_told_apart() {
        let seen = together(2, |rank, group| {
            let x = Tensor::ones([2], (Kind::Double, Device::Cpu)).set_requires_grad(true);
            let loss = group.sum(&x).unwrap().sum(Kind::Double);
            (rank == 0).then(|| Tensor::f_run_backward(&[loss], &[&x], false, false).unwrap_err())
        });
        let error = seen[0].as_ref().unwrap();
        assert!(is_lost(error), "{error}");
        let other = Tensor::ones([2], (Kind::Double, Device::Cpu)).f_view([3]);
        assert!(!is_lost(&other.unwrap_err()));
    }

    #[test]
    fn who_is_gone_is_an_error_and_who_never_comes_too() {
        let seen = together(2, |rank, group| {
            let mine = Tensor::ones([2], (Kind::Float, Device::Cpu));
            let _ = group.gather(&mine).unwrap();
            match rank {
                0 => None,
                _ => Some(group.gather(&mine).is_err()),
            }
        });
        assert_eq!(seen, [None, Some(true)]);
        let alone = Meeting {
            host: "127.0.0.1".into(),
            port: 1,
            rank: 1,
            world: 2,
            serves: false,
            prefix: "test".into(),
            interface: None,
            timeout: Duration::from_secs(1),
        };
        let error = Group::join(&alone).unwrap_err().to_string();
        assert!(!error.contains("frame #"), "{error}");
    }
}
