//! What a reader must know before the numbers of a sweep.

use super::{
    asymmetry::LEAST,
    compared::Compared,
    outcome::{ArmOutcome, Band, BesideRandom, OF_CUT_OFF, Outcomes},
};
use crate::{
    Role,
    hooks::moved_nothing,
    items::{thought::told_thoughts, units::counted},
    significance::LEVEL,
    sweep::reading::compared,
    text::some_of,
};

/// How far from 0 or 1 an accuracy is.
fn apart(accuracy: f64) -> f64 {
    accuracy.min(1.0 - accuracy)
}

/// How far the reference's accuracy under a seed may be from 0 or 1 to be taken for items that were chosen by its answers: on another
/// machine, or in another batch, a few of them may come out otherwise.
const ONE_SIDED: f64 = 0.02;

/// Most arms that a warning names.
const NAMED: usize = 5;

impl Outcomes {
    /// What a reader must know before the numbers.
    pub fn warnings(&self) -> Vec<String> {
        let all = [
            self.without_control(),
            self.sharing_prompts(),
            self.one_sided(),
            self.few_random_sets(),
            self.one_seed(),
            self.cut_off(),
            told_thoughts(self.within_thought),
            self.without_verdict(),
            self.nothing_tempered(),
            self.few_in_a_class(),
            self.arms_elsewhere(),
            self.untouched(),
            self.changed_nothing(),
            self.withheld(),
            self.random_withheld(),
        ];
        let of_judging = self.judge_warnings.iter().map(|warning| format!("of the judge: {warning}"));
        all.into_iter().flatten().chain(self.unequally_judged()).chain(of_judging).collect()
    }

    /// The arms of the tables and of the random sets.
    fn all_arms(&self) -> impl Iterator<Item = &ArmOutcome> {
        self.arms().map(|(_, arm)| arm).chain(&self.random)
    }

    /// The tempered arms of the tables.
    pub(crate) fn tempered(&self) -> impl Iterator<Item = &ArmOutcome> {
        self.arms().map(|(_, arm)| arm).filter(|arm| arm.role == Role::Tempered)
    }

    fn without_control(&self) -> Option<String> {
        self.control().is_none().then(|| {
            "there is no control arm, so what rounding and batching alone move is unknown; list lambda 1 twice".into()
        })
    }

    fn sharing_prompts(&self) -> Option<String> {
        (self.prompts < self.items).then(|| {
            format!(
                "the {} items have {}; those that share one count as one, for their answers are not independent",
                self.items,
                counted(self.prompts, self.groups.as_deref())
            )
        })
    }

    fn one_sided(&self) -> Option<String> {
        let known =
            self.seeds.iter().zip(&self.accuracy_by_seed).filter_map(|(seed, accuracy)| Some((seed, (*accuracy)?)));
        let (seed, accuracy) = known.min_by(|x, y| apart(x.1).total_cmp(&apart(y.1)))?;
        let (how, way) = if accuracy < 0.5 { ("wrong", "raise") } else { ("right", "lower") };
        let all = if apart(accuracy) == 0.0 {
            "every item".into()
        } else {
            format!("{:.1} % of items", 100.0 * (1.0 - apart(accuracy)))
        };
        let under = if self.seeds.len() > 1 { format!(" under seed {seed}") } else { String::new() };
        (self.random.is_empty() && apart(accuracy) <= ONE_SIDED).then(|| {
            format!(
                "the reference is {how} on {all}{under}, so that whatever changes its answers there can only {way} accuracy, the more so \
                 where items were chosen by these answers; random sets (--random-sets) show how far any head does"
            )
        })
    }

    fn few_random_sets(&self) -> Option<String> {
        let arms = || self.arms().filter(|(_, arm)| arm.role == Role::Tempered);
        let beside = arms().flat_map(|(_, arm)| self.compared().filter_map(move |of| arm.difference.of(of)?.random));
        let missing = |of: &BesideRandom| of.enough.saturating_sub(of.sets);
        let closest = beside.min_by_key(|of| missing(of))?;
        (missing(&closest) > 0).then(|| {
            format!(
                "{} random sets are too few for a p over all arms of {LEVEL}, whatever the arms do: it takes {}",
                closest.sets, closest.enough
            )
        })
    }

    fn cut_off(&self) -> Option<String> {
        let cut = self.arms().map(|(_, arm)| arm).filter(|arm| arm.truncated > 0.0);
        let worst = cut.reduce(|worst, arm| if arm.truncated > worst.truncated { arm } else { worst })?;
        let before = match self.at_context {
            0 => String::new(),
            n => format!(", or before: {n} of all answers by the end of the model's context"),
        };
        Some(format!(
            "up to {:.1} % of an arm's answers ({}) were cut off at {} tokens{before}; {OF_CUT_OFF}",
            100.0 * worst.truncated,
            worst.variant,
            self.max_new_tokens
        ))
    }

    /// Answers that a judge gave no verdict on take no part in what it would be needed for, nor does what they are compared with.
    fn without_verdict(&self) -> Option<String> {
        let lacking =
            self.all_arms().flat_map(|arm| self.compared().map(move |which| (arm, which, arm.unjudged(which))));
        let (arm, which, n) = lacking.max_by_key(|(_, _, n)| *n).filter(|(_, _, n)| *n > 0)?;
        let lack = if self.judge.is_some() { "lack a verdict" } else { "say nothing, neither asserted nor hedged" };
        Some(format!(
            "up to {n} of {} answers {lack} ({} of {}): there both they and the reference's answers are left out, and so are the \
             reference's and theirs in all arms",
            arm.n,
            which.name(),
            arm.variant
        ))
    }

