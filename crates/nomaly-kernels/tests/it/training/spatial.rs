//! Convolutions in groups, transposed convolutions, interpolation, concatenation, padding and pooling: against PyTorch
//! in double precision (`tests/fixtures/gen_spatial.py`), finite differences, and the definitions.

use nomaly_kernels::geometry::{Padding, Pool2d};
use nomaly_kernels::training::{
    AverageOver, Border, Concat, Conv2d, ConvShape, ConvTranspose2d, ConvTransposeShape, Crop, Pad, Pool,
    TrainingError, Upsample, UpsampleMode,
};
use proptest::prelude::*;
use serde_json::Value;

use super::torch::{assert_digest, integer, pair, values as by_name};
use super::{dot, numeric_gradient, on_every_isa, wide};
use crate::oracle::{assert_close, values};

fn fixture(kind: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("../../fixtures/spatial.json")).expect("a fixture");
    all[kind].as_array().expect("cases").clone()
}

#[test]
fn convolutions_of_pytorch() {
    for case in fixture("convolutions") {
        let shape = &case["shape"];
        let (images, out_channels) = (integer(&shape["images"]), integer(&shape["out"]));
        let (extra, padding) = (pair(&shape["extra"]), Padding::symmetric(integer(&shape["padding"])));
        let direct = ConvShape {
            in_channels: integer(&shape["in"]),
            out_channels,
            input: pair(&shape["input"]),
            kernel: [integer(&shape["kernel"]); 2],
            stride: [integer(&shape["stride"]); 2],
            padding: Padding { bottom: padding.bottom + extra[0], right: padding.right + extra[1], ..padding },
            groups: integer(&shape["groups"]),
        };
        let transposed = ConvTransposeShape {
            in_channels: direct.in_channels,
            out_channels,
            input: direct.input,
            kernel: direct.kernel,
            stride: direct.stride,
            padding,
            output_padding: [integer(&shape["output_padding"]); 2],
        };
        let compute = |isa| {
            // Both convolutions have the same methods.
            macro_rules! passes {
                ($conv:expr) => {{
                    let conv = $conv.expect("a valid shape");
                    let x = by_name("x", images * conv.input_len());
                    let (w, b) = (by_name("weight", conv.weight_len()), by_name("bias", out_channels));
                    let g = by_name("gradient", images * conv.output_len());
                    let mut results = [&g, &x, &w, &b].map(|like| vec![f32::NAN; like.len()]);
                    conv.forward(&x, &w, Some(&b), &mut results[0]).unwrap();
                    conv.input_gradient(&g, &w, &mut results[1]).unwrap();
                    conv.weight_gradient(&x, &g, &mut results[2]).unwrap();
                    conv.bias_gradient(&g, &mut results[3]).unwrap();
                    results
                }};
            }
            if shape["transposed"] == true {
                passes!(ConvTranspose2d::new(isa, transposed))
            } else {
                passes!(Conv2d::new(isa, direct))
            }
        };
        on_every_isa(compute, |isa, got| {
            for (got, want) in got.iter().zip(case["results"].as_array().expect("digests")) {
                // Sums of at most some hundred products of values in [-1, 1).
                assert_digest(got, want, 5e-6, &(isa, shape));
            }
        });
    }
}

