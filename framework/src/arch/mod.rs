//! What there is to decide ([`ArchSpec`]), one relaxed answer ([`RelaxedArch`]), one discrete answer ([`Choice`]) and
//! the network it stands for ([`Genotype`]).

mod choice;
mod dag;
mod fit;
mod genotype;
mod reach;
mod relaxed;
mod spec;

pub use choice::Choice;
pub use dag::{Dag, Label};
pub use genotype::{Cell, Edge, Genotype, Node};
pub use relaxed::RelaxedArch;
pub use spec::{ArchSpec, Edges, Group, Marginals, Role, Row, row_entropy, subsets};
