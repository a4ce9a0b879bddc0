//! What was run, and how every column is computed.

use crate::report::text::{escape, put};

/// Each column of the report in one line.
const GLOSSARY: [(&str, &str); 23] = [
    ("z", "what a head hands to its layer's output projection, per token, after any output gate."),
    (
        "mean a, mean b",
        "per item the L2 norm of z, averaged over the last N response tokens; then the mean over the cohort's items.",
    ),
    ("Δ", "mean a minus mean b."),
    ("d", "Cohen's d: Δ over the pooled standard deviation (n − 1). d > 0: louder in a."),
    ("p", "permutation p of |d|: how often shuffled cohort labels give as much, for this head alone."),
    (
        "q",
        "p after Benjamini-Hochberg over all heads: the false discovery rate if this head and those with smaller p \
        are called.",
    ),
    (
        "p(max)",
        "how often the largest |d| of all heads under shuffled labels reaches this head's |d|: corrected for having \
        looked at every head.",
    ),
    (
        "d_naive",
        "d of the items' mean z projected on v = μ_a − μ_b, measured on the items that defined v. In-sample: large on \
        noise.",
    ),
    ("p(dir)", "permutation p of d_naive, with v defined anew for every shuffle: what makes d_naive readable."),
    ("cos", "cosine of μ_a and μ_b, the cohorts' mean z vectors."),
    ("rel. norm", "length of v relative to the length of the mean z."),
    (
        "shuffled labels",
        "the same computation after the cohort labels were dealt out at random, many times: what no signal at all \
        looks like.",
    ),
    ("λ", "factor on the z of the tempered heads: 1 untouched, 0 ablated."),
    ("accuracy", "share of answers that are right."),
    ("assertion", "assertion rate: share of answers without a hedge."),
    (
        "asymmetry",
        "assertion asymmetry: assertion rate among wrong answers minus among right ones, in percentage points. \
        Positive: surer when wrong.",
    ),
    ("tokens", "mean length of the responses in tokens."),
    ("truncated", "share of responses cut off at the token limit."),
    ("logp/token", "log-probability of a response token in nats under the model as tempered, averaged over all."),
    ("changed", "share of responses that differ from the untouched model's."),
    (
        "control",
        "λ = 1 through the hook of every head: what differs from the untouched model is rounding and batching.",
    ),
    (
        "p(random)",
        "share of the random head sets of the same size at the same λ, the set itself counted among them, that differ \
        as much.",
    ),
    ("cr, cw, hr, hw", "cohorts: confident or hedged, and right or wrong."),
];

/// The last two sections of the page.
pub(super) fn draw(facts: &[(String, String)]) -> String {
    sections(facts, &GLOSSARY)
}

/// What was run, and what each word of a page means.
pub(super) fn sections(facts: &[(String, String)], glossary: &[(&str, &str)]) -> String {
    let mut out = String::new();
    if !facts.is_empty() {
        out.push_str(r#"<section id="run"><h2>What was run</h2><dl class="facts">"#);
        for (name, value) in facts {
            put!(out, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(value));
        }
        out.push_str("</dl></section>");
    }
    out.push_str(r#"<section id="columns"><h2>How the columns are computed</h2><dl class="glossary">"#);
    for (name, meaning) in glossary {
        put!(out, "<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(meaning));
    }
    out.push_str("</dl></section>");
    out
}
