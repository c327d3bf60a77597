//! The cache of weights on this machine: published weights are fetched, other files are imported.
//!
//! Everything in the cache has been checked against its backbone, and [`Backbone::open`] finds it there. Files can also
//! be [converted](convert) without the cache.

use std::path::{Path, PathBuf};

use nomaly_store::{Check, Progress, Source, archive, fetch_any, home, sha256_hex, write_atomic};

use nomaly_nn::weights::{Metadata, Weights, from_safetensors, read_file, to_safetensors};

use crate::backbone::Backbone;
use crate::registry::BACKBONES;
use crate::weights::{CacheError, EMBEDDED, WeightsManifest, embedded_bytes, from_bytes, manifest, manifests, path_in};

/// The largest file that is read from an archive.
const MAX_MEMBER: u64 = 4 << 30;

/// The precision in which weights are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightsPrecision {
    /// That of the source.
    #[default]
    Source,
    /// Half precision for tensors of two and more axes: convolutions and linear layers. The statistics and factors of
    /// batch norm stay as they are, because their range exceeds that of half precision.
    Half,
}

/// Where the weights of a backbone are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WeightsState {
    /// In the library.
    Embedded,
    /// In the cache.
    Cached(PathBuf),
    /// At their publisher; [`get`] fetches them.
    Available,
}

/// An entry of [`list`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The manifest of the weights.
    pub manifest: WeightsManifest,
    /// Where they are.
    pub state: WeightsState,
}

/// All published weights, and where they are.
///
/// # Errors
/// [`CacheError::Store`] if there is no cache folder.
pub fn list() -> Result<Vec<Listed>, CacheError> {
    let home = home()?;
    let listed = |manifest: WeightsManifest| {
        let path = path_in(&home, &manifest.name);
        let state = if path.is_file() {
            WeightsState::Cached(path)
        } else if manifest.name == EMBEDDED {
            WeightsState::Embedded
        } else {
            WeightsState::Available
        };
        Listed { manifest, state }
    };
    Ok(manifests()?.into_iter().map(listed).collect())
}

/// Fetches published weights, verifies them, and stores them as safetensors in the cache; returns that file.
///
/// Cached weights are reused. The embedded weights are written without a download.
///
/// # Errors
/// [`CacheError::UnknownWeights`], [`CacheError::Store`] if no source works or the bytes do not match their hash,
/// [`CacheError::DoesNotFit`], and those of [`read`](crate::weights::read).
pub fn get(name: &str, progress: &dyn Progress) -> Result<PathBuf, CacheError> {
    get_into(&home()?, name, progress)
}

fn get_into(home: &Path, name: &str, progress: &dyn Progress) -> Result<PathBuf, CacheError> {
    let manifest = manifest(name)?;
    let path = path_in(home, &manifest.name);
    if path.is_file() {
        return Ok(path);
    }
    make_folder(&path)?;
    if manifest.name == EMBEDDED {
        write_atomic(&path, embedded_bytes())?;
    } else {
        fetch_into(home, &manifest, WeightsPrecision::Source, &path, progress)?;
    }
    Ok(path)
}

/// Fetches published weights, the embedded ones included, and writes them as safetensors to `output`.
///
/// # Errors
/// As [`get`].
pub fn fetch_and_convert(
    name: &str,
    precision: WeightsPrecision,
    output: &Path,
    progress: &dyn Progress,
) -> Result<(), CacheError> {
    fetch_into(&home()?, &manifest(name)?, precision, output, progress)
}

fn fetch_into(
    home: &Path,
    manifest: &WeightsManifest,
    precision: WeightsPrecision,
    output: &Path,
    progress: &dyn Progress,
) -> Result<(), CacheError> {
    let folder = home.join("downloads").join(&manifest.name);
    let what = format!("the weights {}", manifest.name);
    let (file, source) = fetch_any(&what, &manifest.sources, &folder, progress)?;
    let bytes = match &manifest.member {
        Some(member) => archive::read_member(&file, member, MAX_MEMBER)?,
        None => read_file(&file)?,
    };
    let weights = from_bytes(&bytes).map_err(|error| error.in_file(&file))?;
    check_fit(&manifest.name, &weights)?;
    let metadata = Metadata::from([
        ("backbone".to_owned(), manifest.name.clone()),
        ("description".to_owned(), manifest.description.clone()),
        ("licence".to_owned(), manifest.licence.clone()),
        ("source".to_owned(), source.to_string()),
        ("source_sha256".to_owned(), sha256_hex(&bytes)),
        ("verified".to_owned(), verification(source)),
    ]);
    write(weights, precision, metadata, output)?;
    // The original is no longer needed; failing to remove it only costs disk space.
    let _ = std::fs::remove_dir_all(&folder);
    Ok(())
}

