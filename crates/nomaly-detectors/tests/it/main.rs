//! Detectors from images to decisions: fit, save, load, score.

mod fit;
mod groups;
mod hostile_models;
mod images;
mod kinds;
mod locate;
mod partial;
mod recognition;
mod regions;
mod session;
mod shift;
mod sizes;
mod trained_maps;
mod training;
mod transformer;
mod update;
