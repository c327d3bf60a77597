//! Capture times of images.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use exif::{DateTime, In, Reader, Tag, Value};
use nomaly_data::Sample;
use serde::{Deserialize, Serialize};

use crate::MethodError;

/// The source of capture times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeSource {
    /// The camera's clock.
    Exif,
    /// The files' modification times.
    Modified,
}

/// The facts about a sample that [`GroupBy`](super::GroupBy) uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupFacts {
    /// Its [id](Sample::id).
    pub id: String,
    /// Its capture time, if the rule groups by time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<Times>,
}

/// The capture times of a sample's file, in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Times {
    /// The camera's clock, if recorded.
    exif: Option<f64>,
    /// The modification time, or why it is unknown.
    modified: Result<f64, String>,
}

impl Times {
    pub(super) fn of(sample: &Sample) -> Self {
        let Some(path) = sample.source.path() else {
            return Self { exif: None, modified: Err("is no file".to_owned()) };
        };
        let time = std::fs::metadata(path).and_then(|metadata| metadata.modified());
        let seconds = |time: SystemTime| match time.duration_since(UNIX_EPOCH) {
            Ok(after) => after.as_secs_f64(),
            Err(before) => -before.duration().as_secs_f64(),
        };
        let modified = time.map(seconds).map_err(|error| format!("has no time: {error}"));
        Self { exif: exif_time(path), modified }
    }
}

/// The capture time of each sample, in seconds from a common start: the camera's clock if every file has it, otherwise
/// the modification time.
///
/// # Errors
/// A sample without a file, or whose file has no time.
pub(super) fn times(samples: &[&GroupFacts]) -> Result<(Vec<f64>, TimeSource), MethodError> {
    if let Some(times) = samples.iter().map(|sample| sample.times.as_ref()?.exif).collect() {
        return Ok((times, TimeSource::Exif));
    }
    let modified = |sample: &&GroupFacts| {
        let time =
            sample.times.as_ref().map_or_else(|| Err("is of unknown time".to_owned()), |times| times.modified.clone());
        time.map_err(|reason| {
            let allowed = format!("images whose time is known; `{}` {reason}", sample.id);
            MethodError::setting("group-by", "gap", &allowed)
        })
    };
    Ok((samples.iter().map(modified).collect::<Result<_, MethodError>>()?, TimeSource::Modified))
}

/// The time that a camera wrote into a file.
fn exif_time(path: &Path) -> Option<f64> {
    let exif = Reader::new().read_from_container(&mut BufReader::new(File::open(path).ok()?)).ok()?;
    let text = |tag: Tag| match &exif.get_field(tag, In::PRIMARY)?.value {
        Value::Ascii(lines) => lines.first().cloned(),
        _ => None,
    };
    let time = DateTime::from_ascii(&text(Tag::DateTimeOriginal)?).ok()?;
    let fraction = text(Tag::SubSecTimeOriginal)
        .and_then(|digits| format!("0.{}", String::from_utf8(digits).ok()?.trim()).parse::<f64>().ok())
        .filter(|fraction| fraction.is_finite());
    Some(seconds(&time) + fraction.unwrap_or(0.0))
}

/// Seconds since 1970 of a date and time of the civil calendar.
fn seconds(time: &DateTime) -> f64 {
    let (year, month) = (i64::from(time.year), i64::from(time.month));
    // Years that begin in March end with the leap day.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let days = days + (153 * month + 2) / 5 + i64::from(time.day) - 719_469;
    let seconds = (days * 24 + i64::from(time.hour)) * 60 + i64::from(time.minute);
    (seconds * 60 + i64::from(time.second)) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_has_leap_days() {
        let at = |text: &str| seconds(&DateTime::from_ascii(text.as_bytes()).unwrap());
        assert_eq!(at("1970:01:01 00:00:00"), 0.0);
        assert_eq!(at("2000:03:01 00:00:00") - at("2000:02:28 00:00:00"), 2.0 * 86_400.0);
        assert_eq!(at("2100:03:01 00:00:00") - at("2100:02:28 00:00:00"), 86_400.0);
        // `date -u -d '2026-11-30 12:34:56' +%s`
        assert_eq!(at("2026:11:30 12:34:56"), 1_796_042_096.0);
    }

    #[test]
    fn the_camera_s_clock_is_read() {
        // A JPEG with only an EXIF block: little-endian TIFF, one entry that points to the EXIF directory.
        let text = b"2026:11:30 12:34:56\0";
        let mut tiff = b"II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x1a\0\0\0\0\0\0\0".to_vec();
        tiff.extend(b"\x01\0\x03\x90\x02\0\x14\0\0\0\x2c\0\0\0\0\0\0\0");
        tiff.extend(text);
        let length = (tiff.len() + 8) as u16;
        let mut jpeg = b"\xff\xd8\xff\xe1".to_vec();
        jpeg.extend(length.to_be_bytes());
        jpeg.extend(b"Exif\0\0");
        jpeg.extend(&tiff);
        jpeg.extend(b"\xff\xd9");
        let folder = std::env::temp_dir().join(format!("nomaly-time-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("a.jpg");
        std::fs::write(&path, &jpeg).unwrap();
        assert_eq!(exif_time(&path), Some(1_796_042_096.0));
        std::fs::write(&path, b"\xff\xd8\xff\xd9").unwrap();
        assert_eq!(exif_time(&path), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
