//! The training loop.

use std::time::{Duration, Instant};

use nomaly_nn::weights::Weights;
use nomaly_store::Progress;

use super::checkpoint::{Checkpoint, Position, weights_of};
use super::history::{EpochRecord, Trained};
use super::objective::{Batch, Objective};
use super::order::shuffled;
use super::plan::TrainingPlan;
use crate::MethodError;
use crate::stage::Stage;

/// The longest time between two checkpoints.
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);
/// How often the displayed loss is updated.
const DESCRIBE_EVERY: Duration = Duration::from_millis(250);

/// Trains the networks of `objective`.
///
/// With a `checkpoint`, the training resumes from its file and keeps it up to date; the caller
/// [removes](Checkpoint::remove) it once the result is saved. `on_epoch` is called for every finished epoch, including
/// those before the checkpoint.
///
/// # Errors
/// Cancellation (after writing the checkpoint), a loss that is not finite, a checkpoint that cannot be read or written,
/// and errors of the objective.
pub fn train(
    plan: &TrainingPlan,
    objective: &mut dyn Objective,
    checkpoint: Option<&Checkpoint>,
    progress: &dyn Progress,
    on_epoch: &mut dyn FnMut(&EpochRecord),
) -> Result<Trained, MethodError> {
    let examples = objective.examples();
    let steps_per_epoch = examples.div_ceil(plan.batch);
    let steps = (plan.epochs * steps_per_epoch) as u64;
    let warmup = plan.warmup.steps(steps, steps_per_epoch as u64);
    let found = checkpoint.map(|checkpoint| checkpoint.read(&mut objective.learners())).transpose()?.flatten();
    let (mut position, mut best) = found.unwrap_or_default();
    let begun = position.history.len() * steps_per_epoch + position.steps;
    let resumed = (begun > 0).then_some(begun as u64);
    position.history.iter().for_each(&mut *on_epoch);

    let stage = Stage::start(progress, "training", Some(plan.epochs * examples));
    stage.advance(position.history.len() * examples + (position.steps * plan.batch).min(examples));
    let mut written = Instant::now();
    let mut described: Option<Instant> = None;
    while position.history.len() < plan.epochs && !stops_early(plan, &position) {
        let epoch = position.history.len();
        let order = shuffled(examples, plan.seed, epoch);
        let mut loss = f64::from_bits(position.loss);
        for (number, batch) in order.chunks(plan.batch).enumerate().skip(position.steps) {
            let step = (epoch * steps_per_epoch + number) as u64;
            for (_, learner) in objective.learners() {
                learner.rate = learner.rule.rate() * plan.schedule.factor_after(warmup, step, steps);
            }
            let losses = objective.step(&Batch { examples: batch, epoch, step })?;
            if !losses.are_finite() {
                return Err(MethodError::Diverged { epoch: epoch + 1, step });
            }
            loss += losses.total * batch.len() as f64;
            position.steps = number + 1;
            position.loss = loss.to_bits();
            stage.advance(batch.len());
            if described.is_none_or(|described| described.elapsed() >= DESCRIBE_EVERY) {
                let trained_on = (position.steps * plan.batch).min(examples);
                let parts: String = losses.parts.iter().map(|(name, loss)| format!(", {name} {loss:.4}")).collect();
                progress.describe(&format!(
                    "training, epoch {} of {}, loss {:.4}{parts}",
                    epoch + 1,
                    plan.epochs,
                    loss / trained_on as f64
                ));
                described = Some(Instant::now());
            }
            let cancelled = progress.cancelled();
            if cancelled || written.elapsed() >= CHECKPOINT_EVERY {
                if let Some(checkpoint) = checkpoint {
                    checkpoint.write(&objective.learners(), &best, &position)?;
                }
                written = Instant::now();
            }
            if cancelled {
                return Err(MethodError::Cancelled);
            }
        }
        let validation = objective.validate(epoch)?;
        if validation.is_some_and(|validation| !validation.loss.is_finite()) {
            return Err(MethodError::Diverged { epoch: epoch + 1, step: ((epoch + 1) * steps_per_epoch) as u64 });
        }
        let record = EpochRecord { epoch: epoch + 1, loss: loss / examples as f64, validation };
        let improved = validation.is_some_and(|now| {
            let before = position.best.checked_sub(1).and_then(|best| position.history[best].validation);
            before.is_none_or(|before| now.loss < before.loss)
        });
        position = Position { history: position.history, steps: 0, loss: 0, best: position.best };
        position.history.push(record);
        if improved && plan.patience.is_some() {
            position.best = epoch + 1;
            best = weights_of(&objective.learners())?;
        }
        on_epoch(&record);
        if let Some(checkpoint) = checkpoint {
            checkpoint.write(&objective.learners(), &best, &position)?;
            written = Instant::now();
        }
    }
    drop(stage);
    let last = position.history.len();
    let kept_epoch = if position.best == 0 { last } else { position.best };
    if kept_epoch != last {
        restore(objective, &best)?;
    }
    Ok(Trained { history: position.history, kept_epoch, resumed })
}

