//! One class of a labelled data set as the normal one, all others as anomalous.

use std::sync::Arc;

use crate::options::{Options, SplitOptions};
use crate::sample::{ImageSource, Label, PackedImages, Sample};
use crate::subset::{Choice, choose};
use crate::{DataError, Dataset};

/// The clothes of Fashion-MNIST.
pub(crate) const FASHION_MNIST: [&str; 10] =
    ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot"];

/// The classes of CIFAR-10.
pub(crate) const CIFAR10: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// The fine classes of CIFAR-100.
pub(crate) const CIFAR100: [&str; 100] = [
    "apple",
    "aquarium_fish",
    "baby",
    "bear",
    "beaver",
    "bed",
    "bee",
    "beetle",
    "bicycle",
    "bottle",
    "bowl",
    "boy",
    "bridge",
    "bus",
    "butterfly",
    "camel",
    "can",
    "castle",
    "caterpillar",
    "cattle",
    "chair",
    "chimpanzee",
    "clock",
    "cloud",
    "cockroach",
    "couch",
    "crab",
    "crocodile",
    "cup",
    "dinosaur",
    "dolphin",
    "elephant",
    "flatfish",
    "forest",
    "fox",
    "girl",
    "hamster",
    "house",
    "kangaroo",
    "keyboard",
    "lamp",
    "lawn_mower",
    "leopard",
    "lion",
    "lizard",
    "lobster",
    "man",
    "maple_tree",
    "motorcycle",
    "mountain",
    "mouse",
    "mushroom",
    "oak_tree",
    "orange",
    "orchid",
    "otter",
    "palm_tree",
    "pear",
    "pickup_truck",
    "pine_tree",
    "plain",
    "plate",
    "poppy",
    "porcupine",
    "possum",
    "rabbit",
    "raccoon",
    "ray",
    "road",
    "rocket",
    "rose",
    "sea",
    "seal",
    "shark",
    "shrew",
    "skunk",
    "skyscraper",
    "snail",
    "snake",
    "spider",
    "squirrel",
    "streetcar",
    "sunflower",
    "sweet_pepper",
    "table",
    "tank",
    "telephone",
    "television",
    "tiger",
    "tractor",
    "train",
    "trout",
    "tulip",
    "turtle",
    "wardrobe",
    "whale",
    "willow_tree",
    "wolf",
    "woman",
    "worm",
];

/// The coarse classes of CIFAR-100.
pub(crate) const CIFAR100_COARSE: [&str; 20] = [
    "aquatic_mammals",
    "fish",
    "flowers",
    "food_containers",
    "fruit_and_vegetables",
    "household_electrical_devices",
    "household_furniture",
    "insects",
    "large_carnivores",
    "large_man-made_outdoor_things",
    "large_natural_outdoor_scenes",
    "large_omnivores_and_herbivores",
    "medium_mammals",
    "non-insect_invertebrates",
    "people",
    "reptiles",
    "small_mammals",
    "trees",
    "vehicles_1",
    "vehicles_2",
];

/// The digits.
pub(crate) const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

/// Finds a class by its number or its name, ignoring case and treating `-`, `_` and spaces as equal.
pub(crate) fn find(options: &Options, name: &str, classes: &[String]) -> Result<usize, DataError> {
    let plain = |text: &str| text.to_lowercase().replace(['-', '_', ' '], "-");
    let wanted = plain(name);
    if let Some(found) = classes.iter().position(|class| plain(class) == wanted) {
        return Ok(found);
    }
    match name.parse::<usize>() {
        Ok(number) if number < classes.len() => Ok(number),
        _ => Err(options.unknown("class", name, classes.iter().map(String::as_str))),
    }
}

/// Images of one part of a data set, with the class number of each.
pub(crate) struct Labelled {
    pub(crate) images: Arc<PackedImages>,
    pub(crate) classes: Vec<u8>,
}

impl Labelled {
    fn sample(&self, part: &str, index: usize, normal: usize, names: &[String]) -> Sample {
        let class = usize::from(self.classes[index]);
        Sample {
            id: format!("{part}/{index:05}"),
            source: ImageSource::Packed { images: Arc::clone(&self.images), index },
            label: if class == normal { Label::Normal } else { Label::Anomalous },
            kind: names.get(class).cloned().unwrap_or_else(|| format!("class {class}")),
            mask: None,
        }
    }
}

/// The data set with the class named by `chosen` as normal.
///
/// With both parts, the normal class of the training part is the training set and the whole test part the test set.
/// With one part, a seeded share of its normal images is the training set, and all other images are the test set.
pub(crate) fn one_class(
    name: String,
    options: &Options,
    chosen: SplitOptions,
    names: &[String],
    train: Option<&Labelled>,
    test: &Labelled,
) -> Result<Dataset, DataError> {
    let example = names.get(3).or(names.first()).map_or("0", String::as_str);
    let SplitOptions { normal, train: fraction, seed } = chosen;
    let normal = find(options, &options.require("normal", normal, example)?, names)?;
    let mut dataset = Dataset { name, classes: names.to_vec(), ..Dataset::default() };
    let Some(train) = train else {
        let of_class: Vec<usize> =
            (0..test.classes.len()).filter(|&i| usize::from(test.classes[i]) == normal).collect();
        let mut learnt = vec![false; test.classes.len()];
        for at in choose(of_class.len(), share(of_class.len(), fraction), Choice::Seeded(seed)) {
            learnt[of_class[at]] = true;
        }
        for (index, learnt) in learnt.into_iter().enumerate() {
            let part = if learnt { &mut dataset.train } else { &mut dataset.test };
            part.push(test.sample("images", index, normal, names));
        }
        return Ok(dataset);
    };
    dataset.train = (0..train.classes.len())
        .filter(|&index| usize::from(train.classes[index]) == normal)
        .map(|index| train.sample("train", index, normal, names))
        .collect();
    dataset.test = (0..test.classes.len()).map(|index| test.sample("test", index, normal, names)).collect();
    Ok(dataset)
}

/// A share of `count`, rounded to the nearest integer.
pub(crate) fn share(count: usize, fraction: f64) -> usize {
    (count as f64 * fraction).round() as usize
}

/// Owned copies of the names.
pub(crate) fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_found_by_name_and_by_number() {
        let options = Options::parse("data set fashion-mnist", "fashion-mnist", None).unwrap();
        let names = owned(&FASHION_MNIST);
        let find = |name: &str| find(&options, name, &names);
        assert_eq!(find("dress").unwrap(), 3);
        assert_eq!(find("3").unwrap(), 3);
        assert_eq!(find("Ankle boot").unwrap(), 9);
        assert_eq!(
            find("dres").unwrap_err().to_string(),
            "unknown class `dres` of data set fashion-mnist; did you mean `dress`?"
        );
        assert!(find("10").is_err());
        assert!(find("-1").is_err());
    }

    #[test]
    fn the_lists_of_classes_are_sorted_as_published() {
        assert!(CIFAR100.is_sorted());
        assert!(CIFAR100_COARSE.is_sorted());
        assert!(CIFAR10.is_sorted());
    }
}
