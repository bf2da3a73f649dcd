//! Latencies as the figures that people compare.
//!
//! Samples are kept whole until a run is over and summed up here, and not in
//! running histograms: which of them belong to the window, or to the time of a
//! fault, is known only afterwards.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Quantiles of a latency, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Quantiles {
    /// Samples that these are of.
    pub(crate) count: u64,
    /// The median.
    pub(crate) p50_ms: f64,
    /// Exceeded by one in a hundred.
    pub(crate) p99_ms: f64,
    /// Exceeded by one in a thousand.
    pub(crate) p999_ms: f64,
    /// The longest.
    pub(crate) max_ms: f64,
}

impl Quantiles {
    /// Of samples in microseconds, to three digits. All zero when there are none.
    pub(crate) fn of_us(samples: impl IntoIterator<Item = u64>) -> Self {
        let mut histogram =
            Histogram::<u64>::new(3).expect("a histogram may have up to five digits");
        let mut longest = 0;
        for sample in samples {
            // It grows as it needs to; what no histogram holds (2^63 and more)
            // is no latency.
            let _ = histogram.record(sample);
            longest = longest.max(sample);
        }
        // A bucket's upper end lies above the samples in it.
        let at = |quantile| ms(histogram.value_at_quantile(quantile).min(longest));
        Self {
            count: histogram.len(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: ms(longest),
        }
    }
}

/// A number of deliveries or calls in a time, a second.
pub(crate) fn per_second(count: u64, time: std::time::Duration) -> f64 {
    if time.is_zero() { 0.0 } else { rounded(count as f64 / time.as_secs_f64()) }
}

/// To a thousandth: what is printed should not pretend to more.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn ms(us: u64) -> f64 {
    rounded(us as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn quantiles_of_a_ramp_are_its_positions() {
        let quantiles = Quantiles::of_us((1..=1000).map(|ms| ms * 1000));
        let near = |value: f64, wanted: f64| assert!((value - wanted).abs() <= wanted / 500.0);
        assert_eq!(quantiles.count, 1000);
        near(quantiles.p50_ms, 500.0);
        near(quantiles.p99_ms, 990.0);
        near(quantiles.p999_ms, 999.0);
        near(quantiles.max_ms, 1000.0);
    }

    #[test]
    fn no_quantile_is_above_the_longest() {
        let quantiles = Quantiles::of_us([1234]);
        assert_eq!((quantiles.p50_ms, quantiles.p999_ms), (quantiles.max_ms, quantiles.max_ms));
    }

    #[test]
    fn no_samples_are_all_zero() {
        assert_eq!(Quantiles::of_us([]), Quantiles::default());
    }

    #[test]
    fn rates_are_a_second_and_none_in_no_time() {
        assert_eq!(per_second(300, Duration::from_millis(1500)), 200.0);
        assert_eq!(per_second(300, Duration::ZERO), 0.0);
    }
}
