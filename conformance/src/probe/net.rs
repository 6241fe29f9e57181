//! The network of the suite's own problem.

use tch::{Kind, Tensor};

use nasfw_framework::arch::{ArchSpec, RelaxedArch, Row};
use nasfw_framework::params::{Init, ParamId, ParamLayout};
use nasfw_framework::rng::{self, Streams};
use nasfw_framework::space::Task;
use nasfw_framework::supernet::{Mode, OwnWeights, Supernet, SupernetOptions, Weights};
use nasfw_framework::{Error, Result};

/// Logits are the sum over rows of Σ a W x over the row's candidates; the loss is half the squared distance to the one-hot
/// label. What a strategy asks of the supernet means this here, for the fixed vector v, one number a class:
///
/// - candidates that are not allowed have no W;
/// - of partial channels W sees the first 1/K of x, and the row adds Σ a · (sum of the others) v;
/// - with the auxiliary skip a row adds its scalar · (sum of x) v;
/// - drop path drops a row's Σ a W x and its bypass, image by image;
/// - an offset is added to every number of a row.
pub(super) struct ProbeNet {
    layout: ParamLayout,
    rows: Vec<ProbeRow>,
    options: SupernetOptions,
    classes: i64,
}

struct ProbeRow {
    name: String,
    /// Group and row.
    at: (usize, usize),
    /// Candidates that exist.
    maps: Vec<(usize, ParamId)>,
}

impl ProbeNet {
    pub fn new(spec: &ArchSpec, task: Task, options: &SupernetOptions) -> Result<Self> {
        options.check(spec)?;
        let features = task.channels * task.height * task.width;
        let k = options.partial();
        if features % k != 0 {
            return Err(Error::Incompatible {
                what: "partial channels on the conformance suite's own problem".into(),
                why: format!("{features} features can't be split into {k} equal parts"),
                help: "choose a divisor, such as 2 or 4".into(),
            });
        }
        let mut layout = ParamLayout::new();
        // In the order of names, whatever the order of rows: both labellings have one vector of weights.
        let mut rows: Vec<(&str, usize, usize, &Row)> = (spec.rows())
            .map(|(g, r, row)| (row.name.as_str(), g, r, row))
            .collect();
        rows.sort_by_key(|(name, ..)| *name);
        let rows = rows.into_iter().map(|(name, g, r, row)| {
            let mut names: Vec<(&str, usize)> = (row.candidates.iter().enumerate())
                .filter(|(c, _)| options.allows(g, r, *c))
                .map(|(c, name)| (name.as_str(), c))
                .collect();
            names.sort_unstable();
            let maps = names.into_iter().map(|(candidate, c)| {
                let (shape, init) = ([task.classes, features / k], Init::fan_in(features / k));
                (c, layout.add(format!("{name} {candidate}"), &shape, init))
            });
            let maps = maps.collect();
            ProbeRow {
                name: name.to_owned(),
                at: (g, r),
                maps,
            }
        });
        let rows = rows.collect();
        Ok(Self {
            layout,
            rows,
            options: options.clone(),
            classes: task.classes,
        })
    }
}

impl Supernet for ProbeNet {
    fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    fn own_weights(&self) -> Vec<OwnWeights> {
        let rows = self.rows.iter();
        rows.flat_map(|row| {
            let (group, r) = row.at;
            row.maps.iter().map(move |(column, map)| OwnWeights {
                cell: 0,
                group,
                row: r,
                column: *column,
                stretches: vec![self.layout.stretch(*map, 0, 1)],
            })
        })
        .collect()
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
        let x = images.flatten(1, -1);
        let options = (x.kind(), x.device());
        let (n, features) = x.size2()?;
        let fixed = Tensor::arange_start(1, self.classes + 1, options) / self.classes as f64;
        let through_fixed =
            |x: &Tensor| x.sum_dim_intlist([1i64].as_slice(), true, x.kind()) * &fixed;
        let part = features / self.options.partial();
        let (seen, others) = (x.narrow(1, 0, part), x.narrow(1, part, features - part));
        let bypass = (part < features).then(|| through_fixed(&others));
        let sums: Vec<Tensor> = (0..arch.weights.len())
            .map(|g| self.options.row_sums(arch, g))
            .collect();
        let auxiliary = self.options.auxiliary(arch);
        let (_, drop) = self.options.rates(arch, mode)?;
        let mut logits = Tensor::zeros([n, self.classes], options);
        for row in &self.rows {
            let (g, r) = row.at;
            let weight = |c: usize| arch.weights[g].get(r as i64).get(c as i64);
            let computed = row.maps.iter().filter(|(c, _)| arch.is_active(g, r, *c));
            let terms = computed.map(|(c, map)| seen.matmul(&views[*map].tr()) * weight(*c));
            if let Some(mut sum) = terms.reduce(|a, b| a + b) {
                if let Some(bypass) = &bypass {
                    sum += bypass * sums[g].get(r as i64);
                }
                if drop > 0.0 {
                    let rng = &mut noise.at(&format!("drop-path {}", row.name), 0);
                    let kept = rng::uniform(rng, &[n, 1], Kind::Double, x.device()).ge(drop);
                    sum *= kept.to_kind(x.kind()) / (1.0 - drop);
                }
                logits += sum;
            }
            if auxiliary != 0.0 {
                logits += through_fixed(&x) * auxiliary;
            }
            if let Some(offsets) = &arch.offsets {
                logits += offsets[g].get(r as i64);
            }
        }
        Ok(logits)
    }

