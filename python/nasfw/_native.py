"""The compiled module, or a message that says why it can't be loaded and what to type."""

import importlib
import platform
import sys
import sysconfig
from importlib import metadata, util
from pathlib import Path

#: The torch whose libtorch the compiled module is linked against. No other one works: they share tensors as they lie in memory.
TORCH = "2.13.0"

_WHEELS = "wheels of nasfw are for Linux on x86_64, and CPython from 3.10 on (not the free-threaded one)"


def _here():
    """This Python and this machine, in words."""
    words = [platform.python_implementation(), platform.python_version()]
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        words.append("(free-threaded)")
    libc = " ".join(platform.libc_ver()) or "an unknown C library"
    return f"{' '.join(words)} for {platform.system()} on {platform.machine()} with {libc}"


def _torch():
    """The version of torch that is or would be imported, or None."""
    if "torch" not in sys.modules:
        try:
            return metadata.version("torch")
        except metadata.PackageNotFoundError:
            if util.find_spec("torch") is None:
                return None
    return str(getattr(importlib.import_module("torch"), "__version__", "of no version"))


def _check_torch():
    found = _torch()
    if found is None:
        raise ImportError(f"nasfw needs torch {TORCH}, which is not installed: pip install torch=={TORCH}")
    # What stands behind the plus is how it was built, such as `+cpu`.
    if found.split("+")[0] != TORCH:
        raise ImportError(
            f"nasfw needs torch {TORCH}, and torch {found} is installed: pip install torch=={TORCH}. "
            f"The compiled module shares tensors with torch, so that no other version works"
        )


def _lacking(error):
    """The library that the loader looked for in vain, or None. It says the same of a module for another processor."""
    name, _, words = str(error).partition(":")
    return name if "cannot open shared object file" in words and "_nasfw" not in name else None


def _explained(error):
    """What is to be done about what the loader says."""
    words = str(error)
    folder = Path(__file__).parent
    if isinstance(error, ModuleNotFoundError):
        return (
            f"nasfw's compiled module is not in {folder}. This is {_here()}, and {_WHEELS}. "
            f"In a checkout of nasfw: `cargo xtask python` builds it and runs Python, `cargo xtask wheel` makes a wheel"
        )
    if "GLIBC" in words:
        return (
            f"nasfw's compiled module needs a newer C library ({words}). This is {_here()}. "
            f"`cargo xtask wheel` in a checkout of nasfw makes a wheel for this machine"
        )
    if "undefined symbol" in words:
        return (
            f"nasfw's compiled module and the libtorch that it found do not fit ({words}). "
            f"If LD_LIBRARY_PATH names another libtorch, unset it; else: pip install --force-reinstall torch=={TORCH}"
        )
    if _lacking(error) is not None:
        return (
            f"nasfw's compiled module needs {_lacking(error)}, which is not found ({words}). It is part of torch: "
            f"pip install --force-reinstall torch=={TORCH}"
        )
    return (
        f"nasfw's compiled module is damaged or for another machine ({words}). This is {_here()}, and {_WHEELS}: "
        f"pip install --force-reinstall --no-deps nasfw"
    )


def _cut(path):
    """Whether the file of a library for this kind of machine ends before its own table of sections does, which linkers put last.
    Loading it would not fail but end the process."""
    with open(path, "rb") as file:
        head = file.read(64)
        size = file.seek(0, 2)
    if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":
        return False  # The loader says what it is.
    table, length, entries = (int.from_bytes(head[a:b], "little") for a, b in ((40, 48), (58, 60), (60, 62)))
    return size < table + length * entries


def _load():
    _check_torch()
    found = util.find_spec("nasfw._nasfw")
    if found is not None and _cut(found.origin):
        raise ImportError(_explained(ImportError(f"{found.origin}: file too short")), name="nasfw._nasfw")
    try:
        return importlib.import_module("nasfw._nasfw")
    except ImportError as error:
        failed = error
    if _lacking(failed) is not None and "torch" not in sys.modules:
        # torch lies in another folder than nasfw. Once it is imported, its libraries are there.
        try:
            importlib.import_module("torch")
        except (ImportError, OSError) as error:
            raise ImportError(
                f"nasfw needs torch, and `import torch` fails ({error}): pip install --force-reinstall torch=={TORCH}"
            ) from error
        try:
            return importlib.import_module("nasfw._nasfw")
        except ImportError as error:
            failed = error
    raise ImportError(_explained(failed), name="nasfw._nasfw") from failed


native = _load()
