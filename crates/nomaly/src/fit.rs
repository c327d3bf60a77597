//! A fit as a program asks for it.

use std::path::{Path, PathBuf};

use nomaly_data::Dataset;
use nomaly_detectors::{AUTO, DecisionRule, DetectorError, FitResult, Recipe};
use nomaly_methods::{GroupBy, InputParams, MethodParams};
use nomaly_settings::Assignments;
use nomaly_store::{Progress, Silent};

/// A fit on images of good items: what to fit is chosen by the images unless something else is said.
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

/// What is learned from.
#[derive(Clone, Debug)]
enum Images {
    /// A folder, or the name of a data set with its options.
    Named(PathBuf),
    /// The training images of this.
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

    /// Chooses the method by the images; that is the default.
    #[must_use]
    pub fn auto(mut self) -> Self {
        AUTO.clone_into(&mut self.recipe.method);
        self
    }

    /// Fits the method that these parameters belong to.
    #[must_use]
    pub fn method<P: MethodParams>(mut self, params: &P) -> Self {
        P::METHOD.clone_into(&mut self.recipe.method);
        self.recipe.settings = Assignments::changes(params).or(&self.recipe.settings);
        self
    }

    /// Fits the method of this name, with its default parameters unless [`settings`](Self::settings) says otherwise.
    #[must_use]
    pub fn named(mut self, method: &str) -> Self {
        method.clone_into(&mut self.recipe.method);
        self
    }

    /// How images become the network's input.
    #[must_use]
    pub fn input(mut self, input: &InputParams) -> Self {
        self.recipe.settings = Assignments::changes(input).or(&self.recipe.settings);
        self
    }

    /// Settings by name, in place of earlier ones.
    #[must_use]
    pub fn settings(mut self, settings: Assignments) -> Self {
        self.recipe.settings = settings.or(&self.recipe.settings);
        self
    }

    /// The network; without it the method's own, or the one whose weights are in the library.
    #[must_use]
    pub fn backbone(mut self, name: &str) -> Self {
        self.recipe.backbone = Some(name.to_owned());
        self
    }

    /// The rate of false alarms to allow, in (0, 1).
    #[must_use]
    pub fn max_fpr(self, rate: f64) -> Self {
        self.rule(DecisionRule::MaxFpr(rate))
    }

    /// How held-out scores give the threshold.
    #[must_use]
    pub fn rule(mut self, rule: DecisionRule) -> Self {
        self.recipe.options.rule = rule;
        self
    }

    /// Which images depend on each other.
    #[must_use]
    pub fn group_by(mut self, groups: GroupBy) -> Self {
        self.recipe.options.group_by = groups;
        self
    }

    /// Decides every random choice; 0 without it.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.recipe.options.seed = seed;
        self
    }

    /// Keeps in the model what an update with further images needs, where the method needs anything.
    #[must_use]
    pub fn updatable(mut self) -> Self {
        self.recipe.options.updatable = true;
        self
    }

    /// Everything else that a fit can be told.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Recipe)) -> Self {
        change(&mut self.recipe);
        self
    }

    /// Fits.
    ///
    /// # Errors
    /// Images that cannot be found, settings that do not go together, too few usable images.
    pub fn run(self) -> Result<FitResult, DetectorError> {
        self.run_with(&Silent)
    }

    /// Fits, and tells `progress` how far it is.
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
