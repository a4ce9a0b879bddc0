//! The worst deviation of each quantity that a golden file holds, and how large it may be.

use std::collections::BTreeMap;

use candle_core::{Device, Result, Tensor};
use headtemper_hook::Site;

use super::{Check, difference, short, values};

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Quantity {
    Logits,
    Residual,
    Z,
    LinearZ,
    Norm,
    Tempered,
    TemperedNorm,
    Greedy,
    Top,
}

impl Quantity {
    pub(super) fn of(site: Site) -> Self {
        match site {
            Site::Z(_) => Self::Z,
            Site::LinearZ(_) => Self::LinearZ,
            Site::ResidPost(_) => Self::Residual,
            Site::FinalNorm => Self::Norm,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Logits => "golden logits",
            Self::Residual => "golden residual stream",
            Self::Z => "golden z",
            Self::LinearZ => "golden delta-net z",
            Self::Norm => "golden final norm",
            Self::Tempered => "golden tempered logits",
            Self::TemperedNorm => "golden tempered h_last",
            Self::Greedy => "golden greedy tokens",
            Self::Top => "golden top tokens",
        }
    }

    /// Its name in `halves.json`.
    fn key(self) -> &'static str {
        match self {
            Self::Logits => "logits",
            Self::Residual => "residual",
            Self::Z => "z",
            Self::LinearZ => "linear_z",
            Self::Norm => "norm",
            Self::Tempered => "tempered",
            Self::TemperedNorm => "tempered_norm",
            Self::Greedy => "greedy",
            Self::Top => "top",
        }
    }

    /// The key under which a golden file of a real checkpoint says how much transformers differs from itself.
    fn noise(self) -> &'static str {
        match self {
            Self::Logits | Self::Tempered | Self::Greedy | Self::Top => "float32_noise_logits",
            Self::Residual => "float32_noise_residual",
            Self::Z | Self::LinearZ => "float32_noise_z",
            Self::Norm | Self::TemperedNorm => "float32_noise_norm",
        }
    }
}

/// How far a quantity may be off.
pub(super) struct Tolerance<'a> {
    /// For every model of its family.
    pub(super) family: f64,
    /// For a real checkpoint, the `checks` of its golden file; for 16-bit activations, what transformers itself loses in them.
    pub(super) checks: Option<&'a serde_json::Value>,
}

impl Tolerance<'_> {
    /// We may be off by this many times transformers' own noise: our noise is of the same kind, from sums in another order.
    const TIMES: f64 = 4.0;
    /// Noise allows at most this share of a quantity's largest value: without a cap, a noisy file could pass anything.
    const SHARE: f64 = 3e-4;
    /// The share of tokens whose top token may differ in 16 bits, on top of twice transformers' own share. Measured worst case:
    /// see `golden::DIRECTION`.
    const OTHERS: f64 = 0.05;
    /// The limit, however much transformers loses: unrelated vectors are 1 apart.
    const MOST: f64 = 0.5;

    /// The limit for a quantity's direction, and the reason if it is above the general one.
    fn of_direction(&self, what: Quantity) -> (f64, Option<String>) {
        let noise = self.checks.and_then(|checks| checks[what.key()].as_f64()).unwrap_or(0.0);
        let why = |of: &str| Some(format!("transformers' own {of} here is {}", short(noise)));
        match what {
            Quantity::Top => {
                ((Self::OTHERS + 2.0 * noise).min(Self::MOST), if noise > 0.0 { why("share") } else { None })
            }
            _ if Self::TIMES * noise > self.family => ((Self::TIMES * noise).min(Self::MOST), why("loss")),
            _ => (self.family, None),
        }
    }

    /// The limit for a quantity whose largest value is `size`, and the reason if it is above the family's.
    fn of(&self, what: Quantity, size: f64) -> (f64, Option<String>) {
        let noise = self.checks.and_then(|checks| checks[what.noise()].as_f64()).unwrap_or(0.0);
        let allowed = (Self::TIMES * noise).min(Self::SHARE * size);
        if allowed > self.family {
            (allowed, Some(format!("transformers' own float32 noise here is {}", short(noise))))
        } else {
            (self.family, None)
        }
    }
}

