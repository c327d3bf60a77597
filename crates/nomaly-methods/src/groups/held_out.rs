//! Held-out scores of items.

use super::partition::Groups;
use super::split::{MAX_FOLDS, Split};

/// Splits `n` independent items into up to [`MAX_FOLDS`] folds, each ascending, as equal in size as possible.
///
/// The assignment depends only on `seed`. Fewer than [`MAX_FOLDS`] items are left out one at a time.
pub fn folds(n: usize, seed: u64) -> Vec<Vec<usize>> {
    Groups::singletons(n).folds(MAX_FOLDS, seed)
}

/// Scores each item of `groups` with a fit on the other [`folds`](Groups::folds).
///
/// `score(train, test)` fits on the items `train` and returns the same number of scores, at least one, for each of the
/// items `test`, both ascending. The scores of an item are consecutive.
///
/// # Errors
/// Errors of `score`.
pub fn cross_validated_scores<E>(
    groups: &Groups,
    seed: u64,
    mut score: impl FnMut(&[usize], &[usize]) -> Result<Vec<f64>, E>,
) -> Result<Vec<f64>, E> {
    let mut held_out = vec![Vec::new(); groups.items()];
    for test in groups.folds(MAX_FOLDS, seed) {
        let Split { train, test } = Split::holding_out(test, groups.items());
        let scores = score(&train, &test)?;
        for (item, scores) in test.iter().zip(scores.chunks(scores.len() / test.len())) {
            held_out[*item] = scores.to_vec();
        }
    }
    Ok(held_out.concat())
}

/// Items with their held-out scores, over the [splits](Groups::splits) of `groups`.
///
/// `fit_and_score(train, test)` fits on the items `train` and returns one score for each of the items `test`, both
/// ascending. The result is in the order of the items; above 10 000 items it has only the held-out ones. The detector
/// itself is fitted on all items.
///
/// # Errors
/// Errors of `fit_and_score`.
pub fn held_out_scores<E>(
    groups: &Groups,
    seed: u64,
    mut fit_and_score: impl FnMut(&[usize], &[usize]) -> Result<Vec<f64>, E>,
) -> Result<Vec<(usize, f64)>, E> {
    let mut scored = Vec::new();
    for Split { train, test } in groups.splits(seed) {
        let scores = fit_and_score(&train, &test)?;
        debug_assert_eq!(scores.len(), test.len());
        scored.extend(test.into_iter().zip(scores));
    }
    scored.sort_unstable_by_key(|(item, _)| *item);
    Ok(scored)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splits(n: usize, seed: u64) -> Vec<Split> {
        Groups::singletons(n).splits(seed)
    }

    #[test]
    fn the_splits_get_fewer_as_items_get_more() {
        for (n, count, held_out) in [(1, 1, 1), (7, 7, 7), (1000, 10, 1000), (1001, 5, 1001), (10_000, 5, 10_000)] {
            assert_eq!(splits(n, 3).len(), count, "n = {n}");
            let scores = held_out_scores(&Groups::singletons(n), 3, |train, test| {
                assert_eq!(train.len() + test.len(), n);
                assert!(test.iter().all(|item| train.binary_search(item).is_err()));
                Ok::<_, ()>(test.iter().map(|&item| item as f64).collect())
            });
            assert!(scores.unwrap().into_iter().eq((0..held_out).map(|item| (item, item as f64))), "n = {n}");
        }
        for (n, held_out) in [(10_001, 2000), (60_000, 10_000)] {
            let splits = splits(n, 3);
            assert_eq!((splits.len(), splits[0].test.len(), splits[0].train.len()), (1, held_out, n - held_out));
        }
        assert!(splits(0, 3).iter().all(|split| split.test.is_empty()));
        assert_ne!(splits(20_000, 3), splits(20_000, 4));
    }

    #[test]
    fn every_item_is_scored_once_by_a_fit_that_has_not_seen_it() {
        for n in [2, 3, 9, 10, 11, 57] {
            let mut times = vec![0; n];
            let held_out = cross_validated_scores(&Groups::singletons(n), 7, |train, test| {
                assert_eq!(train.len() + test.len(), n);
                assert!(test.iter().all(|row| !train.contains(row)));
                test.iter().for_each(|&row| times[row] += 1);
                Ok::<_, ()>(test.iter().map(|&row| row as f64).collect())
            })
            .unwrap();
            assert!(times.iter().all(|&count| count == 1), "n = {n}: {times:?}");
            assert!(held_out.iter().enumerate().all(|(row, &value)| value == row as f64));
        }
    }
}
