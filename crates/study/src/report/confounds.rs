//! What else the cohorts differ in: the length of responses, truncation, prompts.

use crate::{
    attribution::{Attribution, Disposition, FieldCheck},
    report::{
        dumbbell,
        text::{NARROW, UNDEFINED, count, escape, fixed, p_value, percent, put, signed, wide},
        verdict::{Question, stands_out},
    },
    significance::LEVEL,
};

/// The table of both cohorts, what it means for the heads, and the loudest heads with length taken out.
pub(super) fn draw(attribution: &Attribution, disposition: &Disposition) -> String {
    let mut out = String::from(r#"<div class="beside"><div class="prose">"#);
    out += &table(disposition);
    put!(out, "<p>{}</p><p>{} {}</p></div>", lengths(disposition), prompts(disposition), fields(disposition));
    if let Some(drawn) = dumbbell::draw(attribution, disposition) {
        put!(
            out,
            "<figure><figcaption><b>The loudest heads, with and without length.</b></figcaption>{drawn}</figure>"
        );
    }
    out + "</div>"
}

/// Both cohorts, and how far apart they are.
fn table(disposition: &Disposition) -> String {
    let (length, prompts) = (&disposition.length, &disposition.prompts);
    let cut = |truncated: usize, known: usize, n: usize| match known {
        0 => "not known".to_owned(),
        _ if known == n => format!("{truncated} ({} %)", percent(truncated as f64 / n as f64)),
        _ => format!("{truncated} of {known} known ({} %)", percent(truncated as f64 / known as f64)),
    };
    let none = String::new;
    let rows = [
        ("items", [disposition.n_a.to_string(), disposition.n_b.to_string(), none(), none()]),
        (
            "response tokens, mean",
            [fixed(length.mean_a, 1), fixed(length.mean_b, 1), signed(length.cohen_d, 2), p_value(length.p)],
        ),
        (
            "cut off",
            [
                cut(length.truncated_a, length.ends_known_a, disposition.n_a),
                cut(length.truncated_b, length.ends_known_b, disposition.n_b),
                none(),
                none(),
            ],
        ),
        (
            "prompt tokens, mean",
            [
                fixed(prompts.mean_tokens_a, 1),
                fixed(prompts.mean_tokens_b, 1),
                signed(prompts.cohen_d, 2),
                p_value(prompts.p),
            ],
        ),
        ("different prompts", [prompts.distinct_a.to_string(), prompts.distinct_b.to_string(), none(), none()]),
    ];
    let mut out = format!(
        r#"{}<thead><tr><th scope="col">cohort</th><th scope="col">{}</th><th scope="col">{}</th>
        <th scope="col">d</th><th scope="col">p</th></tr></thead><tbody>"#,
        wide("Length and prompts of the cohorts", "small"),
        escape(&disposition.a),
        escape(&disposition.b)
    );
    for (name, cells) in rows {
        put!(out, r#"<tr><th scope="row">{name}</th>"#);
        for cell in &cells {
            put!(out, "<td>{cell}</td>");
        }
        out.push_str("</tr>");
    }
    out + "</tbody>" + NARROW
}

/// Whether the heads say more than the length.
fn lengths(disposition: &Disposition) -> String {
    let length = &disposition.length;
    if !length.cohen_d.is_finite() {
        return "The d of the response lengths is undefined: length could not be checked.".to_owned();
    }
    let mut out = match length.only_by_length {
        0 if !disposition.heads.iter().any(|head| stands_out(head, Question::Magnitude)) => {
            "No head is louder.".to_owned()
        }
        0 => "Every head that is louder still is once length is taken out of the norms.".to_owned(),
        1 => r#"<b class="warn">1 head is louder no more once length is taken out of the norms</b>.
            <code>--adjust length</code> takes it out of directions too."#
            .to_owned(),
        n => format!(
            r#"<b class="warn">{n} heads are louder no more once length is taken out of the norms</b>.
            <code>--adjust length</code> takes it out of directions too."#
        ),
    };
    if length.ranking_r.is_finite() && length.ranking_p.is_finite() {
        let (r, p) = (signed(length.ranking_r, 2), p_value(length.ranking_p));
        put!(out, " Over all heads, d goes with r, a head's correlation with length, at {r} (p {p}): ");
        out.push_str(match length.ranking_r.abs() {
            _ if length.ranking_p > LEVEL => "no more than under shuffled labels.",
            x if x > 0.7 => "the ranking is largely one of how heads follow length.",
            _ => "part of the ranking is one of how heads follow length.",
        });
    }
    out
}

/// Whether the cohorts were asked the same questions.
fn prompts(disposition: &Disposition) -> String {
    let prompts = &disposition.prompts;
    if prompts.distinct_a + prompts.distinct_b == 0 {
        return format!("Prompts: {UNDEFINED}");
    }
    let shared = match prompts.shared {
        0 => "No prompt stands in both cohorts: they answer different questions.".to_owned(),
        1 => "1 prompt stands in both cohorts.".to_owned(),
        n => format!("{n} prompts stand in both cohorts."),
    };
    let repeated = match prompts.repeated {
        0 => " None is repeated.".to_owned(),
        n => format!(" {} a prompt with another, and are not independent.", verb(n)),
    };
    shared + &repeated
}

/// Which other fields of the items vary with the cohorts.
fn fields(disposition: &Disposition) -> String {
    if disposition.fields.is_empty() {
        return match disposition.fields_checked {
            0 => "No other field of the items was looked at.".to_owned(),
            1 => "The one other field of the items does not go with the cohorts.".to_owned(),
            n => format!("None of the {n} other fields of the items goes with the cohorts."),
        };
    }
    let one = |field: &FieldCheck| {
        let (v, p) = (fixed(field.cramers_v, 2), p_value(field.p));
        format!("{} (Cramér's V {v}, p {p})", escape(&field.field))
    };
    let names: Vec<String> = disposition.fields.iter().map(one).collect();
    let verb = if names.len() == 1 { "goes" } else { "go" };
    format!(r#"<b class="warn">{} {verb} with the cohorts</b>: what separates them may be that."#, names.join(", "))
}

fn verb(n: usize) -> String {
    if n == 1 { "1 item shares".to_owned() } else { format!("{} share", count(n, "item")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn a_ranking_by_length_is_said() {
        let mut disposition = fixture::disposition(&[9]);
        assert!(lengths(&disposition).starts_with("No head is louder"));
        disposition.length.only_by_length = 2;
        (disposition.length.ranking_r, disposition.length.ranking_p) = (-1.0, 0.3);
        assert!(lengths(&disposition).contains("at −1.00 (p 0.300): no more than under shuffled labels"));
        disposition.length.ranking_p = 0.01;
        let text = lengths(&disposition);
        assert!(
            text.contains("2 heads are louder no more once length")
                && text.contains("at −1.00 (p 0.010): the ranking is largely")
        );
        disposition.length.cohen_d = f64::NAN;
        assert!(lengths(&disposition).contains("could not be checked"));
    }

    #[test]
    fn what_is_not_known_is_not_a_number() {
        let mut disposition = fixture::disposition(&[2]);
        assert_eq!(table(&disposition).matches("not known").count(), 0);
        (disposition.length.ends_known_a, disposition.length.ends_known_b) = (0, 5);
        let out = table(&disposition);
        assert!(out.matches("not known").count() == 1 && out.contains("1 of 5 known (20.0 %)"), "{out}");
        (disposition.n_a, disposition.length.p) = (0, f64::NAN);
        assert!(!table(&disposition).contains("NaN"));
    }

    #[test]
    fn fields_that_go_with_the_cohorts_are_named() {
        let mut disposition = fixture::disposition(&[2]);
        assert_eq!(fields(&disposition), "None of the 2 other fields of the items goes with the cohorts.");
        let field = |name: &str, v| FieldCheck { field: name.into(), values: 3, cramers_v: v, p: 0.001 };
        disposition.fields = vec![field("<topic>", 0.5), field("level", f64::NAN)];
        let text = fields(&disposition);
        assert!(text.contains("&lt;topic&gt; (Cramér's V 0.50, p 0.001), level (Cramér's V –"), "{text}");
    }

    #[test]
    fn prompts_are_counted_in_words() {
        let mut disposition = fixture::disposition(&[2]);
        assert!(prompts(&disposition).ends_with("None is repeated."));
        (disposition.prompts.shared, disposition.prompts.repeated) = (3, 6);
        assert_eq!(
            prompts(&disposition),
            "3 prompts stand in both cohorts. 6 items share a prompt with another, and are not independent."
        );
    }
}
