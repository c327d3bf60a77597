//! Operations on each value by itself: sum of two tensors, per-channel affine map, channel gate.

use crate::blocked::{Arena, Region, View};
use crate::epilogue::{CurveRows, Epilogue};
use crate::simd::{Kernel, Simd, Token};
use crate::team::Team;

/// The operation on each vector.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Map<'a> {
    /// Add the vector at the same position of another tensor of this shape.
    Add(&'a View),
    /// Multiply by scale, add shift, `[C / b][b]` each.
    Affine(&'a [f32], &'a [f32]),
    /// Multiply by a tensor `[C, 1, 1]`.
    Gate(&'a View),
}

/// Computes `epilogue(map(src))` into `dst`, which has the same shape.
///
/// # Safety
/// The arena must hold the tensors for `images` images, and nobody else may use them during the run. The shapes must
/// agree.
pub(crate) unsafe fn run(
    token: Token,
    arena: Arena,
    images: usize,
    team: &Team,
    [src, dst]: [&View; 2],
    map: Map<'_>,
    epilogue: Epilogue,
) {
    team.for_each_region(dst, images, 1, |region| {
        token.dispatch(MapKernel { arena, region, src, dst, map, epilogue });
        // SAFETY: the caller's promise, and regions do not overlap.
        unsafe { arena.clear_halo(dst, region) };
    });
}

struct MapKernel<'a> {
    arena: Arena,
    region: Region,
    src: &'a View,
    dst: &'a View,
    map: Map<'a>,
    epilogue: Epilogue,
}

impl Kernel for MapKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Region { image, block, .. } = self.region;
        // SAFETY: the caller of `run` promises that the arena holds the tensors and that all have this shape; scale and
        // shift hold whole blocks.
        unsafe {
            match self.map {
                Map::Add(other) => {
                    let other_block = self.arena.block(other, image, block);
                    self.each(s, |v, y, x| s.add(v, s.load(other_block.add(other.at(y, x)))));
                }
                Map::Affine(scale, shift) => {
                    let scale = s.load(scale[block * S::LANES..][..S::LANES].as_ptr());
                    let shift = s.load(shift[block * S::LANES..][..S::LANES].as_ptr());
                    self.each(s, |v, _, _| s.fma(v, scale, shift));
                }
                Map::Gate(gate) => {
                    let gate = s.load(self.arena.block(gate, image, block).add(gate.origin));
                    self.each(s, |v, _, _| s.mul(v, gate));
                }
            }
        }
    }
}

impl MapKernel<'_> {
    /// Replaces each vector by `map(vector, y, x)` and the activation.
    ///
    /// # Safety
    /// As for [`run`].
    #[inline(always)]
    unsafe fn each<S: Simd>(&self, s: S, map: impl Fn(S::V, usize, usize) -> S::V) {
        let Region { image, block, y0, y1 } = self.region;
        // SAFETY: the caller's promise; rows and columns lie inside both tensors.
        unsafe {
            let from = self.arena.block(self.src, image, block);
            let to = self.arena.block(self.dst, image, block);
            for y in y0..y1 {
                for x in 0..self.dst.width {
                    let v = map(s.load(from.add(self.src.at(y, x))), y, x);
                    s.store(to.add(self.dst.at(y, x)), self.epilogue.clamp(s, v));
                }
                if let Some(curve) = self.epilogue.curve {
                    let start = to.add(self.dst.at(y, 0));
                    s.vectorize(CurveRows { curve, start, row: self.dst.row, rows: 1, columns: self.dst.width });
                }
            }
        }
    }
}
