//! Figures of runs and comparisons, as SVG and PNG.
