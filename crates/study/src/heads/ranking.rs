//! The first heads of an attribution, by either of its two questions.

use std::{fmt, str::FromStr};

use headtemper_hook::{HeadKind, HeadRef, ModelSpec};
use serde::{Deserialize, Serialize, Serializer};

use crate::{
    Compat,
    attribution::{Attribution, HeadEffect, KindWords, Verdict},
    store::nan::{number, unwritten},
    text::some_of,
};

/// Which of the two questions of an attribution ranks its heads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RankBy {
    /// How much louder a head is in one cohort, or the other: |Cohen's d|; d itself in what was made as the paper's scripts make it.
    #[default]
    Magnitude,
    /// How far apart its z lies on held-out items: the cross-fitted d, which is above 0 where it does.
    Direction,
}

impl RankBy {
    /// The number that ranks a head, the largest first; NaN where there is none.
    pub(crate) fn of(self, cohen_d: f64, d_crossfit: f64, compat: Compat) -> f64 {
        match self {
            Self::Magnitude if compat.signed() => cohen_d,
            Self::Magnitude => cohen_d.abs(),
            Self::Direction => d_crossfit,
        }
    }
}

/// How many heads to take from the top of a ranking, and which: `5`, or `5:direction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopHeads {
    /// How many.
    pub count: usize,
    /// What ranks them.
    pub by: RankBy,
}

impl FromStr for TopHeads {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (count, by) = match text.split_once(':') {
            None => (text, RankBy::Magnitude),
            Some((count, "magnitude")) => (count, RankBy::Magnitude),
            Some((count, "direction")) => (count, RankBy::Direction),
            Some((_, other)) => return Err(format!("'{other}' must be magnitude or direction")),
        };
        let count = count.parse().map_err(|_| format!("'{count}' is no number of heads, such as 5 or 5:direction"))?;
        Ok(Self { count, by })
    }
}

impl fmt::Display for TopHeads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.by {
            RankBy::Magnitude => write!(f, "{}", self.count),
            RankBy::Direction => write!(f, "{}:direction", self.count),
        }
    }
}

impl Serialize for TopHeads {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.by {
            // As it was before there was another way to rank: keys of earlier runs stay.
            RankBy::Magnitude => self.count.serialize(to),
            RankBy::Direction => to.collect_str(self),
        }
    }
}

/// What is read of an attribution to rank heads: other programs may write it too.
#[derive(Deserialize)]
pub(super) struct Ranking {
    #[serde(default)]
    method: RankedBy,
    #[serde(default)]
    model: String,
    #[serde(default)]
    weights_sha256: String,
    #[serde(default)]
    heads_per_layer: Vec<usize>,
    dispositions: Vec<RankedDisposition>,
}

#[derive(Deserialize, Default)]
struct RankedBy {
    #[serde(default)]
    compat: Compat,
}

#[derive(Deserialize)]
struct RankedDisposition {
    #[serde(default)]
    name: String,
    heads: Vec<RankedHead>,
}

#[derive(Deserialize)]
struct RankedHead {
    layer: usize,
    head: usize,
    #[serde(default, with = "KindWords")]
    kind: HeadKind,
    #[serde(deserialize_with = "number")]
    cohen_d: f64,
    /// NaN where another program has none.
    #[serde(default = "unwritten", deserialize_with = "number")]
    d_crossfit: f64,
    #[serde(default)]
    verdict: Option<Verdict>,
}

impl RankedHead {
    fn at(&self) -> HeadRef {
        HeadRef { layer: self.layer, head: self.head, kind: self.kind }
    }
}

impl Ranking {
    /// The first heads of a disposition, the first disposition if none is named.
    pub(super) fn top(&self, name: Option<&str>, top: TopHeads) -> Result<Vec<HeadRef>, String> {
        let size = |head: &RankedHead| top.by.of(head.cohen_d, head.d_crossfit, self.method.compat);
        first(self.disposition(name)?.heads.iter().map(|head| (head.at(), size(head))).collect(), top)
    }

    fn disposition(&self, name: Option<&str>) -> Result<&RankedDisposition, String> {
        match name {
            None => self.dispositions.first().ok_or_else(|| "it ranks no heads".into()),
            Some(name) => self.dispositions.iter().find(|d| d.name == name).ok_or_else(|| {
                let names: Vec<&str> = self.dispositions.iter().map(|d| d.name.as_str()).collect();
                format!("it has no disposition '{name}', but {}", names.join(", "))
            }),
        }
    }

    /// Refuses a ranking of a model with other heads, where the file says what its model has.
    pub(super) fn check(&self, spec: &ModelSpec) -> Result<(), String> {
        let here: Vec<usize> = spec.layers.iter().map(|layer| layer.heads.count).collect();
        if self.heads_per_layer.is_empty() || self.heads_per_layer == here {
            return Ok(());
        }
        let of = |heads: &[usize]| format!("{} heads in {} layers", heads.iter().sum::<usize>(), heads.len());
        Err(format!("it ranks {} of {}, but this model has {}", of(&self.heads_per_layer), self.model, of(&here)))
    }

