"""The command line: `nasfw`, or `python -m nasfw`."""

import sys


def main():
    try:
        from ._native import native  # finds libtorch by its own path: torch need not be imported
    except ImportError as error:
        sys.exit(f"error: {error}")
    from ._start import started

    started()
    sys.exit(native.main(["nasfw", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
