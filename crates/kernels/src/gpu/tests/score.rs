//! Scores of rows under the language-model head.

use candle_core::{DType, Device, Result, Tensor};

use super::{DEVICE, TYPES, flat, on, random};
use crate::{
    BaseRows, HeadScore, Level, Matrix,
    gpu::score::score_some,
    score::tests::{Case, KL_TOLERANCE, TOLERANCE, kl_off, off_of},
    testing::largest,
};

impl Case {
    /// The case with hidden states rounded to the type.
    fn rounded(mut self, dtype: DType) -> Result<Self> {
        for rows in [&mut self.hidden, &mut self.base] {
            *rows = rows.to_dtype(dtype)?.to_dtype(DType::F32)?;
        }
        Ok(self)
    }

    /// Scores by the kernel, with at most `most` rows of logits at once.
    fn on_gpu(&self, dtype: DType, with_base: bool, most: usize) -> Result<Vec<HeadScore>> {
        let rounded = |x: &Tensor| on(&x.to_dtype(dtype)?);
        let (sums, base) = (self.sums(Level::Portable)?, rounded(&self.base)?);
        let base = with_base.then_some(BaseRows { hidden: &base, log_sum_exp: &sums, of: &self.of });
        let weight = Matrix::of(&on(&self.weight)?)?;
        score_some(&rounded(&self.hidden)?, &weight, &self.targets, self.softcap, base, most)
    }
}

/// Whether products give the same bits in any batch: cuBLAS does not promise it.
fn products_are_invariant() -> bool {
    DEVICE.is_cpu()
}

#[test]
fn scores_are_the_oracle() -> Result<()> {
    let shapes = [(0, 1, 5, 3), (1, 1, 1, 1), (9, 3, 700, 40), (4, 2, 8193, 16), (3, 2, 20_012, 8), (2, 2, 33, 90)];
    for (dtype, shape) in TYPES.into_iter().flat_map(|dtype| shapes.map(|shape| (dtype, shape))) {
        for (cap, spread, with_base, most) in
            [(None, 0.1, true, 1000), (Some(7.0), 2.0, true, 3), (Some(30.0), 1e-3, true, 4), (None, 1.0, false, 2)]
        {
            let mut case = Case::new(shape, spread, dtype)?.rounded(dtype)?;
            case.softcap = cap;
            let (fast, oracle) = (case.on_gpu(dtype, with_base, most)?, case.oracle(with_base)?);
            assert_eq!(fast.len(), oracle.len());
            let scale = 1.0 + (shape.3 as f64).sqrt();
            let both = || fast.iter().zip(&oracle);
            let worst = largest(both().flat_map(|(fast, oracle)| off_of(fast, oracle, scale)));
            let worst_kl = largest(both().map(|(fast, oracle)| kl_off(fast.kl, oracle.kl, scale)));
            for (fast, oracle) in both() {
                assert!(fast.argmax == oracle.argmax || !products_are_invariant(), "{fast:?} {oracle:?}");
            }
            let what = format!("{dtype:?} {shape:?} cap {cap:?} spread {spread} base {with_base}");
            println!("score_head {what}: {worst:e} of {TOLERANCE:e}, kl {worst_kl:e} of {KL_TOLERANCE:e}");
            assert!(worst < TOLERANCE && worst_kl < KL_TOLERANCE, "{what}: {worst:e} {worst_kl:e}");
        }
    }
    Ok(())
}

#[test]
fn small_divergences_keep_their_digits_on_the_gpu() -> Result<()> {
    for cap in [None, Some(5.0)] {
        for (spread, common) in [(1e-1, 0.0), (1e-3, 0.0), (1e-3, 1.0), (1e-4, -20.0), (1e-5, 0.0)] {
            let mut case = Case::new((10, 3, 700, 64), spread, DType::F32)?;
            case.softcap = cap;
            if common != 0.0 {
                case.weight = Tensor::cat(&[&case.weight, &Tensor::ones((700, 1), DType::F32, &Device::Cpu)?], 1)?;
                let beside = |rows, value: f64| Tensor::ones((rows, 1), DType::F32, &Device::Cpu)? * value;
                case.hidden = Tensor::cat(&[&case.hidden, &beside(10, common)?], 1)?;
                case.base = Tensor::cat(&[&case.base, &beside(3, 0.0)?], 1)?;
            }
            let exact = case.exact_kl()?;
            let off = |(score, &exact): (&HeadScore, &f64)| kl_off(score.kl, exact, 9.0 + f64::abs(common));
            let worst = largest(case.on_gpu(DType::F32, true, 1000)?.iter().zip(&exact).map(off));
            println!("score_head cap {cap:?} common {common}: KL {:.0e} {worst:e} of {KL_TOLERANCE:e}", exact[0]);
            assert!(worst < KL_TOLERANCE, "cap {cap:?} common {common} KL {:e}: {worst:e}", exact[0]);
        }
    }
    Ok(())
}