/// How the file was verified.
fn verification(source: &Source) -> String {
    match source.check() {
        Check::Sha256(_) => "SHA-256".to_owned(),
        Check::Prefix(prefix) => format!("the first {} digits of the SHA-256", prefix.to_string().len()),
    }
}

/// Imports a weight file into the cache, as the weights of the backbone `name`; returns the cached file.
///
/// Without a name, the file's name must identify the backbone, as `resnet18.pth` and `wide_resnet50_2-95faca4d.pth` do.
/// Existing weights are replaced.
///
/// # Errors
/// [`CacheError::UnknownWeights`] if no backbone has the name, [`CacheError::DoesNotFit`] if the tensors are not
/// the backbone's, and those of [`read`](crate::weights::read).
pub fn import(file: &Path, name: Option<&str>) -> Result<PathBuf, CacheError> {
    import_into(&home()?, file, name)
}

fn import_into(home: &Path, file: &Path, name: Option<&str>) -> Result<PathBuf, CacheError> {
    let guessed = name.map_or_else(|| guess_name(file), str::to_owned);
    let backbone = BACKBONES.get(&guessed)?.name;
    let path = path_in(home, backbone);
    make_folder(&path)?;
    convert_as(Some(backbone), file, &path, WeightsPrecision::Source)?;
    Ok(path)
}

/// Converts a weight file to safetensors. The same input always gives the same bytes.
///
/// # Errors
/// Those of [`read`](crate::weights::read), [`WeightsError::Overflow`](nomaly_nn::weights::WeightsError::Overflow), and
/// [`CacheError::Store`] if `output` cannot be written.
pub fn convert(input: &Path, output: &Path, precision: WeightsPrecision) -> Result<(), CacheError> {
    convert_as(None, input, output, precision)
}

fn convert_as(
    backbone: Option<&str>,
    input: &Path,
    output: &Path,
    precision: WeightsPrecision,
) -> Result<(), CacheError> {
    let bytes = read_file(input)?;
    let weights = from_bytes(&bytes).map_err(|error| error.in_file(input))?;
    // Keep the metadata of an earlier conversion.
    let mut metadata = from_safetensors(&bytes).map(|(_, metadata)| metadata).unwrap_or_default();
    if let Some(backbone) = backbone {
        check_fit(backbone, &weights).map_err(|error| error.in_file(input))?;
        metadata.insert("backbone".to_owned(), backbone.to_owned());
    }
    let name = input.file_name().unwrap_or_default().to_string_lossy().into_owned();
    metadata.entry("source".to_owned()).or_insert(name);
    metadata.entry("source_sha256".to_owned()).or_insert_with(|| sha256_hex(&bytes));
    write(weights, precision, metadata, output)
}

fn write(weights: Weights, precision: WeightsPrecision, metadata: Metadata, output: &Path) -> Result<(), CacheError> {
    let mut kept = Weights::new();
    for (name, tensor) in weights {
        // Counters of training steps, which inference does not use.
        if name.ends_with(".num_batches_tracked") {
            continue;
        }
        let halve = precision == WeightsPrecision::Half && tensor.shape.len() >= 2;
        let tensor = if halve { tensor.to_f16(&name)? } else { tensor };
        kept.insert(name, tensor);
    }
    Ok(write_atomic(output, &to_safetensors(&kept, &metadata)?)?)
}

fn check_fit(name: &str, weights: &Weights) -> Result<(), CacheError> {
    let does_not_fit = |reason: String| CacheError::DoesNotFit { name: name.to_owned(), reason };
    Backbone::from_tensors(name, weights.clone()).map(|_| ()).map_err(|error| does_not_fit(error.to_string()))
}

fn make_folder(file: &Path) -> Result<(), CacheError> {
    match file.parent() {
        Some(folder) => Ok(nomaly_store::create_folder(folder)?),
        None => Ok(()),
    }
}

