//! `nasfw rank --proxy`: how zero-cost proxies order architectures, beside a benchmark.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use nasfw_analysis::stats::{kendall, spearman};
use nasfw_framework::arch::Genotype;
use nasfw_framework::config::RunConfig;
use nasfw_framework::printable::counted;
use nasfw_framework::proxy::vote;
use nasfw_framework::registry::Registry;
use nasfw_framework::rng::Streams;
use nasfw_framework::space::different;
use nasfw_framework::trust::guesses;
use nasfw_framework::{Error, Result};
use nasfw_spaces::formats;
use serde::Serialize;

use super::judged::{chosen_metric, known, predicted, value_of};
use super::output::{say, say_json};
use super::scoring::Scoring;
use super::selection::{pair, space_options};

/// What is ranked, and beside what.
pub struct RankProxies {
    /// A run whose space, dataset and benchmark are taken.
    pub run: Option<PathBuf>,
    /// The space, without a run.
    pub space: Option<String>,
    /// Architectures that are drawn.
    pub count: usize,
    /// Seed of the drawing, of weights and images.
    pub seed: u64,
    /// The benchmark's metric.
    pub metric: Option<String>,
    /// File that gets a row an architecture.
    pub csv: Option<PathBuf>,
    /// How scores are taken.
    pub scoring: Scoring,
    /// Whether JSON is printed.
    pub json: bool,
}

/// What a proxy's order has to do with the benchmark's.
#[derive(Debug, Serialize)]
struct Agreement {
    proxy: String,
    /// Spearman's ρ; none where the scores do not vary.
    #[serde(with = "nasfw_framework::lossless")]
    spearman: Option<f64>,
    /// Kendall's τ-b.
    #[serde(with = "nasfw_framework::lossless")]
    tau: Option<f64>,
    /// Its two-sided p-value.
    #[serde(with = "nasfw_framework::lossless")]
    p: Option<f64>,
    /// Architectures whose score is not finite: they rank below all others.
    without: usize,
}

/// As `--json` prints it.
#[derive(Debug, Serialize)]
struct Ranking {
    metric: String,
    architectures: usize,
    /// Of how many of them a model predicts the metric.
    predicted: usize,
    proxies: Vec<Agreement>,
}

impl RankProxies {
    fn config(&self, registry: &Registry) -> Result<RunConfig> {
        let Some(run) = &self.run else {
            let space = match &self.space {
                Some(space) => space_options("space.name", "space", space)?,
                None => vec![],
            };
            return self.scoring.config(registry, vec![], space, self.seed);
        };
        let mut config = RunConfig::of_run(run)?;
        // The run's dataset and where it is, unless others are named.
        let mut others = vec![];
        if self.scoring.dataset.is_none() {
            let dir = config.common.data_dir.to_string_lossy().into_owned();
            others.push(pair("data_dir", &dir.into(), "the run")?);
        }
        let asked = self.scoring.config(registry, others, vec![], self.seed)?;
        config.common = asked.common;
        if self.scoring.dataset.is_some() {
            config.dataset = asked.dataset;
        }
        Ok(config)
    }

    /// Draws, scores and prints how the orders agree.
    pub fn carry_out(self) -> Result<()> {
        let registry = Registry::load()?;
        let config = self.config(&registry)?;
        let benchmark = config.need_benchmark("the ranking of proxies")?;
        let space = config.space.build()?;
        let mut rng = Streams::new(self.seed).at("ranking", 0);
        let mut drawn = vec![];
        for (_, genotype) in different(space.as_ref(), self.count, &mut rng) {
            // What a partial table lacks can't be compared.
            if let Some(score) = benchmark.query(&genotype)? {
                drawn.push((genotype, score));
            }
        }
        let of_all = || drawn.iter().map(|(_, score)| score);
        let known = known(of_all());
        let dataset = config.dataset.typetag_name();
        let (metric, why) = chosen_metric(
            &known,
            self.metric.as_deref(),
            dataset,
            "the ranking of proxies",
        )?;

        let scorer = self.scoring.ready(&registry, &config, self.seed)?;
        let names: Vec<String> = scorer.names().map(str::to_owned).collect();
        let mut rows = Rows::open(self.csv.as_deref(), metric, &names)?;
        let (mut table, mut scores) = (vec![], vec![vec![]; names.len()]);
        for (genotype, score) in &drawn {
            let name = in_one_line(genotype);
            let value = value_of(score, metric, &name)?;
            let found = match rows.known.remove(&name) {
                Some(found) => found,
                None => {
                    let network = space.network(genotype, scorer.task, &scorer.options)?;
                    let found = scorer.scores(&network)?;
                    rows.add(&name, value, &found)?;
                    found
                }
            };
            table.push(value);
            for (all, score) in scores.iter_mut().zip(found) {
                all.push(score);
            }
        }
        if names.len() > 1 {
            let votes = vote(&scores);
            scores.push(votes);
        }
        let all = names.into_iter().chain(["vote".to_owned()]).zip(scores);
        let ranking = Ranking {
            metric: metric.to_owned(),
            architectures: table.len(),
            predicted: predicted(of_all(), metric),
            proxies: all.map(|(proxy, s)| agreement(proxy, s, &table)).collect(),
        };
        if self.json {
            return say_json("ranking", &ranking);
        }
        say(format!(
            "{} drawn uniformly, scored before training, and {metric} ({why})",
            counted(ranking.architectures, "architecture")
        ));
        if let Some(doubt) = guesses(metric, ranking.architectures, ranking.predicted) {
            say(doubt);
        }
        say("");
        let number = |x: Option<f64>| x.map_or("-".into(), |x| format!("{x:.3}"));
        say(format!(
            "{:12}  {:>9}  {:>9}  {:>9}  not finite",
            "proxy", "Spearman", "Kendall", "p"
        ));
        for a in &ranking.proxies {
            say(format!(
                "{:12}  {:>9}  {:>9}  {:>9}  {}",
                a.proxy,
                number(a.spearman),
                number(a.tau),
                a.p.map_or("-".into(), |p| format!("{p:.1e}")),
                a.without
            ));
        }
        Ok(())
    }
}

