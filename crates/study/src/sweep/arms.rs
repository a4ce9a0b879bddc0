//! The arms of a sweep: the head sets at every λ, the reference and the controls that all of them share.

use std::collections::{BTreeMap, BTreeSet};

use headtemper_hook::{HeadKind, HeadPlan, HeadRef, Positions};
use headtemper_stats::Random;
use serde::{Deserialize, Serialize};

use crate::{
    Result, StudyError,
    store::digest::digest,
    sweep::{Arm, Role},
    text,
};

/// What a sweep is made of.
#[derive(Clone, Debug, Default)]
pub struct ArmsWanted<'a> {
    /// The head sets, each tempered together.
    pub sets: &'a [Vec<HeadRef>],
    /// λ of the sets. 1 stands for the reference and need not be listed; listed again it becomes a control arm.
    pub lambdas: &'a [f32],
    /// How many random head sets are drawn for each set, of the same size.
    pub random_sets: usize,
    /// Which heads they are drawn from.
    pub random_from: RandomFrom,
    /// Seed for drawing them.
    pub random_seed: u64,
    /// The tokens that every set touches.
    pub positions: Positions,
}

/// Which heads random sets are drawn from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RandomFrom {
    /// All heads of the model: shows what any heads do.
    #[default]
    Model,
    /// The layers of the set, as many heads from each as the set has there: shows whether it takes these heads, or others beside them do as
    /// much. Heads of some layers have larger effects than those of others, whatever they are chosen for.
    Layers,
}

