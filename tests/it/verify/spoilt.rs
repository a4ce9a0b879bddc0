//! Models with one fault each.

use candle_core::{Result, Tensor};
use headtemper_hook::{Batch, Site, Span, Tap};
use headtemper_model::{Branch, Cache, CausalLm, Matrix, Shell};

/// The fault of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    /// None.
    Sound,
    /// A layer neither asks for λ nor shows its heads.
    Deaf,
    /// A layer asks for λ but does not apply it: the silent hook.
    Silent,
    /// Like `Silent`, for one head of the layer.
    SilentHead,
    /// Like `Silent`, in decode only.
    SilentInDecode,
    /// A layer shows its heads in another order.
    WrongHead,
    /// A layer asks for λ and shows its heads twice.
    Twice,
    /// Hidden states change a little when a tap reads or scales the heads of a layer.
    Shy,
    /// Hidden states change a little with the number of sequences.
    Crowded,
    /// Neighbours in the batch get each other's last hidden state.
    Swapped,
    /// The cache keeps the last token of the prefill twice, so everything after it is one place too late.
    OffByOne,
    /// One logit is infinite.
    Infinite,
    /// Logits are a thousandth too large.
    Loud,
}

/// A model with a fault, and the heads where it sits.
pub(super) struct Spoilt(pub(super) Box<dyn CausalLm>, pub(super) Fault, pub(super) Site);

impl CausalLm for Spoilt {
    fn shell(&self) -> &Shell {
        self.0.shell()
    }

    fn new_cache(&self, slots: usize, capacity: usize) -> Result<Cache> {
        self.0.new_cache(slots, capacity + usize::from(self.1 == Fault::OffByOne))
    }

    fn output_projection(&self, layer: usize) -> &Matrix {
        self.0.output_projection(layer)
    }

    fn run(
        &self,
        ids: &Tensor,
        from: Option<&Branch<'_>>,
        batch: &Batch,
        cache: &mut Cache,
        tap: &mut dyn Tap,
    ) -> Result<Tensor> {
        assert!(from.is_none(), "no law branches");
        let nudged = |x: Tensor, by: f64| x.affine(1.0 + by, 0.0);
        match self.1 {
            Fault::Crowded => {
                let extra = batch.spans().len() - 1;
                nudged(self.0.forward(ids, batch, cache, tap)?, 1e-6 * extra as f64)
            }
            Fault::Swapped => {
                let hidden = self.0.forward(ids, batch, cache, tap)?;
                let ends: Vec<u32> = batch.ranges().map(|(_, range)| range.end as u32 - 1).collect();
                let mut order: Vec<u32> = (0..batch.tokens() as u32).collect();
                for pair in ends.chunks_exact(2) {
                    order.swap(pair[0] as usize, pair[1] as usize);
                }
                hidden.index_select(&Tensor::new(order, hidden.device())?, 0)
            }
            Fault::OffByOne => self.off_by_one(ids, batch, cache, tap),
            _ => {
                let wanted = tap.wants(self.2);
                let decode = batch.spans().iter().all(|span| span.start > 0);
                let mut between = Between { tap, fault: self.1, site: self.2, decode, scaled: false };
                let hidden = self.0.forward(ids, batch, cache, &mut between)?;
                let shy = self.1 == Fault::Shy && (wanted || between.scaled);
                if shy { nudged(hidden, 1e-6) } else { Ok(hidden) }
            }
        }
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let logits = self.0.logits(hidden)?;
        match self.1 {
            Fault::Loud => logits.affine(1.001, 0.0),
            Fault::Infinite => {
                let (m, vocab) = logits.dims2()?;
                let mut odd = vec![0f32; m * vocab];
                odd[m * vocab - 1] = f32::INFINITY;
                logits + Tensor::from_vec(odd, (m, vocab), hidden.device())?
            }
            _ => Ok(logits),
        }
    }
}

