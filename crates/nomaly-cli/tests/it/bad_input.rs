//! Messages about invalid input.

use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageBuffer, ImageFormat, Luma, Rgb, RgbImage, Rgba};
use serde_json::Value;

use crate::args;
use crate::support::{INPUT_SIZE, TEST, fresh_folder, model, nomaly, part, parts};

/// A PNG header with a size and no pixels.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut header = b"IHDR".to_vec();
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    png.extend(13u32.to_be_bytes());
    png.extend(&header);
    png.extend(crc32(&header).to_be_bytes());
    png.extend([0, 0, 0, 0]);
    png.extend(b"IDAT");
    png.extend(crc32(b"IDAT").to_be_bytes());
    png
}

/// The checksum of PNG chunks, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn scored(images: &Path, more: &[&str]) -> (i32, Vec<Value>, String) {
    let mut args = args!["score", images, "-m", model(), "--format", "jsonl"].to_vec();
    args.extend(more.iter().map(Into::into));
    let run = nomaly(args);
    let lines = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (run.status, lines, run.stderr)
}

#[test]
fn bad_images_are_reported_and_skipped() {
    let folder = fresh_folder("bad-images");
    let jpeg = encoded(part(1, false), ImageFormat::Jpeg);
    write(&folder, "1-empty.png", b"");
    write(&folder, "2-text.png", b"these are words, and no image at all");
    write(&folder, "3-truncated.jpg", &jpeg[..jpeg.len() / 2]);
    write(&folder, "4-huge.png", &png_header(20_000, 20_000));
    write(&folder, "5-good.png", &encoded(part(1, false), ImageFormat::Png));

    let (status, lines, stderr) = scored(&folder, &[]);
    assert_eq!(status, 0, "{stderr}");
    let kinds: Vec<&Value> = lines.iter().map(|line| &line["error"]["kind"]).collect();
    assert_eq!(
        kinds,
        [&Value::from("empty"), &"not-an-image".into(), &"truncated".into(), &"too-large".into(), &Value::Null]
    );
    for line in &lines[..4] {
        assert!(line["score"].is_null() && line["p_value"].is_null() && line["anomalous"].is_null(), "{line}");
        let path = line["path"].as_str().unwrap();
        assert!(stderr.contains(path), "{path} is not in: {stderr}");
    }
    assert!(stderr.contains("0 of 1 image anomalous, 4 could not be scored"), "{stderr}");

    let (status, _, stderr) = scored(&folder, &["--strict"]);
    assert_eq!(status, 2, "{stderr}");
    assert!(stderr.contains("error: ") && stderr.contains("1-empty.png"), "{stderr}");

    std::fs::remove_file(folder.join("5-good.png")).unwrap();
    let (status, lines, stderr) = scored(&folder, &[]);
    assert_eq!((status, lines.len()), (2, 4), "{stderr}");
    assert!(stderr.contains("none of the 4 images could be scored"), "{stderr}");
}

#[test]
fn unusual_images_are_scored() {
    let folder = fresh_folder("unusual-images");
    let grey16 = ImageBuffer::from_fn(48, 48, |x, y| Luma([(x * 900 + y * 300) as u16]));
    let rgba = ImageBuffer::from_fn(48, 48, |x, y| Rgba([x as u8, y as u8, 9, if x < 24 { 0 } else { 255 }]));
    write(&folder, "1-tiny.png", &encoded(RgbImage::from_pixel(1, 1, Rgb([9; 3])), ImageFormat::Png));
    write(&folder, "2-grey16.png", &encoded(DynamicImage::ImageLuma16(grey16), ImageFormat::Png));
    write(&folder, "3-rgba.png", &encoded(DynamicImage::ImageRgba8(rgba), ImageFormat::Png));
    let (status, lines, stderr) = scored(&folder, &["--strict"]);
    assert_eq!(status, 0, "{stderr}");
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| line["score"].as_f64().is_some_and(f64::is_finite)), "{lines:?}");
}

