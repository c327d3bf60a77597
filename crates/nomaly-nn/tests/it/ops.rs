//! The kernels as candle operations against candle's own, which serve tensors of double precision on a CPU.

use candle_core::{DType, Device, Result, Tensor, Var};
use nomaly_kernels::geometry::{Activation, Padding, Pool2d};
use nomaly_kernels::training::{AfterNorm, AverageOver, Border, Dropout, UpsampleMode};
use nomaly_nn::ops::{self, ConvGeometry, Norm, VarOptimizer};
use nomaly_nn::trainable::{Rule, StableForm, WeightDecay};

use crate::formula;

/// A variable of one precision with values by the formula.
fn variable(name: &str, shape: &[usize], dtype: DType) -> Result<Var> {
    let values: Vec<f64> = formula::values(name, shape.iter().product()).collect();
    Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(DType::F32)?.to_dtype(dtype)?)
}

fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}

fn assert_close(what: &str, got: &Tensor, want: &Tensor) -> Result<()> {
    assert_eq!(got.dims(), want.dims(), "{what}");
    let (got, want) = (values(got)?, values(want)?);
    let greatest = want.iter().fold(1e-3f64, |greatest, value| greatest.max(value.abs()));
    for (index, (got, want)) in got.iter().zip(&want).enumerate() {
        // Single precision, sums of some hundred terms.
        assert!((got - want).abs() <= 2e-5 * greatest, "{what}: value {index} is {got}, expected {want}");
    }
    Ok(())
}

/// Compares result and gradients of an operation on variables of these shapes, in both precisions.
fn check(what: &str, shapes: &[&[usize]], operation: impl Fn(&[Var]) -> Result<Tensor>) -> Result<()> {
    let run = |dtype| -> Result<Vec<Tensor>> {
        let variables: Vec<Var> =
            (0..).zip(shapes).map(|(i, shape)| variable(&format!("x{i}"), shape, dtype)).collect::<Result<_>>()?;
        let result = operation(&variables)?;
        let weights = variable("gradient", result.dims(), dtype)?;
        let gradients = (&result * weights.as_tensor())?.sum_all()?.backward()?;
        let mut tensors = vec![result];
        for variable in &variables {
            tensors.push(gradients.get(variable).expect("a gradient").clone());
        }
        Ok(tensors)
    };
    for (index, (got, want)) in run(DType::F32)?.iter().zip(&run(DType::F64)?).enumerate() {
        assert_close(&format!("{what}, tensor {index}"), got, want)?;
    }
    Ok(())
}

#[test]
fn convolutions() -> Result<()> {
    for (kernel, stride, padding) in [(3, 1, 1), (3, 2, 1), (1, 1, 0), (1, 2, 0), (5, 1, 2)] {
        let shapes: [&[usize]; 3] = [&[2, 5, 9, 9], &[18, 5, kernel, kernel], &[18]];
        check("conv2d", &shapes, |v| ops::conv2d(&v[0], &v[1], Some(&v[2]), [stride; 2], [padding; 2]))?;
        check("conv2d without bias", &shapes[..2], |v| ops::conv2d(&v[0], &v[1], None, [stride; 2], [padding; 2]))?;
    }
    for (kernel, stride, padding, extra) in [(2, 2, 0, 0), (3, 2, 1, 1), (3, 1, 1, 0)] {
        let shapes: [&[usize]; 3] = [&[2, 5, 4, 4], &[5, 18, kernel, kernel], &[18]];
        check("conv_transpose2d", &shapes, |v| {
            ops::conv_transpose2d(&v[0], &v[1], Some(&v[2]), stride, padding, extra)
        })?;
    }
    for (groups, out, kernel) in [(2, 6, 3), (4, 8, 2), (4, 4, 3)] {
        // Sides that differ, and windows that leave the last column out.
        let padding = Padding { top: 1, bottom: 0, left: 0, right: 1 };
        let geometry = ConvGeometry { stride: [2; 2], padding, groups };
        let shapes: [&[usize]; 3] = [&[2, 4, 6, 9], &[out, 4 / groups, kernel, kernel], &[out]];
        check("conv2d_with", &shapes, |v| ops::conv2d_with(&v[0], &v[1], Some(&v[2]), geometry))?;
    }
    check("linear", &[&[6, 20], &[33, 20], &[33]], |v| ops::linear(&v[0], &v[1], Some(&v[2])))?;
    // A transposed view is made contiguous first.
    check("a view", &[&[2, 5, 6, 4], &[3, 5, 3, 3]], |v| {
        ops::conv2d(&v[0].transpose(2, 3)?, &v[1], None, [1, 1], [1, 1])
    })
}

