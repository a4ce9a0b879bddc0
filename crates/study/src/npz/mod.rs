//! Writing `.npz`: what `numpy.load(allow_pickle=False)` opens, texts included, of any size.

pub(crate) mod join;
pub(crate) mod read;

use std::{
    fs::File,
    io::{self, BufReader, Seek, Write},
    path::Path,
};

use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

use crate::{Result, StudyError, store::files::write_whole};

/// Bytes that are read or copied at once.
const BUFFER: usize = 1 << 18;

/// An open file.
type Opened = ZipArchive<BufReader<File>>;

fn open(path: &Path) -> Result<Opened> {
    let file = File::open(path).map_err(StudyError::read(path))?;
    ZipArchive::new(BufReader::with_capacity(BUFFER, file))
        .map_err(|e| StudyError::content(path, format!("no npz archive: {e}")))
}

/// An array, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// 32-bit floats.
    F32(Vec<usize>, Vec<f32>),
    /// 64-bit floats.
    F64(Vec<usize>, Vec<f64>),
    /// 64-bit integers.
    I64(Vec<usize>, Vec<i64>),
    /// Texts, one dimension.
    Text(Vec<String>),
    /// A single text, no dimension.
    Scalar(String),
}

impl Array {
    /// Its type and shape, as people read them.
    pub(crate) fn form(&self) -> String {
        match self {
            Self::F32(shape, _) => format!("f32 {shape:?}"),
            Self::F64(shape, _) => format!("f64 {shape:?}"),
            Self::I64(shape, _) => format!("i64 {shape:?}"),
            Self::Text(texts) => format!("texts [{}]", texts.len()),
            Self::Scalar(_) => "one text".into(),
        }
    }

    /// A vector of counts.
    pub fn counts(values: impl IntoIterator<Item = usize>) -> Self {
        let values: Vec<i64> = values.into_iter().map(|v| v as i64).collect();
        Self::I64(vec![values.len()], values)
    }

    /// A vector of 64-bit floats.
    pub fn floats(values: impl IntoIterator<Item = f64>) -> Self {
        let values: Vec<f64> = values.into_iter().collect();
        Self::F64(vec![values.len()], values)
    }

    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::F32(shape, values) => {
                header(out, "<f4", shape, values.len())?;
                values.iter().try_for_each(|v| out.write_all(&v.to_le_bytes()))
            }
            Self::F64(shape, values) => {
                header(out, "<f8", shape, values.len())?;
                values.iter().try_for_each(|v| out.write_all(&v.to_le_bytes()))
            }
            Self::I64(shape, values) => {
                header(out, "<i8", shape, values.len())?;
                values.iter().try_for_each(|v| out.write_all(&v.to_le_bytes()))
            }
            Self::Text(texts) => write_texts(out, &[texts.len()], texts),
            Self::Scalar(text) => write_texts(out, &[], std::slice::from_ref(text)),
        }
    }
}

/// How members are written: stored, since floats do not compress and stored members can be mapped; with zip64, for any size.
pub(crate) fn member_options() -> SimpleFileOptions {
    SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true)
}

/// The npy 1.0 header: magic, version, length, a Python literal padded to 64 bytes.
pub(crate) fn header(out: &mut impl Write, dtype: &str, shape: &[usize], len: usize) -> io::Result<()> {
    assert_eq!(shape.iter().product::<usize>(), len, "the shape holds the values");
    let dims: String = shape.iter().map(|n| format!("{n}, ")).collect();
    let dims = if shape.len() == 1 { dims.trim_end().to_string() } else { dims.trim_end_matches(", ").to_string() };
    let mut text = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({dims}), }}");
    while (10 + text.len() + 1) % 64 != 0 {
        text.push(' ');
    }
    text.push('\n');
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&(text.len() as u16).to_le_bytes())?;
    out.write_all(text.as_bytes())
}

/// Unicode arrays hold every text at the width of the longest, four bytes per character.
fn write_texts(out: &mut impl Write, shape: &[usize], texts: &[String]) -> io::Result<()> {
    let width = texts.iter().map(|text| text.chars().count()).max().unwrap_or(0).max(1);
    header(out, &format!("<U{width}"), shape, texts.len())?;
    for text in texts {
        let mut left = width;
        for c in text.chars() {
            out.write_all(&u32::from(c).to_le_bytes())?;
            left -= 1;
        }
        out.write_all(&vec![0; 4 * left])?;
    }
    Ok(())
}

/// An archive that is begun in a file.
fn archive<W: Write + Seek>(file: W) -> ZipWriter<ToldOnce<W>> {
    ZipWriter::new(ToldOnce { file, failed: false })
}

/// A file that tells of its first failure only. An archive that is dropped unfinished tries to write its end, and would print that this
/// failed as well.
struct ToldOnce<W> {
    file: W,
    failed: bool,
}

impl<W: Write> Write for ToldOnce<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.failed {
            return Ok(bytes.len());
        }
        let written = self.file.write(bytes);
        self.failed = written.as_ref().is_err_and(|e| e.kind() != io::ErrorKind::Interrupted);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.failed { Ok(()) } else { self.file.flush() }
    }
}

impl<W: Seek> Seek for ToldOnce<W> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// Named arrays, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Npz(pub(crate) Vec<(String, Array)>);

impl Npz {
    /// Adds an array.
    pub fn add(&mut self, name: impl Into<String>, array: Array) -> &mut Self {
        self.0.push((name.into(), array));
        self
    }

    /// Writes the file; it appears whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        write_whole(path, |file| self.write(file))
    }

    fn write(&self, file: &mut (impl Write + Seek)) -> io::Result<()> {
        let mut zip = archive(file);
        for (name, array) in &self.0 {
            zip.start_file(format!("{name}.npy"), member_options())?;
            let mut buffered = io::BufWriter::with_capacity(1 << 16, &mut zip);
            array.write(&mut buffered)?;
            buffered.flush()?;
        }
        zip.finish()?;
        Ok(())
    }
}
