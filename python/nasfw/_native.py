"""The compiled module, or a message that says why it can't be loaded."""

from importlib.metadata import PackageNotFoundError, version

#: The torch whose libtorch the compiled module is linked against.
TORCH = "2.13.0"


def _found():
    try:
        return version("torch")
    except PackageNotFoundError:
        return None


def _explained(error):
    found = _found()
    if found is None:
        return f"nasfw needs torch {TORCH}, which is not installed: pip install torch=={TORCH}"
    if found.split("+")[0] != TORCH:
        return (
            f"nasfw needs torch {TORCH}, and torch {found} is installed: pip install torch=={TORCH} "
            f"(it shares tensors with torch, so that no other version works)"
        )
    import platform

    return (
        f"nasfw's compiled module can't be loaded ({error}). This is {platform.machine()} with "
        f"{' '.join(platform.libc_ver()) or 'an unknown C library'}; wheels are for Linux on x86_64. "
        f"To build it for this machine: pip install maturin, then `maturin develop` in python/ of nasfw's sources"
    )


try:
    from . import _nasfw as native
except ImportError as error:
    raise ImportError(_explained(error)) from error
