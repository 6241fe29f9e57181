//! Builds the C++ part against the libtorch that torch-sys found.

use std::env;
use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=native");
    let lib = PathBuf::from(env::var("DEP_TCH_LIBTORCH_LIB")?);
    let include = lib
        .parent()
        .ok_or("libtorch's library folder has no parent")?
        .join("include");
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .opt_level(3)
        .warnings(false)
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .file("native/profile.cpp")
        .file("native/memory.cpp")
        .file("native/precision.cpp")
        .file("native/surrogate.cpp")
        .compile("nasfw_native");
    println!("cargo:rustc-link-search=native={}", lib.display());
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
    Ok(())
}
