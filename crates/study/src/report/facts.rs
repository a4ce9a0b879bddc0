//! What a page was made from, by name: the list at its end. What every page must say of a model stands here once.

use std::fmt;

use headtemper_engine::{Identity, Sampling};
use serde::Serialize;

use crate::{Item, Predicate, items::Systems};

/// Names and values, in the order of the page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Facts(Vec<(String, String)>);

impl Facts {
    /// Adds a fact.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.push((name.into(), value.into()));
        self
    }

    /// Adds a fact if there is one.
    pub(crate) fn with_some(self, name: &str, value: Option<impl Into<String>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Adds which model ran, and how.
    pub(crate) fn with_model(self, identity: &Identity) -> Self {
        of_model(Some(identity)).into_iter().fold(self, |facts, (name, value)| facts.with_some(name, value))
    }

    /// Adds which items were read: how many, from which file, and what holds for all of them.
    pub(crate) fn with_items(self, count: impl fmt::Display, file: &str, only: Option<&Predicate>) -> Self {
        let condition = only.map(|only| format!(", those where {only}")).unwrap_or_default();
        self.with("items", format!("{count} of {file}{condition}"))
    }

    /// Adds the system message that the prompts of all items begin with, if there is one.
    pub(crate) fn with_system(self, items: &[Item]) -> Self {
        self.with_some("system message", Systems::of(items).common())
    }

    /// Adds how answers were generated, under these seeds.
    pub(crate) fn with_answers(self, sampling: &Sampling, seeds: &[u64], max_new_tokens: usize) -> Self {
        let seeds: Vec<String> = seeds.iter().map(ToString::to_string).collect();
        let decoding = match sampling.temperature {
            0.0 => "greedy".to_string(),
            temperature => format!("sampled at temperature {temperature}, seed {}", seeds.join(", ")),
        };
        self.with("answers", format!("{decoding}, at most {max_new_tokens} new tokens"))
    }

    /// Adds the version of the program that ran the model.
    pub(crate) fn with_version(self, identity: &Identity) -> Self {
        self.with("version", format!("headtemper {}", identity.version))
    }

    /// Names and values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// What is said of a model; no value where there is nothing to say.
pub(super) fn of_model(identity: Option<&Identity>) -> [(&'static str, Option<String>); 6] {
    let said = |of: fn(&Identity) -> Option<String>| identity.and_then(of);
    [
        ("model", said(|of| Some(of.model.clone()))),
        ("revision", said(|of| of.revision.clone())),
        ("random weights, seed", said(|of| of.random.map(|seed| seed.to_string()))),
        ("weights (SHA-256)", said(|of| Some(of.weights_sha256.clone()))),
        ("held in", said(|of| Some(of.held_in()))),
        ("thinking", said(|of| of.thinking.map(|on| if on { "on".into() } else { "off".into() }))),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_model_of_random_weights_and_a_commit_are_told() {
        let plain = json!({"model": "m", "architecture": "llama", "weights_sha256": "w", "dtype": "f32", "device": "cpu", "version": "1"});
        let told = |more: serde_json::Value| -> Vec<(String, String)> {
            let mut identity = plain.clone();
            identity.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let identity: Identity = serde_json::from_value(identity).unwrap();
            let facts = Facts::default().with("experiment", "x").with_model(&identity).with_version(&identity);
            serde_json::from_value(json!(facts)).unwrap()
        };
        let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
        let usual = [
            pair("experiment", "x"),
            pair("model", "m"),
            pair("weights (SHA-256)", "w"),
            pair("held in", "f32 on cpu"),
            pair("version", "headtemper 1"),
        ];
        assert_eq!(told(json!({})), usual);
        let all = told(json!({"revision": "c0ffee", "random": 7, "thinking": false}));
        for fact in [pair("revision", "c0ffee"), pair("random weights, seed", "7"), pair("thinking", "off")] {
            assert!(all.contains(&fact), "{fact:?}");
        }
    }
}
