//! Each class as the normal one in turn: `nomaly eval --one-vs-all`.

use crate::args;
use crate::classes::kinds;
use crate::support::{INPUT_SIZE, nomaly};

#[test]
fn every_class_is_normal_once_and_what_has_ended_is_not_repeated() {
    let data = kinds("one-vs-all");
    let out = data.join("out");
    let run = |more: &[&str]| {
        let mut all =
            args!["eval", data, "--one-vs-all", "--method", "mvg", "--set", INPUT_SIZE, "--report", out].to_vec();
        all.extend(more.iter().map(Into::into));
        nomaly(all)
    };
    let table = run(&["--max-test", "14", "--seeds", "2", "--format", "json"]).json();
    let classes = table["classes"].as_array().unwrap();
    assert_eq!(classes.iter().map(|class| class["class"].as_str().unwrap()).collect::<Vec<_>>(), ["blue", "red"]);
    for class in classes {
        assert_eq!(class["runs"], 2);
        // Blue, red and yellow pictures are distinguished by their colours.
        assert!(class["auroc"]["mean"].as_f64().unwrap() > 0.95, "{class}");
        assert!(class["auroc"]["sem"].is_number());
    }
    let tested = &table["runs"][0]["n_test"];
    assert_eq!(tested["normal"].as_u64().unwrap() + tested["anomalous"].as_u64().unwrap(), 14);

    // The log has all runs, so nothing is fitted: the images need not exist.
    let logs = || {
        std::fs::read_dir(&out)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "json"))
    };
    assert_eq!(logs().count(), 1);
    let images = std::fs::read_dir(data.join("train/red")).unwrap();
    images.for_each(|image| std::fs::write(image.unwrap().path(), "no image").unwrap());
    let again = run(&["--max-test", "14", "--seeds", "2", "--format", "json"]).json();
    assert_eq!(again["classes"], table["classes"]);
    let page = std::fs::read_to_string(out.join("one-vs-all.md")).unwrap();
    assert!(page.contains("| blue | 2 |") && page.contains("| mean | 4 |"), "{page}");

    let shown = run(&["--max-test", "14", "--seeds", "2", "--classes", "blue"]).ok();
    assert!(shown.contains("blue") && !shown.contains("red "), "{shown}");
}

#[test]
fn what_cannot_be_taken_in_turn_is_refused() {
    let data = kinds("one-vs-all-refused");
    let said = |more: &[&str]| {
        let mut all = args!["eval", data, "--one-vs-all"].to_vec();
        all.extend(more.iter().map(Into::into));
        nomaly(all).error()
    };
    assert!(said(&[]).contains("--method"));
    assert!(said(&["--method", "mvg", "--classes", "blu"]).contains("did you mean `blue`?"));
    assert!(said(&["--method", "mvg", "--epochs", "3", "--classes", "blue"]).contains("unknown setting `epochs`"));
    let plain = nomaly(args!["eval", data, "--classes", "blue", "--method", "mvg"]).error();
    assert!(plain.contains("--one-vs-all"), "{plain}");
    let unlabelled = nomaly(args!["eval", data.join("train/red"), "--one-vs-all", "--method", "mvg"]).error();
    assert!(unlabelled.contains("no folders") || unlabelled.contains("folders of classes"), "{unlabelled}");
}
