//! `nasfw rank`.

use std::io::ErrorKind;
use std::path::PathBuf;

use clap::Args;
use nasfw_analysis::compare::{MOST_RANKED, RANKING, Ranked, Ranking};
use nasfw_analysis::stats::kendall;
use nasfw_framework::config::RunConfig;
use nasfw_framework::printable::counted;
use nasfw_framework::run::{to_json, write_whole};
use nasfw_framework::trainer::{Measured, Reopen};
use nasfw_framework::trust::guesses;
use nasfw_framework::{Error, Result};

use super::judged::{chosen_metric, known, predicted, value_of};
use super::output::{say, say_json};
use super::rank_proxies::RankProxies;
use super::ready::ready;
use super::scoring::Scoring;

/// Options of `rank`.
#[derive(Debug, Args)]
pub struct Rank {
    /// The run folder; with `--proxy` only its space, dataset and benchmark are taken, and `--space` can stand for it
    #[arg(required_unless_present = "proxy")]
    run: Option<PathBuf>,
    /// The space whose architectures proxies rank
    #[arg(
        long,
        short = 'S',
        value_name = "NAME|FILE.toml",
        requires = "proxy",
        conflicts_with = "run"
    )]
    space: Option<String>,
    /// Architectures drawn uniformly, without repetition
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(2..=MOST_RANKED))]
    architectures: u64,
    /// Batches of the validation half for each [default: all]
    #[arg(long, value_name = "M", conflicts_with = "proxy", value_parser = clap::value_parser!(u64).range(1..))]
    batches: Option<u64>,
    /// Seed of the drawing
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The benchmark's metric [default: its test accuracy on the run's dataset]
    #[arg(long, value_name = "NAME")]
    metric: Option<String>,
    /// Write a row an architecture, as soon as it is scored; a file of the same columns is gone on with
    #[arg(long, value_name = "FILE", requires = "proxy")]
    csv: Option<PathBuf>,
    #[command(flatten)]
    scoring: Scoring,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Rank {
    /// Measures, keeps `ranking.json` and prints what it amounts to.
    pub fn carry_out(self) -> Result<()> {
        ready()?;
        let count = usize::try_from(self.architectures).unwrap_or(usize::MAX);
        let run = match self.run {
            Some(run) if self.scoring.proxy.is_empty() => run,
            run => {
                let proxies = RankProxies {
                    run,
                    space: self.space,
                    count,
                    seed: self.seed,
                    metric: self.metric,
                    csv: self.csv,
                    scoring: self.scoring,
                    json: self.json,
                };
                return proxies.carry_out();
            }
        };
        let mut config = RunConfig::of_run(&run)?;
        config.need_benchmark("the ranking of this run's supernet")?;
        let fingerprint = config.fingerprint()?;
        if let Some(dir) = self.scoring.data_dir {
            config.common.data_dir = dir;
        }
        let opened = config.trainer.reopen(Reopen {
            config: &config,
            fingerprint: &fingerprint,
            run: &run,
            checkpoint: None,
            on: Measured::Own,
        })?;
        let batches = self.batches.and_then(|n| usize::try_from(n).ok());
        let drawn = opened.rank(count, batches, self.seed)?;

        let scores = || drawn.iter().map(|d| &d.score);
        let known = known(scores());
        let dataset = config.dataset.typetag_name();
        let what = "the ranking of this run's supernet";
        let (metric, why) = chosen_metric(&known, self.metric.as_deref(), dataset, what)?;
        let architectures = drawn
            .iter()
            .map(|d| {
                let genotype = d.genotype.to_string();
                let table = value_of(&d.score, metric, &genotype)?;
                Ok(Ranked {
                    genotype,
                    supernet: d.accuracy,
                    table,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let side = |f: fn(&Ranked) -> f64| architectures.iter().map(f).collect::<Vec<_>>();
        let found = kendall(&side(|a| a.supernet), &side(|a| a.table));
        let ranking = Ranking {
            tau: found.map(|k| k.tau),
            p: found.map(|k| k.p),
            metric: metric.to_owned(),
            asked: count,
            batches,
            seed: self.seed,
            epochs: opened.epoch(),
            predicted: predicted(scores(), metric),
            architectures,
        };
        let path = run.join(RANKING);
        let kept = write_whole(&path, &to_json(RANKING, &ranking)?);
        let kept = match kept {
            Err(Error::Io { source, .. })
                if [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem]
                    .contains(&source.kind()) =>
            {
                tracing::warn!("{} can't be kept: {source}", path.display());
                false
            }
            done => done.map(|()| true)?,
        };
        if self.json {
            return say_json("ranking", &ranking);
        }
        let n = ranking.architectures.len();
        say(match found {
            Some(k) => format!("Kendall's tau-b {:.3}, p = {:.2e}", k.tau, k.p),
            None => "no Kendall's tau: one of the two accuracies does not vary".into(),
        });
        say(format!(
            "{} drawn uniformly: accuracy in the supernet after epoch {}, and {metric} ({why})",
            counted(n, "architecture"),
            ranking.epochs
        ));
        if let Some(doubt) = guesses(metric, n, ranking.predicted) {
            say(doubt);
        }
        if kept {
            say(format!("result: {}", path.display()));
        }
        Ok(())
    }
}
