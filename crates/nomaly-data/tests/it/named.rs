//! Data sets in special formats, and the demonstration set.

use nomaly_data::subset::Choice;
use nomaly_data::{Dataset, Label, open};
use nomaly_transforms::Limits;

use crate::fixture::{Fixture, cifar};

fn ids(dataset: &Dataset) -> (Vec<&str>, Vec<&str>) {
    (
        dataset.train.iter().map(|sample| sample.id.as_str()).collect(),
        dataset.test.iter().map(|sample| sample.id.as_str()).collect(),
    )
}

#[test]
fn idx_files_with_both_parts() {
    let fixture = Fixture::new();
    fixture.idx("train", &[0, 1, 2, 1]);
    fixture.idx("t10k", &[1, 2]);
    let dataset = open(&fixture.spec(":normal=1")).unwrap();
    assert_eq!(ids(&dataset), (vec!["train/00001", "train/00003"], vec!["test/00000", "test/00001"]));
    assert_eq!(dataset.test[0].label, Label::Normal);
    assert_eq!((dataset.test[1].label, dataset.test[1].kind.as_str()), (Label::Anomalous, "2"));
    let image = dataset.train[1].source.load(&Limits::default()).unwrap();
    assert_eq!((image.dimensions(), image.get_pixel(2, 1).0), ((3, 2), [3; 3]));
    let error = open(&fixture.spec(":normal=3")).unwrap_err().to_string();
    assert!(error.contains("unknown class `3`"), "{error}");
}

#[test]
fn idx_files_with_one_part_are_split() {
    let fixture = Fixture::new();
    fixture.idx("t10k", &[1, 0, 1, 1, 0, 1]);
    let dataset = open(&fixture.spec(":normal=1,seed=5")).unwrap();
    assert_eq!((dataset.train.len(), dataset.test.len()), (2, 4));
    assert_eq!((dataset.count(Label::Normal), dataset.count(Label::Anomalous)), (2, 2));
    assert!(dataset.train.iter().all(|sample| sample.label == Label::Normal));
    assert_eq!(ids(&dataset), ids(&open(&fixture.spec(":seed=5,normal=1")).unwrap()));
}

#[test]
fn cifar_files() {
    let fixture = Fixture::new();
    for batch in 1..=5 {
        fixture.file(&format!("data_batch_{batch}.bin"), &cifar(&[&[5], &[batch]]));
    }
    fixture.file("test_batch.bin", &cifar(&[&[0], &[5]]));
    let dataset = open(&fixture.spec(":normal=dog")).unwrap();
    // Class 5 is the first image of every batch and the second of batch 5.
    assert_eq!(dataset.train.len(), 6);
    assert_eq!(dataset.train[1].id, "train/00002");
    assert_eq!((dataset.test[0].label, dataset.test[0].kind.as_str()), (Label::Anomalous, "airplane"));
    assert_eq!(dataset.test[1].label, Label::Normal);
    let image = dataset.train[0].source.load(&Limits::default()).unwrap();
    assert_eq!((image.dimensions(), image.get_pixel(31, 31).0), ((32, 32), [1, 2, 3]));

    let fixture = Fixture::new();
    fixture.file("cifar-100-binary/train.bin", &cifar(&[&[14, 98], &[14, 11], &[0, 4]]));
    fixture.file("cifar-100-binary/test.bin", &cifar(&[&[14, 98], &[0, 30]]));
    let fine = open(&fixture.spec(":normal=woman")).unwrap();
    assert_eq!((fine.train.len(), fine.test[1].kind.as_str()), (1, "dolphin"));
    let coarse = open(&fixture.spec(":normal=people,labels=coarse")).unwrap();
    assert_eq!((coarse.train.len(), coarse.test[1].kind.as_str()), (2, "aquatic_mammals"));
}

#[test]
fn elpv_cells() {
    let fixture = Fixture::new();
    // Cell 4 and 61 are in the split; 9 is good, but tested; 5 is defective; 7 and 8 are doubtful.
    let labels = "images/cell0004.png  0.0  mono\nimages/cell0005.png  1.0  mono\nimages/cell0007.png  0.3333333  mono\n\
                  images/cell0008.png  0.6666667  poly\nimages/cell0009.png  0.0  mono\nimages/cell0061.png  0.0  poly\n";
    fixture.file("labels.csv", labels.as_bytes());
    fixture.images(&["images/cell0004.png"]);
    let all = open(&fixture.spec("")).unwrap();
    assert_eq!(
        ids(&all),
        (vec!["images/cell0004.png", "images/cell0061.png"], vec!["images/cell0005.png", "images/cell0009.png"])
    );
    let mono = open(&fixture.spec(":cells=mono,labels=all")).unwrap();
    let kinds: Vec<(&str, Label)> = mono.test.iter().map(|sample| (sample.kind.as_str(), sample.label)).collect();
    assert_eq!(kinds, [("defective", Label::Anomalous), ("perhaps-good", Label::Normal), ("good", Label::Normal)]);
    let error = open(&fixture.spec(":cell=mono")).unwrap_err().to_string();
    assert!(error.contains("unknown setting `cell`") && error.ends_with("did you mean `cells`?"), "{error}");
}

