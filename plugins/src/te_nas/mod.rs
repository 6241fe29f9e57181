//! TE-NAS (Chen, Gong, Wang 2021): a supernet is pruned, without any training, by how well it could be trained (the
//! condition number κ of its neural tangent kernel) and how much it could express (the number R of its linear regions).
//!
//! The paper's text, its program and this one differ; where they do, the program is followed unless it says otherwise here:
//!
//! * Changes are relative, (κ₀ − κ) / κ₀, in the program; plain differences in the text, which have the same ranks where all
//!   of a round are compared with the same κ₀. The program shuffles images anew for every candidate, so that they are not;
//!   here weights and images are the same for all candidates of a round.
//! * The program rounds each change to 3 decimals, sorts means by 3 significant digits, and lets those share a rank that are
//!   equal without rounding. Here those share one that are equal in 3 significant digits.
//! * Its names of initialisers, `kaiming_normal_fanin` and `_fanout`, are none that it tests for, so that weights start by
//!   PyTorch's default. So they do here.
//! * Its networks have 3 channels on NAS-Bench-201 and 1 on DARTS's space, and R is counted with 1 channel, without a stem,
//!   on 3×3 pixels. Reductions split channels into halves, so that channels are even here; NAS-Bench-201's stages need
//!   sides that 4 divides; there always is a stem. In DARTS's program two cells are a normal and a reduction cell; here it takes three to have both.
//! * Of other spaces nothing is published: rows whose candidates are sources are pruned like edges until the space's number
//!   is left; where edges compete, they are pruned node by node as in DARTS's space.

mod indicators;
mod pruning;

pub use indicators::{Fresh, crops};
pub use pruning::{Change, order, pruned, rounded};

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::need_table;

/// Settings of TE-NAS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeNasConfig {
    /// Candidates that go from a row in a round.
    pub prune: usize,
    /// Fresh starts that a change is the mean over.
    pub repeats: u64,
    /// Significant digits in which changes are compared.
    pub digits: i32,
    /// By what candidates are ranked.
    pub indicators: Indicators,
    /// Initial channels of the supernet of the kernel; 0 means the space's.
    pub channels: i64,
    /// Its number of cells; 0 means the space's.
    pub cells: usize,
    /// Images that regions are counted on.
    pub region_images: usize,
    /// Rows and columns of these images.
    pub region_pixels: i64,
    /// Initial channels of the supernet of the regions.
    pub region_channels: i64,
}

/// By what candidates are ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Indicators {
    /// The sum of ranks by both.
    Both,
    /// κ alone.
    Condition,
    /// R alone.
    Regions,
}

register! {
    strategy "te-nas" => TeNasConfig,
    summary: "TE-NAS: a supernet pruned without training, by its tangent kernel's condition and its linear regions",
    source: "Chen, Gong, Wang 2021, ICLR, arXiv:2102.11535",
    defaults: r#"[strategy]
# Candidates that go from a row in a round: 1 on NAS-Bench-201, 3 on DARTS's space, 2 on ImageNet.
prune = 1
# Fresh starts that a change is the mean over.
repeats = 3
# Significant digits in which changes are compared.
digits = 3
# By what candidates are ranked: "both", "condition" or "regions" (the paper's ablation).
indicators = "both"
# Initial channels of the supernet of the kernel; 0 means the space's. The paper's: 3 on NAS-Bench-201, 1 on DARTS's space.
channels = 4
# Its number of cells, of cells a stage on NAS-Bench-201; 0 means the space's.
cells = 3
# Images that regions are counted on.
region_images = 3000
# Rows and columns of these images: 3 in the paper.
region_pixels = 4
# Initial channels of the supernet of the regions: 1 in the paper.
region_channels = 2

[trainer]
epochs = 1
# Images of the kernel: 72 on NAS-Bench-201, 14 on DARTS's space, 24 on ImageNet.
batch_size = 14
"#,
    example: "nasfw run --strategy te-nas --space nasbench201 --set strategy.repeats=1 --set strategy.region_images=500",
    presets: &[
        ("condition", "[strategy]\nindicators = \"condition\"\n"),
        ("regions", "[strategy]\nindicators = \"regions\"\n"),
        ("quick", "[strategy]\nrepeats = 1\nregion_images = 500\n[trainer]\nbatch_size = 14\n"),
    ],
    families: &[
        ("nasbench201", "[strategy]\ncells = 1\n[trainer]\nbatch_size = 72\n"),
        ("darts", "[strategy]\nprune = 3\nchannels = 2\n"),
        ("darts-imagenet", "[strategy]\nprune = 2\nregion_pixels = 16\n[trainer]\nbatch_size = 24\n"),
        ("robust", "[strategy]\nchannels = 2\n"),
    ],
}

