//! The model file: one safetensors file that scores anywhere, offline.
//!
//! # Format, version 2
//! The metadata entry `nomaly` holds a JSON object: `format` (the version), `nomaly` (the version of the program that
//! wrote it), [`ModelInfo`] and, for each state of the method, its name, kind and configuration. Tensors:
//!
//! | name | type | what |
//! |---|---|---|
//! | `backbone/NAME` | as in the weight file | the backbone's weights up to the deepest tap |
//! | `backbone/NETWORK/NAME` | as in the weight file | the same of each of joined networks |
//! | `method/STATE/NAME` | F16, F32, F64 or U32 | what was learned; `N:STATE` at the N-th of several sizes |
//! | `calibration/held_out` | F64 | held-out scores of the training images, in their order |
//! | `calibration/groups` | U32 | the number of the group of each of these images, where some depend on each other |
//! | `calibration/class/N` | F64 | held-out scores of what is taken for the N-th class, for models of classes |
//! | `calibration/class_groups/N` | U32 | the groups of these items, where some depend on each other |
//! | `calibration/map_maxima` | F64 | the largest values of their maps, in the same order, for methods that make maps |
//! | `region` | F32 | the region of interest, 1 inside and 0 outside, in pixels of the frame; where there is one |
//! | `sha256` | U8 | the SHA-256 of everything before it, see [`write_sealed`] |
//!
//! A model of [rows](crate::rows) has `rows` with [`RowsInfo`] in place of `model`, and no tensors
//! of a backbone, of maps or of a region.
//!
//! Nothing in it depends on when, where or with how many threads it was made. Damage to any bit of it is noticed.
//! Reading it never runs code: sizes, shapes and numbers are checked first, and another version is refused.

use std::collections::BTreeMap;
use std::path::Path;

use half::f16;
use nomaly_backbones::weights::{
    DType, TensorSource, WeightTensor, Weights, WeightsError, from_sealed, safetensors_metadata, write_sealed,
};
use nomaly_methods::MethodError;
use nomaly_methods::recognition::{HeldOutClass, KnownClass};
use nomaly_scorers::{State, Tensor, TensorData};
use nomaly_store::{AtomicFile, StoreError, read_regular};
use serde::{Deserialize, Serialize};

use crate::classes::Classes;
use crate::info::{ModelInfo, RowsInfo};
use crate::{Calibration, DecisionRule, DetectorError};

/// The version of the format that this program writes and reads.
pub const FORMAT_VERSION: u32 = 2;

/// Larger files are not read; memory banks are bounded by a few gigabytes.
const MAX_FILE: u64 = 16 << 30;

const METADATA_KEY: &str = "nomaly";
const HELD_OUT: &str = "calibration/held_out";
const GROUPS: &str = "calibration/groups";
const CLASS: &str = "calibration/class/";
const CLASS_GROUPS: &str = "calibration/class_groups/";
const MAP_MAXIMA: &str = "calibration/map_maxima";
const REGION: &str = "region";
/// What is said of a model of rows where one of images is needed.
const OF_ROWS: &str = "is a model of rows, and scores tables (.csv, .tsv, .npy, .parquet), not images";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: u32,
    nomaly: String,
    /// Present for images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<ModelInfo>,
    /// Present for rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rows: Option<RowsInfo>,
    states: Vec<StateHeader>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateHeader {
    name: String,
    kind: String,
    config: serde_json::Value,
}

/// Only what every version has.
#[derive(Deserialize)]
struct AnyVersion {
    format: u32,
    nomaly: Option<String>,
}

/// A model file taken apart.
pub(crate) struct Parts {
    pub(crate) info: ModelInfo,
    pub(crate) states: Vec<(String, State)>,
    pub(crate) held_out: StoredScores,
    pub(crate) class_scores: Vec<StoredScores>,
    /// Height and width, then 1 inside and 0 outside.
    pub(crate) region: Option<Tensor>,
    pub(crate) backbone: Weights,
}

/// A model file of rows taken apart.
pub(crate) struct RowParts {
    pub(crate) info: RowsInfo,
    pub(crate) states: Vec<(String, State)>,
    pub(crate) held_out: StoredScores,
    pub(crate) class_scores: Vec<StoredScores>,
}

/// The numbers of a calibration as the file has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredScores {
    /// Held-out scores, in the order of their items.
    pub values: Vec<f64>,
    /// The number of the group of each item, where some depend on each other.
    pub groups: Option<Vec<u32>>,
    /// The largest value of each map, for methods that make maps.
    pub map_maxima: Option<Vec<f64>>,
}

