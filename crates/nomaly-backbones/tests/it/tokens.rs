//! Vision transformers as backbones: weight files of other libraries, sizes of images, layouts and batches.

use nomaly_backbones::registry::BACKBONES;
use nomaly_backbones::{Backbone, BackboneError, OpenOptions, OutputLayout, TapRequest};
use nomaly_nn::runtime::Executor;
use nomaly_nn::weights::{Metadata, WeightTensor, Weights, to_safetensors};

use crate::formula;

const REGISTERS: &str = "dinov2-small-registers";

fn weights(name: &str) -> Weights {
    formula::weights(&BACKBONES.get(name).unwrap().graph())
}

fn features(backbone: &Backbone, tap: &str, layout: OutputLayout, images: &[f32], batch: usize) -> Vec<f32> {
    let request = [TapRequest::new(tap, layout)];
    let extractor = backbone.compile([28, 42], &request, &Executor::cpu().unwrap()).unwrap();
    let mut outputs = vec![Vec::new()];
    extractor.run(images, batch, &mut extractor.workspace(batch), &mut outputs).unwrap();
    outputs.remove(0)
}

/// Opens a backbone from a file of these tensors.
fn opened(name: &str, weights: &Weights) -> Result<Backbone, BackboneError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weights.safetensors");
    std::fs::write(&file, to_safetensors(weights, &Metadata::new()).unwrap()).unwrap();
    Backbone::open(name, &OpenOptions { weights: Some(file) })
}

/// The rows of a tensor.
fn rows(tensor: &WeightTensor, range: std::ops::Range<usize>) -> WeightTensor {
    let values = tensor.to_f32().unwrap();
    let each = values.len() / tensor.shape[0];
    let shape = [&[range.len()], &tensor.shape[1..]].concat();
    WeightTensor::from_f32(shape, &values[range.start * each..range.end * each])
}

/// The tensors with the names of transformers.
fn of_transformers(weights: &Weights) -> Weights {
    let mut renamed = Weights::new();
    for (name, tensor) in weights {
        if let Some((block, leaf)) = name.strip_prefix("blocks.").and_then(|rest| rest.split_once(".attn.qkv.")) {
            for (part, own) in ["query", "key", "value"].into_iter().enumerate() {
                let name = format!("encoder.layer.{block}.attention.attention.{own}.{leaf}");
                renamed.insert(name, rows(tensor, part * 384..(part + 1) * 384));
            }
            continue;
        }
        let to = match name.as_str() {
            "cls_token" | "register_tokens" => format!("embeddings.{name}"),
            "pos_embed" => "embeddings.position_embeddings".to_owned(),
            _ => name
                .replace("patch_embed.proj.", "embeddings.patch_embeddings.projection.")
                .replace("blocks.", "encoder.layer.")
                .replace(".attn.proj.", ".attention.output.dense.")
                .replace(".ls1.gamma", ".layer_scale1.lambda1")
                .replace(".ls2.gamma", ".layer_scale2.lambda1"),
        };
        let to = if to.starts_with("norm.") { to.replace("norm.", "layernorm.") } else { to };
        renamed.insert(to, tensor.clone());
    }
    renamed
}

#[test]
fn files_of_other_libraries_compute_the_same() {
    let own = weights(REGISTERS);
    let image = formula::image([28, 42]);
    let want = features(&opened(REGISTERS, &own).unwrap(), "patches", OutputLayout::Rows, &image, 1);

    let mut with_mask = own.clone();
    with_mask.insert("mask_token".to_owned(), WeightTensor::from_f32(vec![1, 384], &[0.0; 384]));
    let published = opened(REGISTERS, &with_mask).unwrap();
    assert_eq!(published.ignored(), ["mask_token"]);
    assert!(features(&published, "patches", OutputLayout::Rows, &image, 1) == want);

    let transformers = of_transformers(&own);
    assert!(transformers.contains_key("encoder.layer.11.attention.attention.value.bias"));
    let transformers = opened(REGISTERS, &transformers).unwrap();
    assert!(transformers.ignored().is_empty());
    assert!(features(&transformers, "patches", OutputLayout::Rows, &image, 1) == want);

    let mut timm = own.clone();
    timm.insert("reg_token".to_owned(), own["register_tokens"].clone());
    timm.remove("register_tokens");
    let values = own["pos_embed"].to_f32().unwrap();
    timm.insert("pos_embed".to_owned(), WeightTensor::from_f32(vec![1, 37 * 37, 384], &values[384..]));
    let class: Vec<f32> = own["cls_token"].to_f32().unwrap().iter().zip(&values).map(|(a, b)| a + b).collect();
    timm.insert("cls_token".to_owned(), WeightTensor::from_f32(vec![1, 1, 384], &class));
    let timm = opened(REGISTERS, &timm).unwrap();
    assert!(features(&timm, "patches", OutputLayout::Rows, &image, 1) == want);
}

