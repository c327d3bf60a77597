//! Outlines of masks, as paths of SVG.
//!
//! An outline is more precise than a box and, unlike lines in a small JPEG, stays sharp on every screen, uses the
//! page's colours and can be switched off.

use std::fmt::Write;

use image::GrayImage;

use crate::ReportError;
use crate::picture::shrunk;

/// The most corners in the outlines of one mask. Beyond that, only the longest outlines are kept: a mask that needs
/// more is noise.
pub const MAX_POINTS: usize = 4096;

/// The outlines of a mask's regions and of the holes in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contour {
    /// Commands of an SVG path, in half pixels of the shrunken mask.
    path: String,
    width: u32,
    height: u32,
}

impl Contour {
    /// The outlines of a mask, in which non-zero pixels belong to regions. The mask is shrunk as by
    /// [`Picture::mask`](crate::Picture::mask); its outlines then run through the midpoints of the edges between pixels
    /// inside and outside, so that slanted borders are straight lines. Pixels that touch only at a corner are outlined
    /// separately.
    ///
    /// # Errors
    /// A mask without pixels.
    pub fn new(mask: &GrayImage) -> Result<Self, ReportError> {
        let small = shrunk(mask)?;
        let (width, height) = small.dimensions();
        let mut loops = Edges::of(&small).loops();
        loops.sort_by_key(|corners| std::cmp::Reverse(corners.len())); // stable: from the top among equals
        let mut path = String::new();
        let mut points = 0;
        for corners in loops {
            points += corners.len();
            if points > MAX_POINTS {
                break;
            }
            write_loop(&mut path, &corners);
        }
        Ok(Self { path, width, height })
    }

    /// The path, in half pixels of a picture with the size of this outline.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Whether the mask had no regions.
    pub fn is_empty(&self) -> bool {
        self.path.is_empty()
    }

    /// Width of the outlined mask in pixels, at most [`MAX_SIDE`](crate::MAX_SIDE).
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height of the outlined mask in pixels, at most [`MAX_SIDE`](crate::MAX_SIDE).
    pub fn height(&self) -> u32 {
        self.height
    }
}

fn write_loop(path: &mut String, corners: &[[i32; 2]]) {
    let Some(&first) = corners.first() else { return };
    // Writing to a string cannot fail.
    let _ = write!(path, "M{} {}", first[0], first[1]);
    let mut last = first;
    for &corner in &corners[1..] {
        let _ = write!(path, "l{} {}", corner[0] - last[0], corner[1] - last[1]);
        last = corner;
    }
    path.push('z');
}

/// Directions along the edges of pixels, clockwise: right, down, left, up.
const STEPS: [[i32; 2]; 4] = [[1, 0], [0, 1], [-1, 0], [0, -1]];

/// The edges between pixels inside and outside of a mask, each directed so that the inside is on its right.
struct Edges {
    /// For every corner of a pixel, `[height + 1, width + 1]`: one bit for each direction in [`STEPS`] with an outgoing
    /// edge.
    leaving: Vec<u8>,
    columns: usize,
}

impl Edges {
    fn of(mask: &GrayImage) -> Self {
        let (width, height) = (mask.width() as usize, mask.height() as usize);
        let columns = width + 1;
        let mut leaving = vec![0; columns * (height + 1)];
        let inside = |x: usize, y: usize| x < width && y < height && mask.as_raw()[y * width + x] != 0;
        for y in 0..height {
            for x in (0..width).filter(|&x| inside(x, y)) {
                // `wrapping_sub` turns "left of the first column" into a column far beyond the last.
                let neighbours = [(x, y.wrapping_sub(1)), (x + 1, y), (x, y + 1), (x.wrapping_sub(1), y)];
                let starts = [(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)];
                for (step, ((nx, ny), (sx, sy))) in neighbours.into_iter().zip(starts).enumerate() {
                    if !inside(nx, ny) {
                        leaving[sy * columns + sx] |= 1 << step;
                    }
                }
            }
        }
        Self { leaving, columns }
    }

    /// Splits the edges into closed loops, each as the corners of the polygon through its edges' midpoints, in half
    /// pixels.
    fn loops(mut self) -> Vec<Vec<[i32; 2]>> {
        let mut loops = Vec::new();
        for start in 0..self.leaving.len() {
            while self.leaving[start] != 0 {
                loops.push(straightened(&self.follow(start)));
            }
        }
        loops
    }

    /// Removes the loop that leaves `start` and returns the midpoints of its edges.
    fn follow(&mut self, start: usize) -> Vec<[i32; 2]> {
        let mut middles = Vec::new();
        let first = self.leaving[start].trailing_zeros() as usize;
        let (mut at, mut step) = (start, first);
        loop {
            let [dx, dy] = STEPS[step];
            let (x, y) = ((at % self.columns) as i32, (at / self.columns) as i32);
            middles.push([2 * x + dx, 2 * y + dy]);
            at = ((y + dy) * self.columns as i32 + x + dx) as usize;
            // Where two loops meet, turning right keeps each around its own pixel. Every incoming edge has an outgoing
            // one, and the one that leaves `start` is taken last.
            let turns = [1, 0, 3].map(|turn| (step + turn) % 4);
            let Some(next) = turns.into_iter().find(|&next| self.leaving[at] >> next & 1 == 1) else { return middles };
            self.leaving[at] &= !(1 << next);
            if (at, next) == (start, first) {
                return middles;
            }
            step = next;
        }
    }
}

