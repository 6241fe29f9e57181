//! Panics: a bug of nasfw or of a plugin, in few lines.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write;

use nasfw_framework::registry::Plugin;

use super::output::shown;
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

/// The innermost function of nasfw or of a crate with plugins that is at work, and its line where that is known.
fn first_frame() -> Option<String> {
    let crates: Vec<String> = nasfw_framework::inventory::iter::<Plugin>
        .into_iter()
        .map(|p| p.crate_name.replace('-', "_"))
        .collect();
    let mut found = None;
    backtrace::trace(|frame| {
        backtrace::resolve_frame(frame, |symbol| {
            let Some(name) = symbol.name().filter(|_| found.is_none()) else {
                return;
            };
            // Without the hash at its end.
            let name = format!("{name:#}");
            if !is_ours(&name, &crates) {
                return;
            }
            let place = symbol.filename().zip(symbol.lineno());
            let place = place.map_or(String::new(), |(file, line)| {
                format!(" ({}:{line})", file.display())
            });
            found = Some(name + &place);
        });
        found.is_none()
    });
    found
}

/// Whether a function is one of nasfw's, but not of those above, or of a crate with plugins.
fn is_ours(function: &str, crates: &[String]) -> bool {
    let path = function.trim_start_matches(['<', '&']);
    let path = ["mut ", "dyn "]
        .iter()
        .fold(path, |path, word| path.strip_prefix(word).unwrap_or(path));
    let (first, rest) = path.split_once("::").unwrap_or((path, ""));
    let nasfw = first == "nasfw" || first.starts_with("nasfw_");
    let above = ["explain", "first_frame"].iter().any(|f| {
        rest.strip_prefix("cli::panics::")
            .is_some_and(|r| r.starts_with(f))
    });
    (nasfw && !above) || crates.iter().any(|c| c == first)
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
                second.starts_with("  at: nasfw::cli::panics::tests::it_panics")
                    && second.contains("src/cli/panics.rs:"),
                "{text}"
            );
            let frames = text.matches("it_panics").count();
            assert_eq!(frames > 1, whole, "{text}");
            assert_eq!(text.contains("RUST_BACKTRACE=1 shows"), !whole, "{text}");
        }
    }

    #[test]
    fn functions_are_told_by_their_crate() {
        let crates = ["own_strategy".to_owned()];
        let ours = |f| is_ours(f, &crates);
        assert!(ours("nasfw_framework::search::Search::loss"));
        assert!(ours(
            "<nasfw_plugins::darts::X as nasfw_framework::strategy::Strategy>::step"
        ));
        assert!(ours(
            "<own_strategy::annealed::X as nasfw_framework::strategy::Strategy>::step"
        ));
        assert!(ours("<dyn nasfw_framework::trainer::Trainer>::search"));
        assert!(!ours("nasfw::cli::panics::first_frame"));
        assert!(!ours("nasfw::cli::panics::explain::{{closure}}"));
        assert!(!ours("tch::wrappers::tensor::Tensor::matmul"));
        assert!(!ours("<F as core::ops::function::FnOnce>::call_once"));
        assert!(!ours("core::panicking::panic_fmt"));
        assert!(!ours("nasfwish::x"));
    }
}