impl RandomFrom {
    /// What a random set shares with these heads: how many there are of each kind, overall or per layer.
    fn likeness(self, heads: impl Iterator<Item = HeadRef>) -> Likeness {
        let mut likeness = Likeness::new();
        heads.for_each(|at| *likeness.entry(self.pool(at)).or_default() += 1);
        likeness
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
    pub(super) fn is_model(&self) -> bool {
        *self == Self::Model
    }

    fn pool(self, at: HeadRef) -> Pool {
        ((self == Self::Layers).then_some(at.layer), at.kind)
    }
}

/// Heads to draw from: of one kind, in one layer or in all.
type Pool = (Option<usize>, HeadKind);
/// How many heads a set has in each pool.
type Likeness = BTreeMap<Pool, usize>;

/// Most random head sets of one likeness that a sweep may have.
const MOST_RANDOM_SETS: usize = 1000;
/// What their number is called in errors.
const RANDOM_SETS: &str = "the number of random head sets";

/// The arms of a sweep on a model with these heads, in this order: the reference `base`, which is the untouched model; one control for
/// every λ = 1 after the first; every set at every other λ; random head sets at the same λ.
///
/// The reference and the controls belong to all sets. A control tempers every head of the model by 1: the hook fires everywhere and must
/// change nothing, so any difference from the reference is rounding and batching.
///
/// A random set has as many query and value heads as its set (per layer, if `random_from` asks for that), and none that any set of the
/// sweep names. For one seed, random sets are the first of the same sequence, however many are drawn.
///
/// # Errors
/// If a λ is invalid or, unless it is 1, listed twice; if a set is listed twice, nothing is listed, or the remaining heads do not make that
/// many random sets.
pub fn arms(wanted: &ArmsWanted<'_>, slots: &[HeadRef]) -> Result<Vec<Arm>> {
    if wanted.sets.is_empty() || wanted.lambdas.is_empty() {
        return Err(refused("the sweep", "empty", "at least one head set and one lambda"));
    }
    check_arms(wanted.lambdas, wanted.random_sets)?;
    let names: Vec<String> = wanted.sets.iter().map(|heads| set_name(heads)).collect();
    let mut seen = BTreeSet::new();
    let is_new =
        |heads: &Vec<HeadRef>, seen: &mut BTreeSet<_>| seen.insert(heads.iter().copied().collect::<BTreeSet<_>>());
    if let Some(index) = wanted.sets.iter().position(|heads| !is_new(heads, &mut seen)) {
        return Err(refused(&format!("head set {}", names[index]), "listed twice", "listed once"));
    }
    let mut arms = vec![Arm::base()];
    let ones = wanted.lambdas.iter().filter(|&&lambda| lambda == 1.0).count();
    for number in 1..ones {
        let again = if number == 1 { String::new() } else { format!("#{number}") };
        let plan = HeadPlan::uniform(slots, 1.0)?.at(wanted.positions);
        let (variant, set) = (format!("all@1{again}{}", suffix(wanted.positions)), "all".into());
        arms.push(Arm { variant, set, lambda: 1.0, role: Role::Control, random_from: RandomFrom::Model, plan });
    }
    let lambdas: Vec<f32> = wanted.lambdas.iter().copied().filter(|&lambda| lambda != 1.0).collect();
    let random = random_sets(wanted, slots)?;
    let swept = names.iter().zip(wanted.sets).map(|(name, heads)| (Role::Tempered, name, heads));
    for (role, name, heads) in swept.chain(random.iter().map(|(name, heads)| (Role::Random, name, heads))) {
        for &lambda in &lambdas {
            let (variant, set) = (format!("{name}@{lambda}{}", suffix(wanted.positions)), name.clone());
            let plan = HeadPlan::uniform(heads, lambda)?.at(wanted.positions);
            arms.push(Arm { variant, set, lambda, role, random_from: wanted.random_from, plan });
        }
    }
    Ok(arms)
}

/// Refuses λ and a number of random head sets that no heads of any model could be swept with: [`arms`] does too, but takes a model's heads.
///
/// # Errors
/// If a λ other than 1 is listed twice, or there cannot be that many random sets.
pub fn check_arms(lambdas: &[f32], random_sets: usize) -> Result<()> {
    let tempered: Vec<f32> = lambdas.iter().copied().filter(|&lambda| lambda != 1.0).collect();
    if let Some((_, lambda)) = tempered.iter().enumerate().find(|&(index, lambda)| tempered[..index].contains(lambda)) {
        return Err(refused(&format!("lambda {lambda}"), "listed twice", "listed once; 1 twice is the control"));
    }
    if random_sets > 0 && tempered.is_empty() {
        return Err(refused(RANDOM_SETS, &random_sets.to_string(), "0 where every lambda is 1"));
    }
    if random_sets > MOST_RANDOM_SETS {
        return Err(refused(RANDOM_SETS, &random_sets.to_string(), &format!("at most {MOST_RANDOM_SETS}")));
    }
    Ok(())
}

/// The suffix in the name of an arm that does not touch every token.
fn suffix(positions: Positions) -> String {
    if positions == Positions::All { String::new() } else { format!(" at {positions}") }
}

fn refused(what: &str, found: &str, allowed: &str) -> StudyError {
    StudyError::option(what, found, allowed)
}

/// Longest set whose name lists its heads; the names of longer sets give their number and a hash.
const NAMED_HEADS: usize = 8;

/// How the names of random sets begin; those of others begin with a letter of a head or a number.
const RANDOM: &str = "random";

/// Whether an arm of this name has heads that were drawn at random.
pub(super) fn is_random(variant: &str) -> bool {
    variant.starts_with(RANDOM)
}

/// The name of a head set.
fn set_name(heads: &[HeadRef]) -> String {
    let names: Vec<String> = heads.iter().map(ToString::to_string).collect();
    if names.len() <= NAMED_HEADS {
        return names.join("+");
    }
    format!("{}heads-{}", names.len(), &digest(&names)[..8])
}

/// What an arm has in common with the random sets that it is compared with: what its heads are like, and the tokens that are touched.
pub(crate) fn likeness(arm: &Arm) -> impl Ord + use<> {
    (arm.plan.positions().to_string(), arm.random_from.likeness(arm.plan.iter().map(|(at, _)| at)))
}

/// The random sets of every likeness, named by number, size and content.
fn random_sets(wanted: &ArmsWanted<'_>, slots: &[HeadRef]) -> Result<Vec<(String, Vec<HeadRef>)>> {
    let count = wanted.random_sets;
    if count == 0 {
        return Ok(Vec::new());
    }
    let swept: BTreeSet<HeadRef> = wanted.sets.iter().flatten().copied().collect();
    let mut left: BTreeMap<Pool, Vec<HeadRef>> = BTreeMap::new();
    for &at in slots.iter().filter(|at| !swept.contains(at)) {
        left.entry(wanted.random_from.pool(at)).or_default().push(at);
    }
    let none = Vec::new();
    let pool = |pool: &Pool| left.get(pool).unwrap_or(&none);
    let likenesses = wanted.sets.iter().map(|heads| wanted.random_from.likeness(heads.iter().copied()));
    let mut sets = Vec::new();
    for likeness in likenesses.collect::<BTreeSet<_>>() {
        let possible: f64 = likeness.iter().map(|(of, &n)| choices(pool(of).len(), n)).product();
        if possible < count as f64 {
            let from: Vec<String> = likeness.keys().map(|of| pool_name(*of, pool(of).len())).collect();
            let allowed = format!(
                "at most {possible}: sets of {} are drawn from the {} that no set of the sweep names",
                label(&likeness),
                from.join(" and ")
            );
            return Err(refused(RANDOM_SETS, &count.to_string(), &allowed));
        }
        let mut seen = BTreeSet::new();
        for stream in 0.. {
            let mut random = Random::new(wanted.random_seed, stream);
            let drawn = likeness.iter().flat_map(|(of, &n)| draw(&mut random, pool(of).clone(), n));
            let mut heads: Vec<HeadRef> = drawn.collect();
            heads.sort();
            if !seen.insert(heads.clone()) {
                continue;
            }
            let names: Vec<String> = heads.iter().map(ToString::to_string).collect();
            let name = format!("{RANDOM}{}-of-{}-{}", seen.len(), label(&likeness), &digest(&names)[..8]);
            sets.push((name, heads));
            if seen.len() == count {
                break;
            }
        }
    }
    Ok(sets)
}

/// `7 query heads`, or `7 query heads of layer 3`.
fn pool_name((layer, kind): Pool, heads: usize) -> String {
    let kind = if kind == HeadKind::Query { "query head" } else { "value head" };
    text::count(heads, kind) + &layer.map_or_else(String::new, |layer| format!(" of layer {layer}"))
}

/// `5H`, `4V` or `3H2V`.
fn label(likeness: &Likeness) -> String {
    let of = |kind: HeadKind| likeness.iter().filter(|((_, of), _)| *of == kind).map(|(_, n)| n).sum::<usize>();
    let part = |kind: HeadKind| if of(kind) == 0 { String::new() } else { format!("{}{}", of(kind), kind.letter()) };
    part(HeadKind::Query) + &part(HeadKind::Value)
}

/// The first `size` heads of a shuffle.
fn draw(random: &mut Random, mut heads: Vec<HeadRef>, size: usize) -> Vec<HeadRef> {
    for place in 0..size {
        let chosen = place + random.below(heads.len() - place);
        heads.swap(place, chosen);
    }
    heads.truncate(size);
    heads
}

/// The number of ways to choose `k` of `n`; exact where it is small.
fn choices(n: usize, k: usize) -> f64 {
    if k > n {
        return 0.0;
    }
    // Choosing the smaller of `k` and `n - k`, the product only grows, so it can be capped.
    (0..k.min(n - k)).fold(1.0, |ways: f64, i| (ways * (n - i) as f64 / (i + 1) as f64).round().min(1e15))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two layers of four query heads each, with a layer of four value heads between them.
    fn slots() -> Vec<HeadRef> {
        let layer = |layer| (0..4).map(move |head| HeadRef { layer, head, kind: HeadKind::Query });
        layer(0).chain((0..4).map(|head| HeadRef::value(1, head))).chain(layer(2)).collect()
    }

    fn made(sets: &[Vec<HeadRef>], lambdas: &[f32], random_sets: usize) -> Result<Vec<Arm>> {
        let wanted = ArmsWanted { sets, lambdas, random_sets, random_seed: 7, ..ArmsWanted::default() };
        arms(&wanted, &slots())
    }

    fn names(arms: &[Arm]) -> Vec<&str> {
        arms.iter().map(|arm| arm.variant.as_str()).collect()
    }

    #[test]
    fn positions_limit_every_arm_but_the_reference() {
        let sets = [vec![HeadRef::query(0, 1)]];
        let positions = Positions::Response;
        let wanted =
            ArmsWanted { sets: &sets, lambdas: &[1.0, 1.0, 0.5], random_sets: 1, positions, ..Default::default() };
        let arms = arms(&wanted, &slots()).unwrap();
        let limited = |arm: &Arm| arm.plan.positions() == positions && arm.variant.ends_with(" at response");
        assert_eq!(arms.iter().map(limited).collect::<Vec<_>>(), [false, true, true, true]);
        for arm in &arms {
            let text = serde_json::to_string(arm).unwrap();
            assert_eq!(serde_json::from_str::<Arm>(&text).unwrap(), *arm);
        }
    }

    #[test]
    fn reference_and_control_are_shared_by_all_sets() {
        let sets = [vec![HeadRef::query(0, 1)], vec![HeadRef::value(1, 2), HeadRef::query(2, 3)]];
        let all = made(&sets, &[1.0, 1.0, 0.5, 0.0, 1.0], 0).unwrap();
        let wanted = ["base", "all@1", "all@1#2", "L0H1@0.5", "L0H1@0", "L1V2+L2H3@0.5", "L1V2+L2H3@0"];
        assert_eq!(names(&all), wanted);
        let roles: Vec<Role> = all.iter().map(|arm| arm.role).collect();
        assert_eq!(roles[..4], [Role::Reference, Role::Control, Role::Control, Role::Tempered]);
        assert!(all[0].plan.is_empty(), "the reference has no hook");
        assert_eq!(all[1].plan, HeadPlan::uniform(&slots(), 1.0).unwrap(), "the control has it everywhere");
        assert_eq!(names(&made(&sets[..1], &[0.5], 0).unwrap()), ["base", "L0H1@0.5"], "never without a reference");
    }

    #[test]
    fn random_sets_are_alike_and_apart() {
        let sets = [vec![HeadRef::query(0, 1), HeadRef::value(1, 0)], vec![HeadRef::query(2, 0)]];
        let all = made(&sets, &[1.0, 0.5], 3).unwrap();
        let random: Vec<&Arm> = all.iter().filter(|arm| arm.role == Role::Random).collect();
        assert_eq!(random.len(), 2 * 3);
        for arm in &random {
            let heads: Vec<HeadRef> = arm.plan.iter().map(|(at, _)| at).collect();
            assert!(!heads.iter().any(|at| sets.iter().flatten().any(|swept| swept == at)), "{}", arm.set);
            let of = |kind| heads.iter().filter(|at| at.kind == kind).count();
            let alike = if arm.set.contains("-of-1H1V-") { (1, 1) } else { (1, 0) };
            assert_eq!((of(HeadKind::Query), of(HeadKind::Value)), alike, "{}", arm.set);
        }
        let distinct: BTreeSet<String> = random.iter().map(|arm| arm.plan.to_string()).collect();
        assert_eq!(distinct.len(), 6);
        let more = made(&sets, &[1.0, 0.5], 5).unwrap();
        let kept = |arm: &&&Arm| more.iter().any(|other| other == **arm);
        assert_eq!(random.iter().filter(kept).count(), 6, "more random sets leave the first as they are");
        let other =
            ArmsWanted { sets: &sets, lambdas: &[0.5], random_sets: 3, random_seed: 8, ..ArmsWanted::default() };
        assert_ne!(arms(&other, &slots()).unwrap()[3..], all[3..]);
    }

    #[test]
    fn random_sets_of_the_same_layers_have_as_many_heads_of_each() {
        let sets = [vec![HeadRef::query(0, 1), HeadRef::query(0, 2), HeadRef::value(1, 0)], vec![HeadRef::query(2, 0)]];
        let random_from = RandomFrom::Layers;
        let wanted = ArmsWanted { sets: &sets, lambdas: &[0.5], random_sets: 3, random_from, ..ArmsWanted::default() };
        let all = arms(&wanted, &slots()).unwrap();
        let like = |arm: &Arm| all.iter().filter(|other| likeness(other) == likeness(arm)).count();
        assert_eq!(all[1..3].iter().map(like).collect::<Vec<_>>(), [4, 4], "a set and its three");
        for arm in all.iter().filter(|arm| arm.role == Role::Random) {
            let layers: Vec<usize> = arm.plan.iter().map(|(at, _)| at.layer).collect();
            assert!(layers == [0, 0, 1] || layers == [2], "{}", arm.set);
        }
        let error = arms(&ArmsWanted { random_sets: 4, ..wanted.clone() }, &slots()).unwrap_err().to_string();
        let said = "at most 3: sets of 2H1V are drawn from the 2 query heads of layer 0 and 3 value heads of layer 1 that no set";
        assert!(error.contains(said), "{error}");
        let text = serde_json::to_string(&all[1]).unwrap();
        assert_eq!(serde_json::from_str::<Arm>(&text).unwrap(), all[1]);
    }

    #[test]
    fn every_set_that_is_left_may_be_drawn() {
        let all = made(&[vec![HeadRef::query(0, 1)]], &[0.5], 7).unwrap();
        let drawn: BTreeSet<String> = all[2..].iter().map(|arm| arm.plan.to_string()).collect();
        assert_eq!(drawn.len(), 7);
    }

    #[test]
    fn what_cannot_be_swept_is_refused() {
        let (one, two) = (HeadRef::query(0, 1), HeadRef::query(2, 0));
        let all = vec![slots()];
        for (sets, lambdas, random, parts) in [
            (vec![], vec![0.5], 0, "at least one head set"),
            (vec![vec![one]], vec![], 0, "at least one head set"),
            (vec![vec![one]], vec![f32::NAN], 0, "not a number from"),
            (vec![vec![one]], vec![0.5, 1.0, 0.5], 0, "lambda 0.5 is listed twice, but must be listed once"),
            (vec![vec![one, two], vec![two, one]], vec![0.5], 0, "head set L2H0+L0H1 is listed twice"),
            (vec![vec![one]], vec![0.5], 8, "at most 7: sets of 1H are drawn from the 7 query heads"),
            (all, vec![0.5], 1, "at most 0"),
            (vec![vec![one]], vec![1.0, 1.0], 2, "0 where every lambda is 1"),
            (vec![vec![one, two]], vec![0.5], 1001, "at most 1000"),
        ] {
            let message = made(&sets, &lambdas, random).unwrap_err().to_string();
            assert!(message.contains(parts), "{parts} is not in: {message}");
        }
    }

    #[test]
    fn choices_are_pascals() {
        assert_eq!((choices(5, 2), choices(9, 9), choices(4, 0), choices(3, 4)), (10.0, 1.0, 1.0, 0.0));
        assert!(choices(5000, 2500) == 1e15);
    }
}
