//! The report of a causal map: what tempering each head does to the responses.

mod maps;
mod sentence;
mod strip;
mod table;
mod words;

use crate::{
    report::{
        Facts, glossary, html,
        sweep::lambda as written,
        text::{count, escape, fixed, put, signed},
    },
    score::{Contrast, ScoreMap, Scores},
};

/// Everything that the page shows.
pub(crate) struct Page<'a> {
    /// The numbers of every head and λ.
    pub(crate) map: &'a ScoreMap,
    /// The numbers of every item.
    pub(crate) scores: &'a Scores,
    /// How many items carry each label.
    pub(crate) counts: &'a [(String, usize)],
    /// What was run, by name.
    pub(crate) facts: &'a Facts,
}

const TITLE: &str = "Causal map: what tempering each head does to the responses";

/// The whole page: one HTML file that loads nothing, and reads the same without its script.
pub(crate) fn render(page: &Page<'_>) -> String {
    let map = page.map;
    let mut out = html::open(TITLE, &html::geometry(&map.model, &map.heads_per_layer));
    verdict(&mut out, &sentence::finding(map), &sentence::rule(map));
    if let Some(contrast) = &map.contrast {
        verdict(&mut out, &sentence::contrast(contrast, &map.units()), &sentence::contrast_rule(contrast));
    }
    totals(&mut out, page);
    out += &html::warning_list(&map.warnings);
    out += &html::contents(&sections(page));
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

/// The sections of the page, in its order.
fn sections(page: &Page<'_>) -> Vec<(String, String)> {
    let lambdas = page.map.lambdas.iter().enumerate();
    let lambdas =
        lambdas.map(|(index, &l)| (format!("lambda-{index}"), format!("λ\u{a0}=\u{a0}{}", written(f64::from(l)))));
    let contrast = page.map.contrast.iter().map(|of| ("contrast".to_owned(), format!("{} against {}", of.a, of.b)));
    let run = page.facts.iter().next().map(|_| ("run".to_owned(), "what was run".to_owned()));
    lambdas.chain(contrast).chain(run).chain([("columns".to_owned(), "glossary".to_owned())]).collect()
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
    // One label, or none, says nothing.
    let labels = if page.counts.len() > 1 { page.counts } else { &[] };
    cells.extend(labels.iter().map(|(label, n)| (format!("items labelled {label}"), n.to_string())));
    out.push_str(r#"<dl class="line">"#);
    for (name, value) in cells {
        put!(out, "<div><dt>{}</dt><dd>{value}</dd></div>", escape(&name));
    }
    out.push_str("</dl>");
}

fn one_lambda(out: &mut String, page: &Page<'_>, index: usize, lambda: f32) {
    let map = page.map;
    put!(
        out,
        r#"<section id="lambda-{index}"><h2>λ = {}</h2><p class="lead">{} tempered one at a time, over {}.</p>
        <h3>Where tempering matters</h3>{}"#,
        written(f64::from(lambda)),
        count(map.heads_at(lambda), "head"),
        count(map.items, "item"),
        maps::effects(map, lambda)
    );
    put!(
        out,
        r#"<h3>Heads by |mean Δ|</h3><p class="note">The largest first. Every item counts once, however long it is.
        Bold: p max at most 0.05. The columns are explained at the end.</p>{}"#,
        table::effects(map, lambda)
    );
    put!(out, "<h3>Item by item</h3>{}</section>", strip::draw(page.scores, map, lambda));
}

fn cohorts(out: &mut String, map: &ScoreMap, contrast: &Contrast) {
    let (a, b) = (escape(&contrast.a), escape(&contrast.b));
    let of_length = if contrast.lengths().tell_apart() {
        "in every item, so that the length has no d".to_owned()
    } else {
        format!("each; d of the length {}", signed(contrast.tokens_d, 2))
    };
    put!(
        out,
        r#"<section id="contrast"><h2>{a} against {b}</h2><p class="lead">a = {a} ({}, {} scored tokens each), b = {b}
        ({}, {} scored tokens {of_length}). d &gt; 0: Δ a token is higher in {a}, which loses less, or gains
        more, where the head is tempered.</p>"#,
        count(contrast.n_a, "item"),
        fixed(contrast.tokens_a, 1),
        count(contrast.n_b, "item"),
        fixed(contrast.tokens_b, 1),
    );
    for &lambda in &map.lambdas {
        put!(out, "<h3>λ = {}</h3>{}", written(f64::from(lambda)), maps::contrast(map, contrast, lambda));
        out.push_str(&table::contrast(contrast, lambda));
    }
    out.push_str("</section>");
}

#[cfg(test)]
mod tests {
    use headtemper_hook::HeadRef;

    use super::*;
    use crate::{
        Cohort,
        report::html::tests::assert_sound,
        score::{Nulls, map},
    };

    const HOSTILE: &str = "</script><script>alert(1)</script><img src=x onerror='a'>&\"";

    /// Made-up scores: head 0 loses much on every item, and more on the second cohort's; the others are next to nothing.
    fn scores(items: usize, heads: &[HeadRef]) -> Scores {
        let lambdas = vec![0.0, 0.5];
        let cells = heads.len() * lambdas.len();
        let noise = |i: usize| ((i * 7919) % 101) as f64 / 1000.0 - 0.05;
        let delta = |cell: usize, item: usize| match cell / 2 {
            0 => -8.0 - (item % 2) as f64 * 9.0 + noise(cell + item),
            _ => noise(cell * 31 + item * 17),
        };
        let each = |f: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
            (0..cells).flat_map(|cell| (0..items).map(move |item| (cell, item))).map(|(c, i)| f(c, i)).collect()
        };
        Scores {
            heads: heads.to_vec(),
            scored: (0..cells).map(|cell| [cell / lambdas.len(), cell % lambdas.len()]).collect(),
            lambdas,
            ids: (0..items).map(|i| format!("{HOSTILE}{i}")).collect(),
            labels: (0..items).map(|i| if i % 2 == 0 { "<i>".to_owned() } else { HOSTILE.to_owned() }).collect(),
            tokens: (0..items).map(|i| 10 + i).collect(),
            base: vec![-20.0; items],
            delta: each(&delta),
            kl: each(&|cell, item| delta(cell, item).abs() / 2.0),
            agree: vec![9; cells * items],
        }
    }

    fn page(scores: &Scores, columns: &[usize], shuffles: usize, contrast: bool) -> String {
        let rows = |rest: usize| (0..scores.ids.len()).filter(|i| i % 2 == rest).collect();
        let cohorts = [("<i>", 0), (HOSTILE, 1)].map(|(name, rest)| Cohort { name: name.into(), rows: rows(rest) });
        let nulls = Nulls { shuffles, seed: 3 };
        let units: Vec<Vec<usize>> = (0..scores.ids.len()).map(|item| vec![item]).collect();
        let map = map(scores, (&units, None), HOSTILE, columns.to_vec(), contrast.then_some((&cohorts, None)), nulls);
        let facts = Facts::default().with("command", HOSTILE);
        let counts = [("<i>".to_owned(), 5), (HOSTILE.to_owned(), 5)];
        let html = render(&Page { map: &map, scores, counts: &counts, facts: &facts });
        assert_sound(&html);
        html
    }

    #[test]
    fn a_head_that_matters_is_called_and_noise_is_not() {
        let heads = [HeadRef::query(0, 0), HeadRef::query(0, 1), HeadRef::value(2, 0)];
        let html = page(&scores(12, &heads), &[2, 0, 1], 500, true);
        assert!(html.contains("1 of 3 heads moves the responses&#39; log-probability: L0H0"), "{html}");
        assert!(html.contains("heads, counted at each λ, tell") && html.contains("most of all L0H0"), "{html}");
        assert!(html.contains("Underlined: gated delta nets") && html.contains("L2V0"));
        assert_eq!(html.matches(r#"class="outline""#).count(), 2 + 2, "one head at two λ, in two maps");
        assert_eq!(html.matches("<svg").count(), 2 * 3 + 2);
    }

    #[test]
    fn cohorts_differ_in_shape_and_items_of_neither_are_smaller() {
        let heads = [HeadRef::query(0, 0)];
        let mut scores = scores(12, &heads);
        let both = page(&scores, &[1], 50, true);
        assert_eq!((both.matches(r#"class="point over""#).count(), both.matches(r#"r="3""#).count()), (2 * 6, 2 * 6));
        assert!(both.contains("◆ items of &lt;i&gt;, ● of ") && !both.contains("of neither"));
        // As if cohorts had been drawn from some of the labels.
        scores.labels[0] = "other".to_owned();
        let html = page(&scores, &[1], 50, true);
        assert_eq!((html.matches(r#"class="point over""#).count(), html.matches(r#"r="1.8""#).count()), (2 * 5, 2));
        assert!(html.contains("smaller: of neither."));
        assert!(!page(&scores, &[1], 50, false).contains("point over"));
    }

    #[test]
    fn without_an_effect_no_head_stands_out() {
        let heads = [HeadRef::query(0, 1), HeadRef::query(0, 2)];
        let mut scores = scores(12, &heads);
        let noise = scores.delta[2 * 12..].to_vec();
        scores.delta = [noise.clone(), noise].concat();
        let html = page(&scores, &[3], 500, true);
        assert!(html.contains("No head stands out") && html.contains("No head tells"), "{html}");
        assert!(html.contains("Struck through: not scored") && !html.contains(r#"class="outline""#));
    }

    #[test]
    fn too_little_to_tell_is_no_verdict() {
        let heads = [HeadRef::query(0, 0)];
        assert!(page(&scores(4, &heads), &[1], 500, false).contains("No verdict: with 4 prompts and all 7 sign flips"));
        assert!(page(&scores(1, &heads), &[1], 500, false).contains("No verdict"));
        let html = page(&scores(9, &heads), &[1], 0, true);
        assert!(html.contains("No verdict: no sign was flipped") && html.contains("labels were not shuffled"));
    }

    #[test]
    fn no_number_at_all_does_no_harm() {
        let heads = [HeadRef::query(0, 0), HeadRef::query(0, 1)];
        for hole in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e308, 0.0] {
            let mut scores = scores(9, &heads);
            scores.delta.fill(hole);
            scores.kl.fill(hole);
            page(&scores, &[2], 50, true);
        }
    }
}
