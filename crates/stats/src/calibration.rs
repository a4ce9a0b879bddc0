//! Whether probabilities mean what they say.

/// How well probabilities of the true class fit the items.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// Share of items on the right side of one half, a probability of one half counting as true (`predict` of scikit-learn
    /// asks for more than one half; no probability is exactly that).
    pub accuracy: f64,
    /// Mean squared distance from the outcome (Brier 1950; `sklearn.metrics.brier_score_loss`).
    pub brier: f64,
    /// Mean negative log-likelihood in nats; infinite where a probability of 0 or 1 was wrong.
    pub log_loss: f64,
    /// Expected calibration error: the distance between mean probability and share in every bin, weighted by the bin's items.
    pub ece: f64,
    /// Ten bins of equal width.
    pub bins: Vec<Bin>,
}

/// The items whose probability falls between two values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bin {
    /// The lower end, which belongs to the bin. The upper end belongs to the next bin, except for 1.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// How many items it holds.
    pub items: usize,
    /// Their mean probability; NaN for none.
    pub probability: f64,
    /// Share of them that is of the true class; NaN for none.
    pub share: f64,
}

/// Bins of a calibration table.
const BINS: usize = 10;

/// Scores probabilities by what happened. All NaN for no items. Panics unless there is one label per probability.
pub fn calibration(probabilities: &[f64], labels: &[bool]) -> Calibration {
    assert_eq!(probabilities.len(), labels.len(), "one label a probability");
    let n = labels.len() as f64;
    let pairs = || probabilities.iter().zip(labels);
    let mean = |of: &dyn Fn(f64, bool) -> f64| pairs().map(|(&p, &label)| of(p, label)).sum::<f64>() / n;
    let bins: Vec<Bin> = (0..BINS).map(|bin| self::bin(bin, probabilities, labels)).collect();
    let gap = |bin: &Bin| bin.items as f64 / n * (bin.probability - bin.share).abs();
    Calibration {
        accuracy: mean(&|p, label| f64::from((p >= 0.5) == label)),
        brier: mean(&|p, label| (p - f64::from(label)).powi(2)),
        log_loss: mean(&|p, label| -(if label { p.ln() } else { (-p).ln_1p() })),
        ece: if labels.is_empty() { f64::NAN } else { bins.iter().filter(|bin| bin.items > 0).map(gap).sum() },
        bins,
    }
}

fn bin(index: usize, probabilities: &[f64], labels: &[bool]) -> Bin {
    let of = |p: f64| ((p * BINS as f64) as usize).min(BINS - 1);
    let inside: Vec<(f64, bool)> =
        probabilities.iter().copied().zip(labels.iter().copied()).filter(|&(p, _)| of(p) == index).collect();
    let items = inside.len();
    Bin {
        low: index as f64 / BINS as f64,
        high: (index + 1) as f64 / BINS as f64,
        items,
        probability: inside.iter().map(|(p, _)| p).sum::<f64>() / items as f64,
        share: inside.iter().filter(|(_, label)| *label).count() as f64 / items as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_in_one_bin() {
        let p = [0.0, 0.05, 0.1, 0.95, 1.0, 1.0];
        let found = calibration(&p, &[false, true, false, true, true, false]);
        let items: Vec<usize> = found.bins.iter().map(|bin| bin.items).collect();
        assert_eq!(items, [2, 1, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert!(found.bins[2].share.is_nan() && found.ece.is_finite());
        assert!(found.log_loss.is_infinite(), "a certain mistake costs everything");
        assert!((found.ece - (2.0 * 0.475 + 0.1 + 3.0 * (2.95 / 3.0 - 2.0 / 3.0)) / 6.0).abs() < 1e-12);
        assert!(calibration(&[], &[]).ece.is_nan());
    }

    #[test]
    fn probabilities_that_are_right_cost_nothing() {
        let found = calibration(&[1.0, 0.0], &[true, false]);
        assert_eq!((found.accuracy, found.brier, found.log_loss, found.ece), (1.0, 0.0, 0.0, 0.0));
    }
}
