//! The report as one HTML file: no script, font, image or link from elsewhere.

use crate::{
    attribution::Attribution,
    report::{
        Facts, across, controls, disposition, glossary, overview, sweep,
        text::{count, escape, put},
        tried,
    },
    sweep::outcome::Outcomes,
};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("sort.js");

/// Everything that the page shows.
pub struct Page<'a> {
    /// What the page is about, such as `Confident-wrong against confident-right`.
    pub title: &'a str,
    /// What was run, by name: model, hash of the weights, dtype, device, items, command, version, seed, date.
    pub(crate) facts: &'a Facts,
    /// How many items each cohort has, including those that are not compared.
    pub counts: &'a [(String, usize)],
    /// What a reader must know before any number.
    pub warnings: &'a [String],
    /// The model's name.
    pub model: &'a str,
    /// How many heads each layer has.
    pub heads_per_layer: &'a [usize],
    /// The heads of every disposition; none if no cohorts were compared.
    pub attribution: Option<&'a Attribution>,
    /// The outcomes of a sweep; none if none was run.
    pub sweep: Option<&'a Outcomes>,
    /// A few items with the responses of each arm.
    pub examples: &'a [Example],
}

/// One item, and what the model answered in each arm.
pub struct Example {
    /// The item's id.
    pub id: String,
    /// The item's prompt.
    pub prompt: String,
    /// The arm's label and its response; the others are compared with the first.
    pub responses: Vec<(String, String)>,
}

/// The whole page.
///
/// All text is escaped, whatever the model wrote, and the page forbids the browser to load anything. It reads the
/// same without its script, which only sorts tables.
pub fn render(page: &Page<'_>) -> String {
    let mut out = open(page.title, &subtitle(page));
    match (page.attribution, page.sweep) {
        (None, Some(sweep)) => out += &sweep::verdicts(sweep),
        (attribution, _) => out += &overview::draw(attribution),
    }
    out += &cohorts(page);
    out += &warning_list(page.warnings);
    out += &contents(&sections(page));
    out.push_str("</header>");
    if let Some(attribution) = page.attribution {
        (0..attribution.dispositions.len()).for_each(|index| out += &disposition::draw(attribution, index));
        out += &across::draw(attribution);
        out += &controls::draw(attribution);
        out += &tried::draw(attribution);
    }
    if let Some(sweep) = page.sweep {
        out += &sweep::draw(sweep, page.heads_per_layer, page.attribution.is_none());
    }
    out += &examples(page.examples);
    out += &glossary::draw(page.facts, page.attribution.is_some(), page.sweep.is_some());
    out + &close()
}

/// Opens a page: the head, its title and, above it, what was examined (escaped already). A `header` is left open.
pub(super) fn open(title: &str, eyebrow: &str) -> String {
    let title = escape(title);
    format!(
        r#"<!DOCTYPE html>
        <html lang="en"><head><meta charset="utf-8"><title>{title}</title>
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <meta name="color-scheme" content="light dark"><meta http-equiv="Content-Security-Policy"
        content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
        <style>{STYLE}</style></head><body><main><header id="top"><p class="eyebrow">{eyebrow}</p><h1>{title}</h1>"#
    )
}

/// Closes a page whose header is closed.
pub(super) fn close() -> String {
    format!("</main><script>{SCRIPT}</script></body></html>\n")
}