#[test]
fn one_large_image_can_be_allowed() {
    let folder = fresh_folder("large-image");
    write(&folder, "a.png", &encoded(RgbImage::new(1200, 1000), ImageFormat::Png));
    let (status, lines, _) = scored(&folder, &["--max-megapixels", "1"]);
    assert_eq!((status, &lines[0]["error"]["kind"]), (2, &Value::from("too-large")));
    assert_eq!(scored(&folder, &["--max-megapixels", "2"]).0, 0);
}

#[test]
fn data_that_cannot_be_fitted_on_is_named() {
    let output = fresh_folder("unfit").join("out.nomaly");
    let fit = |data: &Path| nomaly(args!["fit", data, "-o", output, "--set", INPUT_SIZE]).error();

    let dn2 = output.with_file_name("dn2.nomaly");
    nomaly(args!["fit", parts(), "-o", dn2, "--set", INPUT_SIZE, "--method", "dn2"]).ok();

    let empty = fresh_folder("unfit-empty");
    assert!(fit(&empty).contains("unfit-empty"));

    let one = fresh_folder("unfit-one");
    write(&one, "a.png", &encoded(part(1, false), ImageFormat::Png));
    let message = fit(&one);
    assert!(message.contains("training images") && message.contains("there is 1"), "{message}");

    let k = args!["fit", parts(), "-o", output, "--set", INPUT_SIZE, "--method", "dn2", "--set", "k=1000"];
    let message = nomaly(k).error();
    assert!(
        message.contains("setting `k` is `1000`; it takes at most ") && message.contains("24 training"),
        "{message}"
    );
    let broken = fresh_folder("unfit-broken");
    write(&broken, "a.png", b"no image");
    let message = nomaly(args!["update", broken, "-m", dn2, "-o", output]).error();
    assert!(message.contains("dn2 needs at least 1 usable training image, and there are none"), "{message}");
    assert!(message.contains("hint: `nomaly doctor`"), "{message}");

    assert!(fit(Path::new("no/such/folder")).contains("no/such/folder"));
    let message = fit(Path::new("fashion-mnits:normal=3"));
    assert!(message.contains("did you mean `fashion-mnist`?"), "{message}");
    assert!(!output.exists(), "a failed fit left a model");
}

#[test]
fn few_images_are_fitted_with_a_warning_that_says_how_many_are_needed() {
    let folder = fresh_folder("few");
    for index in 0..6 {
        write(&folder, &format!("{index}.png"), &encoded(part(index, false), ImageFormat::Png));
    }
    let run = nomaly(args!["fit", folder, "-o", fresh_folder("few-out").join("few.nomaly"), "--set", INPUT_SIZE]);
    for expected in ["warning: ", "1/7 = 14.3 %", "hint: ", "at least 19 images", "--max-fpr 0.143"] {
        assert!(run.stderr.contains(expected), "{expected} is not in: {}", run.stderr);
    }
    run.ok();
}

#[test]
fn mistyped_names_are_met_with_the_right_ones() {
    let output = fresh_folder("mistyped").join("out.nomaly");
    let fit = |more: [&str; 2]| nomaly(args!["fit", parts(), "-o", output, more[0], more[1]]).error();
    for (more, expected) in [
        (["--method", "mvgg"], "did you mean `mvg`?"),
        (["--backbone", "efficientnet-lite"], "did you mean `efficientnet-lite"),
        (["--set", "inputsize=64"], "did you mean `input_size`?"),
        (["--set", "input_size"], "KEY=VALUE"),
        (["--set", "input_size=7"], "from 32 to 2048"),
        (
            ["--method=padim", "--set=layers=stage3,stage3"],
            "setting `layers` is `stage3,stage3`; it takes each layer once",
        ),
        (
            ["--method=mvg", "--set=levels=stage3,stage3"],
            "setting `levels` is `stage3,stage3`; it takes each level once",
        ),
        (["--backbone", "resnet18"], "nomaly weights get resnet18"),
        (["--device", "cdua"], "did you mean `cuda`?"),
    ] {
        let message = fit(more);
        assert!(message.contains(expected), "{expected} is not in: {message}");
    }
    assert!(fit(["--method", "mvgg"]).contains("hint: `nomaly list methods`"));
}

