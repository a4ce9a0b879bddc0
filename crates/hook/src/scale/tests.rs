use candle_core::DType;

use super::*;
use crate::{Recorded, Span, spec::tests::hybrid};

fn plan(text: &str) -> HeadPlan {
    crate::HeadList::parse(text).unwrap().plan(None).unwrap()
}

fn scale(plans: &[HeadPlan]) -> Result<HeadScale> {
    HeadScale::compile(plans, &hybrid(), &Device::Cpu)
}

fn span(slot: usize, len: usize, row: usize) -> Span {
    Span { slot, start: 0, len, row, prompt: Span::ALL_PROMPT }
}

#[test]
fn a_window_that_nothing_reaches_is_named_before_its_heads_fill_the_screen() {
    let heads: Vec<HeadRef> = (0..9).map(|head| HeadRef::query(0, head)).collect();
    let plan = HeadPlan::uniform(&heads, 1.0).unwrap().at(Positions::Window { first: 500, last: 600 });
    let error = check_fired(&[plan], &[BTreeMap::new()]).unwrap_err();
    let named =
        "the plan names L0H0, L0H1, L0H2, L0H3, L0H4 and 4 more at window:500..600 but the hook never fired there";
    assert!(error.to_string().starts_with(named), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("reaches the window")));
}

#[test]
fn each_row_gets_its_own_lambda_and_only_planned_heads_move() -> Result<()> {
    let mut tap = scale(&[HeadPlan::none(), plan("L2H1:0.5"), plan("L2H0:0,L2H2:-2")])?;
    tap.begin(&Batch::new(vec![span(0, 1, 1), span(1, 2, 2), span(2, 1, 0)]))?;
    assert!(tap.lambda(Site::Z(0))?.is_none() && tap.lambda(Site::ResidPost(2))?.is_none());
    let lambda = tap.lambda(Site::Z(2))?.expect("the plans touch layer 2");
    assert_eq!(lambda.to_vec2::<f32>()?, [[1., 0.5, 1.], [0., 1., -2.], [0., 1., -2.], [1., 1., 1.]]);
    assert_eq!(tap.fired()[2].values().copied().collect::<Vec<_>>(), [2, 2]);
    tap.check_fired().map_err(candle_core::Error::wrap)
}

#[test]
fn every_site_has_its_own_factors_whatever_its_heads() -> Result<()> {
    let spec = hybrid();
    let heads: Vec<HeadRef> = (0..spec.layers.len()).flat_map(|layer| spec.heads_of(layer)).collect();
    let factor = |i: usize| 2.0 + i as f32;
    let all = |i: usize| HeadPlan::uniform(&[heads[i]], factor(i)).unwrap();
    let plans: Vec<HeadPlan> = (0..heads.len()).map(all).collect();
    let mut tap = scale(&plans)?;
    let spans = (0..heads.len()).map(|row| span(row, 1, row));
    tap.begin(&Batch::new(spans.collect()))?;
    for (i, at) in heads.iter().enumerate() {
        let lambda = tap.lambda(at.site())?.expect("a plan touches it");
        assert!(lambda.is_contiguous());
        for (row, own) in lambda.to_vec2::<f32>()?.into_iter().enumerate() {
            let expected = if row == i { factor(i) } else { 1.0 };
            assert_eq!(own[at.head], expected, "{at} in row {row}");
        }
    }
    tap.check_fired().map_err(candle_core::Error::wrap)
}

#[test]
fn at_rest_nothing_of_a_forward_is_held() -> Result<()> {
    let mut tap = scale(&[plan("L0H1:0.5")])?;
    tap.begin(&Batch::new(vec![span(0, 2, 0)]))?;
    assert!(tap.lambda(Site::Z(0))?.is_some());
    tap.rest();
    assert!(tap.gathered.is_none());
    let error = tap.lambda(Site::Z(0)).unwrap_err().to_string();
    assert!(error.contains("before a forward began"), "{error}");
    Ok(())
}

#[test]
fn a_plan_touches_and_counts_its_positions_only() -> Result<()> {
    let at = |positions: &str| plan("L0H1:0.5").at(positions.parse().unwrap());
    let mut tap = scale(&[at("prompt"), at("response"), at("window:5..8")])?;
    let spans = (0..3).map(|row| Span { slot: row, start: 4, len: 3, row, prompt: 5 });
    tap.begin(&Batch::new(spans.collect()))?; // positions 4, 5, 6 of each
    let lambda = tap.lambda(Site::Z(0))?.expect("the plans touch layer 0").narrow(1, 1, 1)?;
    let lambda = lambda.flatten_all()?.to_vec1::<f32>()?;
    assert_eq!(lambda, [0.5, 1., 1., 1., 0.5, 0.5, 1., 0.5, 0.5]);
    let fired: Vec<u64> = tap.fired().iter().flat_map(|row| row.values().copied()).collect();
    assert_eq!(fired, [1, 2, 2]);
    Ok(())
}

#[test]
fn a_plan_outside_its_positions_has_not_fired() -> Result<()> {
    let mut tap = scale(&[plan("L0H1:0.5").at("response".parse().unwrap())])?;
    tap.begin(&Batch::new(vec![span(0, 4, 0)]))?;
    let lambda = tap.lambda(Site::Z(0))?.expect("the plan touches layer 0");
    assert_eq!(lambda.sum_all()?.to_scalar::<f32>()?, 8.0);
    assert!(tap.check_fired().unwrap_err().to_string().contains("L0H1"));
    Ok(())
}

