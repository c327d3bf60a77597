//! One image with its score and decision.

use maud::{Markup, html};

use crate::contour::Contour;
use crate::model::{Decision, Item, RegionBox};
use crate::number;
use crate::picture::Picture;
use crate::tally::{Entry, Mistake};

/// The most regions with a box in one picture: the largest ones.
pub const MAX_REGIONS: usize = 24;

/// The margin between boxes and their regions, as a share of the picture's longest side, so that specks stay visible.
const BOX_MARGIN: f64 = 0.02;

/// If no region exceeds this share of the picture's sides, shapes are hard to find, so boxes are drawn too.
const SPECK: f64 = 0.03;

/// A card of the grid: the views of the image are stacked, and the page's switch selects the top one.
pub(crate) fn compact(entry: &Entry<'_>, explained: bool) -> Markup {
    let item = entry.item;
    let frame = frame(item);
    html! {
        li.card data-score=(item.score) data-id=(item.id) data-kind=[item.kind.as_deref()]
            data-decision=[decision(entry)] data-mistake[entry.mistake.is_some()] {
            @if let Some((width, height)) = frame {
                div.frame style=[fit(width, height)] {
                    @for (class, picture, alt) in views(item, explained) { (image(class, picture, &alt)) }
                    (marks(item, (width, height)))
                }
            }
            (caption(entry))
        }
    }
}

/// A wide card with the views of the image side by side.
pub(crate) fn wide(entry: &Entry<'_>, explained: bool) -> Markup {
    let item = entry.item;
    html! {
        li.card.wide {
            div.strip {
                @for (index, (class, picture, alt)) in views(item, explained).enumerate() {
                    div {
                        (image(class, picture, &alt))
                        @if index == 0 { (marks(item, (picture.width(), picture.height()))) }
                    }
                }
            }
            (caption(entry))
        }
    }
}

/// The views of an image; the overlay is a heat map or a Grad-CAM map.
fn views(item: &Item, explained: bool) -> impl Iterator<Item = (&'static str, &Picture, String)> {
    let overlay = if explained { "What the network looks at in" } else { "Heat map of" };
    let views = [
        ("photo", &item.thumbnail, "Image"),
        ("heat", &item.overlay, overlay),
        ("truth", &item.mask, "Ground truth of"),
    ];
    views
        .into_iter()
        .filter_map(|(class, picture, what)| Some((class, picture.as_ref()?, format!("{what} {}", item.id))))
}

/// Width and height of the first view.
fn frame(item: &Item) -> Option<(u32, u32)> {
    views(item, false).next().map(|(_, picture, _)| (picture.width(), picture.height()))
}

/// The share of a square frame's width that a picture takes, for the slider.
fn fit(width: u32, height: u32) -> Option<String> {
    (width < height).then(|| format!("--fit:{:.4}", f64::from(width) / f64::from(height)))
}

fn image(class: &str, picture: &Picture, alt: &str) -> Markup {
    html! {
        img class=(class) src=(picture.uri()) width=(picture.width()) height=(picture.height()) alt=(alt) decoding="async";
    }
}

/// Outlines and boxes over a picture of the given size. The caption describes them.
fn marks(item: &Item, (width, height): (u32, u32)) -> Markup {
    let boxes = boxes(item, (width, height));
    let boxed = item.found.is_none() || only_specks(item);
    let outline = |class: &str, contour: &Contour| {
        // The path is in half pixels.
        let scale = |to: u32, from: u32| f64::from(to) / (2.0 * f64::from(from));
        let (x, y) = (scale(width, contour.width()), scale(height, contour.height()));
        html! { path class=(class) d=(contour.path()) transform=(format!("scale({x} {y})")) {} }
    };
    let visible = |contour: &'_ &Contour| !contour.is_empty();
    let (found, truth) = (item.found.as_ref().filter(visible), item.truth.as_ref().filter(visible));
    html! {
        @if !boxes.is_empty() || found.is_some() || truth.is_some() {
            svg.marks viewBox=(format!("0 0 {width} {height}")) aria-hidden="true" {
                @if let Some(contour) = truth { (outline("truth", contour)) }
                @if let Some(contour) = found { (outline("found", contour)) }
                @for (region, [x, y, width, height]) in boxes {
                    // If shapes are drawn, the boxes only carry the tooltips.
                    rect.found[boxed] x=(x) y=(y) width=(width) height=(height) {
                        title { (number::grouped(region.area as usize)) " px, peak " (number::score(region.peak.into())) }
                    }
                }
            }
        }
    }
}

/// Whether the image has no region large enough for a visible shape.
fn only_specks(item: &Item) -> bool {
    let share = |length: u32, side: u32| f64::from(length) / f64::from(side);
    item.size.is_some_and(|(width, height)| {
        let extent = |region: &RegionBox| share(region.width, width).max(share(region.height, height));
        item.regions.iter().all(|region| extent(region) < SPECK)
    })
}

