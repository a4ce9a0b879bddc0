//! The types requested for weights, and those they are actually held in.

use std::{collections::BTreeMap, fmt, str::FromStr};

use headtemper_kernels::{Blocks, Held};

/// The requested type of matrices. `Display` writes the name by which it is asked for, and [`FromStr`] reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HoldAs {
    /// The file's type, if it is a single float type; otherwise f32, which holds all values exactly.
    #[default]
    Native,
    /// This type. A matrix stored in another type is rounded to it, once; one stored in it is kept unchanged.
    All(Held),
    /// Each matrix in the type the file stores it in: ggml blocks are repacked, and nothing is rounded.
    Stored,
}

impl HoldAs {
    /// All that can be asked for.
    pub fn all() -> impl Iterator<Item = Self> {
        let plain = [Self::Native, Self::All(Held::F32), Self::All(Held::Bf16), Self::All(Held::F16), Self::Stored];
        plain.into_iter().chain(Blocks::ALL.map(|blocks| Self::All(Held::Blocks(blocks))))
    }
}

impl fmt::Display for HoldAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native => f.write_str("auto"),
            Self::All(held) => held.fmt(f),
            Self::Stored => f.write_str("stored"),
        }
    }
}

impl FromStr for HoldAs {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::all().find(|hold| hold.to_string() == name).ok_or_else(|| {
            let allowed = Self::all().map(|hold| hold.to_string()).collect::<Vec<_>>().join(", ");
            format!("dtype is '{name}', but must be one of {allowed}")
        })
    }
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

/// The types a model's weights are held in, and the number of values of each. `Display` formats it as in files and reports.
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

    /// Whether every matrix is held in this type.
    pub fn is_all(&self, held: Held) -> bool {
        self.matrices.keys().all(|&other| other == held)
    }

    /// Bytes of the weights as they are held; vectors and convolutions are f32.
    pub fn bytes(&self) -> usize {
        self.matrices.iter().map(|(held, &values)| held.bytes(values)).sum::<usize>() + 4 * self.vectors
    }

    /// Bytes of tables that stay in their file, from which only rows are read.
    pub fn mapped_bytes(&self) -> usize {
        self.mapped
    }
}

impl fmt::Display for Holding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The type of most values comes first.
        let mut types: Vec<_> = self.matrices.iter().collect();
        types.sort_by_key(|&(_, &values)| std::cmp::Reverse(values));
        let names = types.iter().map(|(held, _)| held.to_string()).collect::<Vec<_>>().join(", ");
        if self.stored { write!(f, "stored ({names})") } else { f.write_str(&names) }
    }
}
