//! nasfw with a strategy of our own.

mod annealed;

fn main() -> std::process::ExitCode {
    nasfw::main()
}
