//! Training kernels against loops in double precision, finite differences and PyTorch.

mod activation;
mod attention;
mod channel_scale;
mod clip;
mod convolution;
mod losses;
mod norm;
mod optimizer;
mod optimizer_torch;
mod others;
mod row_norm;
mod spatial;
mod torch;
mod torch_layers;

use nomaly_kernels::Isa;

/// Runs `compute` on every instruction set with one and with two threads, asserts that both give the same bits, and
/// hands the results to `check`.
fn on_every_isa<T: PartialEq + std::fmt::Debug + Send>(compute: impl Fn(Isa) -> T + Sync, check: impl Fn(Isa, &T)) {
    for isa in Isa::available() {
        let [one, two] = [1, 2].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| compute(isa))
        });
        assert!(one == two, "{isa}: two threads give another result than one");
        check(isa, &one);
    }
}

/// The derivative of `f` by each value of `x`, by central differences.
fn numeric_gradient(x: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let step = 1e-5;
    let mut x = x.to_vec();
    (0..x.len())
        .map(|i| {
            let value = x[i];
            x[i] = value + step;
            let above = f(&x);
            x[i] = value - step;
            let below = f(&x);
            x[i] = value;
            (above - below) / (2.0 * step)
        })
        .collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

fn dot(a: &[f64], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * f64::from(*b)).sum()
}
