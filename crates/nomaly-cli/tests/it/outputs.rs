//! Where results may be written, and what is never overwritten.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::args;
use crate::support::{INPUT_SIZE, PROGRAM, fresh_folder, model, nomaly, part, parts};

fn photo(folder: &Path) -> PathBuf {
    let path = folder.join("photo.png");
    part(1, false).save(&path).unwrap();
    path
}

fn entries(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn an_image_is_not_overwritten_by_a_model_or_a_report() {
    let folder = fresh_folder("outputs-image");
    let photo = photo(&folder);
    let before = std::fs::read(&photo).unwrap();
    let report = folder.join("results");
    std::fs::create_dir_all(&report).unwrap();
    std::fs::copy(&photo, report.join("report.html")).unwrap();
    for run in [
        nomaly(args!["fit", parts(), "-o", photo, "--method", "mvg", "--set", INPUT_SIZE]),
        nomaly(args!["update", parts(), "-m", model(), "-o", photo]),
        nomaly(args!["score", parts().join("test"), "-m", model(), "--report", photo]),
    ] {
        let message = run.error();
        assert!(message.contains("photo.png is an image (PNG) and would be overwritten"), "{message}");
    }
    let message = nomaly(args!["eval", parts(), "-m", model(), "--report", report]).error();
    assert!(message.contains("report.html is an image (PNG)"), "{message}");
    assert_eq!(std::fs::read(&photo).unwrap(), before);
    assert_eq!((entries(&folder), entries(&report)), (2, 1));
}

#[test]
fn a_folder_is_no_place_for_a_model() {
    let folder = fresh_folder("outputs-folder");
    let message = nomaly(args!["fit", parts(), "-o", folder, "--method", "mvg", "--set", INPUT_SIZE]).error();
    assert!(message.contains("it is a folder") && message.contains("outputs-folder"), "{message}");
}

#[cfg(unix)]
#[test]
fn links_devices_and_pipes_stay_what_they_are() {
    use std::io::Read;
    use std::os::unix::fs::{FileTypeExt, symlink};

    let folder = fresh_folder("outputs-special");
    let [link, target, pipe] = ["link", "target.nomaly", "pipe"].map(|name| folder.join(name));
    symlink("target.nomaly", &link).unwrap();
    let fit = |output: &Path| nomaly(args!["fit", parts(), "-o", output, "--method", "mvg", "--set", INPUT_SIZE]);
    fit(&link).ok();
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert_eq!(std::fs::read(&target).unwrap(), std::fs::read(model()).unwrap());

    fit(Path::new("/dev/null")).ok();
    assert!(Path::new("/dev/null").metadata().unwrap().file_type().is_char_device());
    if Path::new("/dev/full").exists() {
        let message = fit(Path::new("/dev/full")).error();
        assert!(message.contains("/dev/full"), "{message}");
    }

    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || {
            let mut page = String::new();
            std::fs::File::open(pipe).unwrap().read_to_string(&mut page).map(|_| page)
        }
    });
    nomaly(args!["score", parts().join("test"), "-m", model(), "--report", pipe]).ok();
    assert!(reader.join().unwrap().unwrap().contains("</html>"));
    assert!(pipe.symlink_metadata().unwrap().file_type().is_fifo());
    assert_eq!(entries(&folder), 3);
}

/// Runs the command in `folder`, which must refuse to overwrite one of its own files, and must change none.
#[track_caller]
fn is_refused(folder: &Path, args: &[&str]) {
    let contents = |folder: &Path| {
        let read = |entry: std::io::Result<std::fs::DirEntry>| {
            let path = entry.unwrap().path();
            (std::fs::read(&path).ok(), path)
        };
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(read).collect();
        files.sort();
        files
    };
    let before = contents(folder);
    let output = Command::new(PROGRAM)
        .args(args)
        .current_dir(folder)
        .env("NOMALY_HOME", crate::support::folder("home"))
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    let told = stderr.contains("would be overwritten by a result") || stderr.contains("would overwrite");
    assert!(told, "{args:?}: {stderr}");
    assert!(contents(folder) == before, "{args:?} changed a file");
}

