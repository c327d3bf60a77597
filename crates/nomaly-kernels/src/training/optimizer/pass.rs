//! One pass of an optimizer's formula over parameters, gradient and states.

use crate::parallel::for_each;
use crate::simd::{Kernel, Simd, Token};

use super::super::error::{TrainingError, expect};
use super::super::memory::{Shared, threads_for};
use super::Gradient;

/// Values of a unit of work.
pub(super) const UNIT: usize = 16 << 10;

/// The formula of an optimizer with `N` states, on vectors.
pub(super) trait Update<const N: usize>: Sync {
    /// Floating-point operations per value, roughly.
    const FLOPS: usize;

    /// Parameter and states after the step; implementations are `#[inline(always)]`.
    fn update<S: Simd>(&self, s: S, parameter: S::V, gradient: S::V, state: [S::V; N]) -> (S::V, [S::V; N]);
}

/// Moves `parameters` and updates the states, each with its name.
///
/// # Errors
/// When the lengths differ.
pub(super) fn run<const N: usize, U: Update<N>>(
    token: Token,
    update: &U,
    parameters: &mut [f32],
    gradient: Gradient<'_>,
    states: [(&'static str, &mut [f32]); N],
) -> Result<(), TrainingError> {
    let len = parameters.len();
    expect("the gradient", gradient.values.len(), len)?;
    for (name, state) in &states {
        expect(name, state.len(), len)?;
    }
    let parameters = Shared::new(parameters);
    let states = states.map(|(_, state)| Shared::new(state));
    for_each(len.div_ceil(UNIT), threads_for(U::FLOPS * len), |unit| {
        let start = unit * UNIT;
        let values = &gradient.values[start..len.min(start + UNIT)];
        // SAFETY: units are disjoint, and the slices are borrowed exclusively until all units have ended.
        let (parameters, state) =
            unsafe { (parameters.at(start, values.len()), states.map(|state| state.at(start, values.len()))) };
        token.dispatch(Pass { update, parameters, gradient: Gradient { values, ..gradient }, state });
    });
    Ok(())
}

/// A gradient's values after scaling and limiting.
#[inline(always)]
pub(super) fn clipped<S: Simd>(s: S, value: S::V, gradient: &Gradient<'_>) -> S::V {
    let value = s.mul(value, s.splat(gradient.factor));
    // NaN as second operand stays NaN.
    s.max(s.splat(-gradient.limit), s.min(s.splat(gradient.limit), value))
}

/// An update of one unit. Parameters and states are valid for as many values as the gradient has.
struct Pass<'a, const N: usize, U> {
    update: &'a U,
    parameters: *mut f32,
    gradient: Gradient<'a>,
    state: [*mut f32; N],
}

impl<const N: usize, U: Update<N>> Pass<'_, N, U> {
    /// Updates one vector.
    ///
    /// # Safety
    /// All addresses must be valid for a vector.
    #[inline(always)]
    unsafe fn one<S: Simd>(&self, s: S, parameter: *mut f32, gradient: *const f32, at: [*mut f32; N]) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut state = [s.splat(0.0); N];
            for i in 0..N {
                state[i] = s.load(at[i]);
            }
            let gradient = clipped(s, s.load(gradient), &self.gradient);
            let (value, state) = self.update.update(s, s.load(parameter), gradient, state);
            s.store(parameter, value);
            for i in 0..N {
                s.store(at[i], state[i]);
            }
        }
    }
}

impl<const N: usize, U: Update<N>> Kernel for Pass<'_, N, U> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let len = self.gradient.values.len();
        let whole = len - len % S::LANES;
        let gradient = self.gradient.values.as_ptr();
        for i in (0..whole).step_by(S::LANES) {
            let mut at = self.state;
            for state in &mut at {
                *state = state.wrapping_add(i);
            }
            // SAFETY: there are `len` values everywhere, and `whole` is not beyond.
            unsafe { self.one(s, self.parameters.add(i), gradient.add(i), at) };
        }
        if whole < len {
            // The rest goes through vectors padded with zeros.
            let rest = len - whole;
            let mut lanes = [[0.0f32; 16]; 2];
            let mut states = [[0.0f32; 16]; N];
            // SAFETY: there are `rest` values after `whole` everywhere, and each array holds the longest vector.
            unsafe {
                self.parameters.add(whole).copy_to_nonoverlapping(lanes[0].as_mut_ptr(), rest);
                gradient.add(whole).copy_to_nonoverlapping(lanes[1].as_mut_ptr(), rest);
                let mut at = self.state;
                for i in 0..N {
                    self.state[i].add(whole).copy_to_nonoverlapping(states[i].as_mut_ptr(), rest);
                    at[i] = states[i].as_mut_ptr();
                }
                self.one(s, lanes[0].as_mut_ptr(), lanes[1].as_ptr(), at);
                lanes[0].as_ptr().copy_to_nonoverlapping(self.parameters.add(whole), rest);
                for i in 0..N {
                    states[i].as_ptr().copy_to_nonoverlapping(self.state[i].add(whole), rest);
                }
            }
        }
    }
}
