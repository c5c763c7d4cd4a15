//! What a row of samples says: a trend with its error, a median with its spread. Pure.

use serde::Serialize;

/// A straight line through samples, by least squares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Trend {
    /// Samples.
    pub samples: usize,
    /// Change of the value a second.
    pub slope: f64,
    /// Standard error of the slope. Samples that follow each other resemble each other; the error is widened by their
    /// correlation (an AR(1) process' factor).
    pub error: f64,
    /// Standard deviation of the samples around the line.
    pub scatter: f64,
    /// The line's value at the first sample.
    pub from: f64,
    /// The line's value at the last sample.
    pub to: f64,
}

impl Trend {
    /// The trend of `(seconds, value)`; all zero with less than three samples.
    pub fn of(samples: &[(f64, f64)]) -> Self {
        let n = samples.len() as f64;
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return Self::default() };
        let mean = |of: fn(&(f64, f64)) -> f64| samples.iter().map(of).sum::<f64>() / n;
        let (mid_x, mid_y) = (mean(|s| s.0), mean(|s| s.1));
        let spread: f64 = samples.iter().map(|s| (s.0 - mid_x).powi(2)).sum();
        if samples.len() < 3 || spread == 0.0 {
            return Self::default();
        }
        let slope = samples.iter().map(|s| (s.0 - mid_x) * (s.1 - mid_y)).sum::<f64>() / spread;
        let at = |x: f64| mid_y + slope * (x - mid_x);
        let off: Vec<f64> = samples.iter().map(|s| s.1 - at(s.0)).collect();
        let squares: f64 = off.iter().map(|off| off * off).sum();
        let scatter = (squares / (n - 2.0)).sqrt();
        let alike: f64 = off.windows(2).map(|pair| pair[0] * pair[1]).sum();
        let correlation = if squares > 0.0 { (alike / squares).clamp(0.0, 0.95) } else { 0.0 };
        let widened = ((1.0 + correlation) / (1.0 - correlation)).sqrt();
        let error = scatter / spread.sqrt() * widened;
        Self { samples: samples.len(), slope, error, scatter, from: at(first.0), to: at(last.0) }
    }
}

/// Several measurements of one thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// How many.
    pub count: usize,
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// The spread of `values`; zero of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (values.first(), values.last()) else { return Self::default() };
        let half = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[half] } else { f64::midpoint(values[half - 1], values[half]) };
        Self { count: values.len(), median, min, max }
    }
}

#[cfg(test)]
mod tests {
    //! Method: lines by hand, and noise from a fixed recurrence.
    use super::*;

    #[test]
    fn a_line_is_found_through_noise_and_its_error_covers_the_truth() {
        let mut noise = 1_u32;
        let mut samples = Vec::new();
        for second in 0..60 {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            samples.push((f64::from(second), 1000.0 + 5.0 * f64::from(second) + f64::from(noise >> 24) - 127.5));
        }
        let trend = Trend::of(&samples);
        assert!((trend.slope - 5.0).abs() < 3.0 * trend.error, "{trend:?}");
        assert!(trend.error < 1.5 && trend.scatter > 40.0, "{trend:?}");
        assert!((trend.to - trend.from - 59.0 * trend.slope).abs() < 1e-6);
    }

    #[test]
    fn a_wandering_level_is_not_taken_for_a_trend() {
        // Thirty samples low, then ten high, twice: no trend, and the samples resemble their neighbours.
        let level = |second: usize| if (second / 10).is_multiple_of(2) { 0.0 } else { 100.0 };
        let samples: Vec<_> = (0..40).map(|second| (second as f64, level(second))).collect();
        let trend = Trend::of(&samples);
        assert!(trend.slope.abs() < 2.0 * trend.error, "{trend:?}");
    }

    #[test]
    fn few_samples_have_no_trend() {
        assert_eq!(Trend::of(&[(0.0, 1.0), (1.0, 2.0)]), Trend::default());
        assert_eq!(Trend::of(&[]), Trend::default());
    }

    #[test]
    fn the_middle_of_an_even_number_is_between_two() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Spread { count: 3, median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(Spread::of([]), Spread::default());
    }
}
