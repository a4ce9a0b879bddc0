//! Names for results: a hash of everything that determines them.

use serde::Serialize;
use sha2::{Digest, Sha256};

/// The first 32 hexadecimal digits of SHA-256 over the value's JSON.
///
/// Values must be structs and ordered maps, so that their JSON, and with it the digest, has a single form.
pub(crate) fn digest(value: &impl Serialize) -> String {
    let json = serde_json::to_vec(value).expect("plain data has a JSON form");
    hex(&Sha256::digest(&json)[..16])
}

/// The first fields of structs that begin alike, hashed once for all of them.
pub(crate) struct Begun(Sha256);

impl Begun {
    /// From a struct of these fields.
    pub(crate) fn new(first: &impl Serialize) -> Self {
        let json = serde_json::to_vec(first).expect("plain data has a JSON form");
        let [fields @ .., b'}'] = &json[..] else { unreachable!("a struct") };
        Self(Sha256::new_with_prefix(fields))
    }

    /// The [`digest`] of a struct that has the fields of this one after the first.
    pub(crate) fn digest(&self, rest: &impl Serialize) -> String {
        let json = serde_json::to_vec(rest).expect("plain data has a JSON form");
        let hash = self.0.clone().chain_update(b",").chain_update(&json[1..]).finalize();
        hex(&hash[..16])
    }
}

/// The first 32 hexadecimal digits of a text's SHA-256.
pub(crate) fn digest_text(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes())[..16])
}

/// The first 128 bits of a text's SHA-256: in practice no two texts share them.
pub(crate) fn digest_bits(text: &str) -> u128 {
    let hash = Sha256::digest(text.as_bytes());
    u128::from_le_bytes(hash[..16].try_into().expect("a hash has 32 bytes"))
}

/// Two hexadecimal digits per byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All 64 hexadecimal digits of SHA-256 over the value's JSON, for people to compare.
pub(crate) fn sha256_json(value: &impl Serialize) -> String {
    let json = serde_json::to_vec(value).expect("plain data has a JSON form");
    hex(&Sha256::digest(&json))
}

/// The stream of random numbers that belongs to an item, by its id: the same in every arm and every subset.
pub fn noise_of(text: &str) -> u64 {
    let hash = Sha256::digest(text.as_bytes());
    u64::from_le_bytes(hash[..8].try_into().expect("a hash has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_alike_is_hashed_as_a_whole() {
        #[derive(Serialize)]
        struct Whole<'a> {
            ids: &'a [u32],
            #[serde(flatten)]
            rest: Rest<'a>,
        }
        #[derive(Clone, Copy, Serialize)]
        struct Rest<'a> {
            plan: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            draw: Option<usize>,
        }
        #[derive(Serialize)]
        struct First<'a> {
            ids: &'a [u32],
        }
        let ids = [5, 6];
        let begun = Begun::new(&First { ids: &ids });
        for rest in [Rest { plan: "L0H1:0.5}", draw: None }, Rest { plan: "", draw: Some(3) }] {
            assert_eq!(begun.digest(&rest), digest(&Whole { ids: &ids, rest }));
        }
    }
}
