//! Evaluations from images and rows to figures.

mod evaluate;
#[path = "../../../nomaly-detectors/tests/it/images.rs"]
#[expect(dead_code, reason = "the tests of detectors need more of it")]
mod images;
#[path = "../../../nomaly-detectors/tests/it/kinds.rs"]
mod kinds;
mod recognition;
