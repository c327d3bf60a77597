//! Planes with zeros around them, so that kernels along rows need no borders.
//!
//! **The problem.** A kernel that keeps neighbouring columns in a vector has to treat the columns near the border
//! apart, and with a stride its values are not neighbours in memory.
//!
//! **The design.** A [`Stage`] is a copy of some rows of a plane in the first-level cache, with the padding as zeros
//! and, for a column step of s, the columns divided by their remainder modulo s: what neighbouring outputs read for one
//! element of the kernel lies side by side. Rows are copied in whole, aligned vectors, of which lanes beyond the row
//! become zeros. A vector of zeros before each row is the padding on its left, and on the right of the row before.

use std::ops::Range;

use crate::simd::Simd;

/// Rows of a plane, laid out as `[step][rows][pitch]` and a rest: column x of the plane is column `margin` + x / step
/// of part x mod step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stage {
    /// Width of the plane.
    width: usize,
    /// Rows that are kept.
    pub(super) rows: usize,
    /// The column step.
    step: usize,
    /// Columns of zeros before each row of a part.
    margin: usize,
    /// Distance of rows.
    pub(super) pitch: usize,
    /// Distance of the parts.
    part: usize,
}

impl Stage {
    /// The stage for `rows` rows of a plane of `width` columns, with `left` columns of padding before it, where
    /// consumers reach `reached` columns of a part counted from the padding's first; what is beyond the plane's padding
    /// is unspecified, but finite where the plane is.
    pub(super) fn new(width: usize, rows: usize, step: usize, left: usize, reached: usize, lanes: usize) -> Self {
        let filled = width.div_ceil(step).next_multiple_of(lanes);
        let padded = left > 0 || reached > filled;
        let margin = if padded { left.div_ceil(step).max(1).next_multiple_of(lanes) } else { 0 };
        // The next row's margin is the padding on the right.
        let pitch = (margin + filled).max(reached).next_multiple_of(lanes);
        let part = rows * pitch + (margin + reached).saturating_sub(pitch).next_multiple_of(lanes);
        Self { width, rows, step, margin, pitch, part }
    }

    /// Values in all.
    pub(super) fn len(&self) -> usize {
        self.step * self.part
    }

    /// Where the stage has the value of a column of the plane, or of the padding, in its first row.
    pub(super) fn column(&self, x: isize) -> usize {
        let x = x + (self.margin * self.step) as isize;
        x as usize % self.step * self.part + x as usize / self.step
    }

    /// Copies rows of a plane to `to`: the first is row `top`, and those that are not in `visible` are zeros, which
    /// they are already unless `moved`. `from` begins with the plane and may go on behind it.
    ///
    /// # Safety
    /// `self.len()` values at `to` must be valid for reading and writing. Before the first call they must be zeros;
    /// other calls may only have been for planes of the same shape, with the same rows unless `moved`.
    #[inline(always)]
    pub(super) unsafe fn fill<S: Simd>(
        &self,
        s: S,
        from: &[f32],
        top: isize,
        visible: Range<usize>,
        moved: bool,
        to: *mut f32,
    ) {
        let width = self.width;
        let rows = self.rows as isize;
        let first = (visible.start as isize - top).clamp(0, rows);
        let end = (visible.end as isize - top).clamp(first, rows);
        let vectors = width.div_ceil(self.step * S::LANES);
        let reached = vectors * self.step * S::LANES;
        let y = (top + first) as usize;
        assert!(first == end || from.len() >= (y + (end - first) as usize) * width, "a plane has all its rows");
        // Ones up to the end of a row: of the last vector of the first part, and of the second.
        let mut ones = [[0.0f32; 16]; 2];
        for (part, ones) in ones.iter_mut().enumerate() {
            let filled = (width + self.step - 1 - part.min(self.step - 1)) / self.step;
            ones[..(filled + S::LANES - vectors * S::LANES).min(S::LANES)].fill(1.0);
        }
        // SAFETY: the caller's promise; a row of a part has whole vectors behind its margin, and `from` was compared.
        unsafe {
            let ones = [s.load(ones[0].as_ptr()), s.load(ones[1].as_ptr())];
            if moved {
                for part in 0..self.step {
                    let to = to.add(part * self.part);
                    to.write_bytes(0, first as usize * self.pitch);
                    to.add(end as usize * self.pitch).write_bytes(0, (rows - end) as usize * self.pitch);
                }
            }
            let mut at = from.as_ptr().add(y * width);
            let mut to = to.add(first as usize * self.pitch + self.margin);
            // Vectors may read beyond the row, but not beyond the tensor.
            let mut left = from.len() - (y * width).min(from.len());
            for _ in first..end {
                if self.step == 1 && left >= reached {
                    for x in 0..vectors - 1 {
                        s.store(to.add(x * S::LANES), s.load(at.add(x * S::LANES)));
                    }
                    let last = (vectors - 1) * S::LANES;
                    s.store(to.add(last), s.where_positive(ones[0], s.load(at.add(last))));
                } else if self.step == 2 && left >= reached {
                    for x in 0..vectors {
                        let from = at.add(2 * x * S::LANES);
                        let mut parts = s.deinterleave(s.load(from), s.load(from.add(S::LANES)));
                        if x + 1 == vectors {
                            parts = [s.where_positive(ones[0], parts[0]), s.where_positive(ones[1], parts[1])];
                        }
                        s.store(to.add(x * S::LANES), parts[0]);
                        s.store(to.add(self.part + x * S::LANES), parts[1]);
                    }
                } else {
                    for x in 0..width {
                        to.add(x % self.step * self.part + x / self.step).write(at.add(x).read());
                    }
                }
                at = at.add(width);
                to = to.add(self.pitch);
                left -= width;
            }
        }
    }
}

/// The opposite of dividing a row by the remainders of its columns: column x of the first `width` values of `row` comes
/// from row x mod `step` of `parts`, `pitch` values apart. What is behind them may be overwritten.
#[inline(always)]
pub(super) fn join<S: Simd>(s: S, parts: &[f32], pitch: usize, step: usize, width: usize, row: &mut [f32]) {
    let mut joined = 0;
    if step == 1 {
        row[..width].copy_from_slice(&parts[..width]);
        return;
    }
    if step == 2 {
        let pair = 2 * S::LANES;
        while joined < width && joined + pair <= row.len() && pitch + joined / 2 + S::LANES <= parts.len() {
            // SAFETY: both parts and the row hold the vectors, as just compared.
            unsafe {
                let even = s.load(parts.as_ptr().add(joined / 2));
                let odd = s.load(parts.as_ptr().add(pitch + joined / 2));
                let [first, second] = s.interleave(even, odd);
                s.store(row.as_mut_ptr().add(joined), first);
                s.store(row.as_mut_ptr().add(joined + S::LANES), second);
            }
            joined += pair;
        }
    }
    for x in joined..width {
        row[x] = parts[x % step * pitch + x / step];
    }
}
