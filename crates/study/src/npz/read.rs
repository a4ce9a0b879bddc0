//! Reading `.npz`: what [`Npz::save`], `numpy.savez` and `numpy.savez_compressed` write. What is not understood is refused,
//! never guessed.

use std::{
    io::{self, Read},
    path::Path,
};

use half::f16;
use zip::CompressionMethod;

use super::{Opened, open};
use crate::{Array, Npz, Result, StudyError};

impl Npz {
    /// Reads every array of a file.
    ///
    /// # Errors
    /// If it cannot be read, or an array is of a type other than little-endian floats (f2, f4, f8), integers, truth values and
    /// texts. Texts must have one dimension or none.
    pub fn read(path: &Path) -> Result<Self> {
        let mut archive = Archive::open(path)?;
        let mut npz = Self::default();
        for index in 0..archive.zip.len() {
            let (key, array) = archive.array(index)?;
            npz.add(key, array);
        }
        Ok(npz)
    }

    /// Reads one array of a file, whatever the others are.
    ///
    /// # Errors
    /// If there is none of this name, saying which there are; else as [`Npz::read`].
    pub fn read_array(path: &Path, name: &str) -> Result<Array> {
        let mut archive = Archive::open(path)?;
        archive.find(name)?.ok_or_else(|| {
            let why = format!("has no array '{name}'; it has {}", archive.names().join(", "));
            StudyError::content(path, why)
        })
    }

    /// Reads a file to its end, one member after the other, without keeping anything: their checksums say whether it is as it was written.
    ///
    /// # Errors
    /// If it cannot be read, or is damaged.
    pub(crate) fn check_whole(path: &Path) -> Result<()> {
        let mut archive = Archive::open(path)?;
        for index in 0..archive.zip.len() {
            let wrong = |e: &dyn std::fmt::Display| StudyError::content(path, format!("is damaged: {e}"));
            let mut member = archive.zip.by_index(index).map_err(|e| wrong(&e))?;
            io::copy(&mut member, &mut io::sink()).map_err(|e| wrong(&e))?;
        }
        Ok(())
    }

    /// The names of the arrays of a file, in order.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn names_in(path: &Path) -> Result<Vec<String>> {
        Archive::open(path).map(|archive| archive.names())
    }

    /// As [`Npz::read_array`]; none if there is none of this name.
    ///
    /// # Errors
    /// As [`Npz::read`].
    pub(crate) fn find_array(path: &Path, name: &str) -> Result<Option<Array>> {
        Archive::open(path)?.find(name)
    }

    /// An array by its name.
    pub fn get(&self, name: &str) -> Option<&Array> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, array)| array)
    }

    /// The names of all arrays, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

/// An open file.
struct Archive<'a> {
    path: &'a Path,
    zip: Opened,
}

impl<'a> Archive<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        Ok(Self { path, zip: open(path)? })
    }

    /// The names of the arrays.
    fn names(&self) -> Vec<String> {
        // A name that is not text keeps its place, and matches nothing.
        let names = self.zip.file_names().map(std::result::Result::unwrap_or_default);
        names.map(|name| name.strip_suffix(".npy").unwrap_or(&name).to_string()).collect()
    }

    /// The array of this name, if there is one.
    fn find(&mut self, name: &str) -> Result<Option<Array>> {
        let index = self.names().iter().position(|there| there == name);
        index.map(|index| self.array(index).map(|(_, array)| array)).transpose()
    }

    /// The array at this place, and its name.
    fn array(&mut self, index: usize) -> Result<(String, Array)> {
        let path = self.path;
        let archive = |e: zip::result::ZipError| StudyError::content(path, format!("no npz archive: {e}"));
        let mut member = self.zip.by_index(index).map_err(archive)?;
        let name = member.name().map_err(archive)?.into_owned();
        let wrong = |why: String| StudyError::content(path, format!("array '{name}': {why}"));
        if ![CompressionMethod::Stored, CompressionMethod::Deflated].contains(&member.compression()) {
            return Err(wrong(format!("is compressed by {}; numpy stores or deflates", member.compression())));
        }
        let key = name.strip_suffix(".npy").ok_or_else(|| wrong("is no .npy".into()))?.to_string();
        // The size is only a claim.
        let mut bytes = Vec::with_capacity(member.size().min(1 << 28) as usize);
        // The checksum is verified at the member's end.
        member.read_to_end(&mut bytes).map_err(|e| wrong(e.to_string()))?;
        Ok((key, array(&bytes).map_err(wrong)?))
    }
}

