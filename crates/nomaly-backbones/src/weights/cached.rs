//! Weights in the cache of this machine.

use std::path::{Path, PathBuf};

use nomaly_store::home;

use super::{Weights, WeightsError};
use crate::registry::BACKBONES;

/// The file of a backbone's weights in the cache.
///
/// # Errors
/// [`WeightsError::UnknownWeights`] if no backbone has the name; [`WeightsError::NotFetched`], which says how to get
/// them.
pub fn find(name: &str) -> Result<PathBuf, WeightsError> {
    let backbone = BACKBONES.get(name)?;
    let path = path_in(&home()?, backbone.name);
    if path.is_file() { Ok(path) } else { Err(WeightsError::NotFetched { name: name.to_owned() }) }
}

/// The weights of a backbone from the cache, or `None` if they are not there.
///
/// # Errors
/// [`WeightsError::UnknownWeights`] if no backbone has the name, and those of [`super::read`].
pub fn load(name: &str) -> Result<Option<Weights>, WeightsError> {
    match find(name) {
        Ok(path) => super::read(&path).map(Some),
        Err(WeightsError::NotFetched { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where the weights of a backbone lie in the cache.
pub(crate) fn path_in(home: &Path, name: &str) -> PathBuf {
    home.join("weights").join(format!("{name}.safetensors"))
}
