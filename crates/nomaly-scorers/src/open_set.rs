//! Open-set recognition: which of the known classes a row belongs to, if any.
//!
//! # What it computes
//! A [mixture of Gaussians](crate::mixture) for each class. A row is given the class under whose mixture it is most
//! likely, all classes being taken as equally frequent; its score is the negative log-likelihood there. A caller that
//! holds out rows of each class can calibrate a threshold per class, above which a row is *unknown*.
//!
//! # When to use
//! Where good items come in named kinds and the kind of an item matters, on features that separate the kinds. Without
//! labels, use one mixture of all rows (`gmm`).
//!
//! # Parameters
//! [`OpenSetOptions`]: those of the mixtures. A class with few rows gets a simpler one. With fewer than `5 (dim + 1)`
//! rows its covariances are diagonal in place of full. Its rows make up groups of `5 (dim + 1)` for full covariances
//! and of 10 for others: a set number of components is lowered to that of the groups, and `auto` compares numbers of
//! components only where there are two groups or more. One component is the least.
//!
//! # Reference
//! Scheirer, de Rezende Rocha, Sapkota and Boult, *Toward open set recognition* (2013), for the task; Hastie and
//! Tibshirani, *Discriminant analysis by Gaussian mixtures* (1996), for the model of the classes.

use std::collections::BTreeMap;

use ndarray::{ArrayView2, Axis};
use nomaly_settings::{Auto, SettingError};

use crate::entry::ScorerParams;
use crate::mixture::{Mixture, MixtureCovariance, MixtureOptions};
use crate::scorer::{Scorer, State, check_finite};
use crate::{ScorerError, Watch};

/// The `kind` of the [`State`]. Not in the list of scorers, because it cannot be fitted without labels.
pub(crate) const KIND: &str = "open-set";

/// Rows per column (plus one) below which covariances are not full.
const ROWS_PER_COLUMN: usize = 5;
/// Rows per component if covariances are not full.
const ROWS_PER_COMPONENT: usize = 10;

/// The settings of [`OpenSet`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OpenSetOptions {
    /// The mixture of a class with rows enough for it.
    pub mixture: MixtureOptions,
}

/// The most likely class of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Closest {
    /// The index of the class in [`OpenSet::classes`].
    pub class: usize,
    /// The negative log-likelihood under the class: higher = more anomalous.
    pub score: f64,
}

/// A mixture for each class.
#[derive(Debug)]
pub struct OpenSet {
    /// Ascending, each once.
    classes: Vec<String>,
    mixtures: Vec<Mixture>,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    classes: Vec<String>,
    mixtures: Vec<serde_json::Value>,
}

impl OpenSet {
    /// Fits on labelled rows `[n, dim]`.
    ///
    /// # Errors
    /// [`ScorerError::Setting`] unless there is one label per row, [`ScorerError::Class`] where the rows of a class
    /// cannot be modelled (fewer than two, or all equal), [`ScorerError::NonFiniteFeature`],
    /// [`ScorerError::Cancelled`].
    pub fn fit<S: AsRef<str>>(
        rows: ArrayView2<'_, f32>,
        labels: &[S],
        options: &OpenSetOptions,
        watch: Watch<'_>,
    ) -> Result<Self, ScorerError> {
        check_finite(rows)?;
        if labels.len() != rows.nrows() || labels.is_empty() {
            let expected = format!("a label for each of {} rows, and one row at least", rows.nrows());
            return Err(SettingError::value("labels", labels.len(), &expected).into());
        }
        let mut members: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (row, label) in labels.iter().enumerate() {
            members.entry(label.as_ref()).or_default().push(row);
        }
        let mut mixtures = Vec::with_capacity(members.len());
        for (class, members) in &members {
            let own = rows.select(Axis(0), members);
            let mixture = fit_class(own.view(), options.mixture, watch).map_err(|error| match error {
                ScorerError::Cancelled => ScorerError::Cancelled,
                error => ScorerError::Class { class: (*class).to_owned(), reason: error.to_string() },
            })?;
            mixtures.push(mixture);
        }
        Ok(Self { classes: members.into_keys().map(str::to_owned).collect(), mixtures })
    }

