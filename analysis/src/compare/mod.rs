//! Comparisons: a plan of runs, carried out as processes of their own, and the table that they amount to.
