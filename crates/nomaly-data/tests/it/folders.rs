//! Directories of image files.

use nomaly_data::{Dataset, Label, images_under, open};
use nomaly_transforms::Limits;

use crate::fixture::Fixture;

fn train(dataset: &Dataset) -> Vec<&str> {
    dataset.train.iter().map(|sample| sample.id.as_str()).collect()
}

fn test(dataset: &Dataset) -> Vec<(&str, Label, &str)> {
    dataset.test.iter().map(|sample| (sample.id.as_str(), sample.label, sample.kind.as_str())).collect()
}

#[test]
fn mvtec_layout_with_masks() {
    let fixture = Fixture::new();
    fixture.images(&["train/good/b.png", "train/good/a.png", "test/good/x.png", "test/scratch/1.png"]);
    fixture.images(&["test/scratch/2.png", "test/crack/1.bmp", "test/crack/notes.txt.png"]);
    fixture.file("test/crack/readme.txt", b"no image");
    fixture.file("train/good/.hidden.png", b"");
    fixture.mask("ground_truth/scratch/1_mask.png", 255, 0);
    fixture.mask("ground_truth/crack/1.png", 0, 200);

    let dataset = open(&fixture.spec("")).unwrap();
    assert_eq!(train(&dataset), ["train/good/a.png", "train/good/b.png"]);
    assert_eq!(
        test(&dataset),
        [
            ("test/crack/1.bmp", Label::Anomalous, "crack"),
            ("test/crack/notes.txt.png", Label::Anomalous, "crack"),
            ("test/good/x.png", Label::Normal, "good"),
            ("test/scratch/1.png", Label::Anomalous, "scratch"),
            ("test/scratch/2.png", Label::Anomalous, "scratch"),
        ]
    );
    assert!(dataset.has_masks());
    assert_eq!(dataset.missing_masks(), 2);
    let mask = dataset.test[0].mask.as_ref().unwrap().load(&Limits::default()).unwrap();
    assert_eq!((mask.dimensions(), mask.get_pixel(2, 0).0, mask.get_pixel(3, 3).0), ((6, 4), [0], [255]));
    let mask = dataset.test[3].mask.as_ref().unwrap().load(&Limits::default()).unwrap();
    assert_eq!((mask.get_pixel(2, 0).0, mask.get_pixel(3, 3).0), ([255], [0]));

    assert!(open(&fixture.spec(":normal=x")).unwrap_err().to_string().contains("there are none here"));
}

#[test]
fn one_of_several_folders_in_mvtec_layout() {
    let fixture = Fixture::new();
    fixture.images(&["bottle/train/good/a.png", "cable/train/good/b.png", "cable/test/good/c.png"]);
    let dataset = open(&fixture.spec(":category=cable")).unwrap();
    assert_eq!(train(&dataset), ["train/good/b.png"]);
    assert!(dataset.name.ends_with(":category=cable"), "{}", dataset.name);
    let error = open(&fixture.spec("")).unwrap_err().to_string();
    assert!(error.contains("needs the setting `category`") && error.contains(":category=bottle"), "{error}");
    let error = open(&fixture.spec(":category=botle")).unwrap_err().to_string();
    assert!(error.contains("did you mean `bottle`?"), "{error}");
}

#[test]
fn one_folder_a_class_with_and_without_a_split() {
    let fixture = Fixture::new();
    fixture.images(&["train/cat/1.png", "train/dog/1.png", "train/dog/2.png", "test/cat/1.png", "test/dog/1.png"]);
    let dataset = open(&fixture.spec(":normal=dog")).unwrap();
    assert_eq!(train(&dataset), ["train/dog/1.png", "train/dog/2.png"]);
    assert_eq!(test(&dataset), [("test/cat/1.png", Label::Anomalous, "cat"), ("test/dog/1.png", Label::Normal, "dog")]);
    let error = open(&fixture.spec("")).unwrap_err().to_string();
    assert!(error.contains("needs the setting `normal`"), "{error}");

    let fixture = Fixture::new();
    fixture.images(&["ok/1.png", "ok/2.png", "ok/3.png", "ok/4.png", "bad/1.png"]);
    let dataset = open(&fixture.spec(":normal=ok,train=0.75,seed=3")).unwrap();
    assert_eq!((dataset.train.len(), dataset.test.len()), (3, 2));
    assert_eq!(dataset.count(Label::Anomalous), 1);
    let again = open(&fixture.spec(":normal=ok,train=0.75,seed=3")).unwrap();
    assert_eq!(train(&dataset), train(&again));
    let mut all: Vec<&str> = train(&dataset);
    all.extend(dataset.test.iter().map(|sample| sample.id.as_str()));
    all.sort_unstable();
    assert_eq!(all, ["bad/1.png", "ok/1.png", "ok/2.png", "ok/3.png", "ok/4.png"]);
}

