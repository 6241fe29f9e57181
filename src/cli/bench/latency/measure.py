"""Times ONNX models: a job as JSON on standard input, seconds as JSON on standard output."""

import json
import sys
import time

try:
    import numpy
    import onnxruntime
except ImportError as e:
    sys.exit(f"{e}")

# Seconds that a measurement takes at least, so that the clock does not matter.
LONG = 0.002
job = json.load(sys.stdin)
provider = job["provider"]
if provider not in onnxruntime.get_available_providers():
    sys.exit(f"this onnxruntime has no {provider}, it has {', '.join(onnxruntime.get_available_providers())}")
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = job["threads"]
options.inter_op_num_threads = 1
options.log_severity_level = 3
draw = numpy.random.default_rng(0)


def calls(session):
    """A function that evaluates a model so many times."""
    feeds = {
        value.name: draw.standard_normal([job["batch"], *value.shape[1:]], dtype=numpy.float32)
        for value in session.get_inputs()
    }

    def run(times):
        began = time.perf_counter()
        for _ in range(times):
            session.run(None, feeds)
        return (time.perf_counter() - began) / times

    return run


models = []
for file in job["files"]:
    run = calls(onnxruntime.InferenceSession(file, options, providers=[provider]))
    run(2)
    models.append((run, max(1, int(LONG / max(run(3), 1e-9)))))
seconds = [[] for _ in models]
# In turn, so that what else the machine does falls on all of them.
for _ in range(job["repeats"]):
    for (run, times), taken in zip(models, seconds):
        run(1)
        taken.append(run(times))
json.dump({"version": onnxruntime.__version__, "seconds": seconds}, sys.stdout)
