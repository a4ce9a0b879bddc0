//! The laws of a forward pass: hooks that do nothing, batches, caches, numbers.

use candle_core::{Result, Tensor};
use headtemper_hook::{HeadPlan, ModelSpec, Recorder, Tap, Tee};
use headtemper_model::CausalLm;

use super::{
    Check, Found,
    feed::{in_pieces, in_rows, length, scale, tokens},
    relative, rounding, values,
};

/// f32 on another device against f32 on the CPU, relative to the largest logit. On an H200 (2026-11-27) it held for the tiny
/// models of `temper doctor`; the margin was not recorded.
const DEVICE: f64 = 5e-3;

/// A plan of one head per layer, a different one from layer to layer, at λ 0.5, 0 and -1 in turn. Products with these do not
/// round.
pub(super) fn exact_plan(spec: &ModelSpec) -> HeadPlan {
    let heads = (0..spec.layers.len()).filter_map(|layer| {
        let head = (2 * layer + 1) % spec.head_count(layer).max(1);
        Some((spec.heads_of(layer).nth(head)?, [0.5, 0.0, -1.0][layer % 3]))
    });
    HeadPlan::new(heads).expect("every layer once, and finite")
}

/// No tap = an empty tap = a watching tap = λ 1 on every head, bit for bit on every device: none of them changes any value.
pub fn untouched(model: &dyn CausalLm) -> Check {
    Check::of("no tap = empty tap = λ 1", 0.0, untouched_found(model))
}

fn untouched_found(model: &dyn CausalLm) -> Result<Found> {
    let n = length(model.spec());
    let (ids, pieces) = (tokens(model.spec(), n, 1), [n - 3, 1, 1, 1]);
    let bare = in_pieces(model, &ids, &pieces, &mut ())?;
    let everywhere = HeadPlan::uniform(&model.spec().slots(), 1.0).map_err(candle_core::Error::wrap)?;
    let (mut watching, mut one) = (Recorder::default(), scale(model, &[everywhere])?);
    let taps: [(&str, &mut dyn Tap); 3] =
        [("an empty tap", &mut Tee(Vec::new())), ("a watching tap", &mut watching), ("λ 1", &mut one)];
    let (mut worst, mut note) = (0.0, format!("{n} tokens, 3 of them decoded"));
    for (name, tap) in taps {
        let off = relative(&in_pieces(model, &ids, &pieces, tap)?, &bare)?;
        if off > worst {
            (worst, note) = (off, format!("{name} moves the result"));
        }
    }
    Ok((worst, note))
}

/// A row in any batch, at any place, next to any other rows, under its own plan = the row alone, bit for bit on the CPU.
pub fn packed(model: &dyn CausalLm) -> Check {
    Check::of("packed = alone", rounding(model), packed_found(model))
}

fn packed_found(model: &dyn CausalLm) -> Result<Found> {
    let spec = model.spec();
    let n = length(spec);
    let everywhere = HeadPlan::uniform(&spec.slots(), 1.0).map_err(candle_core::Error::wrap)?;
    let ends = (0..spec.layers.len()).filter_map(|layer| Some((spec.heads_of(layer).last()?, 1.75)));
    let ends = HeadPlan::new(ends).map_err(candle_core::Error::wrap)?;
    let plans = [HeadPlan::none(), exact_plan(spec), everywhere, ends];
    let lengths = [n / 2, n / 4, n, n / 4];
    let sequences: Vec<_> = lengths.iter().zip(2..).map(|(&len, seed)| tokens(spec, len.max(3), seed)).collect();
    let alone = |(ids, plan): (&Vec<u32>, &HeadPlan)| {
        in_pieces(model, ids, &[ids.len() - 2, 1, 1], &mut scale(model, std::slice::from_ref(plan))?)
    };
    let alone = sequences.iter().zip(&plans).map(alone).collect::<Result<Vec<_>>>()?;
    let (mut worst, mut note) = (0.0, "4 sequences in 2 orders, under 4 plans".to_string());
    for order in [[0, 1, 2, 3], [3, 1, 0, 2]] {
        let rows = order.map(|i| (i, &sequences[i][..]));
        for (hidden, i) in in_rows(model, &rows, 2, &mut scale(model, &plans)?)?.iter().zip(order) {
            let off = relative(hidden, &alone[i])?;
            if off > worst {
                (worst, note) = (off, format!("sequence {i} of {} tokens in order {order:?}", sequences[i].len()));
            }
        }
    }
    Ok((worst, note))
}

/// Prefill and decode with the cache = one full forward, under a plan, bit for bit on the CPU.
pub fn decoded(model: &dyn CausalLm) -> Check {
    Check::of("prefill + decode = one forward", rounding(model), decoded_found(model))
}

fn decoded_found(model: &dyn CausalLm) -> Result<Found> {
    let n = length(model.spec());
    let (ids, plan) = (tokens(model.spec(), n, 6), [exact_plan(model.spec())]);
    let whole = in_pieces(model, &ids, &[n], &mut scale(model, &plan)?)?;
    let (mut worst, mut note) = (0.0, format!("{n} tokens, split in 3 ways"));
    for pieces in [vec![1; n], vec![n / 2, 1, n - n / 2 - 1], vec![n - 1, 1]] {
        let parts = in_pieces(model, &ids, &pieces, &mut scale(model, &plan)?)?;
        let off = relative(&parts, &whole)?;
        if off > worst {
            (worst, note) = (off, format!("in {} pieces, the first of {}", pieces.len(), pieces[0]));
        }
    }
    Ok((worst, note))
}

/// No logit is NaN or infinite.
pub fn finite(model: &dyn CausalLm) -> Check {
    Check::of("logits are finite", 0.0, finite_found(model))
}

fn finite_found(model: &dyn CausalLm) -> Result<Found> {
    let ids = tokens(model.spec(), length(model.spec()), 7);
    let logits = values(&model.logits(&in_pieces(model, &ids, &[ids.len()], &mut ())?)?)?;
    let odd = logits.iter().filter(|x| !x.is_finite()).count();
    Ok((odd as f64, format!("{} logits", logits.len())))
}

/// One model gives the same logits on two devices, tempered or not, relative to the largest logit.
pub fn same_as(model: &dyn CausalLm, reference: &dyn CausalLm) -> Check {
    let found = || -> Result<Found> {
        let ids = tokens(model.spec(), length(model.spec()), 8);
        let mut worst: f64 = 0.0;
        for plan in [HeadPlan::none(), exact_plan(model.spec())] {
            let logits = |model: &dyn CausalLm| -> Result<Tensor> {
                let mut tap = scale(model, std::slice::from_ref(&plan))?;
                model.logits(&in_pieces(model, &ids, &[ids.len()], &mut tap)?)
            };
            worst = worst.max(relative(&logits(model)?, &logits(reference)?)?);
        }
        Ok((worst, format!("{} tokens, tempered or not", ids.len())))
    };
    Check::of("this device = the CPU", DEVICE, found())
}
