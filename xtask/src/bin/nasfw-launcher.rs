//! The program `nasfw` of a release, which finds libtorch and starts the one that does the work.

fn main() -> std::process::ExitCode {
    xtask::launch()
}
