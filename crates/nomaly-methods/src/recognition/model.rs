//! A mixture of Gaussians for each class, on reduced features.

use std::collections::BTreeMap;

use ndarray::{Array2, ArrayView2, Axis};
use nomaly_scorers::open_set::{OpenSet, OpenSetOptions};
use nomaly_scorers::subspace::{KeptComponents, PrincipalComponents};
use nomaly_scorers::{Scorer, State, Watch};
use nomaly_store::Progress;

use super::class::{HeldOutClass, KnownClass, check_name, closest};
use super::settings::{OpenSetParams, Plan};
use crate::MethodError;
use crate::groups::{FEW_FOLDS, Groups, MANY_FOLDS_UP_TO, MAX_FOLDS, Split};
use crate::score::HeldOut;
use crate::stage::Stage;

/// The fewest items of a class, such that every fit keeps three.
pub const MIN_ITEMS: usize = 4;

const OPEN_SET: &str = "classes";
const PROJECTION: &str = "projection";

/// The classes of items.
#[derive(Clone, Debug)]
pub struct Labels {
    /// Ascending and distinct.
    names: Vec<String>,
    /// The items of each class, ascending.
    members: Vec<Vec<usize>>,
    /// The class of each item.
    of: Vec<usize>,
}

impl Labels {
    /// Assigns classes by name.
    ///
    /// # Errors
    /// Invalid class names, and a class with fewer than [`MIN_ITEMS`] items.
    pub fn new<S: AsRef<str>>(names: &[S]) -> Result<Self, MethodError> {
        let mut members: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (item, name) in names.iter().enumerate() {
            members.entry(name.as_ref()).or_default().push(item);
        }
        let mut of = vec![0; names.len()];
        for (class, (name, members)) in members.iter().enumerate() {
            check_name(name)?;
            if members.len() < MIN_ITEMS {
                let reason =
                    format!("a class needs at least {MIN_ITEMS} usable items, and there are {}", members.len());
                return Err(MethodError::Class { class: (*name).to_owned(), reason });
            }
            members.iter().for_each(|&item| of[item] = class);
        }
        let (names, members) = members.into_iter().map(|(name, members)| (name.to_owned(), members)).unzip();
        Ok(Self { names, members, of })
    }

    /// Stratified splits that keep groups together: ten up to a thousand items, five above. A group with items of
    /// several classes is divided by class; a group that would leave fewer than [`MIN_ITEMS`] of its class is taken
    /// apart. They depend only on labels, groups and `seed`.
    fn splits(&self, groups: &Groups, seed: u64) -> Vec<Split> {
        let most = if self.of.len() <= MANY_FOLDS_UP_TO { MAX_FOLDS } else { FEW_FOLDS };
        let mut tests = vec![Vec::new(); most];
        for members in &self.members {
            let of_class = Groups::of_keys(members.iter().map(|&item| groups.of()[item]));
            for (test, fold) in tests.iter_mut().zip(of_class.leaving(MIN_ITEMS - 1).folds(most, seed)) {
                test.extend(fold.into_iter().map(|place| members[place]));
            }
        }
        tests.retain(|test| !test.is_empty());
        tests.iter_mut().for_each(|test| test.sort_unstable());
        tests.into_iter().map(|test| Split::holding_out(test, self.of.len())).collect()
    }

    /// The class names of these items.
    fn names_of(&self, items: &[usize]) -> Vec<&str> {
        items.iter().map(|&item| self.names[self.of[item]].as_str()).collect()
    }

    /// The smallest number of items of any class in any fit, and of all items in any fit.
    fn smallest_fit(&self, splits: &[Split]) -> (usize, usize) {
        let of_class = |split: &Split, class: usize| split.train.iter().filter(|&&item| self.of[item] == class).count();
        let items = splits.iter().flat_map(|split| (0..self.names.len()).map(|class| of_class(split, class))).min();
        let all = splits.iter().map(|split| split.train.len()).min();
        (items.unwrap_or_default(), all.unwrap_or_default())
    }
}