/// The largest regions with their positions in a picture of the given size, `[x, y, width, height]`.
fn boxes(item: &Item, (width, height): (u32, u32)) -> Vec<(&RegionBox, [f64; 4])> {
    let Some((full_width, full_height)) = item.size.filter(|&(width, height)| width > 0 && height > 0) else {
        return Vec::new();
    };
    let mut regions: Vec<&RegionBox> = item.regions.iter().collect();
    regions.sort_by_key(|region| std::cmp::Reverse(region.area));
    regions.truncate(MAX_REGIONS);
    let margin = BOX_MARGIN * f64::from(width.max(height));
    let side = |at: u32, length: u32, from: u32, to: u32| {
        let scale = f64::from(to) / f64::from(from);
        let first = (f64::from(at) * scale - margin).max(0.0);
        let last = ((f64::from(at) + f64::from(length)) * scale + margin).min(to.into());
        [first, (last - first).max(0.0)].map(|value| (10.0 * value).round() / 10.0)
    };
    let place = |region: &RegionBox| {
        let [x, box_width] = side(region.x, region.width, full_width, width);
        let [y, box_height] = side(region.y, region.height, full_height, height);
        [x, y, box_width, box_height]
    };
    regions.into_iter().map(|region| (region, place(region))).collect()
}

fn caption(entry: &Entry<'_>) -> Markup {
    let item = entry.item;
    html! {
        div.caption {
            p.badges {
                @if let Some(decision) = decision(entry) {
                    span class=(format!("badge {decision}")) {
                        span aria-hidden="true" {
                            (match entry.decision { Some(true) => "▲ ", Some(false) => "● ", None => "? " })
                        }
                        (decision)
                    }
                }
                @match entry.mistake {
                    Some(Mistake::FalseAlarm) => { span.badge.mistake { "false alarm" } }
                    Some(Mistake::Miss) => { span.badge.mistake { "miss" } }
                    None => {}
                }
                @if item.shift.is_some() { span.badge.shift { "shifted input" } }
            }
            p.score {
                span.visually-hidden { "score " }
                b { (number::score(item.score)) }
                @if let Some(p_value) = item.p_value { " " span.p-value { "p " (number::p_value(p_value)) } }
            }
            @if let Some(text) = regions_text(&item.regions) { p.regions { (text) } }
            @if let Some(shift) = &item.shift { p.shift-reason { (shift) } }
            p.id title=(item.id) { (item.id) }
            @if let Some(kind) = &item.kind { p.kind { (kind) } }
        }
    }
}

/// "2 regions, largest 314 px".
fn regions_text(regions: &[RegionBox]) -> Option<String> {
    let largest = regions.iter().map(|region| region.area).max()?;
    let most = if regions.len() > 1 { "largest\u{a0}" } else { "" };
    Some(format!("{}, {most}{}\u{a0}px", number::counted(regions.len(), "region"), number::grouped(largest as usize)))
}

/// The decision in a word; `None` if there was none.
fn decision(entry: &Entry<'_>) -> Option<&'static str> {
    match entry.decision {
        Some(true) => Some("anomalous"),
        Some(false) => Some("normal"),
        None => (entry.item.decision == Decision::Undecided).then_some("undecided"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(x: u32, y: u32, width: u32, height: u32, area: u64) -> RegionBox {
        RegionBox { x, y, width, height, area, peak: 1.0 }
    }

    #[test]
    fn regions_in_words() {
        assert_eq!(regions_text(&[]), None);
        assert_eq!(regions_text(&[region(0, 0, 9, 9, 1314)]).unwrap(), "1 region, 1\u{202f}314\u{a0}px");
        let two = [region(0, 0, 2, 2, 4), region(5, 5, 20, 20, 314)];
        assert_eq!(regions_text(&two).unwrap(), "2 regions, largest\u{a0}314\u{a0}px");
    }

    #[test]
    fn boxes_are_scaled_to_the_picture_and_stay_inside() {
        let item = Item {
            size: Some((1000, 500)),
            regions: vec![region(0, 490, 10, 10, 90), region(500, 100, 100, 50, 4000)],
            ..Item::default()
        };
        let places: Vec<[f64; 4]> = boxes(&item, (200, 100)).into_iter().map(|(_, place)| place).collect();
        // Largest first; a fifth of the size, 0.02 · 200 = 4 pixels wider on every side.
        assert_eq!(places, [[96.0, 16.0, 28.0, 18.0], [0.0, 94.0, 6.0, 6.0]]);
        assert!(!only_specks(&item));
        assert!(only_specks(&Item { regions: vec![region(5, 5, 29, 14, 90)], ..item.clone() }));
        assert!(boxes(&Item { size: None, ..item.clone() }, (200, 100)).is_empty());
        assert!(boxes(&Item { size: Some((0, 5)), ..item.clone() }, (200, 100)).is_empty());
        let many = Item { regions: vec![region(0, 0, 1, 1, 1); 3 * MAX_REGIONS], ..item };
        assert_eq!(boxes(&many, (200, 100)).len(), MAX_REGIONS);
    }

    #[test]
    fn tall_pictures_take_part_of_their_frame() {
        assert_eq!(fit(100, 200).as_deref(), Some("--fit:0.5000"));
        assert_eq!(fit(200, 100), None);
    }
}
