//! Checkpoints, from which an interrupted training resumes.
//!
//! One [sealed](nomaly_nn::weights::write_sealed) safetensors file with the networks' tensors, their optimizers'
//! moments, the best networks so far if the training may stop early, and the [`Position`] in its metadata. The file
//! name is a fingerprint of everything that determines the result, so that only the same training finds it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nomaly_nn::trainable::OptimizerState;
use nomaly_nn::weights::{TensorSource, WeightTensor, Weights, from_sealed, write_sealed};
use nomaly_store::{AtomicFile, StoreError, create_folder, read_regular, sha256_hex};
use serde::{Deserialize, Serialize};

use super::history::EpochRecord;
use super::objective::Learner;
use crate::MethodError;

/// The version of the format.
const FORMAT: u32 = 2;
/// The largest file that is read; networks trained here take some megabytes.
const MAX_FILE: u64 = 16 << 30;
const METADATA_KEY: &str = "nomaly-checkpoint";

/// The position of a training.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Position {
    /// Finished epochs.
    pub(super) history: Vec<EpochRecord>,
    /// Finished steps of the current epoch.
    pub(super) steps: usize,
    /// Sum of the losses of its examples, as bits, to keep all digits.
    pub(super) loss: u64,
    /// The epoch with the smallest validation loss, from 1; 0 for none.
    pub(super) best: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: u32,
    fingerprint: String,
    position: Position,
    /// The number of steps of each learner's optimizer.
    optimisers: Vec<u64>,
}

/// The checkpoint file of a training.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    path: PathBuf,
    fingerprint: String,
}

