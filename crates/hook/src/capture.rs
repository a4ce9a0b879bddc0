//! The taps that read: per-head statistics, hidden states, and a recorder for tests.

use std::{collections::BTreeMap, ops::Range};

use candle_core::{DType, Result, Tensor};
use headtemper_kernels::{HeadStats, Spans, head_stats, range_means};

use crate::{Site, Tap};

/// Reduces every layer's z, delta nets included, over a range of tokens of each sequence, as the pass runs and on the device.
///
/// It keeps [`HeadStats`] per sequence, layer and head. z is what the output projection receives, so a tempered head shows
/// its tempered norm.
pub struct HeadCapture {
    ranges: Spans<Range<usize>>,
    vectors: bool,
    layers: BTreeMap<usize, HeadStats>,
}

impl HeadCapture {
    /// Reduces over these ranges of packed tokens of one forward pass, one range per sequence.
    pub fn new(ranges: Vec<Range<usize>>, vectors: bool) -> Self {
        Self { ranges: ranges.into(), vectors, layers: BTreeMap::new() }
    }

    /// What was captured, by layer.
    pub fn into_layers(self) -> BTreeMap<usize, HeadStats> {
        self.layers
    }
}

impl Tap for HeadCapture {
    fn wants(&self, site: Site) -> bool {
        site.head_layer().is_some()
    }

    fn at(&mut self, site: Site, z: Tensor) -> Result<Tensor> {
        if let Some(layer) = site.head_layer() {
            self.layers.insert(layer, head_stats(&z, &self.ranges, self.vectors)?);
        }
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
    Means(Spans<Range<usize>>),
}

impl HiddenCapture {
    /// Keeps the packed tokens `tokens` (u32, `[m]`) at these sites.
    pub fn new(tokens: Tensor, sites: Vec<Site>) -> Self {
        Self { chosen: Chosen::Tokens(tokens), wanted: sites, kept: BTreeMap::new() }
    }

    /// Keeps the mean over each of these ranges of packed tokens at these sites, in f32: tokens are summed in order from 0, and
    /// the sum is multiplied by one over their number.
    pub fn means(ranges: Vec<Range<usize>>, sites: Vec<Site>) -> Self {
        Self { chosen: Chosen::Means(ranges.into()), wanted: sites, kept: BTreeMap::new() }
    }

    /// What was captured: `[m, d_model]` f32 per site.
    pub fn into_sites(self) -> BTreeMap<Site, Tensor> {
        self.kept
    }
}

impl Tap for HiddenCapture {
    fn named(&self) -> Vec<Site> {
        self.wanted.clone()
    }

    fn wants(&self, site: Site) -> bool {
        self.wanted.contains(&site)
    }

    fn at(&mut self, site: Site, x: Tensor) -> Result<Tensor> {
        let kept = match &self.chosen {
            Chosen::Tokens(tokens) => x.index_select(tokens, 0)?.to_dtype(DType::F32)?,
            Chosen::Means(ranges) => range_means(&x, ranges)?,
        };
        self.kept.insert(site, kept);
        Ok(x)
    }
}

/// Records every site it is shown, with the tensor. Tests use it to prove that hooks fire and to bisect drift.
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
        let bits = |rows: &HeadStats| -> Result<Vec<u32>> {
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
