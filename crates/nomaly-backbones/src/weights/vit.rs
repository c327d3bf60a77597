//! Vision transformers of other libraries, in the names of DINOv2.

use std::collections::BTreeMap;

use nomaly_nn::weights::{WeightTensor, Weights};

/// The prefix of the backbone's tensors in files of a whole model of transformers.
const MODEL: &str = "dinov2.";

/// The name without the prefix of a model.
fn own(name: &str) -> &str {
    name.strip_prefix(MODEL).unwrap_or(name)
}

/// Whether a tensor is that of a vision transformer of transformers.
pub(super) fn is_of_transformers(name: &str) -> bool {
    matches!(own(name), "embeddings.cls_token" | "embeddings.patch_embeddings.projection.weight")
}

/// timm calls registers otherwise, and has the class token's row of the position embedding in the class token.
pub(super) fn from_timm(mut weights: Weights) -> Weights {
    if let Some(registers) = weights.remove("reg_token") {
        weights.insert("register_tokens".to_owned(), registers);
    }
    if let Some(positions) = weights.get_mut("pos_embed")
        && let [1, rows, width] = positions.shape[..]
        && rows % 2 == 1
    {
        // An odd number of rows is a square without a row before it.
        let mut bytes = vec![0; width * positions.bytes.len() / (rows * width).max(1)];
        bytes.append(&mut positions.bytes);
        (positions.shape, positions.bytes) = (vec![1, rows + 1, width], bytes);
    }
    weights
}

/// Renames, and puts the queries, keys and values of each block into one matrix.
pub(super) fn from_transformers(weights: Weights) -> Weights {
    let mut renamed = Weights::new();
    let mut parts: BTreeMap<String, [Option<(String, WeightTensor)>; 3]> = BTreeMap::new();
    for (name, tensor) in weights {
        match place(own(&name)) {
            Place::Whole(to) => _ = renamed.insert(to, tensor),
            Place::Part(to, part) => parts.entry(to).or_default()[part] = Some((name, tensor)),
            Place::Unknown => _ = renamed.insert(name, tensor),
        }
    }
    for (to, found) in parts {
        match joined(&found) {
            Some(tensor) => _ = renamed.insert(to, tensor),
            // What cannot be joined is left as it is: the file then lacks the matrix.
            None => renamed.extend(found.into_iter().flatten()),
        }
    }
    renamed
}

/// Where a tensor goes.
enum Place {
    Whole(String),
    /// Queries, keys or values of a tensor.
    Part(String, usize),
    Unknown,
}

fn place(name: &str) -> Place {
    if let Some((_, to)) = OUTSIDE.iter().find(|(from, _)| *from == name) {
        return Place::Whole((*to).to_owned());
    }
    let inside = || {
        let (block, rest) = name.strip_prefix("encoder.layer.")?.split_once('.')?;
        let part = |(from, part): &(&str, usize)| {
            let leaf = rest.strip_prefix(from)?;
            Some(Place::Part(format!("blocks.{block}.attn.qkv.{leaf}"), *part))
        };
        let whole = |(from, to): &(&str, &str)| Some(format!("blocks.{block}.{to}{}", rest.strip_prefix(from)?));
        PARTS.iter().find_map(part).or_else(|| INSIDE.iter().find_map(whole).map(Place::Whole))
    };
    inside().unwrap_or(Place::Unknown)
}

/// The rows of queries, keys and values one after another, if all are there and alike.
fn joined(parts: &[Option<(String, WeightTensor)>; 3]) -> Option<WeightTensor> {
    let [Some((_, first)), Some((_, second)), Some((_, third))] = parts else { return None };
    let alike = |other: &WeightTensor| other.shape == first.shape && other.dtype == first.dtype;
    if !alike(second) || !alike(third) {
        return None;
    }
    let mut shape = first.shape.clone();
    *shape.first_mut()? *= 3;
    let bytes = [first, second, third].map(|tensor| tensor.bytes.as_slice()).concat();
    Some(WeightTensor { shape, dtype: first.dtype, bytes })
}

