use super::*;
use crate::{
    Level,
    testing::{largest, values},
};
use proptest::prelude::*;
use rayon::ThreadPoolBuilder;

/// Largest difference of the log-sum-exp and of the target's log-probability from the oracle, relative to `1 + sqrt(d)`, the
/// size of the logits. Measured worst case: 3.8e-6 (2026-11-21).
pub(crate) const TOLERANCE: f64 = 1e-5;
/// Largest difference of the KL from the oracle's, relative to `(1 + sqrt(d)) (sqrt(KL) + KL)`: this is how rounding of the
/// logits affects it, far below the rounding of the log-sum-exps. Measured worst case: 9.0e-7 (2026-11-21).
pub(crate) const KL_TOLERANCE: f64 = 5e-6;

/// [`score_head`] with the kernels of a given level.
fn at_level(
    level: Level,
    hidden: &Tensor,
    weight: &Tensor,
    targets: &[u32],
    softcap: Option<f32>,
    base: Option<BaseRows<'_>>,
) -> Result<Vec<HeadScore>> {
    let weight = Matrix::at(level, weight)?;
    on_cpu(hidden, &weight.panels().expect("on the CPU")[0], targets, softcap, base)
}

/// [`score_head`] on a weight given as a tensor.
fn on_tensor(
    hidden: &Tensor,
    weight: &Tensor,
    targets: &[u32],
    softcap: Option<f32>,
    base: Option<BaseRows<'_>>,
) -> Result<Vec<HeadScore>> {
    score_head(hidden, &Matrix::of(weight)?, targets, softcap, base)
}

/// `b` base rows and `m` rows, each `spread` away from one of them.
pub(crate) struct Case {
    pub(crate) hidden: Tensor,
    pub(crate) base: Tensor,
    pub(crate) of: Vec<usize>,
    pub(crate) weight: Tensor,
    pub(crate) targets: Vec<u32>,
    pub(crate) softcap: Option<f32>,
}

impl Case {
    pub(crate) fn new((m, b, vocab, d): (usize, usize, usize, usize), spread: f64, dtype: DType) -> Result<Self> {
        let of: Vec<usize> = (0..m).map(|row| row * 7 % b).collect();
        let base = values(&[b, d], 11)?;
        let places = Tensor::from_iter(of.iter().map(|&of| of as u32), &Device::Cpu)?;
        let hidden = (base.index_select(&places, 0)? + (values(&[m, d], 5)? * spread)?)?;
        let targets = (0..m).map(|row| (row * 31 % vocab) as u32).collect();
        // Twice the logits' usual size, so that some probabilities are large.
        let weight = (values(&[vocab, d], 99)? * 2.0)?.to_dtype(dtype)?;
        Ok(Self { hidden, base, of, weight, targets, softcap: None })
    }

    /// Log-sum-exps of the base rows.
    pub(crate) fn sums(&self, level: Level) -> Result<Vec<f64>> {
        let targets = vec![0; self.base.dim(0)?];
        let scores = at_level(level, &self.base, &self.weight, &targets, self.softcap, None)?;
        Ok(scores.iter().map(|score| score.log_sum_exp).collect())
    }

    fn at(&self, level: Level, with_base: bool) -> Result<Vec<HeadScore>> {
        let sums = self.sums(level)?;
        let base = with_base.then_some(BaseRows { hidden: &self.base, log_sum_exp: &sums, of: &self.of });
        at_level(level, &self.hidden, &self.weight, &self.targets, self.softcap, base)
    }

    /// The oracle on f32 or f64 copies of everything.
    pub(crate) fn oracle(&self, with_base: bool) -> Result<Vec<HeadScore>> {
        let sums = self.sums(Level::Portable)?;
        let base = with_base.then_some(BaseRows { hidden: &self.base, log_sum_exp: &sums, of: &self.of });
        score_head_reference(&self.hidden, &self.weight, &self.targets, self.softcap, base)
    }

