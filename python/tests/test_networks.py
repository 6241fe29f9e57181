"""Networks as modules: what they are made of is tested in Rust (tests/it/pytorch)."""

import copy
import io

import pytest
import torch
from torch import nn

import nasfw


def test_a_published_cell_trains_and_pickles():
    net = nasfw.network("DARTS_V2", channels=4, cells=3, classes=5, image=(3, 16, 16))
    assert isinstance(net, nn.Module)
    images, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 3])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    before = nn.functional.cross_entropy(net(images), labels)
    before.backward()
    optimizer.step()
    net.eval()
    kept = io.BytesIO()
    torch.save(net, kept)
    again = torch.load(io.BytesIO(kept.getvalue()), weights_only=False)
    for other in (again, copy.deepcopy(net)):
        assert torch.equal(other(images), net(images))


def test_a_genotype_as_text_is_no_path():
    text = nasfw.command("genotype", "DARTS_V2", "--format", "json")
    assert len(text) > 255
    net = nasfw.network(text, channels=4, cells=3)
    assert net.state_dict().keys() == nasfw.network("DARTS_V2", channels=4, cells=3).state_dict().keys()


def test_weights_of_a_retraining_come_along(small):
    settings = {k: v for k, v in small.items() if k != "dataset"}
    found = nasfw.run("darts", space="nasbench1shot1-s3", dataset={"name": "synthetic", "images": 32}, **{**settings, "epochs": 1})
    trained = nasfw.retrain(found, preset="quick", dataset={"name": "synthetic", "images": 32}, **{**settings, "epochs": 1})
    test = nasfw.evaluate(trained)
    net = nasfw.network(trained, weights=trained).eval()
    assert sum(p.numel() for p in net.parameters()) == test["cost"]["params"]
    with pytest.raises(ValueError, match="do not fit"):
        nasfw.network("DARTS_V2", channels=4, cells=3, weights=trained)
    with pytest.raises(nasfw.ConfigError):
        nasfw.network("NO_SUCH_CELL")
