//! The only seam between a model and whoever watches or changes it.

use candle_core::{Result, Tensor};

use crate::{Batch, Site};

/// Something that watches or changes a forward pass.
///
/// A model calls [`Tap::visit`] once at every site; `()` is the tap that wants nothing. A tap makes no host copies
/// during a forward. It never changes a tensor in place, since clones share storage and another tap may hold one.
pub trait Tap {
    /// Called once before each forward pass.
    ///
    /// # Errors
    /// What the tap reports stops the forward.
    fn begin(&mut self, _batch: &Batch) -> Result<()> {
        Ok(())
    }

    /// Sites that it is for, each of which the model must have: at one that is not there it would do nothing, in silence.
    fn named(&self) -> Vec<Site> {
        Vec::new()
    }

    /// Whether the tap wants the tensor at this site.
    fn wants(&self, site: Site) -> bool;

    /// Reads or replaces the tensor at a site it wants. The result has the shape of `x`.
    ///
    /// # Errors
    /// What the tap reports stops the forward.
    fn at(&mut self, site: Site, x: Tensor) -> Result<Tensor>;

    /// λ of every packed token and head at a site of heads, `[n, heads]` f32. The mixer multiplies each head's z by it while
    /// writing z. `None` scales nothing. Asked once per forward, before [`Tap::at`] sees the scaled z.
    ///
    /// # Errors
    /// What the tap reports stops the forward.
    fn lambda(&mut self, _site: Site) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// Hands the tensor to [`Tap::at`] if it is wanted. This is what a model calls.
    ///
    /// # Errors
    /// Those of [`Tap::at`].
    fn visit(&mut self, site: Site, x: Tensor) -> Result<Tensor> {
        if self.wants(site) { self.at(site, x) } else { Ok(x) }
    }
}

impl dyn Tap + '_ {
    /// What a mixer calls at its heads, and the only way to their site. `mix` makes z `[n, head, dim]`, scaled by λ
    /// `[n, heads]` if there is one, so a reader sees exactly what the output projection receives.
    ///
    /// # Errors
    /// Those of `mix`, [`Tap::lambda`] and [`Tap::at`].
    pub fn heads(&mut self, site: Site, mix: impl FnOnce(Option<&Tensor>) -> Result<Tensor>) -> Result<Tensor> {
        let lambda = self.lambda(site)?;
        self.visit(site, mix(lambda.as_ref())?)
    }
}

/// No hooks.
impl Tap for () {
    fn wants(&self, _: Site) -> bool {
        false
    }
    fn at(&mut self, _: Site, x: Tensor) -> Result<Tensor> {
        Ok(x)
    }
}

impl<T: Tap + ?Sized> Tap for &mut T {
    fn begin(&mut self, batch: &Batch) -> Result<()> {
        (**self).begin(batch)
    }
    fn named(&self) -> Vec<Site> {
        (**self).named()
    }
    fn wants(&self, site: Site) -> bool {
        (**self).wants(site)
    }
    fn at(&mut self, site: Site, x: Tensor) -> Result<Tensor> {
        (**self).at(site, x)
    }
    fn lambda(&mut self, site: Site) -> Result<Option<Tensor>> {
        (**self).lambda(site)
    }
}

/// Several taps, visited in order: each sees what the one before it left. Their λ are multiplied together and applied first.
pub struct Tee<'a>(pub Vec<&'a mut dyn Tap>);

impl Tap for Tee<'_> {
    fn begin(&mut self, batch: &Batch) -> Result<()> {
        self.0.iter_mut().try_for_each(|tap| tap.begin(batch))
    }
    fn named(&self) -> Vec<Site> {
        self.0.iter().flat_map(Tap::named).collect()
    }
    fn wants(&self, site: Site) -> bool {
        self.0.iter().any(|tap| tap.wants(site))
    }
    fn at(&mut self, site: Site, x: Tensor) -> Result<Tensor> {
        self.0.iter_mut().try_fold(x, |x, tap| tap.visit(site, x))
    }
    fn lambda(&mut self, site: Site) -> Result<Option<Tensor>> {
        let mut all: Option<Tensor> = None;
        for tap in &mut self.0 {
            all = match (all, tap.lambda(site)?) {
                (Some(a), Some(b)) => Some((a * b)?),
                (a, b) => a.or(b),
            };
        }
        Ok(all)
    }
}

/// A closure at one site.
pub struct OnSite<F>(pub Site, pub F);

impl<F: FnMut(Tensor) -> Result<Tensor>> Tap for OnSite<F> {
    fn named(&self) -> Vec<Site> {
        vec![self.0]
    }
    fn wants(&self, site: Site) -> bool {
        site == self.0
    }
    fn at(&mut self, _: Site, x: Tensor) -> Result<Tensor> {
        (self.1)(x)
    }
}
