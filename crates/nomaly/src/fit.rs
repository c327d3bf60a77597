//! A builder for fits.

use std::path::{Path, PathBuf};

use nomaly_data::Dataset;
use nomaly_detectors::{AUTO, DecisionRule, DetectorError, FitResult, Recipe};
use nomaly_methods::{GroupBy, InputParams, MethodParams};
use nomaly_nn::runtime::Executor;
use nomaly_settings::Assignments;
use nomaly_store::{Progress, Silent};

/// A fit on images of good items. By default the method is chosen by the images.
///
/// ```no_run
/// use nomaly::Fit;
/// use nomaly::params::PatchCoreParams;
///
/// let params = PatchCoreParams { coreset: 0.05, ..PatchCoreParams::default() };
/// let fit = Fit::of("photos/good").method(&params).max_fpr(0.01).run()?;
/// fit.save("part.nomaly".as_ref())?;
/// # Ok::<(), nomaly::DetectorError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Fit {
    images: Images,
    recipe: Recipe,
}

/// The training data.
#[derive(Clone, Debug)]
enum Images {
    /// A folder, or the name of a data set with its options.
    Named(PathBuf),
    /// The training images of an opened data set.
    Opened(Box<Dataset>),
}

impl Fit {
    /// A fit on the images in a folder of good items, or on the training images of a folder in MVTec layout or of a
    /// named data set.
    pub fn of(images: impl AsRef<Path>) -> Self {
        Self { images: Images::Named(images.as_ref().to_owned()), recipe: Recipe::default() }
    }

    /// A fit on the training images of an opened data set.
    pub fn of_dataset(dataset: Dataset) -> Self {
        Self { images: Images::Opened(Box::new(dataset)), recipe: Recipe::default() }
    }

    /// Chooses the method by the images. This is the default.
    #[must_use]
    pub fn auto(mut self) -> Self {
        AUTO.clone_into(&mut self.recipe.method);
        self
    }

    /// Fits the method of these parameters.
    #[must_use]
    pub fn method<P: MethodParams>(mut self, params: &P) -> Self {
        P::METHOD.clone_into(&mut self.recipe.method);
        self.recipe.settings = Assignments::changes(params).or(&self.recipe.settings);
        self
    }

    /// Fits the method of this name, with default parameters except those given by [`settings`](Self::settings).
    #[must_use]
    pub fn named(mut self, method: &str) -> Self {
        method.clone_into(&mut self.recipe.method);
        self
    }

    /// Sets how images become the network's input.
    #[must_use]
    pub fn input(mut self, input: &InputParams) -> Self {
        self.recipe.settings = Assignments::changes(input).or(&self.recipe.settings);
        self
    }

    /// Adds settings by name, replacing earlier ones.
    #[must_use]
    pub fn settings(mut self, settings: Assignments) -> Self {
        self.recipe.settings = settings.or(&self.recipe.settings);
        self
    }

    /// Sets the network. The default is the method's own, or the one whose weights are embedded in the library.
    #[must_use]
    pub fn backbone(mut self, name: &str) -> Self {
        self.recipe.backbone = Some(name.to_owned());
        self
    }

    /// Sets the limit of the false-alarm rate, in (0, 1).
    #[must_use]
    pub fn max_fpr(self, rate: f64) -> Self {
        self.rule(DecisionRule::MaxFpr(rate))
    }

    /// Sets the decision rule.
    #[must_use]
    pub fn rule(mut self, rule: DecisionRule) -> Self {
        self.recipe.options.rule = rule;
        self
    }

    /// Sets the rule that groups dependent images.
    #[must_use]
    pub fn group_by(mut self, groups: GroupBy) -> Self {
        self.recipe.options.group_by = groups;
        self
    }

    /// Sets the device that networks run and learn on, by default the processor.
    #[must_use]
    pub fn on(mut self, executor: &Executor) -> Self {
        self.recipe.executor = Some(executor.clone());
        self
    }

    /// Sets the seed of all random choices, by default 0.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.recipe.options.seed = seed;
        self
    }

    /// Keeps the state that updates with further images need, for methods that would not otherwise.
    #[must_use]
    pub fn updatable(mut self) -> Self {
        self.recipe.options.updatable = true;
        self
    }

    /// Sets all other options.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Recipe)) -> Self {
        change(&mut self.recipe);
        self
    }

    /// Runs the fit.
    ///
    /// # Errors
    /// Missing images, contradictory settings, too few usable images.
    pub fn run(self) -> Result<FitResult, DetectorError> {
        self.run_with(&Silent)
    }

    /// Runs the fit and reports to `progress`.
    ///
    /// # Errors
    /// As [`run`](Self::run), and cancellation by `progress`.
    pub fn run_with(self, progress: &dyn Progress) -> Result<FitResult, DetectorError> {
        let dataset = match self.images {
            Images::Named(path) => nomaly_data::open(&path.to_string_lossy())?,
            Images::Opened(dataset) => *dataset,
        };
        let chosen = self.recipe.choose(&dataset.train)?;
        self.recipe.fit(&chosen, &dataset.name, &dataset.train, progress)
    }
}
