"""torch's settings of a thread and of the process, as nasfw needs them, and back again."""

import contextlib
import random

import torch


@contextlib.contextmanager
def ambient():
    """Gradients on, inference mode and autocast off. Afterwards everything is as it was before: these, the numbers of threads,
    the flags of determinism, and the states of torch's and Python's random generators."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn
    flags = (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
    state, own = torch.get_rng_state(), random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    default = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float32)
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            for device in {"cpu", "cuda" if torch.cuda.is_available() else "cpu"}:
                stack.enter_context(torch.autocast(device, enabled=False))
            yield
    finally:
        torch.set_default_dtype(default)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = flags
        torch.set_rng_state(state)
        random.setstate(own)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
