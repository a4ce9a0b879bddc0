//! The laws of hooks: sites fire, plans are counted, every head has an effect.

use std::fmt::Write as _;

use candle_core::Result;
use headtemper_hook::{HeadPlan, HeadRef, ModelSpec, Recorder, Site};
use headtemper_model::CausalLm;

use super::{
    Check, Found, difference,
    feed::{in_pieces, in_rows, is_small, length, scale, tokens},
    relative, short,
};

/// Heads that are tried together, one per row.
const ROWS: usize = 32;

/// A sound model in which that is so.
const DEAD: &str = ", as after an export at λ 0";

/// A prefill and two decode steps.
fn pieces(spec: &ModelSpec) -> [usize; 3] {
    [length(spec) - 2, 1, 1]
}

/// Every site fires once per forward, in order, with the shape that the geometry implies, in prefill and in decode.
pub fn sites(model: &dyn CausalLm) -> Check {
    Check::of("sites fire once, in order", 0.0, sites_found(model))
}

fn sites_found(model: &dyn CausalLm) -> Result<Found> {
    let spec = model.spec();
    let (pieces, mut recorder) = (pieces(spec), Recorder::default());
    in_pieces(model, &tokens(spec, length(spec), 9), &pieces, &mut recorder)?;
    let shape = |site: Site, n: usize| match site.head_layer() {
        Some(layer) => vec![n, spec.layers[layer].heads.count, spec.layers[layer].heads.dim],
        None => vec![n, spec.d_model],
    };
    let of_forward = |n: usize| spec.sites().into_iter().map(move |site| (site, shape(site, n)));
    let expected: Vec<_> = pieces.into_iter().flat_map(of_forward).collect();
    let fired: Vec<_> = recorder.0.iter().map(|(site, x)| (*site, x.dims().to_vec())).collect();
    let places = expected.len().max(fired.len());
    let wrong: Vec<usize> = (0..places).filter(|&i| expected.get(i) != fired.get(i)).collect();
    let told =
        |at: Option<&(Site, Vec<usize>)>| at.map_or("nothing".into(), |(site, shape)| format!("{site} {shape:?}"));
    let note = match wrong.first() {
        None => format!("{} sites in each of {} forwards", spec.sites().len(), pieces.len()),
        Some(&i) => format!("{} where {} should be", told(fired.get(i)), told(expected.get(i))),
    };
    Ok((wrong.len() as f64, note))
}

/// Every planned head fires on every token it is fed, decode steps included.
pub fn fired(model: &dyn CausalLm) -> Check {
    Check::of("planned heads fire on every token", 0.0, fired_found(model))
}

fn fired_found(model: &dyn CausalLm) -> Result<Found> {
    let spec = model.spec();
    let n = length(spec);
    let mut tap = scale(model, &[HeadPlan::uniform(&spec.slots(), 0.5).map_err(candle_core::Error::wrap)?])?;
    in_pieces(model, &tokens(spec, n, 10), &pieces(spec), &mut tap)?;
    let fired = tap.fired();
    let wrong: Vec<_> = fired[0].iter().filter(|&(_, &count)| count != n as u64).collect();
    let note = match wrong.first() {
        None => format!("{} heads on {n} tokens", spec.slots().len()),
        Some((at, count)) => format!("{at} fired on {count} of {n} tokens"),
    };
    Ok((wrong.len() as f64, note))
}

/// Every head, scaled alone by -1, changes the final hidden state of every token, read or decoded; so do all heads at once. In
/// a large model only the first and the last head of every layer are tried alone.
pub fn effects(model: &dyn CausalLm) -> Check {
    Check::of("every head changes every token", 0.0, effects_found(model))
}

/// The heads that are tried alone.
fn tried(spec: &ModelSpec) -> Vec<HeadRef> {
    let at_an_end = |at: &HeadRef| at.head == 0 || at.head + 1 == spec.head_count(at.layer);
    spec.slots().into_iter().filter(|at| is_small(spec) || at_an_end(at)).collect()
}

fn effects_found(model: &dyn CausalLm) -> Result<Found> {
    let spec = model.spec();
    let ids = tokens(spec, 4.min(spec.context), 11);
    let tried = tried(spec);
    let alone = tried.iter().map(|&at| (at.to_string(), vec![at]));
    let all: Vec<_> = alone.chain([("all heads".to_string(), spec.slots())]).collect();
    let (mut idle, mut weakest) = (Vec::new(), (f64::INFINITY, String::new()));
    for group in all.chunks(ROWS) {
        let plans = group.iter().map(|(_, heads)| HeadPlan::uniform(heads, -1.0));
        let plans = std::iter::once(Ok(HeadPlan::none())).chain(plans).collect::<std::result::Result<Vec<_>, _>>();
        let plans = plans.map_err(candle_core::Error::wrap)?;
        let rows: Vec<_> = (0..plans.len()).map(|row| (row, &ids[..])).collect();
        let hidden = in_rows(model, &rows, 1, &mut scale(model, &plans)?)?;
        for (tempered, (name, _)) in hidden[1..].iter().zip(group) {
            let mut least = f64::INFINITY;
            for token in 0..ids.len() {
                let (ours, base) = (tempered.get(token)?, hidden[0].get(token)?);
                let moved = if difference(&ours, &base)? > 0.0 { relative(&ours, &base)? } else { 0.0 };
                // A value that is not finite does not count as moved.
                least = least.min(if moved.is_finite() { moved } else { 0.0 });
            }
            if least == 0.0 {
                idle.push(name.clone());
            }
            if least < weakest.0 {
                weakest = (least, name.clone());
            }
        }
    }
    let (least, name) = weakest;
    let mut note = format!("{} of {} heads alone, and all at once; ", tried.len(), spec.slots().len());
    match &idle[..] {
        [] => write!(note, "the weakest, {name}, moves a token by {}", short(least)),
        [one] => write!(note, "{one} leaves a token as it was{DEAD}"),
        [first, rest @ ..] => write!(note, "{first} and {} more leave a token as it was{DEAD}", rest.len()),
    }
    .expect("a string takes all");
    Ok((idle.len() as f64, note))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::{FAMILIES, tiny};

    #[test]
    fn of_a_large_model_the_ends_of_every_layer_are_tried() -> crate::Result<()> {
        let mut spec = tiny(FAMILIES[2].1, &candle_core::Device::Cpu)?.spec().clone();
        assert_eq!(tried(&spec), spec.slots());
        spec.parameters = 2_000_000_000;
        let names: Vec<_> = tried(&spec).iter().map(ToString::to_string).collect();
        assert_eq!(names[..4], ["L0V0", "L0V3", "L1V0", "L1V3"]);
        assert_eq!(names[14..], ["L7H0", "L7H3"]);
        assert_eq!(length(&spec), 20);
        Ok(())
    }
}