#[test]
fn pools() -> Result<()> {
    for (kernel, stride, padding) in [(2, 2, 0), (3, 2, 1), (3, 1, 0)] {
        check("max_pool2d", &[&[2, 3, 7, 8]], |v| ops::max_pool2d(&v[0], kernel, stride, padding))?;
        check("avg_pool2d", &[&[2, 3, 7, 8]], |v| ops::avg_pool2d(&v[0], kernel, stride, padding))?;
    }
    let square = |kernel, stride, padding| Pool2d { kernel: [kernel; 2], stride: [stride; 2], padding };
    let uneven = square(3, 2, Padding { top: 1, bottom: 0, left: 0, right: 2 });
    check("max_pool2d_with", &[&[2, 3, 6, 7]], |v| ops::max_pool2d_with(&v[0], uneven))?;
    for over in [AverageOver::Window, AverageOver::Inside] {
        check("avg_pool2d_with", &[&[2, 3, 6, 7]], |v| ops::avg_pool2d_with(&v[0], uneven, over))?;
    }
    check("global_max_pool", &[&[2, 3, 7, 8]], |v| ops::global_max_pool(&v[0]))?;
    // The maximum occurs twice.
    check("global_max_pool", &[&[2, 3, 1, 4]], |v| {
        ops::global_max_pool(&Tensor::cat(&[v[0].as_tensor(), v[0].as_tensor()], 2)?)
    })?;
    check("global_avg_pool", &[&[2, 3, 7, 8]], |v| ops::global_avg_pool(&v[0]))
}

#[test]
fn padding_and_upsampling() -> Result<()> {
    for border in [Border::Zeros, Border::Reflection] {
        let sides = Padding { top: 1, bottom: 2, left: 3, right: 0 };
        check("pad2d", &[&[2, 3, 4, 5]], |v| ops::pad2d(&v[0], sides, border))?;
    }
    for mode in [UpsampleMode::Nearest, UpsampleMode::Bilinear, UpsampleMode::BilinearCorners] {
        for factor in [1, 2, 3] {
            check(&format!("{mode:?}"), &[&[2, 3, 4, 5]], |v| ops::upsample2d(&v[0], factor, mode))?;
        }
    }
    let x = variable("x", &[1, 1, 2, 2], DType::F64)?;
    assert!(ops::pad2d(&x, Padding::symmetric(2), Border::Reflection).is_err(), "as large as the image");
    Ok(())
}

#[test]
fn elementwise() -> Result<()> {
    let activations = [
        Activation::Identity,
        Activation::Relu,
        Activation::Relu6,
        Activation::Silu,
        Activation::Sigmoid,
        Activation::leaky_relu(0.1),
        Activation::Tanh,
        Activation::Gelu,
        Activation::GeluTanh,
    ];
    for activation in activations {
        check(&format!("{activation:?}"), &[&[3, 70]], |v| ops::activation(&v[0].affine(4.0, 1.0)?, activation))?;
    }
    check("softmax", &[&[3, 7, 1, 1]], |v| ops::softmax(&v[0].affine(4.0, 0.0)?))?;
    check("gate", &[&[2, 5, 3, 4], &[2, 5, 1, 1]], |v| ops::gate(&v[0], &v[1]))?;
    let dropout = Dropout::new(0.3).unwrap();
    check("dropout", &[&[2, 5, 3, 4]], |v| ops::dropout(&v[0], dropout, 7, 60))
}

#[test]
fn norms_by_fixed_and_own_statistics() -> Result<()> {
    let shapes: [&[usize]; 3] = [&[3, 4, 5, 5], &[4], &[4]];
    check("instance_norm", &shapes, |v| ops::instance_norm(&v[0], &v[1], &v[2], 1e-5))?;
    check("batch_norm_fixed", &shapes, |v| {
        let mean = variable("mean", &[4], v[0].dtype())?;
        ops::batch_norm_fixed(&v[0], &v[1], &v[2], [mean.as_tensor(), &mean.sqr()?], 1e-2)
    })
}

