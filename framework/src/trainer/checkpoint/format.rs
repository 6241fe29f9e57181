//! The file of a checkpoint: safetensors, all numbers in its header, and a checksum over every byte.

use std::collections::{BTreeMap, HashMap};

use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::{Device, Kind, Tensor, no_grad};

use crate::error::{Error, Result};
use crate::sealed;
use crate::search::Clock;
use crate::tensors::{KINDS, to_bytes};

/// What is written. Format 1 had its checksum over the tensors alone and knew no layouts; it is still read.
const VERSION: u32 = 2;
const HEADER: &str = "nasfw";
/// No counter of a search comes near it.
const MOST: u64 = 1 << 53;

/// Numbers of a checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Header {
    pub version: u32,
    pub fingerprint: String,
    pub clock: Clock,
    pub finished: Option<String>,
    pub events_bytes: u64,
    pub theta_steps: i64,
    pub phi_steps: i64,
    pub batch_size: usize,
    /// Chosen when the run began: a process that goes on must not choose again.
    #[serde(default)]
    pub micro_batch: Option<usize>,
    #[serde(with = "crate::lossless")]
    pub weight_decay: f64,
    #[serde(with = "crate::lossless")]
    pub scalars: BTreeMap<String, f64>,
    pub strategy: Value,
    /// Strides of the tensors that do not lie in memory row by row. Kernels add in the order of memory, so that the
    /// same numbers in another order give other last bits.
    #[serde(default)]
    pub layouts: BTreeMap<String, Vec<i64>>,
    /// BLAKE3 of the file with zeros in this place, so that a flipped bit anywhere is noticed.
    pub digest: String,
}

impl Header {
    /// Fills in what the format decides.
    pub fn new(fingerprint: &str, clock: Clock, events_bytes: u64) -> Self {
        Self {
            version: VERSION,
            fingerprint: fingerprint.into(),
            clock,
            finished: None,
            events_bytes,
            theta_steps: 0,
            phi_steps: 0,
            batch_size: 0,
            micro_batch: None,
            weight_decay: 0.0,
            scalars: BTreeMap::new(),
            strategy: Value::Null,
            layouts: BTreeMap::new(),
            digest: sealed::blank(),
        }
    }

    /// The first field that no search can have.
    fn out_of_range(&self) -> Option<String> {
        let c = &self.clock;
        let mut counters = vec![
            ("step", c.step),
            ("epoch", c.epoch),
            ("step_in_epoch", c.step_in_epoch),
            ("restarts", c.restarts),
            ("stage", c.stage),
            ("saves", c.saves),
            ("work.steps", c.work.steps),
            ("work.images", c.work.images),
            ("work.microseconds", c.work.microseconds),
            ("events_bytes", self.events_bytes),
            (
                "theta_steps",
                u64::try_from(self.theta_steps).unwrap_or(MOST),
            ),
            ("phi_steps", u64::try_from(self.phi_steps).unwrap_or(MOST)),
            ("batch_size", self.batch_size as u64),
            ("micro_batch", self.micro_batch.unwrap_or(1) as u64),
        ];
        for (pass, index) in c.drawn.values() {
            counters.extend([("drawn", *pass), ("drawn", *index)]);
        }
        if let Some((first, number)) = c.schedule {
            counters.extend([("schedule", first), ("schedule", number)]);
        }
        let large = counters.iter().find(|(_, n)| *n >= MOST);
        let small = [
            ("batch_size", self.batch_size as u64),
            ("micro_batch", self.micro_batch.unwrap_or(1) as u64),
        ];
        let zero = small.iter().find(|(_, n)| *n == 0);
        let wrong = large.or(zero).map(|(name, n)| format!("`{name}` is {n}"));
        let numbers = [
            ("weight_decay", self.weight_decay),
            ("theta_rate", c.theta_rate.unwrap_or(1.0)),
        ];
        let negative = numbers.iter().find(|(_, x)| *x < 0.0 || x.is_nan());
        wrong.or_else(|| negative.map(|(name, x)| format!("`{name}` is {x}")))
    }
}

/// The strides of a tensor that does not lie in memory row by row.
pub(super) fn layout(tensor: &Tensor) -> Option<Vec<i64>> {
    (!tensor.is_contiguous()).then(|| tensor.stride())
}

/// Numbers that a tensor reaches over in memory; none where strides are nonsense, or so far apart that nobody means it.
fn reach(shape: &[i64], strides: &[i64]) -> Option<i64> {
    if shape.len() != strides.len() || strides.iter().any(|s| *s < 0) {
        return None;
    }
    let numbers: i64 = shape.iter().product();
    let mut reach = i64::from(numbers > 0);
    for (n, stride) in shape.iter().zip(strides).filter(|_| numbers > 0) {
        reach = reach.checked_add((n - 1).checked_mul(*stride)?)?;
    }
    (reach <= numbers.saturating_mul(1024).saturating_add(4096)).then_some(reach)
}

