//! Where the network of a model looks.

use image::RgbImage;

use crate::args;
use crate::support::{INPUT_SIZE, TEST, fresh_folder, in_spot, model, nomaly, part, parts};

/// The mean increase in red of a picture over its original image, over the pixels for which `counts` is true.
fn warmth(picture: &RgbImage, image: &RgbImage, counts: impl Fn(u32, u32) -> bool) -> f64 {
    let factor = picture.width() / image.width();
    let (mut sum, mut count) = (0.0, 0);
    for (x, y, pixel) in picture.enumerate_pixels().filter(|(x, y, _)| counts(x / factor, y / factor)) {
        sum += f64::from(pixel.0[0]) - f64::from(image.get_pixel(x / factor, y / factor).0[0]);
        count += 1;
    }
    sum / f64::from(count)
}

#[test]
fn pictures_show_what_raises_the_score() {
    let out = fresh_folder("explained");
    let run = nomaly(args!["explain", parts().join("test/spot"), "-m", model(), "-o", out]);
    assert!(run.stderr.contains(&format!("wrote {TEST} pictures into")), "{}", run.stderr);
    let listed = run.ok();
    assert_eq!(listed.lines().count(), TEST);
    assert!(listed.lines().all(|line| line.contains(": score ") && line.ends_with(".head.png")), "{listed}");
    let picture = image::open(out.join("000.head.png")).unwrap().to_rgb8();
    // 48 pixels are enlarged by an integer factor to 224 or more.
    assert_eq!(picture.dimensions(), (240, 240));
    let image = part(200, true);
    let [inside, outside] = [true, false].map(|spot| warmth(&picture, &image, |x, y| in_spot(x, y) == spot));
    assert!(inside > outside, "{inside} {outside}");
}

#[test]
fn a_trained_network_is_explained_by_its_classes() {
    let folder = fresh_folder("explained-classes");
    let path = folder.join("turned.nomaly");
    let settings = args![
        "fit",
        parts().join("train/good"),
        "-o",
        path,
        "--method",
        "geotrans",
        "--epochs",
        "1",
        "--set",
        "transformations=rotations"
    ];
    nomaly(settings).ok();
    let image = parts().join("test/good/000.png");
    let run = |class: &str| nomaly(args!["explain", image, "-m", path, "-o", folder.join("out"), "--class", class]);
    let listed = run("1").ok();
    assert!(listed.contains(": class 1 (rot90), logit "), "{listed}");
    let error = run("4").error();
    assert!(error.contains("wrn-10-4 has no class 4: its 4 classes are numbered from 0"), "{error}");
}

#[test]
fn averages_have_a_picture_a_layer() {
    let out = fresh_folder("averaged");
    let run = nomaly(args!["explain", parts().join("test/good"), "-m", model(), "-o", out, "--average"]);
    let listed = run.ok();
    assert_eq!(listed.lines().count(), 9, "{listed}");
    assert!(listed.starts_with("stem: 32 × 32 positions, from "), "{listed}");
    assert!(out.join("average.stage7.png").exists());
    let one = ["--average", "--tap", "stage4"].map(String::from);
    let given =
        [args!["explain", parts().join("test/good"), "-m", model(), "-o", out].to_vec(), one.map(Into::into).to_vec()];
    assert_eq!(nomaly(given.concat()).ok().lines().count(), 1);
}

#[test]
fn what_cannot_be_explained_says_why() {
    let image = parts().join("test/good/000.png");
    let out = fresh_folder("explained-stage6");
    nomaly(args!["explain", image, "-m", model(), "--tap", "stage6", "-o", out]).ok();
    let error = nomaly(args!["explain", image, "-m", model(), "--class", "3"]).error();
    assert!(error.contains("have no classifier"), "{error}");
    let pixels = fresh_folder("explained-pixels").join("pixels.nomaly");
    let fit = args!["fit", parts(), "-o", pixels, "--method", "patches", "--backbone", "pixels", "--set", INPUT_SIZE];
    nomaly(fit).ok();
    let error = nomaly(args!["explain", image, "-m", pixels]).error();
    assert!(error.contains("there is no network to explain"), "{error}");
}