#[test]
fn mass_where_the_base_has_none_counts_on_the_gpu() -> Result<()> {
    // The base is sure of token 0, by 200 nats; the row is sure of token 1, by 50.
    for (far, kl) in [(-200f32, 50.0), (-2000.0, 50.0)] {
        let case = Case {
            hidden: Tensor::new(&[[50f32]], &Device::Cpu)?,
            base: Tensor::new(&[[far]], &Device::Cpu)?,
            of: vec![0],
            weight: Tensor::new(&[[0f32], [1.0]], &Device::Cpu)?,
            targets: vec![1],
            softcap: None,
        };
        let score = case.on_gpu(DType::F32, true, 1000)?[0];
        assert!((score.kl - kl).abs() < 1e-4, "{score:?}");
    }
    Ok(())
}

#[test]
fn a_row_depends_on_itself_alone_on_the_gpu() -> Result<()> {
    let mut case = Case::new((11, 3, 9001, 24), 0.2, DType::BF16)?;
    let all = case.on_gpu(DType::F32, true, 1000)?;
    let chunked = case.on_gpu(DType::F32, true, 3)?;
    let plain = case.on_gpu(DType::F32, false, 1000)?;
    if products_are_invariant() {
        assert_eq!(all, chunked);
        for (plain, score) in plain.iter().zip(&all) {
            assert_eq!(plain, &HeadScore { kl: 0.0, ..*score }, "what it is compared with changes nothing else");
        }
    }
    // A row does not differ from itself.
    case.hidden = case.base.clone();
    (case.of, case.targets) = (vec![0, 1, 2], vec![5; 3]);
    let most = if products_are_invariant() { 0.0 } else { 1e-9 };
    assert!(case.on_gpu(DType::F32, true, 4)?.iter().all(|score| score.kl <= most));
    Ok(())
}

#[test]
fn the_first_of_equal_logits_is_the_argmax_on_the_gpu() -> Result<()> {
    // Tokens 100 to 9099 are equal and above all others, across lanes, warps and steps.
    let low = Tensor::full(-1f32, (100, 1), &Device::Cpu)?;
    let weight = Tensor::cat(&[&low, &Tensor::ones((9000, 1), DType::F32, &Device::Cpu)?, &low], 0)?;
    let weight = Matrix::of(&on(&weight)?)?;
    let hidden = Tensor::new(&[[3f32], [-3.0], [0.0]], &DEVICE)?;
    let scores = score_some(&hidden, &weight, &[0; 3], None, None, 1000)?;
    assert_eq!(scores.iter().map(|score| score.argmax).collect::<Vec<_>>(), [100, 0, 0]);
    Ok(())
}

/// A single logit that is infinite, which an exponential makes 0 and a softcap makes finite, spoils its row.
#[test]
fn one_infinite_logit_spoils_its_row_on_the_gpu() -> Result<()> {
    for (value, cap) in [(f32::MAX, None), (f32::MIN, None), (f32::MAX, Some(30.0)), (f32::MIN, Some(30.0))] {
        let mut weight = flat(&random(&[500, 1], 7));
        weight[7] = value;
        let weight = Matrix::of(&on(&Tensor::from_vec(weight, (500, 1), &Device::Cpu)?)?)?;
        let score =
            |x: f32| score_some(&on(&Tensor::new(&[[x], [0.5]], &Device::Cpu)?)?, &weight, &[3, 3], cap, None, 9);
        assert_eq!(score(0.5)?.len(), 2, "at half the value the logit is a number");
        let error = score(100.0).unwrap_err().to_string();
        assert!(error.contains("score_head: row 0 has logits that are not finite"), "{value} {cap:?}: {error}");
    }
    Ok(())
}

#[test]
fn rows_that_cannot_be_trusted_are_refused_on_the_gpu() -> Result<()> {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for cap in [None, Some(30.0)] {
            let mut case = Case::new((3, 3, 300, 8), 0.1, DType::F32)?;
            case.softcap = cap;
            let good = case.on_gpu(DType::F32, true, 1000)?;
            let sums = case.sums(Level::Portable)?;
            let spoil = |rows: &Tensor| {
                let one = Tensor::full(value, (1, 8), &Device::Cpu)?;
                Tensor::cat(&[&rows.narrow(0, 0, 2)?, &one, &rows.narrow(0, 3, rows.dim(0)? - 3)?], 0)
            };
            let weight = Matrix::of(&on(&case.weight)?)?;
            let score = |hidden: &Tensor, base: &Tensor, sums: &[f64]| {
                let (hidden, base) = (on(hidden)?, on(base)?);
                let base = BaseRows { hidden: &base, log_sum_exp: sums, of: &[0, 1, 2] };
                score_some(&hidden, &weight, &case.targets, cap, Some(base), 1000)
            };
            assert!(score(&case.hidden, &case.base, &sums)?.len() == good.len());
            let why = |scores: Result<Vec<HeadScore>>| scores.unwrap_err().to_string();
            let error = why(score(&spoil(&case.hidden)?, &case.base, &sums));
            assert!(error.contains("score_head: row 2 has logits that are not finite"), "{error}");
            let error = why(score(&case.hidden, &spoil(&case.base)?, &sums));
            assert!(error.contains("base row 2 has logits that are not finite"), "{error}");
            let error = why(score(&case.hidden, &case.base, &[sums[0], sums[1] + 0.01, sums[2]]));
            assert!(error.contains("is not the log-sum-exp of base row 1"), "{error}");
        }
    }
    Ok(())
}
