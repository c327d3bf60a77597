//! Reads model files and checks all of their content.

use std::collections::BTreeMap;
use std::path::Path;

use half::f16;
use nomaly_nn::weights::{DType, WeightTensor, Weights, WeightsError, from_sealed, safetensors_metadata};
use nomaly_scorers::{State, Tensor, TensorData};
use nomaly_store::{StoreError, read_regular};
use serde::Deserialize;

use super::format::{
    CLASS, CLASS_GROUPS, FORMAT_VERSION, GROUPS, HELD_OUT, Header, MAP_MAXIMA, METADATA_KEY, OLDEST_VERSION,
    PARTIAL_MAGIC, REGION, StateHeader,
};
use super::scores::StoredScores;
use super::stored::Stored;
use crate::error::DetectorError;
use crate::info::Info;

/// The largest file that is read; memory banks take at most a few gigabytes.
const MAX_FILE: u64 = 16 << 30;

/// The part that all versions share.
#[derive(Deserialize)]
struct AnyVersion {
    format: u32,
    nomaly: Option<String>,
}

/// The parts of a model file.
pub(crate) struct Parts<I> {
    pub(crate) info: I,
    pub(crate) stored: Stored,
    pub(crate) held_out: StoredScores,
    pub(crate) class_scores: Vec<StoredScores>,
}

/// Reads a model file.
pub(crate) fn read<I: Info>(path: &Path) -> Result<Parts<I>, DetectorError> {
    parse(&read_bytes(path)?, path)
}

/// Parses the bytes of a model file; messages name it `path`.
pub(crate) fn parse<I: Info>(bytes: &[u8], path: &Path) -> Result<Parts<I>, DetectorError> {
    let take_apart = || {
        let (Header { model, rows, states, .. }, tensors) = open(bytes)?;
        let info = I::of_entries(model, rows).ok_or(I::OTHER_KIND)?;
        let (held_out, class_scores) = (held_out(&tensors)?, class_scores(&tensors)?);
        let stored = sort(states, tensors)?;
        let of_images = held_out.map_maxima.is_some() || stored.region.is_some() || !stored.backbone.is_empty();
        if of_images && !I::IMAGES {
            return Err("has tensors that a model of rows has not".to_owned());
        }
        Ok(Parts { info, stored, held_out, class_scores })
    };
    take_apart().map_err(|reason| DetectorError::ModelFile { path: path.to_owned(), reason })
}

/// Assigns the tensors of a model file, except those of the calibration.
fn sort(states: Vec<StateHeader>, tensors: Weights) -> Result<Stored, String> {
    let mut states: Vec<(String, State)> = states
        .into_iter()
        .map(|state| (state.name, State { kind: state.kind, config: state.config, tensors: BTreeMap::new() }))
        .collect();
    let mut region = None;
    let mut backbone = Weights::new();
    for (name, tensor) in tensors.into_iter().filter(|(name, _)| !is_of_calibration(name)) {
        if name == REGION {
            let numbers = numbers(&tensor).ok_or_else(|| format!("tensor `{REGION}` is neither F32 nor F64"))?;
            region = Some(numbers);
        } else if let Some(name) = name.strip_prefix("backbone/") {
            backbone.insert(name.to_owned(), tensor);
        } else {
            let owner =
                name.strip_prefix("method/").and_then(|rest| rest.rsplit_once('/')).and_then(|(owner, part)| {
                    let (_, state) = states.iter_mut().find(|(state, _)| state == owner)?;
                    Some((state, part))
                });
            let (state, part) = owner.ok_or_else(|| format!("tensor `{name}` belongs to nothing"))?;
            let numbers =
                numbers(&tensor).ok_or_else(|| format!("tensor `{name}` is none of F16, F32, F64 and U32"))?;
            state.tensors.insert(part.to_owned(), numbers);
        }
    }
    Ok(Stored { states, region, backbone })
}

/// Whether a tensor belongs to the calibration.
fn is_of_calibration(name: &str) -> bool {
    [HELD_OUT, GROUPS, MAP_MAXIMA].contains(&name) || name.starts_with(CLASS) || name.starts_with(CLASS_GROUPS)
}

/// The values of the calibration.
pub(super) fn held_out(tensors: &Weights) -> Result<StoredScores, String> {
    let values = list(tensors, HELD_OUT)?.ok_or_else(|| format!("tensor `{HELD_OUT}` is missing"))?;
    let map_maxima = list(tensors, MAP_MAXIMA)?;
    Ok(StoredScores { values, groups: group_list(tensors, GROUPS)?, map_maxima })
}

