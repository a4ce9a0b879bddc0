//! Reading `.npz` back: what [`Npz::save`] and `numpy.savez` write. What is not understood is refused, never guessed.

use std::{fs::File, io::Read, path::Path};

use zip::{CompressionMethod, ZipArchive};

use crate::{Array, Npz, Result, StudyError};

impl Npz {
    /// Reads every array of a file.
    ///
    /// # Errors
    /// If it cannot be read, or an array is compressed, in Fortran order, or neither f32, f64, i64 nor text, all
    /// little-endian; texts have one dimension or none.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(StudyError::read(path))?;
        let archive = |e: zip::result::ZipError| StudyError::content(path, format!("no npz archive: {e}"));
        let mut zip = ZipArchive::new(file).map_err(archive)?;
        let mut npz = Self::default();
        for index in 0..zip.len() {
            let mut member = zip.by_index(index).map_err(archive)?;
            let name = member.name().map_err(archive)?.into_owned();
            let wrong = |why: String| StudyError::content(path, format!("array '{name}': {why}"));
            if member.compression() != CompressionMethod::Stored {
                return Err(wrong("is compressed; numpy.savez writes it plain".into()));
            }
            let key = name.strip_suffix(".npy").ok_or_else(|| wrong("is no .npy".into()))?.to_string();
            let mut bytes = Vec::new();
            // The checksum is verified at the member's end.
            member.read_to_end(&mut bytes).map_err(|e| wrong(e.to_string()))?;
            npz.add(key, array(&bytes).map_err(wrong)?);
        }
        Ok(npz)
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
    let Header { dtype, shape } = Header::parse(header)?;
    let data = &bytes[start + len..];
    let count = shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim)).ok_or("has an absurd shape")?;
    let width = match dtype.as_str() {
        "<f4" => 4,
        "<f8" | "<i8" => 8,
        text => {
            let characters = text.strip_prefix("<U").and_then(|n| n.parse::<usize>().ok());
            let Some(characters) = characters.filter(|_| shape.len() <= 1) else {
                let dims = shape.len();
                return Err(format!("is {dtype} of {dims} dimensions; known are <f4, <f8, <i8, and <U of at most one"));
            };
            characters.checked_mul(4).ok_or("has an absurd width")?
        }
    };
    if count.checked_mul(width) != Some(data.len()) {
        return Err(format!("holds {} bytes, but its shape {shape:?} of {dtype} takes others", data.len()));
    }
    Ok(match dtype.as_str() {
        "<f4" => Array::F32(shape, numbers(data, f32::from_le_bytes)),
        "<f8" => Array::F64(shape, numbers(data, f64::from_le_bytes)),
        "<i8" => Array::I64(shape, numbers(data, i64::from_le_bytes)),
        _ => {
            let texts = (0..count).map(|i| text(&data[i * width..(i + 1) * width]));
            let mut texts = texts.collect::<std::result::Result<Vec<_>, _>>()?;
            if shape.is_empty() { Array::Scalar(texts.remove(0)) } else { Array::Text(texts) }
        }
    })
}

fn numbers<const N: usize, T>(data: &[u8], of: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.chunks_exact(N).map(|bytes| of(bytes.try_into().expect("a chunk of N bytes"))).collect()
}

/// A text of four bytes a character, padded with NUL.
fn text(data: &[u8]) -> std::result::Result<String, String> {
    let codes = numbers(data, u32::from_le_bytes);
    let len = codes.iter().rposition(|&code| code != 0).map_or(0, |last| last + 1);
    codes[..len].iter().map(|&code| char::from_u32(code).ok_or(format!("{code:#x} is no character"))).collect()
}

struct Header {
    dtype: String,
    shape: Vec<usize>,
}

impl Header {
    /// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
    fn parse(text: &str) -> std::result::Result<Self, String> {
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
        // The order of fewer than two dimensions means nothing.
        match value("fortran_order").ok_or_else(wrong)? {
            rest if rest.starts_with("False") || shape.len() < 2 => Ok(Self { dtype, shape }),
            rest if rest.starts_with("True") => Err("is in Fortran order".into()),
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

    #[test]
    fn what_is_not_understood_is_refused() {
        for (name, part) in [
            ("compressed", "is compressed"),
            ("fortran", "array 'x.npy': is in Fortran order"),
            ("f2", "array 'x.npy': is <f2 of 1 dimensions"),
            ("big_endian", "is >f4"),
            ("object", "is |O"),
            ("bool", "is |b1"),
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
        assert!(array(b"\x93NUMPY\x01\x00\xff\xff{").is_err() && array(b"\x93NUMPY").is_err() && array(b"").is_err());
        assert!(array(b"\x93NUMPY\x09\x00\x00\x00").unwrap_err().contains("version 9"));
        let no_character = npy(&good.replace("<f4", "<U1"), &[0xff; 8]);
        assert!(no_character.unwrap_err().contains("is no character"));
    }
}
