//! Putting npz files one after the other, a buffer at a time, whatever their size.
//!
//! The files must be those of [`Npz::save`](crate::Npz::save): anything that it would not write is refused.

use std::{
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use zip::{CompressionMethod, read::ZipFile};

use crate::{
    Array, Result, StudyError,
    npz::{
        BUFFER, archive, header, member_options, open,
        read::{Header, has_width, text},
    },
    store::files::{Failed, copy_whole},
};

/// An array of a file, by its header.
#[derive(Clone, Debug, PartialEq)]
struct Member {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    /// Bytes of its values.
    bytes: u64,
}

impl Member {
    /// Characters per cell of a text array.
    fn text_width(&self) -> Option<usize> {
        self.dtype.strip_prefix("<U")?.parse().ok()
    }

    /// Bytes of one value.
    fn width(&self) -> Option<usize> {
        match self.dtype.as_str() {
            "<f4" => Some(4),
            "<f8" | "<i8" => Some(8),
            _ => self.text_width()?.checked_mul(4),
        }
    }

    /// Whether the rows of another array can follow its own.
    fn continues(&self, next: &Self) -> bool {
        let same = self.dtype == next.dtype || (self.text_width().is_some() && next.text_width().is_some());
        same && self.shape.len() == next.shape.len() && !self.shape.is_empty() && self.shape[1..] == next.shape[1..]
    }
}

fn wrong(path: &Path, name: &str, why: impl std::fmt::Display) -> StudyError {
    StudyError::content(path, format!("array '{name}': {why}"))
}

/// The arrays of a file, in order.
fn members(path: &Path) -> Result<Vec<Member>> {
    let mut zip = open(path)?;
    (0..zip.len())
        .map(|index| {
            let mut file =
                zip.by_index(index).map_err(|e| StudyError::content(path, format!("no npz archive: {e}")))?;
            let name = file.name().map_err(|e| StudyError::content(path, e))?.into_owned();
            let name = name.strip_suffix(".npy").unwrap_or(&name).to_string();
            read_header(&mut file, &name).map_err(|why| wrong(path, &name, why))
        })
        .collect()
}

/// Reads the header of an array; its values follow in the reader.
fn read_header<R: Read>(file: &mut ZipFile<'_, R>, name: &str) -> std::result::Result<Member, String> {
    if file.compression() != CompressionMethod::Stored {
        return Err("is compressed, which temper never writes".into());
    }
    let mut start = [0; 10];
    file.read_exact(&mut start).map_err(|e| e.to_string())?;
    if &start[..8] != b"\x93NUMPY\x01\x00" {
        return Err("does not begin as temper writes it".into());
    }
    let mut text = vec![0; usize::from(u16::from_le_bytes([start[8], start[9]]))];
    file.read_exact(&mut text).map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let Header { dtype, shape, fortran } = Header::parse(&text)?;
    if fortran {
        return Err("is in Fortran order, which temper never writes".into());
    }
    let bytes = file.size().saturating_sub((start.len() + text.len()) as u64);
    let member = Member { name: name.into(), dtype, shape, bytes };
    let count = member.shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim));
    has_width(&member.dtype, count.unwrap_or(usize::MAX), member.width().unwrap_or(usize::MAX))?;
    let expected = count.zip(member.width()).and_then(|(count, width)| count.checked_mul(width));
    if expected.is_none_or(|expected| expected as u64 != bytes) {
        return Err(format!("holds {bytes} bytes, but its shape {:?} of {} takes others", member.shape, member.dtype));
    }
    Ok(member)
}

/// Hands an array's values to `take`, which must read its reader to the end, where the checksum is verified.
fn with_values<T>(
    path: &Path,
    name: &str,
    take: impl FnOnce(&Member, &mut dyn Read) -> std::result::Result<T, String>,
) -> Result<T> {
    let mut zip = open(path)?;
    let mut file = zip.by_name(&format!("{name}.npy")).map_err(|e| wrong(path, name, e))?;
    let member = read_header(&mut file, name).map_err(|why| wrong(path, name, why))?;
    let value = take(&member, &mut file).map_err(|why| wrong(path, name, why))?;
    // The checksum is compared at the end.
    match file.read(&mut [0]) {
        Ok(0) => Ok(value),
        Ok(_) => Err(wrong(path, name, "is longer than its shape")),
        Err(e) => Err(wrong(path, name, e)),
    }
}

/// Hands every text of an array to `take`, one by one, whatever their number.
///
/// # Errors
/// If the file has no such array of texts, and whatever `take` reports.
pub(crate) fn each_text(
    path: &Path,
    name: &str,
    mut take: impl FnMut(String) -> std::result::Result<(), Failed>,
) -> std::result::Result<(), Failed> {
    let mut failed = None;
    let read = with_values(path, name, |own, reader| {
        let (Some(_), Some(width)) = (own.text_width(), own.width()) else { return Err("holds no texts".into()) };
        let mut cell = vec![0; width];
        for _ in 0..own.shape.iter().product() {
            reader.read_exact(&mut cell).map_err(|e| e.to_string())?;
            if let Err(e) = take(text(&cell, true)?) {
                failed = Some(e);
                return Err("was not taken".into());
            }
        }
        Ok(())
    });
    match failed {
        Some(failed) => Err(failed),
        None => Ok(read?),
    }
}