    /// `KL(base || row)` in f64 throughout, including the logits.
    pub(crate) fn exact_kl(&self) -> Result<Vec<f64>> {
        let log_softmax = |hidden: &Tensor| {
            let weight = self.weight.to_dtype(DType::F64)?;
            let logits = hidden.to_dtype(DType::F64)?.matmul(&weight.t()?)?;
            let logits = match self.softcap.map(f64::from) {
                Some(cap) => ((logits / cap)?.tanh()? * cap)?,
                None => logits,
            };
            logits.broadcast_sub(&logits.exp()?.sum_keepdim(1)?.log()?)?.to_vec2::<f64>()
        };
        let (rows, base) = (log_softmax(&self.hidden)?, log_softmax(&self.base)?);
        let kl = |(row, &of): (&Vec<f64>, &usize)| {
            base[of].iter().zip(row).map(|(b, r)| b.exp() * ((r - b).exp_m1() - (r - b))).sum()
        };
        Ok(rows.iter().zip(&self.of).map(kl).collect())
    }
}

/// The difference of two KLs, in the units of [`KL_TOLERANCE`].
pub(crate) fn kl_off(kl: f64, expected: f64, scale: f64) -> f64 {
    (kl - expected).abs() / (expected.sqrt() + expected).max(1e-6) / scale
}

/// The differences that [`TOLERANCE`] bounds.
pub(crate) fn off_of(fast: &HeadScore, oracle: &HeadScore, scale: f64) -> [f64; 2] {
    [fast.log_sum_exp - oracle.log_sum_exp, fast.target_logprob - oracle.target_logprob].map(|off| off.abs() / scale)
}

