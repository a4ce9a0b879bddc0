//! Which heads get which λ: data, parsed strictly, with no model in sight.

use std::{collections::BTreeMap, fmt};

use serde::Deserialize;

use crate::{HeadKind, HeadRef, ModelSpec, Positions};

/// Which heads get which λ for one row of a batch, and at which positions. 1 leaves a head untouched, 0 ablates it.
///
/// A head that is listed at λ = 1 is part of the plan: the hook fires for it, and changes nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeadPlan {
    heads: BTreeMap<HeadRef, f32>,
    positions: Positions,
}

/// What can be wrong with a plan.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// The text is not a plan.
    #[error("cannot read '{text}' as {expected}")]
    Syntax {
        /// The part that could not be read.
        text: String,
        /// What would have been allowed.
        expected: String,
    },
    /// A head stands twice in one plan.
    #[error("head {0} is listed twice in one plan")]
    Twice(HeadRef),
    /// λ is none of [`LAMBDAS`].
    #[error("lambda {lambda} of head {at} is not {LAMBDAS}")]
    LambdaOutOfRange {
        /// The head.
        at: HeadRef,
        /// Its λ.
        lambda: f32,
    },
    /// A head without λ where one is needed.
    #[error("head {0} has no lambda")]
    NoLambda(HeadRef),
    /// The model has no such layer.
    #[error("layer {} of head {at} does not exist; layers are 0 to {}", at.layer, layers - 1)]
    NoSuchLayer {
        /// The head asked for.
        at: HeadRef,
        /// How many layers there are.
        layers: usize,
    },
    /// The layer's heads are of another kind: value heads of a delta net, or query heads of attention.
    #[error(
        "head {at} does not exist; the heads of layer {} are {} to {last}, and layers with {} heads are {}",
        at.layer, HeadRef { head: 0, ..*last }, at.kind.letter(), listed(valid)
    )]
    OtherKind {
        /// The head asked for.
        at: HeadRef,
        /// The last head of the layer.
        last: HeadRef,
        /// The layers that have heads of the kind asked for.
        valid: Vec<usize>,
    },
    /// The layer has fewer heads.
    #[error(
        "head {at} does not exist; layer {} has {} to {}",
        at.layer, HeadRef { head: 0, ..*at }, HeadRef { head: heads - 1, ..*at }
    )]
    NoSuchHead {
        /// The head asked for.
        at: HeadRef,
        /// How many heads the layer has.
        heads: usize,
    },
    /// A plan that names no head: it would run and look like a null result.
    #[error("the plan names no head, so it would change nothing")]
    Empty,
    /// A plan for some positions where all are meant.
    #[error("the plan touches the positions '{0}' only, but weights act at every position")]
    SomePositions(Positions),
    /// Positions are given twice.
    #[error("the plan has its positions, '{own}', and '{given}' is asked for")]
    PositionsTwice {
        /// The plan's.
        own: Positions,
        /// The others.
        given: Positions,
    },
    /// A planned edit that never happened.
    #[error(
        "the plan names {}{} but the hook never fired there, so the result would be a false null",
        first(heads), at(*positions)
    )]
    NeverFired {
        /// Its heads.
        heads: Vec<HeadRef>,
        /// The positions that the plan touches.
        positions: Positions,
    },
}

impl PlanError {
    /// Advice that goes with the message.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Syntax { .. } => Some(
                "plans are written L7H6:0.5,L23H1:0.5 or as JSON {\"schema\":\"heads/v1\",\"heads\":\
                 [{\"layer\":7,\"head\":6,\"lambda\":0.5}]}, {\"7\":[6],\"23\":[1]} or [[7,6],[23,1]]; positions follow as in \
                 'L7H6:0.5 at response'"
                    .into(),
            ),
            Self::NoLambda(at) => Some(format!("write {at}:0.5, or give --lambda")),
            Self::NoSuchLayer { .. } | Self::OtherKind { .. } | Self::NoSuchHead { .. } => {
                Some("layers and heads count from 0; `temper inspect` shows what the model has".into())
            }
            Self::SomePositions(_) => Some("leave the positions out, or use the plan as a hook".into()),
            Self::PositionsTwice { .. } => Some("leave one of the two out".into()),
            Self::Empty => Some("list at least one head, or leave the plan out".into()),
            Self::LambdaOutOfRange { lambda, .. } if lambda.is_finite() => {
                Some("norms square what they read, and f32 overflows there".into())
            }
            Self::NeverFired { positions: Positions::Window { .. }, .. } => Some(
                "nothing that is read reaches the window; its positions count from 0 at the first token of the prompt".into(),
            ),
            Self::NeverFired { positions: Positions::Response, .. } => {
                Some("nothing of any response is read: the last token that is written is not".into())
            }
            Self::Twice(_) | Self::LambdaOutOfRange { .. } | Self::NeverFired { .. } => None,
        }
    }
}

