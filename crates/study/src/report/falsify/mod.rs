//! The report of a falsification: whether a probe's success on its training items carries over to fresh ones.
//!
//! Each file draws one part of the page, from the verdict down to what was fixed beforehand.

mod axes;
mod baselines;
mod calibration;
mod chart;
mod collapse;
mod fixed;
mod gate;
mod matrix;
mod plane;
mod steps;
mod top;
mod words;

#[cfg(test)]
mod fixture;

use crate::{
    falsify::{Falsification, Outcome, word},
    probe::FeatureSource,
    report::{glossary, html, text::escape},
};

/// The whole page: one HTML file that loads nothing, and reads the same without its script.
pub(crate) fn falsify(found: &Falsification) -> String {
    let mut out = top::draw(found);
    out += &collapse::draw(found);
    out += &steps::draw(found);
    out += &gate::draw(found);
    out += &axes::draw(found);
    out += &plane::draw(&found.plane);
    out += &baselines::draw(found);
    out += &fixed::draw(found);
    out += &glossary::sections(&fixed::origins(found), &words::GLOSSARY);
    out + &html::close()
}

/// An outcome as a word, with its mark before it.
fn marked(outcome: Outcome) -> String {
    format!(r#"<span class="{}">{}</span>"#, mark(outcome), word(outcome))
}

/// The class that puts an outcome's mark before a text. The marks differ in shape, and the word stands beside them.
fn mark(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "m-passed",
        Outcome::Failed => "m-failed",
        Outcome::Inconclusive => "m-inconclusive",
        Outcome::NotRun => "m-omitted",
    }
}

/// The first characters of a name that is too long for its place, escaped.
fn shortened(name: &str, most: usize) -> String {
    if name.chars().count() <= most {
        return escape(name);
    }
    let start: String = name.chars().take(most - 1).collect();
    escape(&(start + "…"))
}

/// A source of features without its folders.
fn without_folders(source: &FeatureSource) -> String {
    let text = source.to_string();
    match (source.path.file_name(), source.path.parent()) {
        (Some(_), Some(folder)) => {
            let folder = folder.display().to_string();
            text.strip_prefix(&folder).unwrap_or(&text).trim_start_matches(['/', '\\']).to_owned()
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::{fixture::HOSTILE, *};
    use crate::report::html::tests::assert_sound;

    fn page(found: &Falsification) -> String {
        let html = falsify(found);
        assert_sound(&html);
        html
    }

    #[test]
    fn a_whole_page_is_well_formed_and_escaped() {
        let html = page(&fixture::whole(3));
        for id in ["collapse", "steps", "gate", "axes", "plane", "baselines", "fixed", "run", "columns"] {
            assert!(html.contains(&format!("<section id=\"{id}\"")), "{id}");
        }
        assert!(!html.contains(HOSTILE) && html.contains("Single output distribution"), "{html}");
        assert!(html.contains("m-failed") && html.contains("m-passed") && html.contains("m-omitted"));
    }

    #[test]
    fn no_number_at_all_does_no_harm() {
        for hole in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e308, -1e308, 0.0] {
            let mut found = fixture::whole(4);
            fixture::fill(&mut found, hole);
            page(&found);
        }
    }

    #[test]
    fn what_was_not_run_leaves_no_trace() {
        let mut found = fixture::whole(0);
        (found.pooled, found.replication) = (None, None);
        (found.cv_null, found.fresh_null) = (None, None);
        (found.failure_modes, found.baselines) = (Vec::new(), Vec::new());
        let html = page(&found);
        assert!(!html.contains("<section id=\"axes\"") && !html.contains("<section id=\"baselines\""));
        assert!(html.contains("No labels were shuffled"));
    }

    #[test]
    fn fresh_items_of_one_class_rank_nothing() {
        let mut found = fixture::whole(0);
        (found.fresh.positives, found.fresh_null, found.verdict) = (0, None, Outcome::Inconclusive);
        found.baselines.clear();
        found.plane.labels.fill(false);
        let hole = f64::NAN;
        for result in &mut found.transfer {
            (result.measured.auc, result.measured.positives, result.measured.best) = (hole, 0, None);
            result.measured.auc_delong = crate::probe::Ends { low: hole, high: hole };
            result.train_chosen = None;
        }
        let html = page(&found);
        assert!(html.contains("of one class") && html.contains("Inconclusive"));
    }

    #[test]
    fn many_axes_and_hardly_any_points() {
        for axes in [1, 2, 12, 60] {
            let mut found = fixture::whole(axes);
            found.plane.points.truncate(axes % 3);
            let html = page(&found);
            assert_eq!(html.contains("<section id=\"plane\""), axes % 3 > 0);
        }
    }

    #[test]
    fn names_are_cut_at_characters() {
        assert_eq!(shortened("日本日本日", 4), "日本日…");
        let source: FeatureSource = "/a/b/train.npz:h_layers[-4:]".parse().unwrap();
        assert_eq!(without_folders(&source), "train.npz:h_layers[-4:]");
    }
}
