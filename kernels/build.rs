//! Builds the C++ part against the libtorch that torch-sys found.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

/// Instruction sets that the fused kernels are compiled for, with the bytes of a vector: the machine that runs them
/// chooses.
const X86: [(&str, u32, &[&str]); 3] = [
    ("base", 16, &[]),
    ("avx2", 32, &["-mavx2", "-mfma"]),
    (
        "avx512",
        64,
        &["-mavx2", "-mfma", "-mavx512f", "-mavx512dq"],
    ),
];

/// Threads hand these on.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    println!("cargo:rerun-if-changed=native");
    if cfg!(feature = "doc-only") {
        return Ok(());
    }
    let lib = PathBuf::from(env::var("DEP_TCH_LIBTORCH_LIB")?);
    let include = lib
        .parent()
        .ok_or("libtorch's library folder has no parent")?
        .join("include");
    let x86 = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    let isas = &X86[..if x86 { 3 } else { 1 }];
    // Side by side, and linked in the order in which the first needs the others.
    std::thread::scope(|threads| {
        let native = threads.spawn(|| native(&include, x86));
        let group = threads.spawn(|| group(&include));
        let kernels: Vec<_> = isas
            .iter()
            .map(|isa| threads.spawn(move || kernels(isa)))
            .collect();
        let mut compiled = [native, group].into_iter().chain(kernels);
        // The scope waits for all of them, whichever fails.
        compiled.try_for_each(|c| {
            c.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    println!("cargo:rustc-link-lib=static=nasfw_native");
    println!("cargo:rustc-link-lib=static=nasfw_group");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for (isa, ..) in isas {
        println!("cargo:rustc-link-lib=static=nasfw_kernels_{isa}");
        println!("cargo:rustc-link-search=native={}", out.join(isa).display());
    }
    println!("cargo:rustc-link-search=native={}", out.display());
    let apple = env::var("CARGO_CFG_TARGET_VENDOR").is_ok_and(|vendor| vendor == "apple");
    println!(
        "cargo:rustc-link-lib={}",
        if apple { "c++" } else { "stdc++" }
    );
    println!("cargo:rerun-if-env-changed=CXX");
    println!("cargo:rerun-if-env-changed=CXXFLAGS");
    println!("cargo:rustc-link-search=native={}", lib.display());
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
    match openmp(&lib)? {
        Some(name) => println!("cargo:rustc-link-lib=dylib:+verbatim={name}"),
        None => println!("cargo:rustc-link-lib=gomp"),
    }
    Ok(())
}

/// What calls libtorch.
fn native(include: &Path, x86: bool) -> Outcome<()> {
    let mut native = libtorch(include);
    native.file("native/all.cpp");
    if x86 {
        native.define("NASFW_X86", None);
    }
    native.try_compile("nasfw_native")?;
    Ok(())
}

/// What joins processes: a unit of its own, whose headers take as long as all others.
fn group(include: &Path) -> Outcome<()> {
    let mut group = libtorch(include);
    group
        .include("native/gloo_declared")
        .file("native/group.cpp")
        .file("native/nccl.cpp");
    group.try_compile("nasfw_group")?;
    Ok(())
}

fn libtorch(include: &Path) -> cc::Build {
    let mut build = cpp();
    build
        .include(include)
        .include(include.join("torch/csrc/api/include"))
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        // As libtorch, whose threads the kernels share.
        .flag_if_supported("-fopenmp");
    build
}

/// The fused kernels for one instruction set; they know no libtorch. All are of one source, whose object has one name: each is
/// made in a folder of its own, since they are made at the same time.
fn kernels((isa, vector, flags): &(&str, u32, &[&str])) -> Outcome<()> {
    let folder = PathBuf::from(env::var("OUT_DIR")?).join(isa);
    fs::create_dir_all(&folder)?;
    let mut kernels = cpp();
    kernels
        .out_dir(folder)
        .define("ISA", *isa)
        .define("VECTOR", vector.to_string().as_str())
        .flag_if_supported("-ffp-contract=fast")
        .flag_if_supported("-Wno-psabi");
    for flag in *flags {
        kernels.flag(flag);
    }
    kernels
        .file("native/fused/kernels.cpp")
        .try_compile(&format!("nasfw_kernels_{isa}"))?;
    Ok(())
}

fn cpp() -> cc::Build {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++20").opt_level(3).warnings(false);
    // Said once, in order, when all are compiled.
    build.cargo_metadata(false);
    // Line tables, as the Rust code has them; the rest would be libtorch's headers.
    build.debug(false).flag_if_supported("-g1");
    build
}

/// The OpenMP library that comes with libtorch.
fn openmp(lib: &Path) -> Outcome<Option<String>> {
    for entry in fs::read_dir(lib)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("libgomp") {
            return Ok(Some(name));
        }
    }
    Ok(None)
}
