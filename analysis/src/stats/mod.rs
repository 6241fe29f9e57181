//! Statistics of repeated runs, checked against SciPy.
