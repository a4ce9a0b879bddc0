//! The pieces that a capture is made of, each a file of its own until all are there.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use crate::store::files::followed;

/// The most items of a piece if no number is asked for: what a killed run loses at most.
const MOST_ITEMS: usize = 1024;

/// The most bytes of a piece that are held before it is written.
const MOST_BYTES: u64 = 256 << 20;

/// The items of a file, or of its shard, cut in pieces.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pieces {
    range: Range<usize>,
    size: usize,
}

impl Pieces {
    /// Cuts items of `bytes` each into pieces of `asked` items. If none is asked for, a piece holds little: at most a quarter of
    /// the `room` that is left, if that is known.
    pub(super) fn new(range: Range<usize>, asked: Option<usize>, bytes: u64, room: Option<u64>) -> Self {
        let budget = room.map_or(MOST_BYTES, |room| MOST_BYTES.min(room / 4));
        let fitting = || ((budget / bytes.max(1)) as usize).clamp(1, MOST_ITEMS);
        Self { range, size: asked.unwrap_or_else(fitting) }
    }

    /// Items of a piece, except the last.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The items of each piece, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (end, size) = (self.range.end, self.size);
        self.range.clone().step_by(size).map(move |from| from..end.min(from.saturating_add(size)))
    }

    /// The files of all pieces, in order.
    pub(super) fn files(&self, dir: &Path) -> Vec<PathBuf> {
        self.iter().map(|piece| file(dir, &piece)).collect()
    }
}

/// All pieces joined, before that moves to its place.
pub(super) const WHOLE: &str = "whole.npz";

/// The file of a piece.
pub(super) fn file(dir: &Path, piece: &Range<usize>) -> PathBuf {
    dir.join(format!("items-{:09}-{:09}.npz", piece.start, piece.end))
}

/// Where the pieces of a file lie until all are there: beside the file, on the same file system, wherever a symbolic link to it is.
pub(super) fn dir_of(out: &Path) -> PathBuf {
    let out = followed(out);
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    out.with_file_name(format!("{name}.parts"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_up_the_whole_and_hold_little() {
        let cut = |range: Range<usize>, size| Pieces::new(range, Some(size), 1, None).iter().collect::<Vec<_>>();
        assert_eq!(cut(3..10, 3), [3..6, 6..9, 9..10]);
        assert_eq!((cut(3..10, 7), cut(3..10, usize::MAX)), (vec![3..10; 1], vec![3..10; 1]));
        let size = |bytes, room| Pieces::new(0..10, None, bytes, room).size();
        assert_eq!((size(1000, None), size(1 << 20, None), size(1 << 30, None)), (1024, 256, 1));
        assert_eq!((size(1 << 20, Some(40 << 20)), size(1 << 20, Some(0)), size(0, None)), (10, 1, 1024));
        assert_eq!(dir_of(Path::new("a/x.npz")), Path::new("a/x.npz.parts"));
    }
}