#[test]
fn planes_of_pytorch() {
    for case in fixture("planes") {
        let (input, output) = (pair(&case["input"]), pair(&case["output"]));
        let [from, to] = [input, output].map(|size| 6 * size[0] * size[1]);
        let (x, g) = (by_name("x", from), by_name("gradient", to));
        let kind = case["kind"].as_str().expect("a kind");
        let compute = |isa| {
            let [mut y, mut gradient] = [vec![f32::NAN; to], vec![f32::NAN; from]];
            match kind {
                "max" | "window" | "inside" => {
                    let window = |i: usize| integer(&case["window"][i]);
                    let padding = Padding::symmetric(window(2));
                    let pool = Pool2d { kernel: [window(0); 2], stride: [window(1); 2], padding };
                    let pool = Pool::with_isa(isa, input, pool).unwrap();
                    if kind == "max" {
                        let mut places = vec![0; to];
                        pool.max(&x, &mut y, &mut places).unwrap();
                        pool.max_gradient(&g, &places, &mut gradient).unwrap();
                    } else {
                        let over = if kind == "window" { AverageOver::Window } else { AverageOver::Inside };
                        pool.average(over, &x, &mut y).unwrap();
                        pool.average_gradient(over, &g, &mut gradient).unwrap();
                    }
                }
                "pad" => {
                    let [left, right, top, bottom] = [0, 1, 2, 3].map(|side| integer(&case["sides"][side]));
                    let border = if case["mode"] == "reflect" { Border::Reflection } else { Border::Zeros };
                    let pad = Pad::new(input, Padding { top, bottom, left, right }, border).unwrap();
                    pad.forward(&x, &mut y).unwrap();
                    pad.input_gradient(&g, &mut gradient).unwrap();
                }
                _ => {
                    let interpolation = match kind {
                        "nearest" => UpsampleMode::Nearest,
                        "bilinear" => UpsampleMode::Bilinear,
                        _ => UpsampleMode::BilinearCorners,
                    };
                    let plan = Upsample::new(isa, input, output, interpolation).unwrap();
                    plan.forward(&x, &mut y).unwrap();
                    plan.input_gradient(&g, &mut gradient).unwrap();
                }
            }
            [y, gradient]
        };
        on_every_isa(compute, |isa, got| {
            for (got, want) in got.iter().zip(case["results"].as_array().expect("digests")) {
                // Sums of at most some tens of values with weights of at most one.
                assert_digest(got, want, 1e-6, &(isa, &case));
            }
        });
    }
}

