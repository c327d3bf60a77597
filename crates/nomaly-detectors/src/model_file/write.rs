//! Writes model files.

use std::collections::BTreeMap;
use std::path::Path;

use nomaly_methods::MethodError;
use nomaly_nn::weights::{TensorSource, WeightsError, write_sealed};
use nomaly_scorers::{Tensor, TensorData};
use nomaly_store::AtomicFile;

use super::format::{CLASS, CLASS_GROUPS, GROUPS, HELD_OUT, Header, MAP_MAXIMA, METADATA_KEY, REGION};
use super::stored::Stored;
use crate::calibration::Calibration;
use crate::decider::Decider;
use crate::error::DetectorError;
use crate::info::Info;

/// Writes a model file, atomically and without copying its values.
pub(crate) fn write(path: &Path, info: &impl Info, stored: &Stored, decider: &Decider) -> Result<(), DetectorError> {
    let Stored { states, region, backbone } = stored;
    let header = Header::new(info, states);
    let (calibration, classes) = (decider.calibration(), decider.classes());
    // The shapes of the lists only live in this function.
    let counts = [calibration.held_out().len()];
    let of_classes: Vec<(&Calibration, [usize; 1])> = classes.map_or_else(Vec::new, |classes| {
        classes.calibrations().iter().map(|class| (class, [class.in_order().len()])).collect()
    });
    let mut tensors: BTreeMap<String, TensorSource<'_>> =
        backbone.iter().map(|(name, tensor)| (format!("backbone/{name}"), TensorSource::Stored(tensor))).collect();
    if let Some(region) = region {
        tensors.insert(REGION.to_owned(), source(region)?);
    }
    for (state_name, state) in states {
        for (name, tensor) in &state.tensors {
            tensors.insert(format!("method/{state_name}/{name}"), source(tensor)?);
        }
    }
    let list = |values| TensorSource::F64 { shape: &counts, values };
    tensors.insert(HELD_OUT.to_owned(), list(calibration.in_order()));
    if let Some(values) = calibration.groups() {
        tensors.insert(GROUPS.to_owned(), TensorSource::U32 { shape: &counts, values });
    }
    for (class, (calibration, shape)) in of_classes.iter().enumerate() {
        let values = calibration.in_order();
        tensors.insert(format!("{CLASS}{class}"), TensorSource::F64 { shape, values });
        if let Some(values) = calibration.groups() {
            tensors.insert(format!("{CLASS_GROUPS}{class}"), TensorSource::U32 { shape, values });
        }
    }
    if let Some(map_maxima) = calibration.map_maxima_in_order() {
        tensors.insert(MAP_MAXIMA.to_owned(), list(map_maxima));
    }
    let json = serde_json::to_string(&header)
        .map_err(|error| DetectorError::from(MethodError::Encode { reason: error.to_string() }))?;
    let metadata = BTreeMap::from([(METADATA_KEY.to_owned(), json)]);
    let mut file = AtomicFile::create(path)?;
    write_sealed(&mut file, &tensors, &metadata).map_err(|error| match error {
        WeightsError::Write { reason } => {
            DetectorError::ModelFile { path: path.to_owned(), reason: format!("cannot be written: {reason}") }
        }
        error => DetectorError::from(MethodError::Encode { reason: error.to_string() }),
    })?;
    Ok(file.commit()?)
}

/// A tensor of a state, for the file.
fn source(tensor: &Tensor) -> Result<TensorSource<'_>, DetectorError> {
    let shape = &tensor.shape;
    match &tensor.data {
        TensorData::F16(values) => Ok(TensorSource::F16 { shape, values }),
        TensorData::F32(values) => Ok(TensorSource::F32 { shape, values }),
        TensorData::F64(values) => Ok(TensorSource::F64 { shape, values }),
        TensorData::U32(values) => Ok(TensorSource::U32 { shape, values }),
        _ => Err(DetectorError::from(MethodError::Encode {
            reason: "a number type that the format does not have".to_owned(),
        })),
    }
}
