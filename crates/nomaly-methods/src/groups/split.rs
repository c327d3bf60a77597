//! Splits of items into a part to fit on and a part to score.

/// The most folds that cross-validation uses.
pub const MAX_FOLDS: usize = 10;
/// The most items for which [`splits`](super::Groups::splits) makes [`MAX_FOLDS`] folds.
pub const MANY_FOLDS_UP_TO: usize = 1_000;
/// The most items for which [`splits`](super::Groups::splits) makes [`FEW_FOLDS`] folds.
pub const FOLDS_UP_TO: usize = 10_000;
/// The number of folds for up to [`FOLDS_UP_TO`] items.
pub const FEW_FOLDS: usize = 5;
/// The most items that a single split holds out.
pub(crate) const MOST_HELD_OUT: usize = 10_000;

/// Items to fit on, and items that this fit scores, both ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The items to fit on.
    pub train: Vec<usize>,
    /// The items to score.
    pub test: Vec<usize>,
}

impl Split {
    /// Holds out the items `test`, ascending, of `n` items.
    pub fn holding_out(test: Vec<usize>, n: usize) -> Self {
        let mut held_out = vec![false; n];
        test.iter().for_each(|&item| held_out[item] = true);
        Self { train: (0..n).filter(|&item| !held_out[item]).collect(), test }
    }
}
