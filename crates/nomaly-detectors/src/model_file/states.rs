//! The states of a method at one or several sizes.

use nomaly_methods::MethodError;
use nomaly_methods::recognition::KnownClass;
use nomaly_scorers::State;

use crate::error::DetectorError;

/// The states of a method at all sizes in one list. With several sizes, names begin with the size's number.
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
/// A state that belongs to no size.
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

/// Rejects a model whose classes differ from those in its file.
pub(crate) fn check_classes(fitted: &[String], known: &[KnownClass]) -> Result<(), DetectorError> {
    if fitted.iter().eq(known.iter().map(|class| &class.name)) {
        return Ok(());
    }
    let reason = format!("the model tells {} apart, and the file names {}", fitted.len(), known.len());
    Err(DetectorError::from(MethodError::State { state: "classes".to_owned(), reason: Some(reason) }))
}