impl Checkpoint {
    /// The checkpoint in `folder` of the training described by `identity`, which covers all settings, the seed and the
    /// data. The folder need not exist.
    pub fn new(folder: &Path, identity: &[u8]) -> Self {
        let fingerprint = sha256_hex(identity);
        Self { path: folder.join(format!("{}.checkpoint", &fingerprint[..24])), fingerprint }
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, if any, once the result of the finished training is saved.
    pub fn remove(&self) {
        // A remaining file is harmless: only the same training finds it, and then ends at once.
        let _ = std::fs::remove_file(&self.path);
    }

    /// Replaces the file.
    pub(super) fn write(
        &self,
        learners: &[(&'static str, &mut Learner)],
        best: &[Weights],
        position: &Position,
    ) -> Result<(), MethodError> {
        let state = |(_, learner): &(&str, &mut Learner)| learner.network.optimizer_state();
        let states = learners.iter().map(state).collect::<Result<Vec<OptimizerState>, _>>()?;
        let weights = weights_of(learners)?;
        let mut tensors: BTreeMap<String, TensorSource<'_>> = BTreeMap::new();
        for (prefix, all) in [("network", weights.as_slice()), ("best", best)] {
            for (learner, weights) in all.iter().enumerate() {
                for (name, tensor) in weights {
                    tensors.insert(format!("{prefix}/{learner}/{name}"), TensorSource::Stored(tensor));
                }
            }
        }
        let shapes: Vec<Vec<[[usize; 1]; 3]>> = states
            .iter()
            .map(|state| state.moments.iter().map(|moments| moments.each_ref().map(|values| [values.len()])).collect())
            .collect();
        for (learner, (state, shapes)) in states.iter().zip(&shapes).enumerate() {
            for (parameter, (moments, shapes)) in state.moments.iter().zip(shapes).enumerate() {
                for (moment, (values, shape)) in moments.iter().zip(shapes).enumerate() {
                    // Files of optimizers with two moments stay as they were before there were three.
                    if moment == 2 && values.is_empty() {
                        continue;
                    }
                    let name = format!("moments/{learner}/{parameter}/{moment}");
                    tensors.insert(name, TensorSource::F32 { shape, values });
                }
            }
        }
        let header = Header {
            format: FORMAT,
            fingerprint: self.fingerprint.clone(),
            position: position.clone(),
            optimisers: states.iter().map(|state| state.steps).collect(),
        };
        let json = serde_json::to_string(&header).map_err(|error| MethodError::Encode { reason: error.to_string() })?;
        if let Some(folder) = self.path.parent() {
            create_folder(folder)?;
        }
        let mut file = AtomicFile::create(&self.path)?;
        let metadata = BTreeMap::from([(METADATA_KEY.to_owned(), json)]);
        write_sealed(&mut file, &tensors, &metadata).map_err(|error| MethodError::File {
            what: "checkpoint",
            path: self.path.clone(),
            reason: error.to_string(),
        })?;
        Ok(file.commit()?)
    }

    /// Restores networks and optimizers from the file; `None` without a file.
    ///
    /// # Errors
    /// A file that cannot be read or does not belong to these networks.
    pub(super) fn read(
        &self,
        learners: &mut [(&'static str, &mut Learner)],
    ) -> Result<Option<(Position, Vec<Weights>)>, MethodError> {
        let refuse = |reason: String| MethodError::File { what: "checkpoint", path: self.path.clone(), reason };
        let bytes = match read_regular(&self.path, MAX_FILE) {
            Ok(bytes) => bytes,
            Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(refuse(error.to_string())),
        };
        let (tensors, metadata) = from_sealed(&bytes).map_err(|error| refuse(format!("is damaged: {error}")))?;
        let json = metadata.get(METADATA_KEY).ok_or_else(|| refuse("is no checkpoint".to_owned()))?;
        let header: Header = serde_json::from_str(json).map_err(|error| refuse(format!("is damaged: {error}")))?;
        if header.format != FORMAT || header.fingerprint != self.fingerprint {
            return Err(refuse("is of another training or another version".to_owned()));
        }
        if header.optimisers.len() != learners.len() {
            return Err(refuse(format!("has {} networks, not {}", header.optimisers.len(), learners.len())));
        }
        let mut sorted = Sorted::new(tensors, learners.len()).map_err(refuse)?;
        for (index, (_, learner)) in learners.iter_mut().enumerate() {
            learner.network.load(&sorted.networks[index]).map_err(|error| refuse(error.to_string()))?;
            let moments = std::mem::take(&mut sorted.moments[index]).into_values().collect();
            let state = OptimizerState { steps: header.optimisers[index], moments };
            learner.network.resume(learner.rule, state).map_err(|error| refuse(error.to_string()))?;
        }
        let best = if header.position.best == 0 { Vec::new() } else { sorted.best };
        Ok(Some((header.position, best)))
    }
}

/// The weights of all networks.
pub(super) fn weights_of(learners: &[(&'static str, &mut Learner)]) -> Result<Vec<Weights>, MethodError> {
    learners.iter().map(|(_, learner)| Ok(learner.network.weights()?)).collect()
}

/// The tensors of a checkpoint by owner.
struct Sorted {
    networks: Vec<Weights>,
    best: Vec<Weights>,
    moments: Vec<BTreeMap<usize, [Vec<f32>; 3]>>,
}

impl Sorted {
    fn new(tensors: Weights, learners: usize) -> Result<Self, String> {
        let mut sorted = Self {
            networks: vec![Weights::new(); learners],
            best: vec![Weights::new(); learners],
            moments: vec![BTreeMap::new(); learners],
        };
        for (name, tensor) in tensors {
            sorted.place(&name, tensor).ok_or_else(|| format!("has the tensor `{name}`, which belongs to nothing"))?;
        }
        Ok(sorted)
    }

    fn place(&mut self, name: &str, tensor: WeightTensor) -> Option<()> {
        let (part, rest) = name.split_once('/')?;
        let (learner, rest) = rest.split_once('/')?;
        let learner: usize = learner.parse().ok()?;
        match part {
            "network" => self.networks.get_mut(learner)?.insert(rest.to_owned(), tensor).is_none().then_some(()),
            "best" => self.best.get_mut(learner)?.insert(rest.to_owned(), tensor).is_none().then_some(()),
            "moments" => {
                let (parameter, moment) = rest.split_once('/')?;
                let moments = self.moments.get_mut(learner)?.entry(parameter.parse().ok()?).or_default();
                *moments.get_mut(moment.parse::<usize>().ok()?)? = tensor.to_f32().ok()?;
                Some(())
            }
            _ => None,
        }
    }
}
