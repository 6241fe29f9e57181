"""Your own images."""

import numpy
import pytest
import torch

import nasfw

RNG = numpy.random.default_rng(0)


def made(n, shape=(8, 8, 3)):
    return RNG.integers(0, 256, (n, *shape), dtype=numpy.uint8), RNG.integers(0, 3, n)


def test_arrays_to_a_network(small, tmp_path):
    words = {**small, "epochs": 1}
    del words["dataset"]
    images = nasfw.images(train=made(48), test=made(16), classes="abc", folder=tmp_path)
    run = nasfw.run("darts", space="toy-conv", dataset=images, **words)
    assert run.config["dataset"]["name"] == "arrays"
    assert run.is_finished


def test_what_was_given_is_what_is_there(tmp_path):
    x, y = made(5)
    file = nasfw.images((x, y), (x[:2], y[:2]), folder=tmp_path).file
    planes = torch.from_numpy(x).permute(0, 3, 1, 2)
    scaled = (planes.double() / 255, torch.from_numpy(y))

    class Items(torch.utils.data.Dataset):
        def __init__(self, n):
            self.n = n

        def __len__(self):
            return self.n

        def __getitem__(self, i):
            return scaled[0][i], int(y[i])

    # The same images in any form are the same file.
    assert nasfw.images(scaled, (planes[:2], y[:2]), folder=tmp_path).file == file
    assert nasfw.images(Items(5), Items(2), folder=tmp_path).file == file
    with numpy.load(file) as held:
        assert (held["x_train"] == x).all() and (held["y_test"] == y[:2]).all()


@pytest.mark.parametrize(
    ("train", "says"),
    [
        (lambda x, y: x, "a pair of images and classes"),
        (lambda x, y: (x[0, 0], y), "images of shape"),
        (lambda x, y: (x, y[:2]), "one class an image"),
        (lambda x, y: (x, y - 5), "classes begin with 0"),
        (lambda x, y: (x, y + 0.5), "whole numbers"),
        (lambda x, y: (x / 100.0, y), r"must be in \[0, 1\]"),
        (lambda x, y: (numpy.moveaxis(numpy.tile(x, (1, 4, 4, 1)), 3, 1), y), "move the channels last"),
        (lambda x, y: (x[:, :4], y), "training images are of"),
    ],
)
def test_what_does_not_fit_is_said(train, says, tmp_path):
    x, y = made(4)
    with pytest.raises(ValueError, match=says):
        nasfw.images(tuple(train(x, y)) if isinstance(train(x, y), tuple) else list(train(x, y)), (x, y), folder=tmp_path)


def test_rounding_is_said(tmp_path):
    x, y = made(4)
    with pytest.warns(UserWarning, match="rounded to 256 levels"):
        nasfw.images((numpy.full(x.shape, 0.1234), y), (x, y), folder=tmp_path)
