//! ROC curves as an SVG file.

use std::fmt::Write;

/// One curve.
pub(super) struct Curve {
    pub(super) name: String,
    pub(super) auroc: f64,
    /// False and true positive rates, ascending.
    pub(super) points: Vec<[f64; 2]>,
}

const SIDE: f64 = 360.0;
const LEFT: f64 = 56.0;
const TOP: f64 = 40.0;
/// Width of the list of curves.
const LEGEND: f64 = 330.0;
/// Colours that are distinguishable with any colour vision (Okabe & Ito 2008).
const COLORS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Draws curves in one plot, with their areas in a legend.
pub(super) fn roc_figure(title: &str, curves: &[Curve]) -> String {
    let (width, height) = (LEFT + SIDE + LEGEND, TOP + SIDE + 52.0);
    let x = |rate: f64| LEFT + rate * SIDE;
    let y = |rate: f64| TOP + (1.0 - rate) * SIDE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n<text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>\n",
        escape(title)
    );
    let mut add = |line: String| {
        svg.push_str(&line);
        svg.push('\n');
    };
    for tick in 0..=5 {
        let rate = f64::from(tick) / 5.0;
        add(format!(
            "<path d=\"M{} {TOP}V{}M{LEFT} {}H{}\" stroke=\"#ddd\" fill=\"none\"/>",
            x(rate),
            y(0.0),
            y(rate),
            x(1.0)
        ));
        add(format!("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{rate:.1}</text>", x(rate), y(0.0) + 18.0));
        add(format!("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{rate:.1}</text>", LEFT - 8.0, y(rate) + 4.5));
    }
    add(format!("<path d=\"M{} {}L{} {}\" stroke=\"#999\" stroke-dasharray=\"4 4\"/>", x(0.0), y(0.0), x(1.0), y(1.0)));
    add(format!("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">false positive rate</text>", x(0.5), y(0.0) + 38.0));
    add(format!(
        "<text transform=\"translate(16 {}) rotate(-90)\" text-anchor=\"middle\">true positive rate</text>",
        y(0.5)
    ));
    for (number, curve) in curves.iter().enumerate() {
        let color = COLORS[number % COLORS.len()];
        let mut path = String::new();
        for (at, [fpr, tpr]) in curve.points.iter().enumerate() {
            // Writing to a string cannot fail.
            let _ = write!(path, "{}{:.1} {:.1}", if at == 0 { 'M' } else { 'L' }, x(*fpr), y(*tpr));
        }
        add(format!("<path d=\"{path}\" stroke=\"{color}\" stroke-width=\"2\" fill=\"none\"/>"));
        let at = TOP + 16.0 + 22.0 * number as f64;
        let left = LEFT + SIDE + 24.0;
        add(format!("<path d=\"M{left} {}h26\" stroke=\"{color}\" stroke-width=\"3\"/>", at - 4.0));
        add(format!("<text x=\"{}\" y=\"{at}\">{} ({:.3})</text>", left + 34.0, escape(&curve.name), curve.auroc));
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_curve_is_drawn_and_named() {
        let curve =
            |name: &str| Curve { name: name.to_owned(), auroc: 0.75, points: vec![[0.0, 0.0], [0.5, 1.0], [1.0, 1.0]] };
        let svg = roc_figure("a < b", &[curve("one & two"), curve("three")]);
        assert!(svg.contains("a &lt; b") && svg.contains("one &amp; two (0.750)") && svg.contains("three (0.750)"));
        assert_eq!(svg.matches("stroke-width=\"2\"").count(), 2);
        // The middle of the plot's width, at its top.
        assert!(svg.contains("L236.0 40.0"), "{svg}");
    }
}