#[test]
fn batch_norm_moves_the_running_statistics() -> Result<()> {
    for after in [AfterNorm::Nothing, AfterNorm::Relu] {
        let norm = Norm { after, ..Norm::default() };
        let shapes: [&[usize]; 3] = [&[3, 4, 5, 5], &[4], &[4]];
        check("batch_norm", &shapes, |v| ops::batch_norm(&v[0], &v[1], &v[2], None, norm))?;
    }
    let run = |dtype| -> Result<[Tensor; 2]> {
        let [x, weight] = [("x", vec![3, 4, 5, 5]), ("w", vec![4])].map(|(name, shape)| variable(name, &shape, dtype));
        let [mean, variance] = [("mean", [4]), ("variance", [4])].map(|(name, shape)| variable(name, &shape, dtype));
        let (weight, mean, variance) = (weight?, mean?, variance?);
        ops::batch_norm(x?.as_tensor(), &weight, &weight, Some([&mean, &variance]), Norm::default())?;
        Ok([mean.detach(), variance.detach()])
    };
    let ([mean, variance], [want_mean, want_variance]) = (run(DType::F32)?, run(DType::F64)?);
    assert_close("running mean", &mean, &want_mean)?;
    assert_close("running variance", &variance, &want_variance)
}

#[test]
fn cross_entropy() -> Result<()> {
    let labels = Tensor::new(&[2u32, 0, 4], &Device::Cpu)?;
    check("cross_entropy", &[&[3, 5]], |v| ops::cross_entropy(&v[0].affine(5.0, 0.0)?, &labels))?;
    let logits = variable("logits", &[3, 4], DType::F32)?;
    assert!(ops::cross_entropy(&logits, &labels).is_err(), "4 is no class");
    Ok(())
}

#[test]
fn optimizers_move_variables_in_place() -> Result<()> {
    let sgd =
        |weight_decay, dampening, nesterov| Rule::Sgd { rate: 0.1, momentum: 0.9, dampening, weight_decay, nesterov };
    let (rate, betas, epsilon, weight_decay) = (0.01, [0.9, 0.99], 1e-8, 0.1);
    let adam = |decay, amsgrad| Rule::Adam { rate, betas, epsilon, weight_decay, decay, amsgrad };
    let nadam = |decay| Rule::NAdam { rate, betas, epsilon, momentum_decay: 0.1, weight_decay, decay };
    let rmsprop =
        |momentum, centered| Rule::RmsProp { rate, alpha: 0.9, epsilon: 1e-3, weight_decay, momentum, centered };
    let stable = |form, amsgrad| Rule::StableAdamW { rate, betas, epsilon, weight_decay, amsgrad, form };
    let rules = [
        Rule::sgd(0.1, 0.0),
        sgd(0.1, 0.0, true),
        sgd(0.0, 0.3, false),
        adam(WeightDecay::Gradient, false),
        adam(WeightDecay::Decoupled, true),
        Rule::adamw(0.01),
        Rule::nadam(0.01),
        nadam(WeightDecay::Decoupled),
        Rule::rmsprop(0.01),
        rmsprop(0.0, true),
        rmsprop(0.5, false),
        rmsprop(0.5, true),
        Rule::stable_adamw(0.01),
        stable(StableForm::Published, false),
        stable(StableForm::Dinomaly, true),
    ];
    for rule in rules {
        let run = |dtype| -> Result<Tensor> {
            let (moved, fixed) = (variable("moved", &[7, 9], dtype)?, variable("fixed", &[3], dtype)?);
            let target = variable("target", &[7, 9], dtype)?.detach();
            let mut optimizer = VarOptimizer::new(rule, vec![moved.clone(), fixed.clone()]);
            for _ in 0..4 {
                let gradients = (moved.as_tensor() - &target)?.sqr()?.sum_all()?.backward()?;
                optimizer.step(&gradients)?;
            }
            let before = variable("fixed", &[3], dtype)?;
            assert_eq!(values(&fixed)?, values(&before)?, "no gradient, no step");
            Ok(moved.detach())
        };
        assert_close(&format!("{rule:?}"), &run(DType::F32)?, &run(DType::F64)?)?;
    }
    Ok(())
}
