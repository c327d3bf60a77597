//! Detectors from images to decisions: fit, save, load, score, evaluate.

mod docs;
mod evaluate;
mod fit;
mod groups;
mod hostile_models;
mod images;
mod locate;
mod recognition;
mod regions;
mod shift;
mod sizes;
mod training;
