"""Checks networks that nasfw wrote as Python files. Reads names of folders from standard input, line by line, and answers
each with a line of JSON: what differs, by how much."""
import importlib.util
import json
import sys
import time

import torch
from safetensors.torch import load_file
from torch.nn import functional as F

torch.set_num_threads(1)
RATE = 0.01


def module_of(path):
    spec = importlib.util.spec_from_file_location("network", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def distance(ours, theirs):
    """The largest difference, relative to the largest number."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    ours, theirs = ours.detach(), theirs.detach()
    assert torch.isfinite(ours).all()
    return float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max().clamp_min(1e-30))


@torch.no_grad()
def starts(network, theirs):
    """Whether fresh weights have one law, ours and nasfw's: constants, or uniform to one over the root of the inputs."""
    for ours in (network.state_dict(), theirs):
        for name, tensor in ours.items():
            layer, part = name.rsplit(".", 1)
            kernel = ours.get(f"{layer}.weight")
            if part == "num_batches_tracked":
                continue
            if kernel is None or kernel.dim() < 2:
                wanted = torch.full_like(tensor, {"weight": 1, "running_var": 1}.get(part, 0))
                assert torch.equal(tensor, wanted), name
                continue
            bound = (kernel.numel() / kernel.shape[0]) ** -0.5
            assert float(tensor.abs().max()) <= bound * (1 + 1e-6), (name, bound)
            if tensor.numel() >= 200:
                deviation = float(tensor.double().std(unbiased=False)) * 3**0.5
                assert abs(deviation / bound - 1) < 4 / tensor.numel() ** 0.5, (name, deviation, bound)


@torch.no_grad()
def paths_are_dropped(module):
    network = module.Network(drop_path_rate=0.25)
    x = torch.ones(4000, 2, 1, 1)
    y = network.dropped(x)
    assert set(y.unique().tolist()) <= {0.0, float(torch.tensor(1.0) / 0.75)}, y.unique()
    assert torch.equal(y[:, 0], y[:, 1]), "an image keeps all of a path or nothing"
    assert abs(float(y.mean()) - 1) < 0.06, y.mean()
    network.drop_path_rate = 0.0
    assert network.dropped(x) is x
    network.drop_path_rate = 0.25
    assert network.eval().dropped(x) is x
    for rate in (-0.1, 1.0):
        try:
            module.Network(drop_path_rate=rate)
        except ValueError as e:
            assert "drop_path_rate" in str(e)
        else:
            raise AssertionError(rate)


@torch.no_grad()
def is_new_noise(module):
    like = torch.zeros(500, 1, dtype=torch.float64)
    a, b = (module.noise(like, 2, 3, 4) for _ in "ab")
    assert a.shape == (500, 2, 3, 4) and a.dtype == torch.float64
    assert abs(float(a.mean())) < 0.05 and abs(float(a.std()) - 1) < 0.05 and not torch.equal(a, b)


def both(output):
    return output if isinstance(output, tuple) else (output, None)


def check(folder):
    case = json.load(open(f"{folder}/case.json"))
    data = load_file(f"{folder}/data.safetensors")
    weights = load_file(f"{folder}/weights.safetensors")
    began = time.perf_counter()
    module = module_of(f"{folder}/network.py")
    network = module.Network()
    seconds = time.perf_counter() - began

    starts(network, load_file(f"{folder}/start.safetensors"))
    paths_are_dropped(module)
    if hasattr(module, "noise"):
        is_new_noise(module)
        # nasfw's own logits are those without noise, too.
        module.noise = lambda like, *shape: like.new_zeros(like.shape[0], *shape)
    names = {name for name in network.state_dict() if not name.endswith("num_batches_tracked")}
    assert names == set(weights), names ^ set(weights)
    trained = {name: tuple(p.shape) for name, p in network.named_parameters()}
    assert trained == {name: tuple(shape) for name, shape in case["parameters"].items()}, "parameters"
    count = sum(p.numel() for p in network.parameters())
    assert module.IMAGE == tuple(data["images"].shape[1:])

    network.load_state_dict(weights)
    images, labels = data["images"], data["labels"]
    network.eval()
    with torch.no_grad():
        logits = network(images)
    found = {"eval": distance(logits, data["eval"])}
    # How much of them is the images' and not a constant: in a deep network with statistics that were drawn, what is put out can be
    # one number whatever goes in, but not with those of the batch.
    def of_images(logits):
        return float((logits.max(0).values - logits.min(0).values).max() / logits.abs().max())

    spread = max(of_images(data[mode]) for mode in ("eval", "train"))

    network.double().train()
    images = images.double()

    def loss():
        logits, auxiliary = both(network(images))
        loss = F.cross_entropy(logits, labels)
        return logits, auxiliary, loss if auxiliary is None else loss + 0.4 * F.cross_entropy(auxiliary, labels)

    optimizer = torch.optim.SGD(network.parameters(), lr=RATE)
    logits, auxiliary, before = loss()
    found["train"] = distance(logits, data["train"])
    assert (auxiliary is None) == ("auxiliary" not in data)
    if auxiliary is not None:
        found["auxiliary"] = distance(auxiliary, data["auxiliary"])
    before.backward()
    optimizer.step()
    _, _, after = loss()
    found["loss"] = distance(torch.stack([before, after]).detach(), data["loss"])
    network.eval()
    with torch.no_grad():
        found["after"] = distance(network(images), data["after"])
    return {"found": found, "count": count, "seconds": seconds, "spread": spread}


for line in sys.stdin:
    try:
        answer = check(line.rstrip("\n"))
    except Exception as e:  # noqa: BLE001: whatever it is, the test says it
        import traceback

        answer = {"error": f"{type(e).__name__}: {e}\n{traceback.format_exc()}"}
    print(json.dumps(answer), flush=True)