fn listed<T: fmt::Display>(items: &[T]) -> String {
    if items.is_empty() {
        return "none".into();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Heads that an error names before it counts the others.
const NAMED: usize = 5;

/// The first few of these heads.
fn first(heads: &[HeadRef]) -> String {
    match heads.len().saturating_sub(NAMED) {
        0 => listed(heads),
        more => format!("{} and {more} more", listed(&heads[..NAMED])),
    }
}

/// Where a plan touches tokens, if not everywhere.
fn at(positions: Positions) -> String {
    if positions == Positions::All { String::new() } else { format!(" at {positions}") }
}

/// Heads as a user lists them, each with a λ of its own or none: what becomes a [`HeadPlan`] or a sweep's head set.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadList {
    /// The heads, by layer and head.
    pub heads: Vec<(HeadRef, Option<f32>)>,
    /// The positions that are touched, where the list says so.
    pub positions: Option<Positions>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadsV1 {
    schema: String,
    heads: Vec<HeadV1>,
    #[serde(default)]
    positions: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadV1 {
    layer: usize,
    head: usize,
    #[serde(default)]
    kind: HeadKind,
    #[serde(default)]
    lambda: Option<f32>,
}

impl HeadList {
    /// Reads `L7H6:0.5,L23H1`, `{"schema":"heads/v1","heads":[..]}`, `{"7":[6],"23":[1]}` or `[[7,6],[23,1]]`. Positions
    /// follow the first as in `L7H6:0.5 at response`, and are `"positions":"response"` in the second.
    ///
    /// # Errors
    /// On anything else, on an unknown key, on a head listed twice, on what is no λ ([`is_lambda`]), and on an empty list.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let text = text.trim();
        match text.as_bytes().first() {
            None => Self::of(Vec::new()),
            Some(b'{') if text.contains("\"schema\"") => Self::from_schema(text),
            Some(b'{') => Self::of(Self::from_map(text)?),
            Some(b'[') => {
                let pairs: Vec<(usize, usize)> =
                    serde_json::from_str(text).map_err(|e| syntax(text, &format!("pairs [[layer,head],..] ({e})")))?;
                Self::of(pairs.into_iter().map(|(layer, head)| (HeadRef::query(layer, head), None)).collect())
            }
            Some(_) => {
                let (heads, positions) = text.split_once(" at ").map_or((text, None), |(h, p)| (h, Some(p)));
                let heads = heads.split(',').map(Self::entry).collect::<Result<_, _>>()?;
                Ok(Self { positions: positions.map(str::parse).transpose()?, ..Self::of(heads)? })
            }
        }
    }

    fn entry(text: &str) -> Result<(HeadRef, Option<f32>), PlanError> {
        match text.split_once(':') {
            None => Ok((text.parse()?, None)),
            Some((at, lambda)) => {
                let lambda =
                    lambda.trim().parse().map_err(|_| syntax(text, "a head and its lambda, such as L7H6:0.5"))?;
                Ok((at.parse()?, Some(lambda)))
            }
        }
    }

    fn from_schema(text: &str) -> Result<Self, PlanError> {
        let doc: HeadsV1 =
            serde_json::from_str(text).map_err(|e| syntax(text, &format!("a heads/v1 document ({e})")))?;
        if doc.schema != "heads/v1" {
            return Err(syntax(&doc.schema, "the schema name heads/v1"));
        }
        let entry = |h: HeadV1| (HeadRef { layer: h.layer, head: h.head, kind: h.kind }, h.lambda);
        let positions = doc.positions.map(|text| text.parse()).transpose()?;
        Ok(Self { positions, ..Self::of(doc.heads.into_iter().map(entry).collect())? })
    }

    fn from_map(text: &str) -> Result<Vec<(HeadRef, Option<f32>)>, PlanError> {
        let map: BTreeMap<String, Vec<usize>> = serde_json::from_str(text)
            .map_err(|e| syntax(text, &format!("a map {{\"layer\":[head,..],..}} or a heads/v1 document ({e})")))?;
        let mut heads = Vec::new();
        for (layer, of_layer) in map {
            let layer = layer.trim().parse().map_err(|_| syntax(&layer, "a layer number"))?;
            heads.extend(of_layer.into_iter().map(|head| (HeadRef::query(layer, head), None)));
        }
        Ok(heads)
    }

    /// A list of these heads, sorted; of positions it says nothing.
    ///
    /// # Errors
    /// On a head listed twice, on a λ that [`check_lambda`] refuses, and on an empty list.
    pub fn of(mut heads: Vec<(HeadRef, Option<f32>)>) -> Result<Self, PlanError> {
        if heads.is_empty() {
            return Err(PlanError::Empty);
        }
        heads.sort_by_key(|&(at, _)| at);
        for pair in heads.windows(2) {
            if pair[0].0 == pair[1].0 {
                return Err(PlanError::Twice(pair[0].0));
            }
        }
        heads.iter().try_for_each(|&(at, lambda)| lambda.map_or(Ok(()), |lambda| check_lambda(at, lambda)))?;
        Ok(Self { heads, positions: None })
    }

    /// The heads alone.
    pub fn heads(&self) -> Vec<HeadRef> {
        self.heads.iter().map(|&(at, _)| at).collect()
    }

    /// The plan; a head without a λ of its own gets `default`.
    ///
    /// # Errors
    /// If a head has no λ and there is no default.
    pub fn plan(&self, default: Option<f32>) -> Result<HeadPlan, PlanError> {
        let entries =
            self.heads.iter().map(|&(at, lambda)| Ok((at, lambda.or(default).ok_or(PlanError::NoLambda(at))?)));
        let plan = HeadPlan::new(entries.collect::<Result<Vec<_>, PlanError>>()?)?;
        Ok(plan.at(self.positions.unwrap_or_default()))
    }
}

/// What may be a λ, in words.
pub const LAMBDAS: &str = "a number from -1000000 to 1000000";

/// Whether it is one of [`LAMBDAS`]. Norms square what they read in f32, which from about 1e17 on has no finite sum.
pub fn is_lambda(lambda: f32) -> bool {
    lambda.abs() <= 1e6 // not true of NaN
}

/// Refuses what is no λ ([`is_lambda`]).
///
/// # Errors
/// Names the head and λ.
pub fn check_lambda(at: HeadRef, lambda: f32) -> Result<(), PlanError> {
    if is_lambda(lambda) { Ok(()) } else { Err(PlanError::LambdaOutOfRange { at, lambda }) }
}

fn syntax(text: &str, expected: &str) -> PlanError {
    let text =
        if text.chars().count() > 60 { text.chars().take(57).chain("...".chars()).collect() } else { text.into() };
    PlanError::Syntax { text, expected: expected.into() }
}

impl HeadPlan {
    /// The plan that touches nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// A plan of these heads.
    ///
    /// # Errors
    /// If a head is listed twice, or [`check_lambda`] refuses a λ.
    pub fn new(entries: impl IntoIterator<Item = (HeadRef, f32)>) -> Result<Self, PlanError> {
        let mut plan = BTreeMap::new();
        for (at, lambda) in entries {
            check_lambda(at, lambda)?;
            if plan.insert(at, lambda).is_some() {
                return Err(PlanError::Twice(at));
            }
        }
        Ok(Self { heads: plan, positions: Positions::All })
    }

    /// The plan at these positions only.
    #[must_use]
    pub fn at(self, positions: Positions) -> Self {
        Self { positions, ..self }
    }

    /// The plan at these positions only, where it does not name its own.
    ///
    /// # Errors
    /// If it does.
    pub fn limited(self, given: Option<Positions>) -> Result<Self, PlanError> {
        match (self.positions, given) {
            (_, None) => Ok(self),
            (Positions::All, Some(given)) => Ok(self.at(given)),
            (own, Some(given)) => Err(PlanError::PositionsTwice { own, given }),
        }
    }

    /// Refuses a plan that weights cannot hold: they act at every position.
    ///
    /// # Errors
    /// If the plan does not touch every position.
    pub fn check_foldable(&self) -> Result<(), PlanError> {
        if self.positions == Positions::All { Ok(()) } else { Err(PlanError::SomePositions(self.positions)) }
    }

    /// The positions that it touches.
    pub fn positions(&self) -> Positions {
        self.positions
    }

    /// All these heads at one λ.
    ///
    /// # Errors
    /// If a head is listed twice or λ is none ([`is_lambda`]).
    pub fn uniform(heads: &[HeadRef], lambda: f32) -> Result<Self, PlanError> {
        Self::new(heads.iter().map(|&at| (at, lambda)))
    }

    /// The heads with their λ, by layer and head.
    pub fn iter(&self) -> impl Iterator<Item = (HeadRef, f32)> + '_ {
        self.heads.iter().map(|(&at, &lambda)| (at, lambda))
    }

    /// Whether the plan names no head at all.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Refuses heads that the model does not have.
    ///
    /// # Errors
    /// Names the layers or heads that exist.
    pub fn check(&self, spec: &ModelSpec) -> Result<(), PlanError> {
        self.heads.keys().try_for_each(|&at| spec.check(at))
    }
}

impl fmt::Display for HeadPlan {
    /// Writes what [`HeadList::parse`] reads, e.g. `L7H6:0.5,L23H1:0.5`; `none` if it names no head. Where it does not
    /// touch every position, ` at ` and those: `L7H6:0.5 at response`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (i, (at, lambda)) in self.iter().enumerate() {
            write!(f, "{}{at}:{lambda}", if i > 0 { "," } else { "" })?;
        }
        if self.positions == Positions::All { Ok(()) } else { write!(f, " at {}", self.positions) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<String, String> {
        HeadList::parse(text).and_then(|list| list.plan(Some(0.5))).map(|p| p.to_string()).map_err(|e| e.to_string())
    }

    #[test]
    fn every_spelling_is_the_same_plan() {
        let expected = Ok("L7H6:0.5,L23H1:0.5".to_string());
        for text in [
            "L7H6:0.5,L23H1:0.5",
            " l23h1 , L7H6 ",
            r#"{"schema":"heads/v1","heads":[{"layer":7,"head":6,"lambda":0.5},{"layer":23,"head":1}]}"#,
            r#"{"7":[6],"23":[1]}"#,
            "[[7,6],[23,1]]",
        ] {
            assert_eq!(plan(text), expected, "{text}");
        }
        let mixed = Ok("L2V3:0.5,L7H6:0.5".to_string());
        assert_eq!(plan("L7H6,l2v3"), mixed);
        assert_eq!(
            plan(r#"{"schema":"heads/v1","heads":[{"layer":2,"head":3,"kind":"value"},{"layer":7,"head":6}]}"#),
            mixed
        );
        assert_eq!(
            plan("L0H0:-0.5,L0H1:1.75,L1H0:0,L1H1:-1000000"),
            Ok("L0H0:-0.5,L0H1:1.75,L1H0:0,L1H1:-1000000".into())
        );
        let limited = "L7H6:0.5 at window:2..9";
        assert_eq!(plan(limited), Ok(limited.into()));
        let json = r#"{"schema":"heads/v1","heads":[{"layer":7,"head":6}],"positions":"response"}"#;
        assert_eq!(plan(json), Ok("L7H6:0.5 at response".into()));
    }

    #[test]
    fn what_is_not_a_plan_is_refused() {
        for (text, part) in [
            ("", "names no head"),
            ("[]", "names no head"),
            ("L7", "'L7'"),
            ("L7H6:half", "L7H6:0.5"),
            ("L7H6:nan", "not a number from"),
            ("L7H6:inf", "not a number from"),
            ("L7H6:-1000001", "not a number from"),
            ("L7H6:0.5,L7H6:0.9", "listed twice"),
            (r#"{"schema":"heads/v2","heads":[]}"#, "heads/v1"),
            (r#"{"schema":"heads/v1","heads":[{"layer":1,"head":0,"lamda":0.5}]}"#, "unknown field `lamda`"),
            (r#"{"seven":[6]}"#, "layer number"),
            ("[[1,2,3]]", "pairs"),
            ("L7H6:0.5 at answer", "window:4..9"),
            (r#"{"schema":"heads/v1","heads":[{"layer":7,"head":6}],"positions":"x"}"#, "window:4..9"),
        ] {
            let message = plan(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
        assert_eq!(HeadList::parse("L7H6").unwrap().plan(None), Err(PlanError::NoLambda(HeadRef::query(7, 6))));
    }
}
