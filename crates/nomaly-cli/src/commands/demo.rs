//! `nomaly demo`: fit, score and evaluate on embedded images with embedded weights, and write a report.

use nomaly::data;
use nomaly::evaluation::evaluate;
use nomaly::{FitOptions, PredictOptions, StreamOptions};

use super::{Status, check_writable, figures, fit_detector};
use crate::args::DemoArgs;
use crate::console::Console;
use crate::output::stdout;
use crate::progress::{Bars, Unit};
use crate::report::{EvaluationReport, PREVIEW_SIDE};
use nomaly::Recipe;

/// The caveat of the figures.
const SYNTHETIC: &str = "The images are photographs of a real texture, but the defects are synthetic: painted onto good \
                         images by a program. The figures show that everything works, not how good it is on real parts.";

pub(crate) fn run(args: &DemoArgs, console: &Console) -> anyhow::Result<Status> {
    check_writable(&args.report)?;
    let dataset = data::demo(&args.texture, args.seed)?;
    let options = FitOptions { seed: args.seed, ..FitOptions::default() };
    let (fit, fit_s) = fit_detector(&Recipe { options, ..Recipe::default() }, &dataset, console)?;

    let stream = StreamOptions { preview: Some(PREVIEW_SIDE), ..StreamOptions::default() };
    let options = PredictOptions { rule: None, stream };
    let calibration = fit.detector.calibration();
    let mut report = EvaluationReport::new(&fit.detector, calibration, stream.limits)?;
    let bars = Bars::new(console, Unit::Images);
    let evaluated = evaluate(&fit.detector, &dataset, Some(fit_s), &options, &bars, |outcome| report.record(outcome))?;

    figures::print(&mut stdout(), &evaluated.figures)?;
    report.write(&args.report, &evaluated, calibration, &[SYNTHETIC])?;
    console.note(SYNTHETIC);
    console.note(format_args!("wrote {}: open it in a browser", args.report.display()));
    Ok(Status::Done)
}
