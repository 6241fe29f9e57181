//! Matrices that a strategy shows of itself: the feature maps of a generator's hidden layer at the start and after an
//! epoch, as in figure 1 of VIM-NAS.

use super::Figure;
use crate::record::Record;

pub(super) fn draw(_record: &Record) -> Option<Figure> {
    None
}
