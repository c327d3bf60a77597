//! Memory of a network, reused between runs.

use nomaly_backbones::{Extractor, Workspace};
use nomaly_methods::MethodError;

/// Memory of a network for runs of few inputs, however many views a batch has, with the features of the last batch.
#[derive(Debug)]
pub(crate) struct NetworkMemory {
    workspace: Workspace,
    at_a_time: usize,
    values: Vec<Vec<f32>>,
    part: Vec<Vec<f32>>,
}

impl NetworkMemory {
    pub(super) fn new(extractor: &Extractor, at_a_time: usize) -> Self {
        let empty = vec![Vec::new(); extractor.taps().len()];
        Self { workspace: extractor.workspace(at_a_time), at_a_time, values: empty.clone(), part: empty }
    }

    /// The features of `inputs` views, tap by tap; `extractor` must be the one that made the memory.
    pub(super) fn run(
        &mut self,
        extractor: &Extractor,
        data: &[f32],
        inputs: usize,
    ) -> Result<&[Vec<f32>], MethodError> {
        if inputs <= self.at_a_time {
            extractor.run(data, inputs, &mut self.workspace, &mut self.values)?;
            return Ok(&self.values);
        }
        self.values.iter_mut().for_each(Vec::clear);
        let size = data.len() / inputs;
        for data in data.chunks(self.at_a_time * size) {
            extractor.run(data, data.len() / size, &mut self.workspace, &mut self.part)?;
            for (values, part) in self.values.iter_mut().zip(&self.part) {
                values.extend_from_slice(part);
            }
        }
        Ok(&self.values)
    }
}
