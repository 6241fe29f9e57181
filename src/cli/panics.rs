//! Panics: a bug of nasfw or of a plugin, in few lines.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write;
use std::path::Path;

use nasfw_framework::registry::Plugin;

use super::render::shown;
use super::view;

/// Makes panics say what happened, where in nasfw or in a plugin, and that nothing is lost. The whole stack comes where
/// `RUST_BACKTRACE` asks for it.
pub fn explain() {
    std::panic::set_hook(Box::new(|info| {
        view::restore();
        let payload = info.payload();
        let text = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("unknown reason");
        // libtorch appends its C++ stack to every message.
        let line = text.lines().next().unwrap_or_default();
        let line = line
            .split("\\nException raised from")
            .next()
            .unwrap_or(line);
        // Where it was noticed is often a line of a library, which says nothing of what went wrong.
        let noticed = || {
            info.location()
                .map(|l| format!("{}:{}", l.file(), l.line()))
        };
        let place = first_frame().or_else(noticed);
        let place = place.map_or(String::new(), |place| format!("\n  at: {place}"));
        let trace = Backtrace::capture();
        let (hint, trace) = match trace.status() {
            BacktraceStatus::Captured => ("", format!("\n{trace}")),
            _ => ("; RUST_BACKTRACE=1 shows the whole stack", String::new()),
        };
        let text = format!(
            "error: this is a bug in nasfw or in a plugin: {line}{place}\n  \
             help: what was done up to the last checkpoint is saved; `nasfw resume RUN` goes on from it{hint}{trace}"
        );
        let _ = writeln!(std::io::stderr().lock(), "{}", shown(&text));
    }));
}

/// The innermost line of nasfw's code or of a crate with plugins that is at work, and its function. Frames are told by
/// their files: line tables know functions by their last names only.
fn first_frame() -> Option<String> {
    let crates: Vec<String> = nasfw_framework::inventory::iter::<Plugin>
        .into_iter()
        .map(|p| p.crate_name.to_owned())
        .collect();
    let (mut panicking, mut found) = (false, None);
    backtrace::trace(|frame| {
        backtrace::resolve_frame(frame, |symbol| {
            let Some((file, line)) = symbol.filename().zip(symbol.lineno()) else {
                return;
            };
            // What comes before is the hook, and what gets there.
            panicking |= file.ends_with("panicking.rs");
            if found.is_some() || !panicking || !is_ours(file, &crates) {
                return;
            }
            // Without the hash at its end.
            let name = symbol.name().map(|name| format!("{name:#}"));
            let name = name.map_or(String::new(), |name| format!(", in {name}"));
            found = Some(format!("{}:{line}{name}", file.display()));
        });
        found.is_none()
    });
    found
}

/// Whether a source file is one of nasfw's or of a crate with plugins, and not of a library that they use.
fn is_ours(file: &Path, crates: &[String]) -> bool {
    let plain = |name: &str| name.replace('-', "_");
    let mut parts = file.iter().filter_map(|part| part.to_str());
    let library = ["rustc", "rustlib", "registry", "checkouts", "vendor"];
    !parts.any(|part| library.contains(&part))
        || parts.any(|part| {
            let part = plain(part) + "_";
            let of = |name: &str| part.starts_with(&(plain(name) + "_"));
            of("nasfw") || crates.iter().any(|name| of(name))
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::process::Command;

    use super::*;

    /// Only in a process of its own: what is wrong is noticed inside a library.
    #[test]
    #[ignore = "a_panic_says_where_and_shows_its_stack starts it"]
    fn it_panics() {
        explain();
        let a = tch::Tensor::zeros([2, 3], (tch::Kind::Float, tch::Device::Cpu));
        let _ = a.matmul(&a);
    }

    #[test]
    fn a_panic_says_where_and_shows_its_stack() {
        for (set, whole) in [("0", false), ("1", true)] {
            let out = Command::new(std::env::current_exe().unwrap())
                .args(["--ignored", "--exact", "cli::panics::tests::it_panics"])
                .env("RUST_BACKTRACE", set)
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&out.stderr);
            assert!(!out.status.success(), "{text}");
            let mut lines = text.lines();
            let first = lines.next().unwrap();
            assert!(
                first.starts_with("error: this is a bug in nasfw")
                    && first.contains("mat1 and mat2"),
                "{text}"
            );
            let second = lines.next().unwrap();
            assert!(
                second.starts_with("  at: ")
                    && second.contains("src/cli/panics.rs:")
                    && second.ends_with("it_panics"),
                "{text}"
            );
            let frames = text.matches("it_panics").count();
            assert_eq!(frames > 1, whole, "{text}");
            assert_eq!(text.contains("RUST_BACKTRACE=1 shows"), !whole, "{text}");
        }
    }

    #[test]
    fn files_are_told_by_their_crate() {
        let crates = ["own-strategy".to_owned()];
        let ours = |f: &str| is_ours(Path::new(f), &crates);
        let registry = "/home/me/.cargo/registry/src/index-1";
        assert!(ours("/home/me/nasfw/framework/src/search.rs"));
        assert!(ours("src/search.rs"));
        assert!(ours(&format!(
            "{registry}/nasfw-plugins-0.1.0/src/darts.rs"
        )));
        assert!(ours(&format!("{registry}/own_strategy-2.0.0/src/lib.rs")));
        assert!(!ours(&format!(
            "{registry}/tch-0.26.0/src/wrappers/tensor.rs"
        )));
        assert!(!ours(&format!("{registry}/nasfwish-0.1.0/src/lib.rs")));
        assert!(!ours("/rustc/59807616/library/core/src/panicking.rs"));
        assert!(!ours(
            "/home/me/.rustup/toolchains/x/lib/rustlib/src/rust/library/std/src/panicking.rs"
        ));
    }
}
