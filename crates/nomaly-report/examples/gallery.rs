//! Writes a report about a folder of images, or about generated textures.
//!
//! usage: `gallery OUT.html [FOLDER]`, where FOLDER has one folder of images per kind, one of them named `good`.
//!
//! The detector is a toy, the local contrast of the image, so that the example needs only this crate.

use std::error::Error;
use std::path::Path;

use image::imageops::{FilterType, blur, resize};
use image::{GrayImage, ImageBuffer, Luma, Rgb, RgbImage};
use nomaly_metrics::components::{Components, Connectivity};
use nomaly_metrics::{CurvePoints, PixelMetrics, auroc, average_precision, eer, f1_max};
use nomaly_report::overlay::{DEFAULT_OPACITY, ValueRange, overlay};
use nomaly_report::{
    Contour, Decision, Figure, Item, KindRow, MapCurves, Picture, PixelCurve, RegionBox, Report, SkippedFile,
    Threshold, render,
};

/// Size of the textures in pixels.
const WIDTH: u32 = 256;
const HEIGHT: u32 = 192;

/// False-positive rate up to which AUPRO integrates.
const MAX_FPR: f64 = 0.3;

struct Specimen {
    id: String,
    kind: String,
    image: RgbImage,
    mask: Option<GrayImage>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let out = arguments.next().ok_or("usage: gallery OUT.html [FOLDER]")?;
    let (specimens, skipped, note) = match arguments.next() {
        Some(folder) => {
            let (specimens, skipped) = read(Path::new(&folder))?;
            (specimens, skipped, "The detector is a toy: local contrast.")
        }
        None => (textures(), Vec::new(), "Images and defects are synthetic."),
    };
    std::fs::write(&out, render(&report(&specimens, skipped, note)?)?)?;
    println!("{out}: {} images", specimens.len());
    Ok(())
}

fn report(specimens: &[Specimen], skipped: Vec<SkippedFile>, note: &str) -> Result<Report, Box<dyn Error>> {
    let maps: Vec<Vec<f32>> = specimens.iter().map(|specimen| contrast(&specimen.image)).collect();
    let scores: Vec<f64> =
        maps.iter().map(|map| f64::from(map.iter().copied().fold(f32::NEG_INFINITY, f32::max))).collect();
    let labels: Vec<bool> = specimens.iter().map(|specimen| specimen.kind != "good").collect();
    let mut good: Vec<f64> =
        scores.iter().zip(&labels).filter(|(_, label)| !**label).map(|(score, _)| *score).collect();
    good.sort_by(f64::total_cmp);
    let max_fpr = 0.05;
    let value = good[((1.0 - max_fpr) * (good.len() - 1) as f64) as usize];
    let p_value = |score: f64| {
        let above = good.iter().filter(|&&other| other >= score).count();
        (1 + above) as f64 / (1 + good.len()) as f64
    };
    let range = ValueRange::new(0.3 * value as f32, 1.5 * value as f32)?;

    let mut items = Vec::new();
    for ((specimen, map), &score) in specimens.iter().zip(&maps).zip(&scores) {
        let (width, height) = specimen.image.dimensions();
        let drawn = overlay(&specimen.image, map, width, height, range, DEFAULT_OPACITY)?;
        let found = GrayImage::from_fn(width, height, |x, y| {
            Luma([255 * u8::from(map[(y * width + x) as usize] > value as f32)])
        });
        items.push(Item {
            id: specimen.id.clone(),
            kind: Some(specimen.kind.clone()),
            label: Some(specimen.kind != "good"),
            score,
            p_value: Some(p_value(score)),
            decision: Decision::from(Some(score > value)),
            size: Some((width, height)),
            thumbnail: Some(Picture::photo(&specimen.image)?),
            overlay: Some(Picture::photo(&drawn)?),
            mask: specimen.mask.as_ref().map(Picture::mask).transpose()?,
            regions: regions(&found, map),
            found: Some(Contour::new(&found)?),
            truth: specimen.mask.as_ref().map(Contour::new).transpose()?,
            shift: None,
        });
    }
    let figure = |name: &str, value: f64, meaning: &str| Figure {
        name: name.into(),
        value: format!("{value:.3}"),
        meaning: meaning.into(),
    };
    Ok(Report {
        title: "A toy detector at work".into(),
        subtitle: "Local contrast as the anomaly score".into(),
        notes: vec![note.into()],
        summary: vec![
            ("Method".into(), "local contrast".into()),
            ("Images".into(), specimens.len().to_string()),
            ("Kinds".into(), kinds(specimens).len().to_string()),
        ],
        figures: vec![
            figure("AUROC", auroc(&scores, &labels)?, "Chance that an anomalous image outranks a normal one."),
            figure("AP", average_precision(&scores, &labels)?, "Mean precision over the recall levels."),
            figure("F1-max", f1_max(&scores, &labels)?.f1, "Best F1 over all thresholds."),
            figure("EER", eer(&scores, &labels)?.rate, "Where false alarms and misses are equally common."),
        ],
        threshold: Some(Threshold { value, rule: "95 % quantile of the good images".into(), max_fpr: Some(max_fpr) }),
        pixel: pixel_curves(specimens, &maps, |_| true)?,
        by_kind: kinds(specimens)
            .into_iter()
            .map(|kind| row(kind, specimens, &scores, &maps, value))
            .collect::<Result<_, _>>()?,
        items,
        map_range: Some(range),
        explained_at: None,
        skipped,
    })
}

