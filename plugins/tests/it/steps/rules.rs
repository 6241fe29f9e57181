//! Update steps as the papers write them, in plain operators: the equations, the two optimizers, the schedules.

mod sparse;

use nasfw_framework::distribution::gumbel;
use nasfw_framework::prelude::*;
use nasfw_framework::rng;
use serde_json::Value;
use tch::{Device, Kind, Tensor, no_grad};

use super::plain::{self, Mixture, Named};

/// The numbers that a search keeps from step to step.
pub struct State {
    pub w: Tensor,
    pub alpha: Tensor,
    pub momentum: Tensor,
    /// Adam's moments.
    pub moments: [Tensor; 2],
    pub steps: i32,
    /// Momentum of a proximal step.
    pub proximal: Tensor,
    /// What is not pruned, `[parameters]` of bool.
    pub alive: Tensor,
}

/// What a step is taken on.
pub struct Step<'a> {
    pub train: Batch,
    /// The next batch of the architecture's half.
    pub val: &'a dyn Fn() -> Batch,
    pub epoch: f64,
    /// Share of the epoch's steps that are done.
    pub within: f64,
    /// The random numbers of the search's own step, by the name of their stream.
    pub rng: &'a dyn Fn(&str) -> Rng,
    /// The search's own draws at an α, per group `[rows, width]`.
    pub draw: &'a dyn Fn(&Tensor, &str) -> Vec<Tensor>,
}

/// A supernet, and the settings of trainer and strategy.
pub struct Reference<'a> {
    pub spec: &'a ArchSpec,
    pub layout: &'a ParamLayout,
    pub space: &'a str,
    pub cells: usize,
    pub trainer: &'a Value,
    pub strategy: &'a Value,
}

fn number(of: &Value, key: &str) -> f64 {
    of[key].as_f64().unwrap_or_else(|| panic!("{key} of {of}"))
}

fn slopes(loss: &Tensor, leaves: &[&Tensor]) -> Vec<Tensor> {
    let found = Tensor::f_run_backward(&[loss], leaves, false, false);
    found.expect("every leaf is used")
}

fn leaf(t: &Tensor) -> Tensor {
    t.detach().copy().set_requires_grad(true)
}