/// Reads one `.npy`: magic, version, length of the header, header, values.
fn array(bytes: &[u8]) -> std::result::Result<Array, String> {
    let cut = || "is cut off".to_string();
    if !bytes.starts_with(b"\x93NUMPY") {
        return Err("does not begin as .npy does".into());
    }
    let (start, len) = match *bytes.get(6).ok_or_else(cut)? {
        1 => (10, u16::from_le_bytes(bytes.get(8..10).ok_or_else(cut)?.try_into().expect("two bytes")) as usize),
        2 | 3 => (12, u32::from_le_bytes(bytes.get(8..12).ok_or_else(cut)?.try_into().expect("four bytes")) as usize),
        version => return Err(format!("is of version {version} of .npy; 1 to 3 are known")),
    };
    let header = bytes.get(start..start + len).ok_or_else(cut)?;
    let header = std::str::from_utf8(header).map_err(|e| e.to_string())?;
    let Header { dtype, shape, fortran } = Header::parse(header)?;
    let data = &bytes[start + len..];
    let count = shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim)).ok_or("has an absurd shape")?;
    let width = width(&dtype, shape.len())?;
    has_width(&dtype, count, width)?;
    if count.checked_mul(width) != Some(data.len()) {
        return Err(format!("holds {} bytes, but its shape {shape:?} of {dtype} takes others", data.len()));
    }
    // In fewer than two dimensions the order means nothing.
    let fortran = fortran && shape.len() > 1;
    Ok(match dtype.as_str() {
        "<f2" => Array::F32(shape.clone(), row_major(fortran, &shape, numbers(data, |b| f16::from_le_bytes(b).into()))),
        "<f4" => Array::F32(shape.clone(), row_major(fortran, &shape, numbers(data, f32::from_le_bytes))),
        "<f8" => Array::F64(shape.clone(), row_major(fortran, &shape, numbers(data, f64::from_le_bytes))),
        _ if dtype.contains(['U', 'S']) => {
            let texts = (0..count).map(|i| text(&data[i * width..(i + 1) * width], dtype.starts_with("<U")));
            let mut texts = texts.collect::<std::result::Result<Vec<_>, _>>()?;
            if shape.is_empty() { Array::Scalar(texts.remove(0)) } else { Array::Text(texts) }
        }
        _ => Array::I64(shape.clone(), row_major(fortran, &shape, integers(&dtype, data)?)),
    })
}

/// Refuses values that take no bytes: a file of a few bytes could claim any number of them.
pub(crate) fn has_width(dtype: &str, count: usize, width: usize) -> std::result::Result<(), String> {
    if width == 0 && count > 0 {
        return Err(format!("has {count} texts without any width ({dtype}); empty texts are written as <U1"));
    }
    Ok(())
}

/// Bytes of one value.
fn width(dtype: &str, dimensions: usize) -> std::result::Result<usize, String> {
    let length = |prefix: &str| dtype.strip_prefix(prefix).and_then(|n| n.parse::<usize>().ok());
    match dtype {
        "|b1" | "|i1" | "|u1" => Ok(1),
        "<f2" | "<i2" | "<u2" => Ok(2),
        "<f4" | "<i4" | "<u4" => Ok(4),
        "<f8" | "<i8" | "<u8" => Ok(8),
        "|O" => {
            Err("holds Python objects, which are a pickle; save numbers, or texts as numpy.array(list, dtype=str)"
                .into())
        }
        _ => match (length("<U"), length("|S")) {
            (Some(n), _) if dimensions <= 1 => n.checked_mul(4).ok_or("has an absurd width".into()),
            (_, Some(n)) if dimensions <= 1 => Ok(n),
            _ => Err(format!(
                "is {dtype} of {dimensions} dimensions; known are little-endian floats and integers, truth values, and \
                 texts of at most one dimension"
            )),
        },
    }
}

fn integers(dtype: &str, data: &[u8]) -> std::result::Result<Vec<i64>, String> {
    Ok(match dtype {
        "|b1" | "|u1" => numbers(data, |b| u8::from_le_bytes(b).into()),
        "|i1" => numbers(data, |b| i8::from_le_bytes(b).into()),
        "<i2" => numbers(data, |b| i16::from_le_bytes(b).into()),
        "<u2" => numbers(data, |b| u16::from_le_bytes(b).into()),
        "<i4" => numbers(data, |b| i32::from_le_bytes(b).into()),
        "<u4" => numbers(data, |b| u32::from_le_bytes(b).into()),
        "<i8" => numbers(data, i64::from_le_bytes),
        _ => {
            let large = |value: u64| i64::try_from(value).map_err(|_| format!("holds {value}, which no i64 does"));
            numbers(data, u64::from_le_bytes).into_iter().map(large).collect::<std::result::Result<_, _>>()?
        }
    })
}

