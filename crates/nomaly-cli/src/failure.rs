//! Error messages and exit statuses.

use std::error::Error;
use std::fmt;

use nomaly::DetectorError;
use nomaly::ErrorKind;
use nomaly::backbones::BackboneError;
use nomaly::backbones::WeightsError;
use nomaly::backbones::weights::CacheError;
use nomaly::data::DataError;
use nomaly::evaluation::EvaluationError;
use nomaly::methods::MethodError;
use nomaly::registry::UnknownName;
use nomaly::settings::SettingError;
use nomaly::store::StoreError;

/// An error of the command line itself, with a hint.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: String,
    interruption: bool,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), interruption: false }
    }

    /// Explains the consequences if the user cancelled the work; other errors are unchanged.
    pub(crate) fn if_cancelled(
        error: impl Into<anyhow::Error>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> anyhow::Error {
        let error = error.into();
        if is_interruption(&error) {
            return Self { interruption: true, ..Self::new(message, hint) }.into();
        }
        error
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {}

/// The error and its causes in one line, without causes already contained in the text.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// A hint for the user, if known.
pub(crate) fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return Some(failure.hint.clone());
        }
        if let Some(unknown) = unknown_name(cause) {
            return list_of(&unknown.kind).map(|command| format!("`{command}` shows what there is"));
        }
        match method_error(cause)? {
            MethodError::Setting(error) => Some(about_setting(error).to_owned()),
            MethodError::TooFew { items: "training images", found: 0, .. } => {
                Some("`nomaly doctor` with the same images says which cannot be read, and why".to_owned())
            }
            MethodError::NotExtendable { .. } => {
                Some("`nomaly fit` on a folder that holds the old and the new images makes a model of both".to_owned())
            }
            MethodError::NotUpdatable { .. } => Some(
                "a fit with --updatable keeps it; `nomaly fit` on a folder that holds the old and the new images makes a \
                 model of both"
                    .to_owned(),
            ),
            MethodError::NotSplittable { .. } => {
                Some("leave out --shard: the fit goes on from its last checkpoint when it is interrupted".to_owned())
            }
            _ => None,
        }
    })
}

/// A hint for an invalid setting.
fn about_setting(error: &SettingError) -> &'static str {
    match error {
        SettingError::Syntax { .. } => "for example `--set input_size=256`",
        _ => "`nomaly list methods` and `nomaly list scorers` show every setting with its values",
    }
}

/// The method error behind an error, also if wrapped by a detector or an evaluation.
fn method_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a MethodError> {
    let detector = match error.downcast_ref::<EvaluationError>() {
        Some(EvaluationError::Detector(error)) => Some(error),
        _ => error.downcast_ref::<DetectorError>(),
    };
    match detector {
        Some(DetectorError::Method(error)) => Some(error),
        _ => error.downcast_ref(),
    }
}

/// The unknown name behind an error; looks through transparent wrappers, which hide it from the chain.
fn unknown_name<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a UnknownName> {
    if let Some(unknown) = error.downcast_ref::<UnknownName>() {
        return Some(unknown);
    }
    if let Some(CacheError::UnknownWeights(unknown)) = error.downcast_ref::<CacheError>() {
        return Some(unknown);
    }
    if let Some(BackboneError::UnknownBackbone(unknown)) = error.downcast_ref::<BackboneError>() {
        return Some(unknown);
    }
    if let Some(SettingError::Unknown(unknown)) = error.downcast_ref::<SettingError>() {
        return Some(unknown);
    }
    match method_error(error)? {
        MethodError::Unknown(unknown) | MethodError::Setting(SettingError::Unknown(unknown)) => Some(unknown),
        MethodError::Backbone(error) => unknown_name(&**error),
        _ => None,
    }
}

/// The command that lists the names of this kind.
fn list_of(kind: &str) -> Option<&'static str> {
    match kind {
        "method" | "setting" => Some("nomaly list methods"),
        "scorer" => Some("nomaly list scorers"),
        "backbone" => Some("nomaly list backbones"),
        "level" | "tap" => Some("nomaly list backbones --format json"),
        "weights" => Some("nomaly weights list"),
        _ => None,
    }
}

/// Whether the user stopped the work.
pub(crate) fn is_interruption(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| match cause.downcast_ref::<Failure>() {
        Some(failure) => failure.interruption,
        None => kind(cause) == Some(ErrorKind::Cancelled),
    })
}

/// The kind of a library error, if it has one.
fn kind(error: &(dyn Error + 'static)) -> Option<ErrorKind> {
    let of_detectors = || error.downcast_ref().map(DetectorError::kind);
    let of_methods = || error.downcast_ref().map(MethodError::kind);
    let of_data = || error.downcast_ref::<DataError>().map(ErrorKind::from);
    let of_weights = || error.downcast_ref::<WeightsError>().map(ErrorKind::from);
    let of_cache = || error.downcast_ref::<CacheError>().map(ErrorKind::from);
    let of_store = || error.downcast_ref::<StoreError>().map(ErrorKind::from);
    let of_evaluation = error.downcast_ref().map(EvaluationError::kind);
    of_evaluation
        .or_else(of_detectors)
        .or_else(of_methods)
        .or_else(of_data)
        .or_else(of_weights)
        .or_else(of_cache)
        .or_else(of_store)
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context;

    use super::*;

    #[test]
    fn causes_are_told_once() {
        let inner: anyhow::Result<()> = Err(io::Error::other("disk full")).context("cannot write x: disk full");
        let error = inner.context("cannot keep the model").unwrap_err();
        assert_eq!(chain(&error), "cannot keep the model: cannot write x: disk full");
    }

    #[test]
    fn hints_are_found_under_context_and_transparent_errors() {
        let unknown = || UnknownName::new("method", "mgv", ["mvg"]);
        let wrapped = anyhow::Error::new(DetectorError::from(unknown())).context("cannot fit");
        assert_eq!(hint(&wrapped).unwrap(), "`nomaly list methods` shows what there is");
        assert_eq!(hint(&anyhow::Error::new(unknown())), hint(&wrapped));
        assert_eq!(hint(&Failure::new("no", "try this").into()).unwrap(), "try this");
        assert_eq!(hint(&anyhow::anyhow!("plain")), None);
    }

    #[test]
    fn interruptions_are_told_from_errors() {
        assert!(is_interruption(&DetectorError::from(MethodError::Cancelled).into()));
        assert!(is_interruption(&StoreError::Cancelled { what: "x".into() }.into()));
        let stopped = |error| Failure::if_cancelled(error, "interrupted", "start again");
        assert!(is_interruption(&stopped(MethodError::Cancelled)));
        assert_eq!(hint(&stopped(MethodError::Cancelled)).unwrap(), "start again");
        let setting = MethodError::from(SettingError::Syntax { given: "x".into() });
        assert_eq!(stopped(setting).to_string(), "setting `x` is not of the form KEY=VALUE");
        assert!(!is_interruption(&Failure::new("no", "try this").into()));
        assert!(!is_interruption(&anyhow::anyhow!("plain")));
    }
}
