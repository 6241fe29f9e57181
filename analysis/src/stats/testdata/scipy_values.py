"""Makes scipy.json, the values that the tests of `stats` compare with.

    python3 -m venv venv && venv/bin/pip install scipy==1.17.1
    venv/bin/python scipy_values.py > scipy.json
"""

import json

import numpy as np
from scipy import stats

rng = np.random.default_rng(20260901)
out = {}


def lists(*arrays):
    return [np.asarray(a, dtype=float).tolist() for a in arrays]


# Means, sample standard deviations (ddof=1), BCa intervals with SciPy's own resamples.
out["bootstrap"] = []
for n, make in [(5, rng.normal), (10, rng.exponential), (3, rng.random), (30, rng.lognormal)]:
    x = make(size=n)
    for confidence in (0.95, 0.8):
        r = stats.bootstrap((x,), np.mean, n_resamples=199, confidence_level=confidence, method="BCa", rng=7)
        out["bootstrap"].append({
            "x": x.tolist(), "mean": x.mean(), "sd": x.std(ddof=1), "confidence": confidence,
            "resamples": r.bootstrap_distribution.tolist(),
            "low": r.confidence_interval.low, "high": r.confidence_interval.high,
        })

# Wilcoxon: exact without ties; every sign flip with ties and zeros; the normal approximation for large samples.
out["wilcoxon"] = []
def wilcoxon(a, b, method):
    r = stats.wilcoxon(a, b, zero_method="wilcox", correction=False, method=method)
    a, b = lists(a, b)
    out["wilcoxon"].append({"a": a, "b": b, "p": r.pvalue})
for n in (3, 5, 6, 10, 20, 50):
    wilcoxon(rng.normal(size=n), rng.normal(0.4, size=n), "exact")
every = stats.PermutationMethod(n_resamples=np.inf)
for n in (5, 8, 12):
    a, b = rng.integers(0, 5, size=n), rng.integers(0, 5, size=n)
    b[0] = a[0]
    wilcoxon(a, b, every)
for n in (80, 200):
    wilcoxon(rng.normal(size=n), rng.normal(0.2, size=n), "asymptotic")
    wilcoxon(rng.integers(0, 9, size=n), rng.integers(1, 9, size=n), "asymptotic")

# Friedman, with and without ties: blocks × treatments, higher is better.
out["friedman"] = []
for n, k, make in [(6, 3, rng.normal), (10, 5, rng.normal), (8, 4, lambda size: rng.integers(0, 4, size=size))]:
    table = np.asarray(make(size=(n, k)), dtype=float)
    r = stats.friedmanchisquare(*table.T)
    ranks = stats.rankdata(-table, axis=1).mean(axis=0)
    out["friedman"].append({"table": table.tolist(), "chi_squared": r.statistic, "p": r.pvalue, "ranks": ranks.tolist()})

# Quantiles of the studentized range with infinitely many degrees of freedom (Nemenyi's test divides them by √2).
out["studentized_range"] = [
    {"k": k, "level": level, "q": stats.studentized_range.ppf(1 - level, k, np.inf)}
    for k in (2, 3, 4, 5, 10, 20) for level in (0.1, 0.05, 0.01)
]

# Kendall's τ-b: exact, and asymptotic with ties or for large samples.
out["kendall"] = []
def kendall(x, y):
    r = stats.kendalltau(x, y)
    x, y = lists(x, y)
    out["kendall"].append({"x": x, "y": y, "tau": r.statistic, "p": r.pvalue})
for n in (2, 4, 10, 33, 34, 100):
    x = rng.normal(size=n)
    kendall(x, x + rng.normal(size=n))
kendall(range(8), range(8))
kendall(range(8), range(8, 0, -1))
for n in (6, 12, 60):
    kendall(rng.integers(0, 5, size=n), rng.integers(0, 5, size=n))

print(json.dumps(out, indent=None))
