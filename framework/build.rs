//! Empty on purpose: `links` in Cargo.toml needs a build script. It makes Cargo refuse two versions of the framework
//! in one program, which would otherwise show up as a silently empty registry.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
}