/// Joins files whose arrays continue each other row by row, except those named in `shared`, which must be equal in all files, and
/// `replaced`, a text that takes the place of each file's own. Returns how many rows there are.
///
/// # Errors
/// If a file cannot be read, is damaged, or does not continue the first; or `out` cannot be written.
pub(crate) fn join(out: &Path, files: &[PathBuf], shared: &[&str], replaced: (&str, &str)) -> Result<usize> {
    let all = files.iter().map(|path| members(path)).collect::<Result<Vec<_>>>()?;
    for (path, members) in files.iter().zip(&all).skip(1) {
        if !members.iter().map(|m| &m.name).eq(all[0].iter().map(|m| &m.name)) {
            return Err(StudyError::content(path, "holds other arrays than the first shard"));
        }
    }
    let mut rows = None;
    for (index, first) in all[0].iter().enumerate() {
        if first.name == replaced.0 || shared.contains(&first.name.as_str()) {
            continue;
        }
        let column: Vec<&Member> = all.iter().map(|members| &members[index]).collect();
        for (path, member) in files.iter().zip(&column) {
            if !first.continues(member) {
                return Err(wrong(path, &first.name, "has another type or shape than the first shard's"));
            }
        }
        let count: Vec<usize> = column.iter().map(|member| member.shape[0]).collect();
        if *rows.get_or_insert_with(|| count.clone()) != count {
            return Err(wrong(&files[0], &first.name, "has not as many rows as the arrays before it"));
        }
    }
    copy_whole(out, |file| {
        let mut zip = archive(file);
        for (index, first) in all[0].iter().enumerate() {
            zip.start_file(format!("{}.npy", first.name), member_options()).map_err(io::Error::from)?;
            let mut to = BufWriter::with_capacity(BUFFER, &mut zip);
            let column: Vec<&Member> = all.iter().map(|members| &members[index]).collect();
            if first.name == replaced.0 {
                Array::Scalar(replaced.1.into()).write(&mut to)?;
            } else if shared.contains(&first.name.as_str()) {
                copy_shared(&mut to, files, first)?;
            } else {
                copy_rows(&mut to, files, &column)?;
            }
            to.flush()?;
        }
        zip.finish().map_err(io::Error::from)?;
        Ok(())
    })?;
    Ok(rows.unwrap_or_default().iter().sum())
}

/// Writes an array that all files share.
fn copy_shared(to: &mut impl Write, files: &[PathBuf], first: &Member) -> std::result::Result<(), Failed> {
    let bytes = |path: &Path| {
        with_values(path, &first.name, |member, reader| {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
            Ok((member.clone(), bytes))
        })
    };
    let (_, reference) = bytes(&files[0]).map_err(Failed::Reading)?;
    for path in &files[1..] {
        let (member, own) = bytes(path).map_err(Failed::Reading)?;
        if (&member, &own) != (first, &reference) {
            return Err(Failed::Reading(wrong(path, &first.name, "differs from the first shard's")));
        }
    }
    let count = first.shape.iter().product();
    header(to, &first.dtype, &first.shape, count).map_err(Failed::Writing)?;
    to.write_all(&reference).map_err(Failed::Writing)
}

