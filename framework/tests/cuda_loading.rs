//! CUDA must really be loaded: a binary in which the linker dropped `libtorch_cuda.so` searches on
//! the CPU without a word. Checked here without a GPU, by what libtorch says when a tensor is moved
//! to one: that it found no driver, or, where it knows no CUDA at all, that it "Could not run" this.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use nasfw_framework::device::{self, CudaLibrary, libtorch_folder, load_cuda, nvidia_driver};
use tch::{Cuda, Device, Tensor};

/// Moves a tensor to the first GPU: what comes back from there, or libtorch's words.
fn round_trip() -> Result<Vec<f32>, String> {
    let first_line = |words: &str| words.lines().next().unwrap_or_default().to_owned();
    let moved = Tensor::from_slice(&[1f32, -2.5])
        .f_to_device(Device::Cuda(0))
        .map_err(|error| first_line(&error.to_string()))?;
    assert_eq!(moved.device(), Device::Cuda(0));
    Ok(Vec::try_from(moved.to_device(Device::Cpu)).unwrap())
}

#[test]
fn cuda_is_loaded_or_the_reason_is_known() {
    let library = load_cuda();
    let file = libtorch_folder().unwrap().join("libtorch_cuda.so");
    let moved = round_trip();
    println!("{library:?}; a tensor on its way to cuda:0: {moved:?}");
    match library {
        CudaLibrary::Loaded(path) => {
            assert_eq!(path, &file);
            match moved {
                Ok(values) => assert_eq!(values, [1.0, -2.5]),
                Err(words) => {
                    assert!(!words.contains("Could not run"), "{words}");
                    assert!(!Cuda::is_available(), "{words}");
                    assert!(
                        nvidia_driver() || words.contains("NVIDIA driver"),
                        "{words}"
                    );
                }
            }
        }
        CudaLibrary::Unloadable(reason) => {
            assert!(file.is_file());
            // "libcudart.so.13: cannot open shared object file: No such file or directory"
            let (missing, _) = reason
                .split_once(": cannot open shared object")
                .expect(reason);
            assert!(
                missing.starts_with("lib") && missing.contains(".so"),
                "{reason}"
            );
            let words = moved.unwrap_err();
            assert!(words.contains("Could not run"), "{words}");
        }
        CudaLibrary::Absent => {
            assert!(!file.exists(), "{} was not seen", file.display());
            assert!(moved.unwrap_err().contains("Could not run"));
        }
    }
}

#[test]
fn a_device_is_chosen_or_refused_with_help() {
    let library = load_cuda();
    let refused = |name: &str| device::choose(name).unwrap_err().to_string();
    assert_eq!(device::choose("cpu").unwrap(), Device::Cpu);
    for unknown in ["gpu", "cuda:", "cuda:-1", "cuda:x", ""] {
        let words = refused(unknown);
        assert!(words.contains("`cuda:N`"), "{words}");
    }
    if Cuda::is_available() {
        for name in ["auto", "cuda", "cuda:0"] {
            assert_eq!(device::choose(name).unwrap(), Device::Cuda(0));
        }
        let words = refused("cuda:99");
        assert!(
            words.contains("cuda:99") && words.contains("counted from 0"),
            "{words}"
        );
        return;
    }
    let help = match library {
        CudaLibrary::Loaded(_) => "no NVIDIA driver",
        CudaLibrary::Unloadable(_) => "`cargo xtask setup --full`",
        CudaLibrary::Absent => "built for CPUs",
    };
    for name in ["cuda", "cuda:0", "cuda:99"] {
        let words = refused(name);
        assert!(words.contains(name) && words.contains(help), "{words}");
    }
    if nvidia_driver() {
        assert!(refused("auto").contains(help));
    } else {
        assert_eq!(device::choose("auto").unwrap(), Device::Cpu);
    }
}
