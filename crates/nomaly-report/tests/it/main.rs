//! Whole pages: required and forbidden contents.

use image::{GrayImage, Luma, Rgb, RgbImage};
use nomaly_report::overlay::ValueRange;
use nomaly_report::{
    Contour, Decision, Figure, Item, KindRow, MAX_IMAGES, MapCurves, Picture, PixelCurve, RegionBox, Report,
    ReportError, SkippedFile, Threshold, render,
};

fn item(id: &str, score: f64, label: Option<bool>) -> Item {
    Item { id: id.into(), score, label, ..Item::default() }
}

fn full() -> Report {
    let image = RgbImage::from_fn(64, 48, |x, y| Rgb([x as u8, y as u8, 90]));
    let mut mask = GrayImage::new(64, 48);
    mask.put_pixel(3, 3, Luma([255]));
    let mut defective = item("scratch/001.png", 0.9, Some(true));
    defective.kind = Some("scratch".into());
    defective.p_value = Some(0.01);
    defective.thumbnail = Some(Picture::photo(&image).unwrap());
    defective.overlay = Some(Picture::photo(&image).unwrap());
    defective.mask = Some(Picture::mask(&mask).unwrap());
    defective.size = Some((640, 480));
    defective.regions = vec![
        RegionBox { x: 10, y: 20, width: 30, height: 20, area: 314, peak: 1.25 },
        RegionBox { x: 300, y: 20, width: 3, height: 2, area: 5, peak: 1.0 },
    ];
    defective.truth = Some(Contour::new(&mask).unwrap());
    let curve = |area| PixelCurve { fpr: vec![0.0, 0.1, 1.0], rate: vec![0.0, 0.8, 1.0], area };
    Report {
        title: "Plates".into(),
        subtitle: "line 3".into(),
        notes: vec!["defects are synthetic".into()],
        summary: vec![("Method".into(), "patchcore".into())],
        figures: vec![Figure { name: "AUROC".into(), value: "0.75".into(), meaning: "ranking".into() }],
        threshold: Some(Threshold { value: 0.5, rule: "conformal".into(), max_fpr: Some(0.01) }),
        pixel: Some(MapCurves { roc: curve(0.85), pro: curve(0.6875), max_fpr: 0.3 }),
        by_kind: vec![KindRow {
            kind: "scratch".into(),
            n: 2,
            auroc: Some(0.75),
            pixel_auroc: Some(0.912),
            aupro: None,
            flagged: 1,
        }],
        items: vec![
            defective,
            item("scratch/002.png", 0.3, Some(true)),
            item("good/001.png", 0.7, Some(false)),
            item("good/002.png", 0.1, Some(false)),
        ],
        map_range: Some(ValueRange::new(0.0, 2.0).unwrap()),
        explained_at: None,
        skipped: vec![SkippedFile { path: "broken.png".into(), reason: "not an image".into() }],
    }
}