    /// What is not compared because of verdicts, by outcome. Random sets are told by [`random_withheld`](Self::random_withheld).
    fn unequally_judged(&self) -> Vec<String> {
        let told = |which: Compared<'_>| {
            let name = which.name();
            let unequal = self.arms().map(|(_, arm)| arm).filter(|arm| arm.unequally_judged.contains(&name));
            let arms: Vec<&ArmOutcome> = unequal.collect();
            let arm = arms.first()?;
            let reference = self.arms().map(|(_, arm)| arm).find(|arm| arm.role == Role::Reference)?;
            let share = |arm: &ArmOutcome| 100.0 * arm.unjudged(which) as f64 / arm.n as f64;
            let more = if arms.len() > 1 { format!(", and {} more", arms.len() - 1) } else { String::new() };
            let lack = if self.judge.is_some() { "lack a verdict" } else { "say nothing" };
            Some(format!(
                "{name} is not compared: {} ({:.1} % of its answers {lack}, of the reference's {:.1} %){more}",
                arm.variant,
                share(arm),
                share(reference)
            ))
        };
        self.compared().filter_map(told).collect()
    }

    /// Sampled answers under a single seed: nothing shows what another seed would change.
    fn one_seed(&self) -> Option<String> {
        let [seed] = self.seeds[..] else { return None };
        (self.temperature > 0.0).then(|| {
            format!(
                "answers were drawn at temperature {} under seed {seed} alone: nothing here shows how much another seed would change",
                self.temperature
            )
        })
    }

    fn nothing_tempered(&self) -> Option<String> {
        self.tempered().next().is_none().then(|| "no head is tempered: every λ is 1".into())
    }

    fn few_in_a_class(&self) -> Option<String> {
        let judged = self.arms().all(|(_, arm)| arm.assertion_rate.is_finite() && arm.accuracy.is_finite());
        let asymmetry = Compared::AssertionAsymmetry;
        let compared = || self.tempered().filter(move |arm| !arm.withholds(asymmetry));
        let few = compared().filter(|arm| arm.difference.assertion_asymmetry.is_none()).count();
        (few > 0 && judged).then(|| {
            format!(
                "the assertion asymmetry of {few} of {} arms is not compared: fewer than {LEAST} prompts are answered right, or wrong, \
                 there or by the reference",
                compared().count()
            )
        })
    }

    fn arms_elsewhere(&self) -> Option<String> {
        (!self.elsewhere.is_empty()).then(|| {
            format!(
                "this directory also has rows that no table here holds, of {}: p max is over these tables alone; ask for all of \
                 them at once",
                some_of(&self.elsewhere, NAMED)
            )
        })
    }

    fn untouched(&self) -> Option<String> {
        let worst = self.all_arms().filter(|arm| arm.touched < arm.n).min_by_key(|arm| arm.touched)?;
        Some(format!(
            "only {} of {} answers of {} were touched: the others end before its positions, and pull every difference to 0",
            worst.touched, worst.n, worst.variant
        ))
    }

    fn changed_nothing(&self) -> Option<String> {
        let reference = self.arms().map(|(_, arm)| arm).find(|arm| arm.role == Role::Reference)?;
        let same =
            |arm: &&ArmOutcome| arm.changed == 0.0 && arm.mean_logprob.to_bits() == reference.mean_logprob.to_bits();
        let arms = self.all_arms().filter(|arm| arm.lambda != 1.0 && arm.touched > 0).filter(same);
        moved_nothing(&arms.map(|arm| arm.variant.clone()).collect::<Vec<_>>())
    }

    /// Arms of the tables that are not compared; random sets are told by [`random_withheld`](Self::random_withheld), which still count.
    fn withheld(&self) -> Option<String> {
        let withheld: Vec<_> = self.arms().filter_map(|(_, arm)| Some((arm, arm.withheld.as_ref()?))).collect();
        let (arm, why) = withheld.first()?;
        let more = match withheld.len() - 1 {
            0 => String::new(),
            n => format!(", and {n} more"),
        };
        Some(format!("not compared: {} ({why}){more}", arm.variant))
    }

    /// Random sets that are not compared are taken to differ as much as any, so that p cannot fall far.
    fn random_withheld(&self) -> Option<String> {
        let by = compared(self);
        let lacking = |band: &Band| by.iter().map(|which| band.lacking(*which)).max().unwrap_or(0);
        let least = |band: &&Band| (1 + lacking(band)) as f64 / (1 + band.sets) as f64;
        let bands = self.tables.iter().flat_map(|table| &table.bands).filter(|band| lacking(band) > 0);
        let worst = bands.max_by(|x, y| least(x).total_cmp(&least(y)))?;
        let these: Vec<String> =
            by.iter().filter(|which| worst.lacking(**which) == lacking(worst)).map(|which| which.name()).collect();
        let by_these = if these.len() == by.len() { String::new() } else { format!(" by {}", these.join(", ")) };
        Some(format!(
            "{} of {} random sets at λ = {} are not compared{by_these}, and count as if they differed more than any: no p beside them is \
             below {:.2}",
            lacking(worst),
            worst.sets,
            worst.lambda,
            least(&worst)
        ))
    }
}