#[test]
fn visa_lists() {
    let fixture = Fixture::new();
    fixture.file(
        "split_csv/1cls.csv",
        b"object,split,label,image,mask\n\
          candle,train,normal,candle/Data/Images/Normal/0.JPG,\n\
          candle,test,normal,candle/Data/Images/Normal/1.JPG,\n\
          candle,test,anomaly,candle/Data/Images/Anomaly/0.JPG,candle/Data/Masks/Anomaly/0.png\n\
          pcb1,train,normal,pcb1/Data/Images/Normal/0.JPG,\n",
    );
    fixture.mask("candle/Data/Masks/Anomaly/0.png", 0, 3);
    let dataset = open(&fixture.spec(":category=candle")).unwrap();
    assert_eq!(
        ids(&dataset),
        (
            vec!["candle/Data/Images/Normal/0.JPG"],
            vec!["candle/Data/Images/Normal/1.JPG", "candle/Data/Images/Anomaly/0.JPG"]
        )
    );
    let mask = dataset.test[1].mask.as_ref().unwrap().load(&Limits::default()).unwrap();
    assert_eq!((mask.get_pixel(0, 0).0, mask.get_pixel(5, 0).0), ([0], [255]));
    let error = open(&fixture.spec(":category=pcb")).unwrap_err().to_string();
    assert!(error.contains("did you mean `pcb1`?"), "{error}");
}

#[test]
fn training_images_are_limited_in_order() {
    let fixture = Fixture::new();
    fixture.idx("train", &[1; 20]);
    fixture.idx("t10k", &[1]);
    let mut first = open(&fixture.spec(":normal=1")).unwrap();
    let mut seeded = first.clone();
    first.limit_train(3, Choice::First);
    assert_eq!(ids(&first).0, ["train/00000", "train/00001", "train/00002"]);
    seeded.limit_train(5, Choice::Seeded(9));
    let chosen = ids(&seeded).0;
    assert!(chosen.len() == 5 && chosen.is_sorted(), "{chosen:?}");
    assert_ne!(chosen, ["train/00000", "train/00001", "train/00002", "train/00003", "train/00004"]);
    seeded.limit_train(50, Choice::Seeded(9));
    assert_eq!(seeded.train.len(), 5);
}

#[test]
fn test_images_are_limited_to_halves() {
    let fixture = Fixture::new();
    fixture.idx("train", &[1]);
    let labels: Vec<u8> = (0..100).map(|number| number % 10).collect();
    fixture.idx("t10k", &labels);
    let all = open(&fixture.spec(":normal=1")).unwrap();
    // 10 normal ones and 90 others.
    for (max, expected) in [(0, (0, 0)), (1, (1, 0)), (7, (4, 3)), (16, (8, 8)), (50, (10, 40)), (200, (10, 90))] {
        for choice in [Choice::First, Choice::Seeded(9)] {
            let mut dataset = all.clone();
            dataset.limit_test(max, choice);
            assert_eq!((dataset.count(Label::Normal), dataset.count(Label::Anomalous)), expected, "{max}");
            assert!(dataset.test.is_sorted_by_key(|sample| &sample.id));
        }
    }
    let mut few_others = all;
    few_others.test.retain(|sample| sample.label == Label::Normal || sample.id.ends_with('9'));
    few_others.test.truncate(4);
    few_others.limit_test(3, Choice::First);
    assert_eq!(few_others.test.len(), 3);
}

#[test]
fn the_demonstration_set_opens_by_name() {
    let demo = open("demo:texture=grass,seed=4").unwrap();
    assert_eq!(demo.name, "demo:texture=grass,seed=4");
    assert_eq!(demo.licence.as_deref(), Some("CC0-1.0"));
    assert!(demo.count(Label::Anomalous) > demo.count(Label::Normal));
    let error = open("demo:seed=x").unwrap_err().to_string();
    assert_eq!(error, "data set demo: setting `seed` is `x`; it takes a whole number from 0");
}
