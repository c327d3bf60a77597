//! Keys of dropout masks.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Generates the keys of the masks of one pass after another.
#[derive(Debug)]
pub(crate) struct MaskKeys(ChaCha8Rng);

impl MaskKeys {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// The keys of a pass, in the order of the graph.
    pub(crate) fn next_pass(&mut self) -> impl Iterator<Item = u64> + use<> {
        // A generator for each pass: the masks of shallow layers do not depend on whether deeper ones are computed.
        let mut keys = ChaCha8Rng::seed_from_u64(self.0.next_u64());
        std::iter::repeat_with(move || keys.next_u64())
    }
}