const OUTSIDE: [(&str, &str); 8] = [
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.mask_token", "mask_token"),
    ("embeddings.register_tokens", "register_tokens"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embeddings.projection.weight", "patch_embed.proj.weight"),
    ("embeddings.patch_embeddings.projection.bias", "patch_embed.proj.bias"),
    ("layernorm.weight", "norm.weight"),
    ("layernorm.bias", "norm.bias"),
];

const PARTS: [(&str, usize); 3] =
    [("attention.attention.query.", 0), ("attention.attention.key.", 1), ("attention.attention.value.", 2)];

const INSIDE: [(&str, &str); 7] = [
    ("attention.output.dense.", "attn.proj."),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
    ("norm1.", "norm1."),
    ("norm2.", "norm2."),
    ("mlp.fc1.", "mlp.fc1."),
    ("mlp.fc2.", "mlp.fc2."),
];

#[cfg(test)]
mod tests {
    use super::super::Layout;
    use super::*;

    fn tensor(shape: &[usize], first: f32) -> WeightTensor {
        let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|index| first + index as f32).collect();
        WeightTensor::from_f32(shape.to_vec(), &values)
    }

    #[test]
    fn transformers_names_become_those_of_dinov2() {
        for prefix in ["", MODEL] {
            let pairs = [
                ("embeddings.cls_token", "cls_token"),
                ("embeddings.register_tokens", "register_tokens"),
                ("embeddings.position_embeddings", "pos_embed"),
                ("embeddings.patch_embeddings.projection.weight", "patch_embed.proj.weight"),
                ("encoder.layer.11.norm1.weight", "blocks.11.norm1.weight"),
                ("encoder.layer.3.attention.output.dense.bias", "blocks.3.attn.proj.bias"),
                ("encoder.layer.3.layer_scale1.lambda1", "blocks.3.ls1.gamma"),
                ("encoder.layer.3.layer_scale2.lambda1", "blocks.3.ls2.gamma"),
                ("encoder.layer.3.norm2.bias", "blocks.3.norm2.bias"),
                ("encoder.layer.3.mlp.fc1.weight", "blocks.3.mlp.fc1.weight"),
                ("encoder.layer.3.mlp.fc2.bias", "blocks.3.mlp.fc2.bias"),
                ("layernorm.weight", "norm.weight"),
                ("other", if prefix.is_empty() { "other" } else { "dinov2.other" }),
            ];
            let values = (0..).map(|index| tensor(&[1], index as f32));
            let from = pairs.iter().map(|(from, _)| format!("{prefix}{from}")).zip(values.clone());
            let mut weights: Weights = from.collect();
            for (part, name) in ["query", "key", "value"].into_iter().enumerate() {
                let name = |leaf| format!("{prefix}encoder.layer.0.attention.attention.{name}.{leaf}");
                weights.insert(name("weight"), tensor(&[2, 2], 4.0 * part as f32));
                weights.insert(name("bias"), tensor(&[2], 2.0 * part as f32));
            }
            assert_eq!(Layout::of(&weights), Some(Layout::Transformers));
            let mut want: Weights = pairs.iter().map(|(_, to)| (*to).to_owned()).zip(values).collect();
            want.insert("blocks.0.attn.qkv.weight".to_owned(), tensor(&[6, 2], 0.0));
            want.insert("blocks.0.attn.qkv.bias".to_owned(), tensor(&[6], 0.0));
            assert_eq!(Layout::normalize(weights), want);
        }
    }

    #[test]
    fn parts_that_do_not_fit_each_other_are_left_alone() {
        let mut weights = Weights::from([("embeddings.cls_token".to_owned(), tensor(&[1], 0.0))]);
        let name = |part: &str| format!("encoder.layer.0.attention.attention.{part}.weight");
        weights.insert(name("query"), tensor(&[2, 2], 0.0));
        weights.insert(name("key"), tensor(&[2, 3], 0.0));
        let found = Layout::normalize(weights);
        assert_eq!(
            found.keys().map(String::as_str).collect::<Vec<_>>(),
            [
                "cls_token",
                "encoder.layer.0.attention.attention.key.weight",
                "encoder.layer.0.attention.attention.query.weight",
            ]
        );
    }

    #[test]
    fn registers_of_timm_have_a_row_of_zeros_for_the_class_token() {
        let names = [("cls_token", vec![1, 1, 2]), ("reg_token", vec![1, 4, 2]), ("pos_embed", vec![1, 9, 2])];
        let weights: Weights = names.into_iter().map(|(name, shape)| (name.to_owned(), tensor(&shape, 1.0))).collect();
        assert_eq!(Layout::of(&weights), Some(Layout::TimmRegisters));
        let found = Layout::normalize(weights);
        assert_eq!(found["register_tokens"], tensor(&[1, 4, 2], 1.0));
        assert_eq!(found["pos_embed"].shape, [1, 10, 2]);
        let rows = found["pos_embed"].to_f32().unwrap();
        assert_eq!((&rows[..2], &rows[2..]), (&[0.0, 0.0][..], &tensor(&[18], 1.0).to_f32().unwrap()[..]));
        assert_eq!(Layout::of(&found), Some(Layout::Dinov2));
        assert_eq!(Layout::normalize(found.clone()), found);
    }
}
