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

    /// Where every range is one token, as in a decode step, all are reduced at once: the numbers are the same.
    fn of_single_tokens(&self, z: &Tensor) -> Result<HeadRows> {
        let tokens: Vec<u32> = self.ranges.iter().map(|range| range.start as u32).collect();
        let part = z.index_select(&Tensor::new(tokens, z.device())?, 0)?.to_dtype(DType::F32)?; // [sequence, head, dim]
        let norms = part.sqr()?.sum(2)?.sqrt()?; // [sequence, head]
        // A mean begins at 0, which makes a zero of any sign 0: so it does here.
        let vectors = if self.vectors { Some(part.affine(1.0, 0.0)?) } else { None };
        Ok(HeadRows { last_norms: norms.clone(), norms, vectors })
    }
}

impl Tap for HeadCapture {
    fn wants(&self, site: Site) -> bool {
        site.head_layer().is_some()
    }

    fn at(&mut self, site: Site, z: Tensor) -> Result<Tensor> {
        let Some(layer) = site.head_layer() else { return Ok(z) };
        if self.ranges.iter().all(|range| range.len() == 1) {
            self.layers.insert(layer, self.of_single_tokens(&z)?);
            return Ok(z);
        }
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

/// Keeps the hidden state of chosen tokens at chosen sites, or its mean over ranges of tokens; f32.
pub struct HiddenCapture {
    chosen: Chosen,
    wanted: Vec<Site>,
    kept: BTreeMap<Site, Tensor>,
}

/// What [`HiddenCapture`] keeps.
enum Chosen {
    Tokens(Tensor),
    Means(Vec<Range<usize>>),
}

impl HiddenCapture {
    /// Keeps the packed tokens `tokens` (u32, `[m]`) at these sites.
    pub fn new(tokens: Tensor, sites: Vec<Site>) -> Self {
        Self { chosen: Chosen::Tokens(tokens), wanted: sites, kept: BTreeMap::new() }
    }

    /// Keeps the mean over each of these ranges of packed tokens at these sites: summed token by token from 0, and
    /// multiplied by one over their number, in f32.
    pub fn means(ranges: Vec<Range<usize>>, sites: Vec<Site>) -> Self {
        Self { chosen: Chosen::Means(ranges), wanted: sites, kept: BTreeMap::new() }
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
        let kept = match &self.chosen {
            Chosen::Tokens(tokens) => x.index_select(tokens, 0)?.to_dtype(DType::F32)?,
            Chosen::Means(ranges) => {
                let mean = |range: &Range<usize>| x.narrow(0, range.start, range.len())?.to_dtype(DType::F32)?.mean(0);
                Tensor::stack(&ranges.iter().map(mean).collect::<Result<Vec<_>>>()?, 0)?
            }
        };
        self.kept.insert(site, kept);
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
    #[test]
    fn single_tokens_are_reduced_as_ranges_are() -> Result<()> {
        let z = Tensor::new(&[[[3f32, -0.]], [[6., 8.]], [[5., 12.]]], &Device::Cpu)?;
        let (mut single, mut mixed) =
            (HeadCapture::new(vec![0..1, 2..3], true), HeadCapture::new(vec![0..1, 1..3], true));
        single.visit(Site::Z(0), z.clone())?;
        mixed.visit(Site::Z(0), z)?;
        let bits = |rows: &HeadRows| -> Result<Vec<u32>> {
            let vectors = rows.vectors.as_ref().expect("asked for").get(0)?.flatten_all()?.to_vec1::<f32>()?;
            let norms = [&rows.norms, &rows.last_norms].map(|x| x.get(0)?.to_vec1::<f32>());
            let norms = norms.into_iter().collect::<Result<Vec<_>>>()?.concat();
            Ok(vectors.iter().chain(&norms).map(|x| x.to_bits()).collect())
        };
        let (single, mixed) = (single.into_layers(), mixed.into_layers());
        assert_eq!(bits(&single[&0])?, bits(&mixed[&0])?);
        assert_eq!(single[&0].norms.to_vec2::<f32>()?, [[3.], [13.]]);
        Ok(())
    }

    #[test]
    fn hidden_states_are_kept_of_tokens_or_as_means() -> Result<()> {
        let x = Tensor::new(&[[1f32, 2.], [3., 6.], [-5., 4.]], &Device::Cpu)?;
        let (last, site) = (Tensor::new(&[1u32, 2], &Device::Cpu)?, Site::ResidPost(0));
        let mut tokens = HiddenCapture::new(last, vec![site]);
        let mut means = HiddenCapture::means(vec![0..2, 2..3], vec![site]);
        for tap in [&mut tokens, &mut means] {
            tap.visit(site, x.clone())?;
            tap.visit(Site::FinalNorm, x.clone())?;
        }
        assert_eq!(tokens.into_sites()[&site].to_vec2::<f32>()?, [[3., 6.], [-5., 4.]]);
        let means = means.into_sites();
        assert_eq!((means.len(), means[&site].to_vec2::<f32>()?), (1, vec![vec![2., 4.], vec![-5., 4.]]));
        Ok(())
    }
}
