//! The architecture that a search would end with.

use crate::arch::Choice;
use crate::error::Result;
use crate::search::Search;
use crate::strategy::Strategy;

/// What the strategy derives, checked. Where that does not meet the search's limits, since the strategy derived it from no
/// weights or looked at none of the space's rules: the likeliest architecture by the distribution's weights that does, or
/// without a distribution the nearest.
///
/// # Errors
/// Whatever the strategy has to say; an architecture that is not one of the space.
pub fn derive(strategy: &dyn Strategy, search: &Search) -> Result<Choice> {
    let choice = strategy.derive(search)?;
    let space = search.space();
    choice.check(space.spec())?;
    let Some(limits) = search.limits() else {
        return Ok(choice);
    };
    if limits.fits(space, &choice) {
        return Ok(choice);
    }
    let weights = match search.marginals(strategy.distribution())? {
        Some(weights) => weights,
        None => space.spec().to_marginals(&search.one_hot(&choice).weights),
    };
    Ok(space.derive(&weights))
}
