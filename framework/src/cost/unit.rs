//! Numbers with units, as people type and read them.

use crate::error::{Error, Result};

/// What a cost is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things: parameters, multiply-adds.
    Count,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

impl Unit {
    /// Suffixes and what they stand for, the largest first.
    fn suffixes(self) -> &'static [(&'static str, f64)] {
        match self {
            Self::Count => &[("G", 1e9), ("M", 1e6), ("K", 1e3), ("", 1.0)],
            Self::Bytes => &[
                ("GiB", 1_073_741_824.0),
                ("MiB", 1_048_576.0),
                ("KiB", 1024.0),
                ("GB", 1e9),
                ("MB", 1e6),
                ("KB", 1e3),
                ("B", 1.0),
            ],
            Self::Seconds => &[("s", 1.0), ("ms", 1e-3), ("us", 1e-6)],
        }
    }

    /// The suffixes that a reader is told of.
    fn known(self) -> &'static str {
        match self {
            Self::Count => "a number, or one with K, M or G: `40M`",
            Self::Bytes => "a number with B, KB, MB, GB, KiB, MiB or GiB: `4MB`",
            Self::Seconds => "a number with s, ms or us: `12ms`",
        }
    }

    /// The base, as it is written behind a number; empty for counts.
    pub fn base(self) -> &'static str {
        match self {
            Self::Count => "",
            Self::Bytes => "B",
            Self::Seconds => "s",
        }
    }

    /// A number with its unit, in the base.
    ///
    /// # Errors
    /// Other units, and numbers that are not above zero.
    pub fn parse(self, text: &str) -> Result<f64> {
        let wrong = || Error::Invalid {
            what: format!("limit `{text}`"),
            why: format!("it must be {}", self.known()),
        };
        let text = text.trim();
        let digits = text
            .find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_')
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(digits);
        let number: f64 = number.replace('_', "").parse().map_err(|_| wrong())?;
        let suffix = suffix.trim();
        // Counts are also written with small letters; in seconds, m and M are not the same.
        let same = |known: &str| match self {
            Self::Seconds => known == suffix,
            _ => known.eq_ignore_ascii_case(suffix),
        };
        let factor = self.suffixes().iter().find(|(known, _)| same(known));
        let (_, factor) = factor.ok_or_else(wrong)?;
        Some(number * factor)
            .filter(|value| *value > 0.0 && value.is_finite())
            .ok_or_else(wrong)
    }

    /// The unit with this base.
    pub fn with_base(base: &str) -> Option<Self> {
        [Self::Count, Self::Bytes, Self::Seconds]
            .into_iter()
            .find(|unit| unit.base() == base)
    }

    /// The largest suffix that leaves at least one of a value, and what it stands for. Sizes are in powers of ten.
    pub fn scale(self, value: f64) -> (&'static str, f64) {
        let mut shown = self.suffixes().iter().filter(|(s, _)| !s.contains('i'));
        let fits = shown.clone().find(|(_, factor)| value.abs() >= *factor);
        fits.or(shown.next_back()).copied().unwrap_or(("", 1.0))
    }

    /// A value with the largest suffix that leaves at least one, four digits.
    pub fn show(self, value: f64) -> String {
        let (suffix, factor) = self.scale(value);
        let value = value / factor;
        let decimals = (3 - value.abs().max(1.0).log10().floor() as i32).max(0) as usize;
        let number = format!("{value:.decimals$}");
        let number = match number.contains('.') {
            true => number.trim_end_matches('0').trim_end_matches('.'),
            false => &number,
        };
        match self {
            Self::Count => format!("{number}{suffix}"),
            _ => format!("{number} {suffix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_have_units() {
        use Unit::{Bytes, Count, Seconds};
        for (unit, text, value) in [
            (Count, "40M", 40e6),
            (Count, "1.5g", 1.5e9),
            (Count, " 600 k ", 600e3),
            (Count, "1_000", 1000.0),
            (Bytes, "4MB", 4e6),
            (Bytes, "4 MiB", 4_194_304.0),
            (Seconds, "12ms", 0.012),
            (Seconds, "0.5 s", 0.5),
            (Seconds, "80us", 80e-6),
        ] {
            let parsed = unit.parse(text).unwrap();
            assert!((parsed - value).abs() < 1e-9 * value, "{text}: {parsed}");
        }
        for (unit, text) in [
            (Count, "40ms"),
            (Count, ""),
            (Count, "M"),
            (Count, "0"),
            (Count, "-3M"),
            (Count, "1e400"),
            (Bytes, "40M"),
            (Seconds, "12"),
            (Seconds, "12MS"),
            (Seconds, "nans"),
        ] {
            assert!(unit.parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn values_are_shown_as_they_are_typed() {
        assert_eq!(Unit::Count.show(15_654_000.0), "15.65M");
        assert_eq!(Unit::Count.show(40e6), "40M");
        assert_eq!(Unit::Count.show(12.0), "12");
        assert_eq!(Unit::Seconds.show(0.0123), "12.3 ms");
        assert_eq!(Unit::Seconds.show(3e-8), "0.03 us");
        assert_eq!(Unit::Bytes.show(4e6), "4 MB");
    }

    proptest! {
        /// What is shown can be typed, and is the same but for the digits that are not shown.
        #[test]
        fn what_is_shown_is_understood(value in 1e-5f64..1e12, unit in 0usize..3) {
            let unit = [Unit::Count, Unit::Bytes, Unit::Seconds][unit];
            prop_assume!(unit == Unit::Seconds || value >= 1.0);
            let back = unit.parse(&unit.show(value)).unwrap();
            prop_assert!((back / value - 1.0).abs() < 1e-3, "{} {back}", unit.show(value));
        }
    }
}
