"""Neural architecture search: one trainer, many strategies, results that reproduce.

    import nasfw
    run = nasfw.run("vim", space="nasbench1shot1-s3", epochs=2)
    print(run.genotype)

docs/python.md of the project explains everything that is here.
"""

__all__ = [
    "Adam",
    "Arch",
    "Batch",
    "ConfigError",
    "DataError",
    "DeviceError",
    "Dirichlet",
    "Distribution",
    "Error",
    "Group",
    "GumbelSoftmax",
    "Images",
    "LostError",
    "NotFiniteError",
    "Optimizer",
    "OutputError",
    "Rebuild",
    "Rollback",
    "Run",
    "RunError",
    "Search",
    "Set",
    "Sgd",
    "Softmax",
    "Space",
    "Spec",
    "Strategy",
    "Task",
    "announce",
    "command",
    "compare",
    "evaluate",
    "images",
    "load",
    "network",
    "plugins",
    "resume",
    "retrain",
    "run",
]


def __getattr__(name):
    # torch is imported when it is needed: the command line starts without it.
    if name in __all__:
        from . import _api

        return getattr(_api, name)
    raise AttributeError(f"module 'nasfw' has no attribute {name!r}")


def __dir__():
    return [*__all__, "testing"]
