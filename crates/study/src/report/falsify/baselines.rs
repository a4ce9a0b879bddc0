//! What is reached without hidden states, or without labels that mean anything.

use crate::{
    falsify::{Baseline, Falsification},
    report::text::{NARROW, count, escape, fixed, interval, put, signed, wide},
    text::listed,
};

/// The section; nothing if none was run.
pub(super) fn draw(found: &Falsification) -> String {
    if found.baselines.is_empty() {
        return String::new();
    }
    let mut out = format!(
        r#"<section id="baselines"><h2>What needs no hidden state</h2><p class="lead">The same fit on random numbers, on lengths,
        cut-off ends and words, and on labels dealt out at random. What they reach as well needs no model to explain it.</p>
        <p class="story">{}</p>{}<thead><tr><th scope="col">baseline</th>
        <th scope="col">cross-validated AUC</th><th scope="col">fresh AUC</th><th scope="col" class="gap">the probe's gain</th>
        <th scope="col">95 % (DeLong)</th><th scope="col" class="word gap">reads</th></tr></thead><tbody>"#,
        escape(&story(found)),
        wide("Baselines", "overview")
    );
    found.baselines.iter().for_each(|baseline| out += &row(baseline));
    out + "</tbody>" + NARROW + "</section>"
}

/// Which baselines the probe beats, and which of them clearly.
fn story(found: &Falsification) -> String {
    let to_beat: Vec<&Baseline> = found.baselines.iter().filter(|baseline| baseline.to_beat).collect();
    if to_beat.is_empty() {
        return "No baseline was run that the probe would have to beat.".to_owned();
    }
    let names = |of: &[&Baseline]| listed(&of.iter().map(|baseline| baseline.name.as_str()).collect::<Vec<_>>());
    let of = |which: &dyn Fn(&Baseline) -> bool| to_beat.iter().copied().filter(|one| which(one)).collect::<Vec<_>>();
    let (beaten, rest) = (of(&|one| one.gain > 0.0), of(&|one| one.gain.is_nan() || one.gain <= 0.0));
    let close = of(&|one| one.gain > 0.0 && one.gain_range.low <= 0.0);
    let worse = of(&|one| one.gain_range.high < 0.0);
    let all = count(to_beat.len(), "baseline");
    let mut out = match (beaten.len(), rest.len()) {
        (_, 0) => format!("On fresh items the probe ranks better than {}", names(&beaten)),
        (0, _) => format!("On fresh items the probe ranks no better than {}", names(&rest)),
        (n, _) => {
            format!("On fresh items the probe ranks better than {n} of {all}, and no better than {}", names(&rest))
        }
    };
    out.push('.');
    if !worse.is_empty() {
        put!(out, " It is clearly behind {}.", names(&worse));
    }
    if !close.is_empty() {
        put!(out, " Ahead of {}, it may be by chance: the interval of its gain holds 0.", names(&close));
    }
    let required = if found.declared.gates.beat_baselines { "" } else { " The gates do not ask for it." };
    out + required
}

fn row(baseline: &Baseline) -> String {
    let interval = interval(baseline.gain_range.low, baseline.gain_range.high, 3);
    format!(
        r#"<tr><th scope="row">{}</th><td>{}</td><td>{}</td><td class="gap">{}</td><td>{interval}</td>
        <td class="word gap muted">{}</td></tr>"#,
        escape(baseline.name.as_str()),
        fixed(baseline.cv_auc, 3),
        fixed(baseline.fresh_auc, 3),
        signed(baseline.gain, 3),
        escape(&baseline.what)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{falsify::BaselineName, report::falsify::fixture};

    #[test]
    fn a_gain_that_may_be_chance_is_said_to_be() {
        let mut found = fixture::whole(0);
        let ahead = |found: &mut Falsification, at: usize, gain: f64, low: f64| {
            (found.baselines[at].gain, found.baselines[at].gain_range.low) = (gain, low);
        };
        ahead(&mut found, 1, 0.2, 0.1);
        ahead(&mut found, 2, 0.1, -0.1);
        ahead(&mut found, 3, f64::NAN, f64::NAN);
        assert_eq!(found.baselines[1].name, BaselineName::RandomFeatures);
        let text = story(&found);
        assert!(
            text.starts_with("On fresh items the probe ranks better than 2 of 3 baselines, and no better"),
            "{text}"
        );
        assert!(text.contains("Ahead of length, it may be by chance"), "{text}");
        found.baselines.truncate(1);
        assert!(story(&found).starts_with("No baseline was run"));
    }
}
