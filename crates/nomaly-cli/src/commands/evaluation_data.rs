//! The data set that an evaluation runs on.

use nomaly::data::Choice;
use nomaly::{Dataset, Label};

use crate::args::EvalArgs;
use crate::failure::Failure;
use crate::output::counted;

/// Opens a data set that has test images with each of the `needed` labels.
pub(super) fn open(data: &str, needed: &[Label]) -> anyhow::Result<Dataset> {
    let dataset = nomaly::data::open(data)?;
    if needed.iter().all(|label| dataset.count(*label) > 0) {
        return Ok(dataset);
    }
    let both = if needed.contains(&Label::Anomalous) { "both" } else { "normal ones" };
    Err(Failure::new(
        format!(
            "{} has {} labelled normal and {} labelled anomalous, and an evaluation needs {both}",
            dataset.name,
            counted(dataset.count(Label::Normal), "test image"),
            dataset.count(Label::Anomalous),
        ),
        "a folder in MVTec layout has normal ones in test/good and anomalous ones in test/<kind>",
    )
    .into())
}

/// Limits the number of images. The seed selects training images but never test images, so that figures of several
/// seeds differ only by the training.
pub(super) fn limit(dataset: &mut Dataset, args: &EvalArgs, seed: u64) {
    if let Some(max) = args.max_train {
        dataset.limit_train(max.get(), Choice::Seeded(seed));
    }
    if let Some(max) = args.max_test {
        dataset.limit_test(max.get(), Choice::Seeded(0));
    }
}
