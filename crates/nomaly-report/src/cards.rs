//! One image with its score and decision.

use maud::{Markup, html};

use crate::model::Item;
use crate::number;
use crate::picture::Picture;
use crate::tally::{Entry, Mistake};

/// A card of the grid: the views of the image lie on one another, and the page's switch says which is on top.
pub(crate) fn compact(entry: &Entry<'_>) -> Markup {
    let item = entry.item;
    html! {
        li.card data-score=(item.score) data-id=(item.id) data-kind=[item.kind.as_deref()]
            data-decision=[entry.decision.map(decision)] data-mistake[entry.mistake.is_some()] {
            @if item.thumbnail.is_some() || item.overlay.is_some() || item.mask.is_some() {
                div.frame {
                    @for (class, picture, alt) in views(item) { (image(class, picture, &alt)) }
                }
            }
            (caption(entry))
        }
    }
}

/// A wide card with the views of the image beside each other.
pub(crate) fn wide(entry: &Entry<'_>) -> Markup {
    html! {
        li.card.wide {
            div.strip {
                @for (class, picture, alt) in views(entry.item) { (image(class, picture, &alt)) }
            }
            (caption(entry))
        }
    }
}

fn views(item: &Item) -> impl Iterator<Item = (&'static str, &Picture, String)> {
    let views = [
        ("photo", &item.thumbnail, "Image"),
        ("heat", &item.overlay, "Heat map of"),
        ("truth", &item.mask, "Ground truth of"),
    ];
    views
        .into_iter()
        .filter_map(|(class, picture, what)| Some((class, picture.as_ref()?, format!("{what} {}", item.id))))
}

fn image(class: &str, picture: &Picture, alt: &str) -> Markup {
    html! {
        img class=(class) src=(picture.uri()) width=(picture.width()) height=(picture.height()) alt=(alt) decoding="async";
    }
}

fn caption(entry: &Entry<'_>) -> Markup {
    let item = entry.item;
    html! {
        div.caption {
            p.badges {
                @if let Some(flagged) = entry.decision {
                    span class=(format!("badge {}", decision(flagged))) {
                        span aria-hidden="true" { (if flagged { "▲ " } else { "● " }) }
                        (decision(flagged))
                    }
                }
                @match entry.mistake {
                    Some(Mistake::FalseAlarm) => { span.badge.mistake { "false alarm" } }
                    Some(Mistake::Miss) => { span.badge.mistake { "miss" } }
                    None => {}
                }
            }
            p.score {
                span.visually-hidden { "score " }
                b { (number::score(item.score)) }
                @if let Some(p_value) = item.p_value { " " span.p-value { "p " (number::p_value(p_value)) } }
            }
            p.id title=(item.id) { (item.id) }
            @if let Some(kind) = &item.kind { p.kind { (kind) } }
        }
    }
}

fn decision(flagged: bool) -> &'static str {
    if flagged { "anomalous" } else { "normal" }
}