/// The held-out scores of the classes, in order: one list per tensor of that name.
pub(super) fn class_scores(tensors: &Weights) -> Result<Vec<StoredScores>, String> {
    let count = |prefix: &str| tensors.keys().filter(|name| name.starts_with(prefix)).count();
    let of_class = |class: usize| {
        let name = format!("{CLASS}{class}");
        let values = list(tensors, &name)?.ok_or_else(|| format!("tensor `{name}` is missing"))?;
        let groups = group_list(tensors, &format!("{CLASS_GROUPS}{class}"))?;
        Ok(StoredScores { values, groups, map_maxima: None })
    };
    let classes = (0..count(CLASS)).map(of_class).collect::<Result<Vec<_>, String>>()?;
    if classes.iter().filter(|class| class.groups.is_some()).count() != count(CLASS_GROUPS) {
        return Err(format!("has tensors `{CLASS_GROUPS}N` of classes that it does not know"));
    }
    Ok(classes)
}

/// A list of F64; `None` without a tensor of that name.
fn list(tensors: &Weights, name: &str) -> Result<Option<Vec<f64>>, String> {
    let Some(tensor) = tensors.get(name) else { return Ok(None) };
    match numbers(tensor) {
        Some(Tensor { shape, data: TensorData::F64(scores) }) if shape.len() == 1 => Ok(Some(scores)),
        _ => Err(format!("tensor `{name}` is not a list of F64")),
    }
}

/// A list of U32; `None` without a tensor of that name.
fn group_list(tensors: &Weights, name: &str) -> Result<Option<Vec<u32>>, String> {
    let Some(tensor) = tensors.get(name) else { return Ok(None) };
    match numbers(tensor) {
        Some(Tensor { shape, data: TensorData::U32(groups) }) if shape.len() == 1 => Ok(Some(groups)),
        _ => Err(format!("tensor `{name}` is not a list of U32")),
    }
}

pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>, DetectorError> {
    read_regular(path, MAX_FILE).map_err(|error| {
        let reason = match error {
            StoreError::Io { source, .. } => source.to_string(),
            error => error.to_string(),
        };
        DetectorError::ModelFile { path: path.to_owned(), reason: format!("cannot be read: {reason}") }
    })
}

/// Checks the container, then the version, then the checksum, then the header.
pub(super) fn open(bytes: &[u8]) -> Result<(Header, Weights), String> {
    if bytes.starts_with(PARTIAL_MAGIC) {
        return Err("is a partial of a divided fit; `nomaly merge` makes a model of it and the others".to_owned());
    }
    let damaged = |error: WeightsError| {
        format!("is truncated, damaged or not a nomaly model ({error}); fit it again or copy it anew")
    };
    let metadata = safetensors_metadata(bytes).map_err(damaged)?;
    let json = metadata
        .get(METADATA_KEY)
        .ok_or_else(|| format!("is not a nomaly model: its metadata has no entry `{METADATA_KEY}`"))?;
    let version: AnyVersion = serde_json::from_str(json).map_err(|error| format!("has a damaged header: {error}"))?;
    if !(OLDEST_VERSION..=FORMAT_VERSION).contains(&version.format) {
        return Err(format!(
            "is of format version {}, written by nomaly {}; this program reads versions {OLDEST_VERSION} to {FORMAT_VERSION}: fit the model again",
            version.format,
            version.nomaly.as_deref().unwrap_or("of an unknown version"),
        ));
    }
    let (tensors, _) = from_sealed(bytes).map_err(damaged)?;
    let header: Header = serde_json::from_str(json).map_err(|error| format!("has a damaged header: {error}"))?;
    if header.model.is_some() == header.rows.is_some() {
        return Err("has a damaged header: it is to hold either `model` or `rows`".to_owned());
    }
    if let Some(input) = header.model.as_ref().and_then(|model| model.input.as_ref()) {
        input.check()?;
    }
    Ok((header, tensors))
}

/// The values of an F16, F32, F64 or U32 tensor.
fn numbers(tensor: &WeightTensor) -> Option<Tensor> {
    let shape = tensor.shape.clone();
    match tensor.dtype {
        DType::F16 => {
            let (values, _) = tensor.bytes.as_chunks();
            Some(Tensor::f16(shape, values.iter().map(|bytes| f16::from_le_bytes(*bytes)).collect()))
        }
        DType::F32 => {
            let (values, _) = tensor.bytes.as_chunks();
            Some(Tensor::f32(shape, values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()))
        }
        DType::F64 => {
            let (values, _) = tensor.bytes.as_chunks();
            Some(Tensor::f64(shape, values.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()))
        }
        DType::U32 => {
            let (values, _) = tensor.bytes.as_chunks();
            Some(Tensor::u32(shape, values.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect()))
        }
        _ => None,
    }
}
