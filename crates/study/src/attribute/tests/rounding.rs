//! Heads that have nothing across their mean: what single precision rounds there goes with the length of z, and so with the labels.

use super::*;

/// Heads whose z is a vector of its own times `size(item)`, with `noise` of its length added to each item, in two topics.
fn one_direction(size: impl Fn(usize) -> f64, noise: f64, exact: bool) -> (Features, Vec<ItemFacts>) {
    let (mut features, n) = (planted(&[Story::Nothing; 4], 20, 1, 8), 20);
    let mut random = Random::new(9, 78);
    let slots = features.slots.len();
    let HeadVectors { heads, dim, values, .. } = &mut features.head_vectors[0];
    for head in 0..*heads {
        // Products with a few bits are exact.
        let draw = |x: f64| if exact { (x * 8.0).round() / 8.0 } else { x };
        let unit: Vec<f64> = (0..*dim).map(|_| draw(random.normal())).collect();
        for item in 0..2 * n {
            let z: Vec<f64> = unit.iter().map(|x| size(item) * (x + noise * random.normal())).collect();
            let start = (item * *heads + head) * *dim;
            values[start..start + *dim].iter_mut().zip(&z).for_each(|(to, x)| *to = *x as f32);
            features.head_norm[item * slots + head] = z.iter().map(|x| x * x).sum::<f64>().sqrt() as f32;
        }
    }
    features.head_norm_final.clone_from(&features.head_norm);
    let mut facts = facts(2 * n);
    for (item, facts) in facts.iter_mut().enumerate() {
        facts.fields.insert("topic".into(), ["law", "art"][item % 2].into());
    }
    (features, facts)
}

/// The four heads, as they are, with length taken out, and within topics.
fn all_ways((features, facts): &(Features, Vec<ItemFacts>)) -> Vec<HeadEffect> {
    let spec = DispositionSpec::of_labels("planted", "a", "b").unwrap();
    let cohorts = Cohorts { a: (0..20).collect(), b: (20..40).collect() };
    let plain = AttributeOptions { shuffles: 99, ..quick(1) };
    let adjusted = AttributeOptions { adjust: Adjust::Length, ..plain.clone() };
    let within = AttributeOptions { within: Some("topic".into()), ..plain.clone() };
    let both = AttributeOptions { within: Some("topic".into()), ..adjusted.clone() };
    let of = |options: &AttributeOptions| attribute(features, &spec, &cohorts, facts, options).unwrap().heads;
    [plain, adjusted, within, both].iter().flat_map(|options| of(options).into_iter().take(4)).collect()
}

/// Three lengths, one step longer in a.
fn louder(item: usize) -> f64 {
    f64::from(8 + (item % 3) as u8) + if item < 20 { 6.0 } else { 0.0 }
}

#[test]
fn what_is_only_louder_lies_nowhere_else() {
    for exact in [true, false] {
        for head in all_ways(&one_direction(louder, 0.0, exact)) {
            assert_eq!(head.verdict, Verdict::MagnitudeOnly, "{} {} {}", exact, head.d_across, head.p_across);
            assert_eq!((head.d_across, head.p_across, head.p_max_across), (0.0, 1.0, 1.0));
            assert!(head.lies_elsewhere(), "longer z lies elsewhere along its mean");
        }
        for head in all_ways(&one_direction(|_| 3.0, 0.0, exact)) {
            assert_eq!(head.verdict, Verdict::NoEvidence);
            assert_eq!((head.d_naive, head.d_crossfit, head.d_across), (0.0, 0.0, 0.0));
            assert_eq!((head.p_naive, head.p_directional, head.p_across), (1.0, 1.0, 1.0));
        }
    }
}

#[test]
fn what_single_precision_can_hold_is_compared() {
    // The same numbers whatever the scale of the noise: it is no rounding.
    let of = |noise: f64| all_ways(&one_direction(louder, noise, true)).into_iter().map(|head| head.d_across);
    let (small, large): (Vec<f64>, Vec<f64>) = of(1e-5).zip(of(1e-3)).unzip();
    assert!(small.iter().all(|d| d.abs() > 1e-3), "{small:?}");
    assert!(small.iter().zip(&large).all(|(x, y)| (x - y).abs() < 0.1), "{small:?} {large:?}");
}
