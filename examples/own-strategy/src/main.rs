//! nasfw with a strategy and a space of our own.

mod annealed;
mod widened;

fn main() -> std::process::ExitCode {
    nasfw::main()
}
