//! Planted defects: what the suite must reject.
mod strategies;
