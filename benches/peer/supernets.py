"""The reference supernets, written plainly from their papers: one module for every edge and candidate, each output
multiplied by its weight and added up, the default memory layout, PyTorch's own layers.

DARTS (Liu et al. 2019), NAS-Bench-201 (Dong & Yang 2020), NAS-Bench-1Shot1's third space (Zela et al. 2020). Batch norms
track running statistics, which is PyTorch's default and what the published code does.
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import nn


def conv_norm(inputs, outputs, kernel, stride=1, affine=True):
    """A convolution that keeps the size at stride 1, and batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs, affine=affine)]


class Zero(nn.Module):
    """`none`: zeros of the output's size, from the input."""

    def __init__(self, stride):
        super().__init__()
        self.stride = stride

    def forward(self, x):
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return x.mul(0.0)


class FactorizedReduce(nn.Module):
    """Half the size: ReLU, two 1×1 convolutions of stride 2, the second one pixel further on, joined, batch norm."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.relu = nn.ReLU()
        self.first = nn.Conv2d(inputs, outputs // 2, 1, stride=2, bias=False)
        self.second = nn.Conv2d(inputs, outputs // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(outputs, affine=False)

    def forward(self, x):
        x = self.relu(x)
        return self.norm(torch.cat([self.first(x), self.second(x[:, :, 1:, 1:])], dim=1))


class Mixed(nn.Module):
    """The weighted sum of all candidates of one edge."""

    def __init__(self, candidates):
        super().__init__()
        self.ops = nn.ModuleDict(candidates)

    def forward(self, x, weights):
        return sum(w * op(x) for w, op in zip(weights, self.ops.values()))


# DARTS


def depthwise(channels, kernel, stride, dilation, affine=False):
    """ReLU, depthwise and pointwise convolution, batch norm."""
    padding = dilation * (kernel // 2)
    return [
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    ]


def darts_candidates(channels, stride):
    """The eight candidates of an edge, in the order of the columns."""
    norm = nn.BatchNorm2d
    separable = lambda kernel: depthwise(channels, kernel, stride, 1) + depthwise(channels, kernel, 1, 1)
    dilated = lambda kernel: depthwise(channels, kernel, stride, 2)
    max_pool = nn.MaxPool2d(3, stride, padding=1)
    avg_pool = nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
    return {
        "none": Zero(stride),
        "max_pool_3x3": nn.Sequential(max_pool, norm(channels, affine=False)),
        "avg_pool_3x3": nn.Sequential(avg_pool, norm(channels, affine=False)),
        "skip_connect": nn.Identity() if stride == 1 else FactorizedReduce(channels, channels),
        "sep_conv_3x3": nn.Sequential(*separable(3)),
        "sep_conv_5x5": nn.Sequential(*separable(5)),
        "dil_conv_3x3": nn.Sequential(*dilated(3)),
        "dil_conv_5x5": nn.Sequential(*dilated(5)),
    }


class DartsCell(nn.Module):
    """Two inputs, four nodes that read all earlier states, joined."""

    NODES = 4

    def __init__(self, inputs, channels, reduce, reduced_before):
        super().__init__()
        self.reduce = reduce

        def fit(inputs, halve):
            if halve:
                return FactorizedReduce(inputs, channels)
            return nn.Sequential(nn.ReLU(), *conv_norm(inputs, channels, 1, affine=False))

        self.inputs = nn.ModuleList([fit(inputs[0], reduced_before), fit(inputs[1], False)])
        stride = lambda source: 2 if reduce and source < 2 else 1
        self.edges = nn.ModuleList(
            Mixed(darts_candidates(channels, stride(source)))
            for node in range(self.NODES)
            for source in range(2 + node)
        )

    def forward(self, first, second, weights):
        states = [self.inputs[0](first), self.inputs[1](second)]
        edge = 0
        for _ in range(self.NODES):
            node = sum(self.edges[edge + i](x, weights[edge + i]) for i, x in enumerate(states))
            edge += len(states)
            states.append(node)
        return torch.cat(states[-self.NODES :], dim=1)


class Darts(nn.Module):
    """Stem, cells of which those at one and two thirds reduce, classifier."""

    ARCHITECTURE = [[8] * 14, [8] * 14]

    def __init__(self, channels, cells, colours=3, classes=10):
        super().__init__()
        self.stem = nn.Sequential(*conv_norm(colours, 3 * channels, 3))
        self.cells = nn.ModuleList()
        inputs, reduce = (3 * channels, 3 * channels), False
        for i in range(cells):
            reduced_before, reduce = reduce, i in (cells // 3, 2 * cells // 3)
            channels *= 2 if reduce else 1
            self.cells.append(DartsCell(inputs, channels, reduce, reduced_before))
            inputs = inputs[1], DartsCell.NODES * channels
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(inputs[1], classes)

    def forward(self, images, architecture):
        normal, reduction = architecture
        first = second = self.stem(images)
        for cell in self.cells:
            first, second = second, cell(first, second, reduction if cell.reduce else normal)
        x = self.pool(second)
        return self.classifier(x.view(x.size(0), -1))


# NAS-Bench-201


def nasbench201_candidates(channels):
    """The five candidates of an edge, in the order of the columns."""

    def convolution(kernel):
        conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=True)
        return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(channels, affine=False))

    return {
        "none": Zero(1),
        "skip_connect": nn.Identity(),
        "nor_conv_1x1": convolution(1),
        "nor_conv_3x3": convolution(3),
        "avg_pool_3x3": nn.AvgPool2d(3, 1, padding=1, count_include_pad=False),
    }


class NasBench201Cell(nn.Module):
    """One input and three nodes, each reading all earlier states; the last is the output."""

    NODES = 3

    def __init__(self, channels):
        super().__init__()
        count = self.NODES * (self.NODES + 1) // 2
        self.edges = nn.ModuleList(Mixed(nasbench201_candidates(channels)) for _ in range(count))

    def forward(self, x, weights):
        states, edge = [x], 0
        for _ in range(self.NODES):
            node = sum(self.edges[edge + i](x, weights[edge + i]) for i, x in enumerate(states))
            edge += len(states)
            states.append(node)
        return states[-1]


class Reduction(nn.Module):
    """Residual block of stride 2."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.main = nn.Sequential(
            nn.ReLU(), *conv_norm(inputs, outputs, 3, stride=2), nn.ReLU(), *conv_norm(outputs, outputs, 3)
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x):
        return self.shortcut(x) + self.main(x)


