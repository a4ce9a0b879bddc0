//! What the hooks counted: head-tokens by arm or by head, added up over rows, whichever calls wrote these.

use std::collections::BTreeMap;

use crate::text::{count, some_of};

/// Most arms or cells that a warning names.
const NAMED: usize = 5;

/// How many head-tokens the hooks touched, by arm or by head; of those alone whose rows all record it.
pub type HookCounts = BTreeMap<String, u64>;

/// Adds up what rows record, each with the arm or head that it is of.
pub(crate) fn counted<N: AsRef<str> + Ord>(rows: impl Iterator<Item = (N, Option<u64>)>) -> HookCounts {
    let mut sums: BTreeMap<N, Option<u64>> = BTreeMap::new();
    for (name, fired) in rows {
        let sum = sums.entry(name).or_insert(Some(0));
        *sum = sum.zip(fired).map(|(sum, own)| sum + own);
    }
    sums.into_iter().filter_map(|(name, sum)| Some((name.as_ref().to_owned(), sum?))).collect()
}

/// Warns of arms or cells that moved nothing, not even the last digit of a probability. Any head with an output does; one whose columns of
/// the output projection are zero, as an export with λ = 0 leaves them, does not, and its null says nothing.
pub(crate) fn moved_nothing(names: &[String]) -> Option<String> {
    (!names.is_empty()).then(|| {
        format!(
            "changed nothing, not even the last digit of a log-probability: {}; such heads add nothing in this model, as after an export with \
             lambda 0, and a null about them says nothing",
            some_of(names, NAMED)
        )
    })
}

/// The counts for the facts of a report: of `all` arms or heads, each row being `one` of what they say.
pub(crate) fn told(counts: &HookCounts, (all, what): (usize, &str), one: &str) -> String {
    if counts.is_empty() {
        return format!("not known: an earlier version wrote {one}s, which do not say");
    }
    let told =
        format!("{} head-tokens, all that the plans are for, counted {one} by {one}", counts.values().sum::<u64>());
    match all - counts.len().min(all) {
        0 => told,
        others => format!("{told}; of {} an earlier version wrote {one}s, which do not say", count(others, what)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_counted_is_not_claimed() {
        let rows = |old: Option<u64>| counted([("a", Some(2)), ("b", Some(0)), ("a", Some(3)), ("b", old)].into_iter());
        let both = rows(Some(1));
        assert_eq!(both, HookCounts::from([("a".into(), 5), ("b".into(), 1)]));
        let all = "6 head-tokens, all that the plans are for, counted answer by answer";
        assert_eq!(told(&both, (2, "arm"), "answer"), all);
        let some = rows(None);
        assert_eq!(some, HookCounts::from([("a".into(), 5)]));
        let told = told(&some, (2, "arm"), "answer");
        assert!(
            told.starts_with("5 head-tokens")
                && told.ends_with("of 1 arm an earlier version wrote answers, which do not say")
        );
    }
}
