//! Held-out scores of items or groups.

use nomaly_methods::Groups;
use nomaly_scorers::ScorerError;
use nomaly_scorers::decision::Conformal;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Held-out scores in the order of their items.
#[derive(Clone, Debug)]
pub(super) struct Scores {
    pub(super) values: Vec<f64>,
    pub(super) conformal: Conformal,
    /// For grouped items, one score per group, for rules that need independent scores.
    pub(super) independent: Option<Vec<f64>>,
}

impl Scores {
    pub(super) fn new(values: Vec<f64>, groups: Option<&[u32]>) -> Result<Self, ScorerError> {
        let Some(groups) = groups else {
            return Ok(Self { conformal: Conformal::new(values.clone())?, values, independent: None });
        };
        let conformal = Conformal::of_groups(values.clone(), groups)?;
        let groups = Groups::of_keys(groups);
        let independent = groups.members().iter().enumerate().map(|(group, members)| {
            let mut random = ChaCha8Rng::seed_from_u64(0);
            random.set_stream(group as u64);
            values[members[random.random_range(0..members.len())]]
        });
        Ok(Self { independent: Some(independent.collect()), conformal, values })
    }

    /// Independent scores: one per group.
    pub(super) fn independent(&self) -> &[f64] {
        self.independent.as_deref().unwrap_or(self.conformal.scores())
    }

    /// A resample: the scores of the groups in `drawn_groups`, in this order.
    pub(super) fn resampled(&self, groups: &Groups, drawn_groups: &[usize]) -> Result<Self, ScorerError> {
        let members = drawn_groups
            .iter()
            .enumerate()
            .flat_map(|(number, &group)| groups.members()[group].iter().map(move |&item| (item, number as u32)));
        let (items, numbers): (Vec<usize>, Vec<u32>) = members.unzip();
        Self::new(items.into_iter().map(|item| self.values[item]).collect(), Some(&numbers))
    }
}