/// Values in row-major order, from Fortran order.
fn row_major<T: Copy>(fortran: bool, shape: &[usize], values: Vec<T>) -> Vec<T> {
    if !fortran {
        return values;
    }
    let mut at = vec![0; shape.len()];
    let strides: Vec<usize> = (0..shape.len()).map(|axis| shape[..axis].iter().product()).collect();
    let next = |_| {
        let value = values[at.iter().zip(&strides).map(|(i, stride)| i * stride).sum::<usize>()];
        for axis in (0..shape.len()).rev() {
            at[axis] += 1;
            if at[axis] < shape[axis] {
                break;
            }
            at[axis] = 0;
        }
        value
    };
    (0..values.len()).map(next).collect()
}

fn numbers<const N: usize, T>(data: &[u8], of: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.chunks_exact(N).map(|bytes| of(bytes.try_into().expect("a chunk of N bytes"))).collect()
}

/// A text of four bytes per character, or of UTF-8, padded with NUL.
pub(crate) fn text(data: &[u8], wide: bool) -> std::result::Result<String, String> {
    if !wide {
        let len = data.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        return String::from_utf8(data[..len].to_vec()).map_err(|e| e.to_string());
    }
    let codes = numbers(data, u32::from_le_bytes);
    let len = codes.iter().rposition(|&code| code != 0).map_or(0, |last| last + 1);
    codes[..len].iter().map(|&code| char::from_u32(code).ok_or(format!("{code:#x} is no character"))).collect()
}

/// What the header of a `.npy` says.
pub(crate) struct Header {
    pub(crate) dtype: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) fortran: bool,
}

impl Header {
    /// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
    pub(crate) fn parse(text: &str) -> std::result::Result<Self, String> {
        let wrong = || format!("has the header {}", text.trim());
        let value = |key: &str| {
            let (_, rest) = text.split_once(&format!("'{key}':"))?;
            Some(rest.trim_start())
        };
        let between = |open: &str, rest: &str, close: char| -> Option<String> {
            Some(rest.strip_prefix(open)?.split_once(close)?.0.into())
        };
        let dtype = value("descr").and_then(|rest| between("'", rest, '\'')).ok_or_else(wrong)?;
        let dims = value("shape").and_then(|rest| between("(", rest, ')')).ok_or_else(wrong)?;
        let dims = dims.split(',').map(str::trim).filter(|dim| !dim.is_empty());
        let shape = dims.map(|dim| dim.parse().map_err(|_| wrong())).collect::<std::result::Result<Vec<usize>, _>>()?;
        match value("fortran_order").ok_or_else(wrong)? {
            rest if rest.starts_with("False") => Ok(Self { dtype, shape, fortran: false }),
            rest if rest.starts_with("True") => Ok(Self { dtype, shape, fortran: true }),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
    }

    fn sample() -> Npz {
        let mut npz = Npz::default();
        npz.add("f4", Array::F32(vec![2, 1, 3], vec![0.5, -0.0, 1e-40, f32::INFINITY, 3.25, -1e30]));
        npz.add("f8", Array::floats([0.1, -2.5e-300]));
        npz.add("i8", Array::I64(vec![2, 2], vec![0, -1, i64::MAX, i64::MIN]));
        npz.add("text", Array::Text(vec!["a".into(), String::new(), "réponse 你好 🌍".into(), " b ".into()]));
        npz.add("one", Array::Text(vec!["only".into()]));
        npz.add("empty", Array::F32(vec![0, 4], Vec::new()));
        npz.add("meta", Array::Scalar("{\"λ\": 1}".into()));
        npz
    }

    #[test]
    fn what_was_written_is_read_back() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("x.npz");
        sample().save(&path).unwrap();
        assert_eq!(Npz::read(&path).unwrap(), sample());
    }

    /// `fixtures/numpy.npz` is what numpy writes of the same arrays: `fixtures/make_npz.py`.
    #[test]
    fn what_numpy_writes_is_read() {
        assert_eq!(Npz::read(&fixture("numpy.npz")).unwrap(), sample());
    }

