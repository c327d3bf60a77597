//! Failures of stdout: a closed pipe, a full device, a closed stdout.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::args;
use crate::support::{INPUT_SIZE, PROGRAM, TEST, folder, fresh_folder, model, nomaly, parts};

/// Exit status and stderr of a run with this stdout.
fn run(args: impl IntoIterator<Item = OsString>, stdout: impl Into<Stdio>) -> (Option<i32>, String) {
    let output = Command::new(PROGRAM)
        .args(args)
        .env("NOMALY_HOME", folder("home"))
        .stdout(stdout)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A pipe with a closed reader.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn with(args: impl IntoIterator<Item = OsString>, more: &[&str]) -> Vec<OsString> {
    args.into_iter().chain(more.iter().map(Into::into)).collect()
}

#[test]
fn a_reader_that_has_gone_away_changes_neither_the_status_nor_the_files() {
    let report = fresh_folder("unread").join("report.html");
    for format in ["table", "csv", "json", "jsonl"] {
        let score = args!["score", parts().join("test"), "-m", model(), "--report", report, "--format", format];
        let (status, stderr) = run(with(score, &["--fail-on-anomaly", "--batch", "1"]), unread());
        assert_eq!(status, Some(1), "{format}: {stderr}");
        assert!(stderr.contains("of 8 images anomalous") && !stderr.contains("error"), "{format}: {stderr}");
        let html = std::fs::read_to_string(&report).unwrap();
        assert_eq!(html.matches("<li class=\"card").count(), 2 * TEST, "{format}");
        std::fs::remove_file(&report).unwrap();
    }
    // The rate is too strict for 24 images: undecided, with or without a reader.
    let undecided = args!["score", parts().join("test"), "-m", model(), "--max-fpr", "0.001"];
    assert_eq!(run(undecided, unread()).0, Some(3));
    let missing = args!["score", parts().join("test"), "-m", parts().join("none")];
    assert_eq!(run(missing, unread()).0, Some(2));
}

#[test]
fn heat_maps_of_all_images_are_written_for_a_reader_that_has_gone_away() {
    let out = fresh_folder("unread-maps");
    let padim = out.join("padim.nomaly");
    nomaly(args!["fit", parts(), "-o", padim, "--method", "padim", "--set", INPUT_SIZE]).ok();
    let score = args!["score", parts().join("test/spot"), "-m", padim, "--heatmaps", out.join("heat"), "--batch", "1"];
    let (status, stderr) = run(score, unread());
    assert_eq!(status, Some(0), "{stderr}");
    assert_eq!(std::fs::read_dir(out.join("heat")).unwrap().count(), TEST, "{stderr}");
}

#[test]
fn rows_are_decided_on_whoever_reads() {
    let folder = fresh_folder("unread-rows");
    let (good, all) = (folder.join("good.csv"), folder.join("all.csv"));
    let rows: String = (0..60).map(|row| format!("{},{}\n", row * 37 % 101, row * 53 % 97)).collect();
    std::fs::write(&good, format!("a,b\n{rows}")).unwrap();
    std::fs::write(&all, format!("a,b\n{rows}9999,9999\n")).unwrap();
    let model = folder.join("rows.nomaly");
    nomaly(args!["fit", good, "-o", model]).ok();
    let (status, stderr) = run(args!["score", all, "-m", model, "--fail-on-anomaly"], unread());
    assert_eq!(status, Some(1), "{stderr}");
}

#[test]
fn an_evaluation_writes_its_report_for_a_reader_that_has_gone_away() {
    let out = fresh_folder("unread-eval");
    for format in ["table", "json"] {
        let report = out.join(format);
        let eval = args!["eval", parts(), "-m", model(), "--report", report, "--format", format];
        let (status, stderr) = run(eval, unread());
        assert_eq!(status, Some(0), "{stderr}");
        for file in ["report.html", "scores.csv", "evaluation.json"] {
            assert!(report.join(file).exists(), "{file}: {stderr}");
        }
    }
}

#[test]
fn commands_that_only_print_end_quietly_when_nobody_reads() {
    let quiet = [
        args!["list", "methods"].to_vec(),
        args!["list", "backbones", "--format", "json"].to_vec(),
        args!["inspect", model()].to_vec(),
        args!["inspect", model(), "--format", "json"].to_vec(),
        args!["weights", "list"].to_vec(),
        args!["completions", "bash"].to_vec(),
    ];
    for args in quiet {
        assert_eq!(run(args.clone(), unread()), (Some(0), String::new()), "{args:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_stdout_that_takes_nothing_is_an_error() {
    let score = args!["score", parts().join("test"), "-m", model(), "--fail-on-anomaly"].to_vec();
    for args in [score, args!["list", "methods"].to_vec(), args!["inspect", model()].to_vec()] {
        for refuses in [
            OpenOptions::new().write(true).open("/dev/full").unwrap(),
            // Not open for writing.
            File::open("/dev/null").unwrap(),
        ] {
            let (status, stderr) = run(args.clone(), refuses);
            assert_eq!(status, Some(2), "{args:?}: {stderr}");
            assert!(stderr.contains("error: results cannot be printed"), "{args:?}: {stderr}");
        }
        let thrown_away = OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
        assert_ne!(run(args.clone(), thrown_away).0, Some(2), "{args:?}");
    }
}

/// A disk that fills up while results are printed.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_is_cut_short_is_an_error() {
    let out = fresh_folder("file-limit").join("methods.json");
    let script = "ulimit -f 1; trap '' XFSZ; exec \"$0\" list backbones --format json > \"$1\"";
    let output = Command::new("sh").args(args!["-c", script, PROGRAM, out]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("error: ") && Path::new(&out).exists(), "{stderr}");
}
