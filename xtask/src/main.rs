//! `cargo xtask`.

fn main() -> std::process::ExitCode {
    xtask::carry_out()
}
