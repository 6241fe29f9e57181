//! `nasfw bench best`: the best architectures that a benchmark knows, within limits.

use std::collections::{BTreeMap, HashSet};

use clap::Args;
use nasfw_framework::arch::Genotype;
use nasfw_framework::benchmark::{Benchmark, Score};
use nasfw_framework::config::RunConfig;
use nasfw_framework::cost::Limits;
use nasfw_framework::printable::counted;
use nasfw_framework::registry::Registry;
use nasfw_framework::rng::Streams;
use nasfw_framework::space::{SearchSpace, Task};
use nasfw_framework::strategy::BuildContext;
use nasfw_framework::{Error, Result};
use serde_json::json;
use tch::{Device, Kind};

use super::super::export::image;
use super::super::output::say;
use super::super::ready::ready;
use super::super::selection::{Pair, Settings, limit_options, space_options};

/// The largest space that is gone through.
const LARGEST: f64 = 1e6;

/// Options of `bench best`.
#[derive(Debug, Args)]
pub struct Best {
    /// Whose architectures: a name [see `nasfw list spaces`], or a TOML file that declares a space
    #[arg(long, short = 'S', value_name = "NAME|FILE.toml")]
    space: String,
    /// A limit on what an architecture may cost; may be given again [see `nasfw list costs`]
    #[arg(long, value_name = "NAME=VALUE")]
    limit: Vec<String>,
    /// The metric to go by [default: the benchmark's first one of validation, or its first one]
    #[arg(long)]
    metric: Option<String>,
    /// How many to show
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    count: u64,
    /// Channels, rows and columns of the images of the networks that are counted
    #[arg(long, value_name = "CxHxW", value_parser = image, default_value = "3x32x32")]
    image: [i64; 3],
    /// Their number of classes
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
    classes: i64,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Any other setting, for example `--set benchmark.file=FILE`
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// An architecture with what it is worth and what it costs.
struct Known {
    genotype: Genotype,
    value: f64,
    score: Score,
    costs: BTreeMap<String, f64>,
}

impl Best {
    /// Goes through the space and shows the best.
    pub fn carry_out(self) -> Result<()> {
        let registry = ready()?;
        let config = self.config(&registry)?;
        let space = config.space.build()?;
        if space.spec().size() > LARGEST {
            return Err(Error::Incompatible {
                what: format!("going through space `{}`", self.space),
                why: format!("it has {:.0e} architectures", space.spec().size()),
                help: "search it: `nasfw run --strategy regularized-evolution --limit NAME=VALUE`"
                    .into(),
            });
        }
        let benchmark = config.need_benchmark("`nasfw bench best`")?;
        let metric = self.metric(benchmark.as_ref())?;
        let limits = self.limits(&config, space.as_ref())?;
        let (mut all, known) =
            self.within(space.as_ref(), benchmark.as_ref(), &metric, limits.as_ref())?;
        // Of equals the first of the space.
        all.sort_by(|a, b| b.value.total_cmp(&a.value));
        self.tell(&all, known, &metric, limits.as_ref());
        Ok(())
    }

    fn config(&self, registry: &Registry) -> Result<RunConfig> {
        let settings = Settings {
            set: self.set.clone(),
            ..Settings::default()
        };
        let mut parts = space_options("space.name", "space", &self.space)?;
        parts.extend(limit_options(&self.limit)?);
        let random: Pair = (
            "strategy.name".into(),
            "'random'".into(),
            "bench best".into(),
        );
        RunConfig::new(registry, &settings.resolve(registry, vec![random], parts)?)
    }

    fn metric(&self, benchmark: &dyn Benchmark) -> Result<String> {
        let names = || {
            benchmark
                .optimum()
                .keys()
                .filter(|name| !name.contains('@'))
        };
        let found = match &self.metric {
            Some(asked) => benchmark.optimum().keys().find(|name| *name == asked),
            None => names()
                .find(|name| name.starts_with("valid"))
                .or(names().next()),
        };
        found.cloned().ok_or_else(|| Error::Incompatible {
            what: format!("metric `{}`", self.metric.as_deref().unwrap_or_default()),
            why: "the benchmark does not have it".into(),
            help: format!(
                "it has {}",
                names().map(String::as_str).collect::<Vec<_>>().join(", ")
            ),
        })
    }

    fn limits(&self, config: &RunConfig, space: &dyn SearchSpace) -> Result<Option<Limits>> {
        let strategy = config.strategy.build(BuildContext {
            spec: space.spec(),
            streams: Streams::new(0),
            kind: Kind::Float,
            device: Device::Cpu,
            epochs: 1,
        })?;
        let [channels, height, width] = self.image;
        let task = Task {
            channels,
            height,
            width,
            classes: self.classes,
        };
        let limits = strategy
            .limits()
            .map(|asked| Limits::new(asked, space, task));
        limits.transpose()
    }

    /// What meets the limits, and how many architectures are known at all.
    fn within(
        &self,
        space: &dyn SearchSpace,
        benchmark: &dyn Benchmark,
        metric: &str,
        limits: Option<&Limits>,
    ) -> Result<(Vec<Known>, u64)> {
        let (mut seen, mut all, mut known) = (HashSet::new(), vec![], 0);
        for choice in space.spec().enumerate() {
            let genotype = space.genotype(&choice);
            if !seen.insert(genotype.to_string()) {
                continue;
            }
            let Some(score) = benchmark.query(&genotype)? else {
                continue;
            };
            let Some(&value) = score.metrics.get(metric) else {
                continue;
            };
            known += 1;
            if limits.is_none_or(|limits| limits.fits(space, &choice)) {
                let costs =
                    limits.map_or_else(|| Ok(BTreeMap::new()), |l| l.costs(space, &choice))?;
                all.push(Known {
                    genotype,
                    value,
                    score,
                    costs,
                });
            }
        }
        if all.is_empty() {
            return Err(Error::Incompatible {
                what: format!("the limit of {}", self.limit.join(" and ")),
                why: format!(
                    "none of {} that the benchmark knows meets it",
                    counted(known, "architecture")
                ),
                help: "raise the limit".into(),
            });
        }
        Ok((all, known))
    }

    fn tell(&self, all: &[Known], known: u64, metric: &str, limits: Option<&Limits>) {
        let shown = all
            .iter()
            .take(usize::try_from(self.count).unwrap_or(usize::MAX));
        if self.json {
            let each = shown.map(|k| {
                json!({ "architecture": k.genotype, "metrics": k.score.metrics, "costs": k.costs })
            });
            let each: Vec<_> = each.collect();
            say(format!(
                "{:#}",
                json!({ "metric": metric, "known": known, "within": all.len(), "best": each })
            ));
            return;
        }
        say(match self.limit.is_empty() {
            true => format!(
                "{} are known; the best by {metric}:",
                counted(known, "architecture")
            ),
            false => format!(
                "{} of {} meet the limits; the best by {metric}:",
                all.len(),
                counted(known, "architecture")
            ),
        });
        for k in shown {
            say(format!("\n{}", k.genotype));
            for (name, value) in k
                .score
                .metrics
                .iter()
                .filter(|(name, _)| !name.contains('@'))
            {
                say(format!("  {name:28} {value:.4}"));
            }
            for limit in limits.iter().flat_map(|limits| limits.all()) {
                if let Some(cost) = k.costs.get(limit.name()) {
                    say(format!(
                        "  {:28} {}",
                        limit.name(),
                        limit.model().cost().unit().show(*cost)
                    ));
                }
            }
        }
    }
}