fn agreement(proxy: String, scores: Vec<f64>, table: &[f64]) -> Agreement {
    let without = scores.iter().filter(|s| !s.is_finite()).count();
    let worth = scores.into_iter().map(|s| match s.is_finite() {
        true => s,
        false => f64::MIN,
    });
    let scores: Vec<f64> = worth.collect();
    let tau = kendall(&scores, table);
    Agreement {
        proxy,
        spearman: spearman(&scores, table),
        tau: tau.map(|k| k.tau),
        p: tau.map(|k| k.p),
        without,
    }
}

/// An architecture as one line that `nasfw genotype` reads: NAS-Bench-201's form where it has that, else JSON.
fn in_one_line(genotype: &Genotype) -> String {
    let form = formats::Format::Nasbench201.write(genotype);
    form.unwrap_or_else(|_| serde_json::to_string(genotype).unwrap_or_default())
}

/// Rows of a CSV file: architecture, metric, a column a proxy. A file that is there is gone on with.
struct Rows {
    path: Option<PathBuf>,
    /// Scores that an earlier call has written.
    known: BTreeMap<String, Vec<f64>>,
}

impl Rows {
    fn open(path: Option<&Path>, metric: &str, names: &[String]) -> Result<Self> {
        let Some(path) = path else {
            return Ok(Self {
                path: None,
                known: BTreeMap::new(),
            });
        };
        let mut rows = Self {
            path: Some(path.to_owned()),
            known: BTreeMap::new(),
        };
        let mut header = vec!["architecture".to_owned(), metric.to_owned()];
        header.extend(names.iter().cloned());
        if !path.exists() {
            rows.line(&header)?;
            return Ok(rows);
        }
        let wrong = |problem: String| Error::Data {
            path: path.to_owned(),
            problem,
            help: "name another file with `--csv`".into(),
        };
        let mut reader = csv::Reader::from_path(path).map_err(|e| wrong(e.to_string()))?;
        let found = reader.headers().map_err(|e| wrong(e.to_string()))?;
        if found.iter().ne(header.iter().map(String::as_str)) {
            return Err(wrong(format!(
                "its columns are not {}: other proxies or another metric",
                header.join(", ")
            )));
        }
        for record in reader.records() {
            let record = record.map_err(|e| wrong(e.to_string()))?;
            let scores = record.iter().skip(2).map(str::parse::<f64>);
            let scores = scores.collect::<Result<Vec<f64>, _>>();
            let scores = scores.map_err(|e| wrong(format!("a score is no number: {e}")))?;
            rows.known.insert(record[0].to_owned(), scores);
        }
        Ok(rows)
    }

    fn add(&mut self, name: &str, metric: f64, scores: &[f64]) -> Result<()> {
        let numbers = std::iter::once(&metric).chain(scores);
        let row = std::iter::once(name.to_owned()).chain(numbers.map(f64::to_string));
        self.line(&row.collect::<Vec<_>>())
    }

    /// Appends a whole line at once.
    fn line(&self, fields: &[String]) -> Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let failed = |source| Error::io("write", path)(source);
        let mut writer = csv::Writer::from_writer(vec![]);
        writer.write_record(fields).map_err(|e| failed(e.into()))?;
        let line = writer.into_inner().map_err(|e| failed(e.into_error()))?;
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(&line))
            .map_err(failed)
    }
}
