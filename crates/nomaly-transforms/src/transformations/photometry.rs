//! Photometric transformations: colour jitter and histogram equalisation.

/// Factors of brightness, contrast and saturation; 1 is neutral.
#[derive(Clone, Copy, Debug)]
pub(super) struct Factors {
    pub(super) brightness: f32,
    pub(super) contrast: f32,
    pub(super) saturation: f32,
}

impl Factors {
    /// Changes brightness, then contrast, then saturation of planes of `pixels` values each, clamping after each step.
    ///
    /// Contrast is the distance from the mean grey of the image, saturation the distance of a pixel's three values from
    /// its own grey; planes that are not three have no saturation.
    pub(super) fn apply(self, planes: &mut [f32], pixels: usize) {
        for value in planes.iter_mut() {
            *value = (self.brightness * *value).clamp(0.0, 1.0);
        }
        let weights = weights(planes.len() / pixels);
        let mean = planes
            .chunks_exact(pixels)
            .zip(&weights)
            .map(|(plane, &weight)| f64::from(weight) * plane.iter().map(|&value| f64::from(value)).sum::<f64>())
            .sum::<f64>()
            / pixels as f64;
        for value in planes.iter_mut() {
            *value = towards(mean as f32, *value, self.contrast);
        }
        if weights.len() != 3 {
            return;
        }
        let (red, rest) = planes.split_at_mut(pixels);
        let (green, blue) = rest.split_at_mut(pixels);
        for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
            let grey = weights[0] * *red + weights[1] * *green + weights[2] * *blue;
            for value in [red, green, blue] {
                *value = towards(grey, *value, self.saturation);
            }
        }
    }
}

/// From `grey` to `value` and, where the factor is above 1, beyond.
fn towards(grey: f32, value: f32, factor: f32) -> f32 {
    (grey + factor * (value - grey)).clamp(0.0, 1.0)
}

/// The weight of each channel in grey: the luma of ITU-R BT.601 for red, green and blue, otherwise equal parts.
fn weights(channels: usize) -> Vec<f32> {
    if channels == 3 { vec![0.299, 0.587, 0.114] } else { vec![1.0 / channels as f32; channels] }
}

/// Replaces every value by `top` times the share of values that are not greater.
///
/// Values are counted at 256 levels, 0 to 1, and the shares interpolated between levels. An image with a single level
/// does not change. NaN counts as level 0 and stays NaN.
pub(super) fn equalize(planes: &mut [f32], top: f64) {
    const LAST: usize = 255;
    let mut counts = [0u64; LAST + 1];
    for &value in planes.iter() {
        // The cast saturates.
        counts[usize::from((value * LAST as f32 + 0.5) as u8)] += 1;
    }
    if counts.contains(&(planes.len() as u64)) {
        return;
    }
    let mut below = 0;
    let shares = counts.map(|count| {
        below += count;
        (top * below as f64 / planes.len() as f64) as f32
    });
    for value in planes {
        let level = value.clamp(0.0, 1.0) * LAST as f32;
        let near = level as usize;
        let (lower, upper) = (shares[near.min(LAST)], shares[(near + 1).min(LAST)]);
        *value = lower + (level - near as f32) * (upper - lower);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against NumPy in double precision, and against Pillow, which rounds to 8 bits after each of the three steps.
    #[test]
    fn factors_act_as_in_torchvision_and_pillow() {
        let fixture: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/fixtures/transformations.json")).unwrap();
        let list = |value: &serde_json::Value| -> Vec<f32> {
            value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
        };
        let close = |actual: &[f32], expected: &[f32], tolerance: f32| {
            assert_eq!(actual.len(), expected.len());
            for (a, b) in actual.iter().zip(expected) {
                assert!((a - b).abs() <= tolerance, "{a}, expected {b}");
            }
        };
        let color: Vec<f32> = list(&fixture["colour"]["planes"]).iter().map(|level| level / 255.0).collect();
        for case in fixture["jitter"].as_array().unwrap() {
            let [brightness, contrast, saturation] = list(&case["factors"])[..] else { panic!("three factors") };
            let factors = Factors { brightness, contrast, saturation };
            let (mut planes, mut grey) = (color.clone(), color[..108].to_vec());
            factors.apply(&mut planes, 108);
            factors.apply(&mut grey, 108);
            close(&planes, &list(&case["colour"]), 1e-6);
            close(&grey, &list(&case["grey"]), 1e-6);
            let pillow: Vec<f32> = list(&case["pillow"]).iter().map(|level| level / 255.0).collect();
            // Up to one level per step; later factors amplify earlier errors.
            close(&planes, &pillow, 3.0 / 255.0);
        }
    }
}
