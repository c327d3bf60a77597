//! The positions and channels of the Gaussians.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::STATE;
use crate::MethodError;
use crate::features::FeatureBatch;
use crate::map_maker::MapMaker;
use crate::score::MethodScore;

/// The positions of an image and their kept channels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Positions {
    /// Height and width of the finest layer's grid.
    grid: [usize; 2],
    /// Views per image.
    views: usize,
    /// Channels kept, counted through all layers, ascending.
    channels: Vec<usize>,
}

impl Positions {
    pub(super) fn of(batch: &FeatureBatch<'_>, channels: Vec<usize>) -> Self {
        let finest = batch.shapes.iter().max_by_key(|[_, height, width]| height * width);
        let grid = finest.map_or([0, 0], |&[_, height, width]| [height, width]);
        Self { grid, views: batch.views, channels }
    }

    /// Positions of all views of an image.
    pub(super) fn count(&self) -> usize {
        self.views * self.grid[0] * self.grid[1]
    }

    /// Features per position.
    pub(super) fn features(&self) -> usize {
        self.channels.len()
    }

    /// Checks the values of a model file.
    pub(super) fn check(&self, layers: &[usize], features: usize) -> Result<(), MethodError> {
        let refuse = |reason: String| Err(MethodError::State { state: STATE.to_owned(), reason: Some(reason) });
        let total: usize = layers.iter().sum();
        if self.channels.len() != features || !self.channels.is_sorted_by(|a, b| a < b) {
            return refuse(format!("it does not list {features} channels in ascending order"));
        }
        if self.channels.last().is_some_and(|&last| last >= total) {
            return refuse(format!("it keeps a channel beyond the {total} of its layers"));
        }
        let [height, width] = self.grid;
        let count = height.checked_mul(width).and_then(|cells| cells.checked_mul(self.views));
        if count.is_none_or(|count| count == 0 || count > 1 << 32) {
            return refuse(format!("a grid of {height} x {width} positions in {} views is no grid", self.views));
        }
        Ok(())
    }

    /// The kept channels of all layers at each position, `[images, views · positions, channels]`.
    pub(super) fn gather(&self, batch: &FeatureBatch<'_>) -> Result<Vec<f32>, MethodError> {
        let [height, width] = self.grid;
        let finest = batch.shapes.iter().map(|[_, height, width]| height * width).max().unwrap_or(0);
        if batch.views != self.views || finest != height * width {
            return Err(MethodError::FeatureShape {
                tap: batch.taps.first().map_or(String::new(), |tap| tap.name.clone()),
                expected: self.count(),
                found: batch.views * finest,
            });
        }
        let layers = self.by_layer(batch.shapes);
        let dim = self.channels.len();
        let mut rows = vec![0.0; batch.images * self.count() * dim];
        rows.par_chunks_exact_mut(width * dim).enumerate().for_each(|(line, rows)| {
            let (view, y) = (line / height, line % height);
            for (x, row) in rows.chunks_exact_mut(dim).enumerate() {
                let mut row = row.iter_mut();
                for (layer, [channels, layer_height, layer_width], kept) in &layers {
                    // Nearest neighbors, as PyTorch rounds.
                    let (from_y, from_x) = (y * layer_height / height, x * layer_width / width);
                    let position = (view * layer_height + from_y) * layer_width + from_x;
                    let features = &batch.values[*layer][position * channels..(position + 1) * channels];
                    // Take the channels first: the row continues after them.
                    for (channel, value) in kept.iter().zip(row.by_ref()) {
                        *value = features[*channel];
                    }
                }
            }
        });
        Ok(rows)
    }

    /// For each layer its index, its shape and its kept channels.
    fn by_layer(&self, shapes: &[[usize; 3]]) -> Vec<(usize, [usize; 3], Vec<usize>)> {
        let mut first = 0;
        let mut layers = Vec::with_capacity(shapes.len());
        for (place, &shape) in shapes.iter().enumerate() {
            let own = first..first + shape[0];
            let kept = self.channels.iter().filter(|channel| own.contains(channel)).map(|channel| channel - first);
            layers.push((place, shape, kept.collect()));
            first = own.end;
        }
        layers
    }

    /// Maps and scores of all views from distances `[images, views · positions]`.
    pub(super) fn scores(
        &self,
        batch: &FeatureBatch<'_>,
        mut distances: Vec<f32>,
        sigma: f64,
    ) -> Result<Vec<MethodScore>, MethodError> {
        let maker = MapMaker::new(batch, self.grid, sigma)?;
        maker.restrict(&mut distances);
        let maps = maker.maps(&distances)?;
        Ok(maps.into_iter().map(|map| MethodScore::located(map.max(), map)).collect())
    }
}
