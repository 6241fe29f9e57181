"""Checks python/nasfw/networks.py. Arguments: its folder, a network's file, its weights, another network's weights."""
import copy
import io
import pickle
import subprocess
import sys
import tempfile
import traceback
import types

# The package without what is compiled.
package = types.ModuleType("nasfw")
package.__path__ = [sys.argv[1]]
sys.modules["nasfw"] = package

import torch
from safetensors.torch import load_file, save_file

from nasfw import networks

folder, file, weights, other = sys.argv[1:]
source = open(file).read()
tensors = load_file(weights)
images = torch.randn(2, *networks._module(source).IMAGE)


def raises(kind, *parts):
    class Expected:
        def __enter__(self):
            return self

        def __exit__(self, found, error, _):
            assert found is not None and issubclass(found, kind), (kind, error)
            for part in parts:
                assert part in str(error), (part, str(error))
            return True

    return Expected()


def same(a, b):
    a, b = a.eval(), b.eval()
    with torch.no_grad():
        return torch.equal(a(images), b(images))


# Weights by name, from a file, from a run.
by_name = networks.make(source, weights=tensors)
assert same(by_name, networks.make(source, weights=weights))
assert same(by_name, networks.make(source, weights=folder, of_run=lambda path: load_file(weights)))
assert same(by_name, networks.make(source, weights=by_name.state_dict()))
assert not same(by_name, networks.make(source))
assert networks.network_class(source) is type(by_name)
assert networks.make(source, drop_path_rate=0.3).drop_path_rate == 0.3

# Copies and pickles, and what is changed in one is not in the other.
by_name.drop_path_rate = 0.4
twin = copy.deepcopy(by_name)
assert same(twin, by_name) and twin.drop_path_rate == 0.4 and type(twin) is type(by_name)
with torch.no_grad():
    next(twin.parameters()).add_(1.0)
assert not same(twin, by_name)
kept = io.BytesIO()
torch.save(by_name, kept)
kept.seek(0)
assert same(torch.load(kept, weights_only=False), by_name)
text = pickle.dumps(by_name)
assert text.count(b"class Network(Layers)") == 1, "the text is kept once"
assert same(pickle.loads(text), by_name)
parts = [m for m in by_name.modules() if type(m).__name__ in ("Layers", "FactorizedReduce")]
assert parts and all(type(pickle.loads(pickle.dumps(m))) is type(m) for m in parts)

# In a process that never saw the text.
with tempfile.NamedTemporaryFile(suffix=".pt") as saved:
    torch.save((by_name, images, by_name(images)), saved.name)
    fresh = f"""
import sys, types
package = types.ModuleType("nasfw"); package.__path__ = [{folder!r}]; sys.modules["nasfw"] = package
import torch
network, images, logits = torch.load({saved.name!r}, weights_only=False)
assert torch.equal(network(images), logits)
"""
    subprocess.run([sys.executable, "-c", fresh], check=True)

# What is wrong says what.
with raises(ValueError, "no file that `nasfw export --pytorch` wrote", "SyntaxError"):
    networks.make("this is no Python")
with raises(ValueError, "no class Network"):
    networks.make("x = 1\n")
with raises(TypeError, "bytes"):
    networks.make(b"x")
with raises(ValueError, "drop_path_rate is 1.5"):
    networks.make(source, drop_path_rate=1.5)
with raises(TypeError, "weights are a int"):
    networks.make(source, weights=3)
with raises(FileNotFoundError, "nowhere.safetensors"):
    networks.make(source, weights="nowhere.safetensors")
with raises(ValueError, "is no safetensors file"):
    networks.make(source, weights=file)
with raises(ValueError, "nasfw export", "--safetensors"):
    networks.make(source, weights=folder)
with raises(ValueError, other, "of another shape", "in the place of"):
    networks.make(source, weights=other)
name = next(iter(tensors))
with raises(ValueError, f"missing: {name}"):
    networks.make(source, weights={k: v for k, v in tensors.items() if k != name})
with raises(ValueError, "not known: more"):
    networks.make(source, weights={**tensors, "more": torch.zeros(1)})
with raises(ValueError, "network.module.state_dict()"):
    networks.make(source, weights={f"module.{k}": v for k, v in tensors.items()})
with raises(ValueError, "is a float and no tensor"):
    networks.make(source, weights={**tensors, name: 1.0})

# Nothing of what does not fit is taken.
network = networks.make(source, weights=tensors)
with raises(ValueError):
    networks.load_weights(network, {**{k: v + 1 for k, v in tensors.items()}, "more": torch.zeros(1)})
assert same(network, by_name)

# Errors in it show its lines.
try:
    by_name(torch.zeros(2, 9, 8, 8))
except RuntimeError:
    assert "self.stem(images)" in traceback.format_exc(), traceback.format_exc()
else:
    raise AssertionError("nine channels")
