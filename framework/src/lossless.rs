//! Numbers in JSON, also those that JSON has no digits for: not-a-number and the infinities are the strings `"NaN"`,
//! `"inf"` and `"-inf"`. For every field of a file that may hold one: `#[serde(with = "nasfw_framework::lossless")]`.
//!
//! `null`, which earlier versions wrote for all three, is read as not-a-number where a number must be.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What may hold such numbers: a number, an optional one, lists and maps of them.
pub trait Lossless: Sized {
    /// As it is written.
    ///
    /// # Errors
    /// Whatever the writer has to say.
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;

    /// As it is read.
    ///
    /// # Errors
    /// Something else than what was written.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

/// For `#[serde(with = …)]`.
///
/// # Errors
/// Whatever the writer has to say.
pub fn serialize<T: Lossless, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    value.write(serializer)
}

/// For `#[serde(with = …)]`.
///
/// # Errors
/// Something else than what was written.
pub fn deserialize<'de, T: Lossless, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::read(deserializer)
}

struct Writing<'a, T>(&'a T);

impl<T: Lossless> Serialize for Writing<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.write(serializer)
    }
}

struct Reading<T>(T);

impl<'de, T: Lossless> Deserialize<'de> for Reading<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::read(deserializer).map(Self)
    }
}

impl Lossless for f64 {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_finite() {
            serializer.serialize_f64(*self)
        } else {
            // "NaN", "inf" or "-inf".
            serializer.collect_str(self)
        }
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Number)
    }
}

struct Number;

impl Visitor<'_> for Number {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, \"NaN\", \"inf\" or \"-inf\"")
    }

    fn visit_f64<E>(self, v: f64) -> Result<f64, E> {
        Ok(v)
    }

    fn visit_u64<E>(self, v: u64) -> Result<f64, E> {
        Ok(v as f64)
    }

    fn visit_i64<E>(self, v: i64) -> Result<f64, E> {
        Ok(v as f64)
    }

    fn visit_unit<E>(self) -> Result<f64, E> {
        Ok(f64::NAN)
    }

    fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<f64, E> {
        match v {
            "NaN" => Ok(f64::NAN),
            "inf" => Ok(f64::INFINITY),
            "-inf" => Ok(f64::NEG_INFINITY),
            _ => Err(E::invalid_value(serde::de::Unexpected::Str(v), &self)),
        }
    }
}

impl<T: Lossless> Lossless for Option<T> {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Some(value) => serializer.serialize_some(&Writing(value)),
            None => serializer.serialize_none(),
        }
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::<Reading<T>>::deserialize(deserializer)?.map(|r| r.0))
    }
}

impl<T: Lossless> Lossless for Vec<T> {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Writing))
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let all = Vec::<Reading<T>>::deserialize(deserializer)?;
        Ok(all.into_iter().map(|r| r.0).collect())
    }
}

impl<const N: usize> Lossless for [f64; N] {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Writing))
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let all: Vec<f64> = Vec::read(deserializer)?;
        let length = all.len();
        all.try_into()
            .map_err(|_| D::Error::invalid_length(length, &format!("{N} numbers").as_str()))
    }
}

impl<T: Lossless> Lossless for BTreeMap<String, T> {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(k, v)| (k, Writing(v))))
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let all = BTreeMap::<String, Reading<T>>::deserialize(deserializer)?;
        Ok(all.into_iter().map(|(k, v)| (k, v.0)).collect())
    }
}

/// Something beside a number.
impl<A: Serialize + for<'a> Deserialize<'a>> Lossless for (A, f64) {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.0, Writing(&self.1)).serialize(serializer)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (a, Reading(number)) = Deserialize::deserialize(deserializer)?;
        Ok((a, number))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[derive(Serialize, Deserialize, Debug, Clone)]
    struct All {
        #[serde(with = "super")]
        plain: f64,
        #[serde(with = "super")]
        maybe: Option<f64>,
        #[serde(with = "super")]
        lists: Vec<Vec<f64>>,
        #[serde(with = "super")]
        map: Option<BTreeMap<String, f64>>,
        #[serde(with = "super")]
        pair: [f64; 2],
        #[serde(with = "super")]
        best: Option<(String, f64)>,
    }

    fn bits(all: &All) -> Vec<Option<u64>> {
        // Which of the many not-a-numbers it is does not matter.
        let one = |v: f64| if v.is_nan() { f64::NAN } else { v }.to_bits();
        let mut bits = vec![Some(one(all.plain)), all.maybe.map(one)];
        bits.extend(all.lists.iter().flatten().map(|v| Some(one(*v))));
        bits.extend(all.map.iter().flatten().map(|(_, v)| Some(one(*v))));
        bits.extend(all.pair.map(|v| Some(one(v))));
        bits.push(all.best.as_ref().map(|(_, v)| one(*v)));
        bits
    }

    proptest! {
        /// Every number of 64 bits, through text and through a value.
        #[test]
        fn every_number_comes_back(raw in proptest::collection::vec(proptest::num::f64::ANY, 12), some: bool) {
            let all = All {
                plain: raw[0],
                maybe: some.then_some(raw[1]),
                lists: vec![raw[2..4].to_vec(), vec![], raw[4..5].to_vec()],
                map: some.then(|| [("a".to_owned(), raw[5]), ("b".to_owned(), raw[6])].into()),
                pair: [raw[7], raw[8]],
                best: some.then(|| ("x".to_owned(), raw[9])),
            };
            let text = serde_json::to_string(&all).unwrap();
            prop_assert_eq!(bits(&serde_json::from_str(&text).unwrap()), bits(&all));
            let value = serde_json::to_value(&all).unwrap();
            prop_assert_eq!(bits(&serde_json::from_value(value).unwrap()), bits(&all));
        }
    }

    #[test]
    fn what_earlier_versions_wrote_is_read_and_nonsense_is_not() {
        let text = r#"{"plain": null, "maybe": null, "lists": [[null, 1]], "map": {"a": null}, "pair": [1, -2],
                       "best": ["x", "inf"]}"#;
        let all: All = serde_json::from_str(text).unwrap();
        assert!(all.plain.is_nan() && all.maybe.is_none() && all.lists[0][0].is_nan());
        assert_eq!(all.best, Some(("x".into(), f64::INFINITY)));
        for bad in [r#""nan""#, r#""1.0""#, "true", "[]"] {
            assert!(serde_json::from_str::<All>(&text.replacen("null", bad, 1)).is_err());
        }
    }
}