/// The result of a fit of classes.
pub struct ClassFit<M> {
    /// The model fitted on all items.
    pub model: M,
    /// The held-out scores by predicted class.
    pub held_out: Vec<HeldOutClass>,
    /// The held-out scores under the closest class, in the order of the items.
    pub closest: Vec<HeldOut>,
}

/// The inputs of a fit of classes.
pub struct ClassTask<'a> {
    /// Which class each item is of.
    pub labels: &'a Labels,
    /// The groups of the items.
    pub groups: &'a Groups,
    /// The number of columns of the rows.
    pub dim: usize,
    /// The settings.
    pub settings: &'a OpenSetParams,
    /// Seeds every random choice.
    pub seed: u64,
    /// Reports progress, and signals cancellation.
    pub progress: &'a dyn Progress,
}

impl ClassTask<'_> {
    /// Fits classes on all items, and scores every item by a fit without it.
    ///
    /// `fit(items, names, plan)` fits on `items` with their class names; `score(model, items)` returns the scores of
    /// each of `items` under all classes.
    ///
    /// # Errors
    /// Settings that need more items per class, cancellation, and errors of the two closures.
    pub fn run<M, E: From<MethodError>>(
        &self,
        fit: impl Fn(&[usize], &[&str], &Plan) -> Result<M, E>,
        score: impl Fn(&M, &[usize]) -> Result<Vec<Vec<f64>>, E>,
    ) -> Result<ClassFit<M>, E> {
        let Self { labels, groups, dim, settings, seed, progress } = *self;
        let splits = labels.splits(groups, seed);
        let (items, all) = labels.smallest_fit(&splits);
        let plan = settings.plan(dim, items, all, seed)?;
        let mut scored = vec![Vec::new(); labels.of.len()];
        let stage = Stage::start(progress, "scoring held-out items", Some(labels.of.len()));
        for Split { train, test } in splits {
            if progress.cancelled() {
                return Err(MethodError::Cancelled.into());
            }
            let model = fit(&train, &labels.names_of(&train), &plan)?;
            for (item, scores) in test.iter().zip(score(&model, &test)?) {
                scored[*item] = scores;
            }
            stage.advance(test.len());
        }
        drop(stage);
        let _stage = Stage::start(progress, "fitting classes", None);
        let all: Vec<usize> = (0..labels.of.len()).collect();
        let model = fit(&all, &labels.names_of(&all), &plan)?;
        let class = |(name, members): (&String, &Vec<usize>)| HeldOutClass {
            class: KnownClass { name: name.clone(), items: members.len() },
            scores: Vec::new(),
            groups: (!groups.is_trivial()).then(Vec::new),
        };
        let mut held_out: Vec<HeldOutClass> = labels.names.iter().zip(&labels.members).map(class).collect();
        let mut scores_of_closest = Vec::with_capacity(scored.len());
        for (image, scores) in scored.iter().enumerate() {
            let class = closest(scores);
            held_out[class].scores.push(scores[class]);
            if let Some(of) = &mut held_out[class].groups {
                of.push(groups.of()[image]);
            }
            scores_of_closest.push(HeldOut::scored(image, scores[class]));
        }
        Ok(ClassFit { model, held_out, closest: scores_of_closest })
    }
}

/// A mixture of Gaussians for each class, on the principal components of features.
#[derive(Debug)]
pub struct ClassModel {
    projection: Option<PrincipalComponents>,
    open_set: OpenSet,
}

impl ClassModel {
    /// Fits on rows `[n, dim]` with their class names.
    ///
    /// # Errors
    /// Rows on which the mixtures cannot be fitted, and cancellation.
    pub fn fit(
        rows: ArrayView2<'_, f32>,
        labels: &[&str],
        plan: &Plan,
        progress: &dyn Progress,
    ) -> Result<Self, MethodError> {
        let stop = || progress.cancelled();
        let watch = Watch::new(&stop);
        let options = OpenSetOptions { mixture: plan.mixture };
        let Some(count) = plan.dimensions else {
            return Ok(Self { projection: None, open_set: OpenSet::fit(rows, labels, &options, watch)? });
        };
        let projection = PrincipalComponents::fit(rows, KeptComponents::Count(count), false, watch)?;
        let open_set = OpenSet::fit(projection.project(rows)?.view(), labels, &options, watch)?;
        Ok(Self { projection: Some(projection), open_set })
    }

