//! Fits distributed over processes.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::args;
use crate::support::{INPUT_SIZE, PROGRAM, folder, fresh_folder, nomaly, parts};

/// A process that fits a shard of [`parts`].
fn shard(index: usize, count: usize, partial: &Path) -> Child {
    let shard = format!("{index}/{count}");
    let mut command = Command::new(PROGRAM);
    command.args(args!["--threads", "1", "fit", parts(), "--method", "padim", "--set", "input_size=256"]);
    command.args(args!["--shard", shard, "-o", partial]);
    command.env("NOMALY_HOME", folder("home")).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[track_caller]
fn finish(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    stderr
}

#[test]
fn four_processes_make_the_model_of_one_though_one_is_killed() {
    let folder = fresh_folder("shards");
    let paths: Vec<_> = (1..=4).map(|index| folder.join(format!("{index}.partial"))).collect();
    let children: Vec<Child> = (1..=4).map(|index| shard(index, 4, &paths[index - 1])).collect();
    let mut killed = false;
    for (index, mut child) in children.into_iter().enumerate() {
        if index == 2 {
            // Once it has begun to write, regardless of its position in the run.
            let began = Instant::now();
            while std::fs::read_dir(&folder).unwrap().count() < 3 && child.try_wait().unwrap().is_none() {
                assert!(began.elapsed() < Duration::from_secs(60), "there is no file");
                std::thread::sleep(Duration::from_millis(1));
            }
            child.kill().unwrap();
            killed = !child.wait().unwrap().success();
        } else {
            let stderr = finish(child);
            let expected = format!("shard {}/4 for padim on efficientnet-lite0: 6 of 24 images of parts", index + 1);
            assert!(stderr.contains(&expected) && stderr.contains(".partial ("), "{stderr}");
        }
    }
    assert_eq!(paths[2].exists(), !killed);
    let model = folder.join("merged.nomaly");
    let merge = |paths: &[std::path::PathBuf]| {
        let mut arguments = args!["merge", "-o", model].to_vec();
        arguments.extend(paths.iter().map(|path| path.clone().into_os_string()));
        nomaly(arguments)
    };
    if killed {
        let stderr = merge(&[&paths[..2], &paths[3..]].concat()).error();
        assert!(stderr.contains("shard 3/4 is missing"), "{stderr}");
    }
    finish(shard(3, 4, &paths[2]));

    let serial = folder.join("serial.nomaly");
    let fit = args!["fit", parts(), "-o", serial, "--method", "padim", "--set", "input_size=256"];
    let of_one = nomaly(fit);
    let of_four = merge(&[3, 1, 0, 2].map(|index| paths[index].clone()));
    assert_eq!((of_one.status, of_four.status), (0, 0), "{}{}", of_one.stderr, of_four.stderr);
    let hash = |path: &Path| nomaly::store::sha256_file(path).unwrap();
    assert_eq!(hash(&model), hash(&serial));
    // The description of the model is the same, except for the time.
    let lines = |stderr: &str| {
        let told = stderr.replace("merged padim", "fitted padim").replace("merged.nomaly", "serial.nomaly");
        let untimed = |line: &str| {
            if line.contains("fitted padim") { line.rsplit_once(',').unwrap().0.to_owned() } else { line.to_owned() }
        };
        told.lines().map(untimed).collect::<Vec<_>>()
    };
    assert_eq!(lines(&of_four.stderr), lines(&of_one.stderr));
    let over = nomaly(args!["merge", paths[0], paths[1], "-o", paths[0]]).error();
    assert!(over.contains("would be overwritten"), "{over}");
}

#[test]
fn shards_of_machines_that_round_differently_are_merged_with_a_word() {
    let folder = fresh_folder("shards-mixed");
    let isas = [nomaly::kernels::Isa::best().unwrap().name(), "portable"];
    let partials = [1, 2].map(|index| folder.join(format!("{index}.partial")));
    for (index, partial) in partials.iter().enumerate() {
        let mut command = Command::new(PROGRAM);
        command.args(args!["fit", parts(), "-o", partial, "--method", "dn2", "--set", INPUT_SIZE]);
        command.args(args!["--shard", format!("{}/2", index + 1)]);
        command.env("NOMALY_HOME", crate::support::folder("home")).env("NOMALY_ISA", isas[index]);
        assert!(command.output().unwrap().status.success());
    }
    let merged = nomaly(args!["merge", partials[0], partials[1], "-o", folder.join("model.nomaly")]);
    assert_eq!(merged.status, 0, "{}", merged.stderr);
    let warned = merged.stderr.lines().any(|line| line.starts_with("warning: ") && line.contains("round differently"));
    assert_eq!(warned, isas[0] != isas[1], "{}", merged.stderr);
}

#[test]
fn what_cannot_be_divided_is_refused_with_a_reason() {
    let output = fresh_folder("shards-refused").join("a.partial");
    let fit = |more: &[&str]| {
        let mut arguments = args!["fit", parts(), "-o", output, "--set", INPUT_SIZE, "--shard", "1/2"].to_vec();
        arguments.extend(more.iter().map(Into::into));
        nomaly(arguments)
    };
    for (more, expected) in [
        (&["--time-budget", "10"][..], "depends on the speed of each machine"),
        (&["--method", "mvg", "--drop-suspicious", "0.01"], "when all shards are merged"),
        (&["--method", "mvg", "--report", "x.html"], "a shard has no scores yet"),
        (&["--method", "adacl", "--set", "epochs=1"], "a fit of adacl cannot be split"),
    ] {
        let stderr = fit(more).error();
        assert!(stderr.contains(expected) && stderr.contains("hint: "), "{stderr}");
    }
    let table = output.with_file_name("rows.csv");
    std::fs::write(&table, "a,b\n1,2\n3,4\n").unwrap();
    let stderr = nomaly(args!["fit", table, "-o", output, "--set", "scorer=gaussian", "--shard", "1/2"]).error();
    assert!(stderr.contains("rows.csv is a table"), "{stderr}");
    for wrong in ["0/2", "3/2", "half"] {
        let stderr = nomaly(args!["fit", parts(), "-o", output, "--shard", wrong]).error();
        assert!(stderr.contains("I from 1 to N"), "{stderr}");
    }
    assert!(!output.exists());
    let stderr = nomaly(args!["merge", table, "-o", output]).error();
    assert!(stderr.contains("rows.csv: is") && stderr.contains("not a partial"), "{stderr}");
}

#[test]
fn a_partial_is_told_from_a_model_and_from_one_of_another_rule() {
    let folder = fresh_folder("shards-told");
    let [first, second] = [1, 2].map(|index| folder.join(format!("{index}.partial")));
    for (index, partial, rule) in [(1, &first, "conformal"), (2, &second, "quantile")] {
        let fit = args!["fit", parts(), "-o", partial, "--method", "dn2", "--set", INPUT_SIZE, "--rule", rule];
        let shard = args!["--max-fpr", "0.1", "--shard", format!("{index}/2")];
        nomaly(fit.into_iter().chain(shard)).ok();
    }
    for run in [
        nomaly(args!["inspect", first]),
        nomaly(args!["score", parts().join("test"), "-m", first]),
        nomaly(args!["update", parts(), "-m", first]),
        nomaly(args!["eval", parts(), "-m", first]),
        nomaly(args!["calibrate", "-m", first, "--max-fpr", "0.1"]),
    ] {
        let message = run.error();
        assert!(
            message.contains("1.partial: is a partial of a divided fit; `nomaly merge` makes a model"),
            "{message}"
        );
    }
    let message = nomaly(args!["merge", first, second, "-o", folder.join("model.nomaly")]).error();
    assert!(message.contains("decision rule (quantile 0.1, not max-fpr 0.1)"), "{message}");
}