/// Warnings as a list, each said plainly; nothing if there are none.
pub(super) fn warning_list(warnings: &[String]) -> String {
    let mut out = String::new();
    if !warnings.is_empty() {
        let title = if warnings.len() == 1 { "Warning" } else { "Warnings" };
        put!(out, r#"<div class="caution"><b>{title}</b><ul>"#);
        for warning in warnings {
            put!(out, "<li>{}</li>", escape(warning));
        }
        out.push_str("</ul></div>");
    }
    out
}

/// With fewer sections than this, a page needs no list of them.
const FEW: usize = 4;

/// A line of links to sections, by their ids and names (escaped here); nothing for a short page.
pub(super) fn contents(sections: &[(String, String)]) -> String {
    if sections.len() < FEW {
        return String::new();
    }
    let mut out = String::from(r#"<nav aria-label="On this page">"#);
    for (id, name) in sections {
        put!(out, r##"<a href="#{id}">{}</a> "##, escape(name));
    }
    out + "</nav>"
}

/// The sections of the page, in its order.
fn sections(page: &Page<'_>) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut add = |there: bool, id: &str, name: &str| out.extend(there.then(|| (id.to_owned(), name.to_owned())));
    if let Some(attribution) = page.attribution {
        let several = attribution.dispositions.len() > 1;
        for (index, one) in attribution.dispositions.iter().enumerate() {
            add(true, &format!("disposition-{index}"), if several { &one.name } else { "what was compared" });
        }
        let across = &attribution.across;
        add(!across.pairs.is_empty(), "across", "across dispositions");
        add(across.pairs.is_empty() && !across.beside.is_empty(), "across", "beside other models");
        add(!attribution.controls.is_empty(), "controls", "controls");
        add(true, "tried", "what was tried");
    }
    add(page.sweep.is_some(), "sweep", "sweep");
    add(!page.examples.is_empty(), "examples", "examples");
    add(page.facts.iter().next().is_some(), "run", "what was run");
    add(true, "columns", "glossary");
    out
}

fn subtitle(page: &Page<'_>) -> String {
    geometry(page.model, page.heads_per_layer)
}

/// A model in a line: its name, layers and heads.
pub(super) fn geometry(model: &str, columns: &[usize]) -> String {
    let with_heads = columns.iter().filter(|&&heads| heads > 0).count();
    let layers = count(columns.len(), "layer");
    let layers =
        if with_heads == columns.len() { layers } else { format!("{layers}, {with_heads} of them with heads") };
    let heads = count(columns.iter().sum(), "head");
    format!("{} · {layers} · {heads}", escape(model))
}

fn cohorts(page: &Page<'_>) -> String {
    if page.counts.is_empty() {
        return String::new();
    }
    let mut out = String::from(r#"<dl class="line">"#);
    let compared = |name: &str| {
        page.attribution
            .iter()
            .flat_map(|attribution| &attribution.dispositions)
            .any(|one| one.a == name || one.b == name)
    };
    // Cohorts by scores are not named after labels: then no label is marked as not compared.
    let by_label = page.counts.iter().any(|(name, _)| compared(name));
    for (name, n) in page.counts {
        let (class, note) =
            if compared(name) || !by_label { ("", "") } else { (r#" class="muted""#, ", not compared") };
        put!(out, "<div{class}><dt>items labelled {}{note}</dt><dd>{n}</dd></div>", escape(name));
    }
    out.push_str("</dl>");
    out
}

fn examples(examples: &[Example]) -> String {
    if examples.is_empty() {
        return String::new();
    }
    let mut out = String::from(r#"<section id="examples"><h2>Examples</h2>"#);
    for example in examples {
        put!(
            out,
            r#"<article><p class="eyebrow">{}</p><div class="prompt" dir="auto">{}</div><div class="responses">"#,
            escape(&example.id),
            escape(&example.prompt)
        );
        let first = example.responses.first();
        for (index, (arm, text)) in example.responses.iter().enumerate() {
            put!(out, r#"<div><p class="arm">{}</p>"#, escape(arm));
            match first {
                Some((label, same)) if index > 0 && same == text => {
                    put!(out, r#"<p class="muted">the same, word for word, as {}</p>"#, escape(label));
                }
                _ if text.trim().is_empty() => out.push_str(r#"<p class="muted">an empty response</p>"#),
                _ => put!(out, r#"<div class="response" dir="auto">{}</div>"#, escape(text)),
            }
            out.push_str("</div>");
        }
        out.push_str("</div></article>");
    }
    out.push_str("</section>");
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        attribution::{Control, Controlled, Disposition, Reliability},
        report::fixture,
        sweep::{
            compared::Compared,
            outcome::{BesideRandom, Difference},
        },
    };

    /// Renders a page around an attribution, with hostile text wherever there is any.
    fn page(attribution: &Attribution, sweep: Option<&Outcomes>) -> String {
        let hostile = "</script><script>alert(1)</script><img src=x onerror='a'>&\"".to_owned();
        let example = Example {
            id: hostile.clone(),
            prompt: hostile.clone(),
            responses: vec![
                (hostile.clone(), hostile.clone()),
                ("λ=0".to_owned(), hostile.clone()),
                ("empty".to_owned(), " ".to_owned()),
            ],
        };
        render(&Page {
            title: &hostile,
            facts: &Facts::default().with("command", hostile.clone()),
            counts: &[("cw".to_owned(), 78), ("hr".to_owned(), 2)],
            warnings: std::slice::from_ref(&hostile),
            model: &hostile,
            heads_per_layer: &attribution.heads_per_layer,
            attribution: Some(attribution),
            sweep,
            examples: &[example],
        })
    }

    /// Every opened element is closed, in order.
    fn assert_balanced(html: &str) {
        let mut open: Vec<&str> = Vec::new();
        for tag in html.split('<').skip(1) {
            let end = tag.find('>').expect("every tag ends");
            let name = tag.split(|c: char| c.is_whitespace() || c == '>' || c == '/').find(|part| !part.is_empty());
            let name = name.expect("every tag has a name");
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "closes something else: <{tag}");
            } else if !tag[..end].ends_with('/') && !matches!(name, "meta" | "!DOCTYPE") {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "left open: {open:?}");
    }

    /// Every link of the page leads somewhere on it.
    fn assert_linked(html: &str) {
        for link in html.split("href=\"#").skip(1) {
            let id = link.split('"').next().unwrap_or_default();
            assert!(html.contains(&format!(" id=\"{id}\"")), "nothing is called {id}");
        }
    }

    /// Well-formed, escaped, without bare floats, and nothing is loaded.
    pub(in crate::report) fn assert_sound(html: &str) {
        let html = &html.replace(SCRIPT, "");
        assert_balanced(html);
        assert_linked(html);
        assert!(!html.contains("NaN") && !html.contains(">inf"), "a bare float");
        assert!(html.matches("<script").count() == 1 && !html.contains("<img"), "unescaped text");
        assert!(!html.contains(" src=x onerror=&#39;a&#39;>") && !html.contains("url("), "a resource");
        let links = html.match_indices("href=").all(|(at, _)| html[at..].starts_with("href=\"#"));
        assert!(links && !html.contains("://") && !html.contains("<link") && !html.contains("@import"));
    }

    #[test]
    fn a_whole_page_is_well_formed_and_escaped() {
        let sweep = fixture::sweep();
        let html = page(&fixture::attribution(&[3, 3, 3]), Some(&sweep));
        assert_sound(&html);
        assert!(html.contains("the same, word for word, as") && html.contains("an empty response"));
        assert!(html.contains("items labelled hr, not compared") && !html.contains("cw, not compared"));
        assert!(html.contains("No evidence for any of them.") && html.contains("class=\"sweep\""));
        let (_, nav) = html.split_once("<nav").expect("a long page lists its sections");
        assert!(["#sweep", "#examples", "#columns"].iter().all(|id| nav.contains(id)));
    }

    #[test]
    fn no_sweep_no_section() {
        let html = page(&fixture::attribution(&[2]), None);
        assert_sound(&html);
        assert!(!html.contains("class=\"sweep\""));
    }

    #[test]
    fn a_sweep_alone_is_a_page() {
        for sweep in [fixture::sweep(), fixture::single_heads(&[4, 0, 30])] {
            let page = Page {
                title: "a sweep",
                facts: &Facts::default(),
                counts: &[("cw".to_owned(), 78)],
                warnings: &[],
                model: "tiny",
                heads_per_layer: &[4, 0, 30],
                attribution: None,
                sweep: Some(&sweep),
                examples: &[],
            };
            let html = render(&page);
            assert_sound(&html);
            assert!(html.contains("beyond chance") && !html.contains("No verdict"));
        }
    }

    #[test]
    fn ragged_layers_and_several_dispositions() {
        let mut attribution = fixture::attribution(&[0, 3, 1, 0, 8]);
        attribution.dispositions.push(Disposition { name: "<x>".to_owned(), ..fixture::disposition(&[0, 3, 1]) });
        attribution.dispositions.push(Disposition { heads: Vec::new(), ..fixture::disposition(&[]) });
        let html = page(&attribution, None);
        assert_sound(&html);
        assert!(html.contains("5 layers, 3 of them with heads") && html.contains("href=\"#disposition-1\""));
    }

    #[test]
    fn no_number_at_all_does_no_harm() {
        for hole in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e308, -1e308, 0.0] {
            let mut attribution = fixture::several(&[2, 1], 3);
            for one in &mut attribution.dispositions {
                fill(one, hole);
            }
            let one = &attribution.dispositions[0];
            let controlled = Controlled { name: one.name.clone(), summary: one.summary.clone() };
            let control = Control { name: "x".to_owned(), how: "y".to_owned(), dispositions: vec![controlled] };
            attribution.controls.push(control);
            for pair in &mut attribution.across.pairs {
                (pair.rho_d, pair.rho_crossfit, pair.label_correlation, pair.expected_top) = (hole, hole, hole, hole);
            }
            let mut sweep = fixture::sweep();
            for arm in &mut sweep.tables[0].arms {
                (arm.lambda, arm.accuracy, arm.assertion_rate, arm.mean_tokens) = (hole, hole, hole, hole);
                (arm.assertion_asymmetry, arm.truncated, arm.changed) = (Some(hole), hole, hole);
                for which in Compared::all(&[]) {
                    if let Some(&d) = arm.difference.of(which) {
                        let random = Some(BesideRandom { sets: 9, reach: 9, p: hole, p_max: hole, enough: 9 });
                        let (mean, low, high, p, p_max) = (hole, hole, hole, hole, Some(hole));
                        arm.difference.set(which, Some(Difference { mean, low, high, p, p_max, random, ..d }));
                    }
                }
            }
            sweep.tables[0].bands[0].range.accuracy = Some((hole, hole));
            assert_sound(&page(&attribution, Some(&sweep)));
        }
    }

    /// Puts a number wherever a disposition has one.
    fn fill(one: &mut Disposition, hole: f64) {
        for head in &mut one.heads {
            for magnitude in [&mut head.magnitude, &mut head.final_token] {
                (magnitude.mean_a, magnitude.mean_b, magnitude.delta, magnitude.cohen_d) = (hole, hole, hole, hole);
                (magnitude.p, magnitude.q, magnitude.p_max) = (hole, hole, hole);
            }
            (head.d_low, head.d_high, head.r_length, head.d_length_adjusted) = (hole, hole, hole, hole);
            (head.d_naive, head.p_naive, head.d_crossfit, head.p_directional) = (hole, hole, hole, hole);
            (head.q_directional, head.p_max_directional, head.relative_norm) = (hole, hole, hole);
            (head.d_across, head.p_across, head.p_max_across) = (hole, hole, hole);
            (head.cos_means, head.cos_centered, head.direction_norm) = (hole, hole, hole);
        }
        let summary = &mut one.summary;
        (summary.largest_d, summary.least_p_max, summary.largest_d_naive) = (hole, hole, hole);
        (summary.largest_d_crossfit, summary.least_p_max_directional) = (hole, hole);
        let null = &mut one.shuffled;
        (null.mean_abs_d, null.max_abs_d_mean, null.max_abs_d_q95) = (hole, hole, hole);
        (null.mean_d_naive, null.max_d_naive_mean, null.max_d_naive_q95) = (hole, hole, hole);
        (null.mean_d_crossfit, null.d_crossfit_q05, null.d_crossfit_q95) = (hole, hole, hole);
        (null.max_d_crossfit_mean, null.max_d_crossfit_q95) = (hole, hole);
        let row = Reliability { rho: hole, null_mean: hole, null_q95: hole, p: hole, shuffles: 9 };
        (one.stability.magnitude, one.stability.directional) = (row, row);
        (one.length.mean_a, one.length.mean_b, one.length.cohen_d, one.length.p) = (hole, hole, hole, hole);
        (one.prompts.mean_tokens_a, one.prompts.mean_tokens_b, one.prompts.cohen_d) = (hole, hole, hole);
    }

    #[test]
    fn without_shuffles_there_is_no_level() {
        let mut attribution = fixture::attribution(&[2]);
        attribution.dispositions[0].shuffled.shuffles = 0;
        let html = page(&attribution, None);
        assert_sound(&html);
        assert!(html.contains("Labels were not shuffled.") && !html.contains("class=\"level"));
        assert!(html.contains("no level to compare with"));
    }
}
