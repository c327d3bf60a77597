//! Reading what a method kept in a model file.

use nomaly_scorers::{State, TensorData};

use crate::MethodError;

/// The only state there is, which must be called `name` and be of the kind of that name.
pub(crate) fn only(name: &str, states: &mut Vec<(String, State)>) -> Result<State, MethodError> {
    let state = only_named(name, states)?;
    if state.kind == name { Ok(state) } else { Err(MethodError::State { state: name.to_owned(), reason: None }) }
}

/// The only state there is, which must be called `name`.
pub(crate) fn only_named(name: &str, states: &mut Vec<(String, State)>) -> Result<State, MethodError> {
    match (states.pop(), states.is_empty()) {
        (Some((found, state)), true) if found == name => Ok(state),
        _ => Err(MethodError::State { state: name.to_owned(), reason: None }),
    }
}

/// Takes the f64 tensor `tensor` out of `state`, which is called `name`.
///
/// # Errors
/// A tensor that is missing or of other numbers.
pub fn take_f64(name: &str, state: &mut State, tensor: &str) -> Result<Vec<f64>, MethodError> {
    let refuse =
        |reason: &str| MethodError::State { state: name.to_owned(), reason: Some(format!("`{tensor}` {reason}")) };
    match state.tensors.remove(tensor).ok_or_else(|| refuse("is missing"))?.data {
        TensorData::F64(values) => Ok(values),
        _ => Err(refuse("is not of f64")),
    }
}

/// As [`take`], also of a tensor of f16; and whether it was one.
pub(crate) fn take_either(name: &str, state: &mut State, tensor: &str) -> Result<(Vec<f32>, bool), MethodError> {
    let half = match state.tensors.get_mut(tensor).map(|tensor| &mut tensor.data) {
        Some(data @ TensorData::F16(_)) => {
            if let TensorData::F16(values) = data {
                *data = TensorData::F32(values.iter().map(|value| value.to_f32()).collect());
            }
            true
        }
        _ => false,
    };
    Ok((take(name, state, tensor)?, half))
}

/// Takes the f32 tensor `tensor` out of `state`, which is called `name`, and checks its numbers.
pub(crate) fn take(name: &str, state: &mut State, tensor: &str) -> Result<Vec<f32>, MethodError> {
    let refuse =
        |reason: &str| MethodError::State { state: name.to_owned(), reason: Some(format!("`{tensor}` {reason}")) };
    let TensorData::F32(values) = state.tensors.remove(tensor).ok_or_else(|| refuse("is missing"))?.data else {
        return Err(refuse("is not of f32"));
    };
    if values.iter().all(|value| value.is_finite()) {
        Ok(values)
    } else {
        Err(refuse("has a value that is not finite"))
    }
}
