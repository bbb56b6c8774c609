//! A value that is used and never shown.
//!
//! In: a string of the config (the config resolves environment and files). Out: the value, to who asks with `expose`.
//! Invariant: no formatting, log, error or serialization of it holds the value.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const SHOWN: &str = "[secret]";

/// A secret: write `${NAME}` or `${file:/path}` instead of the value.
#[derive(Clone, PartialEq, Eq, schemars::JsonSchema)]
#[schemars(inline, extend("writeOnly" = true))]
pub struct Secret(Box<str>);

impl Secret {
    pub fn new(value: impl Into<Box<str>>) -> Self {
        Self(value.into())
    }

    /// Only where the value leaves for its service.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SHOWN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SHOWN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(SHOWN)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a secret as text")
            }

            // Serde's own message for a number would quote it.
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Secret, E> {
                Ok(Secret::new(value.to_string()))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Secret, E> {
                Ok(Secret::new(value.to_string()))
            }

            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
                Err(E::custom("this secret reads as a fraction: put it in quotes"))
            }

            fn visit_bool<E: de::Error>(self, _: bool) -> Result<Secret, E> {
                Err(E::custom("this secret reads as true or false: put it in quotes"))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Secret, E> {
                if value.is_empty() { Err(E::custom("this secret is empty")) } else { Ok(Secret::new(value)) }
            }
        }
        from.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_shows_the_value() {
        let secret: Secret = serde_json::from_str("\"hunter2\"").unwrap();
        for shown in [format!("{secret}"), format!("{secret:?}"), format!("{secret:#?}"), serde_json::to_string(&secret).unwrap()] {
            assert!(!shown.contains("hunter2") && shown.contains(SHOWN), "{shown}");
        }
        assert_eq!(secret.expose(), "hunter2");
        for bad in ["1234.5", "[\"hunter2\"]", "{\"hunter2\":1}", "\"\""] {
            let error = serde_json::from_str::<Secret>(bad).unwrap_err().to_string();
            assert!(!error.contains("hunter2") && !error.contains("1234.5"), "{error}");
        }
    }
}
