//! Loops over slices vector by vector.

use crate::simd::Simd;

/// Writes the first results of `f` of the vectors at each place of `from` to the same place of `to`, and returns the
/// sums of the second results: f32 lanes, added up in f64.
///
/// The last values go through vectors that are filled up with zeros, so that every value meets the same operations;
/// what `f` makes of those zeros is dropped.
///
/// # Safety
/// Each of `from` must be valid for reading and each of `to` for writing `len` values. One of `to` may equal one of
/// `from`; other overlaps are not allowed.
#[inline(always)]
pub(super) unsafe fn map_sum_vectors<S: Simd, const I: usize, const O: usize, const P: usize>(
    s: S,
    from: [*const f32; I],
    to: [*mut f32; O],
    len: usize,
    f: impl Fn([S::V; I]) -> ([S::V; O], [S::V; P]),
) -> [f64; P] {
    let rest = len % S::LANES;
    let zero = s.splat(0.0);
    let mut totals = [0.0f64; P];
    let mut lanes = [0.0f32; 16];
    let (mut rest_from, mut rest_to) = ([[0.0f32; 16]; I], [[0.0f32; 16]; O]);
    // SAFETY: the first pass ends before the rest, the second runs in buffers that hold the longest vector.
    unsafe {
        for i in 0..I {
            rest_from[i].as_mut_ptr().copy_from_nonoverlapping(from[i].add(len - rest), rest);
        }
        // Both passes share one call of `f`: the compiler then inlines it, however long it is, and only what is inlined
        // here is compiled for this instruction set.
        for pass in 0..2 {
            let (mut from, mut to, count, used) =
                if pass == 0 { (from, to, len / S::LANES, S::LANES) } else { (from, to, rest.min(1), rest) };
            if pass == 1 {
                for i in 0..I {
                    from[i] = rest_from[i].as_ptr();
                }
                for o in 0..O {
                    to[o] = rest_to[o].as_mut_ptr();
                }
            }
            // Two sums of each kind, because a single one would wait for its previous addition.
            let mut sums = [[zero; P]; 2];
            let mut vector = 0;
            while vector < count {
                for half in 0..2 {
                    if vector < count {
                        let mut x = [zero; I];
                        for i in 0..I {
                            x[i] = s.load(from[i].add(vector * S::LANES));
                        }
                        let (y, terms) = f(x);
                        for o in 0..O {
                            s.store(to[o].add(vector * S::LANES), y[o]);
                        }
                        for p in 0..P {
                            sums[half][p] = s.add(sums[half][p], terms[p]);
                        }
                        vector += 1;
                    }
                }
            }
            for p in 0..P {
                s.store(lanes.as_mut_ptr(), s.add(sums[0][p], sums[1][p]));
                totals[p] += lanes[..used].iter().map(|v| f64::from(*v)).sum::<f64>();
            }
        }
        for o in 0..O {
            to[o].add(len - rest).copy_from_nonoverlapping(rest_to[o].as_ptr(), rest);
        }
    }
    totals
}

/// [`map_sum_vectors`] without sums.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn map_vectors<S: Simd, const I: usize, const O: usize>(
    s: S,
    from: [*const f32; I],
    to: [*mut f32; O],
    len: usize,
    f: impl Fn([S::V; I]) -> [S::V; O],
) {
    // SAFETY: the caller's promise.
    unsafe { map_sum_vectors(s, from, to, len, |x| (f(x), [])) };
}

/// [`map_sum_vectors`] without results.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn sum_vectors<S: Simd, const I: usize, const P: usize>(
    s: S,
    from: [*const f32; I],
    len: usize,
    f: impl Fn([S::V; I]) -> [S::V; P],
) -> [f64; P] {
    // SAFETY: the caller's promise.
    unsafe { map_sum_vectors(s, from, [], len, |x| ([], f(x))) }
}

/// The greatest value, or negative infinity if there is none; NaN may be overlooked.
#[inline(always)]
pub(super) fn greatest<S: Simd>(s: S, values: &[f32]) -> f32 {
    let whole = values.len() - values.len() % S::LANES;
    let mut high = s.splat(f32::NEG_INFINITY);
    let mut lanes = [f32::NEG_INFINITY; 16];
    // SAFETY: vectors end before `whole`, and `lanes` holds the longest vector.
    unsafe {
        for at in (0..whole).step_by(S::LANES) {
            high = s.max(high, s.load(values.as_ptr().add(at)));
        }
        s.store(lanes.as_mut_ptr(), high);
    }
    let rest = values[whole..].iter().copied();
    lanes[..S::LANES].iter().copied().chain(rest).fold(f32::NEG_INFINITY, f32::max)
}
