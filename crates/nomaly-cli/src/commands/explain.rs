//! `nomaly explain`: pictures of where the network of a model looks.

use std::ffi::OsString;
use std::io::Write;
use std::iter;
use std::path::{Path, PathBuf};

use anyhow::bail;
use nomaly::explain::Importance;
use nomaly::explain::{Explained, Explains, ImageExplanation, importance_mask};
use nomaly::store::{create_folder, write_atomic};
use nomaly::{FittedDetector, Sample};
use nomaly_report::files::png;
use nomaly_report::overlay::{DEFAULT_OPACITY, OUTLINE, ValueRange, enlarged, outline, overlay};

use super::{Status, skipped_line, tell_skipped};
use crate::args::ExplainArgs;
use crate::console::Console;
use crate::failure::Failure;
use crate::map_files::stems;
use crate::output::{counted, significant, stdout};
use crate::progress::{Bars, Unit};
use crate::writable::check_apart;

/// Pictures with a smaller side are enlarged.
const LEAST_SIDE: u32 = 224;

pub(crate) fn run(args: &ExplainArgs, console: &Console) -> anyhow::Result<Status> {
    let detector = FittedDetector::load_on(&args.model, &args.device.open()?)?;
    let samples_of = |path: &PathBuf| nomaly::data::images_under(std::slice::from_ref(path));
    let groups: Vec<Vec<Sample>> = args.images.iter().map(samples_of).collect::<Result<_, _>>()?;
    if args.average { average(args, &detector, &groups, console) } else { explain(args, &detector, &groups, console) }
}

/// Grad-CAM of each image.
fn explain(
    args: &ExplainArgs,
    detector: &FittedDetector,
    groups: &[Vec<Sample>],
    console: &Console,
) -> anyhow::Result<Status> {
    let mut explainer = detector.explainer(args.tap.as_deref(), args.class)?;
    let files = super::score::files_of(&args.images, groups);
    let tap = explainer.tap().to_owned();
    let paths: Vec<PathBuf> = stems(&files).iter().map(|stem| path(&args.output, stem, &tap)).collect();
    check_overwrites_none(&paths, &files, &args.model)?;
    let explains = explainer.explains();
    console.detail(format_args!("Grad-CAM of `{}` at `{tap}`", explainer.output()));
    let names: Vec<String> = (0..).map_while(|class| explainer.class_name(class).map(str::to_owned)).collect();

    let samples = groups.concat();
    let (mut place, mut written) = (0, 0);
    let options = args.reading.options(Some(u32::MAX));
    let bars = Bars::new(console, Unit::Images);
    let run = explainer.run(&samples, options, &bars, |explained| -> anyhow::Result<()> {
        let path = &paths[place];
        place += 1;
        match &explained.result {
            Ok(found) => {
                write(detector, &explained, found, path)?;
                written += 1;
                let line =
                    format!("{}: {} → {}", explained.sample.id, in_words(found, explains, &names), path.display());
                console.suspend_bars(|| writeln!(stdout(), "{line}"))?;
            }
            Err(skipped) => console.warn(skipped_line(skipped)),
        }
        Ok(())
    });
    run.map_err(|error| {
        let message = format!("interrupted after {} of {}", place, counted(samples.len(), "image"));
        Failure::if_cancelled(error, message, "the pictures written so far are complete")
    })?;
    if written == 0 {
        bail!("none of the {} could be explained", counted(samples.len(), "image"));
    }
    console.note(format_args!("wrote {} into {}", counted(written, "picture"), args.output.display()));
    Ok(Status::Done)
}

/// The target and its value in words.
fn in_words(found: &ImageExplanation, explains: Explains, names: &[String]) -> String {
    let value = significant(found.value, 5);
    let what = match found.class {
        Some(class) => match names.get(class) {
            Some(name) => format!("class {class} ({name}), logit {value}"),
            None => format!("class {class}, logit {value}"),
        },
        None if explains == Explains::Score => format!("score {value}"),
        None => format!("half the squared length of the features {value}"),
    };
    if found.map.max() > 0.0 { what } else { format!("{what}; nothing speaks for it") }
}