/// The same numbers, lying in memory as `strides` say. None for strides that make no sense.
fn lay_out(tensor: &Tensor, strides: &[i64]) -> Result<Option<Tensor>> {
    let shape = tensor.size();
    let Some(reach) = reach(&shape, strides) else {
        return Ok(None);
    };
    no_grad(|| {
        let mut places = Tensor::f_zeros([1], (Kind::Int64, Device::Cpu))?;
        for (n, stride) in shape.iter().zip(strides) {
            let along = Tensor::f_arange(*n, (Kind::Int64, Device::Cpu))?.f_mul_scalar(*stride)?;
            places = places.f_unsqueeze(-1)?.f_add(&along)?;
        }
        let memory = Tensor::f_zeros([reach], (tensor.kind(), Device::Cpu))?;
        // Where several places are one, as in an expanded tensor, they hold the same number.
        let memory = memory.f_index_put(
            &[Some(places.f_reshape([-1])?)],
            &tensor.f_reshape([-1])?,
            false,
        )?;
        Ok(Some(memory.f_as_strided(&shape, strides, None)?))
    })
}

/// The bytes of a checkpoint.
///
/// # Errors
/// Numbers that no file holds.
pub(super) fn encode(mut header: Header, tensors: Vec<(String, &Tensor)>) -> Result<Vec<u8>> {
    let invalid = |why: String| Error::Invalid {
        what: "checkpoint".into(),
        why,
    };
    let mut parts = BTreeMap::new();
    for (name, tensor) in tensors {
        if let Some(strides) = layout(tensor) {
            header.layouts.insert(name.clone(), strides);
        }
        parts.insert(name, to_bytes(tensor)?);
    }
    let json = serde_json::to_string(&header).map_err(|e| invalid(e.to_string()))?;
    let metadata = HashMap::from([(HEADER.to_owned(), json)]);
    let mut bytes =
        safetensors::serialize(parts, Some(metadata)).map_err(|e| invalid(e.to_string()))?;
    sealed::seal(&mut bytes).ok_or_else(|| invalid("its checksum has no place".into()))?;
    Ok(bytes)
}

/// Numbers and tensors of a checkpoint's bytes, or what is wrong with them. Tensors lie in memory as they did.
pub(super) fn decode(bytes: &[u8]) -> Result<(Header, BTreeMap<String, Tensor>), String> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|e| format!("this is not a whole checkpoint: {e}"))?;
    let (_, metadata) =
        SafeTensors::read_metadata(bytes).map_err(|e| format!("its header can't be read: {e}"))?;
    let json = metadata
        .metadata()
        .as_ref()
        .and_then(|m| m.get(HEADER))
        .ok_or("it holds tensors, but it is not a checkpoint of nasfw")?;
    let header: Header =
        serde_json::from_str(json).map_err(|e| format!("its header can't be understood: {e}"))?;
    let whole = match header.version {
        1 => digest_of_tensors(&file) == header.digest,
        VERSION => sealed::is_whole(bytes, &header.digest),
        other => {
            return Err(format!(
                "it is of format {other}, this version of nasfw reads formats 1 and {VERSION}"
            ));
        }
    };
    if !whole {
        return Err("its numbers do not match its checksum".into());
    }
    if let Some(wrong) = header.out_of_range() {
        return Err(format!("its header makes no sense: {wrong}"));
    }
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        let tensor = to_tensor(&view, header.layouts.get(&name));
        let tensor = tensor.map_err(|e| format!("its tensor `{name}` can't be read: {e}"))?;
        tensors.insert(name, tensor);
    }
    Ok((header, tensors))
}

/// The checksum of format 1.
fn digest_of_tensors(file: &SafeTensors<'_>) -> String {
    let parts: BTreeMap<_, _> = file.tensors().into_iter().collect();
    let mut hasher = blake3::Hasher::new();
    for (name, view) in parts {
        hasher
            .update(name.as_bytes())
            .update(&[0])
            .update(view.data());
    }
    hasher.finalize().to_hex().to_string()
}

