//! What was run, and how every column is computed.

use crate::report::{
    Facts,
    text::{escape, put},
};

/// The columns of an attribution, one line each.
const ATTRIBUTION: [(&str, &str); 22] = [
    ("z", "what a head hands to its layer's output projection, per token, after any output gate."),
    (
        "mean a, mean b",
        "per item the L2 norm of z, averaged over the last N response tokens; then the mean over the cohort's items.",
    ),
    ("Δ", "mean a minus mean b."),
    ("d", "Cohen's d: Δ over the pooled standard deviation (n − 1). d > 0: louder in a."),
    ("95 %", "percentile bootstrap interval of d, items resampled within their cohorts; of this head alone."),
    (
        "shuffled labels",
        "the same computation after the cohort labels were dealt out at random, many times: what no signal at all \
        looks like.",
    ),
    ("p", "permutation p: how often shuffled labels give as large a |d| (or d held out), for this head alone."),
    (
        "q",
        "p after Benjamini-Hochberg over all heads: the false discovery rate if this head and those with smaller p \
        are called.",
    ),
    (
        "p max",
        "how often the largest of all heads under shuffled labels reaches this head: corrected for having looked at \
        every head. A head has an answer where this or q is at most 0.05.",
    ),
    ("d final", "d of the norm of z at the last token of the response alone."),
    (
        "d naive",
        "d of the items' mean z projected on v = μ_a − μ_b, measured on the items that defined v. In-sample: large on \
        noise, and no evidence.",
    ),
    (
        "d held out",
        "d of held-out items along v of all others, cross-fitted over folds and averaged over deals: about 0 without \
        signal, below 0 where held-out items fall on the other side.",
    ),
    (
        "across",
        "the smaller of p max and q of d held out, for the part of z across its mean: whether z lies elsewhere, and is \
        not only longer. It decides between separable and magnitude only where a head may be louder as well.",
    ),
    ("cos", "cosine of μ_a and μ_b, the cohorts' mean z vectors: near 1 for noise and signal alike."),
    (
        "centred",
        "centred cosine: of μ_a and μ_b less the grand mean, the two from different halves of the items. −1 where the \
        cohorts lie apart, about 0 without signal.",
    ),
    ("r", "Pearson's correlation of the norm of z with the length of the response, over items."),
    ("d adjusted", "d after the length of the response and its logarithm were taken out of the norms."),
    (
        "verdict",
        "separable, magnitude only, variance artefact or no evidence, by the rule at the top of the page; untested \
        without enough shuffles.",
    ),
    (
        "comes out again",
        "Spearman's correlation over heads between two random halves of the items, averaged over splits.",
    ),
    ("random weights", "a model of the same geometry that was never trained, on the same items."),
    (
        "labels, correlation",
        "phi of the cohorts of two dispositions over the items that both have: what their rankings share by \
        construction.",
    ),
    ("by chance", "how many heads the tops of two dispositions would share if heads were drawn blindly."),
];

/// The columns of a sweep.
const SWEEP: [(&str, &str); 10] = [
    ("λ", "factor on the z of the tempered heads: 1 untouched, 0 ablated."),
    ("accuracy", "share of answers that are right."),
    ("assertion", "assertion rate: share of answers without a hedge."),
    (
        "asymmetry",
        "assertion asymmetry: assertion rate among wrong answers minus among right ones, in percentage points. \
        Positive: surer when wrong.",
    ),
    ("length", "mean length of the responses in tokens."),
    ("cut off", "share of responses cut off at the token limit."),
    ("logp/token", "log-probability of a response token in nats under the model as tempered, averaged over all."),
    ("changed", "share of responses that differ from the untouched model's."),
    (
        "control",
        "λ = 1 through the hook of every head: what differs from the untouched model is rounding and batching.",
    ),
    (
        "p random",
        "p_random_max in sweep.csv: how often one of as many head sets as were tempered, drawn from these and the random ones of \
        the same size together, stands out as far at any λ; a random set that cannot be compared counts as one that does.",
    ),
];

/// The entry that both share.
const COHORTS: (&str, &str) = ("cr, cw, hr, hw", "cohorts: confident or hedged, and right or wrong.");

/// The last two sections of the page, about only the columns that it has.
pub(super) fn draw(facts: &Facts, attribution: bool, sweep: bool) -> String {
    let mut glossary = Vec::new();
    if attribution {
        glossary.extend(ATTRIBUTION);
    }
    if sweep {
        glossary.extend(SWEEP);
    }
    glossary.push(COHORTS);
    sections(facts, &glossary)
}

/// What was run, and what each word of a page means.
pub(super) fn sections(facts: &Facts, glossary: &[(&str, &str)]) -> String {
    let mut out = String::new();
    if facts.iter().next().is_some() {
        out.push_str(r#"<section id="run"><h2>What was run</h2><dl class="facts">"#);
        for (name, value) in facts.iter() {
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
