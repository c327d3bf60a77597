//! Groups of dependent images, so that error rates count scenes rather than files.
//!
//! Images from bursts, video and turntables resemble each other more than future images will resemble them. A held-out
//! score is too low if a near-copy of the image is in the fit, and a threshold from such scores flags good images.
//! Dependent images therefore form a *group*: held-out scores leave out the whole group, and a p-value refers to an
//! image of a new group ([`Conformal::of_groups`](nomaly_scorers::decision::Conformal::of_groups)).
//!
//! [`GroupBy`] is the grouping rule; [`GroupBy::Auto`] detects near-copies and runs.

mod held_out;
mod keys;
mod partition;
mod split;
mod time;

pub use self::held_out::{cross_validated_scores, folds, held_out_scores};
pub use self::keys::GroupBy;
pub use self::partition::{GroupInfo, Groups};
pub use self::split::{FEW_FOLDS, FOLDS_UP_TO, MANY_FOLDS_UP_TO, MAX_FOLDS, Split};
pub use self::time::{GroupFacts, Times};
