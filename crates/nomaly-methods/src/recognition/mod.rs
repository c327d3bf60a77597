//! Models of classes: a mixture of Gaussians for each class, on features or rows.

mod class;
mod model;
mod settings;

pub use self::class::{HeldOutClass, KnownClass, UNDECIDED, UNKNOWN, check_name, closest};
pub use self::model::{ClassFit, ClassModel, ClassTask, Labels, MIN_ITEMS};
pub use self::settings::{Dimensions, OpenSetParams, Plan};
