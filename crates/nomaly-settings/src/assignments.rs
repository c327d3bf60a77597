//! Given settings, not yet checked.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::text;
use crate::table::values;
use crate::{SettingError, Settings, SettingsTable};

/// Values by setting name, as text or typed, not yet checked. Settings without a value keep their defaults.
///
/// ```
/// use nomaly_settings::Assignments;
/// let given = Assignments::new().with("k", 5).with("distance", "cosine");
/// assert_eq!(given.iter().collect::<Vec<_>>(), [("distance", "cosine".to_owned()), ("k", "5".to_owned())]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Assignments(BTreeMap<String, Value>);

impl Assignments {
    /// No values: every setting at its default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads `KEY=VALUE` pairs.
    ///
    /// # Errors
    /// A pair without `=` or with an empty key, and a duplicate key.
    pub fn parse<S: AsRef<str>>(pairs: &[S]) -> Result<Self, SettingError> {
        let mut given = BTreeMap::new();
        for pair in pairs {
            let pair = pair.as_ref();
            let (key, value) = pair
                .split_once('=')
                .map(|(key, value)| (key.trim(), value.trim()))
                .filter(|(key, _)| !key.is_empty())
                .ok_or_else(|| SettingError::Syntax { given: pair.to_owned() })?;
            if given.insert(key.to_owned(), Value::from(value)).is_some() {
                return Err(SettingError::Twice { name: key.to_owned() });
            }
        }
        Ok(Self(given))
    }

    /// All values of `settings`, typed.
    pub fn of<S: Settings>(settings: &S) -> Self {
        Self(values(settings).into_iter().collect())
    }

    /// The values of `settings` that differ from the defaults, typed.
    pub fn changes<S: Settings>(settings: &S) -> Self {
        let usual = values(&S::default());
        Self(values(settings).into_iter().filter(|(name, value)| usual.get(name) != Some(value)).collect())
    }

    /// Adds a value as text, replacing an earlier one of that name.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Display) -> Self {
        self.set(name, value);
        self
    }

    /// Sets a value as text, replacing an earlier one of that name.
    pub fn set(&mut self, name: &str, value: impl Display) {
        self.set_value(name, Value::String(value.to_string()));
    }

    /// Sets a typed value, replacing an earlier one of that name.
    pub fn set_value(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }

    /// Removes a value.
    pub fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Adds the values of `others` for names without a value.
    #[must_use]
    pub fn or(mut self, others: &Self) -> Self {
        for (name, value) in &others.0 {
            self.0.entry(name.clone()).or_insert_with(|| value.clone());
        }
        self
    }

    /// The value given for a name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The value given for a name, as text.
    pub fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).map(text)
    }

    /// Whether a value was given for a name, even if it equals the default.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The values as text, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, String)> {
        self.0.iter().map(|(name, value)| (name.as_str(), text(value)))
    }

    /// Splits the values into those of the names in `table` and all others.
    pub fn split(&self, table: &SettingsTable) -> (Self, Self) {
        let (known, others) = self.0.clone().into_iter().partition(|(name, _)| {
            table.find(name).is_ok() || matches!(table.find(name), Err(SettingError::Renamed { .. }))
        });
        (Self(known), Self(others))
    }

    /// The typed values of settings in `table`.
    ///
    /// # Errors
    /// [`SettingError::Unknown`] and [`SettingError::Renamed`] for names that are not in the table, and
    /// [`SettingError::Value`].
    pub fn typed(&self, table: &SettingsTable) -> Result<Self, SettingError> {
        let mut typed = BTreeMap::new();
        for (name, given) in &self.0 {
            typed.insert(name.clone(), table.find(name)?.typed(given)?);
        }
        Ok(Self(typed))
    }

    /// The settings `S`: these values, and the defaults for all others.
    ///
    /// # Errors
    /// As [`typed`](Self::typed), and those of [`Settings::check`].
    pub fn read<S: Settings>(&self) -> Result<S, SettingError> {
        self.read_over(&S::default())
    }

    /// As [`read`](Self::read), with other default values.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_over<S: Settings>(&self, defaults: &S) -> Result<S, SettingError> {
        let table = SettingsTable::with_defaults(defaults);
        let mut all = values(defaults);
        let mut read = defaults.clone();
        for (name, given) in &self.0 {
            let setting = table.find(name)?;
            all.insert(name.clone(), setting.typed(given)?);
            // A type written as text has rules beyond its schema: find the setting that breaks one.
            read = serde_json::from_value(Value::Object(all.clone()))
                .map_err(|_| SettingError::value(name, text(given), &setting.values))?;
        }
        read.check()?;
        Ok(read)
    }
}

impl<K: AsRef<str>, V: Display> FromIterator<(K, V)> for Assignments {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(values: I) -> Self {
        let mut given = Self::new();
        for (name, value) in values {
            given.set(name.as_ref(), value);
        }
        given
    }
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde_json::json;

