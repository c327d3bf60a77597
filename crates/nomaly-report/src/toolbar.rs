//! The controls above the grid of images.

use maud::{Markup, html};

use crate::model::Decision;
use crate::number;
use crate::overlay::{INFERNO, ValueRange};
use crate::tally::Entry;

/// The switch between image, heat map and mask and the one for the marks, which need only CSS; and the slider between
/// image and heat map, which the script enables.
///
/// Overlays are named by their kind: heat maps or Grad-CAM maps.
pub(crate) fn views(shown: &[Entry<'_>], explained: bool) -> Markup {
    let overlay = if explained { "Network’s view" } else { "Heat map" };
    let any = |has: fn(&Entry<'_>) -> bool| shown.iter().any(has);
    let heat = any(|entry| entry.item.overlay.is_some());
    let truth = any(|entry| entry.item.mask.is_some());
    let compared = any(|entry| entry.item.overlay.is_some() && entry.item.thumbnail.is_some());
    let outlined = any(|entry| entry.item.truth.as_ref().is_some_and(|contour| !contour.is_empty()));
    let marked = outlined || any(|entry| entry.item.found.is_some() || !entry.item.regions.is_empty());
    let view = |id: &str, text: &str, checked: bool| {
        html! {
            input.visually-hidden type="radio" name="view" id=(id) checked[checked];
            label for=(id) { (text) }
        }
    };
    html! {
        @if heat || truth || marked {
            div.looks {
                @if heat || truth {
                    fieldset.views {
                        legend.visually-hidden { "What to show of each image" }
                        (view("view-photo", "Image", !heat))
                        @if compared { span #compare hidden { (view("view-compare", "Compare", false)) } }
                        @if heat { (view("view-heat", overlay, true)) }
                        @if truth { (view("view-truth", "Ground truth", false)) }
                    }
                }
                @if marked {
                    label.toggle {
                        input type="checkbox" id="view-marks" checked;
                        span.key.found { "Regions" }
                        @if outlined { span.key.truth { "Ground truth" } }
                    }
                }
                @if compared {
                    label.reveal {
                        "Image "
                        input #reveal type="range" min="0" max="100" value="50" aria-label={ "Share of the " (overlay.to_lowercase()) " that is shown, from the left" };
                        " " (overlay)
                    }
                }
            }
        }
    }
}

/// Filters and sorting, which the script enables.
pub(crate) fn filters(shown: &[Entry<'_>]) -> Markup {
    let undecided = shown.iter().any(|entry| entry.item.decision == Decision::Undecided);
    let decided = undecided || shown.iter().any(|entry| entry.decision.is_some());
    let mistakes = shown.iter().any(|entry| entry.mistake.is_some());
    let mut kinds: Vec<&str> = shown.iter().filter_map(|entry| entry.item.kind.as_deref()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    html! {
        div.filters hidden {
            @if decided {
                div.buttons role="group" aria-label="Decision" {
                    button type="button" data-filter="" aria-pressed="true" { "All" }
                    button type="button" data-filter="anomalous" aria-pressed="false" { "Anomalous" }
                    button type="button" data-filter="normal" aria-pressed="false" { "Normal" }
                    @if undecided {
                        button type="button" data-filter="undecided" aria-pressed="false" { "Undecided" }
                    }
                    @if mistakes { button type="button" data-filter="mistake" aria-pressed="false" { "Mistakes" } }
                }
            }
            @if kinds.len() > 1 {
                label {
                    "Kind "
                    select #kind {
                        option value="" selected { "all" }
                        @for kind in kinds { option value=(format!("={kind}")) { (kind) } }
                    }
                }
            }
            label {
                "Sort "
                select #sort {
                    option value="falling" selected { "highest score first" }
                    option value="rising" { "lowest score first" }
                    option value="id" { "by name" }
                }
            }
            output #shown aria-live="polite" {}
        }
    }
}

/// The colour scale of the heat maps.
pub(crate) fn scale(range: ValueRange) -> Markup {
    let stops: Vec<String> = INFERNO.iter().map(|[r, g, b]| format!("rgb({r} {g} {b})")).collect();
    html! {
        p.scale {
            span { (number::score(range.low().into())) }
            span.ramp style=(format!("background:linear-gradient(to right,{})", stops.join(",")))
                role="img" aria-label="Colour scale of the heat maps, from low to high" {}
            span { (number::score(range.high().into())) }
        }
    }
}
