//! Fronts of a metric and costs: against enumeration of a table, through interruptions, under limits, and what is refused.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use nasfw::framework::cost::CostModel;
use nasfw::framework::front::{Front, dominates};
use nasfw::framework::prelude::*;
use nasfw::framework::registry::{Kind, Registry};

use crate::program::{flat, good, nasfw};
use crate::strategies::{Done, config, search};
use crate::tables::made_up;

/// Images of this shape, and a table of NAS-Bench-201 whose metrics are made up.
fn settings(table: &Path, more: &[&str]) -> Vec<String> {
    let own = [
        "space.name=nasbench201",
        "space.channels=2",
        "space.cells=1",
        "dataset.name=synthetic",
        "dataset.images=8",
        "trainer.epochs=1",
        "trainer.log_every=1000",
    ];
    let mut all: Vec<String> = own.iter().chain(more).map(|s| (*s).to_owned()).collect();
    all.push(format!("benchmark.file={}", table.display()));
    all
}

fn found(table: &Path, more: &[&str]) -> Done {
    let all = settings(table, more);
    search(&all.iter().map(String::as_str).collect::<Vec<_>>()).unwrap()
}

const NSGA2: [&str; 3] = [
    "strategy.name=nsga2",
    "strategy.population=20",
    "strategy.evaluations=400",
];
const RANDOM: [&str; 4] = [
    "strategy.name=random",
    "strategy.score=benchmark",
    "strategy.samples=400",
    "strategy.costs=[\"macs\"]",
];

/// Metric and cost of every architecture that the table has, the cost by building its standalone network.
struct Truth {
    /// By the genotype's text.
    values: BTreeMap<String, [f64; 2]>,
    dearest: f64,
}

impl Truth {
    fn new(table: &Path, cost: &str) -> Self {
        let config = config(&settings(table, &NSGA2)).unwrap();
        let space = config.space.build().unwrap();
        let benchmark = config.need_benchmark("this test").unwrap();
        let task = config.dataset.load(&config.common.source()).unwrap().task;
        let plugin = Registry::load().unwrap().get(Kind::Cost, cost).unwrap();
        let cost: Arc<dyn Cost> =
            Arc::from(plugin.cost(&plugin.default_section().unwrap()).unwrap());
        let size = NetworkOptions::default();
        let model = CostModel::new(Arc::clone(&cost), space.as_ref(), task, size.clone()).unwrap();
        let mut values = BTreeMap::new();
        let mut dearest = 0.0f64;
        for (i, choice) in space.spec().enumerate().enumerate() {
            let genotype = space.genotype(&choice);
            let of = model.of(space.as_ref(), &choice).unwrap();
            // Networks take time: every tenth.
            if i % 10 == 0 {
                let network = space.network(&genotype, task, &size).unwrap();
                let counted = cost.of(&network).unwrap();
                assert!((of - counted).abs() <= 1e-9 * counted, "{of} {counted}");
            }
            dearest = dearest.max(of);
            if let Some(score) = benchmark.query(&genotype).unwrap() {
                values.insert(genotype.to_string(), [score.metrics["valid/cifar10"], of]);
            }
        }
        Self { values, dearest }
    }

    /// What no other architecture of the table dominates, by comparing all with all.
    fn front(&self) -> Vec<[f64; 2]> {
        let merits = |v: &[f64; 2]| [v[0], -v[1]];
        let mut distinct: Vec<[f64; 2]> = self.values.values().copied().collect();
        distinct.sort_by(|a, b| a.partial_cmp(b).unwrap());
        distinct.dedup();
        let beaten = |v: &[f64; 2]| {
            distinct
                .iter()
                .any(|other| dominates(&merits(other), &merits(v)))
        };
        distinct.iter().filter(|v| !beaten(v)).copied().collect()
    }

