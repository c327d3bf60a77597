//! Documentation pages generated from the registry of methods.

mod adversarial;
mod docs;
