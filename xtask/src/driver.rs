//! Is there an NVIDIA driver? It decides between the lean and the full libtorch.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where a Linux system keeps `libcuda.so.1`, the driver's library, besides `LD_LIBRARY_PATH`.
const LIBRARY_FOLDERS: [&str; 8] = [
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/lib",
    "usr/lib/wsl/lib",
    "usr/local/nvidia/lib64",
    "usr/local/nvidia/lib",
    "run/opengl-driver/lib",
];

/// Where to look; tests point it at folders of their own.
pub struct Places {
    /// `/`.
    pub root: PathBuf,
    /// `PATH`: searched for `nvidia-smi`.
    pub path: OsString,
    /// `LD_LIBRARY_PATH`: searched for `libcuda.so.1`.
    pub library_path: OsString,
}

impl Places {
    /// This machine.
    pub fn of_this_machine() -> Self {
        Places {
            root: PathBuf::from("/"),
            path: std::env::var_os("PATH").unwrap_or_default(),
            library_path: std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default(),
        }
    }
}

/// The file that shows that an NVIDIA driver is installed, if there is one: the kernel module's
/// version file, the driver's library, or an `nvidia-smi` that lists a GPU.
pub fn nvidia(places: &Places) -> Option<PathBuf> {
    let module = places.root.join("proc/driver/nvidia/version");
    if module.exists() {
        return Some(module);
    }
    let folders = LIBRARY_FOLDERS
        .iter()
        .map(|folder| places.root.join(folder));
    let library = folders
        .chain(std::env::split_paths(&places.library_path))
        .map(|folder| folder.join("libcuda.so.1"))
        .find(|library| library.exists());
    if library.is_some() {
        return library;
    }
    let smi = find_program("nvidia-smi", &places.path)?;
    lists_a_gpu(&smi).then_some(smi)
}

fn lists_a_gpu(smi: &Path) -> bool {
    let output = Command::new(smi).arg("-L").stdin(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success() && output.stdout.starts_with(b"GPU "))
}

/// The first file called `name` in the folders of `path`.
pub fn find_program(name: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use tempfile::TempDir;

    fn bare() -> (TempDir, Places) {
        let dir = TempDir::new().unwrap();
        let places = Places {
            root: dir.path().join("root"),
            path: dir.path().join("bin").into(),
            library_path: dir.path().join("lib").into(),
        };
        (dir, places)
    }

    fn put(file: &Path) {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "").unwrap();
    }

    #[test]
    fn a_bare_machine_has_no_driver() {
        let (_dir, places) = bare();
        assert_eq!(nvidia(&places), None);
    }

    #[test]
    fn the_kernel_module_is_a_driver() {
        let (_dir, places) = bare();
        let module = places.root.join("proc/driver/nvidia/version");
        put(&module);
        assert_eq!(nvidia(&places), Some(module));
    }

    #[test]
    fn the_library_is_found_in_every_folder() {
        for folder in LIBRARY_FOLDERS {
            let (_dir, places) = bare();
            let library = places.root.join(folder).join("libcuda.so.1");
            put(&library);
            assert_eq!(nvidia(&places), Some(library));
        }
        let (dir, places) = bare();
        let library = dir.path().join("lib/libcuda.so.1");
        put(&library);
        assert_eq!(nvidia(&places), Some(library));
    }

    #[cfg(unix)]
    #[test]
    fn nvidia_smi_counts_only_if_it_lists_a_gpu() {
        use crate::testing::put_script as put;
        let (dir, places) = bare();
        let smi = dir.path().join("bin/nvidia-smi");
        put(&smi, "#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9\n");
        assert_eq!(nvidia(&places), None);
        put(&smi, "#!/bin/sh\necho 'No devices were found'\n");
        assert_eq!(nvidia(&places), None);
        put(
            &smi,
            "#!/bin/sh\necho \"GPU 0: A (UUID: B)\"; test \"$1\" = -L\n",
        );
        assert_eq!(nvidia(&places), Some(smi));
    }
}