#[typetag::serde(name = "te-nas")]
impl StrategyConfig for TeNasConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(TeNas {
            config: self.clone(),
            spec: cx.spec.clone(),
            streams: cx.streams,
            epochs: cx.epochs,
            region_net: None,
            images: None,
            state: State::new(cx.spec),
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("strategy.prune", self.prune, 1, 1000);
        v.range("strategy.repeats", self.repeats, 1, 1000);
        v.range("strategy.digits", self.digits, 1, 15);
        v.range("strategy.channels", self.channels, 0, 4096);
        v.range("strategy.cells", self.cells, 0, 999);
        v.range("strategy.region_images", self.region_images, 2, 1 << 20);
        v.range("strategy.region_pixels", self.region_pixels, 1, 4096);
        v.range("strategy.region_channels", self.region_channels, 1, 4096);
    }
}

/// Group, row and column of a candidate.
type Place = (usize, usize, usize);

/// What a checkpoint must keep.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    /// `[group][row][column]`: what is left.
    alive: Vec<Vec<Vec<bool>>>,
    /// Rounds done.
    round: u64,
    /// Batches of this round: that of the kernel, then those of the regions.
    tickets: Vec<Ticket>,
    /// κ₀ and R₀ of this round, one of each start; none before the round begins.
    #[serde(with = "nasfw_framework::lossless")]
    before: Vec<Vec<f64>>,
    /// Candidates of this round that were cut for a try.
    changes: Vec<Change>,
}

impl State {
    /// Everything is alive but what puts nothing out.
    fn new(spec: &ArchSpec) -> Self {
        let row = |row: &Row| -> Vec<bool> {
            let others = row.candidates.iter().filter(|c| *c != "none").count();
            let none_goes = others >= row.keep;
            let alive = |c: &String| !(none_goes && c == "none");
            row.candidates.iter().map(alive).collect()
        };
        let groups = spec.groups().iter();
        Self {
            alive: groups.map(|g| g.rows.iter().map(row).collect()).collect(),
            round: 0,
            tickets: vec![],
            before: vec![],
            changes: vec![],
        }
    }

    fn count(&self, g: usize, r: usize) -> usize {
        self.alive[g][r].iter().filter(|alive| **alive).count()
    }
}

struct TeNas {
    config: TeNasConfig,
    spec: ArchSpec,
    streams: Streams,
    epochs: u64,
    /// The network whose regions are counted, once it is built.
    region_net: Option<Box<dyn Supernet>>,
    /// The images of this round, once they are drawn in this process.
    images: Option<Images>,
    state: State,
}

/// What the candidates of a round are tried on.
struct Images {
    /// A batch, `[n, channels, h, w]`.
    kernel: Tensor,
    /// Small crops of others, `[n, 1, pixels, pixels]`; none where regions are not counted.
    regions: Option<Tensor>,
}

/// Who may go in a round.
#[derive(Debug, PartialEq)]
enum Round {
    /// Candidates of rows that have too many.
    Candidates,
    /// Whole edges into a node: so many of its rows stay.
    Edges(usize),
    /// One architecture is left.
    Over,
}

/// The round that `state` is in, and the candidates that are cut in it for a try.
fn round(spec: &ArchSpec, state: &State) -> (Round, Vec<Place>) {
    let places = |rows: &[(usize, usize)]| -> Vec<Place> {
        let of = |(g, r): &(usize, usize)| {
            let (g, r, row) = (*g, *r, &state.alive[*g][*r]);
            (0..row.len())
                .filter(|&c| row[c])
                .map(move |c| (g, r, c))
                .collect::<Vec<_>>()
        };
        rows.iter().flat_map(of).collect()
    };
    let crowded = spec
        .rows()
        .filter(|(g, r, row)| state.count(*g, *r) > row.keep);
    let crowded: Vec<(usize, usize)> = crowded.map(|(g, r, _)| (g, r)).collect();
    if !crowded.is_empty() {
        return (Round::Candidates, places(&crowded));
    }
    for (g, group) in spec.groups().iter().enumerate() {
        let Some(keep) = group.edges_kept() else {
            continue;
        };
        for node in group.nodes() {
            let edges = node.into_iter().filter(|&r| state.count(g, r) > 0);
            let edges: Vec<(usize, usize)> = edges.map(|r| (g, r)).collect();
            if edges.len() > keep {
                return (Round::Edges(keep), places(&edges));
            }
        }
    }
    (Round::Over, vec![])
}