impl StoredScores {
    /// The calibration under a rule.
    ///
    /// # Errors
    /// Lists that do not belong together, numbers that are not finite, and a [rule](DecisionRule::checked) out of
    /// range.
    pub fn calibration(self, rule: DecisionRule) -> Result<Calibration, DetectorError> {
        let calibration = match self.groups {
            Some(groups) => Calibration::of_groups(self.values, groups, rule)?,
            None => Calibration::new(self.values, rule)?,
        };
        match self.map_maxima {
            Some(map_maxima) => calibration.with_map_maxima(map_maxima),
            None => Ok(calibration),
        }
    }
}

/// The numbers that decisions go by.
#[derive(Clone, Copy)]
pub(crate) struct HeldOutScores<'a> {
    pub(crate) calibration: &'a Calibration,
    pub(crate) classes: Option<&'a Classes>,
}

/// The classes of a file with the decision for each; `None` where it knows none.
///
/// # Errors
/// Another number of lists of held-out scores than of classes, and everything that [`Classes::new`] fails with.
pub fn stored_classes(
    known: &[KnownClass],
    scores: Vec<StoredScores>,
    rule: DecisionRule,
) -> Result<Option<Classes>, DetectorError> {
    if known.len() != scores.len() {
        let reason = format!("{} lists of held-out scores for {} classes", scores.len(), known.len());
        return Err(DetectorError::from(MethodError::State { state: "classes".to_owned(), reason: Some(reason) }));
    }
    if known.is_empty() {
        return Ok(None);
    }
    let held_out = known.iter().cloned().zip(scores);
    let held_out =
        held_out.map(|(class, StoredScores { values: scores, groups, .. })| HeldOutClass { class, scores, groups });
    Classes::new(held_out.collect(), rule).map(Some)
}

/// The states of a method fitted at each size as one list, names of several sizes beginning with the size's number.
pub(crate) fn joined_states(sizes: Vec<Vec<(String, State)>>) -> Vec<(String, State)> {
    let several = sizes.len() > 1;
    let of_size = |(size, states): (usize, Vec<(String, State)>)| {
        let named = move |(name, state)| (if several { format!("{size}:{name}") } else { name }, state);
        states.into_iter().map(named)
    };
    sizes.into_iter().enumerate().flat_map(of_size).collect()
}

/// The states of each of `sizes` sizes.
///
/// # Errors
/// A state that belongs to none of them.
pub(crate) fn split_states(
    states: Vec<(String, State)>,
    sizes: usize,
) -> Result<Vec<Vec<(String, State)>>, DetectorError> {
    if sizes == 1 {
        return Ok(vec![states]);
    }
    let mut split: Vec<Vec<(String, State)>> = (0..sizes).map(|_| Vec::new()).collect();
    for (name, state) in states {
        let place = (0..sizes).find_map(|size| Some((size, name.strip_prefix(&format!("{size}:"))?.to_owned())));
        let Some((size, own)) = place else {
            let reason = format!("it belongs to none of {sizes} sizes");
            return Err(DetectorError::from(MethodError::State { state: name, reason: Some(reason) }));
        };
        split[size].push((own, state));
    }
    Ok(split)
}

/// Refuses a model that tells other classes apart than its file says.
pub(crate) fn check_classes(fitted: &[String], known: &[KnownClass]) -> Result<(), DetectorError> {
    if fitted.iter().eq(known.iter().map(|class| &class.name)) {
        return Ok(());
    }
    let reason = format!("the model tells {} apart, and the file names {}", fitted.len(), known.len());
    Err(DetectorError::from(MethodError::State { state: "classes".to_owned(), reason: Some(reason) }))
}

/// What `inspect` shows: the header without the numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Summary<I = ModelInfo> {
    /// The version of the format.
    pub format: u32,
    /// The version of the program that wrote the file.
    pub written_by: String,
    /// What the model is made of.
    #[serde(flatten)]
    pub info: I,
    /// Held-out scores of normal images.
    #[serde(skip)]
    pub held_out: StoredScores,
    /// Held-out scores of the images that are taken for each class, ascending, for models of classes.
    #[serde(skip)]
    pub class_scores: Vec<StoredScores>,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of the backbone's weights.
    pub backbone_bytes: u64,
    /// Number of tensors.
    pub tensors: usize,
}

/// What `inspect` shows of a model of either kind.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AnySummary {
    /// A model of images.
    Images(Box<Summary>),
    /// A model of rows.
    Rows(Box<Summary<RowsInfo>>),
}

