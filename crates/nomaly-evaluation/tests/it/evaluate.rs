use image::{GrayImage, Luma};
use nomaly_data::{Dataset, MaskSource};
use nomaly_detectors::{DecisionRule, PredictOptions, StreamOptions};
use nomaly_evaluation::supervised::reference_of_images;
use nomaly_evaluation::{EvaluationError, evaluate};
use nomaly_store::Silent;

use crate::images::{blot, dataset, fit, settings};

#[test]
fn figures_cover_kinds_levels_and_the_decision() {
    let dataset = dataset();
    let fitted = fit("mvg", &settings(), &dataset.train).detector;
    let mut seen = 0;
    let evaluated = evaluate(&fitted, &dataset, Some(1.5), &PredictOptions::default(), &Silent, |_| seen += 1).unwrap();
    assert_eq!((seen, evaluated.predictions.len()), (16, 16));
    let json = serde_json::to_value(&evaluated.figures).unwrap();
    assert_eq!(json["n_test"], serde_json::json!({"normal": 8, "anomalous": 8}));
    assert_eq!(json["n_train"], 24);
    assert_eq!(json["image"]["auroc"], 1.0);
    assert_eq!(json["by_kind"]["blot"]["auroc"], 1.0);
    assert_eq!(json["pixel"], serde_json::Value::Null);
    assert_eq!(json["timing"]["fit_s"], 1.5);
    assert!(json["threshold"]["value"].is_f64());
    let levels: Vec<&String> = json["by_part"].as_object().unwrap().keys().collect();
    assert_eq!(levels.len(), 9, "{levels:?}");
    let sums = |index: usize| {
        let prediction = &evaluated.predictions[index].prediction;
        (prediction.parts.iter().sum::<f64>(), prediction.score)
    };
    assert!((0..16).all(|index| (sums(index).0 - sums(index).1).abs() < 1e-9), "the score is the sum over levels");
}

#[test]
fn a_set_without_good_images_cannot_be_evaluated() {
    let all = dataset();
    let fitted = fit("dn2", &settings(), &all.train).detector;
    let only = |test: Vec<_>| {
        let dataset = Dataset { test, ..all.clone() };
        evaluate(&fitted, &dataset, None, &PredictOptions::default(), &Silent, |_| ()).err().unwrap()
    };
    for error in [only(Vec::new()), only(all.test.iter().skip(1).step_by(2).cloned().collect())] {
        assert!(matches!(error, EvaluationError::CannotEvaluate { .. }), "{error}");
    }
}

#[test]
fn good_images_alone_tell_false_alarms_and_nothing_else() {
    let all = dataset();
    let fitted = fit("mvg", &settings(), &all.train).detector;
    let dataset = Dataset { test: all.test.iter().step_by(2).cloned().collect(), ..all };
    let figures = |rule| {
        let options = PredictOptions { rule, ..PredictOptions::default() };
        let evaluated = evaluate(&fitted, &dataset, None, &options, &Silent, |_| ()).unwrap();
        serde_json::to_value(&evaluated.figures).unwrap()
    };
    let json = figures(Some(DecisionRule::Threshold(-1.0)));
    assert_eq!(json["n_test"], serde_json::json!({"normal": 8, "anomalous": 0}));
    assert_eq!(json["threshold"]["fpr"], 1.0);
    // Wilson's interval of 8 in 8.
    let low = json["threshold"]["fpr_ci"][0].as_f64().unwrap();
    assert!((low - 0.6756).abs() < 1e-4, "{low}");
    let missing =
        ["/image", "/pixel", "/threshold/tpr", "/threshold/precision", "/threshold/accuracy", "/threshold/f1"];
    for figure in missing {
        assert_eq!(json.pointer(figure), Some(&serde_json::Value::Null), "{figure}");
    }
    for figure in ["by_kind", "by_part"] {
        assert_eq!(json[figure], serde_json::json!({}), "{figure}");
    }
    let shares: Vec<f64> =
        json["p_values"].as_array().unwrap().iter().map(|p| p["at_most"].as_f64().unwrap()).collect();
    assert_eq!(shares, [0.01, 0.05, 0.1]);
    // 24 images cannot guarantee 1 %, so there are no figures of decisions, not even 0.
    let undecided = figures(Some(DecisionRule::MaxFpr(0.01)));
    for figure in ["value", "fpr", "fpr_ci", "tnr", "tpr"] {
        assert!(undecided["threshold"][figure].is_null(), "{figure}");
    }
}

#[test]
fn the_supervised_reference_separates_what_it_was_shown() {
    let dataset = dataset();
    let fitted = fit("mvg", &settings(), &dataset.train).detector;
    let reference =
        |samples: &[nomaly_data::Sample]| reference_of_images(&fitted, samples, 0, StreamOptions::default(), &Silent);
    let found = reference(&dataset.test).unwrap();
    assert_eq!((found.folds, found.auroc), (5, 1.0));
    assert!(found.features.contains("efficientnet-lite0"), "{found:?}");
    let mut with_lost = dataset.test.clone();
    with_lost.insert(2, crate::images::missing("lost"));
    assert_eq!(reference(&with_lost).unwrap(), found);
    let few = reference(&dataset.test[..3]).unwrap_err();
    assert!(matches!(few, EvaluationError::TooFew { .. }), "{few}");
    assert!(few.to_string().contains("2 normal and 1 anomalous"), "{few}");
}

#[test]
fn pixel_figures_compare_maps_with_masks() {
    let mut dataset = dataset();
    let fitted = fit("padim", &settings(), &dataset.train).detector;
    dataset.test.truncate(8);
    for seed in 0..6 {
        let (mut sample, [left, top, side]) = blot(seed);
        let inside = |at: u32, from: u32| (from..from + side).contains(&at);
        let mask = GrayImage::from_fn(48, 48, |x, y| Luma([u8::from(inside(x, left) && inside(y, top))]));
        sample.mask = Some(MaskSource::Memory(std::sync::Arc::new(mask)));
        dataset.test.push(sample);
    }
    let evaluated = evaluate(&fitted, &dataset, None, &PredictOptions::default(), &Silent, |_| ()).unwrap();
    let pixel = evaluated.figures.pixel.unwrap();
    // Four of the eight other images are normal; the blotted ones have no mask and are excluded.
    assert_eq!((pixel.images, pixel.regions), (10, 6));
    assert!(pixel.auroc > 0.9 && pixel.aupro > 0.6, "{pixel:?}");
    let curves = evaluated.curves.unwrap();
    assert!((curves.roc.area() - pixel.auroc).abs() < 0.01, "the thinned curve has nearly the area of the whole one");
}