    /// The volume of a staircase between a metric of 0 and `best`, and the dearest cost and none, by summing its steps.
    fn volume(&self, mut front: Vec<[f64; 2]>, best: f64) -> f64 {
        front.sort_by(|a, b| a[1].total_cmp(&b[1]));
        let mut area = 0.0;
        for (i, [metric, cost]) in front.iter().enumerate() {
            let next = front.get(i + 1).map_or(self.dearest, |f| f[1]);
            area += metric * (next - cost);
        }
        area / (best * self.dearest)
    }

    /// Whether a front is what it must be: values of the table and of networks, none dominated, best first.
    fn check(&self, front: &Front) {
        let [metric, cost] = [0, 1].map(|i| front.criteria[i].name.as_str());
        assert_eq!((metric, cost), ("valid/cifar10", "cost/macs"));
        assert!((front.criteria[1].reference / self.dearest - 1.0).abs() < 1e-9);
        let merits: Vec<[f64; 2]> = (front.members.iter())
            .map(|m| [m.values[metric], -m.values[cost]])
            .collect();
        for (member, merit) in front.members.iter().zip(&merits) {
            let [value, of] = self.values[&member.genotype.to_string()];
            assert_eq!(member.values[metric], value);
            assert!((member.values[cost] - of).abs() <= 1e-9 * of);
            assert!(!merits.iter().any(|other| dominates(other, merit)));
            let seen = front.points.iter().map(|p| [p[0], -p[1]]);
            assert!(seen.into_iter().all(|other| !dominates(&other, merit)));
        }
        assert!(merits.windows(2).all(|w| w[0][0] >= w[1][0]));
    }
}

/// Mean share of the true front's points that are found, and of its hypervolume.
#[test]
fn evolution_finds_more_of_the_true_front_than_random_search() {
    const SEEDS: u64 = 5;
    let dir = tempfile::tempdir().unwrap();
    let table = made_up(dir.path(), 1);
    let truth = Truth::new(&table, "macs");
    let front = truth.front();
    let best = front.iter().map(|f| f[0]).fold(0.0, f64::max);
    let all = truth.volume(front.clone(), best);
    let mut shares = BTreeMap::new();
    for (strategy, set) in [("nsga2", &NSGA2[..]), ("random", &RANDOM)] {
        let (mut points, mut volume) = (0.0, 0.0);
        for seed in 0..SEEDS {
            let seed = format!("seed={seed}");
            let Done { outcome, .. } = found(&table, &[set, &[&seed]].concat());
            let mine = outcome.front.unwrap();
            truth.check(&mine);
            assert!(mine.evaluated <= 400);
            // What is derived is the first member, the cheapest of the best.
            assert_eq!(outcome.genotype, mine.members[0].genotype);
            let metrics = outcome.metrics.unwrap();
            assert_eq!(metrics["hypervolume"], mine.hypervolume);
            assert_eq!(metrics["cost/macs"], mine.members[0].values["cost/macs"]);
            assert_eq!(
                outcome.regret.unwrap()["hypervolume"],
                1.0 - mine.hypervolume
            );
            let values =
                |m: &nasfw::framework::front::Member| truth.values[&m.genotype.to_string()];
            let mut members: Vec<[f64; 2]> = mine.members.iter().map(values).collect();
            members.sort_by(|a, b| a.partial_cmp(b).unwrap());
            members.dedup();
            let own = truth.volume(members.clone(), best);
            assert!(
                (own - mine.hypervolume).abs() < 1e-9,
                "{own} {}",
                mine.hypervolume
            );
            assert!(own <= all + 1e-12);
            let hit = front.iter().filter(|f| members.contains(f)).count();
            points += hit as f64 / front.len() as f64 / SEEDS as f64;
            volume += own / all / SEEDS as f64;
            // It begins at nothing and never falls.
            let curve: Vec<f64> = (outcome.curve.iter())
                .map(|p| p.metrics.as_ref().unwrap()["hypervolume"])
                .collect();
            let rises = |w: &[f64]| w[1] >= w[0] - 1e-12;
            assert!(curve[0] == 0.0 && curve.windows(2).all(rises), "{curve:?}");
        }
        println!(
            "{strategy}: {points:.3} of {} points, {volume:.4} of the volume",
            front.len()
        );
        shares.insert(strategy, (points, volume));
    }
    assert!(shares["nsga2"].0 > shares["random"].0 + 0.2);
    assert!(shares["nsga2"].1 > shares["random"].1);
}

