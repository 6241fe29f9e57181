//! Precision: autocast of forward passes to bfloat16; on GPUs, TF32 in matrix products and kernels whose results repeat.

use std::marker::PhantomData;

use tch::Device;

unsafe extern "C" {
    fn nasfw_autocast_begin(cuda: bool, was_enabled: *mut bool, was_type: *mut i8);
    fn nasfw_autocast_end(cuda: bool, was_enabled: bool, was_type: i8);
    fn nasfw_autocast_enabled(cuda: bool) -> bool;
    fn nasfw_set_tf32(allow: bool);
    fn nasfw_tf32() -> bool;
    fn nasfw_set_deterministic(on: bool);
    fn nasfw_deterministic() -> bool;
    fn nasfw_cudnn_benchmark() -> bool;
}

/// While it lives, convolutions and matrix products of this thread are computed in bfloat16, and operations that need
/// more in 32 bits, as libtorch's autocast decides. Tensors of 64 bits are left alone. Backward passes follow what
/// their forward passes did; they belong outside.
#[derive(Debug)]
pub struct Autocast {
    cuda: bool,
    was_enabled: bool,
    was_type: i8,
    /// Autocast belongs to a thread.
    thread: PhantomData<*const ()>,
}

impl Autocast {
    /// Begins autocast to bfloat16 for operations on the kind of `device`.
    pub fn bf16(device: Device) -> Self {
        let (cuda, mut was_enabled, mut was_type) = (device.is_cuda(), false, 0);
        // SAFETY: the pointers are valid for the call.
        unsafe { nasfw_autocast_begin(cuda, &mut was_enabled, &mut was_type) };
        Self {
            cuda,
            was_enabled,
            was_type,
            thread: PhantomData,
        }
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // SAFETY: on the thread that it began on, with what was then.
        unsafe { nasfw_autocast_end(self.cuda, self.was_enabled, self.was_type) };
    }
}

/// Whether operations of this thread on the kind of `device` are under autocast.
pub fn autocast_enabled(device: Device) -> bool {
    // SAFETY: it reads a flag.
    unsafe { nasfw_autocast_enabled(device.is_cuda()) }
}

/// Whether matrix products and convolutions on GPUs may round their factors to TF32 (10 bits of mantissa), in the
/// whole process.
pub fn set_tf32(allow: bool) {
    // SAFETY: it sets two flags.
    unsafe { nasfw_set_tf32(allow) };
}

/// What [`set_tf32`] set.
pub fn tf32() -> bool {
    // SAFETY: it reads two flags.
    unsafe { nasfw_tf32() }
}

/// Whether GPUs compute, in the whole process, only by kernels that give the same bits every time, where there are any.
/// cuBLAS repeats itself as long as one stream is used, as here.
pub fn set_deterministic(on: bool) {
    // SAFETY: it sets flags.
    unsafe { nasfw_set_deterministic(on) };
}

/// What [`set_deterministic`] set.
pub fn deterministic() -> bool {
    // SAFETY: it reads flags.
    unsafe { nasfw_deterministic() }
}

/// Whether cuDNN measures which algorithm of a convolution is the fastest (`tch::Cuda::cudnn_set_benchmark`).
pub fn cudnn_benchmark() -> bool {
    // SAFETY: it reads a flag.
    unsafe { nasfw_cudnn_benchmark() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

    fn product(kind: Kind) -> Kind {
        let x = Tensor::ones([4, 4], (kind, Device::Cpu));
        x.matmul(&x).kind()
    }

    #[test]
    fn autocast_holds_while_its_guard_lives_and_nests() {
        assert!(!autocast_enabled(Device::Cpu));
        {
            let _outer = Autocast::bf16(Device::Cpu);
            {
                let _inner = Autocast::bf16(Device::Cpu);
                assert_eq!(product(Kind::Float), Kind::BFloat16);
            }
            assert!(autocast_enabled(Device::Cpu) && !autocast_enabled(Device::Cuda(0)));
            assert_eq!(product(Kind::Float), Kind::BFloat16);
            assert_eq!(product(Kind::Double), Kind::Double);
        }
        assert!(!autocast_enabled(Device::Cpu));
        assert_eq!(product(Kind::Float), Kind::Float);
    }

    #[test]
    fn autocast_is_the_threads_own() {
        let _guard = Autocast::bf16(Device::Cpu);
        let elsewhere = std::thread::spawn(|| autocast_enabled(Device::Cpu)).join();
        assert_eq!(elsewhere.ok(), Some(false));
    }

    #[test]
    fn flags_of_gpus_are_read_back() {
        for on in [true, false] {
            set_tf32(on);
            set_deterministic(on);
            tch::Cuda::cudnn_set_benchmark(on);
            assert_eq!((tf32(), deterministic(), cudnn_benchmark()), (on, on, on));
        }
    }
}
