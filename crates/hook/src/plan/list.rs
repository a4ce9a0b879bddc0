//! Strict reading of the heads that a user writes, which become a plan or a head set.

use std::{collections::BTreeSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

use super::{HeadPlan, PlanError, check_lambda, lambda_of};
use crate::{HeadKind, HeadRef, Named, Positions, in_words};

/// Heads as a user lists them, each with or without a λ of its own. They become a [`HeadPlan`] or a sweep's head set.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadList {
    /// The heads, by layer and head.
    pub heads: Vec<(HeadRef, Option<f32>)>,
    /// The positions that are touched, if the list says which.
    pub positions: Option<Positions>,
    /// The model that the heads belong to, if the list says which.
    pub made_for: Option<MadeFor>,
}

/// The model that heads were found in. Another model of the same shape has heads of the same names, and nothing else in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeFor {
    /// Its name.
    pub model: String,
    /// SHA-256 over its weight files; empty where the list names the model alone.
    pub weights_sha256: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadsV1 {
    schema: String,
    heads: Vec<HeadV1>,
    #[serde(default)]
    positions: Option<String>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    weights_sha256: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadV1 {
    layer: usize,
    head: usize,
    #[serde(default)]
    kind: HeadKind,
    #[serde(default)]
    lambda: Option<f64>,
}

/// The entries of a map as they are written, repeated keys included: a map type would silently drop one of two.
struct Layers(Vec<(String, Vec<usize>)>);

impl<'de> Deserialize<'de> for Layers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Layers;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of layers to lists of heads")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Layers, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Layers(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl HeadList {
    /// Reads `L7H6:0.5,L23H1`, `{"schema":"heads/v1","heads":[..]}`, `{"7":[6],"23":[1]}` or `[[7,6],[23,1]]`. The first form
    /// takes positions as in `L7H6:0.5 at response`, the second as `"positions":"response"`. The second may also name its `model` and
    /// the hash of its weights (`weights_sha256`).
    ///
    /// # Errors
    /// On anything else, an unknown key, a head listed twice, a number that is not a λ ([`is_lambda`](crate::is_lambda)), or an empty
    /// list.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let text = text.trim();
        match text.as_bytes().first() {
            None => Self::of(Vec::new()),
            // A map of layers has neither key.
            Some(b'{') if ["\"schema\"", "\"heads\""].iter().any(|key| text.contains(key)) => Self::from_schema(text),
            Some(b'{') => Self::of(Self::from_map(text)?),
            Some(b'[') => {
                let pairs: Vec<(usize, usize)> =
                    serde_json::from_str(text).map_err(|e| wrong(text, "pairs [[layer,head],..]", &e))?;
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
                let number =
                    lambda.trim().parse().map_err(|_| syntax(text, "a head and its lambda, such as L7H6:0.5"))?;
                let at = at.parse()?;
                Ok((at, Some(lambda_at(at, number)?)))
            }
        }
    }

    fn from_schema(text: &str) -> Result<Self, PlanError> {
        let doc: HeadsV1 = serde_json::from_str(text).map_err(|e| wrong(text, "a heads/v1 document", &e))?;
        if doc.schema != "heads/v1" {
            return Err(syntax(&doc.schema, "the schema name heads/v1"));
        }
        let entry = |h: HeadV1| {
            let at = HeadRef { layer: h.layer, head: h.head, kind: h.kind };
            Ok((at, h.lambda.map(|number| lambda_at(at, number)).transpose()?))
        };
        let positions = doc.positions.map(|text| text.parse()).transpose()?;
        let made_for = (doc.weights_sha256.is_some() || doc.model.is_some()).then(|| MadeFor {
            model: doc.model.unwrap_or_else(|| "a model".into()),
            weights_sha256: doc.weights_sha256.unwrap_or_default(),
        });
        Ok(Self { positions, made_for, ..Self::of(doc.heads.into_iter().map(entry).collect::<Result<_, _>>()?)? })
    }

    fn from_map(text: &str) -> Result<Vec<(HeadRef, Option<f32>)>, PlanError> {
        let Layers(layers) = serde_json::from_str(text)
            .map_err(|e| wrong(text, "a map {\"layer\":[head,..],..} or a heads/v1 document", &e))?;
        let (mut heads, mut seen) = (Vec::new(), BTreeSet::new());
        for (layer, of_layer) in layers {
            let layer = layer.trim().parse().map_err(|_| syntax(&layer, "a layer number"))?;
            if !seen.insert(layer) {
                return Err(syntax(text, &format!("a map with each layer once, and layer {layer} stands there twice")));
            }
            heads.extend(of_layer.into_iter().map(|head| (HeadRef::query(layer, head), None)));
        }
        Ok(heads)
    }

    /// A list of these heads, sorted, without positions.
    ///
    /// # Errors
    /// On a head listed twice, a λ that [`check_lambda`] refuses, or an empty list.
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
        Ok(Self { heads, positions: None, made_for: None })
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

/// The λ of a head, as it was written.
fn lambda_at(at: HeadRef, number: f64) -> Result<f32, PlanError> {
    lambda_of(number).ok_or(PlanError::LambdaOutOfRange { at, lambda: number })
}

/// The error for JSON that is something else, with what serde says of it.
fn wrong(text: &str, expected: &str, why: &serde_json::Error) -> PlanError {
    syntax(text, &format!("{expected} ({})", in_words(&why.to_string(), Named::Object)))
}

fn syntax(text: &str, expected: &str) -> PlanError {
    let text =
        if text.chars().count() > 60 { text.chars().take(57).chain("...".chars()).collect() } else { text.into() };
    PlanError::Syntax { text, expected: expected.into() }
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
            (r#"{"heads":[{"layer":1,"head":0}]}"#, "as a heads/v1 document (missing field `schema`"),
            (
                r#"{"schema":"heads/v1","heads":[{"layer":"x","head":0}]}"#,
                "(found the text \"x\", but must be a whole number",
            ),
            (r#"{"1":2}"#, "a map {\"layer\":[head,..],..} or a heads/v1 document (found 2, but must be a list"),
            (r#"[[1,"x"]]"#, "pairs [[layer,head],..] (found the text \"x\", but must be a whole number from 0 on"),
            (r#"{"seven":[6]}"#, "layer number"),
            (r#"{"1":[2],"1":[3]}"#, "layer 1 stands there twice"),
            (r#"{"1":[2]," 1":[3]}"#, "layer 1 stands there twice"),
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
