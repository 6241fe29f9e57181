//! The most memory that was in use: of this process for CPUs, of libtorch's allocator for GPUs.

use std::fs;

use tch::Device;

unsafe extern "C" {
    fn nasfw_cuda_peak(device: i8) -> i64;
    fn nasfw_cuda_reset_peak(device: i8) -> bool;
}

/// Largest memory since the last [`reset_peak`], in bytes: resident memory of the process, or what libtorch's
/// allocator held of the GPU. None where it is not known.
pub fn peak(device: Device) -> Option<u64> {
    match device {
        // SAFETY: any number is allowed; what is no device has no peak.
        Device::Cuda(i) => u64::try_from(unsafe { nasfw_cuda_peak(i.try_into().ok()?) }).ok(),
        Device::Cpu => of_process("VmHWM:"),
        _ => None,
    }
}

/// Resident memory of this process, in bytes.
pub fn resident() -> Option<u64> {
    of_process("VmRSS:")
}

fn of_process(entry: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix(entry))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Gives back memory that is cached but not in use, and lets [`peak`] begin again from what is. False where that is
/// not possible.
pub fn reset_peak(device: Device) -> bool {
    match device {
        // SAFETY: as in `peak`.
        Device::Cuda(i) => i
            .try_into()
            .is_ok_and(|i| unsafe { nasfw_cuda_reset_peak(i) }),
        Device::Cpu => {
            #[cfg(all(target_os = "linux", target_env = "gnu"))]
            // SAFETY: it only returns free pages of the heap to the system.
            unsafe {
                libc::malloc_trim(0)
            };
            fs::write("/proc/self/clear_refs", "5").is_ok()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tch::{Kind, Tensor};

    #[test]
    fn the_peak_is_that_since_the_reset() {
        const BYTES: u64 = 1 << 28;
        let fill = || Tensor::ones([BYTES as i64 / 4], (Kind::Float, Device::Cpu));
        assert!(reset_peak(Device::Cpu));
        let before = peak(Device::Cpu).unwrap();
        drop(fill());
        let with = peak(Device::Cpu).unwrap();
        assert!(with > before + BYTES * 9 / 10, "{before} {with}");
        assert!(reset_peak(Device::Cpu));
        let after = peak(Device::Cpu).unwrap();
        assert!(after < with - BYTES * 9 / 10, "{with} {after}");
    }

    #[test]
    fn a_gpu_that_is_not_there_has_no_peak() {
        if !tch::Cuda::is_available() {
            assert!(!reset_peak(Device::Cuda(0)) && peak(Device::Cuda(0)).is_none());
        }
    }
}
