//! A plan at work: the tap that scales heads.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor};

use crate::{Batch, HeadPlan, HeadRef, ModelSpec, PlanError, Site, Tap};

/// Scales each planned head's z by its λ, each row of the batch by its own plan. Made from [`HeadPlan`]s.
///
/// Counts how many tokens every planned head was applied to, so that a plan which fired nowhere can be told from a
/// null result: see [`HeadScale::check_fired`].
pub struct HeadScale {
    /// Per touched site: λ `[row, head, 1]`, 1 where a row does not touch a head.
    lambda: BTreeMap<Site, Tensor>,
    /// Per row and planned head: tokens it was applied to.
    fired: Vec<BTreeMap<HeadRef, u64>>,
    /// Of the current forward: the λ row of every token, `[n]`.
    rows: Option<Tensor>,
    /// Of the current forward: tokens per row.
    tokens: Vec<u64>,
    device: Device,
    dtype: DType,
}

impl HeadScale {
    /// Compiles one plan a row against the model. Row `i` of the λ table is `plans[i]`.
    ///
    /// # Errors
    /// If a plan names a layer or head that the model does not have.
    pub fn compile(plans: &[HeadPlan], spec: &ModelSpec, dtype: DType, device: &Device) -> Result<Self> {
        let mut values: BTreeMap<Site, Vec<f32>> = BTreeMap::new();
        for (row, plan) in plans.iter().enumerate() {
            plan.check(spec).map_err(candle_core::Error::wrap)?;
            for (at, lambda) in plan.iter() {
                let heads = spec.head_count(at.layer);
                let table = values.entry(spec.head_site(at.layer)).or_insert_with(|| vec![1.0; plans.len() * heads]);
                table[row * heads + at.head] = lambda;
            }
        }
        let lambda = values
            .into_iter()
            .map(|(site, v)| {
                let shape = (plans.len(), v.len() / plans.len(), 1);
                Ok((site, Tensor::from_vec(v, shape, device)?.to_dtype(dtype)?))
            })
            .collect::<Result<_>>()?;
        let fired = plans.iter().map(|plan| plan.iter().map(|(at, _)| (at, 0)).collect()).collect();
        Ok(Self { lambda, fired, rows: None, tokens: vec![0; plans.len()], device: device.clone(), dtype })
    }

    /// How many tokens each planned head of each row was applied to.
    pub fn fired(&self) -> &[BTreeMap<HeadRef, u64>] {
        &self.fired
    }

    /// Refuses a run in which a planned head was never applied: its result would look like a null.
    ///
    /// # Errors
    /// Names the heads that never fired.
    pub fn check_fired(&self) -> std::result::Result<(), PlanError> {
        let idle: std::collections::BTreeSet<_> =
            self.fired.iter().flatten().filter(|&(_, &count)| count == 0).map(|(&at, _)| at).collect();
        if idle.is_empty() { Ok(()) } else { Err(PlanError::NeverFired(idle.into_iter().collect())) }
    }
}

impl Tap for HeadScale {
    fn begin(&mut self, batch: &Batch) -> Result<()> {
        self.tokens.fill(0);
        for span in batch.spans() {
            match self.tokens.get_mut(span.row) {
                Some(count) => *count += span.len as u64,
                None => {
                    candle_core::bail!("row {} of the batch has no plan; there are {}", span.row, self.fired.len())
                }
            }
        }
        self.rows = Some(Tensor::from_vec(batch.rows(), batch.tokens(), &self.device)?);
        Ok(())
    }

    fn wants(&self, site: Site) -> bool {
        self.lambda.contains_key(&site)
    }

    fn at(&mut self, site: Site, z: Tensor) -> Result<Tensor> {
        let (Some(lambda), Some(rows), Some(layer)) = (self.lambda.get(&site), &self.rows, site.head_layer()) else {
            candle_core::bail!("a plan was visited at {site} before a forward began");
        };
        for (fired, &tokens) in self.fired.iter_mut().zip(&self.tokens) {
            for (_, count) in fired.iter_mut().filter(|(at, _)| at.layer == layer) {
                *count += tokens;
            }
        }
        let lambda = lambda.index_select(rows, 0)?; // [n, head, 1]
        if z.dtype() == self.dtype { z.broadcast_mul(&lambda) } else { z.broadcast_mul(&lambda.to_dtype(z.dtype())?) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Span, spec::tests::hybrid};

    fn plan(text: &str) -> HeadPlan {
        crate::HeadList::parse(text).unwrap().plan(None).unwrap()
    }

    fn scale(plans: &[HeadPlan]) -> Result<HeadScale> {
        HeadScale::compile(plans, &hybrid(), DType::F32, &Device::Cpu)
    }

    #[test]
    fn each_row_gets_its_own_lambda_and_only_planned_heads_move() -> Result<()> {
        let mut tap = scale(&[HeadPlan::none(), plan("L2H1:0.5"), plan("L2H0:0,L2H2:-2")])?;
        let batch = Batch::new(vec![
            Span { slot: 0, start: 0, len: 1, row: 1 },
            Span { slot: 1, start: 0, len: 2, row: 2 },
            Span { slot: 2, start: 0, len: 1, row: 0 },
        ]);
        tap.begin(&batch)?;
        assert!(!tap.wants(Site::Z(0)) && tap.wants(Site::Z(2)) && !tap.wants(Site::ResidPost(2)));
        let z = tap.visit(Site::Z(2), Tensor::ones((4, 3, 8), DType::F32, &Device::Cpu)?)?;
        let first = z.narrow(2, 0, 1)?.flatten_all()?.to_vec1::<f32>()?;
        assert_eq!(first, [1., 0.5, 1., 0., 1., -2., 0., 1., -2., 1., 1., 1.]);
        assert_eq!(tap.fired()[2].values().copied().collect::<Vec<_>>(), [2, 2]);
        tap.check_fired().map_err(candle_core::Error::wrap)
    }

    #[test]
    fn value_heads_of_a_delta_net_are_scaled_at_their_own_site() -> Result<()> {
        let mut tap = scale(&[plan("L1V2:0.5")])?;
        tap.begin(&Batch::single(1))?;
        assert!(tap.wants(Site::LinearZ(1)) && !tap.wants(Site::Z(1)));
        let z = tap.visit(Site::LinearZ(1), Tensor::ones((1, 4, 6), DType::F32, &Device::Cpu)?)?;
        assert_eq!(z.sum(2)?.to_vec2::<f32>()?, [[6., 6., 3., 6.]]);
        tap.check_fired().map_err(candle_core::Error::wrap)
    }

    #[test]
    fn a_plan_that_never_fired_is_an_error() -> Result<()> {
        let mut tap = scale(&[plan("L0H1:0.5,L2H1:0.5")])?;
        tap.begin(&Batch::single(1))?;
        tap.visit(Site::Z(0), Tensor::ones((1, 2, 4), DType::F32, &Device::Cpu)?)?;
        let message = tap.check_fired().unwrap_err().to_string();
        assert!(message.contains("L2H1") && !message.contains("L0H1"), "{message}");
        Ok(())
    }

    #[test]
    fn a_plan_for_another_model_is_refused_before_anything_runs() {
        let message = scale(&[plan("L1H0:0.5")]).err().expect("layer 1 is a delta net").to_string();
        assert!(message.contains("the heads of layer 1 are L1V0 to L1V3"), "{message}");
    }
}