    /// The names of the classes, ascending.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The mixture of each class, in the order of [`classes`](Self::classes).
    pub fn mixtures(&self) -> &[Mixture] {
        &self.mixtures
    }

    /// The likeliest class of each of the rows `[n, dim]`; ties go to the first. The result for a row does not depend
    /// on the other rows.
    ///
    /// # Errors
    /// [`ScorerError::Dimension`] and [`ScorerError::NonFiniteFeature`].
    pub fn closest(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<Closest>, ScorerError> {
        let mut closest = vec![Closest { class: 0, score: f64::INFINITY }; rows.nrows()];
        for (class, mixture) in self.mixtures.iter().enumerate() {
            for (closest, score) in closest.iter_mut().zip(mixture.score(rows)?) {
                if score < closest.score {
                    *closest = Closest { class, score };
                }
            }
        }
        Ok(closest)
    }

    /// Restores the scorer from its [`state`](Scorer::state).
    ///
    /// # Errors
    /// As [`restore`](crate::restore).
    pub fn from_state(state: &State) -> Result<Self, ScorerError> {
        if state.kind != KIND {
            return Err(state.config_error(format!("is not `{KIND}`")));
        }
        let Config { classes, mixtures: configs } = state.read_config()?;
        if classes.is_empty() || configs.len() != classes.len() || !classes.is_sorted_by(|a, b| a < b) {
            return Err(state.config_error(format!("{} mixtures for the classes {classes:?}", configs.len())));
        }
        let mut parts: Vec<State> = configs
            .into_iter()
            .map(|config| State { kind: MixtureOptions::NAME.to_owned(), config, tensors: BTreeMap::new() })
            .collect();
        for (name, tensor) in &state.tensors {
            let split = name.split_once('.').and_then(|(class, part)| Some((class.parse::<usize>().ok()?, part)));
            let known = split.filter(|(class, part)| *name == tensor_name(*class, part));
            let part = known.and_then(|(class, part)| Some((parts.get_mut(class)?, part)));
            let (owner, part) = part.ok_or_else(|| state.tensor_error(name, "belongs to no class".to_owned()))?;
            owner.tensors.insert(part.to_owned(), tensor.clone());
        }
        let mixtures = parts.iter().map(Mixture::from_state).collect::<Result<Vec<_>, _>>()?;
        match mixtures.iter().find(|mixture| mixture.dim() != mixtures[0].dim()) {
            Some(other) => Err(ScorerError::Dimension { expected: mixtures[0].dim(), got: other.dim() }),
            None => Ok(Self { classes, mixtures }),
        }
    }
}

fn tensor_name(class: usize, part: &str) -> String {
    format!("{class}.{part}")
}

/// The mixture of one class, as complex as its number of rows allows.
fn fit_class(rows: ArrayView2<'_, f32>, mut options: MixtureOptions, watch: Watch<'_>) -> Result<Mixture, ScorerError> {
    let (n, dim) = rows.dim();
    if n < 2 {
        return Err(ScorerError::TooFewRows { what: "the mixture of a class", needed: 2, got: n });
    }
    let first = rows.row(0);
    if rows.outer_iter().all(|row| row == first) {
        return Err(ScorerError::ConstantRows { rows: n as u64 });
    }
    let group = ROWS_PER_COLUMN * (dim + 1);
    if n < group && options.covariance == MixtureCovariance::Full {
        options.covariance = MixtureCovariance::Diagonal;
    }
    let rows_per_component = if options.covariance == MixtureCovariance::Full { group } else { ROWS_PER_COMPONENT };
    let most = (n / rows_per_component).max(1);
    options.components = match options.components {
        Auto::Auto if most > 1 => Auto::Auto,
        Auto::Auto => Auto::Value(1),
        Auto::Value(count) => Auto::Value(count.min(most)),
    };
    Mixture::fit(rows, options, watch)
}

impl Scorer for OpenSet {
    fn dim(&self) -> usize {
        self.mixtures[0].dim()
    }

