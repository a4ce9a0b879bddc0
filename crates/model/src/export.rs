//! Folds λ into the weights: a head's columns of the output projection are multiplied by its λ.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
};

use candle_core::DType;
use half::{bf16, f16};
use headtemper_hook::{HeadPlan, ModelSpec};

use crate::{
    Loaded, ModelError, stored_tensors,
    weights::{column_factors, name_in_layer},
};

/// The changes to a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Folded {
    /// The names of the changed tensors, as in the file.
    pub changed: Vec<String>,
    /// The largest relative error of a changed weight, from rounding to the type it is stored in.
    pub rounding: f64,
    /// Whether any byte differs: weights that are zero stay so under every λ.
    pub differs: bool,
}

#[cfg(unix)]
fn make_writable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut permissions = fs::metadata(path)?.permissions();
    permissions.set_mode(permissions.mode() | 0o200);
    fs::set_permissions(path, permissions)
}

#[cfg(not(unix))]
fn make_writable(path: &Path) -> std::io::Result<()> {
    let mut permissions = fs::metadata(path)?.permissions();
    permissions.set_readonly(false);
    fs::set_permissions(path, permissions)
}

/// Copies a safetensors file with a plan folded into the output projections that it holds. Everything else stays as it is, byte
/// for byte: names, order, types, metadata.
///
/// # Errors
/// If a file cannot be read or written, the plan names heads that the model does not have, a projection has another
/// width than the model's, or a weight times λ exceeds the range of its type.
pub fn fold_file(from: &Path, to: &Path, plan: &HeadPlan, spec: &ModelSpec) -> Loaded<Folded> {
    plan.check(spec)?;
    plan.check_foldable()?;
    let factors = column_factors(plan, spec);
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ModelError::Read { path: path.clone(), source }
    };
    fs::copy(from, to).map_err(|source| ModelError::Copy { from: from.into(), to: to.into(), source })?;
    // A copy has the permissions of what it is of, which may be for reading alone.
    make_writable(to).map_err(io(to))?;
    let mut file = fs::OpenOptions::new().read(true).write(true).open(to).map_err(io(to))?;
    let mut folded = Folded::default();
    for tensor in stored_tensors(from)? {
        let Some(columns) = name_in_layer(&tensor.name).and_then(|name| factors.get(&name)) else { continue };
        if tensor.shape.get(1) != Some(&columns.len()) {
            let expected = vec![spec.d_model, columns.len()];
            return Err(ModelError::Shape { name: tensor.name, found: tensor.shape, expected });
        }
        let mut bytes = vec![0u8; tensor.bytes.len()];
        file.seek(SeekFrom::Start(tensor.bytes.start as u64)).map_err(io(to))?;
        file.read_exact(&mut bytes).map_err(io(to))?;
        let before = bytes.clone();
        let error = match tensor.dtype {
            Some(DType::F32) => scale::<4>(&mut bytes, columns, f32::from_le_bytes, f32::to_le_bytes),
            Some(DType::BF16) => scale::<2>(
                &mut bytes,
                columns,
                |b| bf16::from_le_bytes(b).to_f32(),
                |x| bf16::from_f32(x).to_le_bytes(),
            ),
            Some(DType::F16) => {
                scale::<2>(&mut bytes, columns, |b| f16::from_le_bytes(b).to_f32(), |x| f16::from_f32(x).to_le_bytes())
            }
            _ => {
                let (found, allowed) = ("a type we do not compute with".into(), "F32, F16, BF16");
                return Err(ModelError::Dtype { name: tensor.name, found, allowed });
            }
        };
        if !error.is_finite() {
            let dtype = tensor.dtype.map_or_else(String::new, |dtype| format!("{dtype:?}"));
            return Err(ModelError::Overflow { name: tensor.name, dtype });
        }
        file.seek(SeekFrom::Start(tensor.bytes.start as u64)).map_err(io(to))?;
        file.write_all(&bytes).map_err(io(to))?;
        folded.rounding = folded.rounding.max(error);
        folded.differs |= bytes != before;
        folded.changed.push(tensor.name);
    }
    Ok(folded)
}

/// The output projections that a plan changes, by their names in a text model.
pub fn folded_names(plan: &HeadPlan, spec: &ModelSpec) -> Vec<String> {
    let factors: BTreeMap<_, _> = column_factors(plan, spec);
    factors.into_keys().collect()
}

/// Scales the columns of a row-major matrix. Returns the largest relative error of a product that is not subnormal; it is infinite
/// if the type cannot hold a product.
fn scale<const N: usize>(
    bytes: &mut [u8],
    factors: &[f32],
    read: impl Fn([u8; N]) -> f32,
    write: impl Fn(f32) -> [u8; N],
) -> f64 {
    let mut worst = 0f64;
    let (values, _) = bytes.as_chunks_mut::<N>();
    for (value, &factor) in values.iter_mut().zip(factors.iter().cycle()) {
        if factor == 1.0 {
            continue;
        }
        let exact = f64::from(read(*value)) * f64::from(factor);
        *value = write(exact as f32);
        if exact.abs() > f64::from(f32::MIN_POSITIVE) {
            worst = worst.max(((f64::from(read(*value)) - exact) / exact).abs());
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_type_cannot_hold_is_told() {
        let scaled = |value: f32, factor: f32| {
            let mut bytes = f16::from_f32(value).to_le_bytes();
            scale::<2>(&mut bytes, &[factor], |b| f16::from_le_bytes(b).to_f32(), |x| f16::from_f32(x).to_le_bytes())
        };
        assert!(scaled(0.5, 3.0) == 0.0 && scaled(0.5, 0.3) < 1e-3);
        assert!(scaled(0.5, 1e6).is_infinite(), "65504 is the most");
    }
}
