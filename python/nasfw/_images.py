"""Images from memory: written once as a file of NumPy's, which the dataset `arrays` reads."""

from __future__ import annotations

import hashlib
import os
import pathlib
import tempfile
import warnings

import torch


class Images:
    """Images in a file of their own; `nasfw.images` makes it."""

    def __init__(self, file: pathlib.Path):
        self.file = file

    def __repr__(self):
        return f"nasfw.Images({str(self.file)!r})"

    def settings(self) -> dict:
        """The section `dataset` of a run."""
        return {"name": "arrays", "file": str(self.file)}


def images(train, test, classes=None, folder="data") -> Images:
    """Your own images as a dataset.

    train, test: pairs of images and classes, or `torch.utils.data.Dataset`s of such pairs. Images are bytes
        `[n, height, width]` or `[n, height, width, channels]`, or torch tensors `[n, channels, height, width]`; numbers that are no
        bytes must be in [0, 1] and are rounded to 256 levels. Classes are whole numbers from 0.
    classes: their names.
    folder: where the file is written; its name is a digest of what is in it.

    Raises ValueError for what does not fit.
    """
    import numpy

    arrays = {}
    for name, part in (("train", train), ("test", test)):
        x, y = _pair(name, part)
        arrays[f"x_{name}"], arrays[f"y_{name}"] = x, y
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        shapes = [tuple(arrays[k].shape[1:]) for k in ("x_train", "x_test")]
        raise ValueError(f"training images are of {shapes[0]}, test images of {shapes[1]} (rows, columns, channels)")
    if classes is not None:
        names = [str(c) for c in classes]
        most = int(max(arrays["y_train"].max(initial=0), arrays["y_test"].max(initial=0)))
        if most >= len(names):
            raise ValueError(f"there are {len(names)} names of classes, and a label {most}")
        arrays["classes"] = numpy.array(names)
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + str(arrays[name].shape).encode() + arrays[name].tobytes())
    folder = pathlib.Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"images-{digest.hexdigest()[:16]}.npz"
    if not file.exists():
        # Whole or not at all.
        handle, part = tempfile.mkstemp(suffix=".npz", dir=folder)
        try:
            with os.fdopen(handle, "wb") as out:
                numpy.savez(out, **arrays)
            os.replace(part, file)
        except BaseException:
            pathlib.Path(part).unlink(missing_ok=True)
            raise
    return Images(file)


def _pair(name, part):
    import numpy

    if isinstance(part, torch.utils.data.Dataset) or (hasattr(part, "__getitem__") and not isinstance(part, (tuple, list))):
        if isinstance(part, torch.utils.data.IterableDataset):
            raise ValueError(f"{name}: a dataset with a length is needed, this one can only be iterated over")
        items = [part[i] for i in range(len(part))]
        if not items:
            raise ValueError(f"{name}: the dataset is empty")
        try:
            shots, y = [_plain(x) for x, _ in items], [int(c) for _, c in items]
        except (TypeError, ValueError) as e:
            raise ValueError(f"{name}: every item of the dataset must be a pair of image and class: {e}") from None
        first = items[0][0]
        planes = isinstance(first, torch.Tensor) and first.ndim == 3
        x = numpy.stack(shots)
    else:
        try:
            x, y = part
        except (TypeError, ValueError):
            raise ValueError(f"{name}: a pair of images and classes is needed, or a dataset") from None
        planes = isinstance(x, torch.Tensor) and x.ndim == 4
        x = _plain(x)
    if planes:
        x = numpy.moveaxis(x, -3, -1)
    y = _plain(y)
    if x.ndim not in (3, 4):
        raise ValueError(f"{name}: images of shape {x.shape}: [n, height, width] or [n, height, width, channels] is needed")
    if x.ndim == 4 and x.shape[3] > 16 >= x.shape[1]:
        raise ValueError(
            f"{name}: images of shape {x.shape} look like [n, channels, height, width]: give a torch tensor, or move the channels last"
        )
    if y.shape not in ((len(x),), (len(x), 1)):
        raise ValueError(f"{name}: {len(x)} images and classes of shape {y.shape}: one class an image is needed")
    if not numpy.issubdtype(y.dtype, numpy.integer):
        if not numpy.array_equal(y, numpy.floor(y)):
            raise ValueError(f"{name}: classes must be whole numbers, not {y.dtype}")
    y = y.reshape(-1).astype(numpy.int64)
    if len(y) and y.min() < 0:
        raise ValueError(f"{name}: classes begin with 0, and there is {y.min()}")
    return numpy.ascontiguousarray(_bytes(name, x)), y


def _plain(value):
    import numpy

    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else numpy.asarray(value)


def _bytes(name, x):
    import numpy

    if x.dtype == numpy.uint8:
        return x
    if numpy.issubdtype(x.dtype, numpy.floating):
        if not (numpy.isfinite(x).all() and x.min(initial=0) >= 0 and x.max(initial=0) <= 1):
            raise ValueError(
                f"{name}: images of {x.dtype} must be in [0, 1] (they are from {x.min()} to {x.max()}): nasfw normalises them itself"
            )
        rounded = numpy.rint(x * 255).astype(numpy.uint8)
        if numpy.abs(rounded / 255.0 - x).max(initial=0) > 1e-6:
            warnings.warn(f"{name}: images of {x.dtype} are rounded to 256 levels", stacklevel=3)
        return rounded
    if x.min(initial=0) < 0 or x.max(initial=0) > 255:
        raise ValueError(f"{name}: images of {x.dtype} must be from 0 to 255")
    return x.astype(numpy.uint8)
