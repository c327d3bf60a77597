//! Plots as inline SVG, coloured by the page's variables.

use std::fmt::Write;

use maud::{Markup, html};
use nomaly_metrics::{ConfusionCurve, ConfusionMatrix};

use crate::histogram::Histogram;
use crate::model::PixelCurve;
use crate::number::{self, Ticks};

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 330.0;
const LEFT: f64 = 54.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 48.0;

/// Consecutive points of a curve nearer than this (in units of the plot) are drawn as one.
const RESOLUTION: f64 = 0.25;

/// A linear scale on each axis.
struct Axes {
    x: [f64; 2],
    y: [f64; 2],
}

impl Axes {
    fn x(&self, value: f64) -> f64 {
        LEFT + position(value, self.x) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - position(value, self.y) * (HEIGHT - TOP - BOTTOM)
    }

    fn markup(&self, x_ticks: &Ticks, y_ticks: &Ticks, x_title: &str, y_title: &str) -> Markup {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        html! {
            @for &value in &y_ticks.values {
                @let y = round(self.y(value));
                line.grid x1=(LEFT) x2=(right) y1=(y) y2=(y) {}
                text.tick x=(LEFT - 8.0) y=(round(y + 4.5)) text-anchor="end" { (y_ticks.label(value)) }
            }
            @for &value in &x_ticks.values {
                @let x = round(self.x(value));
                line.grid x1=(x) x2=(x) y1=(TOP) y2=(bottom) {}
                text.tick x=(x) y=(bottom + 18.0) text-anchor="middle" { (x_ticks.label(value)) }
            }
            path.axis d=(format!("M{LEFT} {TOP}V{bottom}H{right}")) {}
            text.title x=((LEFT + right) / 2.0) y=(HEIGHT - 8.0) text-anchor="middle" { (x_title) }
            text.title x=(4) y=(TOP - 11.0) { (y_title) }
        }
    }
}