#[test]
fn no_result_overwrites_an_input_or_another_result() {
    let folder = fresh_folder("outputs-apart");
    let at = |name: &str| folder.join(name);
    let rows: String = (0..40).map(|row| format!("{},{}\n", row * 37 % 101, row * 53 % 97)).collect();
    std::fs::write(at("v.csv"), format!("a,b\n{rows}")).unwrap();
    nomaly(args!["fit", at("v.csv"), "-o", at("rows.nomaly")]).ok();
    nomaly(args!["fit", parts(), "-o", at("m"), "--method", "padim", "--set", INPUT_SIZE]).ok();
    for copy in ["maps.npy", "scores.csv"] {
        std::fs::copy(at("m"), at(copy)).unwrap();
    }
    std::fs::create_dir(at("good")).unwrap();
    part(1, false).save(at("good/maps.png")).unwrap();
    let absolute = |name: &str| at(name).to_str().unwrap().to_owned();
    let (new, table) = (absolute("new"), absolute("v.csv"));

    is_refused(&folder, &["calibrate", "v.csv", "-m", "rows.nomaly", "-o", "v.csv"]);
    is_refused(&folder, &["calibrate", "./v.csv", "-m", "rows.nomaly", "-o", &table]);
    is_refused(&folder, &["fit", "v.csv", "-o", "good/../v.csv"]);
    is_refused(&folder, &["score", "good", "-m", "m", "--report", "m"]);
    is_refused(&folder, &["score", "good", "-m", "scores.csv", "--with", "m", "--report", "./m"]);
    is_refused(&folder, &["score", "good", "-m", "maps.npy", "--maps", "."]);
    is_refused(&folder, &["fit", "good", "-o", &new, "--report", "new"]);
    is_refused(&folder, &["fit", "good", "-o", "m", "--set", "weights=m"]);
    let parts = parts().to_str().unwrap();
    is_refused(&folder, &["eval", parts, "-m", "scores.csv", "--report", "."]);
    is_refused(&folder, &["eval", parts, "-m", "m", "--with", "scores.csv", "--report", "good/.."]);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("v.csv", at("link")).unwrap();
        std::os::unix::fs::symlink("new", at("dangling")).unwrap();
        is_refused(&folder, &["calibrate", "v.csv", "-m", "rows.nomaly", "-o", "link"]);
        is_refused(&folder, &["fit", "good", "-o", "new", "--report", "dangling"]);
    }
    // A model is replaced where the command says so, and names that are no files are free.
    nomaly(args!["calibrate", at("v.csv"), "-m", at("rows.nomaly"), "-o", at("rows.nomaly")]).ok();
}

#[test]
fn a_dash_is_no_file() {
    for more in [&[][..], &["--shard", "1/2"]] {
        let fit = args!["fit", parts(), "-o", "-", "--method", "dn2", "--set", INPUT_SIZE];
        let message = nomaly(fit.into_iter().chain(more.iter().map(Into::into))).error();
        assert!(message.contains("results are not written to `-`") && message.contains("./-"), "{message}");
    }
    assert!(!Path::new("-").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_fills_up_is_told_with_the_name_of_the_result() {
    let model = fresh_folder("outputs-full").join("part.nomaly");
    let script = "ulimit -f 8; trap '' XFSZ; exec \"$@\"";
    let fit = args!["fit", parts(), "-o", model, "--method", "dn2", "--set", INPUT_SIZE];
    let output = Command::new("sh")
        .args(args!["-c", script, "sh", PROGRAM])
        .args(fit)
        .env("NOMALY_HOME", crate::support::folder("home"))
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("part.nomaly") && !stderr.contains(".nomaly-"), "{stderr}");

    let missing = model.with_file_name("absent").join("part.nomaly");
    let message = nomaly(args!["fit", parts(), "-o", missing, "--method", "dn2", "--set", INPUT_SIZE]).error();
    assert!(message.contains("absent/part.nomaly: there is no folder") && !message.contains(".nomaly-"), "{message}");
}
