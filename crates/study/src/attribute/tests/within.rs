//! Small strata: their means take a part of the spread with them, which must not turn nothing into something.

use headtemper_stats::sd;

use super::*;

/// Twenty pairs with one item of each cohort, compared within pairs.
fn pairs(set: u64) -> Disposition {
    let features = planted(&[Story::Nothing; 6], 20, 0, 300 + set);
    let mut facts = facts(40);
    for (item, facts) in facts.iter_mut().enumerate() {
        facts.fields.insert("pair".into(), (item % 20).to_string());
    }
    let spec = DispositionSpec::of_labels("planted", "a", "b").unwrap();
    let cohorts = Cohorts { a: (0..20).collect(), b: (20..40).collect() };
    let options = AttributeOptions { within: Some("pair".into()), resamples: 200, shuffles: 99, ..quick(set) };
    attribute(&features, &spec, &cohorts, &facts, &options).unwrap()
}

#[test]
fn pairs_without_a_signal_show_none() {
    // Measured: sd of d 0.34, where √(1/20 + 1/20) is 0.32; 0.91 of intervals hold 0; d_crossfit averages -0.06, and halves agree at -0.02.
    // Without the adjustment and with strata in both halves these were 0.48, 0.82, 1.37 and 0.28.
    let sets = 40;
    let found: Vec<Disposition> = (0..sets).map(pairs).collect();
    let heads: Vec<&HeadEffect> = found.iter().flat_map(|found| &found.heads).collect();
    let of = |of: &dyn Fn(&HeadEffect) -> f64| heads.iter().map(|head| of(head)).collect::<Vec<f64>>();
    let d = of(&|head| head.magnitude.cohen_d);
    let (crossfit, centred) = (of(&|head| head.d_crossfit), of(&|head| head.cos_centered));
    let rho: Vec<f64> = found.iter().flat_map(|x| [x.stability.magnitude.rho, x.stability.directional.rho]).collect();
    let held = heads.iter().filter(|head| head.d_low <= 0.0 && head.d_high >= 0.0).count() as f64 / heads.len() as f64;
    println!(
        "d sd {}, held {held}, crossfit {} ({}), centred {} ({}), rho {} ({})",
        sd(&d),
        mean(&crossfit),
        sd(&crossfit),
        mean(&centred),
        sd(&centred),
        mean(&rho),
        sd(&rho)
    );
    let within = |values: &[f64]| mean(values).abs() < 4.0 * sd(values) / (values.len() as f64).sqrt();
    assert!((0.27..0.37).contains(&sd(&d)), "{}", sd(&d));
    assert!(held > 0.88, "{held}");
    assert!(within(&crossfit) && within(&centred) && within(&rho));
    // Two families of tests per set, each of which names a head falsely in one of twenty sets: 11 is four standard errors above
    // that.
    let names = |found: &&Disposition| {
        found.heads.iter().any(|head| matches!(head.verdict, Verdict::Separable | Verdict::MagnitudeOnly))
    };
    let named = found.iter().filter(names).count();
    assert!(named <= 11, "{named} of {sets} sets name a head");
    assert!(heads.iter().all(|head| head.welch_p.is_nan()), "Welch's test knows of no covariates");
}
