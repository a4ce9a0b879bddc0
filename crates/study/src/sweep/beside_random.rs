//! Tempered head sets compared with random ones like them: does it take these heads, or would any do as much?

use std::collections::{BTreeMap, BTreeSet};

use headtemper_stats::{Tail, as_extreme, p_value};

use crate::{significance::LEVEL, sweep::outcome::BesideRandom};

/// An arm with a tempered or a random head set.
pub(crate) struct SetArm<'a, L> {
    /// The caller's index of it.
    pub(crate) index: usize,
    /// Whether its heads were drawn at random.
    pub(crate) random: bool,
    /// The name of its head set.
    pub(crate) set: &'a str,
    /// What the set has in common with the random sets drawn for it.
    pub(crate) like: L,
    /// The λ that scales its heads.
    pub(crate) lambda: f32,
    /// The mean difference to the reference; NaN where it is not compared.
    pub(crate) mean: f64,
}

/// Every tempered arm that is compared, by its index, with how it stands among the random sets like it.
pub(crate) fn beside_random<L: Ord>(arms: &[SetArm<'_, L>]) -> Vec<(usize, BesideRandom)> {
    // The random sets at each λ, where calls may have drawn others.
    let mut there: BTreeMap<(&L, u32), BTreeSet<&str>> = BTreeMap::new();
    for arm in arms.iter().filter(|arm| arm.random) {
        there.entry((&arm.like, arm.lambda.to_bits())).or_default().insert(arm.set);
    }
    let mut alike: BTreeMap<(&L, &BTreeSet<&str>), Vec<&SetArm<'_, L>>> = BTreeMap::new();
    for arm in arms {
        if let Some(random) = there.get(&(&arm.like, arm.lambda.to_bits())) {
            alike.entry((&arm.like, random)).or_default().push(arm);
        }
    }
    alike.retain(|_, arms| arms.iter().any(|arm| !arm.random));
    alike.values().flat_map(|arms| of_like_sets(arms, alike.len())).collect()
}

/// The arms of sets that are alike, at those λ at which the same random sets were tried: a set can only stand out at a λ that it has. They
/// are one of the `families` that are looked at.
fn of_like_sets<L>(arms: &[&SetArm<'_, L>], families: usize) -> Vec<(usize, BesideRandom)> {
    // A tempered arm that is not compared is left out; a random one counts as differing more than any.
    let arms = || arms.iter().filter(|arm| arm.random || !arm.mean.is_nan());
    let means = |lambda: f32, random: bool| -> Vec<f64> {
        arms().filter(|arm| arm.lambda == lambda && (arm.random || !random)).map(|arm| arm.mean).collect()
    };
    // How many sets differ at least as much at its λ, its own included.
    let place = |arm: &SetArm<'_, L>| match arm.mean {
        own if own.is_nan() => 0,
        own => as_extreme(own, &means(arm.lambda, false), Tail::TwoSided),
    };
    // The best place of each set at any λ.
    let mut best: BTreeMap<(bool, &str), usize> = BTreeMap::new();
    for arm in arms() {
        let place = place(arm);
        best.entry((arm.random, arm.set)).and_modify(|best| *best = place.min(*best)).or_insert(place);
    }
    let tempered = best.keys().filter(|(random, _)| !random).count();
    let beside = |arm: &SetArm<'_, L>| {
        let (random, place) = (means(arm.lambda, true), place(arm));
        let reach = best.values().filter(|&&best| best <= place).count();
        let found = BesideRandom {
            sets: random.len(),
            reach: as_extreme(arm.mean, &random, Tail::TwoSided),
            p: p_value(arm.mean, &random, Tail::TwoSided),
            p_max: tidied(families as f64 * some_of(tempered, reach, best.len())).min(1.0),
            enough: enough(tempered, families),
        };
        (!random.is_empty()).then_some((arm.index, found))
    };
    arms().filter(|arm| !arm.random).filter_map(|arm| beside(arm)).collect()
}

/// The probability that at least one of `drawn` out of `all` is among a given `reach` of them: `1 - C(all - reach, drawn) / C(all, drawn)`.
fn some_of(drawn: usize, reach: usize, all: usize) -> f64 {
    let none = (0..drawn).map(|i| (all - reach).saturating_sub(i) as f64 / (all - i) as f64).product::<f64>();
    1.0 - none
}

/// The fewest random sets beside which one of so many tempered sets that reaches furthest alone has a p of [`LEVEL`] over all families:
/// `families · tempered / (tempered + enough)`.
fn enough(tempered: usize, families: usize) -> usize {
    tidied(tempered as f64 * (families as f64 / LEVEL - 1.0)).ceil() as usize
}