#[test]
fn an_output_that_cannot_be_written_is_found_before_the_work() {
    let missing = fresh_folder("unwritable").join("missing");
    // The data cannot be opened either: the output's error must come first.
    let message = nomaly(args!["fit", "no/such/data", "-o", missing.join("out.nomaly")]).error();
    assert!(message.contains("missing") && !message.contains("no/such/data"), "{message}");
    let message = nomaly(args!["score", "no/such/data", "-m", model(), "--report", missing.join("a.html")]).error();
    assert!(message.contains("missing") && !message.contains("no/such/data"), "{message}");
    let file = write(&fresh_folder("unwritable-file"), "file", b"");
    let message = nomaly(args!["eval", "no/such/data", "--report", file.join("out")]).error();
    assert!(message.contains("file") && !message.contains("no/such/data"), "{message}");
}

#[cfg(unix)]
#[test]
fn a_read_only_folder_is_found_before_the_work() {
    use std::os::unix::fs::PermissionsExt;
    let folder = fresh_folder("read-only");
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o555)).unwrap();
    // The superuser can write anyway.
    if std::fs::write(folder.join("probe"), b"").is_ok() {
        return;
    }
    let message = nomaly(args!["fit", "no/such/data", "-o", folder.join("out.nomaly")]).error();
    assert!(message.contains("read-only"), "{message}");
}

#[cfg(unix)]
#[test]
fn an_unreadable_image_is_reported() {
    use std::os::unix::fs::PermissionsExt;
    let folder = fresh_folder("unreadable");
    let path = write(&folder, "a.png", &encoded(part(1, false), ImageFormat::Png));
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o000)).unwrap();
    // The superuser can read anyway.
    if std::fs::read(&path).is_ok() {
        return;
    }
    let (status, lines, _) = scored(&folder, &[]);
    assert_eq!((status, &lines[0]["error"]["kind"]), (2, &Value::from("unreadable")));
}

#[test]
fn maps_are_refused_for_methods_that_make_none() {
    let message = nomaly(args!["score", parts(), "-m", model(), "--heatmaps", "maps"]).error();
    assert!(message.contains("`mvg`") && message.contains("leave out --heatmaps"), "{message}");
}

#[test]
fn evaluation_needs_images_labelled_good() {
    let message = nomaly(args!["eval", parts().join("train/good"), "--set", INPUT_SIZE]).error();
    assert!(message.contains("0 test images") && message.contains("test/<kind>"), "{message}");
    let folder = fresh_folder("no-good-tests");
    for (group, defective) in [("train/good", false), ("test/spot", true)] {
        std::fs::create_dir_all(folder.join(group)).unwrap();
        for index in 0..3 {
            write(&folder.join(group), &format!("{index}.png"), &encoded(part(index, defective), ImageFormat::Png));
        }
    }
    let message = nomaly(args!["eval", folder, "--set", INPUT_SIZE]).error();
    assert!(message.contains("0 test images labelled normal and 3 labelled anomalous"), "{message}");
}

