//! What was scored: the numbers of every head, λ and item.

use headtemper_hook::HeadRef;

use crate::{
    Array, Npz, Result, RunDir,
    score::{CellContrast, Contrast},
    store::files::write_text,
    text::quoted,
};

/// A table `[cell, item]` of sums over each item's scored tokens. A cell is a head at a λ.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// The heads.
    pub heads: Vec<HeadRef>,
    /// The factors.
    pub lambdas: Vec<f32>,
    /// The cells in order, as places in `heads` and `lambdas`; not every head need be there at every λ.
    pub scored: Vec<[usize; 2]>,
    /// The items.
    pub ids: Vec<String>,
    /// Their labels, empty where there is none.
    pub labels: Vec<String>,
    /// Scored tokens of each item.
    pub tokens: Vec<usize>,
    /// Their summed log-probability under the untempered model, in nats.
    pub base: Vec<f64>,
    /// Tempered minus untempered log-probability, `[cell, item]`, in nats.
    pub delta: Vec<f64>,
    /// KL(untempered || tempered), `[cell, item]`, in nats.
    pub kl: Vec<f64>,
    /// Tokens at which both have the same likeliest token, `[cell, item]`.
    pub agree: Vec<usize>,
}

impl Scores {
    /// Every scored head and λ, in the order of the tables.
    pub fn cells(&self) -> impl Iterator<Item = (HeadRef, f32)> + '_ {
        self.scored.iter().map(|&[head, lambda]| (self.heads[head], self.lambdas[lambda]))
    }

    /// One row of a table, over the items, each divided by the item's tokens.
    pub fn per_token(&self, table: &[f64], cell: usize) -> Vec<f64> {
        let n = self.ids.len();
        table[cell * n..(cell + 1) * n].iter().zip(&self.tokens).map(|(sum, &tokens)| sum / tokens as f64).collect()
    }

    /// The share of tokens of each item at which a cell's likeliest token is the untempered one's.
    pub fn agreement(&self, cell: usize) -> Vec<f64> {
        let n = self.ids.len();
        let agree = &self.agree[cell * n..(cell + 1) * n];
        agree.iter().zip(&self.tokens).map(|(&agree, &tokens)| agree as f64 / tokens as f64).collect()
    }

    /// Values of cells, `width` per cell, as a table `[head, lambda, ..]` in f32: NaN where a head was not scored at a λ.
    pub(crate) fn by_head(&self, width: usize, cells: impl Iterator<Item = Vec<f64>>) -> Vec<f32> {
        let mut table = vec![f32::NAN; self.heads.len() * self.lambdas.len() * width];
        for (&[head, lambda], values) in self.scored.iter().zip(cells) {
            let start = (head * self.lambdas.len() + lambda) * width;
            table[start..start + width].iter_mut().zip(values).for_each(|(to, value)| *to = value as f32);
        }
        table
    }

    /// Writes `scores.npz` and `scores.csv`; each appears whole. The contrast between two cohorts goes into the first only.
    pub(crate) fn save(&self, run: &RunDir, meta: &str, contrast: Option<&Contrast>) -> Result<()> {
        write_text(&run.file("scores.csv"), &self.csv())?;
        let shape = vec![self.heads.len(), self.lambdas.len(), self.ids.len()];
        let n = self.ids.len();
        let rows = |row: &dyn Fn(usize) -> Vec<f64>| {
            Array::F32(shape.clone(), self.by_head(n, (0..self.scored.len()).map(row)))
        };
        let sums = |table: &[f64]| rows(&|cell| table[cell * n..(cell + 1) * n].to_vec());
        let mut npz = Npz::default();
        npz.add("delta_logprob", sums(&self.delta));
        npz.add("delta_logprob_per_token", rows(&|cell| self.per_token(&self.delta, cell)));
        npz.add("kl", sums(&self.kl));
        npz.add("kl_per_token", rows(&|cell| self.per_token(&self.kl, cell)));
        npz.add("agreement", rows(&|cell| self.agreement(cell)));
        npz.add("base_logprob", Array::F32(vec![self.ids.len()], self.base.iter().map(|&x| x as f32).collect()));
        npz.add("tokens", Array::counts(self.tokens.iter().copied()));
        npz.add("head_name", Array::Text(self.heads.iter().map(ToString::to_string).collect()));
        npz.add("head_layer", Array::counts(self.heads.iter().map(|at| at.layer)));
        npz.add("head_index", Array::counts(self.heads.iter().map(|at| at.head)));
        npz.add("lambda", Array::F32(vec![self.lambdas.len()], self.lambdas.clone()));
        npz.add("id", Array::Text(self.ids.clone()));
        npz.add("label", Array::Text(self.labels.clone()));
        if let Some(contrast) = contrast {
            let of_cells =
                |of: fn(&CellContrast) -> f64| self.by_head(1, contrast.cells.iter().map(|cell| vec![of(cell)]));
            let shape = vec![self.heads.len(), self.lambdas.len()];
            npz.add("contrast_d", Array::F32(shape.clone(), of_cells(|cell| cell.cohen_d)));
            npz.add("contrast_d_low", Array::F32(shape.clone(), of_cells(|cell| cell.d_low)));
            npz.add("contrast_d_high", Array::F32(shape, of_cells(|cell| cell.d_high)));
        }
        npz.add("meta", Array::Scalar(meta.into()));
        npz.save(&run.file("scores.npz"))
    }

    /// One line per head, λ and item, in full precision.
    fn csv(&self) -> String {
        let mut out = String::from(
            "head,layer,index,lambda,id,label,tokens,base_logprob,delta_logprob,delta_logprob_per_token,kl,\
             kl_per_token,agreement\n",
        );
        let n = self.ids.len();
        for (cell, (at, lambda)) in self.cells().enumerate() {
            for item in 0..n {
                let (tokens, place) = (self.tokens[item] as f64, cell * n + item);
                let (delta, kl) = (self.delta[place], self.kl[place]);
                out += &format!(
                    "{at},{},{},{lambda},{},{},{tokens},{},{delta},{},{kl},{},{}\n",
                    at.layer,
                    at.head,
                    quoted(&self.ids[item]),
                    quoted(&self.labels[item]),
                    self.base[item],
                    delta / tokens,
                    kl / tokens,
                    self.agree[place] as f64 / tokens,
                );
            }
        }
        out
    }
}
