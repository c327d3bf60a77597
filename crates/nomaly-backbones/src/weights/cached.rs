//! Weights in the cache of this machine.

use std::path::{Path, PathBuf};

use nomaly_store::home;

use nomaly_nn::weights::Weights;

use super::CacheError;
use crate::registry::BACKBONES;

/// The file of a backbone's weights in the cache.
///
/// # Errors
/// [`CacheError::UnknownWeights`] if no backbone has the name; [`CacheError::NotFetched`], which says how to get
/// them.
pub fn find(name: &str) -> Result<PathBuf, CacheError> {
    let backbone = BACKBONES.get(name)?;
    let path = path_in(&home()?, backbone.name);
    if path.is_file() { Ok(path) } else { Err(CacheError::NotFetched { name: name.to_owned() }) }
}

/// The weights of a backbone from the cache, or `None` if they are not there.
///
/// # Errors
/// [`CacheError::UnknownWeights`] if no backbone has the name, and those of [`super::read`].
pub fn load(name: &str) -> Result<Option<Weights>, CacheError> {
    match find(name) {
        Ok(path) => Ok(Some(super::read(&path)?)),
        Err(CacheError::NotFetched { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where the weights of a backbone lie in the cache.
pub(crate) fn path_in(home: &Path, name: &str) -> PathBuf {
    home.join("weights").join(format!("{name}.safetensors"))
}
