//! A space of two equal cells: each adds two rectified linear maps, weighted alike by the architecture.

use nasfw_framework::prelude::*;
use nasfw_framework::{observe, register, rng};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Cells.
pub const CELLS: usize = 2;
/// Numbers that a cell takes and gives.
pub const WIDTH: i64 = 16;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReluConfig {
    /// What a map gives is normalised over the batch.
    batch_norm: bool,
    /// Cells tell their values.
    tells: bool,
    /// Noise on the logits.
    noise: f64,
}

register! {
    space "fixture-relu" => ReluConfig,
    summary: "two cells of two rectified linear maps",
    source: "tests",
    defaults: "[space]\nbatch_norm = false\ntells = true\nnoise = 0.0\n[dataset]\nname = \"fixture-data\"\n[trainer]\nepochs = 2\nbatch_size = 4\ncheckpoint_every = 1\n[trainer.augment]\ncrop_padding = 1\n",
    example: "nasfw run --space fixture-relu",
}

#[typetag::serde(name = "fixture-relu")]
impl SpaceConfig for ReluConfig {
    fn build(&self) -> Result<Box<dyn SearchSpace>> {
        let rows = vec![Row {
            name: "row".into(),
            candidates: ["a", "b"].map(Into::into).to_vec(),
            keep: 1,
        }];
        let (name, role) = ("ops".into(), Role::Operations);
        let edges = None;
        Ok(Box::new(ReluSpace {
            spec: ArchSpec::new(vec![Group {
                name,
                role,
                rows,
                edges,
            }])?,
            batch_norm: self.batch_norm,
            tells: self.tells,
            noise: self.noise,
        }))
    }
}

struct ReluSpace {
    spec: ArchSpec,
    batch_norm: bool,
    tells: bool,
    noise: f64,
}

impl SearchSpace for ReluSpace {
    fn spec(&self) -> &ArchSpec {
        &self.spec
    }

    fn supernet(&self, task: Task, _options: &SupernetOptions) -> Result<Box<dyn Supernet>> {
        let mut layout = ParamLayout::new();
        let mut map = |cell: usize, c: usize| {
            let init = Init::fan_in(WIDTH);
            layout.add(format!("map {cell} {c}"), &[WIDTH, WIDTH], init)
        };
        let maps = [0, 1].map(|cell| [0, 1].map(|c| map(cell, c)));
        let head = layout.add("head", &[task.classes, WIDTH], Init::fan_in(WIDTH));
        let mut stats = ParamLayout::new();
        let seen = stats.add("seen", &[1], Init::Zeros);
        Ok(Box::new(ReluNet {
            layout,
            maps,
            head,
            stats,
            seen,
            batch_norm: self.batch_norm,
            tells: self.tells,
            noise: self.noise,
        }))
    }

    fn genotype(&self, choice: &Choice) -> Genotype {
        let op = Some(["a", "b"][choice.kept(0, 0)[0]].into());
        Genotype {
            space: "fixture-relu".into(),
            cells: vec![Cell {
                name: "cell".into(),
                inputs: vec!["input".into()],
                nodes: vec![Node { op, inputs: vec![] }],
                output: vec![1],
            }],
        }
    }
}

struct ReluNet {
    layout: ParamLayout,
    maps: [[ParamId; 2]; CELLS],
    head: ParamId,
    stats: ParamLayout,
    seen: ParamId,
    batch_norm: bool,
    tells: bool,
    noise: f64,
}

impl Supernet for ReluNet {
    fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    fn stats_layout(&self) -> ParamLayout {
        self.stats.clone()
    }

    fn cells(&self) -> usize {
        CELLS
    }

    fn forward(
        &self,
        weights: Weights<'_>,
        images: &Tensor,
        arch: &RelaxedArch,
        mode: Mode,
        noise: Streams,
    ) -> Result<Tensor> {
        let views = self.layout.views(weights.params);
        let mut x = images.flatten(1, -1);
        for (cell, maps) in self.maps.iter().enumerate() {
            let arch = arch.of_cell(cell);
            let mut sum = x.zeros_like();
            for (column, &map) in maps.iter().enumerate() {
                if !arch.is_active(0, 0, column) {
                    continue;
                }
                let mut z = x.matmul(&views[map].tr());
                if self.batch_norm {
                    let mean = |t: &Tensor| t.mean_dim(Some(0i64), true, None);
                    z = &z - mean(&z);
                    z = &z / (mean(&z.square()) + 0.1).sqrt();
                }
                let name = format!("cells.{cell}.{column}");
                if self.tells {
                    z = observe::relu_input(&z, 1, || name.clone());
                }
                let mut y = z.relu();
                if self.tells {
                    let place = Place::Candidate {
                        cell,
                        group: 0,
                        row: 0,
                        column,
                    };
                    y = observe::candidate(&y, || (name, place));
                }
                sum += y * arch.weights[0].get(0).get(column as i64);
            }
            x = sum;
        }
        if mode == Mode::Train {
            tch::no_grad(|| {
                let mut seen = self.stats.views(weights.stats)[self.seen].shallow_clone();
                let _ = seen.g_add_scalar_(images.size()[0]);
            });
        }
        let logits = x.matmul(&views[self.head].tr());
        let draws = rng::normal(
            &mut noise.at("logits", 0),
            &logits.size(),
            logits.kind(),
            logits.device(),
        );
        Ok(logits + draws * self.noise)
    }
}
