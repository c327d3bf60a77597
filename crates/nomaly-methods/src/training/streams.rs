//! Random numbers of networks, by name.

use nomaly_store::sha256;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// The random numbers of one network of a training.
///
/// Each is drawn from a stream that depends only on the seed, the name of the network, what it is used for and a
/// number: of the step, or of the example. So a training with another network, or that goes on from a checkpoint, draws
/// the same ones.
///
/// ```
/// use nomaly_methods::training::{NetworkStreams, StreamUse};
/// use rand::RngExt;
///
/// let generator = NetworkStreams::new(0, "generator");
/// let latent = |step| generator.numbers(StreamUse::Latents, step).random::<f32>();
/// assert_eq!(latent(3), latent(3));
/// assert_ne!(latent(3), latent(4));
/// assert_ne!(latent(3), NetworkStreams::new(0, "critic").numbers(StreamUse::Latents, 3).random::<f32>());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkStreams {
    seed: u64,
    network: &'static str,
}

/// What random numbers are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamUse {
    /// Weights to start from.
    Initialization,
    /// Masks of dropout.
    Dropout,
    /// Noise on inputs, codes or features.
    Noise,
    /// Codes that a generator starts from.
    Latents,
}

impl StreamUse {
    fn name(self) -> &'static str {
        match self {
            Self::Initialization => "initialization",
            Self::Dropout => "dropout",
            Self::Noise => "noise",
            Self::Latents => "latents",
        }
    }
}

impl NetworkStreams {
    /// The streams of the network called so, in a training with this seed.
    pub fn new(seed: u64, network: &'static str) -> Self {
        Self { seed, network }
    }

    /// The seed of its weights, for the functions of [`nomaly_nn::init`].
    pub fn initialization(&self) -> u64 {
        self.seed_of(StreamUse::Initialization, 0)
    }

    /// The seed of the masks of a step, for
    /// [`Network::seed_dropout`](nomaly_nn::trainable::Network::seed_dropout).
    pub fn dropout(&self, step: u64) -> u64 {
        self.seed_of(StreamUse::Dropout, step)
    }

    /// The numbers of a use, numbered by step or example. Distinct numbers give streams without overlap.
    pub fn numbers(&self, purpose: StreamUse, number: u64) -> ChaCha8Rng {
        let mut random = ChaCha8Rng::from_seed(self.key(purpose));
        random.set_stream(number);
        random
    }

    /// The numbers of an example in an epoch of `examples` examples.
    pub fn of_example(&self, purpose: StreamUse, epoch: usize, examples: usize, example: u32) -> ChaCha8Rng {
        self.numbers(purpose, epoch as u64 * examples as u64 + u64::from(example))
    }

    fn seed_of(&self, purpose: StreamUse, number: u64) -> u64 {
        let key = self.key(purpose);
        let first = key.first_chunk().copied().unwrap_or_default();
        // An odd factor keeps the seeds of distinct numbers distinct.
        u64::from_le_bytes(first).wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// The name cannot run into what follows: it comes last.
    fn key(&self, purpose: StreamUse) -> [u8; 32] {
        sha256(format!("nomaly stream {} {} {}", self.seed, purpose.name(), self.network).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::RngExt;

    use super::*;

    const USES: [StreamUse; 4] = [StreamUse::Initialization, StreamUse::Dropout, StreamUse::Noise, StreamUse::Latents];

    #[test]
    fn streams_differ_by_seed_name_use_and_number() {
        let mut seen = BTreeSet::new();
        for seed in [0, 1, 10] {
            for network in ["encoder", "decoder", "decoder 1"] {
                let streams = NetworkStreams::new(seed, network);
                for purpose in USES {
                    for number in [0, 1, u64::MAX] {
                        let drawn: u64 = streams.numbers(purpose, number).random();
                        assert_eq!(drawn, streams.numbers(purpose, number).random::<u64>());
                        assert!(seen.insert(drawn), "{seed} {network} {purpose:?} {number}");
                    }
                }
                assert!(seen.insert(streams.initialization()));
                (0..50).for_each(|step| assert!(seen.insert(streams.dropout(step))));
            }
        }
    }

    #[test]
    fn streams_are_those_of_an_independent_program() {
        let streams = NetworkStreams::new(7, "generator");
        assert_eq!(streams.initialization(), INITIALIZATION);
        assert_eq!(streams.numbers(StreamUse::Latents, 3).random::<u64>(), LATENTS);
        let example: u64 = streams.of_example(StreamUse::Latents, 1, 2, 1).random();
        assert_eq!(example, LATENTS);
    }

    /// The first eight bytes of the SHA-256 of `nomaly stream 7 initialization generator`, by Python's hashlib.
    const INITIALIZATION: u64 = 10_069_346_007_544_288_745;
    /// The first 64 bits of ChaCha8 with the SHA-256 of `nomaly stream 7 latents generator` as key and stream 3, by a
    /// program of its own in Python.
    const LATENTS: u64 = 10_116_331_439_474_640_613;
}
