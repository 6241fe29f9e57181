"""What an exported network says of pictures, without nasfw: everything that is done to them stands in the ONNX file.

    python classify.py NETWORK.onnx PICTURE...
"""

import json
import sys

import numpy
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1])
says = json.loads(session.get_modelmeta().custom_metadata_map["nasfw"])
how, classes = says["preprocessing"], says["normalisation"]["classes"]
rows, columns = how["size"]

for file in sys.argv[2:]:
    picture = Image.open(file).convert("RGB")
    sides = [how["resize"] * side // min(picture.size) for side in picture.size]
    picture = picture.resize(sides, Image.Resampling.BILINEAR)
    left, top = round((picture.width - columns) / 2), round((picture.height - rows) / 2)
    picture = picture.crop((left, top, left + columns, top + rows))
    if how["colours"] == "grey":
        picture = picture.convert("L")
    pixels = numpy.asarray(picture, numpy.float32).reshape(rows, columns, -1)
    if not says["raw_pixels"]:
        pixels = (pixels / how["divide_by"] - how["mean"]) / how["std"]
    batch = pixels.transpose(2, 0, 1)[None].astype(numpy.float32)
    logits = session.run(None, {session.get_inputs()[0].name: batch})[0][0].astype(numpy.float64)
    likely = numpy.exp(logits - logits.max())
    likely /= likely.sum()
    print(file)
    for number in (-likely).argsort(kind="stable"):
        print(f"  {100 * likely[number]:6.2f}%  {classes[number]}")