    /// What the user should know about these heads: that the attribution found nothing in them, or is of other weights.
    pub(super) fn remarks(&self, name: Option<&str>, chosen: &[HeadRef], weights_sha256: &str) -> Vec<String> {
        let mut out = Vec::new();
        if !self.weights_sha256.is_empty() && self.weights_sha256 != weights_sha256 {
            out.push(format!("it ranks heads of {}, whose weights are others", self.model));
        }
        let heads = self.disposition(name).map_or(&[][..], |disposition| &disposition.heads);
        out.extend(without(heads.iter().map(|head| (head.at(), head.verdict)), chosen));
        out
    }
}

/// Says in how many of these heads an attribution found nothing, and of how many it has no verdict, if of any.
fn without(heads: impl Iterator<Item = (HeadRef, Option<Verdict>)>, chosen: &[HeadRef]) -> Option<String> {
    let (mut nothing, mut untested) = (Vec::new(), Vec::new());
    for (at, verdict) in heads.filter(|(at, _)| chosen.contains(at)) {
        match verdict {
            Some(Verdict::VarianceArtefact | Verdict::NoEvidence) => nothing.push(at.to_string()),
            Some(Verdict::Untested) => untested.push(at.to_string()),
            Some(Verdict::Separable | Verdict::MagnitudeOnly) | None => {}
        }
    }
    let told = |heads: &[String], what: &str, why: &str| {
        let names = some_of(heads, NAMED);
        (!heads.is_empty()).then(|| format!("it {what} {} of these {} heads ({names}){why}", heads.len(), chosen.len()))
    };
    let both = [
        told(&nothing, "found nothing in", ": shuffled labels give as much"),
        told(&untested, "has no verdict on", ""),
    ];
    both.into_iter().flatten().reduce(|one, other| format!("{one}; {other}"))
}

/// What must be known of heads that are the top of this attribution: that it found nothing in them.
pub(crate) fn top_remarks(report: &Attribution, chosen: &[HeadRef]) -> Option<String> {
    let heads = report.dispositions.first()?.heads.iter();
    without(heads.map(|head| (head.at(), Some(head.verdict))), chosen)
}

/// The most heads that a remark names.
const NAMED: usize = 5;

/// The first heads of the first disposition.
pub(crate) fn top(report: &Attribution, top: TopHeads) -> Result<Vec<HeadRef>, String> {
    let disposition = report.dispositions.first().ok_or("it ranks no heads")?;
    let size = |head: &HeadEffect| top.by.of(head.magnitude.cohen_d, head.d_crossfit, report.method.compat);
    first(disposition.heads.iter().map(|head| (head.at(), size(head))).collect(), top)
}

/// The heads with the largest numbers, in the order of the model.
fn first(mut heads: Vec<(HeadRef, f64)>, top: TopHeads) -> Result<Vec<HeadRef>, String> {
    heads.retain(|(_, size)| size.is_finite());
    heads.sort_by(|a, b| b.1.total_cmp(&a.1));
    if top.count == 0 {
        return Err(format!("top:{top} names no head, but must name at least 1"));
    }
    if top.count > heads.len() {
        let by = if top.by == RankBy::Direction { " by direction" } else { "" };
        return Err(format!("it ranks {} heads{by}, so top:{top} does not exist", heads.len()));
    }
    let mut chosen: Vec<_> = heads[..top.count].iter().map(|(at, _)| *at).collect();
    chosen.sort();
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn either_question_ranks() {
        let head = |head: usize, d: f64, crossfit: Option<f64>| json!({"layer": 0, "head": head, "cohen_d": d, "d_crossfit": crossfit});
        let heads = [head(0, -0.9, Some(0.1)), head(1, 0.5, Some(1.5)), head(2, 0.1, Some(-2.0)), head(3, 0.2, None)];
        let of = |compat: &str| -> Ranking {
            serde_json::from_value(json!({"method": {"compat": compat}, "dispositions": [{"heads": heads}]})).unwrap()
        };
        let top = |compat: &str, text: &str| {
            let found = of(compat).top(None, text.parse().unwrap())?;
            Ok::<Vec<usize>, String>(found.iter().map(|at| at.head).collect())
        };
        assert_eq!(top("none", "2"), Ok(vec![0, 1]));
        assert_eq!(top("none", "2:magnitude"), Ok(vec![0, 1]));
        // A cross-fitted d below 0 is no direction, however far below.
        assert_eq!(top("none", "2:direction"), Ok(vec![0, 1]));
        assert_eq!(top("none", "1:direction"), Ok(vec![1]));
        assert_eq!(top("dd", "2"), Ok(vec![1, 3]));
        let why = "it ranks 3 heads by direction, so top:4:direction does not exist";
        assert_eq!(top("none", "4:direction"), Err(why.into()));
        assert!(top("none", "0").is_err() && top("none", "5").is_err());
    }

    #[test]
    fn tops_are_read_as_they_are_written() {
        for text in ["5", "12:direction"] {
            assert_eq!(text.parse::<TopHeads>().unwrap().to_string(), text);
        }
        for (text, why) in [("five", "'five' is no number"), ("5:loudness", "magnitude or direction"), ("", "'' is no")]
        {
            assert!(text.parse::<TopHeads>().unwrap_err().contains(why), "{text}");
        }
        let keys = ["5", "5:direction"].map(|text| json!(text.parse::<TopHeads>().unwrap()));
        assert_eq!(keys, [json!(5), json!("5:direction")]);
    }
}