impl Spoilt {
    fn off_by_one(&self, ids: &Tensor, batch: &Batch, cache: &mut Cache, tap: &mut dyn Tap) -> Result<Tensor> {
        let all = ids.to_vec1::<u32>()?;
        let (mut spans, mut fed, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for (span, range) in batch.ranges() {
            kept.extend(fed.len() as u32..(fed.len() + span.len) as u32);
            fed.extend(&all[range.clone()]);
            if span.start == 0 {
                fed.push(all[range.end - 1]);
                spans.push(Span { len: span.len + 1, ..*span });
            } else {
                spans.push(Span { start: span.start + 1, ..*span });
            }
        }
        let kept = Tensor::new(kept, ids.device())?;
        let mut without = Without { tap, batch, kept: kept.clone(), fed: fed.len() };
        let hidden = self.0.forward(&Tensor::new(fed, ids.device())?, &Batch::new(spans), cache, &mut without)?;
        hidden.index_select(&kept, 0)
    }
}

/// Hides the tokens that the off-by-one model adds.
struct Without<'a> {
    tap: &'a mut dyn Tap,
    batch: &'a Batch,
    kept: Tensor,
    fed: usize,
}

impl Tap for Without<'_> {
    fn begin(&mut self, _: &Batch) -> Result<()> {
        self.tap.begin(self.batch)
    }
    fn wants(&self, site: Site) -> bool {
        self.tap.wants(site)
    }
    fn at(&mut self, site: Site, x: Tensor) -> Result<Tensor> {
        let seen = self.tap.at(site, x.index_select(&self.kept, 0)?)?;
        // Only the added tokens stay as they were.
        let kept = self.kept.to_vec1::<u32>()?;
        let row = |i: u32| match kept.iter().position(|&k| k == i) {
            Some(at) => seen.get(at),
            None => x.get(i as usize),
        };
        Tensor::stack(&(0..x.dim(0)? as u32).map(row).collect::<Result<Vec<_>>>()?, 0)
    }
    fn lambda(&mut self, site: Site) -> Result<Option<Tensor>> {
        let Some(lambda) = self.tap.lambda(site)? else { return Ok(None) };
        let all = Tensor::ones((self.fed, lambda.dim(1)?), lambda.dtype(), lambda.device())?;
        Ok(Some(all.index_add(&self.kept, &(lambda - 1.0)?, 0)?))
    }
}

/// Sits between a sound model and the tap, and adds the fault.
struct Between<'a> {
    tap: &'a mut dyn Tap,
    fault: Fault,
    site: Site,
    decode: bool,
    /// Whether the tap scaled the heads at `site`.
    scaled: bool,
}

impl Tap for Between<'_> {
    fn begin(&mut self, batch: &Batch) -> Result<()> {
        self.tap.begin(batch)
    }
    fn wants(&self, site: Site) -> bool {
        self.tap.wants(site) && !(self.fault == Fault::Deaf && site == self.site)
    }
    fn at(&mut self, site: Site, x: Tensor) -> Result<Tensor> {
        if site != self.site {
            return self.tap.at(site, x);
        }
        match self.fault {
            Fault::WrongHead => {
                let seen = self.tap.at(site, turned(&x, 1)?)?;
                turned(&seen, x.dim(1)? - 1)
            }
            Fault::Twice => {
                self.tap.at(site, x.clone())?;
                self.tap.at(site, x)
            }
            _ => self.tap.at(site, x),
        }
    }
    fn lambda(&mut self, site: Site) -> Result<Option<Tensor>> {
        if site == self.site && self.fault == Fault::Deaf {
            return Ok(None);
        }
        let Some(lambda) = self.tap.lambda(site)? else { return Ok(None) };
        if site != self.site {
            return Ok(Some(lambda));
        }
        self.scaled = true;
        Ok(match self.fault {
            Fault::Silent => None,
            Fault::SilentInDecode if self.decode => None,
            Fault::SilentHead => {
                let first = lambda.narrow(1, 0, 1)?.ones_like()?;
                Some(Tensor::cat(&[first, lambda.narrow(1, 1, lambda.dim(1)? - 1)?], 1)?)
            }
            Fault::WrongHead => Some(turned(&lambda, lambda.dim(1)? - 1)?),
            Fault::Twice => self.tap.lambda(site)?,
            _ => Some(lambda),
        })
    }
}

/// The heads of `x` `[n, head, ..]`, rotated by `by` places.
fn turned(x: &Tensor, by: usize) -> Result<Tensor> {
    let heads = x.dim(1)?;
    let order: Vec<u32> = (0..heads).map(|head| ((head + by) % heads) as u32).collect();
    x.contiguous()?.index_select(&Tensor::new(order, x.device())?, 1)
}
