//! nasfw with a strategy and two spaces of our own.

mod annealed;
mod residual;
mod widened;

fn main() -> std::process::ExitCode {
    nasfw::main()
}
