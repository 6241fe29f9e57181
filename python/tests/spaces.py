"""Search spaces in Python for tests."""

import torch
from torch import nn

import nasfw


def operations(channels: int) -> dict:
    """What a layer can be."""
    return {
        "skip": nn.Identity(),
        "conv3x3": nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        ),
        "avgpool3x3": nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    }


OPS = list(operations(1))


class Mixed(nn.Module):
    """Layers that are weighted sums of everything."""

    def __init__(self, colours, channels, classes, layers):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(colours, channels, 3, padding=1), nn.BatchNorm2d(channels))
        self.layers = nn.ModuleList(nn.ModuleList(operations(channels).values()) for _ in range(layers))
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(channels, classes)

    def forward(self, images, weights):
        x = self.stem(images)
        for ops, row in zip(self.layers, weights[0]):
            x = sum(w * op(x) for w, op in zip(row, ops))
        return self.head(self.drop(x.mean((2, 3))))


class Plain(nn.Module):
    """The same with one operation a layer."""

    def __init__(self, colours, channels, classes, names):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(colours, channels, 3, padding=1), nn.BatchNorm2d(channels))
        self.layers = nn.Sequential(*(operations(channels)[name] for name in names))
        self.head = nn.Linear(channels, classes)

    def forward(self, images):
        return self.head(self.layers(self.stem(images)).mean((2, 3)))


class ChainSpace(nasfw.Space):
    """Three mixed operations in a row."""

    # Channels.
    channels: int = 4
    # Whether images are turned upside down first, which changes every loss.
    turned: bool = False

    recipe = {"trainer": {"epochs": 3, "batch_size": 8, "augment": {"cutout": 0, "crop_padding": 1}}}

    def groups(self):
        return {"chain": {f"layer {i}": OPS for i in (1, 2, 3)}}

    def supernet(self, task):
        net = Mixed(task.channels, self.channels, task.classes, layers=3)
        if self.turned:
            net.stem.insert(0, Turned())
        return net

    def network(self, choice, task):
        return Plain(task.channels, self.channels, task.classes, choice["chain"].values())


class Turned(nn.Module):
    """Turns images upside down."""

    def forward(self, images):
        return images.flip(2)


class Graph(nn.Module):
    """A cell of edges, and sources that are joined: knows masks, offsets and the rate of dropped paths."""

    def __init__(self, colours, channels, classes, paths):
        super().__init__()
        self.register_buffer("scale", torch.full((channels, 1, 1), 0.5))
        self.register_buffer("order", torch.arange(3))
        self.stem = nn.Conv2d(colours, channels, 3, padding=1)
        self.edges = nn.ModuleList(nn.ModuleList(operations(channels).values()) for _ in range(3))
        self.head = nn.Linear(channels, classes)
        self.paths = paths

    def forward(self, images, weights, active=None, offsets=None, drop_path=0.0):
        states = [self.stem(images) * self.scale]
        for node, edges in ((1, (0,)), (2, (1, 2))):
            state = 0.0
            for e in edges:
                x = states[node - 1 if len(edges) == 1 else e - 1]
                y = self.mixed(e, x, weights[0], active and active[0], offsets and offsets[0])
                if self.paths and drop_path > 0.0:
                    y = y * torch.bernoulli(torch.full((len(x), 1, 1, 1), 1 - drop_path, dtype=x.dtype)) / (1 - drop_path)
                state = state + y
            states.append(state)
        joined = sum(w * x for w, x in zip(weights[1][0], states))
        if offsets is not None:
            joined = joined + offsets[1][0]
        return self.head(joined.mean((2, 3)))

    def mixed(self, e, x, weights, active, offsets):
        on = [c for c in range(3) if active is None or active[e][c]]
        y = sum((weights[e][c] * self.edges[e][c](x) for c in on), torch.zeros_like(x))
        return y if offsets is None else y + offsets[e]


class GraphSpace(nasfw.Space):
    """Three edges, and which two of three states are joined."""

    def groups(self):
        joined = nasfw.Group({"output": ["stem", "node 1", "node 2"]}, keep=2, topology=True)
        return {"cell": {edge: OPS for edge in ((0, 1), (0, 2), (1, 2))}, "joined": joined}

    def supernet(self, task, drop_path=False):
        return Graph(task.channels, 4, task.classes, drop_path)
