//! Training images that depend on each other, new decisions, and training images that look unlike the others.

use std::path::Path;

use crate::args;
use crate::support::{INPUT_SIZE, fresh_folder, nomaly, part};

/// A folder with two photographs of each of 12 parts, in a folder each.
fn pairs(name: &str) -> std::path::PathBuf {
    let folder = fresh_folder(name);
    for number in 0..12u32 {
        let own = folder.join("good").join(format!("part{number:02}"));
        std::fs::create_dir_all(&own).unwrap();
        for shot in 0..2 {
            part(100 + 2 * number + shot, false).save(own.join(format!("{shot}.png"))).unwrap();
        }
    }
    folder
}

fn fit(data: &Path, model: &Path, more: &[&str]) -> crate::support::Run {
    let start = args!["fit", data, "-o", model, "--method", "mvg", "--set", INPUT_SIZE];
    nomaly(start.iter().cloned().chain(more.iter().map(Into::into)))
}

#[test]
fn a_part_a_folder_counts_parts() {
    let folder = pairs("groups-folder");
    let model = folder.join("part.nomaly");
    let run = fit(&folder.join("good"), &model, &["--group-by", "folder"]);
    assert!(run.stderr.contains("24 images are 12 independent groups, by folder"), "{}", run.stderr);
    assert!(run.stderr.contains("24 held-out images of 12 independent groups cannot promise"), "{}", run.stderr);
    assert!(run.stderr.contains("hold out at least 19 groups"), "{}", run.stderr);
    run.ok();
    let inspected = nomaly(args!["inspect", model, "--format", "json"]).json();
    assert_eq!((&inspected["held_out"], &inspected["independent"]), (&24.into(), &12.into()));
    assert!(inspected["unattainable"].as_str().unwrap().contains("19 independent groups"));
    let scored = nomaly(args!["score", folder.join("good"), "-m", model, "--format", "jsonl"]);
    assert_eq!(scored.status, 3, "{}", scored.stderr);

    let by_name = fit(&folder.join("good"), &model, &["--group-by", "(part[0-9]+)/", "--max-fpr", "0.1"]);
    assert!(by_name.stderr.contains("24 held-out scores of 12 groups"), "{}", by_name.stderr);
    by_name.ok();
    let wrong = fit(&folder.join("good"), &model, &["--group-by", "fodler"]).error();
    assert!(wrong.contains("fodler") && wrong.contains("does not match") && wrong.contains("`folder`"), "{wrong}");
    let usage = fit(&folder.join("good"), &model, &["--group-by", "gap=soon"]);
    assert!(usage.status == 2 && usage.stderr.contains("a number of seconds"), "{}", usage.stderr);
}

#[test]
fn a_model_gets_a_new_decision_and_tells_the_old_ones() {
    let folder = pairs("calibrate");
    let (model, other) = (folder.join("part.nomaly"), folder.join("other.nomaly"));
    fit(&folder.join("good"), &model, &["--group-by", "none"]).ok();
    let new = folder.join("new");
    std::fs::create_dir_all(&new).unwrap();
    for number in 0..30 {
        part(900 + number, false).save(new.join(format!("{number:02}.png"))).unwrap();
    }
    let before = std::fs::read(&model).unwrap();
    let run = nomaly(args!["calibrate", new, "-m", model, "-o", other, "--max-fpr", "0.1", "--group-by", "none"]);
    assert!(run.stderr.contains("calibrated on 30 good images of new"), "{}", run.stderr);
    assert!(run.stderr.contains("expects at most 10 % false alarms (30 held-out scores)"), "{}", run.stderr);
    run.ok();
    assert_eq!(std::fs::read(&model).unwrap(), before);
    nomaly(args!["calibrate", "-m", other, "--threshold", "12.5"]).ok();
    let shown = nomaly(args!["inspect", other]).ok();
    let line = shown.lines().find(|line| line.starts_with("calibrated on")).unwrap();
    assert!(line.contains("new; before: ") && line.contains("on 24 scores of held-out training data"), "{line}");
    assert!(line.ends_with("on 30 scores of new"), "{line}");
    let json = nomaly(args!["inspect", other, "--format", "json"]).json();
    assert_eq!((&json["threshold"], json["history"]["past"].as_array().unwrap().len()), (&12.5.into(), 2));
    let nothing = nomaly(args!["calibrate", "-m", model]).error();
    assert!(nothing.contains("neither new data nor a new rule"), "{nothing}");
}