/// `wide_resnet50_2-95faca4d.pth` belongs to `wide-resnet50-2`.
fn guess_name(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let stem = match stem.rsplit_once('-') {
        Some((name, hash)) if hash.len() == 8 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => name,
        _ => &stem,
    };
    stem.to_lowercase().replace('_', "-")
}

#[cfg(test)]
mod tests {
    use nomaly_nn::weights::{DType, WeightTensor};
    use nomaly_store::Silent;

    use super::*;
    use crate::weights::read;

    #[test]
    fn file_names_tell_the_backbone() {
        for (file, name) in [
            ("a/wide_resnet50_2-95faca4d.pth", "wide-resnet50-2"),
            ("resnet18.safetensors", "resnet18"),
            ("efficientnet-b0-355c32eb.pth", "efficientnet-b0"),
            ("efficientnet_lite0.safetensors", "efficientnet-lite0"),
        ] {
            assert_eq!(guess_name(Path::new(file)), name);
            assert!(BACKBONES.get(name).is_ok());
        }
    }

    #[test]
    fn the_embedded_weights_are_halved_where_they_may_be() {
        let (weights, metadata) = from_safetensors(embedded_bytes()).unwrap();
        assert_eq!(weights.len(), 296 - 49);
        for (name, tensor) in &weights {
            assert_eq!(tensor.dtype, if tensor.shape.len() >= 2 { DType::F16 } else { DType::F32 }, "{name}");
            assert!(tensor.to_f32().unwrap().iter().all(|value| value.is_finite()), "{name}");
        }
        assert_eq!(metadata["licence"], "Apache-2.0");
        assert_eq!(metadata["backbone"], EMBEDDED);
        assert_eq!(to_safetensors(&weights, &metadata).unwrap(), embedded_bytes());
    }

    #[test]
    fn importing_makes_weights_available_and_keeps_what_is_known_of_them() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("efficientnet_lite0.safetensors");
        write_atomic(&file, embedded_bytes()).unwrap();
        let path = import_into(home.path(), &file, None).unwrap();
        assert_eq!(path, home.path().join("weights/efficientnet-lite0.safetensors"));
        assert_eq!(read_file(&path).unwrap(), embedded_bytes());
        assert_eq!(get_into(home.path(), EMBEDDED, &Silent).unwrap(), path);

        let error = import_into(home.path(), &file, Some("resnet18")).unwrap_err().to_string();
        assert!(error.contains("do not fit resnet18") && error.contains("efficientnet_lite0.safetensors"), "{error}");
        let error = import_into(home.path(), &file, Some("resnet19")).unwrap_err();
        assert!(matches!(error, CacheError::UnknownWeights(_)), "{error}");
    }

    #[test]
    fn the_embedded_weights_need_no_download() {
        let home = tempfile::tempdir().unwrap();
        let path = get_into(home.path(), EMBEDDED, &Silent).unwrap();
        assert_eq!(read(&path).unwrap(), crate::weights::embedded().unwrap());
    }

    #[test]
    fn conversion_drops_counters_and_gives_the_same_bytes_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("source.safetensors");
        let tensors =
            [("conv.weight", vec![2, 3, 1, 1]), ("bn.running_var", vec![2]), ("bn.num_batches_tracked", vec![1])];
        let tensors = tensors.map(|(name, shape)| {
            let values = vec![0.5; shape.iter().product()];
            (name.to_owned(), WeightTensor::from_f32(shape, &values))
        });
        write_atomic(&input, &to_safetensors(&Weights::from(tensors), &Metadata::new()).unwrap()).unwrap();
        let outputs = ["a", "b"].map(|name| folder.path().join(name));
        for output in &outputs {
            convert(&input, output, WeightsPrecision::Half).unwrap();
        }
        let bytes = outputs.map(|output| read_file(&output).unwrap());
        assert_eq!(bytes[0], bytes[1]);
        let (weights, metadata) = from_safetensors(&bytes[0]).unwrap();
        assert!(weights.keys().all(|name| !name.ends_with("num_batches_tracked")));
        assert_eq!(weights["conv.weight"].dtype, DType::F16);
        assert_eq!(weights["bn.running_var"].dtype, DType::F32);
        assert_eq!(metadata["source"], "source.safetensors");
    }
}
