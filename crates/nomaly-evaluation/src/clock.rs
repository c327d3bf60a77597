//! Time and memory of an evaluation.

use std::time::Instant;

/// The peak memory of this process in MiB, if the system reports it.
pub fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some((kib / 1024.0 * 10.0).round() / 10.0)
}

/// Times batches as they arrive: the time since the previous batch belongs to the images of the current one.
pub(crate) struct BatchClock {
    began: Instant,
    last: Instant,
    batch: Option<usize>,
    waited_ms: f64,
    in_batch: usize,
    images: usize,
    ms_per_image: Vec<f64>,
}

impl BatchClock {
    pub(crate) fn start() -> Self {
        let now = Instant::now();
        Self { began: now, last: now, batch: None, waited_ms: 0.0, in_batch: 0, images: 0, ms_per_image: Vec::new() }
    }

    /// Counts one image of the batch with this number.
    pub(crate) fn record(&mut self, batch: usize) {
        if self.batch != Some(batch) {
            self.close();
            let now = Instant::now();
            self.waited_ms = (now - self.last).as_secs_f64() * 1e3;
            self.last = now;
            self.batch = Some(batch);
        }
        self.in_batch += 1;
        self.images += 1;
    }

    fn close(&mut self) {
        if self.in_batch > 0 {
            self.ms_per_image.push(self.waited_ms / self.in_batch as f64);
        }
        self.in_batch = 0;
    }

    /// The median of milliseconds per image, and images per second.
    pub(crate) fn stop(mut self) -> (f64, f64) {
        self.close();
        self.ms_per_image.sort_by(f64::total_cmp);
        let median = self.ms_per_image.get(self.ms_per_image.len() / 2).copied().unwrap_or(f64::NAN);
        (median, self.images as f64 / self.began.elapsed().as_secs_f64())
    }
}