    /// The other ways in which numpy lays out the same numbers.
    #[test]
    fn other_layouts_are_read() {
        let read = |name: &str| Npz::read(&fixture(&format!("{name}.npz"))).unwrap().0.remove(0).1;
        let x = Array::F32(vec![2, 3], (0..6u8).map(f32::from).collect());
        assert_eq!((read("compressed"), read("fortran")), (x.clone(), x));
        assert_eq!(read("f2"), Array::F32(vec![3], vec![0.0, 1.0, 2.0]));
        assert_eq!(read("bool"), Array::I64(vec![2, 3], vec![0, 0, 1, 1, 1, 1]));
        let small = Npz::read(&fixture("small.npz")).unwrap();
        let names: Vec<&str> = small.names().collect();
        assert_eq!(names, ["i1", "u1", "i2", "u2", "i4", "u4", "u8", "bytes", "deep"]);
        for (name, array) in &small.0[..7] {
            let (low, high) = (if name.starts_with('i') { -3 } else { 3 }, 100);
            assert_eq!(array, &Array::I64(vec![2], vec![low, high]), "{name}");
        }
        assert_eq!(small.get("bytes"), Some(&Array::Text(vec!["a".into(), "é".into()])));
        assert_eq!(small.get("deep"), Some(&Array::F64(vec![2, 3, 2], (0..12u8).map(f64::from).collect())));
    }

    #[test]
    fn one_array_is_read_whatever_the_others_are() {
        let path = fixture("mixed.npz");
        assert!(Npz::read(&path).is_err());
        assert_eq!(Npz::read_array(&path, "x").unwrap(), Array::F64(vec![2], vec![1.0, 2.0]));
        assert_eq!(Npz::find_array(&path, "h_last").unwrap(), None);
        let error = Npz::read_array(&path, "h_last").unwrap_err().to_string();
        assert!(error.contains("has no array 'h_last'; it has prompts, x"), "{error}");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (name, part) in [
            ("big_endian", "is >f4"),
            ("object", "array 'x.npy': holds Python objects"),
            ("texts_2d", "is <U1 of 2 dimensions"),
        ] {
            let error = Npz::read(&fixture(&format!("{name}.npz"))).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("x.npz");
        sample().save(&path).unwrap();
        let good = std::fs::read(&path).unwrap();
        let mut flipped = good.clone();
        let at = good.windows(4).position(|bytes| bytes == 3.25f32.to_le_bytes()).unwrap();
        flipped[at] ^= 1;
        for bad in [&good[..good.len() / 2], &flipped[..], b"PK", b""] {
            std::fs::write(&path, bad).unwrap();
            assert!(Npz::read(&path).is_err());
        }
    }

    #[test]
    fn a_header_must_fit_its_values() {
        let npy = |header: &str, data: &[u8]| {
            let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
            bytes.extend((header.len() as u16).to_le_bytes());
            bytes.extend(header.as_bytes());
            bytes.extend(data);
            array(&bytes)
        };
        let good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n";
        assert_eq!(npy(good, &[0; 8]), Ok(Array::F32(vec![2], vec![0.0; 2])));
        for (header, data) in [
            (good.into(), 4),
            (good.replace("2,", "18446744073709551615, 2"), 8),
            (good.replace("2,", "-2,"), 8),
            (good.replace("(2,)", "2"), 8),
            (good.replace("<f4", "<U18446744073709551615"), 8),
            (good.replace("'descr'", "'type'"), 8),
        ] {
            assert!(npy(&header, &vec![0; data]).is_err(), "{header}");
        }
        for dtype in ["<U0", "|S0"] {
            let texts = |shape: &str| npy(&good.replace("<f4", dtype).replace("(2,)", shape), &[]);
            assert_eq!(texts("(0,)"), Ok(Array::Text(Vec::new())));
            assert!(texts("(281474976710656,)").unwrap_err().contains("texts without any width"));
            assert!(texts("()").is_err());
        }
        assert!(array(b"\x93NUMPY\x01\x00\xff\xff{").is_err() && array(b"\x93NUMPY").is_err() && array(b"").is_err());
        assert!(array(b"\x93NUMPY\x09\x00\x00\x00").unwrap_err().contains("version 9"));
        let no_character = npy(&good.replace("<f4", "<U1"), &[0xff; 8]);
        assert!(no_character.unwrap_err().contains("is no character"));
    }
}