#[test]
fn an_image_without_a_finite_score_does_not_pass() {
    let folder = fresh_folder("non-finite");
    let sound = std::fs::read(model()).unwrap();
    let (header, _) = split(&sound);
    let json: Value = serde_json::from_str(&header).unwrap();
    let mean = &json["method/stage1/mean"];
    assert_eq!(mean["dtype"], "F64");
    let at = 8 + header.len() + mean["data_offsets"][0].as_u64().unwrap() as usize;
    let mut damaged = sound.clone();
    // The squared distance from this mean overflows `f64`.
    damaged[at..at + 8].copy_from_slice(&1e300f64.to_le_bytes());
    // Like a hostile writer: the last tensor is the digest of all before it.
    let end = damaged.len() - 32;
    let digest = nomaly::store::sha256(&damaged[..end]);
    damaged[end..].copy_from_slice(&digest);
    let path = write(&folder, "damaged.nomaly", &damaged);
    let run = nomaly(args!["score", parts().join("test/good"), "-m", path, "--format", "jsonl"]);
    assert!(run.stdout.lines().count() == TEST, "{}", run.stdout);
    for line in run.stdout.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        assert_eq!(record["error"]["kind"], "non-finite-score", "{record}");
        assert!(record["score"].is_null() && record["p_value"].is_null() && record["anomalous"].is_null(), "{record}");
    }
    assert!(run.error().contains("none of the 4 images could be scored"));
}

#[test]
fn damaged_models_are_refused_with_the_reason() {
    let folder = fresh_folder("damaged");
    let sound = std::fs::read(model()).unwrap();
    let refused = |name: &str, bytes: &[u8]| {
        let path = write(&folder, name, bytes);
        let message = nomaly(args!["score", parts(), "-m", path]).error();
        assert!(message.contains(name), "{name} is not in: {message}");
        message
    };

    let message = refused("truncated", &sound[..sound.len() - 1000]);
    assert!(message.contains("truncated"), "{message}");
    refused("empty", b"");
    assert!(refused("text", b"this is a text file, and no model").contains("not a nomaly model"));
    assert!(nomaly(args!["inspect", folder.join("text")]).error().contains("not a nomaly model"));
    assert!(nomaly(args!["inspect", folder.join("absent")]).error().contains("absent"));

    let (header, tensors) = split(&sound);
    let other_version = replaced(&header, r#"\"format\":3,"#, r#"\"format\":9,"#);
    let message = refused("version", &joined(&other_version, tensors));
    assert!(message.contains("version 9") && message.contains("versions 2 to 3"), "{message}");

    // As many numbers as before, in another shape.
    let mut json: Value = serde_json::from_str(&header).unwrap();
    let shape = &mut json["method/stage1/mean"]["shape"];
    assert_eq!(*shape, serde_json::json!([16]));
    *shape = serde_json::json!([4, 4]);
    let message = refused("shape", &joined(&json.to_string(), tensors));
    assert!(!message.contains("checksum"), "{message}");

    let mut flipped = sound.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    assert!(refused("flipped", &flipped).contains("its checksum does not match"));
}

#[test]
fn a_model_with_a_renamed_setting_is_refused_with_the_way_out() {
    let path = fresh_folder("renamed").join("pca.nomaly");
    let fit = args!["fit", parts(), "-o", path, "--method", "features", "--set", "scorer=pca", "--set", INPUT_SIZE];
    nomaly(fit).ok();
    let model = std::fs::read(&path).unwrap();
    let (header, tensors) = split(&model);
    std::fs::write(&path, joined(&replaced(&header, "standardize", "standardise"), tensors)).unwrap();
    let message = nomaly(args!["score", parts().join("test"), "-m", path]).error();
    assert!(message.contains("`standardise` is now called `standardize`; fit the model again"), "{message}");
}

/// The JSON header of a safetensors file, and the rest.
fn split(file: &[u8]) -> (String, &[u8]) {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    (String::from_utf8(file[8..8 + length].to_vec()).unwrap(), &file[8 + length..])
}

/// The file with another header and the matching checksum.
fn joined(header: &str, tensors: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(&tensors[..tensors.len() - 32]);
    let digest = nomaly::store::sha256(&file);
    file.extend(digest);
    file
}

#[track_caller]
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from} is not in the header");
    text.replace(from, to)
}
