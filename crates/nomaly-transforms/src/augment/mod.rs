//! Images made from normal images: training anomalies for self-supervised methods, and changes to tolerate.
//!
//! Like [`transformations`](crate::transformations) these work on planes `[C, H, W]` of values in \[0, 1\] and draw
//! every random choice from the given generator:
//!
//! * [`AdaclAugmentation`]: patches pasted, quarters shuffled, images turned and mixed with themselves;
//! * [`CutPasteClass`]: the three classes of CutPaste.
//!
//! [`Change`] works on whole photographs: copies of good images with other lighting or compression that a model should
//! tolerate. [`synthetic`](crate::synthetic) draws defects with masks into whole photographs; two of its kinds are what
//! CutPaste pastes.

pub(crate) mod adacl;
pub(crate) mod cut_paste;
mod exposure;

pub use adacl::{AdaclAugmentation, AdaclKind};
pub use cut_paste::CutPasteClass;
pub use exposure::{Change, Changes};

/// The registry entry of an augmentation.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) name: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) parameters: &'static str,
}
