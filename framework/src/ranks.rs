//! The processes of one run. Each of them holds the whole search and takes the same steps; of a batch each computes some
//! parts, and their sum, taken in the order of the parts, is the same for all of them. So numbers do not depend on how many
//! processes there are, and nothing but these sums has to be sent.

mod launcher;
mod normalise;
mod processes;

pub use launcher::Launcher;
pub(crate) use normalise::over;
pub use normalise::{batch_norm, is_synchronised};
pub use processes::{Ranks, Transport};
