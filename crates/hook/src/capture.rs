//! The taps that read: per-head statistics, hidden states, and a recorder for tests.

use std::{collections::BTreeMap, ops::Range};

use candle_core::{DType, Result, Tensor};

use crate::{Site, Tap};

/// Reduces every layer's z, a delta net's included, over a range of tokens of each sequence, at once and on the device.
///
/// Per sequence, layer and head: the mean over the range of the L2 norm of z, its norm at the range's last token, and if
/// asked the mean of z itself.
/// z is what the output projection receives, so a tempered head shows its tempered norm.
pub struct HeadCapture {
    ranges: Vec<Range<usize>>,
    vectors: bool,
    layers: BTreeMap<usize, HeadRows>,
}

/// What [`HeadCapture`] keeps of one layer, a row a sequence.
pub struct HeadRows {
    /// Mean L2 norm of z: `[sequence, head]`, f32.
    pub norms: Tensor,
    /// L2 norm of z at the last token of the range: `[sequence, head]`, f32.
    pub last_norms: Tensor,
    /// Mean z: `[sequence, head, head_dim]`, f32, if vectors were asked for.
    pub vectors: Option<Tensor>,
}

impl HeadCapture {
    /// Reduces over these ranges of packed tokens, one a sequence, of one forward pass.
    pub fn new(ranges: Vec<Range<usize>>, vectors: bool) -> Self {
        Self { ranges, vectors, layers: BTreeMap::new() }
    }

    /// What was captured, by layer.
    pub fn into_layers(self) -> BTreeMap<usize, HeadRows> {
        self.layers
    }
}

impl Tap for HeadCapture {
    fn wants(&self, site: Site) -> bool {
        site.head_layer().is_some()
    }

    fn at(&mut self, site: Site, z: Tensor) -> Result<Tensor> {
        let Some(layer) = site.head_layer() else { return Ok(z) };
        let (mut norms, mut last_norms, mut vectors) = (Vec::new(), Vec::new(), Vec::new());
        for range in &self.ranges {
            let part = z.narrow(0, range.start, range.len())?.to_dtype(DType::F32)?; // [n, head, dim]
            let of_tokens = part.sqr()?.sum(2)?.sqrt()?; // [n, head]
            last_norms.push(of_tokens.get(range.len() - 1)?); // [head]
            norms.push(of_tokens.mean(0)?); // [head]
            if self.vectors {
                vectors.push(part.mean(0)?); // [head, dim]
            }
        }
        let vectors = if self.vectors { Some(Tensor::stack(&vectors, 0)?) } else { None };
        let (norms, last_norms) = (Tensor::stack(&norms, 0)?, Tensor::stack(&last_norms, 0)?);
        self.layers.insert(layer, HeadRows { norms, last_norms, vectors });
        Ok(z)
    }
}

/// Keeps the hidden state of chosen tokens at chosen sites, f32.
pub struct HiddenCapture {
    tokens: Tensor,
    wanted: Vec<Site>,
    kept: BTreeMap<Site, Tensor>,
}

impl HiddenCapture {
    /// Keeps the packed tokens `tokens` (u32, `[m]`) at these sites.
    pub fn new(tokens: Tensor, sites: Vec<Site>) -> Self {
        Self { tokens, wanted: sites, kept: BTreeMap::new() }
    }

    /// What was captured: `[m, d_model]` f32 a site.
    pub fn into_sites(self) -> BTreeMap<Site, Tensor> {
        self.kept
    }
}

impl Tap for HiddenCapture {
    fn wants(&self, site: Site) -> bool {
        self.wanted.contains(&site)
    }

    fn at(&mut self, site: Site, x: Tensor) -> Result<Tensor> {
        self.kept.insert(site, x.index_select(&self.tokens, 0)?.to_dtype(DType::F32)?);
        Ok(x)
    }
}

/// Writes down every site it is shown, with the tensor: how tests prove that hooks fire, and bisect drift.
#[derive(Default)]
pub struct Recorder(pub Vec<(Site, Tensor)>);

impl Tap for Recorder {
    fn wants(&self, _: Site) -> bool {
        true
    }

    fn at(&mut self, site: Site, x: Tensor) -> Result<Tensor> {
        self.0.push((site, x.clone()));
        Ok(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn norms_and_means_are_taken_over_each_sequences_own_tokens() -> Result<()> {
        // two tokens of sequence 0 with norms 5 and 10, one of sequence 1 with norm 13; one head of width 2
        let z = Tensor::new(&[[[3f32, 4.]], [[6., 8.]], [[5., 12.]]], &Device::Cpu)?;
        let mut tap = HeadCapture::new(vec![0..2, 2..3], true);
        tap.visit(Site::Z(4), z)?;
        let layers = tap.into_layers();
        assert_eq!(layers[&4].norms.to_vec2::<f32>()?, [[7.5], [13.]]);
        assert_eq!(layers[&4].last_norms.to_vec2::<f32>()?, [[10.], [13.]]);
        let vectors = layers[&4].vectors.as_ref().expect("asked for");
        assert_eq!(vectors.flatten_all()?.to_vec1::<f32>()?, [4.5, 6., 5., 12.]);
        Ok(())
    }
}
