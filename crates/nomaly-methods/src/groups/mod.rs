//! Which images belong together, so that a promise counts scenes and not files.
//!
//! Bursts, video and turntables give images that resemble each other more than an image of tomorrow resembles any of
//! them. A held-out score whose twin is in the fit is too low, and a threshold from such scores flags good images. So
//! images that depend on each other form a *group*: held-out scores leave out the whole group, and a p-value is that of
//! an image of a new group ([`Conformal::of_groups`](nomaly_scorers::decision::Conformal::of_groups)).
//!
//! [`GroupBy`] says what makes a group; [`GroupBy::Auto`] finds near-copies and runs by itself.

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
