//! Pooling, cross-entropy, element-wise operations.

use nomaly_kernels::geometry::{Padding, Pool2d};
use nomaly_kernels::training::{
    AverageOver, Dropout, Pool, TrainingError, add_assign, cross_entropy, global_average, global_average_gradient,
    relu, relu_gradient,
};
use proptest::prelude::*;

use super::{numeric_gradient, on_every_isa, wide};
use crate::oracle::{Tensor, assert_close, values};

fn of(data: &[f64], [height, width]: [usize; 2]) -> Tensor {
    Tensor { shape: [data.len() / (height * width), height, width], data: data.to_vec() }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) })]

    #[test]
    fn pools(
        planes in 1usize..6,
        kernel in [1usize..4, 1usize..4],
        stride in [1usize..4, 1usize..4],
        extra in [0usize..7, 0usize..7],
        pad in 0usize..2,
    ) {
        let padding = Padding {
            top: pad.min(kernel[0] - 1),
            bottom: 0,
            left: pad.min(kernel[1] - 1),
            right: pad.min(kernel[1] - 1),
        };
        let size = [kernel[0] + extra[0], kernel[1] + extra[1]];
        let pool = Pool2d { kernel, stride, padding };
        let plan = Pool::new(size, pool).unwrap();
        let x = values(planes * size[0] * size[1], 1);
        let outputs = planes * plan.output()[0] * plan.output()[1];
        let g = values(outputs, 2);
        let places = kernel[0] * kernel[1];
        type Fold<'a> = &'a dyn Fn(&[f64]) -> f64;
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let share = |values: &[f64]| values.iter().sum::<f64>() / places as f64;
        let greatest = |values: &[f64]| values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let folds: [(Option<AverageOver>, Fold<'_>); 3] =
            [(Some(AverageOver::Inside), &mean), (Some(AverageOver::Window), &share), (None, &greatest)];
        for (over, fold) in folds {
            let pooled = |x: &[f64]| of(x, size).pool(&pool, fold).data;
            let want = pooled(&wide(&x));
            let by_input = numeric_gradient(&wide(&x), |x| super::dot(&pooled(x), &g));
            let (mut output, mut gradient) = (vec![f32::NAN; outputs], vec![f32::NAN; x.len()]);
            match over {
                Some(over) => {
                    plan.average(over, &x, &mut output).unwrap();
                    plan.average_gradient(over, &g, &mut gradient).unwrap();
                }
                None => {
                    let mut places = vec![0; outputs];
                    plan.max(&x, &mut output, &mut places).unwrap();
                    plan.max_gradient(&g, &places, &mut gradient).unwrap();
                }
            }
            assert_close(&output, &want, 1e-6, &(over, pool, size));
            assert_close(&gradient, &by_input, 1e-5, &(over, pool, size));
        }
    }

    #[test]
    fn cross_entropy_and_its_gradient(samples in 1usize..5, classes in 1usize..9, seed in any::<u64>()) {
        let logits: Vec<f32> = values(samples * classes, seed).iter().map(|v| 8.0 * v).collect();
        let labels: Vec<u32> = (0..samples).map(|i| ((seed as usize % 7 + i) % classes) as u32).collect();
        let loss = |logits: &[f64]| {
            let rows = logits.chunks(classes).zip(&labels);
            let each = rows.map(|(row, label)| row.iter().map(|v| v.exp()).sum::<f64>().ln() - row[*label as usize]);
            each.sum::<f64>() / samples as f64
        };
        let mut gradient = vec![f32::NAN; logits.len()];
        let got = cross_entropy(&logits, classes, &labels, &mut gradient).unwrap();
        prop_assert!((f64::from(got) - loss(&wide(&logits))).abs() < 1e-5);
        assert_close(&gradient, &numeric_gradient(&wide(&logits), loss), 1e-6, &(samples, classes));
    }
}

#[test]
fn of_equal_values_the_first_wins_and_what_is_no_number_stays() {
    let pool = Pool::new([2, 2], Pool2d { kernel: [2; 2], stride: [1; 2], padding: Padding::default() }).unwrap();
    let (mut output, mut places) = ([0.0; 2], [9; 2]);
    pool.max(&[1.0, 3.0, 3.0, 0.0, 1.0, 5.0, f32::NAN, 7.0], &mut output, &mut places).unwrap();
    assert_eq!((output[0], places), (3.0, [1, 2]));
    assert!(output[1].is_nan());
    assert!(pool.max_gradient(&[1.0], &[4], &mut [0.0; 4]).is_err());
}

#[test]
fn dropout_keeps_means_and_drops_its_share() {
    let count = 300_000;
    for rate in [0.0, 0.1, 0.5, 0.9] {
        let dropout = Dropout::new(rate).unwrap();
        on_every_isa(
            |_| {
                let mut values = vec![1.0; count];
                dropout.apply(11, count, &mut values).unwrap();
                values
            },
            |_, values| {
                let dropped = values.iter().filter(|value| **value == 0.0).count() as f64 / count as f64;
                let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / count as f64;
                // Five standard errors of a share of 300 000.
                let slack = 5.0 * (rate * (1.0 - rate) / count as f64).sqrt();
                assert!((dropped - rate).abs() <= slack, "{rate}: {dropped}");
                assert!((mean - 1.0).abs() <= slack / (1.0 - rate) + 1e-6, "{rate}: {mean}");
            },
        );
    }
}

#[test]
fn masks_follow_their_key_and_repeat_after_their_period() {
    let dropout = Dropout::new(0.3).unwrap();
    let mask = |key, period, len| {
        let mut values = vec![1.0; len];
        dropout.apply(key, period, &mut values).unwrap();
        values
    };
    // Longer than a unit of work, which is not a multiple of 1 000.
    let long = mask(1, 1_000, 100_000);
    assert!(long.chunks(1_000).all(|part| part == mask(1, 1_000, 1_000)));
    let [one, two] = [mask(1, 100_000, 100_000), mask(2, 100_000, 100_000)];
    let both = one.iter().zip(&two).filter(|(a, b)| **a == 0.0 && **b == 0.0).count();
    // Independent masks drop 9 % together, with a standard error of 0.09 %.
    assert!((both as f64 / 100_000.0 - 0.09).abs() < 0.005, "{both}");
    for rate in [-0.1, 1.0, f64::NAN] {
        assert!(matches!(Dropout::new(rate), Err(TrainingError::DropoutRate { .. })));
    }
    assert!(dropout.apply(1, 0, &mut []).is_err());
    assert!(dropout.apply(1, 3, &mut [0.0; 4]).is_err());
}

#[test]
fn means_of_whole_planes() {
    for (planes, plane) in [(7, 1), (33, 49), (40, 4096)] {
        let x = values(planes * plane, 1);
        let want = of(&wide(&x), [plane, 1]).mean().data;
        on_every_isa(
            |isa| {
                let mut output = vec![0.0; planes];
                global_average(isa, plane, &x, &mut output).unwrap();
                output
            },
            |isa, got| assert_close(got, &want, 1e-6, &(isa, planes, plane)),
        );
        let mut gradient = vec![0.0; x.len()];
        global_average_gradient(plane, &vec![plane as f32; planes], &mut gradient).unwrap();
        assert!(gradient.iter().all(|v| *v == 1.0));
    }
}

#[test]
fn each_value_by_itself() {
    let x = values(200_003, 1);
    let [mut output, mut gradient, mut sum] = [vec![0.0; x.len()], vec![2.0; x.len()], x.clone()];
    relu(&x, &mut output).unwrap();
    relu_gradient(&x, &mut gradient).unwrap();
    add_assign(&mut sum, &output).unwrap();
    for i in 0..x.len() {
        assert_eq!((output[i], gradient[i]), (x[i].max(0.0), if x[i] > 0.0 { 2.0 } else { 0.0 }));
        assert_eq!(sum[i], x[i] + output[i]);
    }
    relu(&[f32::NAN], &mut output[..1]).unwrap();
    assert!(output[0].is_nan());
}

#[test]
fn a_label_must_be_a_class() {
    let error = cross_entropy(&[0.0; 4], 2, &[0, 2], &mut [0.0; 4]).unwrap_err();
    assert_eq!(error, TrainingError::Label { label: 2, sample: 1, classes: 2 });
}