/// A fifth of the table is enough to find all of the front.
#[test]
fn a_long_search_finds_the_whole_front() {
    let dir = tempfile::tempdir().unwrap();
    let table = made_up(dir.path(), 1);
    let truth = Truth::new(&table, "macs");
    let Done { outcome, .. } = found(
        &table,
        &["strategy.name=nsga2", "strategy.evaluations=3000"],
    );
    let mine = outcome.front.unwrap();
    truth.check(&mine);
    let mut points: Vec<[f64; 2]> = (mine.members.iter())
        .map(|m| truth.values[&m.genotype.to_string()])
        .collect();
    points.sort_by(|a, b| a.partial_cmp(b).unwrap());
    points.dedup();
    assert_eq!(points, truth.front());
}

/// Under a limit every member meets it; three criteria are a front, too; a reference that is set counts.
#[test]
fn limits_and_further_costs_hold() {
    let dir = tempfile::tempdir().unwrap();
    let table = made_up(dir.path(), 1);
    let truth = Truth::new(&table, "macs");
    let most = truth.dearest / 3.0;
    let base = [
        "strategy.name=constrained",
        "strategy.base.name=nsga2",
        "strategy.base.population=10",
        "strategy.base.evaluations=100",
    ];
    let limit = format!("strategy.cost.macs={}", most.round());
    let Done { outcome, .. } = found(&table, &[&base[..], &[limit.as_str()]].concat());
    let front = outcome.front.unwrap();
    truth.check(&front);
    assert!(front.evaluated >= 95, "{}", front.evaluated);
    assert!(
        front
            .points
            .iter()
            .all(|p| p[1] <= most.round() * 1.000_001)
    );

    let costs = "strategy.costs=[\"macs\", { name = \"params\", reference = \"10M\" }]";
    let set = ["strategy.name=nsga2", "strategy.evaluations=100", costs];
    let front = found(&table, &set).outcome.front.unwrap();
    assert_eq!(front.criteria[2].name, "cost/params");
    assert_eq!(front.criteria[2].reference, 1e7);
    let merits: Vec<Vec<f64>> = (front.members.iter())
        .map(|m| {
            vec![
                m.values["valid/cifar10"],
                -m.values["cost/macs"],
                -m.values["cost/params"],
            ]
        })
        .collect();
    assert!(
        merits
            .iter()
            .all(|a| !merits.iter().any(|b| dominates(b, a)))
    );
    assert!(front.hypervolume > 0.0 && front.hypervolume < 1.0);
}

/// Random search that trains has a front of its own accuracies.
#[test]
fn what_is_trained_has_a_front() {
    let set = [
        "strategy.name=random",
        "strategy.samples=3",
        "strategy.costs=[\"params\"]",
        "space.name=nasbench201",
        "space.channels=2",
        "space.cells=1",
        "dataset.name=synthetic",
        "dataset.images=32",
        "trainer.epochs=3",
    ];
    let front = search(&set).unwrap().outcome.front.unwrap();
    assert_eq!(front.criteria[0].name, "val-accuracy");
    assert_eq!(front.evaluated, 3);
}