#[test]
fn a_folder_of_good_images() {
    let fixture = Fixture::new();
    fixture.images(&["b/2.JPG", "a.png", "b/1.webp"]);
    let dataset = open(&fixture.spec("")).unwrap();
    assert_eq!(train(&dataset), ["a.png", "b/1.webp", "b/2.JPG"]);
    assert!(dataset.test.is_empty());
}

#[test]
fn a_test_folder_that_is_not_understood_is_not_learnt_from() {
    let fixture = Fixture::new();
    fixture.images(&["good/1.png", "test/1.png"]);
    let error = open(&fixture.spec("")).unwrap_err().to_string();
    assert!(error.contains("holds a folder `test`"), "{error}");
}

#[test]
fn paths_with_colons_stay_whole() {
    let fixture = Fixture::new();
    fixture.images(&["2024:01=x/a.png"]);
    assert_eq!(open(&fixture.spec("/2024:01=x")).unwrap().train.len(), 1);
}

#[test]
fn what_is_not_there_is_named() {
    let fixture = Fixture::new();
    let file = fixture.file("notes.txt", b"-");
    #[track_caller]
    fn check(spec: &str, expected: &str) {
        let error = open(spec).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    check(&fixture.spec("/none"), "none does not exist");
    check(&fixture.spec(""), "holds no images (*.bmp, *.jpeg,");
    check(&file.display().to_string(), "is a file");
    check(
        "fashion-mnst:normal=3",
        "`fashion-mnst` is neither a directory nor a data set; did you mean `fashion-mnist`?",
    );
    check("mnist:3", "data set mnist: setting `3` is not of the form KEY=VALUE");
}

#[test]
fn images_to_be_scored() {
    let fixture = Fixture::new();
    fixture.images(&["b/2.png", "b/1.png", "a.jpeg"]);
    let plain = fixture.file("b/list.csv", b"");
    let folder = fixture.path().to_owned();
    let samples = images_under(&[plain.clone(), folder.clone()]).unwrap();
    let ids: Vec<&str> = samples.iter().map(|sample| sample.id.as_str()).collect();
    let expected = [plain, folder.join("a.jpeg"), folder.join("b/1.png"), folder.join("b/2.png")];
    assert_eq!(ids, expected.map(|path| path.display().to_string()));
    assert!(samples.iter().all(|sample| sample.label == Label::Unknown));
    assert_eq!(
        images_under(&[folder.join("x.png")]).unwrap_err().to_string(),
        format!("{}/x.png does not exist", folder.display())
    );
    std::fs::create_dir(folder.join("empty")).unwrap();
    assert!(images_under(&[folder.join("empty")]).unwrap_err().to_string().contains("*.webp"));
}

#[cfg(unix)]
#[test]
fn links_are_followed_once_and_dangling_ones_are_kept() {
    let fixture = Fixture::new();
    fixture.images(&["a/1.png", "elsewhere.png"]);
    let folder = fixture.path().join("a");
    std::os::unix::fs::symlink(&folder, folder.join("loop")).unwrap();
    std::os::unix::fs::symlink(fixture.path().join("elsewhere.png"), folder.join("linked.png")).unwrap();
    std::os::unix::fs::symlink(fixture.path().join("nowhere"), folder.join("dangling.png")).unwrap();
    std::os::unix::fs::symlink(fixture.path().join("nowhere"), folder.join("dangling.txt")).unwrap();
    let names: Vec<String> =
        images_under(&[folder]).unwrap().iter().map(|s| s.id.rsplit('/').next().unwrap().to_owned()).collect();
    assert_eq!(names, ["1.png", "dangling.png", "linked.png"]);
}