#[test]
fn value_heads_of_a_delta_net_are_scaled_at_their_own_site() -> Result<()> {
    let mut tap = scale(&[plan("L1V2:0.5")])?;
    tap.begin(&Batch::single(1))?;
    assert!(tap.lambda(Site::Z(1))?.is_none());
    let lambda = tap.lambda(Site::LinearZ(1))?.expect("the plan touches layer 1");
    assert_eq!(lambda.to_vec2::<f32>()?, [[1., 1., 0.5, 1.]]);
    tap.check_fired().map_err(candle_core::Error::wrap)
}

#[test]
fn every_sequence_is_counted_by_itself_and_with_what_it_was_copied_from() -> Result<()> {
    let plans = [plan("L0H1:0.5,L2H1:0.5"), plan("L2H0:1").at("response".parse().unwrap())];
    let mut tap = scale(&plans)?;
    let mut read = |spans: Vec<Span>, sites: &[Site]| -> Result<()> {
        tap.begin(&Batch::new(spans))?;
        sites.iter().try_for_each(|&site| tap.lambda(site).map(|_| ()))
    };
    let both = [Site::Z(0), Site::Z(2)];
    read(vec![span(0, 3, 0)], &both)?; // a start that others share
    let of = |slot, start, len, row| Span { slot, start, len, row, prompt: 4 };
    tap.take_slot(1, Some(0));
    tap.take_slot(2, None);
    let mut read = |spans: Vec<Span>, sites: &[Site]| -> Result<()> {
        tap.begin(&Batch::new(spans))?;
        sites.iter().try_for_each(|&site| tap.lambda(site).map(|_| ()))
    };
    read(vec![of(1, 3, 2, 0), of(2, 0, 6, 1)], &both)?;
    assert_eq!(tap.check_slot(1, 0, (5, 4)).ok(), Some(10), "five tokens by two heads, three of them copied");
    assert_eq!(tap.check_slot(2, 1, (6, 4)).ok(), Some(2), "two tokens behind its prompt");
    tap.take_slot(2, None);
    assert_eq!(tap.check_slot(2, 1, (4, 4)).ok(), Some(0), "a new sequence, of which nothing is planned yet");
    // A layer does not ask for λ: the sequence is refused, whichever other heads of its plan were applied.
    tap.take_slot(1, None);
    tap.begin(&Batch::new(vec![of(1, 0, 4, 0)]))?;
    tap.lambda(Site::Z(0))?;
    let error = tap.check_slot(1, 0, (4, 4)).unwrap_err().to_string();
    assert!(error.contains("2 heads at all positions") && error.contains("applied to 4 of 8"), "{error}");
    Ok(())
}

#[test]
fn a_plan_that_never_fired_is_an_error() -> Result<()> {
    let mut tap = scale(&[plan("L0H1:0.5,L2H1:0.5")])?;
    tap.begin(&Batch::single(1))?;
    tap.lambda(Site::Z(0))?;
    let message = tap.check_fired().unwrap_err().to_string();
    assert!(message.contains("L2H1") && !message.contains("L0H1"), "{message}");
    Ok(())
}

#[test]
fn steps_that_are_played_count_where_the_recorded_one_asked() -> Result<()> {
    let mut tap = scale(&[plan("L0H1:0.5,L2H1:0.5")])?;
    let numbers = || Tensor::zeros(1, DType::U32, &Device::Cpu);
    let recorded = Recorded { positions: numbers()?, rows: numbers()?, attention: numbers()?, states: numbers()? };
    tap.begin(&Batch::recorded(vec![span(0, 1, 0)], recorded))?;
    assert!(tap.lambda(Site::Z(0))?.is_some());
    assert!(tap.fired()[0].values().all(|&tokens| tokens == 0), "recording is not reading");
    tap.played(0, 0, 3);
    assert_eq!(tap.fired()[0].values().copied().collect::<Vec<_>>(), [3, 0]);
    let error = tap.check_slot(0, 0, (3, 3)).unwrap_err().to_string();
    assert!(error.contains("applied to 3 of 6 head-tokens"), "{error}");
    assert!(tap.check_fired().unwrap_err().to_string().contains("L2H1"));
    Ok(())
}

#[test]
fn whoever_reads_sees_what_the_plan_left() -> Result<()> {
    let (mut plan, mut seen) = (scale(&[plan("L0H1:0.5")])?, crate::Recorder::default());
    let mut taps = crate::Tee(vec![&mut seen, &mut plan]);
    let tap: &mut dyn Tap = &mut taps;
    tap.begin(&Batch::single(1))?;
    let ones = Tensor::ones((1, 2, 4), DType::F32, &Device::Cpu)?;
    tap.heads(Site::Z(0), |lambda| ones.broadcast_mul(&lambda.expect("planned").unsqueeze(2)?))?;
    assert_eq!(seen.0[0].1.sum(2)?.to_vec2::<f32>()?, [[4., 2.]]);
    Ok(())
}

#[test]
fn a_plan_for_another_model_is_refused_before_anything_runs() {
    let message = scale(&[plan("L1H0:0.5")]).err().expect("layer 1 is a delta net").to_string();
    assert!(message.contains("the heads of layer 1 are L1V0 to L1V3"), "{message}");
}