fn kinds(specimens: &[Specimen]) -> Vec<&str> {
    let mut kinds: Vec<&str> = specimens.iter().map(|specimen| specimen.kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

fn row(
    kind: &str,
    specimens: &[Specimen],
    scores: &[f64],
    maps: &[Vec<f32>],
    threshold: f64,
) -> Result<KindRow, Box<dyn Error>> {
    let of_kind = |specimen: &Specimen| specimen.kind == kind;
    let (chosen, labels): (Vec<f64>, Vec<bool>) = specimens
        .iter()
        .zip(scores)
        .filter(|(specimen, _)| of_kind(specimen) || specimen.kind == "good")
        .map(|(specimen, &score)| (score, of_kind(specimen)))
        .unzip();
    let of: Vec<f64> = chosen.iter().zip(&labels).filter(|(_, label)| **label).map(|(score, _)| *score).collect();
    let pixel = pixel_curves(specimens, maps, |specimen| of_kind(specimen) && kind != "good")?;
    Ok(KindRow {
        kind: kind.into(),
        n: of.len(),
        auroc: auroc(&chosen, &labels).ok().filter(|_| kind != "good"),
        pixel_auroc: pixel.as_ref().map(|curves| curves.roc.area),
        aupro: pixel.as_ref().map(|curves| curves.pro.area),
        flagged: of.iter().filter(|&&score| score > threshold).count(),
    })
}

/// The regions of a mask, with the peaks of the map.
fn regions(mask: &GrayImage, map: &[f32]) -> Vec<RegionBox> {
    let components = Components::find(mask.as_raw(), mask.width() as usize, Connectivity::Eight);
    let mut corners = vec![[u32::MAX, u32::MAX, 0, 0]; components.sizes.len()];
    let mut peaks = vec![f32::NEG_INFINITY; components.sizes.len()];
    for ((x, y, _), (&label, &value)) in mask.enumerate_pixels().zip(components.labels.iter().zip(map)) {
        let Some(index) = (label as usize).checked_sub(1) else { continue };
        let [left, top, right, bottom] = corners[index];
        corners[index] = [left.min(x), top.min(y), right.max(x), bottom.max(y)];
        peaks[index] = peaks[index].max(value);
    }
    let found = corners.iter().zip(&components.sizes).zip(&peaks);
    found
        .map(|((&[x, y, right, bottom], &area), &peak)| RegionBox {
            x,
            y,
            width: right - x + 1,
            height: bottom - y + 1,
            area: area.into(),
            peak,
        })
        .collect()
}

/// The curves over the pixels of the chosen images, if some have masks.
fn pixel_curves(
    specimens: &[Specimen],
    maps: &[Vec<f32>],
    chosen: impl Fn(&Specimen) -> bool,
) -> Result<Option<MapCurves>, Box<dyn Error>> {
    let mut metrics = PixelMetrics::new();
    for (specimen, map) in specimens.iter().zip(maps).filter(|(specimen, _)| chosen(specimen)) {
        let (width, height) = (specimen.image.width() as usize, specimen.image.height() as usize);
        match &specimen.mask {
            Some(mask) => metrics.push(map, mask.as_raw(), width, height)?,
            None if specimen.kind == "good" => metrics.push_normal(map, width, height)?,
            None => {}
        }
    }
    if metrics.regions() == 0 {
        return Ok(None);
    }
    let (roc, pro) = (metrics.roc_curve(CurvePoints::Corners)?, metrics.pro_curve()?);
    Ok(Some(MapCurves {
        roc: thinned(&roc.fpr, &roc.tpr, metrics.auroc()?),
        pro: thinned(&pro.fpr, &pro.pro, metrics.aupro(MAX_FPR)?),
        max_fpr: MAX_FPR,
    }))
}

/// The ends of a curve and points between them with a minimum distance.
fn thinned(fpr: &[f64], rate: &[f64], area: f64) -> PixelCurve {
    let mut curve = PixelCurve { fpr: Vec::new(), rate: Vec::new(), area };
    let mut last = [f64::NEG_INFINITY; 2];
    for (index, (&x, &y)) in fpr.iter().zip(rate).enumerate() {
        if index + 1 == fpr.len() || (x - last[0]).max(y - last[1]) > 0.004 {
            curve.fpr.push(x);
            curve.rate.push(y);
            last = [x, y];
        }
    }
    curve
}

/// Distance of the smoothed image from the strongly smoothed one, `[height, width]`.
fn contrast(image: &RgbImage) -> Vec<f32> {
    let grey = image::imageops::grayscale(image);
    let (width, height) = grey.dimensions();
    let grey =
        ImageBuffer::<Luma<f32>, Vec<f32>>::from_fn(width, height, |x, y| Luma([grey.get_pixel(x, y).0[0].into()]));
    let (fine, coarse) = (blur(&grey, 3.0), blur(&grey, 20.0));
    fine.iter().zip(coarse.iter()).map(|(a, b)| (a - b).abs()).collect()
}

/// Reads `FOLDER/<kind>/<image>`.
fn read(folder: &Path) -> Result<(Vec<Specimen>, Vec<SkippedFile>), Box<dyn Error>> {
    let (mut specimens, mut skipped) = (Vec::new(), Vec::new());
    for kind in std::fs::read_dir(folder)? {
        let kind = kind?;
        let mut files = std::fs::read_dir(kind.path())?.collect::<Result<Vec<_>, _>>()?;
        files.sort_by_key(std::fs::DirEntry::path);
        for file in files {
            let name = kind.file_name().to_string_lossy().into_owned();
            let id = format!("{name}/{}", file.file_name().to_string_lossy());
            match image::open(file.path()) {
                Ok(image) => {
                    let image = resize(&image.to_rgb8(), WIDTH, HEIGHT, FilterType::Triangle);
                    specimens.push(Specimen { id, kind: name, image, mask: None });
                }
                Err(error) => skipped.push(SkippedFile { path: id, reason: error.to_string() }),
            }
        }
    }
    Ok((specimens, skipped))
}

/// Brushed plates; every third has a spot of varying strength.
fn textures() -> Vec<Specimen> {
    let mut state = 7u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    let mut specimens = Vec::new();
    for index in 0..90 {
        let kind = match index % 6 {
            1 => "spot",
            4 => "scratch",
            _ => "good",
        };
        // Every fourth plate is upright.
        let (width, height) = if index % 4 == 3 { (HEIGHT, WIDTH) } else { (WIDTH, HEIGHT) };
        let streaks: Vec<f32> = (0..height).map(|_| 14.0 * random()).collect();
        let (x0, y0) = (30.0 + (width as f32 - 60.0) * random(), 30.0 + (height as f32 - 60.0) * random());
        let depth = 2.0 + 60.0 * random() * random();
        let inside = |x: u32, y: u32| {
            let (dx, dy) = (x as f32 - x0, y as f32 - y0);
            match kind {
                "spot" => dx.hypot(dy) < 14.0,
                "scratch" => (dx + 0.6 * dy).abs() < 5.0 && dy.abs() < 50.0,
                _ => false,
            }
        };
        let shade = 120.0 + 20.0 * random();
        let image = RgbImage::from_fn(width, height, |x, y| {
            let value = shade + streaks[y as usize] + 10.0 * random() - if inside(x, y) { depth } else { 0.0 };
            Rgb([value as u8, value as u8, (value * 1.05) as u8])
        });
        let mask = GrayImage::from_fn(width, height, |x, y| Luma([255 * u8::from(inside(x, y))]));
        let mask = (kind != "good").then_some(mask);
        specimens.push(Specimen { id: format!("{kind}/{index:03}.png"), kind: kind.into(), image, mask });
    }
    specimens
}
