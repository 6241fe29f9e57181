"""Strategies in Python for tests. The first two are also written in Rust, so that every bit can be compared."""

import math

import torch

import nasfw


class AnnealedPy(nasfw.Strategy):
    """Softmax with a temperature that falls over the run."""

    # Temperature at the start.
    hot: float = 5.0
    # Temperature at the end.
    cold: float = 0.1
    # Optimizer of the logits.
    arch: nasfw.Optimizer = nasfw.Adam(lr=0.05, betas=(0.5, 0.999))
    data = "full"

    def distribution(self):
        return nasfw.Softmax(init_std=1e-3)

    def step(self, search):
        temperature = self.cold + (self.hot - self.cold) * (1 + math.cos(math.pi * search.progress)) / 2
        search.log("temperature", temperature)
        w, alpha, batch = search.theta, search.phi, search.batch("full")
        loss = search.loss(w, search.spec.softmax(alpha / temperature), batch)
        of_w, of_alpha = search.gradients(loss, [w, alpha])
        search.descend_theta(of_w)
        search.descend_phi(of_alpha)


class Rows(nasfw.Distribution):
    """Independent softmax of free logits, written in torch."""

    def __init__(self, spec, std=1e-3):
        self.std, self.numel, self.shapes = std, spec.numel, spec.shapes
        widths = [[len(r["candidates"]) for r in g["rows"]] for g in spec.groups]
        self.absent = [torch.arange(s[1]) >= torch.tensor(w)[:, None] for s, w in zip(self.shapes, widths)]

    def layout(self):
        return [("alpha", [self.numel], self.std)]

    def logits(self, phi):
        parts = torch.split(phi, [math.prod(s) for s in self.shapes])
        return [p.view(a.shape).masked_fill(a, -torch.inf) for p, a in zip(parts, self.absent)]

    def mean(self, phi):
        return [row.softmax(-1) for row in self.logits(phi)]

    def sample(self, phi, rng):
        return self.mean(phi)


class DartsPy(nasfw.Strategy):
    """DARTS, first order, with its distribution in torch."""

    # Optimizer of the logits.
    arch: nasfw.Optimizer = nasfw.Adam(lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)

    def distribution(self):
        return Rows(self.spec)

    def step(self, search):
        train = search.batch("train")
        val = search.batch("val")
        loss = search.loss(search.theta.detach(), search.sample(), val)
        search.descend_phi(*search.gradients(loss, [search.phi]))
        fixed = search.sample().detach()
        loss = search.weight_loss(fixed, train)
        search.descend_theta(*search.gradients(loss, [search.theta]))


class Hard(Rows):
    """One-hot samples by Gumbel noise with the gradient of the soft ones."""

    def sample(self, phi, rng):
        weights = []
        for logits in self.logits(phi):
            noise = -torch.log(-torch.log(rng.uniform(list(logits.shape)).clamp(1e-12, 1 - 1e-7)))
            soft = (logits + noise).softmax(-1)
            hard = torch.zeros_like(soft).scatter_(1, soft.argmax(1, keepdim=True), 1.0)
            weights.append(hard - soft.detach() + soft)
        return weights


class HardPy(nasfw.Strategy):
    """Straight-through samples: one candidate a row in the forward pass."""

    # Optimizer of the logits.
    arch: nasfw.Optimizer = nasfw.Adam(lr=3e-4, betas=(0.5, 0.999))

    def distribution(self):
        return Hard(self.spec)

    def claims(self):
        return {"arch_gradient": "a straight-through estimate"}

    def step(self, search):
        train, val = search.batch("train"), search.batch("val")
        loss = search.loss(search.theta, search.sample("weights").detach(), train)
        search.descend_theta(*search.gradients(loss, [search.theta]))
        loss = search.loss(search.theta.detach(), search.sample("architecture"), val)
        search.descend_phi(*search.gradients(loss, [search.phi]))


class StagedPy(nasfw.Strategy):
    """DARTS in two stages: the worse half of every row of operations is left out in the second."""

    # Share of the epochs after which the second stage begins.
    first: float = 0.5
    # Optimizer of the logits.
    arch: nasfw.Optimizer = nasfw.Adam(lr=3e-4, betas=(0.5, 0.999))
    keeps = ("allowed", "stage")

    def __init__(self, **options):
        super().__init__(**options)
        self.allowed, self.stage = None, 0

    def distribution(self):
        return Masked(self.spec, self.allowed)

    def supernet_options(self):
        return {"allowed": self.allowed} if self.allowed else None

    def step(self, search):
        train, val = search.batch("train"), search.batch("val")
        loss = search.loss(search.theta.detach(), search.sample(), val)
        search.descend_phi(*search.gradients(loss, [search.phi]))
        loss = search.weight_loss(search.sample().detach(), train)
        search.descend_theta(*search.gradients(loss, [search.theta]))

    def epoch_end(self, search):
        if self.stage == 0 and search.epoch >= self.first * search.epochs and not search.is_last_epoch:
            self.stage, self.allowed = 1, []
            for group, matrix in zip(search.spec.groups, search.mean()):
                rows = []
                for row, weights in zip(group["rows"], matrix.tolist()):
                    n = len(row["candidates"])
                    few = max(row["keep"], (n + 1) // 2) if group["role"] == "operations" else n
                    best = sorted(range(n), key=lambda i: (-weights[i], i))[:few]
                    rows.append([i in best for i in range(n)])
                self.allowed.append(rows)
            return nasfw.Rebuild(carry_weights=True)


class Masked(Rows):
    """Softmax over the candidates that exist."""

    def __init__(self, spec, allowed):
        super().__init__(spec)
        for absent, rows in zip(self.absent, allowed or []):
            for i, row in enumerate(rows):
                for j, exists in enumerate(row):
                    absent[i, j] |= not exists

    def sample(self, phi, rng):
        active = [[[not a for a in row] for row in absent.tolist()] for absent in self.absent]
        return nasfw.Arch(self.mean(phi), active=active)


class ScorePy(nasfw.Strategy):
    """REINFORCE with a moving baseline on independent categorical rows."""

    # How slowly the baseline moves.
    decay: float = 0.9
    # Optimizer of the logits.
    arch: nasfw.Optimizer = nasfw.Adam(lr=3e-4, betas=(0.5, 0.999))
    keeps = ("baseline",)

    def __init__(self, **options):
        super().__init__(**options)
        self.baseline = 0.0

    def distribution(self):
        return nasfw.Softmax(1e-3)

    def claims(self):
        return {"arch_gradient": "score"}

    def step(self, search):
        train, val = search.batch("train"), search.batch("val")
        choice = search.draw("architecture")
        with torch.no_grad():
            reward = search.loss(search.theta.detach(), search.one_hot(choice), val).item()
        surrogate = (reward - self.baseline) * search.log_prob(choice)
        search.descend_phi(*search.gradients(surrogate, [search.phi]))
        self.baseline = self.decay * self.baseline + (1 - self.decay) * reward
        loss = search.loss(search.theta, search.one_hot(search.draw("weights")), train)
        search.descend_theta(*search.gradients(loss, [search.theta]))