    fn score(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        Ok(self.closest(rows)?.into_iter().map(|closest| closest.score).collect())
    }

    fn state(&self) -> State {
        let states: Vec<State> = self.mixtures.iter().map(Scorer::state).collect();
        let config = Config {
            classes: self.classes.clone(),
            mixtures: states.iter().map(|state| state.config.clone()).collect(),
        };
        let mut state = State::new(KIND, &config, []);
        for (class, part) in states.into_iter().enumerate() {
            state.tensors.extend(part.tensors.into_iter().map(|(name, tensor)| (tensor_name(class, &name), tensor)));
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;
    use crate::restore;

    /// Three groups of rows, with labels in an order of their own.
    fn groups(n: usize) -> (Array2<f32>, Vec<&'static str>) {
        let labels: Vec<&str> = (0..n).map(|row| ["nut", "bolt", "cap"][row % 3]).collect();
        let rows = Array2::from_shape_fn((n, 2), |(row, column)| {
            let center = [[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]][row % 3][column];
            center + ((row * 37 + column * 53 + row * row) % 101) as f32 / 50.0
        });
        (rows, labels)
    }

    fn fit(rows: &Array2<f32>, labels: &[&str]) -> Result<OpenSet, ScorerError> {
        OpenSet::fit(rows.view(), labels, &OpenSetOptions::default(), Watch::none())
    }

    #[test]
    fn rows_get_their_class_and_strangers_a_high_score() {
        let (rows, labels) = groups(180);
        let model = fit(&rows, &labels).unwrap();
        assert_eq!(model.classes(), ["bolt", "cap", "nut"]);
        let closest = model.closest(rows.view()).unwrap();
        let right = closest.iter().zip(&labels).filter(|(closest, label)| model.classes()[closest.class] == **label);
        assert_eq!(right.count(), 180);
        let worst = closest.iter().map(|closest| closest.score).fold(f64::NEG_INFINITY, f64::max);
        assert!(model.score(array![[9.0f32, 9.0]].view()).unwrap()[0] > worst);
        // Each score is that of the class's own mixture.
        assert_eq!(closest[1].score, model.mixtures()[0].score(rows.view()).unwrap()[1]);
    }

    #[test]
    fn states_come_back_and_tampered_ones_do_not() {
        let (rows, labels) = groups(60);
        let model = fit(&rows, &labels).unwrap();
        let state = model.state();
        let again = restore(&state).unwrap();
        assert_eq!(
            (again.state(), again.score(rows.view()).unwrap()),
            (state.clone(), model.score(rows.view()).unwrap())
        );
        let refused = |change: &dyn Fn(&mut State)| {
            let mut state = state.clone();
            change(&mut state);
            assert!(restore(&state).is_err(), "{:?}", state.config);
        };
        refused(&|state| state.config["classes"] = serde_json::json!(["a", "b"]));
        refused(&|state| state.config["classes"] = serde_json::json!(["c", "b", "a"]));
        refused(&|state| state.config["classes"] = serde_json::json!(["a", "a", "b"]));
        refused(&|state| state.config = serde_json::json!({"classes": [], "mixtures": []}));
        refused(&|state| drop(state.tensors.remove("1.means")));
        for name in ["3.means", "00.means", "means", "0.surprise"] {
            refused(&|state| drop(state.tensors.insert(name.to_owned(), state.tensors["0.means"].clone())));
        }
    }

    #[test]
    fn small_classes_get_simple_mixtures_or_are_named() {
        let (rows, mut labels) = groups(30);
        let model = fit(&rows, &labels).unwrap();
        assert!(model.mixtures().iter().all(|mixture| mixture.components() == 1));
        labels[29] = "rare";
        let error = fit(&rows, &labels).unwrap_err().to_string();
        assert!(error.contains("class `rare`") && error.contains("at least 2 rows"), "{error}");
        let same = Array2::from_elem((6, 2), 1.5f32);
        assert!(fit(&same, &["a"; 6]).unwrap_err().to_string().contains("class `a`"));
        assert!(fit(&rows, &labels[1..]).is_err() && fit(&Array2::zeros((0, 2)), &[]).is_err());
    }
}
