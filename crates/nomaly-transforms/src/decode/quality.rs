//! The quality of a JPEG file, from its quantization table.
//!
//! libjpeg scales the example tables of the standard by `S = 5000 / q` below quality 50 and `S = 200 − 2q` from there
//! on, in percent, rounded, and clamped to 1..=255. The estimate is the quality whose table differs least from the one
//! in the file: exact for files written by libjpeg, approximate for other tables.
//!
//! # Reference
//! ITU-T Recommendation T.81 (1992), Annex K, table K.1; `jpeg_quality_scaling` of the Independent JPEG Group's
//! library.

use super::segments::jpeg_segments;

/// Table K.1, quantization of luminance, in the zig-zag order of the file.
const LUMINANCE: [u16; 64] = [
    16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40, 26, 24, 22, 22, 24, 49, 35, 37, 29, 40, 58, 51, 61,
    60, 57, 51, 56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87, 95, 98, 103, 104, 103, 62, 77, 113,
    121, 112, 100, 120, 92, 101, 103, 99,
];

const DEFINE_QUANTIZATION: u8 = 0xdb;

/// The percentage by which a quality scales the tables of the standard: 10 for quality 95, 50 for 75, 100 for 50.
pub fn jpeg_scale(quality: u8) -> u32 {
    match u32::from(quality.clamp(1, 100)) {
        quality @ ..50 => 5000 / quality,
        quality => 200 - 2 * quality,
    }
}

/// The quality from 1 to 100; `None` if the file has no complete luminance table.
pub(super) fn jpeg_quality(bytes: &[u8]) -> Option<u8> {
    let table = luminance_table(bytes)?;
    let distance = |quality: &u8| {
        let scale = jpeg_scale(*quality);
        let entry = |standard: u16| ((u32::from(standard) * scale + 50) / 100).clamp(1, 255);
        LUMINANCE.iter().zip(&table).map(|(&standard, &found)| entry(standard).abs_diff(u32::from(found))).sum::<u32>()
    };
    // Ties go to the better quality.
    (1..=100).rev().min_by_key(distance)
}

/// Table 0, in zig-zag order.
fn luminance_table(bytes: &[u8]) -> Option<[u16; 64]> {
    for (marker, mut contents) in jpeg_segments(bytes) {
        if marker != DEFINE_QUANTIZATION {
            continue;
        }
        while let Some((&head, rest)) = contents.split_first() {
            let wide = head >> 4 != 0;
            let size = if wide { 128 } else { 64 };
            let values = rest.get(..size)?;
            if head & 15 == 0 {
                return Some(std::array::from_fn(|place| {
                    if wide {
                        u16::from_be_bytes([values[2 * place], values[2 * place + 1]])
                    } else {
                        u16::from(values[place])
                    }
                }));
            }
            contents = &rest[size..];
        }
    }
    None
}