#[test]
fn defective_training_images_are_named_shown_and_left_out() {
    let folder = fresh_folder("suspicious");
    let data = folder.join("good");
    std::fs::create_dir_all(&data).unwrap();
    for number in 0..40u32 {
        part(300 + number, number % 20 == 7).save(data.join(format!("{number:02}.png"))).unwrap();
    }
    let (model, page) = (folder.join("part.nomaly"), folder.join("training.html"));
    let run = fit(&data, &model, &["--report", page.to_str().unwrap()]);
    let named = run.stderr.lines().filter(|line| line.starts_with("  ")).collect::<Vec<_>>();
    assert!(
        named.len() >= 2 && named[..2].iter().all(|line| line.contains("07.png") || line.contains("27.png")),
        "{}",
        run.stderr
    );
    run.ok();
    let html = std::fs::read_to_string(page).unwrap();
    assert!(html.contains("of 40 training images look unlike the others") && html.contains("07.png"));
    let run = fit(&data, &model, &["--drop-suspicious", "0.001"]);
    assert!(run.stderr.contains("left out 2 training images that looked unlike the others"), "{}", run.stderr);
    run.ok();
    let shown = nomaly(args!["inspect", model]).ok();
    assert!(shown.contains("38 images of good (2 more looked unlike the others and were left out)"), "{shown}");
}

#[test]
fn rows_of_one_group_count_as_one() {
    let folder = fresh_folder("groups-rows");
    let table = folder.join("rows.csv");
    let row = |item: usize| format!("lot{},{},{}", item / 4, (item * 37) % 101, (item * item) % 53);
    let rows: Vec<String> = (0..96).map(row).collect();
    std::fs::write(&table, format!("lot,a,b\n{}\n", rows.join("\n"))).unwrap();
    let model = folder.join("rows.nomaly");
    let run = nomaly(args!["fit", table, "-o", model, "--group", "lot"]);
    assert!(run.stderr.contains("96 rows are 24 independent groups"), "{}", run.stderr);
    assert!(run.stderr.contains("96 held-out scores of 24 groups"), "{}", run.stderr);
    run.ok();
    nomaly(args!["score", table, "-m", model, "--group", "lot", "--format", "csv"]).ok();
    nomaly(args!["calibrate", table, "-m", model, "--group", "lot"]).ok();
    let ignored = nomaly(args!["calibrate", table, "-m", model, "--group-by", "folder"]).error();
    assert!(ignored.contains("--group-by is for images"), "{ignored}");
    let without = nomaly(args!["calibrate", "-m", model, "--max-fpr", "0.1", "--group", "lot"]).error();
    assert!(without.contains("--group says how a table is read"), "{without}");
    let unknown = nomaly(args!["fit", table, "-o", model, "--group", "lots"]).error();
    assert!(unknown.contains("`lots`") && unknown.contains("`lot`"), "{unknown}");
}

/// A folder of `count` parts, numbered from `first`.
fn numbered(folder: &Path, first: u32, count: u32) {
    std::fs::create_dir_all(folder).unwrap();
    for number in first..first + count {
        part(number, false).save(folder.join(format!("{number}.png"))).unwrap();
    }
}

#[test]
fn an_update_groups_by_the_rule_of_the_model() {
    let folder = pairs("groups-update");
    let (model, more) = (folder.join("part.nomaly"), folder.join("more"));
    fit(&folder.join("good"), &model, &["--group-by", "folder", "--updatable", "--max-fpr", "0.1"]).ok();
    for place in ["a", "b", "c"] {
        numbered(&more.join(place), 700 + 10 * place.as_bytes()[0] as u32, 2);
    }
    let groups = |path: &Path| nomaly(args!["inspect", path, "--format", "json"]).json()["training"]["groups"].clone();
    let next = folder.join("next.nomaly");
    nomaly(args!["update", more, "-m", model, "-o", next]).ok();
    assert_eq!(groups(&next), serde_json::json!({"by": "folder", "count": 15, "how": "by folder"}));
    nomaly(args!["update", more, "-m", model, "-o", next, "--group-by", "none"]).ok();
    let how = "by folder; images of an update by `none`";
    assert_eq!(groups(&next), serde_json::json!({"by": "folder", "count": 18, "how": how}));
}

#[test]
fn an_update_with_known_images_is_warned_of() {
    let folder = fresh_folder("update-known");
    let (good, more, model) = (folder.join("good"), folder.join("more"), folder.join("part.nomaly"));
    numbered(&good, 0, 20);
    numbered(&more, 100, 3);
    fit(&good, &model, &["--group-by", "none", "--updatable"]).ok();
    let update = || nomaly(args!["update", more, "-m", model, "-o", folder.join("next.nomaly")]);
    let fresh = update();
    assert!(fresh.status == 0 && !fresh.stderr.contains("already learned"), "{}", fresh.stderr);
    for number in 4..6 {
        std::fs::copy(good.join(format!("{number}.png")), more.join(format!("copy-{number}.png"))).unwrap();
    }
    let known = update();
    let warning = "warning: 2 of the 5 images look exactly like images that the model has already learned from";
    assert!(known.status == 0 && known.stderr.contains(warning), "{}", known.stderr);
}