/// Writes an image with its Grad-CAM map in colour.
fn write(
    detector: &FittedDetector,
    explained: &Explained<'_>,
    found: &ImageExplanation,
    path: &Path,
) -> anyhow::Result<()> {
    let (Some(size), Some(image)) = (explained.size, &explained.preview) else {
        bail!("{} was not kept for drawing", explained.sample.id);
    };
    let map = detector.map_on_image(&found.map, size)?;
    let picture = enlarged(image, LEAST_SIDE);
    let greatest = found.map.max() as f32;
    let drawn = if greatest > 0.0 {
        let range = ValueRange::new(0.0, greatest)?;
        overlay(&picture, &map.values, size.0, size.1, range, DEFAULT_OPACITY)?
    } else {
        picture
    };
    create_folder(path.parent().unwrap_or(path))?;
    write_atomic(path, &png(&drawn)?)?;
    Ok(())
}

/// Average activations of each layer over all images.
fn average(
    args: &ExplainArgs,
    detector: &FittedDetector,
    groups: &[Vec<Sample>],
    console: &Console,
) -> anyhow::Result<Status> {
    let taps: Vec<&str> = args.tap.iter().map(String::as_str).collect();
    let samples = groups.concat();
    let bars = Bars::new(console, Unit::Images);
    let found = detector.average_layers(&taps, &samples, args.reading.options(None), &bars).map_err(|error| {
        Failure::if_cancelled(error, "interrupted, and nothing was written", "averages need all images")
    })?;
    tell_skipped(&found.skipped, "image", console);
    let paths: Vec<PathBuf> =
        found.layers.iter().map(|(tap, _)| path(&args.output, Path::new("average"), tap)).collect();
    check_overwrites_none(&paths, &super::score::files_of(&args.images, groups), &args.model)?;
    let picture = enlarged(&found.picture, LEAST_SIDE);
    create_folder(&args.output)?;
    for ((tap, map), path) in found.layers.iter().zip(&paths) {
        let [height, width] = map.size.map(|side| side as u32);
        let shown = map.normalized();
        let drawn = overlay(&picture, &shown.values, width, height, ValueRange::new(0.0, 1.0)?, DEFAULT_OPACITY)?;
        let mask = importance_mask(map, Importance::Quantile(args.important))?;
        write_atomic(path, &png(&outline(&drawn, &mask, OUTLINE)?)?)?;
        let [least, greatest] = [f32::min, f32::max].map(|pick| map.values.iter().copied().reduce(pick).unwrap_or(0.0));
        writeln!(
            stdout(),
            "{tap}: {height} × {width} positions, from {} to {} → {}",
            significant(f64::from(least), 4),
            significant(f64::from(greatest), 4),
            path.display()
        )?;
    }
    console.note(format_args!(
        "wrote {} of {} into {}",
        counted(paths.len(), "picture"),
        counted(found.images, "view"),
        args.output.display()
    ));
    Ok(Status::Done)
}

/// `STEM.TAP.png` in a folder, with a dot after the network's name if several are joined.
fn path(folder: &Path, stem: &Path, tap: &str) -> PathBuf {
    let mut path = OsString::from(folder.join(stem));
    path.push(format!(".{}.png", tap.replace('/', ".")));
    path.into()
}

/// Rejects pictures that would overwrite one of the images or the model.
fn check_overwrites_none(paths: &[PathBuf], images: &[(&Path, Vec<&Path>)], model: &Path) -> anyhow::Result<()> {
    let inputs: Vec<&Path> = images.iter().flat_map(|(_, files)| files).copied().chain(iter::once(model)).collect();
    check_apart(&paths.iter().map(PathBuf::as_path).collect::<Vec<_>>(), &inputs)
}