/// Prunes at the end of a round in which every one of `changes` was tried.
fn prune(spec: &ArchSpec, state: &mut State, config: &TeNasConfig) {
    let gone = match round(spec, state).0 {
        Round::Over => return,
        Round::Candidates => {
            let keep = |g: usize, r: usize| spec.groups()[g].rows[r].keep;
            let spare = |g, r| state.count(g, r) - keep(g, r);
            pruned(&state.changes, config.digits, config.prune, spare)
        }
        Round::Edges(keep) => {
            // An edge goes with the first of its candidates; there is one on each.
            let mut rows: Vec<(usize, usize)> = vec![];
            for i in order(&state.changes, config.digits) {
                let (g, r, _) = state.changes[i].at;
                if !rows.contains(&(g, r)) {
                    rows.push((g, r));
                }
            }
            rows.truncate(rows.len() - keep);
            let of = |c: &&Change| rows.contains(&(c.at.0, c.at.1));
            state.changes.iter().filter(of).map(|c| c.at).collect()
        }
    };
    for (g, r, c) in gone {
        state.alive[g][r][c] = false;
    }
    state.round += 1;
    state.changes.clear();
    state.before.clear();
    state.tickets.clear();
}

impl TeNas {
    /// How many candidates are cut for a try in the whole search: it does not depend on what they show.
    fn tries(&self) -> u64 {
        let mut state = State::new(&self.spec);
        let mut tries = 0;
        loop {
            let (round, places) = round(&self.spec, &state);
            if round == Round::Over {
                return tries;
            }
            tries += places.len() as u64;
            let change = |at| Change {
                at,
                condition: 0.0,
                regions: 0.0,
            };
            state.changes = places.into_iter().map(change).collect();
            prune(&self.spec, &mut state, &self.config);
        }
    }

    /// A uniform mixture of what is alive, without one candidate.
    fn arch(&self, search: &Search, without: Option<Place>) -> RelaxedArch {
        let mut active = self.state.alive.clone();
        if let Some((g, r, c)) = without {
            active[g][r][c] = false;
        }
        let weights = self.spec.groups().iter().zip(&active).map(|(group, rows)| {
            let width = group.width();
            let numbers = rows.iter().flat_map(|row| {
                let alive = row.iter().filter(|alive| **alive).count().max(1) as f64;
                (0..width).map(move |c| f64::from(row.get(c) == Some(&true)) / alive)
            });
            let numbers: Vec<f64> = numbers.collect();
            let weights = Tensor::from_slice(&numbers).view(group.shape());
            weights.to_kind(search.kind()).to_device(search.device())
        });
        RelaxedArch::new(weights.collect()).with_active(active)
    }

    /// κ and R of a mixture, one of each start: weights are the same for all mixtures of a round.
    fn measure(&mut self, search: &mut Search, arch: &RelaxedArch) -> Result<Vec<Vec<f64>>> {
        let with_kernel = self.config.indicators != Indicators::Regions;
        let with_regions = self.config.indicators != Indicators::Condition;
        let images = match self.images.take() {
            Some(images) => images,
            None => self.draw(search)?,
        };
        if with_regions && self.region_net.is_none() {
            self.region_net = Some(self.region_net(search)?);
        }
        let mut found = vec![];
        for repeat in 0..self.config.repeats {
            let start = self.state.round * self.config.repeats + repeat;
            let streams = self.streams.child("start", start);
            let fresh = |net: &dyn Supernet, name: &str| {
                let streams = streams.child(name, 0);
                let weights = net.init(streams, search.kind(), search.device())?;
                Ok::<_, Error>(weights.set_requires_grad(true))
            };
            let condition = match with_kernel {
                true => {
                    let net = search.supernet();
                    let weights = fresh(net, "kernel")?;
                    Fresh::new(net, &weights, streams).condition(&images.kernel, arch)?
                }
                false => 1.0,
            };
            let regions = match (&self.region_net, &images.regions) {
                (Some(net), Some(images)) if with_regions => {
                    let weights = fresh(net.as_ref(), "regions")?;
                    Fresh::new(net.as_ref(), &weights, streams).regions(images, arch)?
                }
                _ => 1.0,
            };
            found.push(vec![condition, regions]);
        }
        self.images = Some(images);
        Ok(found)
    }

    /// The images of this round: they are the same whenever they are drawn.
    fn draw(&self, search: &mut Search) -> Result<Images> {
        let mut batches = vec![];
        for ticket in &self.state.tickets {
            batches.push(search.batch_again(ticket)?.images);
        }
        let kernel = batches.remove(0);
        let mut small = vec![];
        for (i, images) in batches.iter().enumerate() {
            let number = self.state.round << 32 | i as u64;
            let rng = &mut self.streams.at("crops", number);
            small.push(crops(images, self.config.region_pixels, rng)?);
        }
        let count = self.config.region_images as i64;
        let regions = (!small.is_empty()).then(|| Tensor::cat(&small, 0));
        let regions = regions.map(|all| all.narrow(0, 0, count.min(all.size()[0])));
        Ok(Images { kernel, regions })
    }