/// The corners of a closed polygon: the points where its direction changes.
fn straightened(points: &[[i32; 2]]) -> Vec<[i32; 2]> {
    let count = points.len();
    (0..count)
        .filter(|&index| {
            let [before, at, after] = [points[(index + count - 1) % count], points[index], points[(index + 1) % count]];
            [at[0] - before[0], at[1] - before[1]] != [after[0] - at[0], after[1] - at[1]]
        })
        .map(|index| points[index])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Luma;
    use proptest::prelude::*;

    fn mask(rows: &[&str]) -> GrayImage {
        GrayImage::from_fn(rows[0].len() as u32, rows.len() as u32, |x, y| {
            Luma([255 * u8::from(rows[y as usize].as_bytes()[x as usize] == b'#')])
        })
    }

    fn path(rows: &[&str]) -> String {
        Contour::new(&mask(rows)).unwrap().path().to_owned()
    }

    #[test]
    fn outlines_run_through_the_middles_of_edges() {
        assert_eq!(path(&["...", ".#.", "..."]), "M3 2l1 1l-1 1l-1 -1z");
        assert_eq!(path(&["####", "####", "####"]), "M1 0l6 0l1 1l0 4l-1 1l-6 0l-1 -1l0 -4z");
        assert_eq!(path(&["..", ".."]), "");
        assert!(Contour::new(&GrayImage::new(2, 2)).unwrap().is_empty());
        assert!(Contour::new(&GrayImage::new(0, 2)).is_err());
    }

    #[test]
    fn slanted_borders_are_straight_and_holes_are_outlined() {
        let staircase = ["#....", "##...", "###..", "####.", "#####"];
        assert_eq!(path(&staircase), "M1 0l9 9l-1 1l-8 0l-1 -1l0 -8z");
        assert_eq!(path(&["###", "#.#", "###"]).matches('z').count(), 2);
        assert_eq!(path(&["#.", ".#"]).matches('z').count(), 2);
    }

    #[test]
    fn noise_keeps_its_longest_outlines() {
        let mut noise = GrayImage::from_fn(200, 200, |x, y| Luma([255 * u8::from((x + y) % 2 == 0)]));
        for (x, y) in (20..60).flat_map(|x| (20..60).map(move |y| (x, y))) {
            noise.put_pixel(x, y, Luma([255]));
        }
        let contour = Contour::new(&noise).unwrap();
        assert!(contour.path().matches('l').count() <= MAX_POINTS);
        // The square, whose border is ragged, comes before the single pixels.
        assert!(contour.path().find('z').unwrap() > 100);
    }

    /// Twice the area that a polygon of `M`, `l` and `z` encloses, holes counted as negative.
    fn doubled_area(path: &str) -> i64 {
        let mut sum = 0;
        for part in path.split('z').filter(|part| !part.is_empty()) {
            let mut corners: Vec<[i64; 2]> = Vec::new();
            for pair in part[1..].split('l') {
                let (x, y) = pair.split_once(' ').unwrap();
                let (x, y): (i64, i64) = (x.parse().unwrap(), y.parse().unwrap());
                let [lx, ly] = corners.last().copied().unwrap_or([0, 0]);
                corners.push([lx + x, ly + y]);
            }
            for (index, [ax, ay]) in corners.iter().enumerate() {
                let [bx, by] = corners[(index + 1) % corners.len()];
                sum += ax * by - bx * ay;
            }
        }
        sum
    }

    proptest! {
        /// A polygon through the midpoints of edges cuts an eighth of a pixel off each convex corner and adds as much
        /// at each concave one; a loop has four more of the former around a region, and four more of the latter around
        /// a hole.
        #[test]
        fn an_outline_encloses_its_pixels(bits in prop::collection::vec(any::<bool>(), 42)) {
            let mask = GrayImage::from_fn(7, 6, |x, y| Luma([u8::from(bits[(y * 7 + x) as usize])]));
            let contour = Contour::new(&mask).unwrap();
            let outlines = Edges::of(&shrunk(&mask).unwrap()).loops();
            let area = |corners: &Vec<[i32; 2]>| (0..corners.len()).map(|i| {
                let ([ax, ay], [bx, by]) = (corners[i], corners[(i + 1) % corners.len()]);
                i64::from(ax * by - bx * ay)
            }).sum::<i64>();
            let regions = outlines.iter().filter(|corners| area(corners) > 0).count() as i64;
            let holes = outlines.len() as i64 - regions;
            let pixels = bits.iter().filter(|&&bit| bit).count() as i64;
            // In half pixels, a pixel's doubled area is 8, and an eighth of it is 1.
            prop_assert_eq!(doubled_area(contour.path()), 8 * pixels - 4 * regions + 4 * holes);
        }
    }
}
