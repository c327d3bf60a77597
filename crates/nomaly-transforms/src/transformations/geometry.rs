//! Geometric transformations: flips, shifts and rotations move pixels, zooms and crops interpolate between them.

/// The source rows and columns of pixels.
///
/// Flips, shifts and quarter turns only move pixels, and any composition of them is one `Gather`, so an image is copied
/// once for any number of steps.
#[derive(Debug)]
pub(crate) struct Gather {
    /// For each row of the output, a row of the input, or a column if `transposed`.
    along_y: Vec<usize>,
    /// For each column of the output, a column of the input, or a row if `transposed`.
    along_x: Vec<usize>,
    transposed: bool,
}

impl Gather {
    /// Leaves every pixel in place.
    pub(crate) fn identity([height, width]: [usize; 2]) -> Self {
        Self { along_y: (0..height).collect(), along_x: (0..width).collect(), transposed: false }
    }

    /// Then mirrors left and right.
    pub(crate) fn flip(&mut self) {
        self.along_x.reverse();
    }

    /// Then takes row `y` from row `y + by`.
    pub(crate) fn shift_rows(&mut self, by: isize) {
        self.along_y = shifted(&self.along_y, by);
    }

    /// Then takes column `x` from column `x + by`.
    pub(crate) fn shift_columns(&mut self, by: isize) {
        self.along_x = shifted(&self.along_x, by);
    }

    /// Then turns by `quarters` times 90° counter-clockwise; height and width are swapped if that is odd.
    pub(crate) fn turn(&mut self, quarters: u8) {
        for _ in 0..quarters {
            // The output at (y, x) is what was at (x, last − y).
            self.along_x.reverse();
            std::mem::swap(&mut self.along_y, &mut self.along_x);
            self.transposed = !self.transposed;
        }
    }

    /// Copies planes, each of `width` columns, to planes of the same number of pixels.
    pub(crate) fn copy(&self, planes: &[f32], width: usize, out: &mut [f32]) {
        let pixels = self.along_y.len() * self.along_x.len();
        for (source, target) in planes.chunks_exact(pixels).zip(out.chunks_exact_mut(pixels)) {
            for (&y, row) in self.along_y.iter().zip(target.chunks_exact_mut(self.along_x.len())) {
                if self.transposed {
                    for (value, &x) in row.iter_mut().zip(&self.along_x) {
                        *value = source[x * width + y];
                    }
                } else {
                    let source = &source[y * width..][..width];
                    for (value, &x) in row.iter_mut().zip(&self.along_x) {
                        *value = source[x];
                    }
                }
            }
        }
    }
}

fn shifted(places: &[usize], by: isize) -> Vec<usize> {
    (0..places.len()).map(|at| places[reflected(at as isize + by, places.len())]).collect()
}

/// The index within `0..len` for an index beyond it: `d c b a | a b c d | d c b a`.
pub(crate) fn reflected(at: isize, len: usize) -> usize {
    let folded = at.rem_euclid(2 * len as isize) as usize;
    if folded < len { folded } else { 2 * len - 1 - folded }
}

/// The window of an image that is stretched (or shrunk) to the size of the image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Its sides, as a share of the image's.
    pub(crate) share: f64,
    /// Its position in the free space, from top and from left: 0 at one border, 1 at the other.
    pub(crate) place: [f64; 2],
}

impl Window {
    /// Interpolates linearly between the four nearest pixels; beyond the border lies the mirror image.
    pub(crate) fn resample(self, planes: &[f32], [height, width]: [usize; 2], out: &mut [f32]) {
        let (rows, columns) = (self.axis(0, height), self.axis(1, width));
        for (source, target) in planes.chunks_exact(height * width).zip(out.chunks_exact_mut(height * width)) {
            for (&(upper, lower, down), row) in rows.iter().zip(target.chunks_exact_mut(width)) {
                let (upper, lower) = (&source[upper * width..][..width], &source[lower * width..][..width]);
                for (value, &(left, right, across)) in row.iter_mut().zip(&columns) {
                    let above = upper[left] + across * (upper[right] - upper[left]);
                    let below = lower[left] + across * (lower[right] - lower[left]);
                    *value = above + down * (below - above);
                }
            }
        }
    }

    /// For each output position, the two input positions around it and the weight of the second.
    fn axis(self, axis: usize, len: usize) -> Vec<(usize, usize, f32)> {
        let side = len as f64;
        // Centres of pixels lie halfway between whole numbers.
        let start = self.place[axis] * (side - self.share * side) + 0.5 * self.share - 0.5;
        (0..len)
            .map(|at| {
                let from = start + at as f64 * self.share;
                let whole = from.floor();
                let near = whole as isize;
                (reflected(near, len), reflected(near + 1, len), (from - whole) as f32)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_those_of_scipy() {
        let fixture: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/fixtures/transformations.json")).unwrap();
        let number = |value: &serde_json::Value| value.as_f64().unwrap();
        let levels = fixture["colour"]["planes"].as_array().unwrap();
        let color: Vec<f32> = levels.iter().map(|level| number(level) as f32 / 255.0).collect();
        for case in fixture["window"].as_array().unwrap() {
            let place = [number(&case["place"][0]), number(&case["place"][1])];
            let mut out = vec![0.0; color.len()];
            Window { share: number(&case["share"]), place }.resample(&color, [9, 12], &mut out);
            let expected = case["expected"].as_array().unwrap().iter().flat_map(|plane| plane.as_array().unwrap());
            // The reference is rounded to 7 decimals, and this is single precision.
            for (value, expected) in out.iter().zip(expected) {
                assert!((f64::from(*value) - number(expected)).abs() < 4e-7, "{value}, expected {expected}");
            }
        }
    }
}
