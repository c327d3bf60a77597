//! Tables of settings.

use std::sync::Arc;

use nomaly_registry::UnknownName;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use crate::domain::{Domain, text};
use crate::{SettingError, Settings};

/// A setting, as listed by `nomaly list`, the docs and error messages.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The name, as in `--set NAME=VALUE`.
    pub name: String,
    /// The default value as text.
    pub default: String,
    /// A description of its values, for example "a whole number from 1".
    pub values: String,
    /// A one-line summary: the first paragraph of the field's documentation.
    pub summary: String,
    /// Whether a value is required.
    pub needed: bool,
    /// Former names.
    pub formerly: Vec<String>,
    /// Its JSON Schema.
    pub schema: Map<String, Value>,
    domain: Domain,
}

impl Setting {
    fn new(name: &str, schema: &Value, default: &Value) -> Self {
        let mut schema = schema.as_object().cloned().unwrap_or_default();
        let domain = Domain::of(&schema);
        let strings = |value: &Value| {
            value.as_array().map(|all| all.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        };
        let description = schema.get("description").and_then(Value::as_str).unwrap_or_default();
        let summary = description.split("\n\n").next().unwrap_or_default();
        let setting = Self {
            name: name.to_owned(),
            default: text(default),
            values: domain.words(),
            summary: summary.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.').to_owned(),
            needed: schema.get("x-needed") == Some(&Value::Bool(true)),
            formerly: schema.get("x-formerly").and_then(strings).unwrap_or_default(),
            schema: Map::new(),
            domain,
        };
        schema.insert("default".to_owned(), default.clone());
        Self { schema, ..setting }
    }

    /// All of its values, if they are words; otherwise empty.
    pub fn choices(&self) -> Vec<String> {
        self.domain.choices()
    }

    /// The typed value of a given value or text.
    ///
    /// # Errors
    /// [`SettingError::Value`].
    pub fn typed(&self, given: &Value) -> Result<Value, SettingError> {
        if self.domain.contains(given) {
            return Ok(given.clone());
        }
        let parsed = given.as_str().and_then(|text| self.domain.parse(text));
        parsed.ok_or_else(|| SettingError::value(&self.name, text(given), &self.values))
    }
}

/// The settings of a struct, in the order of their names.
#[derive(Clone, Debug, Default)]
pub struct SettingsTable {
    rows: Arc<[Setting]>,
}

impl SettingsTable {
    /// The settings of `S`.
    pub fn of<S: Settings>() -> Self {
        Self::with_defaults(&S::default())
    }

    /// The settings of `S` with other default values.
    pub fn with_defaults<S: Settings>(defaults: &S) -> Self {
        let schema = plain_schema::<S>();
        let defaults = values(defaults);
        let rows = schema
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(name, schema)| Setting::new(name, schema, defaults.get(name).unwrap_or(&Value::Null)));
        let mut rows: Vec<Setting> = rows.collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        Self { rows: rows.into() }
    }

    /// Joins several tables.
    pub fn joined<'a>(tables: impl IntoIterator<Item = &'a Self>) -> Self {
        Self { rows: tables.into_iter().flat_map(|table| table.rows.iter().cloned()).collect() }
    }

    /// All rows.
    pub fn iter(&self) -> std::slice::Iter<'_, Setting> {
        self.rows.iter()
    }

    /// The setting with this name.
    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.rows.iter().find(|setting| setting.name == name)
    }

    /// The setting with this name.
    ///
    /// # Errors
    /// [`SettingError::Renamed`] for a former name, otherwise [`SettingError::Unknown`] with the nearest name.
    pub fn find(&self, name: &str) -> Result<&Setting, SettingError> {
        if let Some(setting) = self.get(name) {
            return Ok(setting);
        }
        match self.rows.iter().find(|setting| setting.formerly.iter().any(|former| former == name)) {
            None if self.rows.is_empty() => Err(SettingError::NoSettings { name: name.to_owned() }),
            Some(setting) => Err(SettingError::Renamed { name: name.to_owned(), now: setting.name.clone() }),
            None => {
                Err(UnknownName::new("setting", name, self.rows.iter().map(|setting| setting.name.as_str())).into())
            }
        }
    }

    /// The JSON Schema of an object with these settings.
    pub fn schema(&self, title: &str) -> Value {
        let properties: Map<String, Value> =
            self.rows.iter().map(|setting| (setting.name.clone(), Value::Object(setting.schema.clone()))).collect();
        let needed: Vec<&str> =
            self.rows.iter().filter(|setting| setting.needed).map(|setting| setting.name.as_str()).collect();
        serde_json::json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": title,
            "type": "object",
            "properties": properties,
            "additionalProperties": false,
            "required": needed,
        })
    }
}

impl<'a> IntoIterator for &'a SettingsTable {
    type Item = &'a Setting;
    type IntoIter = std::slice::Iter<'a, Setting>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The schema of `S` with all references inlined.
fn plain_schema<S: JsonSchema>() -> Map<String, Value> {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    match settings.into_generator().into_root_schema_for::<S>().to_value() {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

/// The typed values of `settings` by name.
pub(crate) fn values<S: Settings>(settings: &S) -> Map<String, Value> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(values)) => values,
        // A struct of settings serializes to an object of numbers, words and lists.
        _ => Map::new(),
    }
}
