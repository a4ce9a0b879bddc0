//! The report of a causal map: what tempering each head does to the responses.

mod maps;
mod sentence;
mod strip;
mod table;
mod words;

use crate::{
    report::{
        glossary, html,
        sweep::lambda as written,
        text::{count, escape, fixed, put, signed},
    },
    score::{Contrast, ScoreMap, Scores},
};

/// Everything that the page shows.
pub(crate) struct Page<'a> {
    /// The numbers of every head and λ.
    pub(crate) map: &'a ScoreMap,
    /// Those of every item.
    pub(crate) scores: &'a Scores,
    /// How many items carry each label.
    pub(crate) counts: &'a [(String, usize)],
    /// What was run, by name.
    pub(crate) facts: &'a [(String, String)],
}

const TITLE: &str = "Causal map: what tempering each head does to the responses";

/// The whole page: one HTML file that loads nothing, and reads the same without its script.
pub(crate) fn render(page: &Page<'_>) -> String {
    let map = page.map;
    let mut out = html::open(TITLE, &html::geometry(&map.model, &map.heads_per_layer));
    verdict(&mut out, &sentence::finding(map), &sentence::rule(map));
    if let Some(contrast) = &map.contrast {
        verdict(&mut out, &sentence::contrast(contrast), &sentence::contrast_rule(contrast));
    }
    totals(&mut out, page);
    out += &html::warning_list(&map.warnings);
    out.push_str("</header>");
    for (index, &lambda) in map.lambdas.iter().enumerate() {
        one_lambda(&mut out, page, index, lambda);
    }
    if let Some(contrast) = &map.contrast {
        cohorts(&mut out, map, contrast);
    }
    out += &glossary::sections(page.facts, &words::GLOSSARY);
    out + &html::close()
}

fn verdict(out: &mut String, sentence: &str, rule: &str) {
    put!(out, r#"<div class="verdict"><p>{}</p><p class="note">{}</p></div>"#, escape(sentence), escape(rule));
}

fn totals(out: &mut String, page: &Page<'_>) {
    let map = page.map;
    let mut cells = vec![
        ("items".to_owned(), map.items.to_string()),
        ("scored tokens".to_owned(), map.tokens.to_string()),
        ("nats a token, untempered".to_owned(), fixed(map.base_logprob_per_token, 3)),
    ];
    // One label, or none at all, says nothing.
    let labels = if page.counts.len() > 1 { page.counts } else { &[] };
    cells.extend(labels.iter().map(|(label, n)| (format!("labelled {label}"), n.to_string())));
    out.push_str(r#"<dl class="line">"#);
    for (name, value) in cells {
        put!(out, "<div><dt>{}</dt><dd>{value}</dd></div>", escape(&name));
    }
    out.push_str("</dl>");
}

fn one_lambda(out: &mut String, page: &Page<'_>, index: usize, lambda: f32) {
    let map = page.map;
    let scored = map.cells.len() / map.lambdas.len().max(1);
    put!(
        out,
        r#"<section id="lambda-{index}"><h2>λ = {}</h2><p class="lead">{} tempered one at a time, over {}.</p>
        <h3>Where tempering matters</h3>{}"#,
        written(f64::from(lambda)),
        count(scored, "head"),
        count(map.items, "item"),
        maps::effects(map, lambda)
    );
    put!(
        out,
        r#"<h3>Heads by |mean Δ|</h3><p class="note">The largest first. Every item counts once, however long it is.
        Bold: p(max) at most 0.05. The columns are explained at the end.</p>{}"#,
        table::effects(map, lambda)
    );
    put!(out, "<h3>Item by item</h3>{}</section>", strip::draw(page.scores, map, lambda));
}

fn cohorts(out: &mut String, map: &ScoreMap, contrast: &Contrast) {
    let (a, b) = (escape(&contrast.a), escape(&contrast.b));
    put!(
        out,
        r#"<section id="contrast"><h2>{a} against {b}</h2><p class="lead">a = {a} ({}, {} scored tokens each), b = {b}
        ({}, {} scored tokens each; d of the length {}). d &gt; 0: Δ a token is higher in {a}, which loses less, or gains
        more, where the head is tempered.</p>"#,
        count(contrast.n_a, "item"),
        fixed(contrast.tokens_a, 1),
        count(contrast.n_b, "item"),
        fixed(contrast.tokens_b, 1),
        signed(contrast.tokens_d, 2),
    );
    for &lambda in &map.lambdas {
        put!(out, "<h3>λ = {}</h3>{}", written(f64::from(lambda)), maps::contrast(map, contrast, lambda));
        out.push_str(&table::contrast(contrast, lambda));
    }
    out.push_str("</section>");
}
