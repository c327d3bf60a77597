//! Shards of the images of a fit.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// The most shards of a fit.
const MOST_SHARDS: usize = 10_000;

/// One of several stretches of nearly equal length of a list of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// The values that [`from_str`](Self::from_str) accepts, in words.
    pub const ALLOWED: &str = "I/N: the I-th of N shards, I from 1 to N and N up to 10000";

    /// The `index`-th of `count` shards, from 1; `None` if there is no such shard.
    pub fn new(index: usize, count: usize) -> Option<Self> {
        ((1..=MOST_SHARDS).contains(&count) && (1..=count).contains(&index)).then_some(Self { index, count })
    }

    /// The number of the shard, from 1.
    pub fn index(self) -> usize {
        self.index
    }

    /// The number of shards.
    pub fn count(self) -> usize {
        self.count
    }

    /// Its range of `items` items; may be empty if there are more shards than items.
    pub fn of(self, items: usize) -> Range<usize> {
        let end = |shards: usize| (items as u128 * shards as u128 / self.count as u128) as usize;
        end(self.index - 1)..end(self.index)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        numbers.and_then(|(index, count)| Self::new(index, count)).ok_or_else(|| format!("expected {}", Self::ALLOWED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_cover_all_items_once_and_evenly() {
        for (items, count) in [(0, 1), (1, 1), (7, 3), (3, 7), (24, 4), (1000, 999)] {
            let shards: Vec<_> = (1..=count).map(|index| Shard::new(index, count).unwrap().of(items)).collect();
            assert!(shards.iter().cloned().flatten().eq(0..items), "{items} in {count}");
            let longest = shards.iter().map(ExactSizeIterator::len).max().unwrap();
            assert!(longest <= items.div_ceil(count), "{items} in {count}: {longest}");
        }
    }

    #[test]
    fn what_is_no_shard_is_refused() {
        assert_eq!("2/4".parse(), Ok(Shard::new(2, 4).unwrap()));
        assert_eq!(Shard::new(2, 4).unwrap().to_string(), "2/4");
        for text in ["", "2", "0/4", "5/4", "1/0", "1/10001", "a/b", "1/2/3", "-1/2"] {
            assert!(text.parse::<Shard>().unwrap_err().contains("I/N"), "{text}");
        }
    }
}