/// Position of a value in a range, from 0 to 1; halves first, as the difference of two finite numbers may overflow.
fn position(value: f64, [low, high]: [f64; 2]) -> f64 {
    ((value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0)).clamp(0.0, 1.0)
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// An SVG element with the size of the plots and a text for screen readers.
fn plot(description: &str, content: &Markup) -> Markup {
    html! {
        svg.plot viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(description) { (content) }
    }
}

/// The share of normal and of anomalous images that a threshold flags.
#[derive(Clone, Copy)]
pub(crate) struct OperatingPoint {
    pub(crate) fpr: f64,
    pub(crate) tpr: f64,
}

/// A path along points, from the first to the last.
fn line(axes: &Axes, points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut line = String::new();
    let mut points = points.map(|(x, y)| (axes.x(x), axes.y(y))).peekable();
    let mut last: Option<(f64, f64)> = None;
    while let Some(point) = points.next() {
        let near = |(x, y): (f64, f64)| (x - point.0).abs() + (y - point.1).abs() < RESOLUTION;
        if points.peek().is_none() || !last.is_some_and(near) {
            let command = if last.is_none() { 'M' } else { 'L' };
            // Writing to a string cannot fail.
            let _ = write!(line, "{command}{} {}", round(point.0), round(point.1));
            last = Some(point);
        }
    }
    line
}

/// The points of a curve up to `end`, where it is interpolated; `x` ascends.
fn points_until(x: &[f64], y: &[f64], end: f64) -> Vec<(f64, f64)> {
    let inside = x.partition_point(|&value| value <= end);
    let mut points: Vec<(f64, f64)> = x.iter().copied().zip(y.iter().copied()).take(inside).collect();
    if let (Some(&(x0, y0)), Some((&x1, &y1))) = (points.last(), x.get(inside).zip(y.get(inside))) {
        points.push((end, y0 + (y1 - y0) * (end - x0) / (x1 - x0)));
    }
    points
}

/// A ROC curve with its area, and the operating point. `name` is its name for screen readers.
pub(crate) fn roc(name: &str, fpr: &[f64], tpr: &[f64], auroc: f64, operating: Option<OperatingPoint>) -> Markup {
    let axes = Axes { x: [0.0, 1.0], y: [0.0, 1.0] };
    let line = line(&axes, fpr.iter().copied().zip(tpr.iter().copied()));
    let ticks = Ticks::new(0.0, 1.0, 5);
    let at = operating.map(|point| {
        let text =
            format!("{} of anomalies found, {} false alarms", number::percent(point.tpr), number::percent(point.fpr));
        (axes.x(point.fpr), axes.y(point.tpr), text)
    });
    let area = format!("AUROC {auroc:.4}");
    let description = match &at {
        Some((_, _, text)) => format!("{name}. {area}. At the threshold: {text}."),
        None => format!("{name}. {area}."),
    };
    plot(
        &description,
        &html! {
            (axes.markup(&ticks, &ticks, "false-positive rate", "true-positive rate"))
            path.chance d=(format!("M{} {}L{} {}", axes.x(0.0), axes.y(0.0), axes.x(1.0), axes.y(1.0))) {}
            path.area d=(format!("{line}L{} {}L{} {}Z", axes.x(1.0), axes.y(0.0), axes.x(0.0), axes.y(0.0))) {}
            path.curve d=(line) {}
            text.legend x=(axes.x(0.97)) y=(axes.y(0.16)) text-anchor="end" { (area) }
            @if let Some((x, y, text)) = &at {
                circle.operating cx=(round(*x)) cy=(round(*y)) r="5.5" {}
                text.note x=(axes.x(0.97)) y=(axes.y(0.05)) text-anchor="end" { tspan.operating { "●" } " " (text) }
            }
        },
    )
}

/// A curve of the per-region overlap with the area up to `max_fpr` shaded.
pub(crate) fn pro(curve: &PixelCurve, max_fpr: f64) -> Markup {
    let axes = Axes { x: [0.0, 1.0], y: [0.0, 1.0] };
    let shaded = points_until(&curve.fpr, &curve.rate, max_fpr);
    let whole = line(&axes, curve.fpr.iter().copied().zip(curve.rate.iter().copied()));
    let part = line(&axes, shaded.iter().copied());
    let ticks = Ticks::new(0.0, 1.0, 5);
    let area = format!("AUPRO {:.4}", curve.area);
    let limit = number::percent(max_fpr);
    let x = round(axes.x(max_fpr));
    let on_left = max_fpr > 0.6;
    plot(
        &format!("Curve of the per-region overlap. {area}, up to {limit} false-positive pixels."),
        &html! {
            (axes.markup(&ticks, &ticks, "false-positive rate", "per-region overlap"))
            @if let (Some(first), Some(last)) = (shaded.first(), shaded.last()) {
                path.area d=(format!("{part}L{} {}L{} {}Z", round(axes.x(last.0)), axes.y(0.0), axes.x(first.0), axes.y(0.0))) {}
            }
            path.limit d=(format!("M{x} {TOP}V{}", HEIGHT - BOTTOM)) {}
            path.curve.beyond d=(whole) {}
            path.curve d=(part) {}
            text.legend x=(axes.x(0.97)) y=(axes.y(0.16)) text-anchor="end" { (area) }
            text.note x=(if on_left { x - 7.0 } else { x + 7.0 }) y=(round(axes.y(0.05)))
                text-anchor=(if on_left { "end" } else { "start" }) { "integrated up to " (limit) }
        },
    )
}

/// A figure at a threshold: its name, its style and its function of the counts.
type AtThreshold = (&'static str, fn(&ConfusionMatrix) -> Option<f64>);

/// The figures drawn over the threshold.
pub(crate) const OVER_THRESHOLD: [AtThreshold; 4] = [
    ("precision", ConfusionMatrix::precision),
    ("recall", ConfusionMatrix::recall),
    ("F1", ConfusionMatrix::f1),
    ("accuracy", ConfusionMatrix::accuracy),
];

/// Precision, recall, F1 and accuracy over the threshold, with the current one. `None` if fewer than two thresholds are
/// finite.
pub(crate) fn over_threshold(curve: &ConfusionCurve, threshold: Option<f64>) -> Option<Markup> {
    let points: Vec<(f64, &ConfusionMatrix)> =
        curve.thresholds.iter().copied().zip(&curve.counts).filter(|(value, _)| value.is_finite()).rev().collect();
    let (&(low, _), &(high, _)) = (points.first()?, points.last()?);
    let marked = threshold.filter(|value| value.is_finite());
    let range = [marked.map_or(low, |value| value.min(low)), marked.map_or(high, |value| value.max(high))];
    if range[0] >= range[1] {
        return None;
    }
    let axes = Axes { x: range, y: [0.0, 1.0] };
    let description = "Precision, recall, F1 and accuracy over the threshold.";
    Some(plot(
        description,
        &html! {
            (axes.markup(&Ticks::new(range[0], range[1], 5), &Ticks::new(0.0, 1.0, 5), "threshold", "figure"))
            @for (name, figure) in OVER_THRESHOLD {
                // Figures that are undefined above the highest score have no point there.
                @let defined = points.iter().filter_map(|(value, counts)| Some((*value, figure(counts)?)));
                path class=(format!("measure {}", name.to_lowercase())) d=(line(&axes, defined)) {}
            }
            @if let Some(value) = marked {
                @let x = round(axes.x(value));
                @let on_left = position(value, range) > 0.6;
                path.threshold d=(format!("M{x} {TOP}V{}", HEIGHT - BOTTOM)) {}
                text.note x=(if on_left { x - 7.0 } else { x + 7.0 }) y=(TOP + 12.0)
                    text-anchor=(if on_left { "end" } else { "start" }) { "threshold " (number::score(value)) }
            }
        },
    ))
}

/// One class of a histogram.
pub(crate) struct Class {
    /// Style of its bars: "normal", "anomalous" or "unlabelled".
    pub(crate) style: &'static str,
    pub(crate) scores: Vec<f64>,
}

/// A histogram of scores by class with the threshold, as shares of each class if there are several. `None` if no score
/// is finite. Also returns the number of scores too large to draw.
pub(crate) fn scores(classes: &[Class], threshold: Option<f64>) -> Option<(Markup, usize)> {
    let values: Vec<Vec<f64>> = classes.iter().map(|class| class.scores.clone()).collect();
    let histogram = Histogram::new(&values)?;
    let line = threshold.filter(|value| value.is_finite());
    let mut range = [histogram.low, histogram.high];
    if let Some(value) = line {
        range = [range[0].min(value), range[1].max(value)];
    }
    let as_shares = classes.len() > 1;
    let heights: Vec<Vec<f64>> = histogram
        .counts
        .iter()
        .map(|counts| {
            let whole = if as_shares { counts.iter().sum::<usize>().max(1) as f64 / 100.0 } else { 1.0 };
            counts.iter().map(|&count| count as f64 / whole).collect()
        })
        .collect();
    let top = heights.iter().flatten().copied().fold(0.0, f64::max).max(if as_shares { 1.0 } else { 2.0 });
    let axes = Axes { x: range, y: [0.0, top * 1.06] };
    let outline = |heights: &[f64]| {
        let mut path = format!("M{} {}", round(axes.x(histogram.low)), round(axes.y(0.0)));
        for (bin, &height) in heights.iter().enumerate() {
            let _ = write!(path, "V{}H{}", round(axes.y(height)), round(axes.x(histogram.edge(bin + 1))));
        }
        let _ = write!(path, "V{}Z", round(axes.y(0.0)));
        path
    };
    let y_title = if as_shares { "% of the class" } else { "images" };
    let counts: Vec<String> =
        classes.iter().map(|class| format!("{} {}", number::grouped(class.scores.len()), class.style)).collect();
    let description = match threshold {
        Some(value) => format!("Histogram of scores: {}. Threshold {}.", counts.join(", "), number::score(value)),
        None => format!("Histogram of scores: {}.", counts.join(", ")),
    };
    let markup = plot(
        &description,
        &html! {
            (axes.markup(&Ticks::new(range[0], range[1], 5), &Ticks::new(0.0, axes.y[1], 5), "score", y_title))
            @for (class, heights) in classes.iter().zip(&heights) {
                path class=(format!("bars {}", class.style)) d=(outline(heights)) {}
            }
            @if let Some(value) = line {
                @let x = round(axes.x(value));
                @let on_left = position(value, range) > 0.6;
                path.threshold d=(format!("M{x} {TOP}V{}", HEIGHT - BOTTOM)) {}
                text.note x=(if on_left { x - 7.0 } else { x + 7.0 }) y=(TOP + 12.0)
                    text-anchor=(if on_left { "end" } else { "start" }) { "threshold " (number::score(value)) }
            }
        },
    );
    Some((markup, histogram.infinite))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_cut_between_its_points() {
        let (x, y) = ([0.0, 0.0, 0.2, 0.4], [0.0, 0.5, 0.6, 1.0]);
        assert_eq!(points_until(&x, &y, 0.2), [(0.0, 0.0), (0.0, 0.5), (0.2, 0.6), (0.2, 0.6)]);
        let cut = points_until(&x, &y, 0.3);
        let (last_x, last_y) = cut[3];
        assert!(cut.len() == 4 && last_x == 0.3 && (last_y - 0.8).abs() < 1e-12, "{cut:?}");
        assert_eq!(points_until(&x, &y, 1.0).len(), 4);
        assert_eq!(points_until(&[], &[], 0.3), []);
        // A curve that starts beyond the end has no points before it.
        assert_eq!(points_until(&[0.5, 1.0], &[0.5, 1.0], 0.3), []);
    }

    #[test]
    fn points_too_near_to_tell_apart_are_drawn_once() {
        let axes = Axes { x: [0.0, 1.0], y: [0.0, 1.0] };
        let dense = (0..=100_000).map(|i| f64::from(i) / 100_000.0).map(|value| (value, value));
        let path = line(&axes, dense);
        assert!(path.matches('L').count() < 4 * (WIDTH + HEIGHT) as usize);
        assert!(path.ends_with(&format!("L{} {}", axes.x(1.0), axes.y(1.0))));
    }
}
