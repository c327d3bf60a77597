//! Images made from normal images: anomalies, which self-supervised methods are trained against, and changes to bear.
//!
//! Like [`transformations`](crate::transformations) these work on planes `[C, H, W]` of values in \[0, 1\] and draw
//! every random choice from the generator that they are given:
//!
//! * [`AdaclAugmentation`]: patches pasted, quarters shuffled, images turned and mixed with themselves;
//! * [`CutPasteClass`]: the three classes of CutPaste.
//!
//! [`Change`] works on whole photographs: copies of good images in other light, or stored otherwise, that a model is to
//! bear. [`synthetic`](crate::synthetic) draws defects with masks into whole photographs; two of its kinds are what
//! CutPaste pastes.

pub(crate) mod adacl;
pub(crate) mod cut_paste;
mod exposure;

pub use adacl::{AdaclAugmentation, AdaclKind};
pub use cut_paste::CutPasteClass;
pub use exposure::{Change, Changes};

/// An augmentation as it is listed.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) name: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) parameters: &'static str,
}