/// Whether the validation loss has not fallen for [`patience`](TrainingPlan::patience) epochs.
fn stops_early(plan: &TrainingPlan, position: &Position) -> bool {
    plan.patience.is_some_and(|patience| position.best > 0 && position.history.len() - position.best >= patience)
}

fn restore(objective: &mut dyn Objective, best: &[Weights]) -> Result<(), MethodError> {
    for ((_, learner), weights) in objective.learners().into_iter().zip(best) {
        learner.network.load(weights)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use nomaly_store::Silent;

    use super::*;
    use crate::training::{Learner, Losses, Schedule, Validation, Warmup};

    /// Losses as they were written down.
    struct Scripted {
        loss: f64,
        validation: Vec<f64>,
        steps: Vec<(usize, u64, usize)>,
    }

    impl Objective for Scripted {
        fn examples(&self) -> usize {
            5
        }

        fn learners(&mut self) -> Vec<(&'static str, &mut Learner)> {
            Vec::new()
        }

        fn step(&mut self, batch: &Batch<'_>) -> Result<Losses, MethodError> {
            self.steps.push((batch.epoch, batch.step, batch.examples.len()));
            Ok(self.loss.into())
        }

        fn validate(&mut self, epoch: usize) -> Result<Option<Validation>, MethodError> {
            Ok(self.validation.get(epoch).map(|&loss| Validation { loss, accuracy: None }))
        }
    }

    fn run(objective: &mut Scripted, epochs: usize, patience: Option<usize>) -> Result<Trained, MethodError> {
        let (schedule, warmup) = (Schedule::Constant, Warmup::None);
        let plan = TrainingPlan { epochs, batch: 2, schedule, warmup, patience, seed: 1 };
        train(&plan, objective, None, &Silent, &mut |_| {})
    }

    #[test]
    fn every_example_is_seen_once_an_epoch() {
        let mut objective = Scripted { loss: 0.5, validation: Vec::new(), steps: Vec::new() };
        let trained = run(&mut objective, 2, None).unwrap();
        assert_eq!(objective.steps, [(0, 0, 2), (0, 1, 2), (0, 2, 1), (1, 3, 2), (1, 4, 2), (1, 5, 1)]);
        assert_eq!((trained.kept_epoch, trained.resumed, trained.history[1].loss), (2, None, 0.5));
    }

    #[test]
    fn training_stops_where_patience_ends_and_keeps_the_best() {
        let validation = vec![3.0, 1.0, 2.0, 1.5, 0.5, 0.1];
        let script = || Scripted { loss: 0.5, validation: validation.clone(), steps: Vec::new() };
        let trained = run(&mut script(), 6, Some(2)).unwrap();
        assert_eq!((trained.history.len(), trained.kept_epoch), (4, 2));
        let trained = run(&mut script(), 6, Some(3)).unwrap();
        assert_eq!((trained.history.len(), trained.kept_epoch), (6, 6));
        let trained = run(&mut script(), 4, None).unwrap();
        assert_eq!((trained.history.len(), trained.kept_epoch), (4, 4));
    }

    #[test]
    fn a_loss_that_is_no_number_ends_the_training() {
        let mut objective = Scripted { loss: f64::NAN, validation: Vec::new(), steps: Vec::new() };
        let error = run(&mut objective, 2, None).unwrap_err();
        assert!(matches!(error, MethodError::Diverged { epoch: 1, step: 0 }), "{error}");
        let mut objective = Scripted { loss: 1.0, validation: vec![f64::INFINITY], steps: Vec::new() };
        assert!(matches!(run(&mut objective, 2, None), Err(MethodError::Diverged { .. })));
    }
}