/// Writes a model file, atomically and without a copy of its numbers.
pub(crate) fn write(
    path: &Path,
    info: &ModelInfo,
    states: &[(String, State)],
    held_out: HeldOutScores<'_>,
    region: Option<&Tensor>,
    backbone: &Weights,
) -> Result<(), DetectorError> {
    let header = Header::new(Some(info.clone()), None, states);
    let mut tensors: BTreeMap<String, TensorSource<'_>> =
        backbone.iter().map(|(name, tensor)| (format!("backbone/{name}"), TensorSource::Stored(tensor))).collect();
    if let Some(region) = region {
        tensors.insert(REGION.to_owned(), source(region)?);
    }
    write_tensors(path, &header, states, held_out, tensors)
}

/// Writes a model of rows, atomically.
pub(crate) fn write_rows(
    path: &Path,
    info: &RowsInfo,
    states: &[(String, State)],
    held_out: HeldOutScores<'_>,
) -> Result<(), DetectorError> {
    let header = Header::new(None, Some(info.clone()), states);
    write_tensors(path, &header, states, held_out, BTreeMap::new())
}

impl Header {
    fn new(model: Option<ModelInfo>, rows: Option<RowsInfo>, states: &[(String, State)]) -> Self {
        let state = |(name, state): &(String, State)| StateHeader {
            name: name.clone(),
            kind: state.kind.clone(),
            config: state.config.clone(),
        };
        Self {
            format: FORMAT_VERSION,
            nomaly: env!("CARGO_PKG_VERSION").to_owned(),
            model,
            rows,
            states: states.iter().map(state).collect(),
        }
    }
}

