//! Where images are anomalous: heat maps, masks, maps, regions; and updated models.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use image::{GrayImage, Luma};
use serde_json::Value;

use crate::args;
use crate::support::{INPUT_SIZE, TEST, TRAIN, fresh_folder, model, nomaly, part, parts};

/// A model with maps, fitted on [`parts`], created once.
fn padim() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let path = fresh_folder("padim").join("padim.nomaly");
        nomaly(args!["fit", parts(), "-o", path, "--method", "padim", "--set", INPUT_SIZE]).ok();
        path
    })
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn white(mask: &GrayImage) -> usize {
    mask.pixels().filter(|pixel| pixel.0[0] == 255).count()
}

/// Shape and values of a NumPy file of 32-bit numbers.
fn read_npy(path: &Path) -> (String, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap();
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..start]).unwrap();
    let shape = header.split("'shape': ").nth(1).unwrap().split('}').next().unwrap();
    let values = bytes[start..].chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().unwrap())).collect();
    (shape.trim_end_matches([',', ' ']).to_owned(), values)
}

#[test]
fn masks_maps_and_regions_tell_the_same() {
    let out = fresh_folder("located");
    let images = parts().join("test/spot");
    let (heat, masks, maps) = (out.join("heat"), out.join("masks"), out.join("maps"));
    let run = nomaly(args![
        "score",
        images,
        "-m",
        padim(),
        "--format",
        "jsonl",
        "--heatmaps",
        heat,
        "--masks",
        masks,
        "--maps",
        maps
    ]);
    for expected in ["heat maps of 4 images into", "masks of 4 images into", "wrote maps of 4 images into"] {
        assert!(run.stderr.contains(expected), "{}", run.stderr);
    }
    let lines = lines(&run.ok());
    assert_eq!(lines.len(), TEST);
    for (index, line) in lines.iter().enumerate() {
        let image = image::open(images.join(format!("{index:03}.png"))).unwrap().into_rgb8();
        let heat = image::open(heat.join(format!("{index:03}.png"))).unwrap().into_rgb8();
        assert_eq!(heat.dimensions(), image.dimensions());
        assert_ne!(heat, image);

        let mask = image::open(masks.join(format!("{index:03}.png"))).unwrap().into_luma8();
        assert_eq!(mask.get_pixel(25, 21), &Luma([255]), "the middle of the spot");
        let regions = line["regions"].as_array().unwrap();
        let areas: usize = regions.iter().map(|region| region["area"].as_u64().unwrap() as usize).sum();
        assert_eq!(areas, white(&mask));

        let (shape, values) = read_npy(&maps.join(format!("{index:03}.npy")));
        assert_eq!(shape, "(48, 48)");
        let first = &regions[0];
        let at = |key: &str| first[key].as_u64().unwrap() as usize;
        let largest = values.iter().copied().fold(f32::MIN, f32::max);
        assert_eq!(values[at("peak_y") * 48 + at("peak_x")], largest);
        assert_eq!(first["peak"].as_f64().unwrap() as f32, largest);
        assert!(f64::from(largest) <= line["map_max"].as_f64().unwrap(), "enlarging makes no value larger");
        assert!(at("x") <= 25 && 25 < at("x") + at("width") && at("y") <= 21 && 21 < at("y") + at("height"));
    }

    let csv = nomaly(args!["score", images, "-m", padim(), "--format", "csv"]).ok();
    for (row, line) in csv.lines().skip(1).zip(&lines) {
        let count = line["regions"].as_array().unwrap().len();
        assert_eq!(row.split(',').nth(7).unwrap(), count.to_string());
    }
    let few = nomaly(args!["score", images, "-m", padim(), "--format", "jsonl", "--min-area", "3000"]).ok();
    assert!(lines_have_no_regions(&few), "no region is larger than the image: {few}");
}

fn lines_have_no_regions(text: &str) -> bool {
    lines(text).iter().all(|line| line["regions"].as_array().unwrap().is_empty())
}