    /// The number of columns of a row.
    pub fn dim(&self) -> usize {
        self.projection.as_ref().map_or_else(|| self.open_set.dim(), PrincipalComponents::dim)
    }

    /// The names of the classes, ascending.
    pub fn classes(&self) -> &[String] {
        self.open_set.classes()
    }

    /// The scores `[n, classes]` of the rows `[n, dim]` under each class. The score of a row does not depend on other
    /// rows.
    ///
    /// # Errors
    /// Rows of another width than the fitted ones, or values that are not finite.
    pub fn scores(&self, rows: ArrayView2<'_, f32>) -> Result<Array2<f64>, MethodError> {
        let projected = self.projection.as_ref().map(|projection| projection.project(rows)).transpose()?;
        let rows = projected.as_ref().map_or(rows, |projected| projected.view());
        let mut scores = Array2::zeros((rows.nrows(), self.classes().len()));
        for (mixture, mut column) in self.open_set.mixtures().iter().zip(scores.axis_iter_mut(Axis(1))) {
            column.iter_mut().zip(mixture.score(rows)?).for_each(|(cell, score)| *cell = score);
        }
        Ok(scores)
    }

    /// The named states from which it can be [restored](Self::restore).
    pub fn states(&self) -> Vec<(String, State)> {
        let projection = self.projection.iter().map(|projection| (PROJECTION.to_owned(), projection.state()));
        projection.chain([(OPEN_SET.to_owned(), self.open_set.state())]).collect()
    }

    /// Restores a model from its [`states`](Self::states), with all checks.
    ///
    /// # Errors
    /// A state that is missing or damaged.
    pub fn restore(states: &[(String, State)]) -> Result<Self, MethodError> {
        let (projection, open_set) = match states {
            [(name, open_set)] if name == OPEN_SET => (None, open_set),
            [(first, projection), (name, open_set)] if first == PROJECTION && name == OPEN_SET => {
                (Some(PrincipalComponents::from_state(projection)?), open_set)
            }
            _ => return Err(MethodError::State { state: OPEN_SET.to_owned(), reason: None }),
        };
        let open_set = OpenSet::from_state(open_set)?;
        if let Some(projection) = projection.as_ref().filter(|projection| projection.kept() != open_set.dim()) {
            let reason = format!("{} columns for classes of {}", projection.kept(), open_set.dim());
            return Err(MethodError::State { state: PROJECTION.to_owned(), reason: Some(reason) });
        }
        Ok(Self { projection, open_set })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_shared_out_alike() {
        let names: Vec<&str> = (0..130).map(|item| if item % 13 == 0 { "rare" } else { "common" }).collect();
        let labels = Labels::new(&names).unwrap();
        let splits = labels.splits(&Groups::singletons(labels.of.len()), 5);
        assert_eq!(splits.len(), 10);
        let mut times = [0; 130];
        for Split { train, test } in &splits {
            assert_eq!(train.len() + test.len(), 130);
            assert!(test.is_sorted() && test.iter().all(|item| train.binary_search(item).is_err()));
            assert_eq!(test.iter().filter(|&&item| names[item] == "rare").count(), 1);
            test.iter().for_each(|&item| times[item] += 1);
        }
        assert_eq!(times, [1; 130]);
        assert_eq!(labels.smallest_fit(&splits), (9, 117));
        assert_eq!(Labels::new(&vec!["a"; 1001]).unwrap().splits(&Groups::singletons(1001), 0).len(), 5);
    }

    #[test]
    fn small_classes_and_reserved_names_are_refused() {
        let refused = |names: &[&str]| Labels::new(names).unwrap_err().to_string();
        let message = refused(&["a", "a", "a", "a", "b", "b", "b"]);
        assert!(message.contains("class `b`") && message.contains("at least 4"), "{message}");
        assert!(refused(&["unknown"; 9]).contains("reserved"));
        assert!(refused(&[""; 9]).contains("needs a name"));
    }
}