/// Adds the tensors of the states and of the calibration, and writes them all.
fn write_tensors<'a>(
    path: &Path,
    header: &Header,
    states: &'a [(String, State)],
    HeldOutScores { calibration, classes }: HeldOutScores<'a>,
    tensors: BTreeMap<String, TensorSource<'a>>,
) -> Result<(), DetectorError> {
    // The shapes of the lists live as long as this function only.
    let counts = [calibration.held_out().len()];
    let of_classes: Vec<(&Calibration, [usize; 1])> = classes.map_or_else(Vec::new, |classes| {
        classes.calibrations().iter().map(|class| (class, [class.in_order().len()])).collect()
    });
    let mut tensors: BTreeMap<String, TensorSource<'_>> = tensors;
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
    let json = serde_json::to_string(header)
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

/// A scorer's tensor as the file keeps it.
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

/// Reads a model of rows in full.
pub(crate) fn read_rows(path: &Path) -> Result<RowParts, DetectorError> {
    let refuse = |reason: String| DetectorError::ModelFile { path: path.to_owned(), reason };
    let (header, tensors) = open(&read_bytes(path)?).map_err(refuse)?;
    let Some(info) = header.rows else {
        return Err(refuse("is a model of images, and scores images, not rows".to_owned()));
    };
    let parts = sort(header.states, tensors).map_err(refuse)?;
    if parts.held_out.map_maxima.is_some() || parts.region.is_some() || !parts.backbone.is_empty() {
        return Err(refuse("has tensors that a model of rows has not".to_owned()));
    }
    Ok(RowParts { info, states: parts.states, held_out: parts.held_out, class_scores: parts.class_scores })
}

/// Reads a model of images in full.
pub(crate) fn read(path: &Path) -> Result<Parts, DetectorError> {
    let refuse = |reason: String| DetectorError::ModelFile { path: path.to_owned(), reason };
    let (header, tensors) = open(&read_bytes(path)?).map_err(refuse)?;
    let Some(info) = header.model else {
        return Err(refuse(OF_ROWS.to_owned()));
    };
    let Sorted { states, held_out, class_scores, region, backbone } = sort(header.states, tensors).map_err(refuse)?;
    Ok(Parts { info, states, held_out, class_scores, region, backbone })
}

/// The tensors of a model file, each where it belongs.
struct Sorted {
    states: Vec<(String, State)>,
    held_out: StoredScores,
    class_scores: Vec<StoredScores>,
    region: Option<Tensor>,
    backbone: Weights,
}

fn sort(states: Vec<StateHeader>, tensors: Weights) -> Result<Sorted, String> {
    let mut states: Vec<(String, State)> = states
        .into_iter()
        .map(|state| (state.name, State { kind: state.kind, config: state.config, tensors: BTreeMap::new() }))
        .collect();
    let mut region = None;
    let held_out = held_out(&tensors)?;
    let class_scores = class_scores(&tensors)?;
    let mut backbone = Weights::new();
    for (name, tensor) in tensors {
        if is_of_calibration(&name) {
            // Read above, all together.
        } else if name == REGION {
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
    Ok(Sorted { states, held_out, class_scores, region, backbone })
}

/// Whether a tensor is one of the calibration.
fn is_of_calibration(name: &str) -> bool {
    [HELD_OUT, GROUPS, MAP_MAXIMA].contains(&name) || name.starts_with(CLASS) || name.starts_with(CLASS_GROUPS)
}

/// The numbers of the calibration.
fn held_out(tensors: &Weights) -> Result<StoredScores, String> {
    let values = list(tensors, HELD_OUT)?.ok_or_else(|| format!("tensor `{HELD_OUT}` is missing"))?;
    let map_maxima = list(tensors, MAP_MAXIMA)?;
    Ok(StoredScores { values, groups: group_list(tensors, GROUPS)?, map_maxima })
}

/// The held-out scores of the classes, in their order: as many lists as there are tensors of that name.
fn class_scores(tensors: &Weights) -> Result<Vec<StoredScores>, String> {
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

/// A list of F64, where there is a tensor of that name.
fn list(tensors: &Weights, name: &str) -> Result<Option<Vec<f64>>, String> {
    let Some(tensor) = tensors.get(name) else { return Ok(None) };
    match numbers(tensor) {
        Some(Tensor { shape, data: TensorData::F64(scores) }) if shape.len() == 1 => Ok(Some(scores)),
        _ => Err(format!("tensor `{name}` is not a list of F64")),
    }
}

/// A list of U32, where there is a tensor of that name.
fn group_list(tensors: &Weights, name: &str) -> Result<Option<Vec<u32>>, String> {
    let Some(tensor) = tensors.get(name) else { return Ok(None) };
    match numbers(tensor) {
        Some(Tensor { shape, data: TensorData::U32(groups) }) if shape.len() == 1 => Ok(Some(groups)),
        _ => Err(format!("tensor `{name}` is not a list of U32")),
    }
}

/// As [`read_any_summary`], for a model of images.
///
/// # Errors
/// As there, and a model of rows.
pub fn read_summary(path: &Path) -> Result<Summary, DetectorError> {
    match read_any_summary(path)? {
        AnySummary::Images(summary) => Ok(*summary),
        AnySummary::Rows(_) => Err(DetectorError::ModelFile { path: path.to_owned(), reason: OF_ROWS.to_owned() }),
    }
}

/// Reads what `inspect` shows, without building the model.
///
/// # Errors
/// A file that cannot be read, is damaged, or comes from a version that this one does not know.
pub fn read_any_summary(path: &Path) -> Result<AnySummary, DetectorError> {
    let bytes = read_bytes(path)?;
    let (header, tensors) =
        open(&bytes).map_err(|reason| DetectorError::ModelFile { path: path.to_owned(), reason })?;
    let file_bytes = bytes.len() as u64;
    match (header.model, header.rows) {
        (_, Some(info)) => {
            let summary = Summary::new(header.format, header.nomaly, info, file_bytes, &tensors);
            Ok(AnySummary::Rows(Box::new(summary)))
        }
        (Some(info), None) => {
            let summary = Summary::new(header.format, header.nomaly, info, file_bytes, &tensors);
            Ok(AnySummary::Images(Box::new(summary)))
        }
        (None, None) => unreachable!("a header of neither kind is not opened"),
    }
}

impl<I> Summary<I> {
    fn new(format: u32, written_by: String, info: I, file_bytes: u64, tensors: &Weights) -> Self {
        let of_backbone = tensors.iter().filter(|(name, _)| name.starts_with("backbone/"));
        Self {
            format,
            written_by,
            info,
            held_out: held_out(tensors).unwrap_or_default(),
            class_scores: class_scores(tensors).unwrap_or_default(),
            file_bytes,
            backbone_bytes: of_backbone.map(|(_, tensor)| tensor.bytes.len() as u64).sum(),
            tensors: tensors.len(),
        }
    }
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, DetectorError> {
    read_regular(path, MAX_FILE).map_err(|error| {
        let reason = match error {
            StoreError::Io { source, .. } => source.to_string(),
            error => error.to_string(),
        };
        DetectorError::ModelFile { path: path.to_owned(), reason: format!("cannot be read: {reason}") }
    })
}

/// Checks the container, then the version, then the checksum, then the header.
fn open(bytes: &[u8]) -> Result<(Header, Weights), String> {
    let damaged = |error: WeightsError| {
        format!("is truncated, damaged or not a nomaly model ({error}); fit it again or copy it anew")
    };
    let metadata = safetensors_metadata(bytes).map_err(damaged)?;
    let json = metadata
        .get(METADATA_KEY)
        .ok_or_else(|| format!("is not a nomaly model: its metadata has no entry `{METADATA_KEY}`"))?;
    let version: AnyVersion = serde_json::from_str(json).map_err(|error| format!("has a damaged header: {error}"))?;
    if version.format != FORMAT_VERSION {
        return Err(format!(
            "is of format version {}, written by nomaly {}; this program reads version {FORMAT_VERSION}: fit the model again",
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

/// The numbers of an F16, F32, F64 or U32 tensor.
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
