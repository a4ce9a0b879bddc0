//! The folds of a cross-validated classifier, dealt out as scikit-learn does.

use rand_mt::Mt;

/// The fold of each item: `sklearn.model_selection.StratifiedKFold(folds, shuffle=seed is some, random_state=seed)`.
///
/// Each class is dealt out over the folds as it falls in sorted order, then shuffled within the class by numpy's legacy generator
/// (the Mersenne Twister, its intervals by masks and rejection), starting with the class of the first item. None if there are fewer
/// than two folds, or more than the smaller class has items: scikit-learn only warns there, but a fold without a class measures
/// nothing.
pub fn stratified_folds(labels: &[bool], folds: usize, seed: Option<u32>) -> Option<Vec<usize>> {
    let first = *labels.first()?;
    let of_first = labels.iter().filter(|&&label| label == first).count();
    let sizes = [of_first, labels.len() - of_first];
    if folds < 2 || sizes.iter().any(|&size| size < folds) {
        return None;
    }
    let mut twister = seed.map(Mt::new);
    let mut fold_of = vec![0; labels.len()];
    for (class, start) in [(first, 0), (!first, sizes[0])] {
        // Place i of the sorted labels goes to fold i mod k.
        let size = if class == first { sizes[0] } else { sizes[1] };
        let mut dealt = Vec::with_capacity(size);
        for fold in 0..folds {
            let count = (start..start + size).filter(|place| place % folds == fold).count();
            dealt.extend(std::iter::repeat_n(fold, count));
        }
        if let Some(twister) = &mut twister {
            for last in (1..dealt.len()).rev() {
                dealt.swap(last, interval(twister, last as u32) as usize);
            }
        }
        let members = labels.iter().enumerate().filter(|&(_, &label)| label == class);
        members.zip(dealt).for_each(|((item, _), fold)| fold_of[item] = fold);
    }
    Some(fold_of)
}

/// A random integer up to and including `most`: numpy's `random_interval`.
fn interval(twister: &mut Mt, most: u32) -> u32 {
    let mask = u32::MAX >> most.leading_zeros();
    loop {
        let value = twister.next_u32() & mask;
        if value <= most {
            return value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_fold_lacks_a_class() {
        let labels: Vec<bool> = (0..23).map(|i| i % 3 == 0).collect();
        for seed in [None, Some(0), Some(7)] {
            let folds = stratified_folds(&labels, 5, seed).unwrap();
            for fold in 0..5 {
                let of = |class: bool| (0..23).filter(|&i| folds[i] == fold && labels[i] == class).count();
                assert!((1..=2).contains(&of(true)) && (3..=3).contains(&of(false)), "{folds:?}");
            }
        }
        assert_ne!(stratified_folds(&labels, 5, Some(0)), stratified_folds(&labels, 5, Some(1)));
        assert!(stratified_folds(&labels, 9, Some(0)).is_none() && stratified_folds(&labels, 1, None).is_none());
        assert!(stratified_folds(&[], 2, None).is_none() && stratified_folds(&[true; 9], 2, None).is_none());
    }
}
