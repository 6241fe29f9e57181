"""Pictures to begin with: three classes of Fashion-MNIST's files, as PNG files in a folder for each class.

    python pictures.py FOLDER_OF_FASHION_MNIST FOLDER_OF_PICTURES
"""

import gzip
import pathlib
import sys

import numpy
from PIL import Image

CLASSES = {1: "trouser", 7: "sneaker", 8: "bag"}
# The files of Fashion-MNIST that a part is made of, and how many pictures of each class.
PARTS = {"train": ("train", 100), "val": ("t10k", 30)}


def idx(file, header):
    """The bytes of an IDX file, behind its header."""
    return numpy.frombuffer(gzip.decompress(file.read_bytes()), numpy.uint8, offset=header)


source, target = map(pathlib.Path, sys.argv[1:])
for part, (name, count) in PARTS.items():
    images = idx(source / f"{name}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    labels = idx(source / f"{name}-labels-idx1-ubyte.gz", 8)
    for number, word in CLASSES.items():
        folder = target / part / word
        folder.mkdir(parents=True)
        for i, image in enumerate(images[labels == number][:count]):
            Image.fromarray(image).save(folder / f"{i:03}.png")
        print(f"{folder}: {count} pictures")