fn to_tensor(
    view: &safetensors::tensor::TensorView<'_>,
    strides: Option<&Vec<i64>>,
) -> Result<Tensor> {
    let invalid = |why: String| Error::Invalid {
        what: "checkpoint".into(),
        why,
    };
    let known = KINDS.iter().find(|(_, dtype)| *dtype == view.dtype());
    let (kind, _) =
        known.ok_or_else(|| invalid(format!("no tensor is of type {:?}", view.dtype())))?;
    if *kind == Kind::Bool && view.data().iter().any(|b| *b > 1) {
        return Err(invalid("a truth value is neither 0 nor 1".into()));
    }
    let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
    let tensor = Tensor::f_from_data_size(view.data(), &shape, *kind)?;
    match strides {
        None => Ok(tensor),
        // What reaches too far was written with its strides all the same, so that the conformance suite sees them.
        Some(strides) => Ok(lay_out(&tensor, strides)?.unwrap_or(tensor)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header {
            batch_size: 4,
            scalars: [
                ("nan".to_owned(), f64::NAN),
                ("inf".to_owned(), f64::INFINITY),
            ]
            .into(),
            // A plugin may call its own things as it likes.
            strategy: serde_json::json!({"digest": sealed::blank()}),
            ..Header::new("print", Clock::default(), 7)
        }
    }

    fn numbers(t: &Tensor) -> Vec<f64> {
        Vec::try_from(t.to_kind(Kind::Double).contiguous().reshape([-1])).unwrap()
    }

    proptest! {
        /// Numbers, kinds, shapes and places in memory come back: permuted, sliced, expanded, of every kind.
        #[test]
        fn tensors_come_back_with_their_layout(
            shape in proptest::collection::vec(0..4i64, 0..5), order in any::<u64>(), kind in 0..KINDS.len(),
            how in 0..4,
        ) {
            let kind = KINDS[kind].0;
            let numel: i64 = shape.iter().product();
            let mut t = Tensor::arange(numel, (Kind::Int64, Device::Cpu)).reshape(&shape).to_kind(kind);
            let mut dims: Vec<i64> = (0..shape.len() as i64).collect();
            let mut seed = order;
            for i in (1..dims.len()).rev() {
                dims.swap(i, (seed % (i as u64 + 1)) as usize);
                seed /= i as u64 + 1;
            }
            t = t.permute(&dims);
            if !shape.is_empty() && how == 1 {
                t = t.slice(0, 0, i64::MAX, 2);
            }
            if how == 2 {
                let mut wider = vec![3];
                wider.extend(t.size());
                t = t.expand(&wider, false);
            }
            let bytes = encode(header(), vec![("t".into(), &t)]).unwrap();
            let (back, tensors) = decode(&bytes).unwrap();
            let u = &tensors["t"];
            prop_assert_eq!(u.size(), t.size());
            prop_assert_eq!(u.kind(), t.kind());
            prop_assert_eq!(numbers(u), numbers(&t));
            prop_assert_eq!(layout(u), layout(&t));
            prop_assert!(back.scalars["nan"].is_nan() && back.scalars["inf"] == f64::INFINITY);
        }
    }

    /// One flipped bit anywhere in the file is noticed, wherever it is: all of them.
    #[test]
    fn every_flipped_bit_is_noticed() {
        let t = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0])
            .reshape([2, 2])
            .tr();
        let good = encode(header(), vec![("t".into(), &t)]).unwrap();
        decode(&good).unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(decode(&bad).is_err(), "byte {at}, bit {bit}");
            }
        }
        for cut in 0..good.len() {
            assert!(decode(&good[..cut]).is_err(), "{cut}");
        }
    }

    /// Headers that are whole, and that no search can have.
    #[test]
    fn crafted_headers_are_refused_by_name() {
        let t = Tensor::from_slice(&[1.0f32]);
        type Craft = (&'static str, fn(&mut Header));
        let crafted: [Craft; 8] = [
            ("batch_size", |h| h.batch_size = 0),
            ("micro_batch", |h| h.micro_batch = Some(0)),
            ("step_in_epoch", |h| h.clock.step_in_epoch = u64::MAX),
            ("saves", |h| h.clock.saves = u64::MAX),
            ("theta_steps", |h| h.theta_steps = -1),
            ("weight_decay", |h| h.weight_decay = -1.0),
            ("drawn", |h| {
                h.clock
                    .drawn
                    .insert(crate::strategy::Split::Val, (0, u64::MAX));
            }),
            ("format 9", |h| h.version = 9),
        ];
        for (name, craft) in crafted {
            let mut header = header();
            craft(&mut header);
            let bytes = encode(header, vec![("t".into(), &t)]).unwrap();
            let error = decode(&bytes).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
        // Strides that reach beyond all bounds, or below zero, cost no memory and harm nobody.
        for strides in [vec![i64::MAX], vec![-1], vec![1, 1], vec![1 << 40]] {
            let mut header = header();
            header.layouts.insert("t".into(), strides);
            let t = Tensor::from_slice(&[1.0f32, 2.0]);
            let bytes = encode(header, vec![("t".into(), &t)]).unwrap();
            assert_eq!(numbers(&decode(&bytes).unwrap().1["t"]), [1.0, 2.0]);
        }
    }

    /// Format 1, whose checksum is over the tensors alone.
    #[test]
    fn the_first_format_is_still_read() {
        let t = Tensor::from_slice(&[1.0f32, 2.0]);
        let parts = BTreeMap::from([("t".to_owned(), to_bytes(&t).unwrap())]);
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"t").update(&[0]).update(&parts["t"].bytes);
        let json = serde_json::json!({"version": 1, "fingerprint": "print", "clock": Clock::default(),
            "finished": null, "events_bytes": 7, "theta_steps": 0, "phi_steps": 0, "batch_size": 4,
            "weight_decay": 0.5, "scalars": {"a": 1.5}, "strategy": null,
            "digest": hasher.finalize().to_hex().to_string()});
        let metadata = HashMap::from([(HEADER.to_owned(), json.to_string())]);
        let bytes = safetensors::serialize(parts, Some(metadata)).unwrap();
        let (header, tensors) = decode(&bytes).unwrap();
        assert_eq!((header.weight_decay, header.scalars["a"]), (0.5, 1.5));
        assert_eq!(numbers(&tensors["t"]), [1.0, 2.0]);
    }
}
