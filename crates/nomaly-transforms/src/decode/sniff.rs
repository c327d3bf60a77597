//! Recognition of file formats by their first bytes.

use image::ImageFormat;

use crate::error::Fault;

/// A supported format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Jpeg,
    Other { format: ImageFormat, name: &'static str },
}

/// Image formats that are recognised for messages but not decoded.
const OTHER_IMAGES: [(usize, &[u8], &str); 20] = [
    (0, b"GIF8", "GIF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypheix", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"qoif", "QOI"),
    (0, b"DDS ", "DDS"),
    (0, b"\0\0\x01\0", "ICO"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"II+\0", "BigTIFF"),
    (0, b"MM\0+", "BigTIFF"),
    (128, b"DICM", "DICOM"),
    (0, b"farbfeld", "farbfeld"),
];

/// Other files that occur under an image's name.
const NOT_IMAGES: [(&[u8], &str); 9] = [
    (b"version https://git-lfs.github.com", "a Git LFS pointer (the image itself was not checked out)"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive or office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
];

/// Finds the format of an encoded image.
pub(super) fn sniff(bytes: &[u8]) -> Result<Format, Fault> {
    if bytes.is_empty() {
        return Err(Fault::Empty);
    }
    let other = |format, name| Ok(Format::Other { format, name });
    if bytes.starts_with(b"\xff\xd8\xff") {
        return Ok(Format::Jpeg);
    }
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return other(ImageFormat::Png, "PNG");
    }
    // Two letters alone would match any text that begins with "BM", so this also checks the four reserved bytes, which
    // are zero in a bitmap.
    if bytes.starts_with(b"BM") && bytes.get(6..10) == Some(&[0; 4]) {
        return other(ImageFormat::Bmp, "BMP");
    }
    if bytes.starts_with(b"II*\0") || bytes.starts_with(b"MM\0*") {
        return other(ImageFormat::Tiff, "TIFF");
    }
    if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return other(ImageFormat::WebP, "WebP");
    }
    for (offset, signature, format) in OTHER_IMAGES {
        if bytes.get(offset..).is_some_and(|rest| rest.starts_with(signature)) {
            return Err(Fault::UnsupportedFormat { format });
        }
    }
    if let [b'P', b'1'..=b'7', space, ..] = bytes
        && space.is_ascii_whitespace()
    {
        return Err(Fault::UnsupportedFormat { format: "PNM" });
    }
    Err(Fault::NotAnImage { seems: guess(bytes) })
}

fn guess(bytes: &[u8]) -> &'static str {
    for (signature, seems) in NOT_IMAGES {
        if bytes.starts_with(signature) {
            return seems;
        }
    }
    let head = &bytes[..bytes.len().min(512)];
    if head.iter().all(|&byte| byte == 0) {
        return "a run of zero bytes (a failed copy or download?)";
    }
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // The cut at 512 bytes may fall within a character.
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or(""),
        Err(_) => return "unknown binary data",
    };
    if text.is_empty() || text.chars().any(|c| c.is_control() && !c.is_whitespace()) {
        return "unknown binary data";
    }
    let start = text.trim_start_matches('\u{feff}').trim_start().to_ascii_lowercase();
    if start.starts_with("<!doctype html") || start.starts_with("<html") {
        "an HTML page (a failed download?)"
    } else if start.starts_with("<svg") {
        "an SVG drawing"
    } else if start.starts_with('<') {
        "an XML file"
    } else if start.starts_with(['{', '[']) {
        "a JSON file"
    } else {
        "a text file"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_no_image() {
        let cases: [(&[u8], &str); 8] = [
            (b"hello, this is not a picture", "a text file"),
            (b"BMW is a car maker", "a text file"),
            (b"  <!DOCTYPE html><html>", "an HTML page (a failed download?)"),
            (b"<svg xmlns=", "an SVG drawing"),
            (b"{\"a\": 1}", "a JSON file"),
            (b"%PDF-1.7", "a PDF document"),
            (&[0; 40], "a run of zero bytes (a failed copy or download?)"),
            (&[0x80, 0x81, 1, 2], "unknown binary data"),
        ];
        for (bytes, expected) in cases {
            match sniff(bytes) {
                Err(Fault::NotAnImage { seems }) => assert_eq!(seems, expected),
                other => panic!("{bytes:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn names_images_that_are_not_decoded() {
        for (bytes, expected) in [(&b"GIF89a"[..], "GIF"), (b"\0\0\0\x1cftypheic", "HEIC"), (b"P6\n1 1", "PNM")] {
            match sniff(bytes) {
                Err(Fault::UnsupportedFormat { format }) => assert_eq!(format, expected),
                other => panic!("{bytes:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn formats_are_named_and_other_files_are_not() {
        let cases: [(&[u8], Option<&str>); 6] = [
            (b"\xff\xd8\xff\xe0", Some("JPEG")),
            (b"\x89PNG\r\n\x1a\n", Some("PNG")),
            (b"GIF89a", Some("GIF")),
            (b"", None),
            (b"\x10\0\0\0\0\0\0\0{\"__metadata__\"", None),
            (b"<!DOCTYPE html>", None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(super::super::image_format(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn text_cut_within_a_character_is_text() {
        let text = "é".repeat(300);
        assert_eq!(guess(&text.as_bytes()[..511]), "a text file");
    }
}
