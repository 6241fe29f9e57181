//! Steps of the sparse and variational strategies, number by number where they leave the graph.

use super::*;

fn numbers(t: &Tensor) -> Vec<f64> {
    Vec::try_from(t.detach().contiguous().view([-1])).expect("numbers")
}

/// sign(x) max(|x| − by, 0).
fn soft(x: f64, by: f64) -> f64 {
    if x > by {
        x - by
    } else if x < -by {
        x + by
    } else {
        0.0
    }
}

impl Reference<'_> {
    /// One where a row's candidate is not `none`.
    fn real(row: &Row) -> Tensor {
        let names = row.candidates.iter();
        let mask: Vec<f64> = names.map(|c| f64::from(u8::from(c != "none"))).collect();
        Tensor::from_slice(&mask)
    }

    /// Weights as they are.
    fn raw(&self, alpha: &Tensor) -> Mixture {
        Mixture::of(self.each(&self.rows(alpha), |row, a| a * Self::real(row)))
    }

    /// Places in φ of the candidates but `none` that lead into the same node, or stand in the same row where rows are no
    /// edges.
    fn nodes(&self) -> Vec<Vec<usize>> {
        let (mut nodes, mut at) = (std::collections::BTreeMap::<_, Vec<usize>>::new(), 0);
        for (g, group) in self.spec.groups().iter().enumerate() {
            for (r, row) in group.rows.iter().enumerate() {
                let node = group.edges.as_ref().map_or(r, |e| e.ends[r].1);
                for (c, name) in row.candidates.iter().enumerate() {
                    if name != "none" {
                        nodes.entry((g, node)).or_default().push(at + c);
                    }
                }
                at += group.width();
            }
        }
        nodes.into_values().collect()
    }

    /// DATA's ensemble: M one-hot draws a row, what any of them hit divided by how many that are, the gradient that of the
    /// draws that hit (of all, where none did).
    pub(super) fn data(&self, state: &mut State, step: &Step<'_>) {
        let c = self.strategy;
        let (from, to) = (number(c, "tau_max"), number(c, "tau_min"));
        let tau = from + (to - from) * step.epoch / (number(self.trainer, "epochs") - 1.0);
        let m = number(c, "draws") as i64;
        let probabilities = |alpha: &Tensor| {
            self.each(&self.rows(alpha), |_, a| {
                let positive = a.clamp_min(0.0);
                &positive / (positive.sum(Kind::Double) + 1e-7)
            })
        };
        let draw = |alpha: &Tensor, stream: &str| {
            let shape = [m, self.spec.numel()];
            let rng = &mut (step.rng)(stream);
            let noise = gumbel(rng, &shape, Kind::Double, Device::Cpu);
            let noise: Vec<_> = (0..m).map(|d| self.rows(&noise.get(d))).collect();
            let rows = probabilities(alpha);
            let weigh = |(g, rows): (usize, &Vec<Tensor>)| {
                let row = |(r, p): (usize, &Tensor)| {
                    let n = p.size()[0];
                    let draws: Vec<(i64, Tensor)> = noise
                        .iter()
                        .map(|noise| {
                            let z = ((p + 1e-10).log() + &noise[g][r]) / tau;
                            (
                                z.argmax(0, false).int64_value(&[]),
                                z.softmax(0, Kind::Double),
                            )
                        })
                        .collect();
                    let codes = (0..n).map(|c| {
                        let hits = draws.iter().filter(|(best, _)| *best == c).count();
                        let counts = |best: i64| hits == 0 || best == c;
                        let own = draws.iter().filter(|(best, _)| counts(*best));
                        let straight = own.map(|(best, h)| {
                            let h = h.get(c);
                            &h - h.detach() + f64::from(u8::from(*best == c))
                        });
                        let share = if hits == 0 { draws.len() } else { hits };
                        straight.reduce(|a, b| a + b).expect("draws") / share as f64
                    });
                    let code = Tensor::stack(&codes.collect::<Vec<_>>(), 0);
                    &code / code.sum(Kind::Double)
                };
                rows.iter().enumerate().map(row).collect()
            };
            Mixture::of(rows.iter().enumerate().map(weigh).collect())
        };
        let distance = |alpha: &Tensor| {
            let drawn = no_grad(|| draw(alpha, "architecture step")).weights;
            let groups = probabilities(alpha).into_iter().zip(drawn);
            let terms = groups.map(|(p, a)| {
                let count: i64 = p.iter().map(|p| p.size()[0]).sum();
                let all = p
                    .iter()
                    .zip(&a)
                    .map(|(p, a)| (p - a).abs().sum(Kind::Double));
                all.reduce(|a, b| a + b).expect("rows") / count as f64
            });
            terms.reduce(|a, b| a + b).expect("groups") * number(c, "distance")
        };
        self.alpha_half(state, step, &|a| draw(a, "architecture step"), &distance);
        let fixed = no_grad(|| draw(&state.alpha, "weight step"));
        self.w_half(state, step, &fixed);
    }

    /// DSO-NAS's equations 10 to 12, after the weights' half; what is zero when an epoch ends is gone.
    pub(super) fn dso_nas(&self, state: &mut State, step: &Step<'_>) {
        if step.within == 0.0 && step.epoch > 0.0 {
            let real = self.nodes().concat();
            let real: Vec<bool> = (0..state.alpha.numel())
                .map(|i| real.contains(&i))
                .collect();
            let left = state
                .alpha
                .not_equal(0.0)
                .logical_and(&Tensor::from_slice(&real));
            state.alive = state.alive.logical_and(&left);
            state.proximal = state.proximal.masked_fill(&state.alive.logical_not(), 0.0);
        }
        let alive = state.alive.to_kind(Kind::Double);
        let arch = |lambda: &Tensor| self.raw(&(lambda * &alive));
        let fixed = no_grad(|| arch(&state.alpha));
        self.w_half(state, step, &fixed);
        let lambda = leaf(&state.alpha);
        let loss = self.loss(&state.w, &arch(&lambda), &(step.val)());
        let g = numbers(&slopes(&loss, &[&lambda]).remove(0));
        let c = self.strategy;
        let (gamma, mu, clip) = (number(c, "gamma"), number(c, "momentum"), number(c, "clip"));
        let eta = self.eta(step);
        let (mut lambda, mut m) = (numbers(&state.alpha), numbers(&state.proximal));
        for i in 0..g.len() {
            let z = soft(lambda[i] - eta * g[i].clamp(-clip, clip), eta * gamma);
            m[i] = mu * m[i] + z - lambda[i];
            lambda[i] = f64::max(0.0, z + mu * m[i]);
        }
        state.alpha = Tensor::from_slice(&lambda);
        state.proximal = Tensor::from_slice(&m);
    }

    /// SparseNAS with Adam: the proximal step of l1 ‖α‖₁ + l2 Σ √n ‖α_node‖₂ in Adam's metric.
    pub(super) fn sparse_nas(&self, state: &mut State, step: &Step<'_>) {
        self.alpha_half(state, step, &|a| self.raw(a), &|_| Tensor::from(0.0));
        let (c, adam) = (self.strategy, &self.strategy["arch"]);
        let decay: f64 = adam["betas"][1].as_f64().expect("a decay rate");
        let second = numbers(&state.moments[1]);
        let unbiased = 1.0 - decay.powi(state.steps);
        let eta: Vec<f64> = second
            .iter()
            .map(|v| number(adam, "lr") / ((v / unbiased).sqrt() + 1e-8))
            .collect();
        let mut alpha = numbers(&state.alpha);
        for node in self.nodes() {
            let l2 = number(c, "l2") * (node.len() as f64).sqrt();
            let l1 = number(c, "l1");
            let u: Vec<f64> = node.iter().map(|&i| soft(alpha[i], eta[i] * l1)).collect();
            // z_i = u_i t / (t + η_i l2) with t = ‖z‖: iterated until it stays.
            let mut t = u.iter().map(|u| u * u).sum::<f64>().sqrt();
            for _ in 0..100_000 {
                let sizes = node
                    .iter()
                    .zip(&u)
                    .map(|(&i, u)| (u * t / (t + eta[i] * l2)).powi(2));
                let next = sizes.sum::<f64>().sqrt();
                if t == 0.0 || (next - t).abs() < 1e-16 * t {
                    break;
                }
                t = next;
            }
            for (&i, u) in node.iter().zip(&u) {
                alpha[i] = if t < 1e-12 {
                    0.0
                } else {
                    u * t / (t + eta[i] * l2)
                };
            }
        }
        state.alpha = Tensor::from_slice(&alpha);
        let fixed = no_grad(|| self.raw(&state.alpha));
        self.w_half(state, step, &fixed);
    }

    /// SI-VDNAS: W = θ (1 + √(a e^u) ε), u = m + σ ξ of each row, and the mean divergence of its parts.
    pub(super) fn vdnas(&self, state: &mut State, step: &Step<'_>) {
        let n = self.spec.numel();
        let rows = self.spec.rows().count() as i64;
        let both = |phi: &Tensor, stream: &str| {
            let rng = &mut (step.rng)(stream);
            let options = (Kind::Double, Device::Cpu);
            let epsilon = rng::normal(rng, &[n], options.0, options.1);
            let xi = rng::normal(rng, &[rows], options.0, options.1);
            let u = phi.narrow(0, 2 * n, rows) + phi.narrow(0, 2 * n + rows, rows).exp() * xi;
            let (means, rates) = (self.rows(phi), self.rows(&phi.narrow(0, n, n)));
            let noise = self.rows(&epsilon);
            let mut at = 0;
            let (mut weights, mut divergence): (_, Tensor) = (vec![], Tensor::from(0.0));
            for (g, group) in self.spec.groups().iter().enumerate() {
                let mut of_group = vec![];
                for (r, row) in group.rows.iter().enumerate() {
                    let log_a = &rates[g][r] + u.get(at);
                    at += 1;
                    let real = Self::real(row);
                    let a: Tensor = log_a.exp();
                    of_group.push(&means[g][r] * (a.sqrt() * &noise[g][r] + 1.0) * &real);
                    let logistic = ((&log_a * 1.48695 + 1.87320) * -1.0).exp() + 1.0;
                    let kl: Tensor = logistic.reciprocal() * -0.63576
                        + 0.63576
                        + (a.reciprocal() + 1.0).log() * 0.5;
                    divergence += (kl * real).sum(Kind::Double);
                }
                weights.push(of_group);
            }
            (Mixture::of(weights), divergence)
        };
        let images = 2.0 * number(self.trainer, "batch_size");
        let kl = number(self.strategy, "kl") / images;
        self.alpha_half(
            state,
            step,
            &|phi| both(phi, "architecture step").0,
            &|phi| both(phi, "architecture step").1 * kl,
        );
        let fixed = no_grad(|| both(&state.alpha, "weight step").0);
        self.w_half(state, step, &fixed);
    }
}
