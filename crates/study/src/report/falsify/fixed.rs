//! What was fixed beforehand, and where everything came from.

use crate::{
    falsify::{FailedBy, Falsification, Gates, Overlap, ProbeConfig, SetConfig},
    probe::{Origin, Weighting},
    report::{
        Facts,
        facts::of_model,
        falsify::axes::interval,
        text::{NARROW, UNDEFINED, count, escape, fixed, put, signed, wide},
    },
};

/// The section: gates, hashes, what was chosen, and every C that it was chosen from.
pub(super) fn draw(found: &Falsification) -> String {
    let mut out = String::from(
        r#"<section id="fixed"><h2>What was fixed beforehand</h2><p class="lead">Declared before anything was fitted, and
        frozen before a fresh label was read. The same hashes again mean the same gates and the same probe.</p>
        <dl class="facts">"#,
    );
    for (name, value) in facts(found) {
        put!(out, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(&value));
    }
    out.push_str("</dl>");
    each_c(&mut out, found);
    out + "</section>"
}

fn facts(found: &Falsification) -> Vec<(&'static str, String)> {
    let (gates, frozen) = (&found.declared.gates, &found.frozen);
    let threshold = frozen.threshold.map_or("none keeps p(assert | correct)".to_owned(), |at| fixed(at, 2));
    let shuffles = |null: &Option<crate::probe::Null>| null.as_ref().map_or(0, |null| null.shuffles);
    let decide: Vec<String> = gates.decide.iter().map(ToString::to_string).collect();
    vec![
        ("gates, SHA-256", found.gates_sha256.clone()),
        ("probe, SHA-256", frozen.probe_sha256.clone()),
        ("C", written(frozen.c)),
        ("threshold", threshold),
        ("gates of cv", of_step(gates.cv_auc, gates.cv_asymmetry)),
        ("gates of fresh, pooled and replication", of_step(gates.fresh_auc, gates.fresh_asymmetry)),
        ("p(assert | correct)", format!("at least {}", written(gates.assert_correct))),
        ("gates of every step", of_every_step(gates)),
        ("a missed gate on fresh items", failed_by(gates.failed_by).to_owned()),
        ("baselines", if gates.beat_baselines { "each must be beaten on fresh items" } else { "reported" }.to_owned()),
        ("steps that decide", decide.join(", ")),
        (
            "shuffles of labels",
            format!("{} in training, {} on fresh items", shuffles(&found.cv_null), shuffles(&found.fresh_null)),
        ),
        ("cross-validation", folds(&found.declared.probe)),
        ("items in both sets", overlap(&found.overlap)),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
    ]
}

fn failed_by(by: FailedBy) -> &'static str {
    match by {
        FailedBy::Interval => "is failed where the whole 95\u{a0}% interval misses it, else open",
        FailedBy::Point => "is failed",
    }
}

fn folds(probe: &ProbeConfig) -> String {
    let weight = match probe.class_weight {
        Weighting::None => "all items weigh alike",
        Weighting::Balanced => "both classes weigh alike",
    };
    format!("{} folds, seed {}; {weight}", probe.cv, probe.seed)
}

fn of_step(auc: f64, asymmetry: f64) -> String {
    format!("AUC at least {}, asymmetry at most {}", written(auc), written(asymmetry))
}

fn of_every_step(gates: &Gates) -> String {
    format!(
        "p against shuffled labels at most {}; at least {} in the smaller class (prompts or groups where items share them), or it \
         cannot tell",
        written(gates.alpha),
        count(gates.min_class, "item")
    )
}

/// How the sets were compared. An overlap is refused, so wherever one was looked for, there is none.
fn overlap(overlap: &Overlap) -> String {
    let mut ways = vec![
        (overlap.by_features, "of the same features"),
        (overlap.by_prompt, "of the same prompt"),
        (overlap.by_text, "of nearly the same prompt"),
    ];
    // A file that declares no groups does not ask about them.
    ways.extend(overlap.by_group.then_some((true, "of the same group")));
    let of = |compared: bool| {
        ways.iter().filter(|(done, _)| *done == compared).map(|(_, what)| *what).collect::<Vec<_>>().join(", ")
    };
    match (of(true), of(false)) {
        (none, not) if none.is_empty() => format!("not looked for: {not}"),
        (none, not) if not.is_empty() => format!("none {none}"),
        (none, not) => format!("none {none}; not looked for: {not}"),
    }
}

/// A number as it was declared, with a true minus sign.
fn written(value: f64) -> String {
    if value.is_finite() { value.to_string().replace('-', "−") } else { fixed(value, 0) }
}