/// What of a quantity is compared.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Measure {
    /// Every value.
    #[default]
    Values,
    /// The direction of every token's vector, as 1 minus the cosine, and which logit is the largest: what 16-bit activations
    /// preserve.
    Directions,
}

/// The worst of each quantity, where it was found, and how many were compared.
#[derive(Default)]
pub(super) struct Parity {
    measure: Measure,
    found: BTreeMap<Quantity, Worst>,
    continued: Vec<Continued>,
}

#[derive(Default)]
struct Worst {
    off: f64,
    at: String,
    compared: usize,
    /// The largest value that the file holds.
    size: f64,
    /// How many top tokens differ.
    others: f64,
}

/// A greedy continuation.
struct Continued {
    at: String,
    tempered: bool,
    same: usize,
    tokens: usize,
    /// The lead of their token over the runner-up, where the two first differ.
    lead: f64,
}

impl Parity {
    pub(super) fn of(measure: Measure) -> Self {
        Self { measure, ..Self::default() }
    }

    /// Whether greedy tokens are compared: with 16-bit activations another token may win, and then all later ones differ.
    pub(super) fn counts_tokens(&self) -> bool {
        self.measure == Measure::Values
    }

    fn note(&mut self, what: Quantity, off: f64, at: String) -> &mut Worst {
        let worst = self.found.entry(what).or_default();
        worst.compared += 1;
        if off > worst.off || worst.at.is_empty() {
            (worst.off, worst.at) = (off, at);
        }
        worst
    }

    pub(super) fn compare(&mut self, what: Quantity, at: &str, ours: &Tensor, theirs: &Tensor) -> Result<()> {
        let ours = ours.to_device(&Device::Cpu)?;
        let off = match self.measure {
            Measure::Values => difference(&ours, theirs)?,
            Measure::Directions if ours.dims() != theirs.dims() => f64::INFINITY,
            Measure::Directions => {
                let (ours, theirs) = (rows_of(&ours)?, rows_of(theirs)?);
                let rows = || ours.iter().zip(&theirs);
                if matches!(what, Quantity::Logits | Quantity::Tempered) {
                    for (row, (ours, theirs)) in rows().enumerate() {
                        let off = top_off(ours, theirs);
                        let worst = self.note(Quantity::Top, off, format!("{at} token {row}"));
                        worst.others += off;
                    }
                }
                rows().map(|(ours, theirs)| 1.0 - cosine(ours, theirs)).fold(0.0, f64::max)
            }
        };
        let shapes = format!("{at}: shape {:?}, in the file {:?}", ours.dims(), theirs.dims());
        let worst = self.note(what, off, if ours.dims() == theirs.dims() { at.into() } else { shapes });
        worst.size = values(theirs)?.into_iter().fold(worst.size, |size, x| size.max(f64::from(x.abs())));
        Ok(())
    }

    /// Notes a site that did not fire exactly once.
    pub(super) fn never(&mut self, what: Quantity, at: &str) {
        self.note(what, f64::INFINITY, format!("{at} did not fire once"));
    }

    /// Compares greedy tokens; `leads` says by how much each led, if the file has that. A differing token is wrong unless the two
    /// were nearly tied, and the tokens after it carry no information.
    pub(super) fn tokens(&mut self, at: &str, tempered: bool, ours: &[u32], theirs: &[u32], leads: Option<&[f32]>) {
        let same = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
        let lead = leads.and_then(|leads| leads.get(same)).map_or(f64::INFINITY, |&lead| f64::from(lead));
        self.continued.push(Continued { at: at.into(), tempered, same, tokens: theirs.len(), lead });
    }