#[test]
fn other_formats_of_maps_have_the_size_of_the_image() {
    let out = fresh_folder("formats");
    let wide = out.join("wide.image.png");
    image::imageops::crop_imm(&part(7, true), 0, 8, 48, 20).to_image().save(&wide).unwrap();
    let write = |format: &str| {
        nomaly(args!["score", wide, "-m", padim(), "--maps", out.join("maps"), "--map-format", format]).ok();
    };
    write("npy");
    let (shape, values) = read_npy(&out.join("maps/wide.image.npy"));
    assert_eq!((shape.as_str(), values.len()), ("(20, 48)", 48 * 20));

    write("tiff");
    let tiff = std::fs::read(out.join("maps/wide.image.tiff")).unwrap();
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    assert!(tiff.starts_with(b"II*\0") && tiff.ends_with(&raw));

    write("png16");
    let levels = image::open(out.join("maps/wide.image.png")).unwrap().into_luma16();
    assert_eq!(levels.dimensions(), (48, 20));
    let unit = f64::from(values[0]) / f64::from(levels.as_raw()[0]);
    for (level, value) in levels.as_raw().iter().zip(&values) {
        // Levels are rounded to the nearest, and so is the unit.
        let expected = f64::from(*value) / unit;
        assert!((expected - f64::from(*level)).abs() <= 0.5 + 2e-3 * expected, "{level} for {value}");
    }
}

#[test]
fn images_of_one_name_do_not_overwrite_each_other() {
    let out = fresh_folder("names");
    let (good, spot) = (parts().join("test/good"), parts().join("test/spot"));
    nomaly(args!["score", good, spot, "-m", padim(), "--masks", out.join("masks")]).ok();
    let below = |path: &Path| path.strip_prefix("/").unwrap_or(path).to_owned();
    for index in 0..TEST {
        let name = format!("{index:03}.png");
        let of_good = image::open(out.join("masks").join(&name)).unwrap().into_luma8();
        let of_spot = image::open(out.join("masks").join(below(&spot)).join(&name)).unwrap().into_luma8();
        assert!(white(&of_spot) > white(&of_good), "{name}");
    }
}

#[test]
fn folders_that_would_lose_files_are_refused() {
    let out = fresh_folder("refused");
    let image = out.join("a.png");
    part(1, false).save(&image).unwrap();
    let before = std::fs::read(&image).unwrap();

    let message = nomaly(args!["score", out, "-m", padim(), "--heatmaps", out]).error();
    assert!(message.contains("--heatmaps would overwrite") && message.contains("a.png"), "{message}");
    assert_eq!(std::fs::read(&image).unwrap(), before);

    let twice = out.join("both");
    let message = nomaly(args!["score", image, "-m", padim(), "--heatmaps", twice, "--masks", twice]).error();
    assert!(message.contains("--heatmaps and --masks name the same folder"), "{message}");
}

#[test]
fn methods_without_maps_have_no_regions() {
    let images = parts().join("test/spot");
    let text = nomaly(args!["score", images, "-m", model(), "--format", "jsonl"]).ok();
    assert!(lines(&text).iter().all(|line| line["regions"].is_null() && line["map_max"].is_null()));
}

#[test]
fn reports_show_where_images_are_anomalous() {
    let out = fresh_folder("map_reports");
    let table = nomaly(args!["eval", parts(), "-m", padim(), "--report", out.join("eval")]).ok();
    assert!(table.contains("pixel") && table.contains("pixels of 8 images with 4 defective regions"), "{table}");
    let html = std::fs::read_to_string(out.join("eval/report.html")).unwrap();
    for expected in ["Heat map of", "Ground truth of", "AUPRO", "class=\"found\"", "class=\"truth\""] {
        assert!(html.contains(expected), "the evaluation's report lacks {expected}");
    }

    let page = out.join("score.html");
    nomaly(args!["score", parts().join("test"), "-m", padim(), "--report", page]).ok();
    let html = std::fs::read_to_string(page).unwrap();
    assert!(html.contains("Heat map of") && html.contains("class=\"found\"") && !html.contains("Ground truth of"));
}

