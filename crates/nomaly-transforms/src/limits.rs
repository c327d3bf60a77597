//! Limits that appear in messages.

/// The longest side of a pipeline's resize and crop, in pixels.
pub const MAX_SIDE: u32 = 8192;

/// The most rows, and the most columns, of a [`Tiling`](crate::Tiling).
pub const MAX_TILES: u32 = 64;
