//! What runs amount to: statistics over repeated runs, comparisons of strategies, figures and reports. It reads run
//! folders and writes files; it trains nothing and knows no plugin.

pub mod compare;
pub mod figures;
pub mod listing;
pub mod record;
pub mod report;
pub mod state;
pub mod stats;
pub mod table;
