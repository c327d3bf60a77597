//! Domains of settings, from their schemas: parses text, checks values and describes them.

use serde_json::{Map, Number, Value};

/// The values of a setting.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Domain {
    kinds: Vec<Kind>,
    /// A description that replaces the one derived from the kinds.
    words: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Word(String),
    Whole(Bounds),
    Number(Bounds),
    Flag,
    Nothing,
    Text { words: Option<String> },
    List { item: Domain, lengths: [Option<u64>; 2], words: Option<String> },
}

/// The bounds of a number, in terms of JSON Schema, and its unit.
#[derive(Clone, Debug, Default, PartialEq)]
struct Bounds {
    minimum: Option<f64>,
    maximum: Option<f64>,
    above: Option<f64>,
    below: Option<f64>,
    unit: Option<String>,
}

impl Bounds {
    fn of(schema: &Map<String, Value>, outer: &Self) -> Self {
        let number = |key: &str, outer: Option<f64>| schema.get(key).and_then(Value::as_f64).or(outer);
        let unit = schema.get("x-unit").and_then(Value::as_str).map(str::to_owned);
        let mut bounds = Self {
            minimum: number("minimum", outer.minimum),
            maximum: number("maximum", outer.maximum),
            above: number("exclusiveMinimum", outer.above),
            below: number("exclusiveMaximum", outer.below),
            unit: unit.or_else(|| outer.unit.clone()),
        };
        // A type may have bounds of its own, such as an unsigned integer; the outer ones are narrower.
        if outer.minimum.is_some_and(|outer| bounds.minimum.is_none_or(|inner| outer > inner)) {
            bounds.minimum = outer.minimum;
        }
        if bounds.above.is_some_and(|above| bounds.minimum.is_some_and(|minimum| minimum <= above)) {
            bounds.minimum = None;
        }
        bounds
    }

    fn hold(&self, value: f64) -> bool {
        self.minimum.is_none_or(|bound| value >= bound)
            && self.maximum.is_none_or(|bound| value <= bound)
            && self.above.is_none_or(|bound| value > bound)
            && self.below.is_none_or(|bound| value < bound)
    }

    fn words(&self, noun: &str) -> String {
        let of = self.unit.as_ref().map(|unit| format!(" of {unit}")).unwrap_or_default();
        let lower = self.minimum.map(|bound| format!(" from {bound}"));
        let lower = lower.or_else(|| self.above.map(|bound| format!(" above {bound}")));
        let upper = match (self.maximum, self.below, self.minimum) {
            (Some(bound), _, Some(_)) => Some(format!(" to {bound}")),
            (Some(bound), ..) => Some(format!(" at most {bound}")),
            (None, Some(bound), _) => Some(format!(" below {bound}")),
            (None, None, _) => None,
        };
        let and = match (&lower, &upper) {
            (Some(_), Some(_)) if self.minimum.is_none() || self.maximum.is_none() => " and",
            _ => "",
        };
        format!("{noun}{of}{}{and}{}", lower.unwrap_or_default(), upper.unwrap_or_default())
    }
}

impl Domain {
    /// The domain of `schema`, which must not refer to other schemas.
    pub(crate) fn of(schema: &Map<String, Value>) -> Self {
        let mut kinds = kinds(schema, &Bounds::default());
        // Text matches anything, so it is tried last.
        kinds.sort_by_key(|kind| matches!(kind, Kind::Text { .. }));
        Self { kinds, words: words(schema) }
    }

    /// The value that `text` denotes.
    pub(crate) fn parse(&self, text: &str) -> Option<Value> {
        self.kinds.iter().find_map(|kind| kind.parse(text))
    }

    /// Whether `value` is valid, as far as the schema determines.
    pub(crate) fn contains(&self, value: &Value) -> bool {
        self.kinds.iter().any(|kind| kind.contains(value))
    }

    /// The values, if all of them are words.
    pub(crate) fn choices(&self) -> Vec<String> {
        let word = |kind: &Kind| if let Kind::Word(word) = kind { Some(word.clone()) } else { None };
        self.kinds.iter().map(word).collect::<Option<_>>().unwrap_or_default()
    }

