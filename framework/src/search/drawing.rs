//! Batches: the next one of a split, and one that was drawn before.

use serde::{Deserialize, Serialize};

use super::running::Search;
use crate::batches::{Augment, Batch, Draw, Order, Split};
use crate::error::{Error, Result};
use crate::listen::Phase;

/// A training batch by its place in the search: the same images in the same order, augmented by the same random numbers,
/// whenever it is taken. A strategy may keep it in its state.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ticket {
    draw: Draw,
    augment: Augment,
}

impl Search {
    /// The next training batch of a split, augmented.
    ///
    /// # Errors
    /// An image file that can't be decoded, where the dataset is not in memory.
    pub fn batch(&mut self, split: Split) -> Result<Batch> {
        let ticket = self.next_batch(split);
        let Draw { pass, index, .. } = ticket.draw;
        self.clock.drawn.insert(split, (pass, index + 1));
        self.batch_again(&ticket)
    }

    /// The batch that [`Search::batch`] would give next, which is not drawn here: take it now or later, as often as
    /// wanted, by [`Search::batch_again`].
    pub fn next_batch(&self, split: Split) -> Ticket {
        let batch_size = self.settings.batch_size;
        let (mut pass, mut index) = self.clock.drawn.get(&split).copied().unwrap_or_default();
        if index >= self.batches.per_pass(split, batch_size) {
            (pass, index) = (pass + 1, 0);
        }
        let order = match split {
            Split::Val => self.settings.val_order,
            _ => Order::Shuffled,
        };
        let draw = Draw {
            split,
            order,
            pass,
            index,
            batch_size,
        };
        Ticket {
            draw,
            augment: self.settings.augment,
        }
    }

    /// A batch that was drawn, or is to come, to the bit. Which batch is next does not change.
    ///
    /// # Errors
    /// Those of [`Search::batch`], and a ticket of other images.
    pub fn batch_again(&mut self, ticket: &Ticket) -> Result<Batch> {
        let _span = self.timed(Phase::Data);
        let Ticket { draw, augment } = *ticket;
        self.batches.require(&[draw.split])?;
        let exists =
            draw.batch_size > 0 && draw.index < self.batches.per_pass(draw.split, draw.batch_size);
        if !exists {
            return Err(Error::Invalid {
                what: "ticket of a batch".into(),
                why: "these images have no such batch".into(),
            });
        }
        let batch = self.batches.batch(draw, augment)?;
        self.tell(|listener| listener.drawn(&batch));
        Ok(batch)
    }
}
