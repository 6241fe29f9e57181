//! `nasfw list`.

use clap::{Args, ValueEnum};
use nasfw_framework::Result;
use nasfw_framework::registry::{Kind, Registry};
use serde_json::{Value, json};

use super::lines::hanging;
use super::output::say;
use super::terminal::{Stream, width};

/// Options of `list`.
#[derive(Debug, Args)]
pub struct List {
    /// Only this kind
    kind: Option<What>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    #[value(alias = "strategy")]
    Strategies,
    #[value(alias = "space")]
    Spaces,
    #[value(alias = "dataset")]
    Datasets,
    #[value(alias = "benchmark")]
    Benchmarks,
    #[value(alias = "trainer")]
    Trainers,
    #[value(alias = "tracker")]
    Trackers,
    #[value(alias = "proxy")]
    Proxies,
    #[value(alias = "cost")]
    Costs,
}

impl What {
    fn kind(self) -> Kind {
        match self {
            Self::Strategies => Kind::Strategy,
            Self::Spaces => Kind::Space,
            Self::Datasets => Kind::Dataset,
            Self::Benchmarks => Kind::Benchmark,
            Self::Trainers => Kind::Trainer,
            Self::Trackers => Kind::Tracker,
            Self::Proxies => Kind::Proxy,
            Self::Costs => Kind::Cost,
        }
    }
}

impl List {
    /// Prints a table, or JSON.
    pub fn carry_out(self) -> Result<()> {
        let registry = Registry::load()?;
        let kinds: Vec<What> = What::value_variants()
            .iter()
            .copied()
            .filter(|w| self.kind.is_none_or(|k| k == *w))
            .collect();
        if self.json {
            let plugins: Vec<Value> = kinds
                .iter()
                .flat_map(|w| registry.of(w.kind()))
                .map(|p| {
                    json!({
                        "kind": p.kind().name(), "name": p.name, "summary": p.summary, "source": p.source,
                        "presets": p.presets.iter().map(|(n, _)| n).collect::<Vec<_>>(),
                        "crate": p.crate_name, "version": p.crate_version,
                    })
                })
                .collect();
            say(format!("{:#}", Value::Array(plugins)));
            return Ok(());
        }
        let longest = registry
            .all()
            .iter()
            .map(|p| p.name.len())
            .max()
            .unwrap_or(0);
        for (i, what) in kinds.iter().enumerate() {
            let heading = what
                .to_possible_value()
                .map_or(String::new(), |v| v.get_name().to_owned());
            say(format!("{}{heading}", if i > 0 { "\n" } else { "" }));
            for p in registry.of(what.kind()) {
                let name = format!("  {:longest$}  ", p.name);
                let below = " ".repeat(name.chars().count());
                say(hanging(&name, p.summary, &below, width(Stream::Out)));
            }
        }
        Ok(())
    }
}
