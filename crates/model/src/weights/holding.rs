//! What weights are asked to be held in, and what they then are.

use std::{collections::BTreeMap, fmt};

use headtemper_kernels::Held;

/// What matrices are to be held in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HoldAs {
    /// What the file has, if that is one type of float; else f32, which holds all values exactly.
    #[default]
    Native,
    /// This. A matrix that the file stores in another type is rounded to it, once; one that it stores in this is kept.
    All(Held),
    /// Each what the file stores it in: blocks of ggml are repacked, and nothing is rounded.
    Stored,
}

impl From<Option<Held>> for HoldAs {
    fn from(held: Option<Held>) -> Self {
        held.map_or(Self::Native, Self::All)
    }
}

impl From<Held> for HoldAs {
    fn from(held: Held) -> Self {
        Self::All(held)
    }
}

/// What the weights of a model are held in, and how many values of each. `Display` says it as files and reports do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    stored: bool,
    matrices: BTreeMap<Held, usize>,
    vectors: usize,
    mapped: usize,
}

impl Holding {
    pub(super) fn new(hold: HoldAs) -> Self {
        Self { stored: hold == HoldAs::Stored, ..Self::default() }
    }

    pub(super) fn add_matrix(&mut self, held: Held, values: usize) {
        *self.matrices.entry(held).or_default() += values;
    }

    pub(super) fn add_vector(&mut self, values: usize) {
        self.vectors += values;
    }

    pub(super) fn add_mapped(&mut self, bytes: usize) {
        self.mapped += bytes;
    }

    /// Whether every matrix is held in this.
    pub fn is_all(&self, held: Held) -> bool {
        self.matrices.keys().all(|&other| other == held)
    }

    /// Bytes of the weights as they are held; vectors and convolutions are f32.
    pub fn bytes(&self) -> usize {
        self.matrices.iter().map(|(held, &values)| held.bytes(values)).sum::<usize>() + 4 * self.vectors
    }

    /// Bytes of tables that stay in their file, of which only rows are read.
    pub fn mapped_bytes(&self) -> usize {
        self.mapped
    }
}

impl fmt::Display for Holding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What most values are in goes first.
        let mut types: Vec<_> = self.matrices.iter().collect();
        types.sort_by_key(|&(_, &values)| std::cmp::Reverse(values));
        let names = types.iter().map(|(held, _)| held.to_string()).collect::<Vec<_>>().join(", ");
        if self.stored { write!(f, "stored ({names})") } else { f.write_str(&names) }
    }
}
