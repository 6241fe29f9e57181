"""The PyTorch side of nasfw's speed comparison; `cargo xtask peer` runs it.

    reference.py time SPACE --batch N --warmup N --steps N    times a weight step, prints one line of JSON
    reference.py compare FILE SPACE CHANNELS CELLS            checks what nasfw computed (examples/peer.rs) against PyTorch
"""

import argparse
import json
import os
import statistics
import time

import torch
from safetensors import safe_open
from torch import nn
from torch._C._profiler import RecordScope
from torch.autograd.profiler import profile
from torch.nn import functional

from names import grouped
from supernets import SPACES


def memory(field):
    """A figure of /proc/self/status in bytes: VmRSS (resident now), VmHWM (its peak)."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(field))
    return 1024 * int(line.split()[1])


def operator_calls(run):
    """How many operators `run` calls: all, and those that call no other. Backward passes are included."""
    with profile() as profiler:
        run()
    # The events as they were recorded: the profiler's own list drops calls of an operator by its namesake.
    events = [
        (event.start_thread_id(), event.start_ns(), -event.end_ns())
        for event in profiler.kineto_results.events()
        if event.scope() == RecordScope.FUNCTION.value
    ]
    events.sort()
    # A call that makes others is followed by the first of them before it ends.
    calling = sum(a[0] == b[0] and b[1] < -a[2] for a, b in zip(events, events[1:]))
    return {"all": len(events), "leaves": len(events) - calling}


def time_steps(arguments):
    """Forward pass, loss, backward pass and step of SGD, on one random batch."""
    libraries = memory("VmRSS")
    space = SPACES[arguments.space]
    batch = arguments.batch or space.batch
    torch.manual_seed(0)
    network = space.network(space.channels, space.cells).train()
    architecture = space.architecture()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.025, momentum=0.9, weight_decay=3e-4)
    images = torch.randn(batch, 3, space.pixels, space.pixels)
    labels = torch.randint(10, (batch,))

    def step():
        optimizer.zero_grad()
        loss = criterion(network(images, architecture), labels)
        loss.backward()
        optimizer.step()

    for _ in range(arguments.warmup):
        step()
    seconds = []
    for _ in range(arguments.steps):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    peak = memory("VmHWM")
    return {
        "space": arguments.space,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "batch": batch,
        "parameters": sum(p.numel() for p in network.parameters()),
        "batch_norms": sum(isinstance(m, nn.BatchNorm2d) for m in network.modules()),
        "samples": seconds,
        "seconds": statistics.median(seconds),
        "peak_bytes": peak,
        "libraries_bytes": libraries,
        "operators": operator_calls(step),
    }


def load(groups, weights):
    """Puts nasfw's weights into the network whose parameters `groups` holds."""
    shapes = {name: [sum(len(p) for p in group), *group[0].shape[1:]] for name, group in groups.items()}
    ours = {name: list(t.shape) for name, t in weights.items()}
    if shapes != ours:
        differing = sorted(n for n in shapes.keys() | ours.keys() if shapes.get(n) != ours.get(n))
        raise SystemExit(f"parameters that differ in name or shape: {', '.join(differing[:10])}")
    with torch.no_grad():
        for name, group in groups.items():
            for parameter, value in zip(group, weights[name].split([len(p) for p in group])):
                parameter.copy_(value)


def rms(tensor):
    return tensor.double().square().mean().sqrt().item()


def compare(arguments):
    """Differences of what nasfw computed from PyTorch in double precision, at the same weights, images and
    architecture: of the loss relative to it, of every gradient's root mean square relative to the gradient's."""
    with safe_open(arguments.file, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}

    def part(prefix):
        return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

    weights, images, labels = part("weights/"), tensors["images"], tensors["labels"]
    classes = len(weights["classifier.bias"])
    network = SPACES[arguments.space].network(arguments.channels, arguments.cells, images.shape[1], classes).train()
    groups = grouped(arguments.space, network)

    def gradients(kind):
        """The loss and all gradients by nasfw's names."""
        network.to(kind).zero_grad()
        load(groups, weights)
        architecture = [t.to(kind).requires_grad_() for _, t in sorted(part("architecture/").items())]
        loss = functional.cross_entropy(network(images.to(kind), architecture), labels)
        loss.backward()
        found = {name: torch.cat([p.grad for p in group]) for name, group in groups.items()}
        return loss.item(), found | {f"architecture.{i}": t.grad for i, t in enumerate(architecture)}

    loss, reference = gradients(torch.double)
    overall = rms(torch.cat([g.flatten() for name, g in reference.items() if name in groups]))
    # What is zero in exact arithmetic (a bias before a batch norm) is measured against all gradients together.
    scales = {name: rms(g) if rms(g) > 1e-10 * overall else overall for name, g in reference.items()}

    def gaps(loss_of, found):
        gaps = {name: rms(g - reference[name]) / scales[name] for name, g in found.items()}
        worst = max(gaps, key=gaps.get)
        return {"loss": abs(loss_of / loss - 1), "gradients": gaps[worst], "worst": worst}

    # A weight step, and a pass that also gives the gradients of the architecture.
    ours = {run: (tensors[f"{run}/loss"].item(), part(f"{run}/gradients/")) for run in ["step", "both"]}
    for run, names in [("step", groups.keys()), ("both", reference.keys())]:
        if ours[run][1].keys() != names:
            raise SystemExit(f"gradients that differ in name: {sorted(ours[run][1].keys() ^ names)[:10]}")
    example = torch.ones(2, 3, 8, 8), torch.ones(4, 3, 3, 3, requires_grad=True)
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "step": gaps(*ours["step"]),
        "both": gaps(*ours["both"]),
        # How far rounding alone takes PyTorch from itself at nasfw's precision.
        "rounding": gaps(*gradients(images.dtype)),
        "operators": {
            "reference": operator_calls(lambda: functional.conv2d(*example).relu().sum().backward()),
            "nasfw": dict(zip(["all", "leaves"], tensors["operators"].tolist())),
        },
    }


def main():
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(required=True)
    timing = verbs.add_parser("time")
    timing.add_argument("space", choices=SPACES)
    timing.add_argument("--batch", type=int)
    timing.add_argument("--warmup", type=int, default=1)
    timing.add_argument("--steps", type=int, default=3)
    timing.set_defaults(run=time_steps)
    comparing = verbs.add_parser("compare")
    comparing.add_argument("file")
    comparing.add_argument("space", choices=SPACES)
    comparing.add_argument("channels", type=int)
    comparing.add_argument("cells", type=int)
    comparing.set_defaults(run=compare)
    arguments = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    print(json.dumps(arguments.run(arguments)))


if __name__ == "__main__":
    main()
