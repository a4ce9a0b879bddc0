//! What the rankings of several dispositions, and of other models, have in common.

use crate::{
    attribution::{Across, Attribution},
    report::{
        rank_matrix,
        text::{NARROW, escape, fixed, p_value, put, signed, wide},
    },
};

/// Most heads that are listed as recurring at the top.
const RECURRING: usize = 20;

/// The section; nothing for one disposition of one model.
pub(super) fn draw(attribution: &Attribution) -> String {
    let across = &attribution.across;
    if across.pairs.is_empty() && across.beside.is_empty() {
        return String::new();
    }
    let alone = across.pairs.is_empty();
    let title = if alone { "Beside other models" } else { "Across dispositions" };
    let mut out = format!(r#"<section id="across"><h2>{title}</h2>"#);
    if !alone {
        out.push_str(
            "<p>Two dispositions rank heads alike when they find the same, or when they split the items alike. Read the \
            agreement of their rankings against the agreement of their labels: what follows the labels is nothing new. p: how \
            often they agree as far when the labels of one are shuffled; none where items are in both, whose noise both rankings \
            hold.</p>",
        );
        out += r#"<div class="beside">"#;
        out += &rank_matrix::draw(attribution);
        put!(out, r#"<div class="prose">{}</div></div>"#, recurring(across));
        out += &pairs(across);
    }
    if !alone && !across.beside.is_empty() {
        out.push_str("<h3>Beside other models</h3>");
    }
    out += &beside(across);
    out + "</section>"
}

fn pairs(across: &Across) -> String {
    let mut out = format!(
        r#"{}<thead><tr class="span"><td></td><td></td>
        <th colspan="4" scope="colgroup" class="gap">rank correlation</th>
        <th colspan="2" scope="colgroup" class="gap">labels</th>
        <th colspan="2" scope="colgroup" class="gap">in both tops of {}</th></tr>
        <tr><th scope="col">one</th><th scope="col" class="word">other</th><th scope="col" class="gap">of d</th>
        <th scope="col">p</th><th scope="col">of d held out</th><th scope="col">p</th><th scope="col" class="gap">correlation</th><th scope="col">items in both</th>
        <th scope="col" class="gap">heads</th><th scope="col">by chance</th></tr></thead><tbody>"#,
        wide("Pairs of dispositions", "sort pairs"),
        across.top
    );
    for pair in &across.pairs {
        put!(
            out,
            r#"<tr><th scope="row">{}</th><td class="word">{}</td><td class="gap">{}</td><td>{}</td>
            <td>{}</td><td>{}</td><td class="gap">{}</td><td>{}</td><td class="gap">{}</td><td>{}</td></tr>"#,
            escape(&pair.first),
            escape(&pair.second),
            signed(pair.rho_d, 2),
            p_value(pair.p_rho_d),
            signed(pair.rho_crossfit, 2),
            p_value(pair.p_rho_crossfit),
            signed(pair.label_correlation, 2),
            pair.shared_items,
            pair.shared_top,
            fixed(pair.expected_top, 1)
        );
    }
    out + "</tbody>" + NARROW
}

/// Heads at the top of several dispositions.
fn recurring(across: &Across) -> String {
    if across.recurring.is_empty() {
        return format!("<p>No head stands at the top ({} loudest) of two dispositions.</p>", across.top);
    }
    let mut out = format!(
        "<h3>Heads at the top of several</h3><p class=\"note\">Among the {} loudest, whatever their verdict.</p>",
        across.top
    );
    out.push_str(r#"<dl class="facts">"#);
    for one in across.recurring.iter().take(RECURRING) {
        put!(out, "<dt>{}</dt><dd>{}</dd>", escape(&one.head), escape(&one.dispositions.join(", ")));
    }
    out.push_str("</dl>");
    if across.recurring.len() > RECURRING {
        put!(out, r#"<p class="note">and {} more</p>"#, across.recurring.len() - RECURRING);
    }
    out
}

/// The same dispositions in other models.
fn beside(across: &Across) -> String {
    if across.beside.is_empty() {
        return String::new();
    }
    let mut out = wide("Beside other models", "small");
    out.push_str(
        r#"<thead><tr><th scope="col">disposition</th>
        <th scope="col" class="word">model</th><th scope="col">heads</th><th scope="col">rank correlation of d</th>
        <th scope="col">of d held out</th></tr></thead><tbody>"#,
    );
    for one in &across.beside {
        let (name, model) = (escape(&one.name), escape(&one.model));
        put!(out, r#"<tr><th scope="row">{name}</th><td class="word">{model}</td>"#);
        out += &match &one.incomparable {
            Some(why) => format!(r#"<td colspan="3" class="word muted">not comparable: {}</td></tr>"#, escape(why)),
            None => format!(
                "<td>{}</td><td>{}</td><td>{}</td></tr>",
                one.heads,
                signed(one.rho_d, 2),
                signed(one.rho_crossfit, 2)
            ),
        };
    }
    out.push_str("</tbody>");
    out.push_str(NARROW);
    out + r#"<p class="note">Models that read the same items share their noise, and rank alike where nothing is: no p.</p>"#
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        attribution::{Beside, Recurring},
        report::fixture,
    };

    #[test]
    fn one_disposition_of_one_model_has_nothing_across() {
        assert!(draw(&fixture::attribution(&[3])).is_empty());
    }

    #[test]
    fn pairs_recurring_heads_and_other_models() {
        let mut attribution = fixture::several(&[3], 3);
        attribution.across.recurring = (0..22)
            .map(|head| Recurring { head: format!("L0H{head}"), dispositions: vec!["a".into(), "<b>".into()] })
            .collect();
        let beside = |incomparable: Option<String>| Beside {
            model: "<other>".into(),
            name: "x".into(),
            heads: 3,
            rho_d: f64::NAN,
            rho_crossfit: 0.5,
            incomparable,
        };
        attribution.across.beside = vec![beside(None), beside(Some("9 heads & 3".into()))];
        let out = draw(&attribution);
        assert_eq!(out.matches("<tr><th scope=\"row\">").count(), 3 + 2);
        assert!(
            out.contains("and 2 more")
                && out.contains("a, &lt;b&gt;")
                && out.contains("not comparable: 9 heads &amp; 3")
        );
        assert!(out.contains("<h2>Across") && out.contains("<h3>Beside other models</h3>"));
        let mut one = fixture::attribution(&[3]);
        one.across.beside = vec![beside(None)];
        let one = draw(&one);
        assert!(one.contains("<h2>Beside other models</h2>") && !one.contains("<h3>"));
        attribution.across.recurring.clear();
        assert!(draw(&attribution).contains("No head stands at the top"));
    }
}