fn check(case: &Case, with_base: bool, what: &str) -> Result<()> {
    let oracle = case.oracle(with_base)?;
    let logits = linear_reference(&case.hidden, &case.weight)?;
    let logits = match case.softcap.map(f64::from) {
        Some(cap) => ((logits / cap)?.tanh()? * cap)?,
        None => logits,
    };
    let logits = logits.to_vec2::<f32>()?;
    let scale = 1.0 + (case.weight.dim(1)? as f64).sqrt();
    for level in Level::available() {
        let fast = case.at(level, with_base)?;
        assert_eq!(fast.len(), oracle.len());
        let (mut off, mut kl) = (Vec::new(), Vec::new());
        for ((fast, oracle), logits) in fast.iter().zip(&oracle).zip(&logits) {
            // The argmax may differ between two logits that are equal but for rounding.
            let behind = f64::from(logits[oracle.argmax as usize] - logits[fast.argmax as usize]);
            off.extend(off_of(fast, oracle, scale));
            off.push(behind.abs() / scale);
            kl.push(kl_off(fast.kl, oracle.kl, scale));
        }
        let (worst, worst_kl) = (largest(off), largest(kl));
        println!("score_head {level:?} {what}: {worst:e} of {TOLERANCE:e}, kl {worst_kl:e} of {KL_TOLERANCE:e}");
        assert!(worst < TOLERANCE, "{level:?} {what}: {worst:e}");
        assert!(worst_kl < KL_TOLERANCE, "{level:?} {what}: kl {worst_kl:e}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_level_is_the_oracle_on_odd_shapes(
        m in 0usize..60, b in 1usize..5, vocab in 1usize..700, d in 1usize..90, which in 0usize..3,
        cap in prop::option::of(1f32..40.0), with_base in any::<bool>(), spread in prop::sample::select(vec![1e-3, 0.1, 2.0]),
    ) {
        let mut case = Case::new((m, b, vocab, d), spread, [DType::F32, DType::BF16, DType::F16][which]).unwrap();
        case.softcap = cap;
        check(&case, with_base, &format!("{m}x{vocab}x{d} of {b} spread {spread} cap {cap:?}")).unwrap();
    }
}

#[test]
fn stretches_of_several_chunks_are_the_oracle() -> Result<()> {
    // 261 chunks of 48 columns, three per stretch.
    check(&Case::new((5, 2, 12_500, 3000), 0.05, DType::F32)?, true, "wide")
}

#[test]
fn a_row_by_hand() -> Result<()> {
    // The row's logits are ln 1, ln 2 and ln 5; the base's are equal.
    let weight = Tensor::new(&[[0f32, 1.0], [2f32.ln(), 1.0], [5f32.ln(), 1.0]], &Device::Cpu)?;
    let (hidden, base) = (Tensor::new(&[[1f32, 0.0]], &Device::Cpu)?, Tensor::new(&[[0f32, 0.5]], &Device::Cpu)?);
    let base = BaseRows { hidden: &base, log_sum_exp: &[0.5 + 3f64.ln()], of: &[0] };
    for op in [on_tensor as Op, score_head_reference] {
        let HeadScore { log_sum_exp, target_logprob, argmax, kl } = op(&hidden, &weight, &[1], None, Some(base))?[0];
        let expected = [8f64.ln(), 0.25f64.ln(), (512f64 / 270.0).ln() / 3.0];
        for (got, expected) in [log_sum_exp, target_logprob, kl].into_iter().zip(expected) {
            assert!((got - expected).abs() < 1e-6, "{got} is not {expected}");
        }
        assert_eq!(argmax, 2);
        // A cap of 1 makes them 0, tanh ln 2 = 3/5 and tanh ln 5 = 12/13.
        let score = op(&hidden, &weight, &[2], Some(1.0), None)?[0];
        let sum = (1.0 + 0.6f64.exp() + (12f64 / 13.0).exp()).ln();
        assert!((score.log_sum_exp - sum).abs() < 1e-6, "{score:?}");
        assert!((score.target_logprob - (12.0 / 13.0 - sum)).abs() < 1e-6, "{score:?}");
        assert_eq!(score.kl, 0.0);
    }
    Ok(())
}

#[test]
fn small_divergences_keep_their_digits() -> Result<()> {
    for cap in [None, Some(5.0)] {
        // KL about 1e-1 to 1e-9; from 1e-3 on, a shift common to all tokens moves the logits by more than their differences.
        for (spread, common) in [(1e-1, 0.0), (1e-3, 0.0), (1e-3, 1.0), (1e-4, 1.0), (1e-5, 0.0)] {
            let mut case = Case::new((40, 3, 700, 64), spread, DType::F32)?;
            case.softcap = cap;
            if common > 0.0 {
                case.weight = Tensor::cat(&[&case.weight, &Tensor::ones((700, 1), DType::F32, &Device::Cpu)?], 1)?;
                let beside = |rows, value: f64| Tensor::ones((rows, 1), DType::F32, &Device::Cpu)? * value;
                case.hidden = Tensor::cat(&[&case.hidden, &beside(40, common)?], 1)?;
                case.base = Tensor::cat(&[&case.base, &beside(3, 0.0)?], 1)?;
            }
            let exact = case.exact_kl()?;
            let about = exact.iter().sum::<f64>() / 40.0;
            for level in Level::available() {
                let off = |(score, &exact): (&HeadScore, &f64)| kl_off(score.kl, exact, 9.0);
                let worst = largest(case.at(level, true)?.iter().zip(&exact).map(off));
                println!(
                    "score_head {level:?} cap {cap:?} common {common}: KL {about:.0e} {worst:e} of {KL_TOLERANCE:e}"
                );
                assert!(worst < KL_TOLERANCE, "{level:?} cap {cap:?} common {common} KL {about:e}: {worst:e}");
            }
        }
    }
    Ok(())
}

#[test]
fn mass_where_the_base_has_none_counts() -> Result<()> {
    // The base is sure of token 0, by 200 nats; the row is sure of token 1, by 50.
    let weight = Tensor::new(&[[0f32], [1.0]], &Device::Cpu)?;
    let (hidden, base) = (Tensor::new(&[[50f32]], &Device::Cpu)?, Tensor::new(&[[-200f32]], &Device::Cpu)?);
    for level in Level::available() {
        for target in [0, 1] {
            let base = BaseRows { hidden: &base, log_sum_exp: &[0.0], of: &[0] };
            let score = at_level(level, &hidden, &weight, &[target], None, Some(base))?[0];
            assert!((score.kl - 50.0).abs() < 1e-4, "{level:?}: {score:?}");
        }
    }
    Ok(())
}

#[test]
fn a_row_does_not_differ_from_itself() -> Result<()> {
    for cap in [None, Some(5.0)] {
        let mut case = Case::new((33, 4, 500, 40), 0.0, DType::BF16)?;
        case.softcap = cap;
        for level in Level::available() {
            assert!(case.at(level, true)?.iter().all(|score| score.kl == 0.0), "{level:?} cap {cap:?}");
        }
    }
    Ok(())
}

#[test]
fn a_row_is_the_same_bits_in_any_batch_and_on_any_threads() -> Result<()> {
    let mut case = Case::new((53, 5, 1000, 40), 0.2, DType::BF16)?;
    case.softcap = Some(20.0);
    let threads = |count| ThreadPoolBuilder::new().num_threads(count).build().expect("threads start");
    for level in Level::available() {
        let all = threads(1).install(|| case.at(level, true))?;
        assert_eq!(threads(3).install(|| case.at(level, true))?, all, "{level:?}");
        let sums = case.sums(level)?;
        for row in 0..53 {
            let (hidden, base) = (case.hidden.narrow(0, row, 1)?, case.base.narrow(0, case.of[row], 1)?);
            let base = BaseRows { hidden: &base, log_sum_exp: &sums[case.of[row]..][..1], of: &[0] };
            let alone = at_level(level, &hidden, &case.weight, &case.targets[row..][..1], case.softcap, Some(base))?;
            assert_eq!(alone, all[row..][..1], "{level:?} row {row}");
            // The base row must not change anything else.
            let plain = at_level(level, &hidden, &case.weight, &case.targets[row..][..1], case.softcap, None)?[0];
            assert_eq!(plain, HeadScore { kl: 0.0, ..alone[0] }, "{level:?} row {row}");
        }
    }
    Ok(())
}

#[test]
fn the_first_of_equal_logits_is_the_argmax() -> Result<()> {
    // Tokens 100 to 599 are equal and above all others, across vectors, chunks and stretches.
    let low = Tensor::full(-1f32, (100, 1), &Device::Cpu)?;
    let weight = Tensor::cat(&[&low, &Tensor::ones((500, 1), DType::F32, &Device::Cpu)?, &low], 0)?;
    let hidden = Tensor::new(&[[3f32], [-3.0], [0.0]], &Device::Cpu)?;
    let mut all = vec![score_head_reference(&hidden, &weight, &[0; 3], None, None)?];
    for level in Level::available() {
        all.push(at_level(level, &hidden, &weight, &[0; 3], None, None)?);
    }
    for scores in all {
        assert_eq!(scores.iter().map(|score| score.argmax).collect::<Vec<_>>(), [100, 0, 0]);
    }
    Ok(())
}

type Op = fn(&Tensor, &Tensor, &[u32], Option<f32>, Option<BaseRows<'_>>) -> Result<Vec<HeadScore>>;

fn refused(hidden: &Tensor, weight: &Tensor, targets: &[u32], cap: Option<f32>, base: Option<BaseRows<'_>>, why: &str) {
    for op in [on_tensor as Op, score_head_reference] {
        let error = op(hidden, weight, targets, cap, base).unwrap_err().to_string();
        assert!(error.contains(why), "'{error}' does not say '{why}'");
    }
}

#[test]
fn a_spoilt_row_is_read_back_from_what_was_said() {
    let said = |kind: &str| not_finite::<()>(kind, 12).unwrap_err();
    assert_eq!(spoilt_row(&said("row")), Some(SpoiltRow::Row(12)));
    assert_eq!(spoilt_row(&said("base row").context("elsewhere")), Some(SpoiltRow::Base(12)));
    for other in
        [not_theirs::<()>(3, 0.5).unwrap_err(), candle_core::Error::Msg("has logits that are not finite".into())]
    {
        assert_eq!(spoilt_row(&other), None, "{other}");
    }
}

#[test]
fn what_is_not_finite_is_refused_by_name() -> Result<()> {
    let (good, weight) = (values(&[4, 8], 1)?, values(&[300, 8], 2)?);
    let with = |rows: &Tensor, value: f32| {
        let spoilt =
            Tensor::cat(&[&Tensor::full(value, (1, 1), &Device::Cpu)?, &rows.narrow(0, 2, 1)?.narrow(1, 1, 7)?], 1)?;
        Tensor::cat(&[&rows.narrow(0, 0, 2)?, &spoilt, &rows.narrow(0, 3, rows.dim(0)? - 3)?], 0)
    };
    let sums: Vec<f64> =
        on_tensor(&good, &weight, &[0; 4], None, None)?.iter().map(|score| score.log_sum_exp).collect();
    // The last value is finite, but its logits are not.
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38] {
        let spoilt = with(&good, value)?;
        let weight = if value == 3e38 { (&weight * 8.0)? } else { weight.clone() };
        for cap in [None, Some(30.0)] {
            refused(&spoilt, &weight, &[0; 4], cap, None, "row 2 has logits that are not finite");
        }
        if value != 3e38 {
            let base = BaseRows { hidden: &spoilt, log_sum_exp: &sums, of: &[0, 1, 2, 3] };
            refused(&good, &weight, &[0; 4], None, Some(base), "base row 2 has logits that are not finite");
        }
        // One token of the weight spoils every row.
        refused(&good, &with(&weight, value * 8.0)?, &[0; 4], None, None, "row 0 has logits that are not finite");
    }
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused() -> Result<()> {
    let (hidden, weight) = (values(&[2, 8], 1)?, values(&[30, 8], 2)?);
    let sums: Vec<f64> =
        on_tensor(&hidden, &weight, &[0; 2], None, None)?.iter().map(|score| score.log_sum_exp).collect();
    refused(&hidden, &values(&[30, 7], 2)?, &[0; 2], None, None, "do not fit");
    refused(&hidden, &weight, &[0; 3], None, None, "2 rows need as many targets, not 3");
    refused(&hidden, &weight, &[29, 30], None, None, "the target 30 of row 1 is not among the 30 tokens");
    for cap in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        refused(&hidden, &weight, &[0; 2], Some(cap), None, "a softcap must be positive");
    }
    let base = BaseRows { hidden: &hidden, log_sum_exp: &sums, of: &[0, 1] };
    refused(&hidden, &weight, &[0; 2], None, Some(BaseRows { of: &[0], ..base }), "do not fit 2 rows of 8, 1 of which");
    refused(
        &hidden,
        &weight,
        &[0; 2],
        None,
        Some(BaseRows { of: &[0, 2], ..base }),
        "row 1 is compared with base row 2 of 2",
    );
    for wrong in [[sums[1], sums[0]], [sums[0] + 0.01, sums[1]], [sums[0], f64::NAN], [-1e30, sums[1]]] {
        let base = BaseRows { log_sum_exp: &wrong, ..base };
        refused(&hidden, &weight, &[0; 2], None, Some(base), "is not the log-sum-exp of base row");
    }
    // Sums under other weights, or without the softcap, are refused too.
    refused(&hidden, &weight, &[0; 2], Some(0.5), Some(base), "is not the log-sum-exp of base row");
    let wide = values(&[30, 8], 2)?.to_dtype(DType::F64)?;
    assert!(on_tensor(&hidden, &wide, &[0; 2], None, None).unwrap_err().to_string().contains("f32, bf16 or f16"));
    Ok(())
}