    use super::*;
    use crate::{Auto, Memory};

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    struct Training {
        /// Passes over the examples.
        #[schemars(extend("minimum" = 1))]
        epochs: Auto<usize>,
        /// How parameters follow the gradient.
        #[schemars(extend("x-formerly" = ["optimiser"]))]
        optimizer: Optimizer,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "kebab-case")]
    enum Optimizer {
        /// Adam.
        Adam,
        /// Stochastic gradient descent.
        PlainSgd,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    struct Params {
        /// Layers whose features
        /// are joined.
        ///
        /// The finest first.
        layers: Auto<Vec<String>>,
        /// What may be taken.
        max_memory: Memory,
        #[serde(flatten)]
        training: Training,
        /// Whether it is kept.
        keep: Option<bool>,
        #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
        share: f64,
    }

    impl Default for Params {
        fn default() -> Self {
            Self {
                layers: Auto::Auto,
                max_memory: Memory::gib(2),
                training: Training { epochs: Auto::Value(3), optimizer: Optimizer::Adam },
                keep: None,
                share: 0.25,
            }
        }
    }

    impl Settings for Params {
        fn check(&self) -> Result<(), SettingError> {
            match self.training.epochs {
                Auto::Value(1) if self.share > 0.5 => Err(SettingError::value("share", self.share, "at most 0.5 here")),
                _ => Ok(()),
            }
        }
    }

    fn read(pairs: &[&str]) -> Result<Params, SettingError> {
        Assignments::parse(pairs)?.read()
    }

    #[test]
    fn pairs_are_split_at_the_first_equals_sign() {
        let given = Assignments::parse(&["weights=a=b.safetensors", " k = 3 "]).unwrap();
        assert_eq!(given.text("weights").as_deref(), Some("a=b.safetensors"));
        assert_eq!(given.text("k").as_deref(), Some("3"));
    }

    #[test]
    fn fields_are_read_over_the_defaults() {
        assert_eq!(read(&[]).unwrap(), Params::default());
        let given =
            ["layers=a, b", "max_memory=512MiB", "epochs=auto", "optimizer=plain-sgd", "keep=true", "share=0.5"];
        let params = read(&given).unwrap();
        let training = Training { epochs: Auto::Auto, optimizer: Optimizer::PlainSgd };
        let expected = Params {
            layers: Auto::Value(vec!["a".into(), "b".into()]),
            max_memory: Memory(512 << 20),
            training,
            keep: Some(true),
            share: 0.5,
        };
        assert_eq!(params, expected);
        assert_eq!(Assignments::of(&params).read::<Params>().unwrap(), params);
        let stored = serde_json::to_value(Assignments::of(&params)).unwrap();
        assert_eq!(stored["layers"], json!(["a", "b"]));
        assert_eq!((&stored["share"], &stored["keep"], &stored["epochs"]), (&json!(0.5), &json!(true), &json!("auto")));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        #[track_caller]
        fn check(pairs: &[&str], message: &str) {
            assert_eq!(read(pairs).unwrap_err().to_string(), message);
        }
        check(&["k"], "setting `k` is not of the form KEY=VALUE");
        check(&["share=0.1", "share=0.2"], "setting `share` is given twice");
        check(&["shares=0.1"], "unknown setting `shares`; did you mean `share`?");
        check(&["optimiser=adam"], "setting `optimiser` is now called `optimizer`");
        check(&["share=1"], "setting `share` is `1`; it takes a number above 0 and below 1");
        check(&["share=NaN"], "setting `share` is `NaN`; it takes a number above 0 and below 1");
        check(&["epochs=0"], "setting `epochs` is `0`; it takes `auto` or a whole number from 1");
        check(&["optimizer=adamw"], "setting `optimizer` is `adamw`; it takes `adam` or `plain-sgd`");
        check(&["keep=yes"], "setting `keep` is `yes`; it takes `true`, `false` or `none`");
        check(&["max_memory=2GB"], "setting `max_memory` is `2GB`; it takes a number of bytes, with KiB, MiB or GiB");
        check(&["epochs=1", "share=0.7"], "setting `share` is `0.7`; it takes at most 0.5 here");
    }

    #[test]
    fn an_explicit_default_is_told_apart() {
        let given = Assignments::parse(&["share=0.25"]).unwrap();
        assert!(given.contains("share") && !given.contains("keep"));
        let changed = Params { share: 0.5, ..Params::default() };
        assert_eq!(Assignments::changes(&changed).iter().collect::<Vec<_>>(), [("share", "0.5".to_owned())]);
        assert_eq!(given.read::<Params>().unwrap(), Params::default());
    }

    #[test]
    fn typed_values_are_checked_as_text_is() {
        let mut given = Assignments::new();
        given.set_value("share", json!(0.5));
        given.set_value("keep", Value::Null);
        assert_eq!(given.read::<Params>().unwrap().share, 0.5);
        given.set_value("share", json!(1.5));
        assert!(matches!(given.read::<Params>(), Err(SettingError::Value { name, .. }) if name == "share"));
        given.set_value("share", json!([1]));
        assert!(matches!(given.read::<Params>(), Err(SettingError::Value { name, .. }) if name == "share"));
    }

    #[test]
    fn tables_follow_from_the_struct() {
        let table = SettingsTable::of::<Params>();
        let names: Vec<&str> = table.iter().map(|setting| setting.name.as_str()).collect();
        assert_eq!(names, ["epochs", "keep", "layers", "max_memory", "optimizer", "share"]);
        let layers = table.get("layers").unwrap();
        assert_eq!((layers.default.as_str(), layers.summary.as_str()), ("auto", "Layers whose features are joined"));
        assert_eq!(table.get("epochs").unwrap().default, "3");
        let schema = table.schema("Params");
        assert_eq!(schema["additionalProperties"], json!(false));
        assert_eq!(schema["properties"]["share"]["default"], json!(0.25));
        let other = Params { share: 0.75, ..Params::default() };
        assert_eq!(SettingsTable::with_defaults(&other).get("share").unwrap().default, "0.75");
    }
}
