"""Exceptions, one for each exit code of the command line."""


class Error(Exception):
    """Something that nasfw could not do. The message says what to type instead, where that is known."""

    #: The exit code of the command line.
    exit_code = 1


class ConfigError(Error, ValueError):
    """Settings that are wrong, or parts that do not go together."""

    exit_code = 2


class DataError(Error):
    """A data file that is missing, truncated or corrupt."""

    exit_code = 3


class RunError(Error):
    """A run folder or a checkpoint that can't be used."""

    exit_code = 4


class OutputError(Error, OSError):
    """A file that can't be read or written."""

    exit_code = 5


class DeviceError(Error):
    """A device that can't be used."""

    exit_code = 6


class NotFiniteError(Error, ArithmeticError):
    """A search that stopped learning: a loss is not finite."""

    exit_code = 7


class LostError(Error, ConnectionError):
    """Another process of the same run is gone."""

    exit_code = 8


_BY_CODE = {
    c.exit_code: c
    for c in (Error, ConfigError, DataError, RunError, OutputError, DeviceError, NotFiniteError, LostError)
}


def of_code(code, text):
    """The exception of an exit code."""
    return _BY_CODE.get(code, Error)(text)
