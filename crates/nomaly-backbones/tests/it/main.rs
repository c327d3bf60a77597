//! Backbones against the reference implementations.

mod embedded;
mod formula;
mod loading;
mod parity;
mod training;
