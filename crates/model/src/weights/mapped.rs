//! Files mapped into memory, and pages of them that are given back.

use std::{fs::File, path::Path};

use memmap2::{Mmap, UncheckedAdvice};

use crate::ModelError;

/// Gives a range of a mapped file back to the system after it was copied. Only an optimisation: a failure is no error.
pub(super) fn release(map: &Mmap, start: usize, len: usize) {
    #[cfg(unix)]
    {
        // SAFETY: the map is read-only and backed by the file, so dropped pages are read from it again when touched.
        let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, len) };
    }
    #[cfg(not(unix))]
    let _ = (map, start, len);
}

/// Maps a file into memory.
pub(super) fn map(path: &Path) -> Result<Mmap, ModelError> {
    let read = |source| ModelError::Read { path: path.into(), source };
    let file = File::open(path).map_err(read)?;
    // SAFETY: as for every memory-mapped model, the file must not be changed while it is loaded.
    unsafe { Mmap::map(&file) }.map_err(read)
}