    fn loss(&self, output: &Tensor, labels: &Tensor) -> Tensor {
        let wanted = labels.one_hot(output.size()[1]).to_kind(output.kind());
        (output - wanted).square().sum(output.kind()) * (0.5 / labels.numel() as f64)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;
    use tch::Device;

    use super::super::{PROBE, relabel};
    use super::*;
    use crate as conformance;
    use nasfw_framework::space::{SearchSpace, SpaceConfig};

    const TASK: Task = Task {
        channels: 1,
        height: 2,
        width: 2,
        classes: 3,
    };

    fn probe(reversed: bool) -> Box<dyn SearchSpace> {
        let config = json!({"name": PROBE, "reversed": reversed});
        let config: Box<dyn SpaceConfig> = serde_json::from_value(config).unwrap();
        config.build().unwrap()
    }

    #[test]
    fn it_conforms_and_takes_what_it_says() {
        let space = probe(false);
        let net = space.supernet(TASK, &SupernetOptions::default()).unwrap();
        let report = conformance::supernet("probe", space.as_ref(), net.as_ref(), TASK);
        report.ok().unwrap();
        let third = SupernetOptions {
            partial_channels: Some(3),
            ..Default::default()
        };
        let error = space.supernet(TASK, &third).err().unwrap();
        assert!(error.to_string().contains("3 equal parts"));
    }

    /// Whatever is asked for, the order of rows and candidates decides nothing.
    #[test]
    fn both_labellings_have_one_output() {
        let streams = Streams::new(3);
        let options = (Kind::Double, Device::Cpu);
        let draw = |name: &str, shape: &[i64]| {
            rng::normal(&mut streams.at(name, 0), shape, options.0, options.1)
        };
        let (straight, reversed) = (probe(false), probe(true));
        let spec = straight.spec();
        let flat = draw("weights", &[spec.numel()]);
        let offsets: Vec<Tensor> = spec
            .groups()
            .iter()
            .map(|g| draw(&g.name, &[g.rows.len() as i64]))
            .collect();
        let mut allowed: Vec<Vec<Vec<bool>>> = spec
            .groups()
            .iter()
            .map(|g| {
                g.rows
                    .iter()
                    .map(|r| vec![true; r.candidates.len()])
                    .collect()
            })
            .collect();
        allowed[1][0][2] = false;
        let output = |space: &dyn SearchSpace, turned: bool| {
            let (mut allowed, flat, mut offsets) = (
                allowed.clone(),
                flat.copy(),
                offsets.iter().map(Tensor::copy).collect::<Vec<_>>(),
            );
            let flat = if turned { relabel(spec, &flat) } else { flat };
            if turned {
                for rows in &mut allowed {
                    rows.reverse();
                    rows.iter_mut().for_each(|row| row.reverse());
                }
                offsets = offsets.iter().map(|o| o.flip([0])).collect();
            }
            let asked = SupernetOptions {
                allowed: Some(allowed),
                partial_channels: Some(2),
                auxiliary_skip: true,
                drop_path: true,
                ..Default::default()
            };
            let net = space.supernet(TASK, &asked).unwrap();
            let params = net.init(streams, options.0, options.1).unwrap();
            let mut arch = RelaxedArch::new(space.spec().split(&flat));
            arch.offsets = Some(offsets);
            for scalar in ["auxiliary-skip", "drop-path"] {
                arch.scalars.insert(scalar.into(), 0.5);
            }
            let weights = Weights {
                params: &params,
                stats: &Tensor::zeros([0], options),
            };
            net.forward(
                weights,
                &draw("images", &[5, 1, 2, 2]),
                &arch,
                Mode::Train,
                streams,
            )
            .unwrap()
        };
        let (a, b) = (
            output(straight.as_ref(), false),
            output(reversed.as_ref(), true),
        );
        assert!((&a - b).abs().max().double_value(&[]) < 1e-12);
        assert!(a.isfinite().all().int64_value(&[]) == 1);
    }
}