    /// Notes the greedy tokens that are wrong; says how many were compared if near ties hid some.
    fn judge_tokens(&mut self, tolerance: &Tolerance) -> Option<String> {
        let runs = std::mem::take(&mut self.continued);
        let (mut tied, mut same, mut all) = (0, 0, 0);
        for run in runs {
            let logits = if run.tempered { Quantity::Tempered } else { Quantity::Logits };
            let size = self.found.get(&logits).map_or(0.0, |worst| worst.size);
            (same, all) = (same + run.same, all + run.tokens);
            // Each of the two logits may be off by what is allowed.
            if run.same < run.tokens && run.lead <= 2.0 * tolerance.of(logits, size).0 {
                tied += 1;
                self.note(Quantity::Greedy, 0.0, run.at);
            } else if run.same < run.tokens {
                let place = format!("{}: another from token {} on", run.at, run.same);
                self.note(Quantity::Greedy, (run.tokens - run.same) as f64, place);
            } else {
                self.note(Quantity::Greedy, 0.0, run.at);
            }
        }
        (tied > 0).then(|| format!("{same} of {all} tokens, up to {tied} near ties"))
    }

    /// One check per quantity.
    pub(super) fn checks(mut self, tolerance: &Tolerance) -> Vec<Check> {
        let tokens = self.judge_tokens(tolerance);
        let check = |(what, worst): (Quantity, Worst)| {
            let (allowed, why) = match what {
                Quantity::Greedy => (0.0, tokens.clone()),
                _ if self.measure == Measure::Directions => tolerance.of_direction(what),
                _ => tolerance.of(what, worst.size),
            };
            let at = (worst.off > 0.0).then(|| format!("worst at {}", worst.at));
            let off = if what == Quantity::Top { worst.others / worst.compared as f64 } else { worst.off };
            let parts = [Some(format!("{} compared", worst.compared)), at, why];
            let note = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
            let measure = match (self.measure, what) {
                (Measure::Directions, Quantity::Top) | (Measure::Values, _) => "",
                (Measure::Directions, _) => ", direction",
            };
            Check::of(&format!("{}{measure}", what.name()), allowed, Ok((off, note)))
        };
        self.found.into_iter().map(check).collect()
    }
}

/// The vector of every token in f32.
fn rows_of(x: &Tensor) -> Result<Vec<Vec<f32>>> {
    let width = x.dims().last().copied().unwrap_or(1).max(1);
    Ok(values(x)?.chunks(width).map(<[f32]>::to_vec).collect())
}

/// The cosine of two vectors; 0 if any value is not finite, since the maximum of distances would ignore a NaN.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    if !a.iter().chain(b).all(|x| x.is_finite()) {
        return 0.0;
    }
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms > 0.0 { dot(a, b) / norms } else { f64::from(u8::from(a == b)) }
}

