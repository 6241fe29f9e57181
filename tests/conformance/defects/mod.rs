//! Planted defects: what the suite must reject.
mod spaces;
mod strategies;
mod wrapped;
