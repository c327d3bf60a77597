//! Number formatting and axis ticks.

/// A score with four significant digits: `0.1234`, `17.25`, `1.234e9`, `∞`.
pub(crate) fn score(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "∞".into() } else { "−∞".into() };
    }
    if value == 0.0 {
        return "0".into();
    }
    let magnitude = value.abs().log10().floor() as i32;
    if !(-4..7).contains(&magnitude) {
        return format!("{value:.3e}").replace('-', "−");
    }
    let digits = (3 - magnitude).max(0) as usize;
    format!("{value:.digits$}").replace('-', "−")
}

/// A p-value: two significant digits, never shown as zero.
pub(crate) fn p_value(value: f64) -> String {
    if value < 1e-4 {
        return "< 0.0001".into();
    }
    let digits = (1 - value.log10().floor() as i32).max(2) as usize;
    format!("= {value:.digits$}")
}

/// A share as a percentage, `12.5 %`, with a no-break space.
pub(crate) fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    if percent == percent.round() { format!("{percent:.0}\u{a0}%") } else { format!("{percent:.1}\u{a0}%") }
}

/// A count with its noun: `1 image`, `1 204 images`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// A count with thin spaces between groups of three digits.
pub(crate) fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Round numbers from `low` to `high`.
#[derive(Debug, PartialEq)]
pub(crate) struct Ticks {
    /// Ascending, within the range.
    pub(crate) values: Vec<f64>,
    decimals: usize,
    scientific: bool,
}

impl Ticks {
    /// At most `most` multiples of 1, 2 or 5 times a power of ten; `low < high`, both finite, `most ≥ 2`.
    pub(crate) fn new(low: f64, high: f64, most: usize) -> Self {
        let step = nice_step((high / most as f64) - (low / most as f64));
        let (first, last) = ((low / step).ceil(), (high / step).floor());
        // The bound on the count guards against steps too small to change the value.
        let count = ((last - first + 1.0).max(0.0) as usize).min(most + 1);
        let values = (0..count).map(|index| (first + index as f64) * step).collect();
        let decimals = (-(step.log10() + 1e-9).floor()).clamp(0.0, 12.0) as usize;
        let largest = low.abs().max(high.abs());
        Self { values, decimals, scientific: largest >= 1e6 || step < 1e-6 }
    }

    /// A tick with enough digits to distinguish it from the next.
    pub(crate) fn label(&self, value: f64) -> String {
        if self.scientific {
            let text = if value == 0.0 { "0".into() } else { format!("{value:.1e}") };
            return text.replace('-', "−");
        }
        let text = format!("{value:.*}", self.decimals).replace('-', "−");
        // A multiple of the step that rounds to zero has no sign.
        if text.chars().all(|c| matches!(c, '0' | '.' | '−')) { text.replace('−', "") } else { text }
    }
}

/// The smallest of 1, 2, 5 times a power of ten that is at least `raw`.
fn nice_step(raw: f64) -> f64 {
    let raw = raw.max(f64::MIN_POSITIVE);
    let power = 10f64.powf(raw.log10().floor());
    let multiple = raw / power;
    let nice = [1.0, 2.0, 5.0].into_iter().find(|nice| multiple <= nice * (1.0 + 1e-9)).unwrap_or(10.0);
    nice * power
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn scores_have_four_digits() {
        let cases = [
            (0.0, "0"),
            (0.123456, "0.1235"),
            (-17.2512, "−17.25"),
            (123456.7, "123457"),
            (1.5e9, "1.500e9"),
            (2.5e-7, "2.500e−7"),
            (f64::INFINITY, "∞"),
            (f64::NEG_INFINITY, "−∞"),
        ];
        for (value, expected) in cases {
            assert_eq!(score(value), expected);
        }
    }

    #[test]
    fn shares_and_counts() {
        assert_eq!([p_value(1.0), p_value(0.0123), p_value(1e-5)], ["= 1.00", "= 0.012", "< 0.0001"]);
        assert_eq!([percent(0.5), percent(0.0123), percent(1.0)], ["50\u{a0}%", "1.2\u{a0}%", "100\u{a0}%"]);
        assert_eq!([counted(1, "image"), counted(12345, "image")], ["1 image", "12\u{202f}345 images"]);
        assert_eq!(grouped(999), "999");
    }

    #[test]
    fn ticks_are_round() {
        let labels = |low, high| {
            let ticks = Ticks::new(low, high, 5);
            ticks.values.iter().map(|&value| ticks.label(value)).collect::<Vec<_>>()
        };
        assert_eq!(labels(0.0, 1.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(-3.0, 11.0), ["0", "5", "10"]);
        assert_eq!(labels(-0.02, 0.021), ["−0.02", "−0.01", "0.00", "0.01", "0.02"]);
        assert_eq!(labels(0.0, 4e7), ["0", "1.0e7", "2.0e7", "3.0e7", "4.0e7"]);
    }

    proptest! {
        #[test]
        fn ticks_are_few_ascending_and_inside(low in -1e12f64..1e12, size in -9f64..12.0, most in 2usize..9) {
            let high = low + 10f64.powf(size);
            prop_assume!(low < high);
            let ticks = Ticks::new(low, high, most);
            prop_assert!(ticks.values.len() <= most + 1);
            let slack = 1e-9 * (high - low) + 1e-12 * low.abs().max(high.abs());
            prop_assert!(ticks.values.iter().all(|&value| low - slack <= value && value <= high + slack));
        }
    }
}
