//! Seconds of single passes of the spatial training kernels.
//!
//! `training_kernels` reads a case from each line of standard input and writes the seconds of one pass; the first line
//! of a case includes planning and warming up, outside of the measured time. Made for `compare/training_kernels.py`,
//! which describes the cases and alternates it with PyTorch. `RAYON_NUM_THREADS` sets the threads.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::error::Error;
use std::io::Write;
use std::time::Instant;

use nomaly_kernels::Isa;
use nomaly_kernels::geometry::{Padding, Pool2d};
use nomaly_kernels::training::{
    AverageOver, Border, Conv2d, ConvShape, ConvTranspose2d, ConvTransposeShape, Pad, Pool, Upsample, UpsampleMode,
};

type Failure = Box<dyn Error>;
type Pass = Box<dyn FnMut() -> Result<(), Failure>>;

fn values(count: usize) -> Vec<f32> {
    (0..count as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// The pass that a line describes.
fn pass(line: &str) -> Result<Pass, Failure> {
    let mut words = line.split_whitespace();
    let kind = words.next().ok_or("an empty line")?;
    let forward = line.ends_with("forward");
    let mut numbers = Vec::new();
    let mut mode = "";
    for word in words {
        match word.parse::<usize>() {
            Ok(number) => numbers.push(number),
            Err(_) if mode.is_empty() => mode = word,
            Err(_) => {}
        }
    }
    let isa = Isa::best()?;
    // Both convolutions have the same methods.
    macro_rules! convolution {
        ($conv:expr, $images:expr) => {{
            let conv = $conv;
            let (x, w) = (values($images * conv.input_len()), values(conv.weight_len()));
            let mut y = values($images * conv.output_len());
            let (mut dx, mut dw) = (x.clone(), w.clone());
            Box::new(move || {
                if forward {
                    conv.forward(&x, &w, None, &mut y)?;
                } else {
                    conv.input_gradient(&y, &w, &mut dx)?;
                    conv.weight_gradient(&x, &y, &mut dw)?;
                }
                Ok(())
            })
        }};
    }
    Ok(match (kind, &numbers[..]) {
        ("conv", &[images, in_channels, out_channels, size, kernel, stride, padding, groups]) => {
            let shape = ConvShape {
                in_channels,
                out_channels,
                input: [size; 2],
                kernel: [kernel; 2],
                stride: [stride; 2],
                padding: Padding::symmetric(padding),
                groups,
            };
            convolution!(Conv2d::new(isa, shape)?, images)
        }
        ("transposed", &[images, in_channels, out_channels, size, kernel, stride, padding, extra]) => {
            let shape = ConvTransposeShape {
                in_channels,
                out_channels,
                input: [size; 2],
                kernel: [kernel; 2],
                stride: [stride; 2],
                padding: Padding::symmetric(padding),
                output_padding: [extra; 2],
            };
            convolution!(ConvTranspose2d::new(isa, shape)?, images)
        }
        ("pool", &[images, channels, size, kernel, stride, padding]) => {
            let pool = Pool2d { kernel: [kernel; 2], stride: [stride; 2], padding: Padding::symmetric(padding) };
            let pool = Pool::new([size; 2], pool)?;
            let mut x = values(images * channels * size * size);
            let mut y = values(images * channels * pool.output()[0] * pool.output()[1]);
            let mut places = vec![0; y.len()];
            pool.max(&x, &mut y, &mut places)?;
            let over = match mode {
                "max" => None,
                "window" => Some(AverageOver::Window),
                "inside" => Some(AverageOver::Inside),
                _ => return Err(format!("an unknown pool: {line}").into()),
            };
            Box::new(move || {
                match (over, forward) {
                    (None, true) => pool.max(&x, &mut y, &mut places)?,
                    (None, false) => pool.max_gradient(&y, &places, &mut x)?,
                    (Some(over), true) => pool.average(over, &x, &mut y)?,
                    (Some(over), false) => pool.average_gradient(over, &y, &mut x)?,
                }
                Ok(())
            })
        }
        ("upsample", &[images, channels, size, to]) => {
            let interpolation = match mode {
                "nearest" => UpsampleMode::Nearest,
                "bilinear" => UpsampleMode::Bilinear,
                "corners" => UpsampleMode::BilinearCorners,
                _ => return Err(format!("an unknown interpolation: {line}").into()),
            };
            let plan = Upsample::new(isa, [size; 2], [to; 2], interpolation)?;
            let mut x = values(images * channels * size * size);
            let mut y = values(images * channels * to * to);
            Box::new(move || {
                if forward {
                    plan.forward(&x, &mut y)?;
                } else {
                    plan.input_gradient(&y, &mut x)?;
                }
                Ok(())
            })
        }
        ("reflect", &[images, channels, size, padding]) => {
            let plan = Pad::new([size; 2], Padding::symmetric(padding), Border::Reflection)?;
            let mut x = values(images * channels * size * size);
            let mut y = values(images * channels * plan.output()[0] * plan.output()[1]);
            Box::new(move || {
                if forward {
                    plan.forward(&x, &mut y)?;
                } else {
                    plan.input_gradient(&y, &mut x)?;
                }
                Ok(())
            })
        }
        _ => return Err(format!("an unknown case: {line}").into()),
    })
}

fn main() -> Result<(), Failure> {
    let mut passes = HashMap::new();
    println!("ready");
    for line in std::io::stdin().lines() {
        let line = line?;
        if !passes.contains_key(&line) {
            // One case at a time, as memory is limited.
            passes.clear();
            let mut made = pass(&line)?;
            made()?;
            made()?;
            passes.insert(line.clone(), made);
        }
        let made = passes.get_mut(&line).ok_or("a case that was just made")?;
        let began = Instant::now();
        made()?;
        println!("{}", began.elapsed().as_secs_f64());
        std::io::stdout().flush()?;
    }
    Ok(())
}
