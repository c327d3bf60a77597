//! Reading the states of a model file.

use nomaly_scorers::{State, TensorData};

use crate::MethodError;

/// The only state, whose name and kind must be `name`.
pub(crate) fn only(name: &str, states: &mut Vec<(String, State)>) -> Result<State, MethodError> {
    let state = only_named(name, states)?;
    if state.kind == name { Ok(state) } else { Err(MethodError::State { state: name.to_owned(), reason: None }) }
}

/// The only state, whose name must be `name`.
pub(crate) fn only_named(name: &str, states: &mut Vec<(String, State)>) -> Result<State, MethodError> {
    match (states.pop(), states.is_empty()) {
        (Some((found, state)), true) if found == name => Ok(state),
        _ => Err(MethodError::State { state: name.to_owned(), reason: None }),
    }
}

/// Removes the f64 tensor `tensor` from the state `name`.
///
/// # Errors
/// A tensor that is missing or of another type.
pub fn take_f64(name: &str, state: &mut State, tensor: &str) -> Result<Vec<f64>, MethodError> {
    let refuse =
        |reason: &str| MethodError::State { state: name.to_owned(), reason: Some(format!("`{tensor}` {reason}")) };
    match state.tensors.remove(tensor).ok_or_else(|| refuse("is missing"))?.data {
        TensorData::F64(values) => Ok(values),
        _ => Err(refuse("is not of f64")),
    }
}

/// Removes the u32 tensor `tensor` from the state `name`. Files of version 2 store whole numbers as f64.
pub(crate) fn take_u32(name: &str, state: &mut State, tensor: &str) -> Result<Vec<u32>, MethodError> {
    let refuse =
        |reason: &str| MethodError::State { state: name.to_owned(), reason: Some(format!("`{tensor}` {reason}")) };
    match state.tensors.remove(tensor).ok_or_else(|| refuse("is missing"))?.data {
        TensorData::U32(values) => Ok(values),
        TensorData::F64(values) => {
            let whole = |value: f64| value.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&value);
            let values = values.into_iter().map(|value| whole(value).then_some(value as u32));
            values.collect::<Option<_>>().ok_or_else(|| refuse("has a value that is no whole number"))
        }
        _ => Err(refuse("is not of u32")),
    }
}

/// As [`take`], but accepts f16 too; also returns whether the tensor was f16.
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

/// Removes the f32 tensor `tensor` from the state `name` and checks that its values are finite.
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

#[cfg(test)]
mod tests {
    use nomaly_scorers::Tensor;

    use super::*;

    #[test]
    fn whole_numbers_are_read_as_they_were_written_before_and_now() {
        let taken = |tensor: Tensor| {
            let config = serde_json::json!({});
            let tensors = [("places".to_owned(), tensor)].into();
            take_u32("bank", &mut State { kind: "bank".to_owned(), config, tensors }, "places")
        };
        assert_eq!(taken(Tensor::u32([2], vec![3, u32::MAX])).unwrap(), [3, u32::MAX]);
        assert_eq!(taken(Tensor::f64([2], vec![3.0, f64::from(u32::MAX)])).unwrap(), [3, u32::MAX]);
        for bad in [0.5, -1.0, 4_294_967_296.0, f64::NAN] {
            let error = taken(Tensor::f64([1], vec![bad])).unwrap_err().to_string();
            assert!(error.contains("`places` has a value that is no whole number"), "{error}");
        }
        assert!(taken(Tensor::f32([1], vec![1.0])).unwrap_err().to_string().contains("not of u32"));
    }
}
