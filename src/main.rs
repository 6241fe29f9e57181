//! The program `nasfw`.

fn main() -> std::process::ExitCode {
    nasfw::main()
}
