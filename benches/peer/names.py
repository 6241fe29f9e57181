"""Which parameters of a reference network nasfw keeps under one name.

nasfw batches the edges that leave one state: `cells.0.from1.sep_conv_3x3.1.weight` holds the first depthwise weights of
all these edges, joined along the first dimension in the edges' order. The projections of a 1Shot1 cell are joined
likewise.
"""

import re

# Name of a module's parameter and nasfw's name, tried in this order.
RULES = [
    (r"cells\.(\d+)\.inputs\.(\d)\.(.*)", r"cells.\1.input\2.\3"),
    (r"stages\.(\d)\.(.*)", r"stage\1.\2"),
    (r"reductions\.0\.(.*)", r"reduce1.\1"),
    (r"reductions\.1\.(.*)", r"reduce2.\1"),
    (r"(.*)\.projections\.\d\.(.*)", r"\1.project.\2"),
    # Factorised reductions are the second layer of their chain.
    (r"(.*)\.(first|second)\.weight", r"\1.1.\2.weight"),
]


def source(edge, inputs):
    """The state that an edge reads, of edges ordered by target and then by source, after so many inputs."""
    states = inputs
    while edge >= states:
        edge -= states
        states += 1
    return edge


def nasfw_name(name, inputs):
    """nasfw's name of the tensor that holds the parameter `name`, in cells with so many inputs."""
    for pattern, replacement in RULES:
        name = re.sub(f"^{pattern}$", replacement, name)
    edge = re.fullmatch(r"(.*)\.edges\.(\d+)\.ops\.(.*)", name)
    if edge:
        return f"{edge[1]}.from{source(int(edge[2]), inputs)}.{edge[3]}"
    block = re.fullmatch(r"(.*)\.blocks\.(\d+)\.ops\.(.*)", name)
    if block:
        return f"{block[1]}.node{int(block[2]) + 1}.{block[3]}"
    return name


def grouped(space, network):
    """nasfw's names, each with the parameters that, joined along the first dimension, are its tensor."""
    groups = {}
    for name, parameter in network.named_parameters():
        groups.setdefault(nasfw_name(name, 2 if space == "darts" else 1), []).append(parameter)
    return groups