#[test]
fn an_update_learns_from_further_images() {
    let out = fresh_folder("update");
    let more = out.join("more");
    std::fs::create_dir_all(&more).unwrap();
    for index in 0..5 {
        part(300 + index, false).save(more.join(format!("{index}.png"))).unwrap();
    }
    let model = out.join("bank.nomaly");
    nomaly(args!["fit", parts(), "-o", model, "--method", "patchcore", "--set", INPUT_SIZE]).ok();
    let before = std::fs::read(&model).unwrap();
    let images = |model: &Path| {
        nomaly(args!["inspect", model, "--format", "json"]).json()["training"]["images"].as_u64().unwrap()
    };

    let next = out.join("next.nomaly");
    let run = nomaly(args!["update", more, "-m", model, "-o", next]);
    assert!(run.stderr.contains("24 images before, 29 after"), "{}", run.stderr);
    assert_eq!(run.ok(), "");
    assert_eq!((images(&model), images(&next)), (TRAIN as u64, TRAIN as u64 + 5));
    assert!(std::fs::read(&model).unwrap() == before, "the model that was read is as it was");

    nomaly(args!["update", more, "-m", model]).ok();
    assert!(std::fs::read(&model).unwrap() == std::fs::read(&next).unwrap());
    let text = nomaly(args!["score", parts().join("test"), "-m", model, "--format", "jsonl"]).ok();
    assert_eq!(lines(&text).iter().filter(|line| line["anomalous"] == true).count(), TEST);
}

#[test]
fn models_that_cannot_be_updated_stay_as_they_are() {
    let before = std::fs::read(padim()).unwrap();
    let message = nomaly(args!["update", parts(), "-m", padim()]).error();
    assert!(message.contains("padim does not keep what an update needs"), "{message}");
    assert!(message.contains("--updatable") && message.contains("nomaly fit"), "{message}");
    assert!(std::fs::read(padim()).unwrap() == before);

    let out = fresh_folder("updatable");
    let model = out.join("model.nomaly");
    let refused = nomaly(args!["fit", parts(), "-o", model, "--method", "adacl", "--updatable"]).error();
    assert!(refused.contains("a model of adacl cannot be updated"), "{refused}");
    let table = out.join("rows.csv");
    std::fs::write(&table, "a,b\n1,2\n3,4\n").unwrap();
    let refused = nomaly(args!["fit", table, "-o", model, "--updatable"]).error();
    assert!(refused.contains("--updatable is for images"), "{refused}");
    let refused = nomaly(args!["fit", parts(), "-o", model, "--updatable", "--shard", "1/2"]).error();
    assert!(refused.contains("give it to `nomaly merge`"), "{refused}");
    assert!(!model.exists());
}

#[test]
fn a_model_that_keeps_what_an_update_needs_is_updated() {
    let out = fresh_folder("kept");
    let (model, plain) = (out.join("model.nomaly"), out.join("plain.nomaly"));
    let fit = |model: &Path, more: &[&str]| {
        let mut arguments = args!["fit", parts(), "-o", model, "--method", "padim", "--set", INPUT_SIZE].to_vec();
        arguments.extend(more.iter().map(Into::into));
        nomaly(arguments).ok();
    };
    fit(&model, &["--updatable"]);
    fit(&plain, &[]);
    let scores = |model: &Path| nomaly(args!["score", parts().join("test"), "-m", model, "--format", "jsonl"]).ok();
    assert_eq!(scores(&model), scores(&plain));
    let updated = nomaly(args!["update", parts(), "-m", model]);
    assert!(updated.stderr.contains("24 images before, 48 after"), "{}", updated.stderr);
    let size = |path: &Path| std::fs::metadata(path).unwrap().len();
    assert!(size(&model) > size(&plain));
}
