//! Malformed files give errors that name them.

use nomaly_data::open;

use crate::fixture::{Fixture, cifar, idx};

#[track_caller]
fn check(fixture: &Fixture, options: &str, expected: &[&str]) {
    let error = open(&fixture.spec(options)).unwrap_err().to_string();
    for part in expected {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
}

fn idx_pair(images: &[u8], labels: &[u8]) -> Fixture {
    let fixture = Fixture::new();
    fixture.file("t10k-images-idx3-ubyte", images);
    fixture.file("t10k-labels-idx1-ubyte", labels);
    fixture
}

#[test]
fn idx_files() {
    let good = idx(&[2, 1, 1], &[7, 8]);
    let labels = idx(&[2], &[0, 1]);
    let check =
        |images: &[u8], labels: &[u8], expected: &[&str]| check(&idx_pair(images, labels), ":normal=0", expected);

    check(&good[..good.len() - 1], &labels, &["images-idx3-ubyte is damaged", "2 x 1 x 1", "holds 1"]);
    check(&[good.clone(), vec![0]].concat(), &labels, &["images-idx3-ubyte", "holds 3"]);
    check(&good[..9], &labels, &["images-idx3-ubyte", "ends after 9 bytes"]);
    check(&[], &labels, &["images-idx3-ubyte", "ends after 0 bytes"]);
    check(&labels, &labels, &["images-idx3-ubyte", "inside its header"]);
    check(&idx(&[2], &[0; 40]), &labels, &["images-idx3-ubyte", "begins with [00, 00, 08, 01]"]);
    check(&good, &idx(&[3], &[0, 1, 0]), &["labels-idx1-ubyte", "3 labels", "2 images"]);
    check(&idx(&[u32::MAX, u32::MAX, u32::MAX], &[0; 9]), &labels, &["4294967295 x 4294967295", "holds 9"]);
    check(&idx(&[2, 0, 5], &[]), &labels, &["5 by 0 pixels"]);
    check(&[0x1f, 0x8b, 8, 0, 0, 0], &labels, &["images-idx3-ubyte", "gzip stream ends badly"]);
}

#[test]
fn idx_images_without_labels() {
    let fixture = Fixture::new();
    fixture.file("train-images-idx3-ubyte", &idx(&[1, 1, 1], &[0]));
    check(&fixture, ":normal=0", &["train-labels-idx1-ubyte does not exist"]);
}

#[test]
fn cifar_files() {
    let with = |train: &[u8], test: &[u8]| {
        let fixture = Fixture::new();
        fixture.file("data_batch_1.bin", train);
        fixture.file("test_batch.bin", test);
        fixture
    };
    let good = cifar(&[&[5]]);
    check(&with(&good, &good[..3000]), ":normal=dog", &["test_batch.bin is damaged", "3000 bytes", "3073"]);
    check(&with(&[], &good), ":normal=dog", &["data_batch_1.bin is damaged", "0 bytes"]);
    check(&with(&cifar(&[&[5], &[10]]), &good), ":normal=dog", &["data_batch_1.bin", "image 1 is of class 10 of 10"]);
    check(&with(&good, &good), "", &["needs the setting `normal`", ":normal=cat"]);
    check(&with(&good, &good), ":normal=dogg", &["unknown class `dogg`", "did you mean `dog`?"]);
    check(&with(&good, &good), ":normal=dog,labels=fine", &["unknown setting `labels`"]);
}

#[test]
fn elpv_lists() {
    let check = |labels: &[u8], expected: &[&str]| {
        let fixture = Fixture::new();
        fixture.file("labels.csv", labels);
        fixture.images(&["images/cell0004.png"]);
        check(&fixture, "", expected);
    };
    check(b"images/cell0004.png 0.0\n", &["labels.csv is damaged", "line 1: 2 fields"]);
    check(b"\nimages/cell0004.png 1.5 mono\n", &["line 2: `1.5` is not a probability"]);
    check(b"images/cell0004.png NaN mono\n", &["`NaN` is not a probability"]);
    check(b"images/cell0004.png 0 thin\n", &["`thin` is neither mono nor poly"]);
    check(b"../../etc/passwd 0 mono\n", &["labels.csv", "not a path below its folder"]);
    check(b"/etc/passwd 0 mono\n", &["labels.csv", "not a path below its folder"]);
    check(b"", &["labels.csv", "lists no cells of the training split"]);
    check(&[0xff, 0xfe, 0], &["labels.csv", "not UTF-8"]);
}

#[test]
fn visa_lists() {
    let check = |rows: &str, expected: &[&str]| {
        let fixture = Fixture::new();
        fixture.file("split_csv/1cls.csv", rows.as_bytes());
        check(&fixture, ":category=a", expected);
    };
    let header = "object,split,label,image,mask";
    check("", &["1cls.csv is damaged", "its first line"]);
    check("object,split,label,image\n", &["line 1: 4 fields"]);
    check(&format!("{header}\na,train,anomaly,x.png,\n"), &["line 2: an anomalous image is listed for training"]);
    check(&format!("{header}\na,val,normal,x.png,\n"), &["the split is `val`"]);
    check(&format!("{header}\na,test,odd,x.png,\n"), &["the label is `odd`"]);
    check(&format!("{header}\na,test,normal,../x.png,\n"), &["not a path below its folder"]);
    check(&format!("{header}\na,test,anomaly,x.png,/m.png\n"), &["\"/m.png\""]);
}