/// Writes the rows of all files; texts get the width of the longest.
fn copy_rows(to: &mut impl Write, files: &[PathBuf], column: &[&Member]) -> std::result::Result<(), Failed> {
    let first = column[0];
    let rows: usize = column.iter().map(|member| member.shape[0]).sum();
    let shape: Vec<usize> = [rows].into_iter().chain(first.shape[1..].iter().copied()).collect();
    let widest = column.iter().filter_map(|member| member.text_width()).max();
    let dtype = widest.map_or_else(|| first.dtype.clone(), |width| format!("<U{width}"));
    header(to, &dtype, &shape, shape.iter().product()).map_err(Failed::Writing)?;
    for (path, member) in files.iter().zip(column) {
        let mut failed = None;
        let copied = with_values(path, &member.name, |own, reader| {
            // Cells that are narrower than the widest are copied one by one, and padded.
            let padding = match (widest, own.text_width()) {
                (Some(widest), Some(width)) => 4 * (widest - width),
                _ => 0,
            };
            let chunk = if padding == 0 { BUFFER } else { own.width().unwrap_or(BUFFER) };
            let (mut buffer, zeros, mut left) = (vec![0; chunk], vec![0; padding], own.bytes);
            while left > 0 {
                let part = &mut buffer[..(chunk as u64).min(left) as usize];
                reader.read_exact(part).map_err(|e| e.to_string())?;
                left -= part.len() as u64;
                if let Err(e) = to.write_all(part).and_then(|()| to.write_all(&zeros)) {
                    failed = Some(e);
                    return Err("cannot be copied".into());
                }
            }
            Ok(())
        });
        match (failed, copied) {
            (Some(e), _) => return Err(Failed::Writing(e)),
            (None, Err(e)) => return Err(Failed::Reading(e)),
            (None, Ok(())) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Npz, store::files::write_whole};

    fn npz(from: usize, to: usize) -> Npz {
        let mut npz = Npz::default();
        let count = to - from;
        npz.add("x", Array::F32(vec![count, 2], (2 * from..2 * to).map(|x| x as f32).collect()));
        npz.add("shared", Array::counts([3, 4]));
        npz.add("id", Array::Text((from..to).map(|i| "é".repeat(i) + "x").collect()));
        npz.add("n", Array::counts(from..to));
        npz.add("y", Array::floats((from..to).map(|i| i as f64 / 3.0)));
        npz.add("meta", Array::Scalar(format!("{from}")));
        npz
    }

    fn joined(files: &[Npz]) -> std::result::Result<Vec<u8>, String> {
        let temp = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..files.len()).map(|i| temp.path().join(format!("{i}.npz"))).collect();
        files.iter().zip(&paths).for_each(|(npz, path)| npz.save(path).unwrap());
        let out = temp.path().join("out.npz");
        match join(&out, &paths, &["shared"], ("meta", "all")) {
            Ok(rows) => {
                let Array::Text(ids) = Npz::read_array(&out, "id").unwrap() else { panic!("no texts") };
                assert_eq!(ids.len(), rows);
                Ok(std::fs::read(&out).unwrap())
            }
            Err(e) => {
                assert!(!out.exists(), "half of a file was left");
                Err(e.to_string())
            }
        }
    }

    #[test]
    fn joined_files_are_the_file_of_all_rows() {
        let mut whole = npz(0, 7);
        whole.0.last_mut().unwrap().1 = Array::Scalar("all".into());
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("whole.npz");
        whole.save(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for edges in [vec![0, 7], vec![0, 3, 7], vec![0, 1, 2, 6, 7]] {
            let files: Vec<Npz> = edges.windows(2).map(|edge| npz(edge[0], edge[1])).collect();
            assert!(joined(&files).unwrap() == bytes, "{edges:?}");
        }
        let Array::Text(ids) = Npz::read_array(&path, "id").unwrap() else { panic!("no texts") };
        assert_eq!(ids[..2], ["x", "éx"]);
        assert_eq!(Npz::read_array(&path, "meta").unwrap(), Array::Scalar("all".into()));
    }

    #[test]
    fn what_does_not_continue_is_refused() {
        let change = |name: &str, array: Array| {
            let mut other = npz(2, 4);
            other.0.iter_mut().find(|(key, _)| key == name).unwrap().1 = array;
            joined(&[npz(0, 2), other]).unwrap_err()
        };
        let shape = "has another type or shape than the first shard's";
        assert!(change("x", Array::F32(vec![2, 1], vec![0.0; 2])).contains(&format!("array 'x': {shape}")));
        assert!(change("n", Array::floats([1.0, 2.0])).contains(shape));
        assert!(change("id", Array::counts([1, 2])).contains(shape));
        assert!(change("n", Array::counts([1])).contains("array 'n': has not as many rows"));
        assert!(change("shared", Array::counts([3, 5])).contains("array 'shared': differs from the first shard's"));
        let mut more = npz(2, 4);
        more.add("z", Array::counts([1, 2]));
        assert!(joined(&[npz(0, 2), more]).unwrap_err().contains("holds other arrays than the first shard"));
    }

    #[test]
    fn texts_of_no_width_are_refused_unless_there_are_none() {
        let temp = tempfile::tempdir().unwrap();
        let (path, out) = (temp.path().join("in.npz"), temp.path().join("out.npz"));
        let joined = |rows: usize| {
            write_whole(&path, |file| {
                let mut zip = archive(file);
                zip.start_file("id.npy", member_options())?;
                // Its values are never made: they would take no bytes.
                header(&mut zip, "<U0", &[rows], rows)?;
                zip.finish()?;
                Ok(())
            })
            .unwrap();
            join(&out, &[path.clone(), path.clone()], &[], ("meta", "")).map_err(|e| e.to_string())
        };
        assert_eq!(joined(0), Ok(0));
        assert!(joined(1 << 50).unwrap_err().contains("array 'id': has 1125899906842624 texts without any width"));
    }

    #[test]
    fn a_damaged_file_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let (a, b, out) = (temp.path().join("a.npz"), temp.path().join("b.npz"), temp.path().join("out.npz"));
        npz(0, 2).save(&a).unwrap();
        npz(2, 4).save(&b).unwrap();
        let good = std::fs::read(&b).unwrap();
        let mut flipped = good.clone();
        let at = good.windows(4).position(|bytes| bytes == 5f32.to_le_bytes()).unwrap();
        flipped[at] ^= 1;
        for bad in [&flipped[..], &good[..good.len() / 2], b""] {
            std::fs::write(&b, bad).unwrap();
            let error = join(&out, &[a.clone(), b.clone()], &["shared"], ("meta", "all")).unwrap_err().to_string();
            assert!(error.contains("b.npz") && !error.contains("cannot write"), "{error}");
            assert!(!out.exists());
        }
    }
}