    /// A description of the values.
    pub(crate) fn words(&self) -> String {
        if let Some(words) = &self.words {
            return words.clone();
        }
        let (nothing, something): (Vec<_>, Vec<_>) = self.kinds.iter().partition(|kind| **kind == Kind::Nothing);
        join(&something.into_iter().chain(nothing).flat_map(Kind::words).collect::<Vec<_>>())
    }
}

/// The text that [`Domain::parse`] reads as `value`.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(number) => number.to_string(),
            None => number.to_string(),
        },
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        Value::Bool(_) | Value::Object(_) => value.to_string(),
    }
}

/// `a`, `a or b`, `a, b or c`.
fn join(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

fn words(schema: &Map<String, Value>) -> Option<String> {
    schema.get("x-values").and_then(Value::as_str).map(str::to_owned)
}

fn kinds(schema: &Map<String, Value>, outer: &Bounds) -> Vec<Kind> {
    let bounds = Bounds::of(schema, outer);
    let word = |value: &Value| value.as_str().map(|word| Kind::Word(word.to_owned()));
    if let Some(constant) = schema.get("const") {
        return word(constant).into_iter().collect();
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let nothing = values.contains(&Value::Null).then_some(Kind::Nothing);
        return values.iter().filter_map(word).chain(nothing).collect();
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(variants) = schema.get(key).and_then(Value::as_array) {
            return variants.iter().filter_map(Value::as_object).flat_map(|schema| kinds(schema, &bounds)).collect();
        }
    }
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    types.into_iter().map(|name| kind(name, schema, bounds.clone())).collect()
}

fn kind(name: &str, schema: &Map<String, Value>, bounds: Bounds) -> Kind {
    match name {
        "integer" => Kind::Whole(bounds),
        "number" => Kind::Number(bounds),
        "boolean" => Kind::Flag,
        "null" => Kind::Nothing,
        "array" => Kind::List {
            item: schema.get("items").and_then(Value::as_object).map_or_else(
                || Domain { kinds: vec![Kind::Text { words: None }], words: None },
                |items| Domain { kinds: kinds(items, &bounds), words: words(items) },
            ),
            lengths: ["minItems", "maxItems"].map(|key| schema.get(key).and_then(Value::as_u64)),
            words: words(schema),
        },
        _ => Kind::Text { words: words(schema) },
    }
}

impl Kind {
    fn parse(&self, text: &str) -> Option<Value> {
        let value = match self {
            Self::Word(word) => (word == text).then(|| Value::String(word.clone())),
            Self::Whole(_) => text.parse::<u64>().ok().map(Value::from),
            Self::Number(_) => text.parse::<f64>().ok().and_then(Number::from_f64).map(Value::Number),
            Self::Flag => text.parse().ok().map(Value::Bool),
            Self::Nothing => (text == "none").then_some(Value::Null),
            Self::Text { .. } => Some(Value::String(text.to_owned())),
            Self::List { item, .. } => {
                let items = text.split(',').map(str::trim);
                items.map(|text| item.parse(text).filter(|_| !text.is_empty())).collect::<Option<_>>().map(Value::Array)
            }
        };
        value.filter(|value| self.contains(value))
    }

    fn contains(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Word(word), Value::String(given)) => word == given,
            (Self::Whole(bounds), Value::Number(number)) => {
                number.is_u64() && number.as_f64().is_some_and(|number| bounds.hold(number))
            }
            (Self::Number(bounds), Value::Number(number)) => {
                number.as_f64().is_some_and(|number| number.is_finite() && bounds.hold(number))
            }
            (Self::Flag, Value::Bool(_)) | (Self::Nothing, Value::Null) | (Self::Text { .. }, Value::String(_)) => true,
            (Self::List { item, lengths: [least, most], .. }, Value::Array(items)) => {
                let count = items.len() as u64;
                least.is_none_or(|least| count >= least)
                    && most.is_none_or(|most| count <= most)
                    && items.iter().all(|value| item.contains(value))
            }
            _ => false,
        }
    }

    fn words(&self) -> Vec<String> {
        vec![match self {
            Self::Word(word) => format!("`{word}`"),
            Self::Whole(bounds) => bounds.words("a whole number"),
            Self::Number(bounds) => bounds.words("a number"),
            Self::Flag => return vec!["`true`".to_owned(), "`false`".to_owned()],
            Self::Nothing => "`none`".to_owned(),
            Self::Text { words } => words.clone().unwrap_or_else(|| "text".to_owned()),
            Self::List { words: Some(words), .. } => words.clone(),
            Self::List { item, .. } => format!("{}, several joined by commas", item.words()),
        }]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn domain(schema: Value) -> Domain {
        Domain::of(schema.as_object().unwrap())
    }

    #[test]
    fn words_follow_from_the_schema() {
        #[track_caller]
        fn check(schema: Value, words: &str) {
            assert_eq!(domain(schema).words(), words);
        }
        check(json!({"type": "integer", "minimum": 1}), "a whole number from 1");
        check(json!({"type": "integer", "minimum": 1, "maximum": 16}), "a whole number from 1 to 16");
        check(json!({"type": "number"}), "a number");
        check(json!({"type": "number", "exclusiveMinimum": 0}), "a number above 0");
        check(json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1}), "a number above 0 and at most 1");
        check(json!({"type": "number", "minimum": 0, "exclusiveMaximum": 0.9}), "a number from 0 and below 0.9");
        check(
            json!({"type": "number", "minimum": 0, "maximum": 100, "x-unit": "pixels"}),
            "a number of pixels from 0 to 100",
        );
        check(json!({"type": "boolean"}), "`true` or `false`");
        check(json!({"type": ["integer", "null"], "minimum": 1}), "a whole number from 1 or `none`");
        check(json!({"enum": ["a", "b", "c"]}), "`a`, `b` or `c`");
        assert_eq!(domain(json!({"enum": ["a", "b"]})).choices(), ["a", "b"]);
        assert!(domain(json!({"anyOf": [{"const": "a"}, {"type": "number"}]})).choices().is_empty());
        check(
            json!({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 0}], "minimum": 2}),
            "`auto` or a whole number from 2",
        );
        check(json!({"type": "string", "x-values": "ROWSxCOLUMNS"}), "ROWSxCOLUMNS");
        check(
            json!({"anyOf": [{"const": "all"}, {"type": "array", "items": {"type": "string"}, "x-values": "names"}]}),
            "`all` or names",
        );
    }

    #[test]
    fn text_becomes_the_first_value_that_it_can_be() {
        #[track_caller]
        fn check(schema: Value, text: &str, value: Option<Value>) {
            assert_eq!(domain(schema).parse(text), value, "{text}");
        }
        let auto = json!({"anyOf": [{"const": "auto"}, {"type": "number"}], "exclusiveMinimum": 0});
        check(auto.clone(), "auto", Some(json!("auto")));
        check(auto.clone(), "0.5", Some(json!(0.5)));
        for refused in ["0", "-1", "NaN", "inf", "automatic", ""] {
            check(auto.clone(), refused, None);
        }
        let count = json!({"type": ["integer", "null"], "minimum": 1});
        check(count.clone(), "none", Some(Value::Null));
        check(count.clone(), "7", Some(json!(7)));
        for refused in ["0", "1.5", "-1", "None", "18446744073709551616"] {
            check(count.clone(), refused, None);
        }
        let sizes = json!({"type": "array", "items": {"type": "integer", "minimum": 32}, "maxItems": 2});
        check(sizes.clone(), "32, 64", Some(json!([32, 64])));
        for refused in ["31", "32,", "32,64,96", ""] {
            check(sizes.clone(), refused, None);
        }
        check(json!({"type": "boolean"}), "true", Some(json!(true)));
        check(json!({"type": "boolean"}), "yes", None);
        check(json!({"type": ["string", "null"]}), "none", Some(Value::Null));
        check(json!({"type": ["string", "null"]}), "nine", Some(json!("nine")));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let all = json!({"anyOf": [{"const": "auto"}, {"type": ["number", "boolean", "null"]},
                                   {"type": "array", "items": {"type": "number"}}]});
        for value in [json!("auto"), json!(1e-6), json!(0.1), json!(true), Value::Null, json!([1.0, 0.25])] {
            assert_eq!(domain(all.clone()).parse(&text(&value)), Some(value));
        }
    }
}