class NasBench201(nn.Module):
    """Stem, three stages of cells with residual blocks between them, classifier."""

    ARCHITECTURE = [[5] * 6]

    def __init__(self, channels, cells, colours=3, classes=10):
        super().__init__()
        widths = [channels, 2 * channels, 4 * channels]
        self.stem = nn.Sequential(*conv_norm(colours, channels, 3))
        self.stages = nn.ModuleList(nn.ModuleList(NasBench201Cell(c) for _ in range(cells)) for c in widths)
        self.reductions = nn.ModuleList(Reduction(a, b) for a, b in zip(widths, widths[1:]))
        self.last = nn.Sequential(nn.BatchNorm2d(widths[-1]), nn.ReLU(inplace=True))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, images, architecture):
        x = self.stem(images)
        for i, stage in enumerate(self.stages):
            x = self.reductions[i - 1](x) if i > 0 else x
            for cell in stage:
                x = cell(x, architecture[0])
        x = self.pool(self.last(x))
        return self.classifier(x.view(x.size(0), -1))


# NAS-Bench-1Shot1


def conv_norm_relu(inputs, outputs, kernel):
    """Convolution, batch norm with the published momentum, ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(outputs, momentum=0.997), relu=nn.ReLU()))


class OneShotCell(nn.Module):
    """Five choice blocks, each behind its own projection of the cell's input; the output joins all of them and adds a
    projection of its own."""

    BLOCKS = 5

    def __init__(self, inputs, channels):
        super().__init__()
        widths = [channels] * self.BLOCKS + [channels * self.BLOCKS]
        self.projections = nn.ModuleList(conv_norm_relu(inputs, c, 1) for c in widths)
        self.blocks = nn.ModuleList(
            Mixed({
                "maxpool3x3": nn.MaxPool2d(3, 1, padding=1),
                "conv3x3": conv_norm_relu(channels, channels, 3),
                "conv1x1": conv_norm_relu(channels, channels, 1),
            })
            for _ in range(self.BLOCKS)
        )

    def forward(self, x, architecture):
        ops, inputs, output = architecture
        nodes = []
        for i, block in enumerate(self.blocks):
            states = [self.projections[i](x), *nodes]
            # The first block has one input and so no choice.
            if i > 0:
                states = [w * t for w, t in zip(inputs[i - 1], states)]
            nodes.append(block(sum(states), ops[i]))
        joined = torch.cat([w * t for w, t in zip(output[0][1:], nodes)], dim=1)
        return output[0][0] * self.projections[-1](x) + joined


class OneShot(nn.Module):
    """Stem, cells with a pooling and doubled channels at each third, classifier."""

    # The rows of the inputs are of different lengths, filled up to the longest.
    ARCHITECTURE = [[3] * 5, [2, 3, 4, 5], [6]]

    def __init__(self, channels, cells, colours=3, classes=10):
        super().__init__()
        self.stem = conv_norm_relu(colours, channels, 3)
        self.pooled = {cells // 3, 2 * cells // 3} - {0}
        self.pool = nn.MaxPool2d(2, 2, padding=1)
        self.cells = nn.ModuleList()
        inputs = channels
        for i in range(cells):
            channels *= 2 if i in self.pooled else 1
            self.cells.append(OneShotCell(inputs, channels))
            inputs = OneShotCell.BLOCKS * channels
        conv = nn.Conv2d(inputs, channels, 1, bias=False)
        norm = nn.BatchNorm2d(channels, affine=False)
        self.last = nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=conv, bn=norm))
        self.classifier = nn.Linear(channels, classes)

    def forward(self, images, architecture):
        x = self.stem(images)
        for i, cell in enumerate(self.cells):
            x = cell(self.pool(x) if i in self.pooled else x, architecture)
        x = self.last(x)
        return self.classifier(x.view(*x.shape[:2], -1).mean(-1))


@dataclass
class Space:
    """A supernet and the published size of its search."""

    network: type
    channels: int
    cells: int
    batch: int
    pixels: int = 32

    def architecture(self):
        """Softmaxes of small random numbers, one tensor `[rows, candidates]` a group, fixed."""
        groups = []
        for rows in self.network.ARCHITECTURE:
            group = torch.zeros(len(rows), max(rows))
            for row, length in zip(group, rows):
                row[:length] = torch.softmax(1e-3 * torch.randn(length), dim=0)
            groups.append(group)
        return groups


SPACES = {
    "darts": Space(Darts, channels=16, cells=8, batch=64),
    "nasbench201": Space(NasBench201, channels=16, cells=5, batch=64),
    "nasbench1shot1-s3": Space(OneShot, channels=16, cells=9, batch=96),
}