#[test]
fn what_makes_no_front_is_refused_before_the_first_step() {
    let dir = tempfile::tempdir().unwrap();
    let table = made_up(dir.path(), 625);
    let base = ["run", "--space", "nasbench201", "--dataset", "synthetic"];
    let table = format!("benchmark.file={}", table.display());
    for (set, why) in [
        ("strategy.costs=[]", "it names no cost"),
        ("strategy.costs=[\"mcas\"]", "did you mean `macs`"),
        (
            "strategy.costs=[\"macs\", \"macs\"]",
            "`macs` is there twice",
        ),
        (
            "strategy.costs=[3]",
            "it must be a name, or a table with a `name`",
        ),
        (
            "strategy.costs=[{ name = \"macs\", reference = \"3MB\" }]",
            "3MB",
        ),
        ("strategy.costs=[{ name = \"macs\", speed = 3 }]", "speed"),
    ] {
        let args = ["--strategy", "nsga2", "--set", set, "--set", &table];
        let out = nasfw(dir.path(), &[&base[..], &args].concat());
        let said = flat(&out.stderr);
        assert!(!out.status.success() && said.contains(why), "{set}: {said}");
        assert!(!dir.path().join("runs").exists(), "{set}");
    }
    let idle = ["--strategy", "random", "--set", "strategy.reference=3.0"];
    let said = flat(&nasfw(dir.path(), &[&base[..], &idle].concat()).stderr);
    assert!(said.contains("it would change nothing"), "{said}");
    // Formulas are no networks.
    let toy = ["run", "--space", "toy-planted", "--strategy", "nsga2"];
    let out = nasfw(dir.path(), &toy);
    let said = flat(&out.stderr);
    assert!(
        !out.status.success() && said.contains("no standalone network"),
        "{said}"
    );
}

/// Figures, reports, and members by their numbers.
#[test]
fn fronts_are_shown_and_their_members_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let table = made_up(dir, 1);
    let run = |name: &str, set: &[&str]| {
        let all = settings(&table, set);
        let mut args = vec!["run", "--name", name];
        all.iter().for_each(|s| args.extend(["--set", s.as_str()]));
        good(dir, &args);
    };
    run(
        "evolved",
        &[&NSGA2[..], &["strategy.evaluations=100"]].concat(),
    );
    run("drawn", &[&RANDOM[..], &["strategy.samples=100"]].concat());
    let [evolved, drawn] = ["runs/evolved", "runs/drawn"];
    let alone = good(dir, &["figure", evolved, "front"]);
    let both = good(dir, &["figure", evolved, "front", "--with", drawn]);
    assert!(both.len() > alone.len() && both.contains("drawn"));
    roxmltree::Document::parse(&both).unwrap();
    let wrong = nasfw(dir, &["figure", evolved, "curves", "--with", drawn]);
    assert!(flat(&wrong.stderr).contains("only fronts"));
    good(dir, &["report", evolved, "-o", "one.html"]);
    let page = std::fs::read_to_string(dir.join("one.html")).unwrap();
    assert!(page.contains("evolved:front.") && page.contains("cost/macs"));
    good(dir, &["report", evolved, drawn, "-o", "two.html"]);
    let page = std::fs::read_to_string(dir.join("two.html")).unwrap();
    assert!(page.contains("side-by-side-fronts"));

    let text = std::fs::read_to_string(dir.join(evolved).join("result.json")).unwrap();
    let outcome: Outcome = serde_json::from_str(&text).unwrap();
    let members = outcome.front.unwrap().members;
    let genotype =
        |what: &str| -> Genotype { serde_json::from_str(&good(dir, &["genotype", what])).unwrap() };
    assert!(members.len() > 2);
    assert_eq!(genotype(evolved), members[0].genotype);
    for (i, member) in members.iter().enumerate() {
        let which = format!("{evolved}:front.{}", i + 1);
        assert_eq!(genotype(&which), member.genotype, "{which}");
        let which = format!("{evolved}/result.json:front.{}", i + 1);
        assert_eq!(genotype(&which), member.genotype, "{which}");
    }
    for wrong in ["front.0", "front.99", "front.x"] {
        let which = format!("{evolved}:{wrong}");
        assert!(
            !nasfw(dir, &["genotype", &which]).status.success(),
            "{which}"
        );
    }
}
