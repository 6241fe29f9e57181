"""What people are told when the compiled module can't be loaded: each case is made and tried in a process of its own."""

import os
import pathlib
import platform
import re
import subprocess
import sys

import pytest
import torch

import nasfw
from nasfw import _native

MODULE = pathlib.Path(_native.native.__file__)
SOURCES = pathlib.Path(nasfw.__file__).parent
LIBRARIES = pathlib.Path(torch.__file__).parent / "lib"


class Place:
    """A folder with nasfw's files, which Python sees before all else."""

    def __init__(self, folder):
        self.folder = folder
        self.package = folder / "nasfw"
        self.package.mkdir()
        for source in SOURCES.glob("*.py"):
            (self.package / source.name).symlink_to(source)

    def module(self, what):
        """Puts the module there: a file to link to, or bytes."""
        path = self.package / MODULE.name
        path.write_bytes(what) if isinstance(what, bytes) else path.symlink_to(what)

    def torch(self, version):
        """Metadata of a torch, as pip leaves it."""
        info = self.folder / f"torch-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")

    def run(self, *words, code="from nasfw._native import native; print(native.libtorch_version())"):
        env = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
        env["PYTHONPATH"] = str(self.folder)
        words = [sys.executable, *words, "-c", code]
        return subprocess.run(words, cwd=self.folder, env=env, capture_output=True, text=True, timeout=300)

    def told(self, *words):
        """The last line that a failing import leaves."""
        done = self.run(*words)
        assert done.returncode == 1, done.stdout + done.stderr
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("ImportError: "), done.stderr
        return last


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def head(length):
    """The module's first bytes."""
    with MODULE.open("rb") as file:
        data = file.read(length)
    assert len(data) == length
    return data


def whole_head(machine):
    """The beginning of a module for another machine (`e_machine` of ELF), with no more sections than it holds."""
    data = bytearray(head(100_000))
    assert data[:4] == b"\x7fELF" and machine != int.from_bytes(data[18:20], "little")
    data[18:20] = machine.to_bytes(2, "little")
    data[40:48] = bytes(8)
    return bytes(data)


def test_one_version_of_torch_is_meant_everywhere():
    assert _native.TORCH == _native.native.libtorch_version()
    pyproject = pathlib.Path(__file__).parents[1] / "pyproject.toml"
    assert re.findall(r"torch==([\d.]+)", pyproject.read_text()) == [_native.TORCH]


def test_torch_may_lie_elsewhere(place):
    place.module(MODULE)
    done = place.run()
    assert done.stdout == f"{_native.TORCH}\n", done.stderr


def test_no_torch(place):
    place.module(MODULE)
    # -S: without the packages of this environment.
    assert f"torch {_native.TORCH}, which is not installed: pip install torch=={_native.TORCH}" in place.told("-S")


@pytest.mark.parametrize("version", ["2.14.0", "2.12.1+cpu", "2.13.0.dev20260401", "2.13.1"])
def test_another_torch(place, version):
    place.module(MODULE)
    place.torch(version)
    told = place.told()
    assert f"needs torch {_native.TORCH}, and torch {version} is installed: pip install torch==" in told


def test_another_torch_that_is_imported_already(place):
    place.module(MODULE)
    code = "import sys, types; torch = types.ModuleType('torch'); torch.__version__ = '2.9.0'; sys.modules['torch'] = torch"
    done = place.run(code=f"{code}; import nasfw._native")
    assert "and torch 2.9.0 is installed" in done.stderr


@pytest.mark.parametrize("local", ["", "+cpu", "+cu130"])
def test_how_torch_was_built_does_not_matter(place, local):
    place.module(MODULE)
    place.torch(_native.TORCH + local)
    (place.folder / "torch").mkdir()
    (place.folder / "torch/lib").symlink_to(LIBRARIES)
    done = place.run()
    assert done.stdout == f"{_native.TORCH}\n", done.stderr


def test_no_module(place):
    told = place.told()
    assert f"compiled module is not in {place.package}" in told
    assert f"on {platform.machine()}" in told and "Linux on x86_64" in told and "cargo xtask wheel" in told


@pytest.mark.parametrize("length", [0, 20, 64, 5000, 500_000])
def test_a_cut_module(place, length):
    place.module(head(length))
    told = place.told()
    assert "damaged or for another machine" in told and "pip install --force-reinstall --no-deps nasfw" in told


def test_a_module_for_another_processor(place):
    aarch64, x86_64 = 183, 62
    place.module(whole_head(machine=aarch64 if platform.machine() == "x86_64" else x86_64))
    told = place.told()
    assert "damaged or for another machine" in told and f"on {platform.machine()}" in told


def test_an_older_c_library(place):
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("this C library has no versions")
    data, changed = re.subn(rb"\0GLIBC_2\.(\d+)\0", rb"\0GLIBC_9.\1\0", MODULE.read_bytes())
    assert changed
    place.module(data)
    told = place.told()
    assert "needs a newer C library" in told and "GLIBC_9." in told and "cargo xtask wheel" in told


def test_a_torch_that_can_not_be_imported(place):
    place.module(MODULE)
    place.torch(_native.TORCH)
    (place.folder / "torch").mkdir()
    (place.folder / "torch/__init__.py").write_text("raise ImportError('libcudnn.so.9: no such file')\n")
    told = place.told()
    assert "`import torch` fails (libcudnn.so.9: no such file): pip install --force-reinstall torch==" in told


def test_a_torch_without_its_libraries(place):
    place.module(MODULE)
    place.torch(_native.TORCH)
    (place.folder / "torch").mkdir()
    (place.folder / "torch/__init__.py").write_text("")
    told = place.told()
    assert re.search(r"needs lib(torch_cpu|c10)\.so, which is not found", told) and "part of torch" in told


def test_a_libtorch_that_does_not_fit(place):
    place.module(MODULE)
    place.torch(_native.TORCH)
    libraries = place.folder / "torch/lib"
    libraries.mkdir(parents=True)
    for library in LIBRARIES.glob("*.so*"):
        # Another library under the name of libtorch: what it should define is missing.
        wrong = LIBRARIES / "libc10.so" if library.name == "libtorch_cpu.so" else library
        (libraries / library.name).symlink_to(wrong)
    told = place.told()
    assert "do not fit" in told and "undefined symbol" in told and "LD_LIBRARY_PATH" in told
