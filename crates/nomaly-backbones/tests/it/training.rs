//! Training of the candle module.

use candle_core::{D, Device, Result, Tensor};
use nomaly_backbones::{Backbone, OutputLayout, TapRequest};
use nomaly_nn::module::Mode;
use nomaly_nn::runtime::Executor;

use crate::formula;

const SIDE: usize = 16;
const BATCH: usize = 4;

/// Cross-entropy of `logits` `[N, classes, 1, 1]`, where image i is of class i.
fn loss(logits: &Tensor) -> Result<Tensor> {
    let logits = logits.flatten_from(1)?;
    let log_total = logits.exp()?.sum_keepdim(D::Minus1)?.log()?;
    let own = Tensor::arange(0u32, BATCH as u32, logits.device())?.unsqueeze(1)?;
    logits.broadcast_sub(&log_total)?.gather(&own, 1)?.mean_all()?.neg()
}

#[test]
fn a_few_steps_lower_the_loss_and_the_trained_weights_run_in_the_plan() -> Result<()> {
    let backbone = crate::backbone("wrn-10-4");
    let module = backbone.module(&["logits"], &Device::Cpu, |_| true).unwrap();
    let images = formula::image([BATCH * SIDE, SIDE]);
    let input = Tensor::from_slice(&images, (BATCH, 3, SIDE, SIDE), &Device::Cpu)?;

    let mut losses = Vec::new();
    for _ in 0..4 {
        let logits = module.forward(&[&input], Mode::Train { momentum: 0.1 })?.remove(0);
        let loss = loss(&logits)?;
        losses.push(loss.to_scalar::<f32>()?);
        let gradients = loss.backward()?;
        for (name, variable) in module.variables() {
            let gradient = gradients.get(variable).unwrap_or_else(|| panic!("no gradient for {name}"));
            variable.set(&(variable.detach() - (gradient * 0.05)?)?)?;
        }
    }
    assert!(losses.windows(2).all(|pair| pair[1] < pair[0]), "{losses:?}");

    let trained = module.export()?;
    let before = backbone.export(&["logits"]).unwrap();
    assert!(trained.keys().eq(before.keys()));
    assert_ne!(trained["bn.running_mean"], before["bn.running_mean"]);

    // With unchanged running statistics, evaluation equals the compiled plan.
    let trained = Backbone::from_tensors("wrn-10-4", trained).unwrap();
    let request = [TapRequest::new("logits", OutputLayout::Mean)];
    let extractor = trained.compile([SIDE, SIDE], &request, &Executor::cpu().unwrap()).unwrap();
    let mut outputs = vec![Vec::new()];
    extractor.run(&images, BATCH, &mut extractor.workspace(BATCH), &mut outputs).unwrap();
    let evaluated: Vec<f32> = module.forward(&[&input], Mode::Evaluate)?.remove(0).flatten_all()?.to_vec1()?;
    let greatest = evaluated.iter().fold(0f32, |max, value| max.max(value.abs()));
    for (found, expected) in outputs[0].iter().zip(&evaluated) {
        assert!((found - expected).abs() <= 1e-4 * greatest, "{found} {expected}");
    }
    Ok(())
}

#[test]
fn only_chosen_parameters_are_variables_and_evaluation_leaves_the_statistics_alone() -> Result<()> {
    let backbone = crate::backbone("resnet18");
    let chosen = |name: &str| name.starts_with("layer2.");
    let module = backbone.module(&["stem", "layer2"], &Device::Cpu, chosen).unwrap();
    assert!(module.variables().all(|(name, _)| chosen(name) && !name.contains("running")));
    assert_eq!(module.variables().count(), 5 + 2 * 5);

    let input = Tensor::from_vec(formula::image([32, 32]), (1, 3, 32, 32), &Device::Cpu)?;
    let features = module.forward(&[&input], Mode::Evaluate)?;
    assert_eq!(features[0].dims(), [1, 64, 16, 16]);
    let gradients = features[1].sqr()?.mean_all()?.backward()?;
    assert!(module.variables().all(|(_, variable)| gradients.get(variable).is_some()));
    let (after, before) = (module.export()?, backbone.export(&["layer2"]).unwrap());
    assert_eq!(after, before);
    Ok(())
}