/// The value of an interpolated plane by the definition.
fn interpolated(x: &[f64], [height, width]: [usize; 2], to: [usize; 2], interpolation: UpsampleMode) -> Vec<f64> {
    let source = |position: usize, from: usize, to: usize| -> f64 {
        let (position, last) = (position as f64, from as f64 - 1.0);
        match interpolation {
            UpsampleMode::Nearest if to == 2 * from || to == from => (position * from as f64 / to as f64).floor(),
            // PyTorch decides in single precision.
            UpsampleMode::Nearest => f64::from((position as f32 * (from as f32 / to as f32)).floor()).min(last),
            UpsampleMode::Bilinear => ((position + 0.5) * from as f64 / to as f64 - 0.5).clamp(0.0, last),
            UpsampleMode::BilinearCorners if to == 1 => 0.0,
            UpsampleMode::BilinearCorners => position * last / (to as f64 - 1.0),
        }
    };
    let mut result = Vec::new();
    for y in 0..to[0] {
        for x_ in 0..to[1] {
            let at = [source(y, height, to[0]), source(x_, width, to[1])];
            let mut sum = 0.0;
            for row in 0..height {
                for column in 0..width {
                    // Weights fall from one to zero over one position.
                    let weight = |at: f64, place: usize| (1.0 - (at - place as f64).abs()).max(0.0);
                    sum += weight(at[0], row) * weight(at[1], column) * x[row * width + column];
                }
            }
            result.push(sum);
        }
    }
    result
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn interpolation_and_its_gradient(
        input in [1usize..9, 1usize..20],
        output in [1usize..12, 1usize..40],
        kind in 0usize..3,
    ) {
        let interpolation =
            [UpsampleMode::Nearest, UpsampleMode::Bilinear, UpsampleMode::BilinearCorners][kind];
        let x = values(input[0] * input[1], 1);
        let g = values(output[0] * output[1], 2);
        let want = interpolated(&wide(&x), input, output, interpolation);
        let by_input = numeric_gradient(&wide(&x), |x| dot(&interpolated(x, input, output, interpolation), &g));
        on_every_isa(
            |isa| {
                let plan = Upsample::new(isa, input, output, interpolation).unwrap();
                let (mut y, mut gradient) = (vec![f32::NAN; g.len()], vec![f32::NAN; x.len()]);
                plan.forward(&x, &mut y).unwrap();
                plan.input_gradient(&g, &mut gradient).unwrap();
                [y, gradient]
            },
            |isa, [y, gradient]| {
                assert_close(y, &want, 2e-6, &(isa, input, output, interpolation));
                // Up to some hundred terms.
                assert_close(gradient, &by_input, 5e-5, &(isa, input, output, interpolation));
            },
        );
    }

    #[test]
    fn padding_and_its_gradient(
        input in [1usize..7, 1usize..20],
        sides in [0usize..6, 0usize..6, 0usize..18, 0usize..18],
        reflection in any::<bool>(),
    ) {
        let [height, width] = input;
        let limit = |side: usize, size: usize| if reflection { side.min(size - 1) } else { side };
        let padding = Padding {
            top: limit(sides[0], height),
            bottom: limit(sides[1], height),
            left: limit(sides[2], width),
            right: limit(sides[3], width),
        };
        let border = if reflection { Border::Reflection } else { Border::Zeros };
        let pad = Pad::new(input, padding, border).unwrap();
        let [rows, columns] = pad.output();
        let (x, g) = (values(2 * height * width, 1), values(2 * rows * columns, 2));
        let padded = |x: &[f64]| -> Vec<f64> {
            let place = |at: usize, before: usize, size: usize| {
                let at = at as isize - before as isize;
                let last = size as isize - 1;
                let mirrored = if at < 0 { -at } else if at > last { 2 * last - at } else { at };
                (reflection || mirrored == at).then_some(mirrored as usize)
            };
            let at = |i: usize| {
                let (plane, y, x_) = (i / (rows * columns), i / columns % rows, i % columns);
                match (place(y, padding.top, height), place(x_, padding.left, width)) {
                    (Some(y), Some(x_)) => x[(plane * height + y) * width + x_],
                    _ => 0.0,
                }
            };
            (0..2 * rows * columns).map(at).collect()
        };
        let (mut y, mut gradient) = (vec![f32::NAN; g.len()], vec![f32::NAN; x.len()]);
        pad.forward(&x, &mut y).unwrap();
        pad.input_gradient(&g, &mut gradient).unwrap();
        assert_close(&y, &padded(&wide(&x)), 0.0, &(padding, border));
        let by_input = numeric_gradient(&wide(&x), |x| dot(&padded(x), &g));
        assert_close(&gradient, &by_input, 1e-5, &(padding, border));
        if !reflection {
            // A crop undoes the padding, and its gradient is the padding.
            let crop = Crop::new([rows, columns], [padding.top, padding.left], input).unwrap();
            let mut back = vec![f32::NAN; x.len()];
            crop.forward(&y, &mut back).unwrap();
            prop_assert_eq!(&back, &x);
            let mut again = vec![f32::NAN; y.len()];
            crop.input_gradient(&x, &mut again).unwrap();
            prop_assert_eq!(&again, &y);
        }
    }

    #[test]
    fn concatenation_and_its_gradient(
        channels in prop::collection::vec(1usize..5, 1..5),
        plane in 1usize..60,
        images in 0usize..4,
    ) {
        let concat = Concat::new(&channels, plane).unwrap();
        let parts: Vec<Vec<f32>> =
            channels.iter().enumerate().map(|(i, c)| values(images * c * plane, i as u64)).collect();
        let mut whole = vec![f32::NAN; images * concat.output_len()];
        let slices: Vec<&[f32]> = parts.iter().map(Vec::as_slice).collect();
        concat.forward(&slices, &mut whole).unwrap();
        let mut rest = whole.as_slice();
        for image in 0..images {
            for (part, channels) in parts.iter().zip(&channels) {
                let (here, after) = rest.split_at(channels * plane);
                prop_assert_eq!(here, &part[image * channels * plane..(image + 1) * channels * plane]);
                rest = after;
            }
        }
        let mut back: Vec<Vec<f32>> = parts.iter().map(|part| vec![f32::NAN; part.len()]).collect();
        let mut slices: Vec<&mut [f32]> = back.iter_mut().map(Vec::as_mut_slice).collect();
        concat.split(&whole, &mut slices).unwrap();
        prop_assert_eq!(back, parts);
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let pad = Pad::new([3, 9], Padding::symmetric(3), Border::Reflection).unwrap_err();
    assert_eq!(pad, TrainingError::Reflection { padding: 3, size: 3 });
    let crop = Crop::new([5, 5], [0, 3], [5, 3]).unwrap_err();
    assert_eq!(crop, TrainingError::Crop { input: [5, 5], start: [0, 3], size: [5, 3] });
    let empty = Upsample::new(nomaly_kernels::Isa::Portable, [2, 0], [4, 4], UpsampleMode::Nearest).unwrap_err();
    assert_eq!(empty, TrainingError::ZeroSize { what: "the width of the input" });
    assert_eq!(Concat::new(&[], 4).unwrap_err(), TrainingError::ZeroSize { what: "the number of parts" });
    let concat = Concat::new(&[1, 2], 1).unwrap();
    let error = concat.forward(&[&[0.0], &[0.0]], &mut [0.0; 3]).unwrap_err();
    assert_eq!(error, TrainingError::Length { what: "a part", expected: 2, found: 1 });
}
