//! Joining the shards of a capture: the `.npz` that the whole capture would have written.

use std::path::{Path, PathBuf};

use crate::{
    Array, FeatureMeta, Npz, Result, Shard, ShardMeta, StudyError,
    shards::{all_once, differ_in},
};

/// Arrays that say something about the model and not about the items: equal in all shards.
const SHARED: [&str; 4] = ["layers", "slot_layer", "slot_head", "slot_name"];
const META: &str = "meta";

/// A shard's file.
struct File {
    path: PathBuf,
    npz: Npz,
    meta: FeatureMeta,
    shard: ShardMeta,
    index: Shard,
}

impl File {
    fn read(path: &Path) -> Result<Self> {
        let npz = Npz::read(path)?;
        let Some(Array::Scalar(text)) = npz.get(META) else {
            return Err(StudyError::content(path, "has no text 'meta', so `temper capture` did not write it"));
        };
        let mut meta: FeatureMeta = serde_json::from_str(text).map_err(|e| StudyError::content(path, e))?;
        let Some(shard) = meta.shard.take() else {
            return Err(StudyError::merge(format!("{} holds a whole capture", path.display())));
        };
        let index = shard.part.parse()?;
        Ok(Self { path: path.into(), npz, meta, shard, index })
    }
}

/// Joins the shards of a capture into `out`; returns how many items it holds.
///
/// # Errors
/// If a file is no shard of a capture, if they belong to different captures (naming what differs), or if one is missing
/// or stands there twice.
pub fn merge_features(out: &Path, shards: &[PathBuf]) -> Result<usize> {
    let mut files = shards.iter().map(|path| File::read(path)).collect::<Result<Vec<_>>>()?;
    let first = &files[0];
    for other in &files[1..] {
        let differ = other.shard.parts.changes(&first.shard.parts);
        if !differ.is_empty() || other.shard.key != first.shard.key || other.meta != first.meta {
            return Err(differ_in(&first.path, &other.path, &differ));
        }
    }
    all_once(&files.iter().map(|file| (file.index, file.path.as_path())).collect::<Vec<_>>())?;
    files.sort_by_key(|file| file.index);
    let meta = serde_json::to_string(&files[0].meta).expect("plain data has a JSON form");
    let mut files = files.into_iter();
    let mut joined = files.next().expect("there is one at least").npz;
    for file in files {
        append(&mut joined, file.npz).map_err(|why| StudyError::content(&file.path, why))?;
    }
    for (name, array) in &mut joined.0 {
        if name == META {
            *array = Array::Scalar(meta.clone());
        }
    }
    joined.save(out)?;
    match joined.get("id") {
        Some(Array::Text(ids)) => Ok(ids.len()),
        _ => Err(StudyError::content(out, "has no texts 'id'")),
    }
}

/// Puts the items of one file behind those of another.
fn append(joined: &mut Npz, next: Npz) -> std::result::Result<(), String> {
    if !joined.names().eq(next.names()) {
        return Err("holds other arrays than the first shard".into());
    }
    for ((name, array), (_, next)) in joined.0.iter_mut().zip(next.0) {
        if SHARED.contains(&name.as_str()) {
            if *array != next {
                return Err(format!("array '{name}' differs from the first shard's"));
            }
        } else if name != META {
            array
                .append(next)
                .map_err(|()| format!("array '{name}' has another type or shape than the first shard's"))?;
        }
    }
    Ok(())
}

impl Array {
    /// Puts the rows of another array behind one's own; an error if type or shape differ beyond the first dimension.
    fn append(&mut self, next: Self) -> std::result::Result<(), ()> {
        fn rows<T>(
            (shape, values): (&mut Vec<usize>, &mut Vec<T>),
            (next_shape, next): (Vec<usize>, Vec<T>),
        ) -> std::result::Result<(), ()> {
            if shape.is_empty() || shape.len() != next_shape.len() || shape[1..] != next_shape[1..] {
                return Err(());
            }
            shape[0] += next_shape[0];
            values.extend(next);
            Ok(())
        }
        match (self, next) {
            (Self::F32(shape, values), Self::F32(s, v)) => rows((shape, values), (s, v)),
            (Self::F64(shape, values), Self::F64(s, v)) => rows((shape, values), (s, v)),
            (Self::I64(shape, values), Self::I64(s, v)) => rows((shape, values), (s, v)),
            (Self::Text(texts), Self::Text(next)) => {
                texts.extend(next);
                Ok(())
            }
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_joined_and_other_shapes_are_not() {
        let f32s = |rows: usize, columns: usize| Array::F32(vec![rows, columns], vec![1.0; rows * columns]);
        let mut array = f32s(2, 3);
        array.append(f32s(1, 3)).unwrap();
        assert_eq!(array, f32s(3, 3));
        for other in [f32s(1, 2), Array::F32(vec![3], vec![0.0; 3]), Array::counts([1]), Array::Text(Vec::new())] {
            assert!(array.append(other).is_err());
        }
        assert!(Array::Scalar("a".into()).append(Array::Scalar("b".into())).is_err());
    }
}
