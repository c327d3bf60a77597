//! Where results may be written, and what is never overwritten.

use std::path::{Path, PathBuf};

use crate::args;
use crate::support::{INPUT_SIZE, fresh_folder, model, nomaly, part, parts};

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

    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
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