/// Every C, so that nobody has to wonder what the others gave.
fn each_c(out: &mut String, found: &Falsification) {
    out.push_str(
        r#"<h3>Every C</h3><p class="note">The one with the largest cross-validated AUC was frozen; what the others give on
        fresh items decides nothing.</p>"#,
    );
    *out += &wide("Every C", "overview");
    out.push_str(
        r#"<thead><tr class="span"><td></td>
        <th colspan="4" scope="colgroup">training, cross-validated</th><th colspan="3" scope="colgroup" class="gap">fresh</th>
        <td class="gap"></td></tr><tr><th scope="col">C</th><th scope="col">AUC</th><th scope="col">mean of folds</th>
        <th scope="col">asymmetry</th><th scope="col">ECE</th><th scope="col" class="gap">AUC</th>
        <th scope="col">95 % (DeLong)</th><th scope="col">ECE</th><th scope="col" class="gap word">chosen</th></tr></thead><tbody>"#,
    );
    let mut frozen = false;
    for (at, cv) in found.cv.iter().enumerate() {
        // The same C listed twice is one fit.
        let here = !frozen && cv.c == found.frozen.c;
        frozen |= here;
        let fresh = found.transfer.get(at).map(|result| &result.measured);
        let range = fresh.map_or((f64::NAN, f64::NAN), |of| (of.auc_delong.low, of.auc_delong.high));
        put!(
            out,
            r#"<tr{}><th scope="row">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class="gap">{}</td><td>{}</td>
            <td>{}</td><td class="gap word">{}</td></tr>"#,
            if here { r#" class="out""# } else { "" },
            escape(&written(cv.c)),
            fixed(cv.cv.auc, 3),
            fixed(cv.fold_auc_mean, 3),
            cv.cv.best_asym.map_or(UNDEFINED.to_owned(), |asym| signed(asym, 3)),
            fixed(cv.cv.ece, 3),
            fixed(fresh.map_or(f64::NAN, |of| of.auc), 3),
            interval(range.0, range.1),
            fixed(fresh.map_or(f64::NAN, |of| of.ece), 3),
            if here { "frozen" } else { "" }
        );
    }
    out.push_str("</tbody>");
    out.push_str(NARROW);
}

/// Where training and fresh items came from, each fact for both.
pub(super) fn origins(found: &Falsification) -> Facts {
    let mut facts = Facts::default().with("name", &found.name);
    let (train, fresh) = (&found.declared.train, &found.declared.fresh);
    let path = |of: &SetConfig| of.items.as_ref().map(|path| path.display().to_string());
    let only = |of: &SetConfig| of.only.as_ref().map(ToString::to_string);
    let sets = [("items", path(train), path(fresh)), ("where", only(train), only(fresh))];
    for (name, train, fresh) in sets {
        facts = facts.with_some(name, both(train, fresh));
    }
    let all = [("", &found.train, &found.fresh)]
        .into_iter()
        .chain(found.pooled.iter().map(|of| ("pooled: ", &of.train, &of.fresh)))
        .chain(found.replication.iter().map(|of| ("replication: ", &of.train, &of.fresh)));
    let known = origin(&found.train).into_iter().zip(origin(&found.fresh)).collect::<Vec<_>>();
    for (prefix, train, fresh) in all {
        for (at, (train, fresh)) in origin(train).into_iter().zip(origin(fresh)).enumerate() {
            // What pooled layers and another model share with the probe is listed already.
            let said = !prefix.is_empty() && known[at].0 == train && known[at].1 == fresh;
            let (name, value) = (train.0, both(train.1, fresh.1));
            facts = facts.with_some(&format!("{prefix}{name}"), value.filter(|_| !said));
        }
    }
    facts
}

/// A fact about both sets, said once if it is the same.
fn both(train: Option<String>, fresh: Option<String>) -> Option<String> {
    if train == fresh {
        return train;
    }
    let [train, fresh] = [train, fresh].map(|value| value.unwrap_or_else(|| UNDEFINED.to_owned()));
    Some(format!("training  {train}\nfresh  {fresh}"))
}

/// The facts of one set, in an order common to all; none for what it does not say.
fn origin(origin: &Origin) -> Vec<(&'static str, Option<String>)> {
    let meta = origin.meta.as_ref();
    let layers: Vec<String> = origin.layers.iter().map(ToString::to_string).collect();
    let unlabelled =
        if origin.unlabelled > 0 { format!(", {} left out without a label", origin.unlabelled) } else { String::new() };
    let units = origin.units.map_or(String::new(), |units| format!(", of {units} prompts or groups"));
    let mut said = vec![
        ("used", Some(format!("{} items, {} of them positive{units}{unlabelled}", origin.items, origin.positives))),
        ("grouped by", origin.groups.as_ref().map(ToString::to_string)),
        ("features", Some(origin.features.to_string())),
        ("labels", Some(origin.labels.to_string())),
        ("matched by", Some(origin.matched_by.to_string())),
        ("pooled over", meta.map(|meta| meta.pool.clone())),
        ("layers averaged", (!layers.is_empty()).then(|| layers.join(", "))),
        ("site", meta.map(|meta| meta.site.clone())),
        ("features, SHA-256", Some(origin.features_sha256.clone())),
        ("labels, SHA-256", Some(origin.labels_sha256.clone())),
    ];
    said.extend(of_model(meta.map(|meta| &meta.identity)));
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::falsify::fixture;

    #[test]
    fn what_was_not_looked_for_is_said() {
        let by = |by_features, by_prompt, by_group, by_text| Overlap { by_features, by_prompt, by_group, by_text };
        let ways = |features, prompt, text| overlap(&by(features, prompt, false, text));
        assert!(overlap(&by(true, true, true, true)).ends_with("of the same group"));
        assert_eq!(
            ways(true, false, false),
            "none of the same features; not looked for: of the same prompt, of nearly the same prompt"
        );
        assert!(!ways(true, true, true).contains("not looked for") && ways(false, false, false).starts_with("not"));
    }

    #[test]
    fn one_c_is_frozen_and_what_both_sets_share_is_said_once() {
        let mut found = fixture::whole(0);
        found.cv.push(found.cv[0].clone());
        assert_eq!(draw(&found).matches(">frozen<").count(), 1);
        let origins = origins(&found);
        let of = |name: &str| origins.iter().find(|(known, _)| *known == name).map(|(_, value)| value).unwrap();
        assert_eq!((of("matched by"), of("revision")), ("id", "training  r100\nfresh  r193"));
        let used = "training  100 items, 56 of them positive, 1 left out without a label\nfresh  193 items, 55";
        assert!(of("used").contains(used));
    }
}