/// Removes the rounding error in the last digits, which must not make a number of sets that just suffices miss the level.
fn tidied(p: f64) -> f64 {
    (p * 1e12).round() / 1e12
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_random_sets_as_are_asked_for_can_be_called() {
        for tempered in 1..40usize {
            let random = 19 * tempered;
            let names: Vec<String> = (0..tempered + random).map(|i| i.to_string()).collect();
            let arm = |index: usize| SetArm {
                index,
                random: index >= tempered,
                set: &names[index],
                like: (),
                lambda: 0.0,
                mean: if index == 0 { 1.0 } else { 0.0 },
            };
            let arms: Vec<_> = (0..tempered + random).map(arm).collect();
            let BesideRandom { p_max, enough, .. } = beside_random(&arms)[0].1;
            assert!(p_max <= 0.05 && p_max > 0.049 && enough == random, "{tempered}: {p_max}, {enough}");
        }
    }

    /// Each kind of set is a family of its own, and what it takes is what is said.
    #[test]
    fn sets_of_several_kinds_take_more_random_ones() {
        for (kinds, tempered) in [(2usize, 1usize), (24, 1), (3, 2)] {
            let random = tempered * (20 * kinds - 1);
            let of_kind = tempered + random;
            let names: Vec<String> = (0..kinds * of_kind).map(|i| i.to_string()).collect();
            let of = |random: usize| {
                let all = (0..kinds * of_kind).filter(|index| index % of_kind < tempered + random);
                let arm = |index: usize| SetArm {
                    index,
                    random: index % of_kind >= tempered,
                    set: &names[index],
                    like: index / of_kind,
                    lambda: 0.0,
                    mean: if index == 0 { 1.0 } else { 0.0 },
                };
                beside_random(&all.map(arm).collect::<Vec<_>>()).into_iter().find(|(index, _)| *index == 0).unwrap().1
            };
            assert_eq!((of(random).enough, of(random - 1).enough), (random, random));
            assert!(of(random).p_max <= 0.05 && of(random - 1).p_max > 0.05, "{kinds} kinds");
        }
    }

    /// Random sets at another λ tell nothing of this one: they make no p smaller.
    #[test]
    fn sets_at_another_lambda_make_no_p_smaller() {
        let names: Vec<String> = (0..26).map(|i| i.to_string()).collect();
        let arm = |set: usize, lambda: f32, mean: f64| SetArm {
            index: set + 100 * (lambda * 10.0) as usize,
            random: set > 0,
            set: &names[set],
            like: (),
            lambda,
            mean,
        };
        let mut arms = vec![arm(0, 0.5, 1.0)];
        arms.extend((1..6).map(|set| arm(set, 0.5, 0.1)));
        let of = |arms: &[SetArm<'_, ()>]| beside_random(arms).into_iter().find(|(index, _)| *index == 500).unwrap().1;
        let alone = of(&arms);
        assert!((alone.p - 1.0 / 6.0).abs() < 1e-12 && (alone.p_max - alone.p).abs() < 1e-12);
        arms.push(arm(0, 0.9, 0.0));
        arms.extend((6..26).map(|set| arm(set, 0.9, 0.1)));
        let beside = of(&arms);
        assert_eq!((beside.sets, beside.p), (5, alone.p));
        assert!((beside.p_max - 2.0 * alone.p).abs() < 1e-12, "two families were looked at: {}", beside.p_max);
    }

    #[test]
    fn the_largest_of_many_sets_is_large_by_chance() {
        for (drawn, reach, all, expected) in
            [(1, 1, 100, 0.01), (30, 1, 129, 30.0 / 129.0), (5, 0, 9, 0.0), (5, 9, 9, 1.0), (2, 8, 9, 1.0)]
        {
            let p = some_of(drawn, reach, all);
            assert!((p - expected).abs() < 1e-12, "{drawn} of {all}, {reach}: {p}");
        }
    }

    /// Of sets that are all alike, over all λ together, one has a p at or below a level no more often than the level says.
    #[test]
    fn p_max_of_sets_that_are_alike_keeps_its_level() {
        let (tempered, lambdas) = (3, 4);
        let names: Vec<String> = (0..60).map(|set| set.to_string()).collect();
        let mut random = headtemper_stats::Random::new(11, 0);
        // Places tie: with four λ, up to four sets come first, and one of three is among four of 60 in 19 % of cases.
        let (runs, level) = (2000, 0.2);
        let mut named = 0;
        for _ in 0..runs {
            let mut arms = Vec::new();
            for (set, name) in names.iter().enumerate() {
                // A set does roughly the same at every λ.
                let own = random.normal();
                for lambda in 0..lambdas {
                    let mean = own + random.normal();
                    let random = set >= tempered;
                    arms.push(SetArm { index: arms.len(), random, set: name, like: 2, lambda: lambda as f32, mean });
                }
            }
            named += usize::from(beside_random(&arms).iter().any(|(_, found)| found.p_max <= level));
        }
        let (share, sd) = (f64::from(named as u32) / f64::from(runs), (level * (1.0 - level) / f64::from(runs)).sqrt());
        println!("named {share}");
        assert!(share <= level + 4.0 * sd && share > 0.1, "{share}");
    }
}
