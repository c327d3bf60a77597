//! The segments of a JPEG file.

/// The segments of a JPEG file before its coded data: marker and contents.
pub(super) fn jpeg_segments(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    const START_OF_SCAN: u8 = 0xda;
    let mut at = 2;
    std::iter::from_fn(move || {
        while bytes.get(at..at + 2)? == [0xff, 0xff] {
            at += 1;
        }
        let (&[0xff, marker], rest) = bytes.get(at..)?.split_first_chunk()? else { return None };
        if marker == START_OF_SCAN {
            return None;
        }
        let (length, _) = rest.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let contents = rest.get(2..length)?;
        at += 2 + length;
        Some((marker, contents))
    })
}
