//! The module finds the libtorch of the torch package that is installed beside it.
fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-rpath,$ORIGIN/../torch/lib");
}