#[test]
fn a_file_of_another_network_is_refused_by_name() {
    let error = opened("dinov2-small", &formula::weights(&BACKBONES.get("wrn-10-1").unwrap().graph())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no tensor of the weights, such as `bn.bias`, has a name of dinov2-small: expected those of DINOv2's own files, \
         timm or transformers"
    );
    // Those of a network with registers lack nothing, but their features would be others.
    let error = opened("dinov2-small", &weights(REGISTERS)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the weights have `register_tokens`, so they are of another network than dinov2-small"
    );
    let error = opened("dinov2-base", &weights("dinov2-small")).unwrap_err();
    assert!(matches!(error, BackboneError::Shape { .. }), "{error}");
    let mut truncated = weights("dinov2-small");
    truncated.retain(|name, _| !name.starts_with("blocks.7"));
    let truncated = opened("dinov2-small", &truncated).unwrap();
    assert_eq!(truncated.taps().last().unwrap().name, "block6");
    let error = Backbone::from_tensors("dinov2-small", Weights::new()).unwrap_err();
    assert!(matches!(error, BackboneError::MissingTensor { .. }), "{error}");
}

#[test]
fn sides_that_are_no_whole_patches_are_refused() {
    let backbone = crate::backbone("dinov2-small");
    let taps = [TapRequest::new("block0", OutputLayout::Rows)];
    let executor = Executor::cpu().unwrap();
    let error = backbone.compile([256, 224], &taps, &executor).unwrap_err();
    assert_eq!(
        error.to_string(),
        "dinov2-small takes images whose sides are multiples of 14, not 256 x 224: the next size that fits is 266 x 224"
    );
    assert_eq!(backbone.compile([28, 70], &taps, &executor).unwrap().output_shape(0), [384, 2, 5]);
}

#[test]
fn taps_are_grids_of_patches_and_an_image_does_not_depend_on_its_batch() {
    let backbone = Backbone::initialized("dinov2-small", 2, 7).unwrap();
    let taps = backbone.taps();
    assert_eq!(taps.len(), 14);
    assert_eq!((taps[3].name.as_str(), taps[3].channels, taps[3].stride), ("block3", 384, Some(14)));
    assert_eq!((taps[13].name.as_str(), taps[13].stride), ("class", None));
    let images: Vec<f32> = formula::values("images", 3 * 3 * 28 * 42).map(|value| value as f32).collect();
    for tap in ["block3", "block11", "patches", "class"] {
        let planar = features(&backbone, tap, OutputLayout::Nchw, &images, 3);
        let rows = features(&backbone, tap, OutputLayout::Rows, &images, 3);
        let means = features(&backbone, tap, OutputLayout::Mean, &images, 3);
        let plane = planar.len() / 3 / 384;
        assert_eq!((plane, means.len()), (if tap == "class" { 1 } else { 6 }, 3 * 384));
        for (image, values) in images.chunks_exact(images.len() / 3).enumerate() {
            let alone = features(&backbone, tap, OutputLayout::Rows, values, 1);
            assert!(alone == rows[image * alone.len()..][..alone.len()], "{tap} of image {image}");
            for channel in 0..384 {
                let of_channel = &planar[(image * 384 + channel) * plane..][..plane];
                assert!((0..plane).all(|at| of_channel[at] == alone[at * 384 + channel]), "{tap}");
                let mean = of_channel.iter().sum::<f32>() / plane as f32;
                assert!((means[image * 384 + channel] - mean).abs() < 1e-3, "{tap}");
            }
        }
    }
    // The steps of a profile are those that are listed, with the arithmetic of the products.
    let request = [TapRequest::new("patches", OutputLayout::Rows)];
    let extractor = backbone.compile([224, 224], &request, &Executor::cpu().unwrap()).unwrap();
    let flops: u64 = extractor.steps().iter().map(|step| step.flops).sum();
    assert!((12.0..12.6).contains(&(flops as f64 / 1e9)), "{flops}");
}
