//! Choosing a device, and making sure that CUDA is really there.

use std::ffi::{CStr, CString};
use std::path::PathBuf;
use std::sync::OnceLock;

pub use nasfw_kernels::libtorch_version;
use nasfw_kernels::memory;
use tch::{Cuda, Device};

use crate::error::{Error, Result};
use crate::printable::counted;

/// What became of loading CUDA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CudaLibrary {
    /// `libtorch_cuda.so` is loaded.
    Loaded(PathBuf),
    /// There is no such library beside libtorch: a build for CPUs.
    Absent,
    /// It is there but can't be loaded, with the linker's reason: the lean form lacks what it needs.
    Unloadable(String),
}

/// Loads `libtorch_cuda.so` from the folder of `libtorch_cpu.so`, once.
///
/// The linker drops the library because no symbol of it is named, and libtorch then knows no CUDA at all, without a
/// word. It has to be there before the first tensor operation, so `nasfw::main` calls this first.
pub fn load_cuda() -> &'static CudaLibrary {
    static STATE: OnceLock<CudaLibrary> = OnceLock::new();
    STATE.get_or_init(|| {
        let Some(path) = libtorch_folder()
            .map(|f| f.join("libtorch_cuda.so"))
            .filter(|p| p.exists())
        else {
            return CudaLibrary::Absent;
        };
        let Ok(name) = CString::new(path.as_os_str().as_encoded_bytes()) else {
            return CudaLibrary::Absent;
        };
        // SAFETY: `name` is a valid C string; the library's initialisers are libtorch's own, meant to run at load.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        if !handle.is_null() {
            return CudaLibrary::Loaded(path);
        }
        // SAFETY: dlerror returns null or a C string that is valid until the next dl call on this thread.
        let reason = unsafe {
            let text = libc::dlerror();
            if text.is_null() {
                "unknown reason".into()
            } else {
                CStr::from_ptr(text).to_string_lossy().into_owned()
            }
        };
        CudaLibrary::Unloadable(reason)
    })
}

/// The folder that `libtorch_cpu.so` was loaded from.
pub fn libtorch_folder() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|l| l.contains("libtorch_cpu.so"))?;
    PathBuf::from(&line[line.find('/')?..])
        .parent()
        .map(Into::into)
}

/// Whether the kernel has an NVIDIA driver.
pub fn nvidia_driver() -> bool {
    std::path::Path::new("/proc/driver/nvidia/version").exists()
}

/// Whether there is an NVIDIA display or compute card on the PCI bus, with or without a driver.
pub fn nvidia_hardware() -> bool {
    let Ok(devices) = std::fs::read_dir("/sys/bus/pci/devices") else {
        return false;
    };
    devices.flatten().any(|d| {
        let read = |name: &str| std::fs::read_to_string(d.path().join(name)).unwrap_or_default();
        read("vendor").trim() == "0x10de" && read("class").starts_with("0x03")
    })
}

/// The device of a plan whose trials are to be placed on all GPUs, one each.
pub const EVERY_CUDA: &str = "cuda:*";

/// Numbers of the GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them.
pub fn visible_gpus() -> Vec<String> {
    load_cuda();
    let count = match Cuda::is_available() {
        true => usize::try_from(Cuda::device_count()).unwrap_or(0),
        false => 0,
    };
    named(std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref(), count)
}

/// `count` GPUs by the names that whoever started this process gave them, or by their numbers.
fn named(visible: Option<&str>, count: usize) -> Vec<String> {
    let names = visible.into_iter().flat_map(|v| v.split(','));
    let names: Vec<String> = names.map(|name| name.trim().to_owned()).collect();
    (0..count)
        .map(|i| names.get(i).cloned().unwrap_or_else(|| i.to_string()))
        .collect()
}

/// The device that `auto`, `cpu`, `cuda` or `cuda:N` stands for; `cuda:*` is the first GPU, which is the only one of a trial
/// that was placed on it.
///
/// # Errors
/// A CUDA device that was asked for but is not there; and, for `auto`, a GPU with a driver that libtorch can't use,
/// because silently searching on the CPU would waste it.
pub fn choose(name: &str) -> Result<Device> {
    let library = load_cuda();
    let fail = |why: String| {
        Err(Error::Device {
            device: name.into(),
            why,
        })
    };
    let devices = if Cuda::is_available() {
        Cuda::device_count()
    } else {
        0
    };
    let why_none = || match library {
        CudaLibrary::Absent => "this libtorch is built for CPUs".to_owned(),
        CudaLibrary::Unloadable(reason) => {
            format!(
                "libtorch_cuda can't be loaded ({reason}); `cargo xtask setup --full` installs what it needs"
            )
        }
        CudaLibrary::Loaded(_) => "libtorch finds no NVIDIA driver or GPU".to_owned(),
    };
    match name {
        "cpu" => Ok(Device::Cpu),
        "auto" if devices > 0 => Ok(Device::Cuda(0)),
        "auto" if nvidia_driver() => fail(format!("there is an NVIDIA driver, but {}", why_none())),
        "auto" => Ok(Device::Cpu),
        _ => {
            let index = match name {
                "cuda" | EVERY_CUDA => Some(0),
                _ => name
                    .strip_prefix("cuda:")
                    .and_then(|n| n.parse::<usize>().ok()),
            };
            match index {
                None => fail("use `auto`, `cpu` or `cuda:N`".into()),
                Some(_) if devices == 0 => fail(why_none()),
                Some(i) if i as i64 >= devices => {
                    fail(format!("there are {devices} CUDA devices, counted from 0"))
                }
                Some(i) => Ok(Device::Cuda(i)),
            }
        }
    }
}

/// A device in words.
pub fn describe(device: Device) -> String {
    match device {
        Device::Cpu => format!("cpu, {}", counted(tch::get_num_threads(), "thread")),
        Device::Cuda(i) => format!("cuda:{i}"),
        other => format!("{other:?}"),
    }
}

/// Waits until the device has done what it was told; on a CPU it has.
pub(crate) fn synchronise(device: Device) {
    if let Device::Cuda(i) = device {
        Cuda::synchronize(i as i64);
    }
}

/// Largest resident memory of this process so far, in bytes.
pub fn peak_memory() -> Option<u64> {
    memory::peak(Device::Cpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_have_the_names_that_this_process_was_given() {
        assert_eq!(named(None, 3), ["0", "1", "2"]);
        assert_eq!(named(Some("5, GPU-a"), 2), ["5", "GPU-a"]);
        // What comes after a number that is not there counts for nothing.
        assert_eq!(named(Some("5,9,6"), 1), ["5"]);
        assert!(named(Some(""), 0).is_empty());
    }
}
