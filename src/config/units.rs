//! The words of a configuration file: durations, sizes, numbers, and `off`.
//!
//! Each is read by a visitor of its own, so that an error carries the position of the value itself
//! and says what was expected there. Whether a value makes sense is asked later, for all at once.

use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Unexpected, Visitor};
use serde::{Serialize, Serializer};

/// A duration: `500ms`, `10s`, `5m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    /// A span of whole seconds.
    #[must_use]
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Span_;
        impl Visitor<'_> for Span_ {
            type Value = Span;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as `500ms` or `10s`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                match humantime::parse_duration(text) {
                    // A century is long enough, and keeps sums within bounds.
                    Ok(span) if span <= Duration::from_hours(100 * 366 * 24) => Ok(Span(span)),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Span, E> {
                if n == 0 {
                    Ok(Span::secs(0))
                } else {
                    Err(E::invalid_type(Unexpected::Unsigned(n), &self))
                }
            }
        }
        deserializer.deserialize_any(Span_)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^([0-9]+ *[a-z]+ *)+$|^0$", "examples": ["500ms", "10s", "5m"],
            "description": "a duration such as `500ms`, `10s` or `5m`"})
    }
}

/// A size in bytes: `1GiB`, `500MB`, or a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl Size {
    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = SIZES
            .iter()
            .find_map(|(name, bytes)| Some((text.strip_suffix(name)?, *bytes)))
            .unwrap_or((text, 1));
        number.trim().parse::<u64>().ok()?.checked_mul(unit).map(Self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, bytes): &&(&str, u64)| self.0.is_multiple_of(*bytes);
        match SIZES.iter().find(fits) {
            Some((unit, bytes)) if self.0 > 0 => write!(f, "{}{unit}", self.0 / bytes),
            _ => write!(f, "{}B", self.0),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Size_;
        impl Visitor<'_> for Size_ {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as `1GiB` or `500MB`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                Size::parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }
        }
        deserializer.deserialize_any(Size_)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "integer"], "pattern": "^[0-9]+ *([KMGT]iB|[kMGT]?B)?$",
            "minimum": 0, "examples": ["1GiB", "500MB"],
            "description": "a size such as `1GiB` or `500MB`, or a number of bytes"})
    }
}

/// A whole number; whether it is large or small enough is asked later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Whole(pub u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole_;
        impl Visitor<'_> for Whole_ {
            type Value = Whole;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Whole, E> {
                Ok(Whole(n))
            }
        }
        deserializer.deserialize_any(Whole_)
    }
}

/// A section, or `off` in its place (`false` means the same).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrOff<T> {
    /// The section.
    On(T),
    /// Switched off.
    Off,
}

impl<T: Serialize> Serialize for OrOff<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::On(section) => section.serialize(serializer),
            Self::Off => serializer.serialize_str("off"),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OrOff<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OrOff_<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OrOff_<T> {
            type Value = OrOff<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a section such as `{min: 3}`, or `off`")
            }
            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Self::Value, E> {
                if on { Err(E::invalid_value(Unexpected::Bool(on), &self)) } else { Ok(OrOff::Off) }
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                if text == "off" {
                    Ok(OrOff::Off)
                } else {
                    Err(E::invalid_value(Unexpected::Str(text), &self))
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(OrOff::On)
            }
        }
        deserializer.deserialize_any(OrOff_(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for OrOff<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("{}OrOff", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let section = generator.subschema_for::<T>();
        json_schema!({"anyOf": [section, {"enum": ["off", false]}]})
    }
}

/// A number with at most three decimals, such as `0.7`; kept in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ratio(pub u32);

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / 1000.0)
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ratio_;
        impl Visitor<'_> for Ratio_ {
            type Value = Ratio;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from 0 to 1000, such as `0.7`")
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Ratio, E> {
                let thousandths = (value * 1000.0).round();
                if (0.0..=1e6).contains(&thousandths) {
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "the bounds were checked"
                    )]
                    return Ok(Ratio(thousandths as u32));
                }
                Err(E::invalid_value(Unexpected::Float(value), &self))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Ratio, E> {
                match u32::try_from(value).ok().filter(|value| *value <= 1000) {
                    Some(value) => Ok(Ratio(value * 1000)),
                    None => Err(E::invalid_value(Unexpected::Unsigned(value), &self)),
                }
            }
        }
        deserializer.deserialize_any(Ratio_)
    }
}

impl JsonSchema for Ratio {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Ratio".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "number", "minimum": 0, "maximum": 1000})
    }
}

/// An absolute path, or `off`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathOrOff(pub Option<PathBuf>);

impl Serialize for PathOrOff {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(path) => path.serialize(serializer),
            None => serializer.serialize_str("off"),
        }
    }
}

impl<'de> Deserialize<'de> for PathOrOff {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PathOrOff_;
        impl Visitor<'_> for PathOrOff_ {
            type Value = PathOrOff;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an absolute path, or `off`")
            }
            fn visit_bool<E: de::Error>(self, on: bool) -> Result<PathOrOff, E> {
                if on {
                    Err(E::invalid_value(Unexpected::Bool(on), &self))
                } else {
                    Ok(PathOrOff(None))
                }
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<PathOrOff, E> {
                match text {
                    "off" => Ok(PathOrOff(None)),
                    path if path.starts_with('/') => Ok(PathOrOff(Some(path.into()))),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(PathOrOff_)
    }
}

impl JsonSchema for PathOrOff {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PathOrOff".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"type": "string", "pattern": "^/"}, {"enum": ["off", false]}]})
    }
}

/// `on` or `off`, also written `true` and `false`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch(pub bool);

impl Serialize for Switch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.0 { "on" } else { "off" })
    }
}

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Switch_;
        impl Visitor<'_> for Switch_ {
            type Value = Switch;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`on` or `off`")
            }
            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Switch, E> {
                Ok(Switch(on))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Switch, E> {
                match text {
                    "on" => Ok(Switch(true)),
                    "off" => Ok(Switch(false)),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(Switch_)
    }
}

impl JsonSchema for Switch {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Switch".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"enum": ["on", "off", true, false]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in [
            ("1GiB", 1 << 30),
            ("500MB", 500_000_000),
            ("7 kB", 7_000),
            ("42", 42),
            ("0", 0),
            ("9B", 9),
        ] {
            assert_eq!(Size::parse(text), Some(Size(bytes)), "{text}");
            assert_eq!(Size::parse(&Size(bytes).to_string()), Some(Size(bytes)));
        }
        for text in ["", "GiB", "-1", "1.5GiB", "1gib", "99999999999TiB"] {
            assert_eq!(Size::parse(text), None, "{text}");
        }
        assert_eq!(Size(1 << 30).to_string(), "1GiB");
    }
}