    /// The thin network of small images whose regions are counted.
    fn region_net(&self, search: &Search) -> Result<Box<dyn Supernet>> {
        let side = self.config.region_pixels;
        let task = Task {
            channels: 1,
            height: side,
            width: side,
            classes: search.task().classes,
        };
        let options = SupernetOptions {
            channels: Some(self.config.region_channels),
            ..self.supernet_options()
        };
        search.space().supernet(task, &options)
    }

    /// Draws the batches of a round and measures what it begins with.
    fn begin(&mut self, search: &mut Search) -> Result<()> {
        let regions = match self.config.indicators {
            Indicators::Condition => 0,
            _ => self.config.region_images,
        };
        let (mut tickets, mut images) = (vec![], 0);
        while tickets.is_empty() || images < regions {
            let ticket = search.next_batch(Split::Full);
            let drawn = search.batch(Split::Full)?.len() as usize;
            images += if tickets.is_empty() { 0 } else { drawn };
            tickets.push(ticket);
        }
        self.state.tickets = tickets;
        self.images = None;
        let arch = self.arch(search, None);
        self.state.before = self.measure(search, &arch)?;
        Ok(())
    }
}

impl Strategy for TeNas {
    /// Algorithm 1 of the paper, one candidate a step: cut it for a try, note how κ and R change; when all were tried, those
    /// of the lowest sums of ranks are gone.
    fn step(&mut self, search: &mut Search) -> Result<()> {
        let (_, places) = round(&self.spec, &self.state);
        let Some(&at) = places.get(self.state.changes.len()) else {
            return Ok(());
        };
        if self.state.before.is_empty() {
            self.begin(search)?;
        }
        let arch = self.arch(search, Some(at));
        let after = self.measure(search, &arch)?;
        let mean = |i: usize| {
            let pairs = self.state.before.iter().zip(&after);
            let changes = pairs.map(|(before, after)| (before[i] - after[i]) / before[i]);
            changes.sum::<f64>() / after.len() as f64
        };
        let change = Change {
            at,
            condition: mean(0),
            regions: mean(1),
        };
        search.log("condition", self.state.before[0][0]);
        search.log("regions", self.state.before[0][1]);
        self.state.changes.push(change);
        if self.state.changes.len() == places.len() {
            prune(&self.spec, &mut self.state, &self.config);
        }
        search.log("rounds", self.state.round as f64);
        Ok(())
    }

    fn epoch_end(&mut self, _search: &mut Search) -> Result<Control> {
        Ok(match round(&self.spec, &self.state).0 {
            Round::Over => Control::Stop("one architecture is left".into()),
            _ => Control::Continue,
        })
    }

    fn data(&self) -> DataPlan {
        DataPlan::Steps(self.tries().div_ceil(self.epochs.max(1)).max(1))
    }

    fn supernet_options(&self) -> SupernetOptions {
        SupernetOptions {
            channels: (self.config.channels > 0).then_some(self.config.channels),
            cells: (self.config.cells > 0).then_some(self.config.cells),
            ..Default::default()
        }
    }

    /// The space's rule on what is left: at the end there is nothing to choose.
    fn derive(&self, search: &Search) -> Result<Choice> {
        let weight = |alive: &bool| f64::from(*alive);
        let rows = |rows: &Vec<Vec<bool>>| {
            rows.iter()
                .map(|r| r.iter().map(weight).collect())
                .collect()
        };
        let weights: Marginals = self.state.alive.iter().map(rows).collect();
        Ok(search.space().derive(&weights))
    }

    fn state(&self) -> Result<StrategyState> {
        StrategyState::of(&self.state)
    }

    fn restore(&mut self, state: StrategyState) -> Result<()> {
        let state: State = state.value()?;
        need_table(&self.spec, &state.alive)?;
        let tried = round(&self.spec, &state).1;
        let same = state.changes.iter().zip(&tried).all(|(c, at)| c.at == *at);
        let measured = state.before.is_empty() || state.before.len() as u64 == self.config.repeats;
        let pairs = state.before.iter().all(|pair| pair.len() == 2);
        let drawn = state.before.is_empty() == state.tickets.is_empty();
        if !(same && state.changes.len() <= tried.len() && measured && pairs && drawn) {
            return Err(Error::Invalid {
                what: "strategy state".into(),
                why: "it is not of a round of this space".into(),
            });
        }
        self.state = state;
        self.images = None;
        Ok(())
    }
}
