//! Outputs match their schemas.

use std::fmt::Write;

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::args;
use crate::classes::kinds;
use crate::support::{INPUT_SIZE, fresh_folder, model, nomaly, parts};

fn schema(what: &str) -> Validator {
    let schema = nomaly(args!["schema", what]).json();
    assert_eq!((&schema["title"], &schema["x-version"]), (&json!(format!("nomaly {what}")), &json!(1)));
    jsonschema::validator_for(&schema).unwrap()
}

#[track_caller]
fn holds(schema: &Validator, output: &Value) {
    let errors: Vec<String> = schema.iter_errors(output).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?} in {output}");
}

#[track_caller]
fn all_hold(schema: &Validator, records: &Value, count: usize) {
    let records = records.as_array().unwrap();
    assert_eq!(records.len(), count);
    records.iter().for_each(|record| holds(schema, record));
}

#[test]
fn records_of_images_are_what_the_schemas_say() {
    let folder = fresh_folder("schemas");
    let (scored, evaluated, inspected) = (schema("score"), schema("eval"), schema("inspect"));
    let maps = folder.join("maps.nomaly");
    nomaly(args!["fit", parts(), "-o", maps, "--method", "padim", "--set", INPUT_SIZE, "--set", "features=20"]).ok();
    std::fs::write(folder.join("broken.png"), "no image").unwrap();
    for model in [model(), &maps] {
        let run = nomaly(args!["score", parts().join("test"), folder, "-m", model, "--format", "json"]);
        let records: Value = serde_json::from_str(&run.stdout).unwrap();
        all_hold(&scored, &records, 9);
        assert!(records.as_array().unwrap().iter().any(|record| record["error"]["kind"].is_string()));
        holds(&evaluated, &nomaly(args!["eval", parts(), "-m", model, "--format", "json"]).json());
        holds(&inspected, &nomaly(args!["inspect", model, "--format", "json"]).json());
    }
    let run = nomaly(args!["score", parts().join("test"), "-m", maps, "--format", "jsonl", "--sequence", "ewma"]);
    for line in run.ok().lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        assert!(record["statistic"].is_number() && record["regions"].is_array(), "{record}");
        holds(&scored, &record);
    }
    let mut record = json!({"path": "a.png", "score": 1.0, "p_value": 0.5, "anomalous": false, "map_max": null,
                            "error": null, "regions": null, "input_shift": null});
    holds(&scored, &record);
    record["score"] = "high".into();
    assert!(!scored.is_valid(&record));
}

#[test]
fn records_of_rows_and_classes_are_what_the_schemas_say() {
    let folder = fresh_folder("row-schemas");
    let (scored, evaluated, inspected) = (schema("score"), schema("eval"), schema("inspect"));
    let table = folder.join("rows.csv");
    let mut text = "width,height,state\n".to_owned();
    for row in 0..60 {
        let state = if row % 20 == 19 { "bad" } else { "good" };
        let _ = writeln!(text, "{},{},{state}", row % 7 + 40 * usize::from(state == "bad"), (row * 3) % 11);
    }
    text += ",1,good\n";
    std::fs::write(&table, text).unwrap();
    let model = folder.join("rows.nomaly");
    nomaly(args!["fit", table, "-o", model, "--label", "state"]).ok();
    let run = nomaly(args!["score", table, "-m", model, "--label", "state", "--format", "json"]);
    all_hold(&scored, &serde_json::from_str(&run.stdout).unwrap(), 61);
    holds(&evaluated, &nomaly(args!["eval", table, "-m", model, "--label", "state", "--format", "json"]).json());
    holds(&inspected, &nomaly(args!["inspect", model, "--format", "json"]).json());

    let data = kinds("schema-classes");
    let model = data.join("kinds.nomaly");
    nomaly(args!["fit", data.join("train"), "--labels", "-o", model, "--set", INPUT_SIZE]).ok();
    let run = nomaly(args!["score", data.join("test"), "-m", model, "--format", "json"]);
    all_hold(&scored, &serde_json::from_str(&run.stdout).unwrap(), 18);
    holds(&evaluated, &nomaly(args!["eval", data, "--labels", "-m", model, "--format", "json"]).json());
    holds(&inspected, &nomaly(args!["inspect", model, "--format", "json"]).json());
}

#[test]
fn settings_have_a_schema_of_their_own() {
    let settings = |name: &str| nomaly(args!["schema", "settings", name]).json();
    let patchcore = settings("patchcore");
    assert_eq!(patchcore["properties"]["coreset"]["maximum"], 1);
    assert_eq!(patchcore["properties"]["input_size"]["default"], "auto");
    let check = jsonschema::validator_for(&patchcore).unwrap();
    holds(&check, &json!({"coreset": 0.05, "bank": null, "grid": "auto", "tiles": "2x2"}));
    for wrong in [json!({"coreset": 0}), json!({"bank": 0}), json!({"grid": "fine"}), json!({"corset": 0.5})] {
        assert!(!check.is_valid(&wrong), "{wrong}");
    }
    let inspected = nomaly(args!["inspect", model(), "--format", "json"]).json();
    holds(&jsonschema::validator_for(&settings("mvg")).unwrap(), &inspected["method"]["settings"]);
    assert_eq!(settings("cutpaste")["properties"]["input_size"]["default"], 64);
    assert_eq!(settings("kde")["title"], "kde");
    let rows = settings("rows");
    assert_eq!(rows["properties"]["standardize"]["default"], "z");
    assert!(jsonschema::validator_for(&rows).unwrap().is_valid(&json!({"scorer": "gaussian", "standardize": "none"})));
    let error = nomaly(args!["schema", "settings", "auto"]).error();
    assert!(error.contains("takes those of what it chooses") && error.contains("patchcore"), "{error}");
    let error = nomaly(args!["schema", "settings", "pachcore"]).error();
    assert!(error.contains("unknown method or scorer `pachcore`; did you mean `patchcore`?"), "{error}");
    assert!(nomaly(args!["schema", "score", "mvg"]).error().contains("only `settings` takes a name"));
}
