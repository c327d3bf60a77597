//! Trainings whose model could not be written.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::args;
use crate::support::{PROGRAM, fresh_folder, parts};

fn files_in(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

#[test]
fn a_training_whose_model_could_not_be_written_is_not_repeated() {
    let folder = fresh_folder("failing-save");
    let (home, out) = (folder.join("home"), folder.join("out"));
    let checkpoints = home.join("checkpoints");
    let model = out.join("part.nomaly");
    let fit = || {
        let mut command = Command::new(PROGRAM);
        command.args(args!["fit", parts(), "-o", model, "--method", "adacl", "--epochs", "12"]);
        command.env("NOMALY_HOME", &home).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    };
    let finished = |mut command: Command| {
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    std::fs::create_dir(&out).unwrap();
    let (status, stderr) = finished(fit());
    assert_eq!(status, Some(0), "{stderr}");
    let whole = std::fs::read(&model).unwrap();
    assert_eq!(files_in(&checkpoints), 0);

    // The folder of the model is removed once the training has begun.
    let child = fit().spawn().unwrap();
    let began = Instant::now();
    while files_in(&checkpoints) == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "there is no checkpoint");
        std::thread::sleep(Duration::from_millis(2));
    }
    std::fs::remove_dir_all(&out).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("part.nomaly") || stderr.contains("failing-save/out"), "{stderr}");
    assert!(stderr.contains("hint: the training is kept"), "{stderr}");
    assert_eq!(files_in(&checkpoints), 1, "{stderr}");

    std::fs::create_dir(&out).unwrap();
    let (status, stderr) = finished(fit());
    assert_eq!(status, Some(0), "{stderr}");
    assert!(stderr.contains("went on from step"), "{stderr}");
    assert!(std::fs::read(&model).unwrap() == whole, "the models differ");
    assert_eq!(files_in(&checkpoints), 0);

    // An evaluation keeps no model, and leaves no checkpoint behind.
    let mut eval = Command::new(PROGRAM);
    eval.args(args!["eval", parts(), "--method", "adacl", "--epochs", "2"]).env("NOMALY_HOME", &home);
    let (status, stderr) = finished(eval);
    assert_eq!((status, files_in(&checkpoints)), (Some(0), 0), "{stderr}");
}
