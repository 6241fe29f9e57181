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
        let place = info
            .location()
            .map_or(String::new(), |l| format!(" ({}:{})", l.file(), l.line()));
        let ours = first_frame().map_or(String::new(), |f| format!("\n  at: {f}"));
        let trace = Backtrace::capture();
        let (hint, trace) = match trace.status() {
            BacktraceStatus::Captured => ("", format!("\n{trace}")),
            _ => ("; RUST_BACKTRACE=1 shows the whole stack", String::new()),
        };
        let text = format!(
            "error: this is a bug in nasfw or in a plugin: {line}{place}{ours}\n  \
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

/// Whether a function is one of nasfw's, but not of this file, or of a crate with plugins.
fn is_ours(function: &str, crates: &[String]) -> bool {
    let path = function.trim_start_matches(['<', '&']);
    let path = ["mut ", "dyn "]
        .iter()
        .fold(path, |path, word| path.strip_prefix(word).unwrap_or(path));
    let (first, rest) = path.split_once("::").unwrap_or((path, ""));
    let nasfw = first == "nasfw" || first.starts_with("nasfw_");
    (nasfw && !rest.starts_with("cli::panics")) || crates.iter().any(|c| c == first)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(!ours("tch::wrappers::tensor::Tensor::matmul"));
        assert!(!ours("<F as core::ops::function::FnOnce>::call_once"));
        assert!(!ours("core::panicking::panic_fmt"));
        assert!(!ours("nasfwish::x"));
    }
}