impl Reference<'_> {
    /// One step of the strategy.
    pub fn step(&self, state: &mut State, step: &Step<'_>) {
        match self.strategy["name"].as_str().expect("a name") {
            "darts" if self.strategy["order"] == 2 => self.unrolled_darts(state, step),
            "darts" => self.bilevel(state, step, &|a| self.softmax(a)),
            "pc-darts" => self.pc_darts(state, step),
            "fair-darts" => self.fair_darts(state, step),
            "sdarts-rs" | "sdarts-adv" => self.smooth_darts(state, step),
            "drnas" => self.drnas(state, step),
            "gdas" => self.gdas(state, step),
            "data" => self.data(state, step),
            "dso-nas" => self.dso_nas(state, step),
            "sparse-nas" => self.sparse_nas(state, step),
            "vdnas" => self.vdnas(state, step),
            other => panic!("strategy {other}"),
        }
    }

    // ---- supernets --------------------------------------------------------------------------------------------------

    /// Cross-entropy, averaged over the batch.
    fn loss(&self, w: &Tensor, arch: &Mixture, batch: &Batch) -> Tensor {
        let p = &Named::new(self.layout, w);
        let network = match self.space {
            "darts" => plain::darts,
            "nasbench201" => plain::nasbench201,
            _ => plain::one_shot,
        };
        let logits = network(p, self.spec, self.cells, &batch.images, arch);
        let of_label =
            logits
                .log_softmax(-1, Kind::Double)
                .gather(1, &batch.labels.unsqueeze(1), false);
        -of_label.mean(Kind::Double)
    }

    /// α by group and row, without padding.
    fn rows(&self, flat: &Tensor) -> Vec<Vec<Tensor>> {
        let groups = self.spec.split(&flat.narrow(0, 0, self.spec.numel()));
        let row = |m: &Tensor, r: usize, row: &Row| {
            m.get(r as i64).narrow(0, 0, row.candidates.len() as i64)
        };
        let pairs = self.spec.groups().iter().zip(&groups);
        pairs
            .map(|(g, m)| {
                g.rows
                    .iter()
                    .enumerate()
                    .map(|(r, of)| row(m, r, of))
                    .collect()
            })
            .collect()
    }

    fn each(&self, rows: &[Vec<Tensor>], f: impl Fn(&Row, &Tensor) -> Tensor) -> Vec<Vec<Tensor>> {
        let groups = self.spec.groups().iter().zip(rows);
        groups
            .map(|(g, rows)| g.rows.iter().zip(rows).map(|(row, t)| f(row, t)).collect())
            .collect()
    }

    fn softmax(&self, alpha: &Tensor) -> Mixture {
        Mixture::of(self.each(&self.rows(alpha), |_, a| a.softmax(-1, Kind::Double)))
    }

    // ---- optimizers -------------------------------------------------------------------------------------------------

    /// η of the weights: half a cosine over the epochs, moved once an epoch or with every step.
    fn eta(&self, step: &Step<'_>) -> f64 {
        let (c, epochs) = (&self.trainer["weights"], number(self.trainer, "epochs"));
        let within = if self.trainer["schedule_by"] == "step" {
            step.within
        } else {
            0.0
        };
        let (from, to) = (number(c, "lr"), number(c, "lr_min"));
        to + (from - to) * (1.0 + (std::f64::consts::PI * (step.epoch + within) / epochs).cos())
            / 2.0
    }

    /// SGD with momentum, L2 decay and a largest norm: m ← μ m + g + λ w, w ← w − η m (Nesterov: w − η (g + λ w + μ m)).
    fn descend_w(&self, state: &mut State, gradient: &Tensor, step: &Step<'_>) {
        let c = &self.trainer["weights"];
        let shrunk = (number(c, "clip") / (gradient.norm().double_value(&[]) + 1e-6)).min(1.0);
        no_grad(|| {
            let g = gradient * shrunk + &state.w * number(c, "weight_decay");
            state.momentum = &state.momentum * number(c, "momentum") + &g;
            let change = match c["nesterov"].as_bool() {
                Some(true) => &state.momentum * number(c, "momentum") + g,
                _ => state.momentum.shallow_clone(),
            };
            state.w = &state.w - change * self.eta(step);
        });
    }

    /// Adam with L2 decay and, where that is asked for, a largest norm.
    fn descend_alpha(&self, state: &mut State, gradient: &Tensor) {
        let base = &self.strategy["base"]["arch"];
        let c = if base.is_null() {
            &self.strategy["arch"]
        } else {
            base
        };
        let [b1, b2] = [0, 1].map(|i| c["betas"][i].as_f64().expect("a decay rate"));
        let clip = number(c, "clip");
        let norm = gradient.norm().double_value(&[]) + 1e-6;
        let shrunk = if clip > 0.0 {
            (clip / norm).min(1.0)
        } else {
            1.0
        };
        no_grad(|| {
            let g = gradient * shrunk + &state.alpha * number(c, "weight_decay");
            let [m, v] = &state.moments;
            let (m, v) = (m * b1 + &g * (1.0 - b1), v * b2 + g.square() * (1.0 - b2));
            state.steps += 1;
            let (m_hat, v_hat) = (
                &m / (1.0 - b1.powi(state.steps)),
                &v / (1.0 - b2.powi(state.steps)),
            );
            state.alpha = &state.alpha - m_hat / (v_hat.sqrt() + 1e-8) * number(c, "lr");
            state.moments = [m, v];
        });
    }

    // ---- strategies -------------------------------------------------------------------------------------------------

    /// α along ∇_α (L_val(w, A(α)) + extra).
    fn alpha_half(
        &self,
        state: &mut State,
        step: &Step<'_>,
        arch: &dyn Fn(&Tensor) -> Mixture,
        extra: &dyn Fn(&Tensor) -> Tensor,
    ) {
        let alpha = leaf(&state.alpha);
        let loss = self.loss(&state.w, &arch(&alpha), &(step.val)()) + extra(&alpha);
        let g = slopes(&loss, &[&alpha]).remove(0);
        self.descend_alpha(state, &g);
    }

    /// w along ∇_w L_train(w, A).
    fn w_half(&self, state: &mut State, step: &Step<'_>, arch: &Mixture) {
        let w = leaf(&state.w);
        let g = slopes(&self.loss(&w, arch, &step.train), &[&w]).remove(0);
        self.descend_w(state, &g, step);
    }

    /// First-order bilevel descent: DARTS's algorithm 1 with ξ = 0.
    fn bilevel(&self, state: &mut State, step: &Step<'_>, arch: &dyn Fn(&Tensor) -> Mixture) {
        self.alpha_half(state, step, arch, &|_| Tensor::from(0.0));
        let fixed = no_grad(|| arch(&state.alpha));
        self.w_half(state, step, &fixed);
    }

    /// DARTS's equations 6 to 8, with momentum and decay in the virtual step as in the authors' code.
    fn unrolled_darts(&self, state: &mut State, step: &Step<'_>) {
        let (c, xi) = (&self.trainer["weights"], self.eta(step));
        let fixed = no_grad(|| self.softmax(&state.alpha));
        let w = leaf(&state.w);
        let g = slopes(&self.loss(&w, &fixed, &step.train), &[&w]).remove(0);
        let virtually = no_grad(|| {
            &w - (&state.momentum * number(c, "momentum") + g + &w * number(c, "weight_decay")) * xi
        });
        let (w_virtual, alpha) = (leaf(&virtually), leaf(&state.alpha));
        let loss = self.loss(&w_virtual, &self.softmax(&alpha), &(step.val)());
        let found = slopes(&loss, &[&alpha, &w_virtual]);
        let (direct, v) = (&found[0], &found[1]);
        let epsilon = 0.01 / v.norm().double_value(&[]);
        let beside = |sign: f64| {
            let alpha = leaf(&state.alpha);
            let loss = self.loss(
                &(&state.w + v * (sign * epsilon)),
                &self.softmax(&alpha),
                &step.train,
            );
            slopes(&loss, &[&alpha]).remove(0)
        };
        let second = (beside(1.0) - beside(-1.0)) / (2.0 * epsilon);
        self.descend_alpha(state, &(direct - second * xi));
        let fixed = no_grad(|| self.softmax(&state.alpha));
        self.w_half(state, step, &fixed);
    }

    /// Equations 2 and 3 of PC-DARTS; the architecture rests at first.
    fn pc_darts(&self, state: &mut State, step: &Step<'_>) {
        let arch = |phi: &Tensor| {
            let mut at = self.spec.numel();
            let weighed = self.spec.groups().iter().map(|group| {
                let Some(edges) = &group.edges else {
                    return Tensor::ones([group.rows.len() as i64], (Kind::Double, Device::Cpu));
                };
                let beta = phi.narrow(0, at, edges.ends.len() as i64);
                at += edges.ends.len() as i64;
                let row = |r: usize| {
                    let same =
                        (0..edges.ends.len()).filter(|&e| edges.ends[e].1 == edges.ends[r].1);
                    let all = same.map(|e| beta.get(e as i64).exp()).reduce(|a, b| a + b);
                    beta.get(r as i64).exp() / all.expect("itself")
                };
                Tensor::stack(&(0..edges.ends.len()).map(row).collect::<Vec<_>>(), 0)
            });
            Mixture {
                edges: Some(weighed.collect()),
                partial: number(self.strategy, "partial_channels") as i64,
                ..self.softmax(phi)
            }
        };
        if (step.epoch + step.within) / number(self.trainer, "epochs")
            >= number(self.strategy, "arch_start")
        {
            return self.bilevel(state, step, &arch);
        }
        let fixed = no_grad(|| arch(&state.alpha));
        self.w_half(state, step, &fixed);
    }

    /// Equations 3, 5 and 6 of FairDARTS: σ weights, no `none`, L_val − w₀₁ mean (σ − ½)².
    fn fair_darts(&self, state: &mut State, step: &Step<'_>) {
        let real = |row: &Row, t: &Tensor| {
            let names = row.candidates.iter();
            let mask: Vec<f64> = names.map(|c| f64::from(u8::from(c != "none"))).collect();
            t * Tensor::from_slice(&mask)
        };
        let arch = |alpha: &Tensor| {
            Mixture::of(self.each(&self.rows(alpha), |row, a| real(row, &a.sigmoid())))
        };
        let zero_one = |alpha: &Tensor| {
            let of_row =
                |row: &Row, a: &Tensor| real(row, &(a.sigmoid() - 0.5).square()).sum(Kind::Double);
            let away = self.each(&self.rows(alpha), of_row).into_iter().flatten();
            let count: usize = self
                .spec
                .rows()
                .map(|(_, _, row)| row.candidates.iter().filter(|c| *c != "none").count())
                .sum();
            -away.reduce(|a, b| a + b).expect("rows") / count as f64
                * number(self.strategy, "zero_one")
        };
        self.alpha_half(state, step, &arch, &zero_one);
        let fixed = no_grad(|| arch(&state.alpha));
        self.w_half(state, step, &fixed);
    }

    /// Equations 6 and 7 of SmoothDARTS: the weights descend at p moved by at most ε, at random or to the worst.
    fn smooth_darts(&self, state: &mut State, step: &Step<'_>) {
        self.alpha_half(state, step, &|a| self.softmax(a), &|_| Tensor::from(0.0));
        let radius = &self.strategy["radius"];
        let (start, end) = (number(radius, "start"), number(radius, "end"));
        let epsilon = start + (end - start) * step.epoch / number(self.trainer, "epochs");
        let p = no_grad(|| self.softmax(&state.alpha)).weights;
        // Π: inside [0, 1], divided by its sum, which is above zero here.
        let project = |q: &Tensor| {
            let q = q.clamp(0.0, 1.0);
            let sum = q.sum(Kind::Double);
            assert!(sum.double_value(&[]) > 0.0);
            q / sum
        };
        let rng = &mut (step.rng)("perturbation");
        let uniform: Vec<Tensor> = (self.spec.groups().iter())
            .map(|g| rng::uniform(rng, &g.shape(), Kind::Double, Device::Cpu) * 2.0 - 1.0)
            .collect();
        let moved = |f: &dyn Fn(usize, usize, &Tensor) -> Tensor| -> Vec<Vec<Tensor>> {
            let groups = p.iter().enumerate();
            groups
                .map(|(g, rows)| rows.iter().enumerate().map(|(r, p)| f(g, r, p)).collect())
                .collect()
        };
        let mut q = moved(&|g, r, p| {
            project(&(p + uniform[g].get(r as i64).narrow(0, 0, p.size()[0]) * epsilon))
        });
        if self.strategy["name"] == "sdarts-adv" {
            let steps = number(self.strategy, "attack_steps") as usize;
            let loss = |q: &[Vec<Tensor>]| {
                let copy = |rows: &Vec<Tensor>| rows.iter().map(Tensor::shallow_clone).collect();
                self.loss(
                    &state.w,
                    &Mixture::of(q.iter().map(copy).collect()),
                    &step.train,
                )
            };
            for _ in 0..steps {
                let leaves: Vec<Vec<Tensor>> = q
                    .iter()
                    .map(|rows| rows.iter().map(leaf).collect())
                    .collect();
                let up = slopes(&loss(&leaves), &leaves.iter().flatten().collect::<Vec<_>>());
                let mut up = up.into_iter();
                let climbed: Vec<Vec<Tensor>> = leaves
                    .iter()
                    .map(|rows| {
                        rows.iter()
                            .map(|q| {
                                q.detach()
                                    + up.next().expect("a slope").sign()
                                        * (2.0 * epsilon / steps as f64)
                            })
                            .collect()
                    })
                    .collect();
                q = moved(&|g, r, p| project(&(p + (&climbed[g][r] - p).clamp(-epsilon, epsilon))));
            }
            if no_grad(|| loss(&q).double_value(&[]) < loss(&p).double_value(&[])) {
                q = p;
            }
        }
        self.w_half(state, step, &Mixture::of(q));
    }

    /// DrNAS: θ ~ Dir(elu(α) + 1), differentiated pathwise (Jankowiak & Obermeyer 2018): ∂θ_j/∂c_i = G_i (δ_ij − θ_j).
    fn drnas(&self, state: &mut State, step: &Step<'_>) {
        // In DARTS's space `none` is no candidate.
        let compete = |g: usize| {
            self.spec.groups()[g]
                .edges
                .as_ref()
                .is_some_and(|e| e.keep.is_some())
        };
        let there = |g: usize, row: &Row| -> Vec<i64> {
            let real = |c: &usize| !(compete(g) && row.candidates[*c] == "none");
            (0..row.candidates.len())
                .filter(real)
                .map(|c| c as i64)
                .collect()
        };
        let drawn =
            |stream: &str, alpha: &Tensor| Mixture::of(self.rows_of(&(step.draw)(alpha, stream)));

        let arch = drawn("architecture step", &state.alpha);
        let leaves: Vec<Vec<Tensor>> = arch
            .weights
            .iter()
            .map(|rows| rows.iter().map(leaf).collect())
            .collect();
        let all: Vec<&Tensor> = leaves.iter().flatten().collect();
        let copy = |rows: &Vec<Tensor>| rows.iter().map(Tensor::shallow_clone).collect();
        let loss = self.loss(
            &state.w,
            &Mixture::of(leaves.iter().map(copy).collect()),
            &(step.val)(),
        );
        let mut up = slopes(&loss, &all).into_iter();
        let rows = self.rows(&state.alpha);
        let mut pieces = vec![];
        for (g, group) in self.spec.groups().iter().enumerate() {
            for (r, row) in group.rows.iter().enumerate() {
                let columns = Tensor::from_slice(&there(g, row));
                let pick = |t: &Tensor| t.index_select(0, &columns);
                let (alpha, theta, slope) = (
                    pick(&rows[g][r]),
                    pick(&arch.weights[g][r]),
                    pick(&up.next().expect("a slope")),
                );
                let c = alpha.elu() + 1.0;
                let total = c.sum(Kind::Double).expand_as(&c).contiguous();
                let g_i = Tensor::internal_dirichlet_grad(&theta, &c, &total);
                let of_c = g_i * (&slope - (&theta * &slope).sum(Kind::Double));
                // elu' is 1 above zero and e^α below.
                let of_alpha = of_c * alpha.clamp_max(0.0).exp();
                pieces.push(
                    Tensor::zeros([group.width() as i64], (Kind::Double, Device::Cpu))
                        .index_add(0, &columns, &of_alpha),
                );
            }
        }
        self.descend_alpha(state, &Tensor::cat(&pieces, 0));
        let arch = drawn("weight step", &state.alpha);
        self.w_half(state, step, &arch);
    }

    fn rows_of(&self, matrices: &[Tensor]) -> Vec<Vec<Tensor>> {
        let flat: Vec<Tensor> = matrices.iter().map(|m| m.reshape([-1])).collect();
        self.rows(&Tensor::cat(&flat, 0))
    }

    /// GDAS's equations 3 and 4: h = softmax((α + G) / τ), one-hot forward, h backward; weights first.
    fn gdas(&self, state: &mut State, step: &Step<'_>) {
        let c = self.strategy;
        let (from, to) = (number(c, "tau_max"), number(c, "tau_min"));
        let tau = from + (to - from) * step.epoch / (number(self.trainer, "epochs") - 1.0);
        let draw = |alpha: &Tensor, stream: &str| {
            let noise = gumbel(
                &mut (step.rng)(stream),
                &[self.spec.numel()],
                Kind::Double,
                Device::Cpu,
            );
            let h = self.each(&self.rows(&((alpha + noise) / tau)), |_, z| {
                z.softmax(-1, Kind::Double)
            });
            let mut mixture = Mixture::of(h);
            mixture.others = c["gradient"] == "official";
            for (g, group) in self
                .spec
                .groups()
                .iter()
                .enumerate()
                .filter(|(_, g)| g.role == Role::Operations)
            {
                for r in 0..group.rows.len() {
                    let h = &mut mixture.weights[g][r];
                    let best = h.argmax(0, false);
                    *h = best.one_hot(h.size()[0]).to_kind(Kind::Double) + &*h - h.detach();
                    mixture.drawn[g][r] = Some(best.int64_value(&[]) as usize);
                }
            }
            mixture
        };
        let fixed = no_grad(|| draw(&state.alpha, "weight step"));
        self.w_half(state, step, &fixed);
        self.alpha_half(state, step, &|a| draw(a, "architecture step"), &|_| {
            Tensor::from(0.0)
        });
    }
}
