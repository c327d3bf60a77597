//! The pages that are written from the registry of methods.

mod docs;
