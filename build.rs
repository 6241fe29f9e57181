//! Tells the program where libtorch lies: in `lib` of the folder that LIBTORCH names (.cargo/config.toml sets it). So it
//! starts from anywhere, as `cargo install` needs.
fn main() {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    if let Ok(libtorch) = std::env::var("LIBTORCH") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{libtorch}/lib");
    }
}
