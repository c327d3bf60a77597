//! Tables written by pandas, NumPy and pyarrow (`fixtures/gen_tables.py`), and damaged copies of them.

use std::path::{Path, PathBuf};

use nomaly_data::tables::{ReadOptions, read};
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tables")
}

fn texts(value: &Value) -> Option<Vec<String>> {
    Some(value.as_array()?.iter().map(|text| text.as_str().unwrap().to_owned()).collect())
}

fn refusal(name: &str, options: &ReadOptions) -> String {
    let message = read(&folder().join(name), options).unwrap_err().to_string();
    assert!(message.contains(name), "the message names the file: {message}");
    message
}

#[test]
fn tables_hold_exactly_what_their_writers_stored() {
    let json = include_str!("../fixtures/tables.json");
    let expected: Value = serde_json::from_str(json).unwrap();
    let tables = expected["tables"].as_object().unwrap();
    assert!(tables.len() > 40);
    for (name, table) in tables {
        let options = ReadOptions {
            label: table["label"].as_str().map(str::to_owned),
            id: table["id"].as_str().map(str::to_owned),
            ignore: texts(&table["ignore"]).unwrap_or_default(),
            ..ReadOptions::default()
        };
        let file = name.split(':').next().unwrap();
        let found = read(&folder().join(file), &options).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(found.columns, texts(&table["columns"]), "{name}");
        assert_eq!(found.labels, texts(&table["labels"]), "{name}");
        assert_eq!(found.ids, texts(&table["ids"]), "{name}");
        let rows = table["rows"].as_array().unwrap();
        assert_eq!(found.rows.nrows(), rows.len(), "{name}");
        for (row, cells) in found.rows.outer_iter().zip(rows) {
            let cells = cells.as_array().unwrap();
            assert_eq!(row.len(), cells.len(), "{name}");
            for (cell, expected) in row.iter().zip(cells) {
                let expected = expected.as_f64().map_or(f32::NAN, |value| value as f32);
                assert!(*cell == expected || (cell.is_nan() && expected.is_nan()), "{name}: {cell} for {expected}");
            }
        }
    }
}

#[test]
fn what_a_parquet_file_cannot_give_is_named() {
    let none = ReadOptions::default();
    assert!(refusal("nested.parquet", &none).contains("column `list` is nested"));
    let list = ReadOptions { ignore: vec!["list".to_owned()], ..Default::default() };
    assert!(refusal("nested.parquet", &list).contains("column `pair` is nested"));
    assert!(refusal("times.parquet", &none).contains("column `when` holds dates or times"));
    let when = ReadOptions { ignore: vec!["when".to_owned()], ..Default::default() };
    assert!(refusal("times.parquet", &when).contains("column `colour` holds text"));
    let zstd = refusal("zstd.parquet", &none);
    assert!(zstd.contains("ZSTD is not supported; write the file with Snappy"), "{zstd}");
    assert!(!zstd.contains("damaged"), "{zstd}");
    assert!(refusal("labelled.parquet", &list).contains("column"));
}

#[test]
fn damaged_parquet_files_are_refused_or_read_and_never_panic() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("damaged.parquet");
    let mut state = 1u64;
    for name in ["snappy_v1_dictionary", "gzip_v2_plain", "none_v2_dictionary", "groups"] {
        let good = std::fs::read(folder().join(format!("{name}.parquet"))).unwrap();
        for length in (0..good.len()).step_by(97) {
            std::fs::write(&path, &good[..length]).unwrap();
            let message = read(&path, &ReadOptions::default()).unwrap_err().to_string();
            assert!(message.contains("damaged.parquet"), "{message}");
        }
        for _ in 0..400 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mut bytes = good.clone();
            bytes[(state >> 33) as usize % good.len()] = (state >> 20) as u8;
            std::fs::write(&path, &bytes).unwrap();
            // A changed number goes unnoticed; any other change must at most give an error.
            if let Err(error) = read(&path, &ReadOptions::default()) {
                assert!(error.to_string().contains("damaged.parquet"), "{error}");
            }
        }
    }
}