/// 1 if our largest logit is another than theirs, or if one of ours is not finite; else 0.
fn top_off(ours: &[f32], theirs: &[f32]) -> f64 {
    let top = |row: &[f32]| (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best });
    f64::from(u8::from(ours.iter().any(|x| !x.is_finite()) || top(ours) != top(theirs)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_bits_keep_directions_and_the_top_token() -> Result<()> {
        let on = |rows: &[[f32; 3]]| Tensor::from_slice(rows.as_flattened(), (rows.len(), 3), &Device::Cpu);
        let checks = |ours: &[[f32; 3]], theirs: &[[f32; 3]]| -> Result<Vec<(String, f64)>> {
            let mut parity = Parity::of(Measure::Directions);
            parity.compare(Quantity::Logits, "a", &on(ours)?, &on(theirs)?)?;
            let checks = parity.checks(&Tolerance { family: 1e-3, checks: None });
            Ok(checks.into_iter().map(|check| (check.name.clone(), check.measured.unwrap())).collect())
        };
        let theirs = [[1f32, 2.0, 4.0], [0.0, 1.0, 0.98]];
        // A vector twice as long has the same direction.
        let alike = checks(&[[2.0, 4.0, 8.0], [0.0, 1.0, 0.98]], &theirs)?;
        assert!(alike[0].0 == "golden logits, direction" && alike[0].1 < 1e-9, "{alike:?}");
        assert_eq!(alike[1], ("golden top tokens".into(), 0.0));
        let turned = checks(&[[2.0, 4.0, 3.0], [0.0, 1.0, 0.98]], &theirs)?;
        assert!(turned[0].1 > 0.05 && turned[1].1 == 0.5, "{turned:?}");
        // A vector that overflowed has no direction, even if its top token is still right.
        for spoilt in [[f32::NAN; 3], [1.0, f32::NAN, 4.0], [1.0, 2.0, f32::INFINITY], [f32::NEG_INFINITY, 2.0, 4.0]] {
            let none = checks(&[spoilt, theirs[1]], &theirs)?;
            assert!(none.iter().all(|(_, off)| *off >= 0.5), "{spoilt:?}: {none:?}");
        }
        // What transformers itself loses allows more, for that quantity only.
        let halves = serde_json::json!({"logits": 0.01, "top": 0.1});
        let tolerance = Tolerance { family: 1e-3, checks: Some(&halves) };
        assert_eq!(tolerance.of_direction(Quantity::Logits).0, 0.04);
        assert_eq!(tolerance.of_direction(Quantity::Z).0, 1e-3);
        let all = serde_json::json!({"z": 0.62, "top": 0.9});
        let tolerance_of = |what| Tolerance { family: 1e-3, checks: Some(&all) }.of_direction(what).0;
        assert_eq!((tolerance_of(Quantity::Z), tolerance_of(Quantity::Top)), (0.5, 0.5));
        assert_eq!(tolerance.of_direction(Quantity::Top).0, 0.05 + 0.2);
        Ok(())
    }

    #[test]
    fn noise_allows_a_few_times_itself_and_a_small_share_at_most() {
        let checks = serde_json::json!({"float32_noise_residual": 1e-3});
        let of = |checks, what, size| Tolerance { family: 1e-3, checks }.of(what, size).0;
        assert_eq!(of(None, Quantity::Residual, 1e6), 1e-3);
        assert_eq!(of(Some(&checks), Quantity::Residual, 1e6), 4e-3);
        assert_eq!(of(Some(&checks), Quantity::Residual, 10.0), 10.0 * 3e-4);
        assert_eq!(of(Some(&checks), Quantity::Residual, 1.0), 1e-3);
        assert_eq!(of(Some(&checks), Quantity::Logits, 1e6), 1e-3);
    }

    #[test]
    fn a_tie_ends_what_is_compared_and_nothing_else_does() {
        let tokens = |ours: &[u32], leads: Option<&[f32]>| {
            let mut parity = Parity::default();
            parity.tokens("a", false, ours, &[1, 2, 3], leads);
            parity.tokens("b", true, &[4], &[4], None);
            let check = parity.checks(&Tolerance { family: 0.1, checks: None }).remove(0);
            (check.measured.unwrap(), check.note)
        };
        assert_eq!(tokens(&[1, 2, 3], None), (0.0, "2 compared".into()));
        assert_eq!(tokens(&[1, 9, 3], None), (2.0, "2 compared, worst at a: another from token 1 on".into()));
        assert_eq!(tokens(&[1, 9, 3], Some(&[0.1, 0.3, 0.1])).0, 2.0);
        assert_eq!(
            tokens(&[1, 9, 3], Some(&[9.0, 0.15, 9.0])),
            (0.0, "2 compared, 2 of 4 tokens, up to 1 near ties".into())
        );
        // Missing tokens do not count as a tie.
        assert_eq!(tokens(&[1], Some(&[9.0, 9.0, 9.0])).0, 2.0);
    }
}
