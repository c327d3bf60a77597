//! Macros for types of settings.

/// Defines an enum of words and values.
///
/// A word is written as its name, a value as itself; variants with values are tried in order. Bounds are those of JSON
/// Schema.
///
/// ```
/// nomaly_settings::word_or_value! {
///     /// The width of a kernel.
///     #[derive(Clone, Copy, Debug, PartialEq)]
///     pub enum Gamma {
///         /// By the variance of the rows.
///         Scale = "scale",
///         ;
///         /// As given.
///         Value(f64) { "exclusiveMinimum": 0 },
///     }
/// }
///
/// assert_eq!(serde_json::from_str::<Gamma>("0.5")?, Gamma::Value(0.5));
/// assert_eq!(serde_json::to_string(&Gamma::Scale)?, "\"scale\"");
/// assert!(serde_json::from_str::<Gamma>("\"scales\"").is_err());
/// assert_eq!(Gamma::Value(0.5).to_string(), "0.5");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[macro_export]
macro_rules! word_or_value {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $($(#[$word_meta:meta])* $word:ident = $text:literal,)*
            ;
            $($(#[$value_meta:meta])* $value:ident($type:ty) $bounds:tt,)+
        }
    ) => {
        $(#[$meta])*
        $vis enum $name {
            $($(#[$word_meta])* $word,)*
            $($(#[$value_meta])* $value($type),)+
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    $(Self::$word => f.pad($text),)*
                    $(Self::$value(value) => std::fmt::Display::fmt(value, f),)+
                }
            }
        }

        impl $crate::private::serde::Serialize for $name {
            fn serialize<S: $crate::private::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Self::$word => serializer.serialize_str($text),)*
                    $(Self::$value(value) => $crate::private::serde::Serialize::serialize(value, serializer),)+
                }
            }
        }

        impl<'de> $crate::private::serde::Deserialize<'de> for $name {
            fn deserialize<D: $crate::private::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                use $crate::private::serde::Deserialize as _;
                let value = $crate::private::serde_json::Value::deserialize(deserializer)?;
                match value.as_str() {
                    $(Some($text) => return Ok(Self::$word),)*
                    _ => {}
                }
                $(if let Ok(value) = <$type>::deserialize(&value) {
                    return Ok(Self::$value(value));
                })+
                Err($crate::private::serde::de::Error::custom(format!("{value} is neither a word nor a value here")))
            }
        }

        impl $crate::private::schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut $crate::private::schemars::SchemaGenerator) -> $crate::private::schemars::Schema {
                let mut variants = vec![$($crate::private::serde_json::json!({ "const": $text }),)*];
                $({
                    let mut schema = generator.subschema_for::<$type>();
                    if let $crate::private::serde_json::Value::Object(bounds) =
                        $crate::private::serde_json::json!($bounds)
                    {
                        schema.ensure_object().extend(bounds);
                    }
                    variants.push(schema.to_value());
                })+
                $crate::private::schemars::json_schema!({ "anyOf": variants })
            }
        }
    };
}

/// Implements serialization and the schema of a type written as text by its `Display` and `FromStr`, with a description
/// of its values.
///
/// ```
/// use std::fmt;
/// use std::str::FromStr;
///
/// #[derive(Debug, PartialEq)]
/// struct Grid(u32, u32);
///
/// impl fmt::Display for Grid {
///     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
///         write!(f, "{}x{}", self.0, self.1)
///     }
/// }
///
/// impl FromStr for Grid {
///     type Err = &'static str;
///     fn from_str(text: &str) -> Result<Self, Self::Err> {
///         let (rows, columns) = text.split_once('x').ok_or("there is no x")?;
///         let number = |text: &str| text.parse().map_err(|_| "not a number");
///         Ok(Self(number(rows)?, number(columns)?))
///     }
/// }
///
/// nomaly_settings::written_as_text!(Grid, "ROWSxCOLUMNS");
///
/// assert_eq!(serde_json::from_str::<Grid>("\"2x3\"")?, Grid(2, 3));
/// assert_eq!(serde_json::to_string(&Grid(2, 3))?, "\"2x3\"");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[macro_export]
macro_rules! written_as_text {
    ($name:ty, $words:expr) => {
        impl $crate::private::serde::Serialize for $name {
            fn serialize<S: $crate::private::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> $crate::private::serde::Deserialize<'de> for $name {
            fn deserialize<D: $crate::private::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as $crate::private::serde::Deserialize>::deserialize(deserializer)?;
                text.parse()
                    .map_err(|_| $crate::private::serde::de::Error::custom(format!("`{text}` is not {}", $words)))
            }
        }

        $crate::text_schema!($name, $words);
    };
}

/// Implements the schema of a type that `serde` writes as text, with a description of its values.
#[macro_export]
macro_rules! text_schema {
    ($name:ty, $words:expr) => {
        impl $crate::private::schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(
                _: &mut $crate::private::schemars::SchemaGenerator,
            ) -> $crate::private::schemars::Schema {
                $crate::private::schemars::json_schema!({ "type": "string", "x-values": $words })
            }
        }
    };
}
