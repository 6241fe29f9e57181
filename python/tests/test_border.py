"""Tensors and exceptions that cross the border."""

import gc
import weakref

import pytest
import torch

import nasfw
from nasfw._native import native


def test_a_tensor_is_the_same_object_on_both_sides():
    # `_cdata` of torch is not documented: this is what guards it.
    for tensor in (torch.arange(3.0), torch.zeros(2, 0), torch.tensor(1, dtype=torch.int64), torch.ones(3, 3).T):
        assert native.same(tensor) is tensor


def test_graphs_go_through():
    leaf = torch.tensor([1.0, 2.0], requires_grad=True)
    native.same(native.same(leaf * 3).sum()).backward()
    assert leaf.grad.tolist() == [3.0, 3.0]


def test_nothing_is_kept():
    tensor = torch.zeros(1000)
    seen = weakref.ref(tensor)
    native.same(tensor)
    del tensor
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize("wrong", [None, 1.0, [1.0], "text"])
def test_what_is_no_tensor_is_refused(wrong):
    with pytest.raises(TypeError, match="expected a torch.Tensor"):
        native.same(wrong)


def test_it_is_built_for_the_torch_that_is_here():
    assert torch.__version__.split("+")[0] == native.libtorch_version()


def test_errors_are_of_their_kinds(tmp_path):
    with pytest.raises(nasfw.ConfigError, match="did you mean `darts`"):
        nasfw.run("dart", space="toy-quadratic", out=tmp_path)
    with pytest.raises(ValueError, match="no_such_option"):
        nasfw.run("darts", space="toy-quadratic", out=tmp_path, trainer={"no_such_option": 1})
    with pytest.raises(nasfw.RunError, match="no run folder"):
        nasfw.load(tmp_path)
    with pytest.raises(nasfw.RunError):
        nasfw.resume(tmp_path)
    with pytest.raises(nasfw.ConfigError, match="unexpected argument"):
        nasfw.command("list", "--no-such-option")