/// Every opened element is closed, in order: the subset of HTML that the pages use.
fn assert_balanced(html: &str) {
    const VOID: [&str; 4] = ["meta", "img", "input", "!DOCTYPE"];
    let (body, mut open) = (html, Vec::new());
    let mut rest = body;
    while let Some(start) = rest.find('<') {
        rest = &rest[start + 1..];
        let end = rest.find('>').expect("every tag ends");
        let (tag, after) = (&rest[..end], &rest[end + 1..]);
        rest = after;
        let name = tag.split_whitespace().next().unwrap();
        if let Some(name) = name.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "before {}", &after[..after.len().min(80)]);
        } else if !VOID.contains(&name) {
            open.push(name);
            if name == "style" || name == "script" {
                rest = &rest[rest.find("</").expect("raw text ends")..];
            }
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn a_full_report_has_every_section() {
    let html = render(&full()).unwrap();
    assert_balanced(&html);
    for text in [
        "<title>Plates</title>",
        "defects are synthetic",
        "patchcore",
        "AUROC 0.7500", // pairs in order: 0.9 over both, 0.3 over one
        "threshold 0.5000",
        "Figures over the threshold",
        "class=\"measure precision\" d=\"M",
        "class=\"measure accuracy\" d=\"M",
        "50\u{a0}% of anomalies found, 50\u{a0}% false alarms",
        "<b>1</b> of 2 normal images raised a false alarm (50\u{a0}%), and <b>1</b> of 2 anomalous images were found (50\u{a0}%).",
        "False alarms with the highest scores",
        "Misses with the lowest scores",
        "p = 0.010",
        "alt=\"Heat map of scratch/001.png\"",
        "data:image/jpeg;base64,",
        "data:image/png;base64,",
        "Colour scale of the heat maps",
        "AUROC 0.8500",
        "AUPRO 0.6875",
        "integrated up to 30\u{a0}%",
        "Pixel AUROC</th>",
        "0.912",
        "2 regions, largest\u{a0}314\u{a0}px",
        "<title>314 px, peak 1.250</title>",
        "<path class=\"truth\" d=\"M7 6l1 1l-1 1l-1 -1z\" transform=\"scale(0.5 0.5)\">",
        "broken.png",
        "1 file could not be scored",
    ] {
        assert!(html.contains(text), "{text}");
    }
    assert_eq!(html, render(&full()).unwrap());
}

#[test]
fn what_a_network_looks_at_is_no_anomaly_map() {
    let report = Report { map_range: None, explained_at: Some("layer3".into()), ..full() };
    let html = render(&report).unwrap();
    assert_balanced(&html);
    for text in [
        "in the 1 image with the highest scores (Grad-CAM at the layer <code>layer3</code>)",
        "not the outline of a defect",
        "Network’s view</label>",
        "alt=\"What the network looks at in scratch/001.png\"",
    ] {
        assert!(html.contains(text), "{text}");
    }
    assert!(!html.contains("Heat map") && !html.contains("Colour scale of the heat maps"));
}

#[test]
fn nothing_is_fetched_from_anywhere() {
    let html = render(&full()).unwrap();
    for outside in ["http://", "https://", "src=\"//", "url(", "@import", "<link", "<iframe"] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert!(html.contains("default-src 'none'"));
}

#[test]
fn all_text_is_escaped() {
    let evil = "\"><script>alert('x')</script>&";
    let mut report = full();
    (report.title, report.subtitle) = (evil.into(), evil.into());
    report.notes = vec![evil.into()];
    report.summary = vec![(evil.into(), evil.into())];
    report.figures = vec![Figure { name: evil.into(), value: evil.into(), meaning: evil.into() }];
    report.threshold = Some(Threshold { value: 0.5, rule: evil.into(), max_fpr: None });
    report.by_kind[0].kind = evil.into();
    report.skipped = vec![SkippedFile { path: evil.into(), reason: evil.into() }];
    for item in &mut report.items {
        item.id = evil.into();
        item.kind = Some(evil.into());
    }
    report.items[0].kind = Some("other".into());
    let html = render(&report).unwrap();
    assert_balanced(&html);
    assert_eq!(html.matches("<script").count(), 1);
    assert!(!html.contains("alert('x')</script>"));
}

#[test]
fn sections_without_contents_are_left_out() {
    let html = render(&Report { title: "Nothing".into(), ..Report::default() }).unwrap();
    assert_balanced(&html);
    for tag in ["<section", "<svg", "<table", "<img"] {
        assert!(!html.contains(tag), "{tag}");
    }

    // Unlabelled images have no ROC curve and no mistakes, but scores and decisions.
    let mut report = full();
    report.pixel = None;
    for item in &mut report.items {
        item.label = None;
    }
    let html = render(&report).unwrap();
    assert_balanced(&html);
    assert!(!html.contains("ROC curve") && !html.contains("Worst mistakes"));
    assert!(html.contains("Histogram of scores") && html.contains("<b>2</b> of 4 images were."));

    report.threshold = None;
    let html = render(&report).unwrap();
    assert!(!html.contains("data-decision") && !html.contains("data-filter"));

    // Undecided items are marked as such.
    report.items.iter_mut().for_each(|item| item.decision = Decision::Undecided);
    let html = render(&report).unwrap();
    assert_balanced(&html);
    assert_eq!(html.matches("data-decision=\"undecided\"").count(), report.items.len());
    assert!(html.contains("data-filter=\"undecided\"") && html.contains("badge undecided"));
    assert!(!html.contains("badge normal"));
}

#[test]
fn columns_without_figures_are_left_out() {
    assert!(!render(&full()).unwrap().contains("AUPRO</th>"));
    let mut report = full();
    report.by_kind[0].aupro = Some(0.5);
    report.by_kind[0].pixel_auroc = None;
    let html = render(&report).unwrap();
    assert!(html.contains("AUPRO</th>") && !html.contains("Pixel AUROC</th>"));
}

#[test]
fn without_the_script_nothing_offers_the_slider() {
    let html = render(&full()).unwrap();
    assert!(html.contains("<span id=\"compare\" hidden>"));
    assert!(html.contains("<input id=\"reveal\" type=\"range\""));
    // The page opens with the heat map, and the slider exists only for two pictures.
    assert!(html.contains("id=\"view-heat\" checked"));
    let mut report = full();
    report.items[0].thumbnail = None;
    assert!(!render(&report).unwrap().contains("<input id=\"reveal\""));
}

#[test]
fn shapes_replace_boxes_where_they_are_known() {
    let boxes = |report: &Report| render(report).unwrap().matches("<rect class=\"found\"").count();
    let mut report = full();
    assert_eq!(boxes(&report), 2);
    report.items[0].found = Some(Contour::new(&GrayImage::from_pixel(64, 48, Luma([1]))).unwrap());
    assert_eq!(boxes(&report), 0);
    assert!(render(&report).unwrap().contains("<path class=\"found\""));
    // A speck's shape would not be visible.
    let large = report.items[0].regions.remove(0);
    assert_eq!(boxes(&report), 1);
    report.items[0].regions.push(large);
    // Without the size of the image, the positions of the boxes are unknown, but their number is shown.
    (report.items[0].found, report.items[0].size) = (None, None);
    assert_eq!(boxes(&report), 0);
    assert!(render(&report).unwrap().contains("2 regions"));
}

#[test]
fn one_class_has_no_roc_curve() {
    let mut report = full();
    report.pixel = None;
    report.items.retain(|item| item.label == Some(false));
    let html = render(&report).unwrap();
    assert!(!html.contains("ROC curve") && !html.contains("Figures over the threshold"));
    assert!(html.contains("<b>1</b> of 2 normal images raised a false alarm (50\u{a0}%)."));
}

#[test]
fn large_sets_are_capped_and_say_so() {
    let report = Report {
        items: (0..MAX_IMAGES + 1000).map(|i| item(&format!("{i}.png"), i as f64, None)).collect(),
        ..Report::default()
    };
    let html = render(&report).unwrap();
    assert_eq!(html.matches("<li class=\"card\"").count(), MAX_IMAGES);
    assert!(html.contains("are shown"));
}

#[test]
fn extreme_scores_are_drawn_or_counted() {
    let scores = [f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN, 0.0];
    let report = Report {
        threshold: Some(Threshold { value: f64::INFINITY, ..Threshold::default() }),
        items: scores.iter().map(|&score| item("x", score, Some(score > 0.0))).collect(),
        ..Report::default()
    };
    let html = render(&report).unwrap();
    assert_balanced(&html);
    assert!(html.contains("2 infinite scores not drawn."));
    assert!(!html.contains("NaN"));
}

#[test]
fn what_cannot_be_ranked_is_refused() {
    let with = |items| Report { items, ..Report::default() };
    let error = render(&with(vec![item("a.png", 0.0, None), item("b.png", f64::NAN, None)])).unwrap_err();
    assert_eq!(error.to_string(), "the score of b.png is not a number");
    let mut report = with(Vec::new());
    report.threshold = Some(Threshold { value: f64::NAN, ..Threshold::default() });
    assert!(matches!(render(&report), Err(ReportError::NanThreshold)));
}

#[test]
fn impossible_curves_are_refused() {
    let message = |change: fn(&mut MapCurves)| {
        let mut report = full();
        change(report.pixel.as_mut().unwrap());
        render(&report).unwrap_err().to_string()
    };
    assert_eq!(
        message(|curves| curves.roc.fpr.push(1.0)),
        "the pixel ROC curve has 4 false-positive rates for 3 rates"
    );
    assert_eq!(
        message(|curves| curves.pro.rate[1] = f64::NAN),
        "the per-region overlap curve has a rate of NaN, which is not between 0 and 1"
    );
    assert_eq!(
        message(|curves| curves.pro.fpr[2] = 0.05),
        "the per-region overlap curve goes back from the false-positive rate 0.1 to 0.05"
    );
    assert_eq!(
        message(|curves| curves.max_fpr = 0.0),
        "the per-region overlap curve has a limit of 0, which is not between 0 and 1"
    );
    let mut report = full();
    report.pixel = Some(MapCurves::default());
    assert!(!render(&report).unwrap().contains("Anomaly maps"));
}
