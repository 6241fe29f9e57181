//! Pickled batches of images: a dictionary with a NumPy array `data` of bytes, a row an image, and a list of labels.

use std::borrow::Cow;

use crate::pickle::{self, Value};

/// A NumPy array as it is pickled.
struct Array<'a> {
    /// NumPy's name of the type, for example `u1` for a byte.
    kind: &'a str,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

/// An array in row order. Its state is (version, shape, type, column order, bytes); from protocol 5 on an array is made
/// from (bytes, type, shape, order).
fn array<'a>(value: Value<'_, 'a>) -> Option<Array<'a>> {
    let (by, from, state) = value.made()?;
    let (bytes, kind, shape) = match (by, state.unwrap_or(from).items()?.as_slice()) {
        ("_reconstruct", [_, shape, kind, columns, bytes]) if columns.bool() == Some(false) => {
            (*bytes, *kind, *shape)
        }
        ("_frombuffer", [bytes, kind, shape, order, ..]) if order.name() == Some("C") => {
            (*bytes, *kind, *shape)
        }
        _ => return None,
    };
    let ("dtype", name, _) = kind.made()? else {
        return None;
    };
    let sides = shape.items().filter(|sides| sides.len() <= 4)?;
    Some(Array {
        kind: name.items()?.first()?.name()?,
        shape: sides
            .into_iter()
            .map(|n| usize::try_from(n.int()?).ok())
            .collect::<Option<_>>()?,
        bytes: bytes.bytes()?,
    })
}

/// Whole numbers: a list of them, or an array.
fn ints(value: Value<'_, '_>) -> Option<Vec<i64>> {
    if let Some(items) = value.items() {
        return items.into_iter().map(Value::int).collect();
    }
    let array = array(value).filter(|a| a.shape.len() == 1)?;
    let wide = |bytes: &[u8]| {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        i64::from_le_bytes(wide)
    };
    let width = match array.kind {
        "u1" | "i1" => 1,
        "u2" | "i2" => 2,
        "u4" | "i4" => 4,
        "i8" => 8,
        _ => return None,
    };
    Some(array.bytes.chunks_exact(width).map(wide).collect())
}

/// Images and labels of a pickled batch, `image` bytes an image. Labels are those under the first of `names` that is
/// there. Nothing in the file is executed.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn batch(
    bytes: &[u8],
    image: usize,
    names: &[&str],
) -> Result<(Vec<u8>, Vec<i64>), String> {
    let pickle = pickle::read(bytes)?;
    let root = pickle.root();
    if !root.is_dict() {
        return Err("holds no dictionary".into());
    }
    let data = root.get("data").ok_or("its dictionary has no `data`")?;
    let labels = names.iter().find_map(|name| Some((*name, root.get(name)?)));
    let (name, labels) = labels.ok_or_else(|| {
        let names: Vec<String> = names.iter().map(|n| format!("`{n}`")).collect();
        format!("its dictionary has no {}", names.join(" or "))
    })?;
    let whole = |a: &Array<'_>| match a.shape[..] {
        [rows, columns] => {
            columns == image
                && matches!(a.kind, "u1" | "|u1")
                && rows.checked_mul(image) == Some(a.bytes.len())
        }
        _ => false,
    };
    let images = array(data)
        .filter(whole)
        .ok_or_else(|| format!("`data` is no array [n, {image}] of bytes in row order"))?
        .bytes
        .into_owned();
    let rows = images.len() / image;
    let labels = ints(labels).ok_or_else(|| format!("`{name}` is no list of whole numbers"))?;
    if labels.len() != rows {
        return Err(format!("holds {rows} images and {} labels", labels.len()));
    }
    Ok((images, labels))
}

/// The list of names under `name` of a pickled dictionary.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn names(bytes: &[u8], name: &str) -> Result<Vec<String>, String> {
    let pickle = pickle::read(bytes)?;
    let names = pickle
        .root()
        .get(name)
        .and_then(Value::items)
        .ok_or_else(|| format!("holds no list `{name}`"))?;
    let names = names.into_iter().take(1_000);
    let texts = names.map(|n| n.name().map(str::to_owned));
    texts
        .collect::<Option<_>>()
        .ok_or_else(|| format!("`{name}` holds something other than names"))
}
