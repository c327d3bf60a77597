//! `cargo xtask tidy`: the rules of the workspace that no compiler knows.
//!
//! * Layering: a crate imports only what its row in `docs/ARCHITECTURE.md` allows, and every crate has a row.
//! * Only `nomaly-kernels` contains `unsafe`; every other crate forbids it.
//! * Library crates deny missing documentation.
//! * No unfinished code, no overlong file, no comment wider than the code.
//! * Modules of a crate do not import each other in [circles](mod@circles).
//! * No crate re-exports another crate as a whole, and no two crates have a public type of the same name, except those
//!   that are [known].

mod circles;
mod known;
mod public;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use self::circles::{Circle, circles};
use self::known::KnownCircle;
use self::source::{SourceFile, crate_files};
use crate::workspace_root;

/// A file longer than this does more than one thing.
const MAX_LINES: usize = 700;
/// The maximum width of a comment, as for code in `rustfmt.toml`; a row of a table may be wider.
const MAX_COMMENT_COLUMNS: usize = 120;
/// The only crate that may contain `unsafe`.
const UNSAFE_CRATE: &str = "nomaly-kernels";
/// Crates above the layering, which may use everything.
const UNLAYERED: [&str; 2] = ["xtask", "nomaly-bench"];

pub(crate) fn run() -> anyhow::Result<()> {
    let root = workspace_root();
    let mut findings = Vec::new();
    layering(root, &mut findings)?;
    for folder in ["crates", "xtask", "benches"] {
        for file in rust_files(&root.join(folder))? {
            source_file(root, &file, &mut findings)?;
        }
    }
    let crates = crate_sources(root)?;
    circles_of_modules(&crates, known::CIRCLES, &mut findings);
    let libraries: BTreeMap<_, _> =
        crates.into_iter().filter(|(name, _)| root.join("crates").join(name).join("src/lib.rs").is_file()).collect();
    public::re_exports(&libraries, &mut findings);
    public::type_names(&libraries, &mut findings);
    if findings.is_empty() {
        eprintln!("tidy: nothing to mend");
        return Ok(());
    }
    for finding in &findings {
        eprintln!("tidy: {finding}");
    }
    bail!("{} finding(s)", findings.len());
}

/// Compares the workspace's dependencies with the table in `docs/ARCHITECTURE.md`.
fn layering(root: &Path, findings: &mut Vec<String>) -> anyhow::Result<()> {
    let page = fs::read_to_string(root.join("docs/ARCHITECTURE.md")).context("cannot read docs/ARCHITECTURE.md")?;
    let allowed = layering_table(&page);
    for (name, uses) in workspace_dependencies(root)? {
        if UNLAYERED.contains(&name.as_str()) {
            continue;
        }
        let Some(may_use) = allowed.get(&name) else {
            findings.push(format!("{name} has no row in the layering table of docs/ARCHITECTURE.md"));
            continue;
        };
        for used in uses.difference(may_use) {
            findings.push(format!("{name} imports {used}, which its row in docs/ARCHITECTURE.md does not allow"));
        }
        for unused in may_use.difference(&uses) {
            findings.push(format!("docs/ARCHITECTURE.md lets {name} import {unused}, which it does not"));
        }
    }
    Ok(())
}

/// Reads rows of the form ``| `crate` | what | `used`, `used` |`` between the layering markers.
fn layering_table(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    page.lines()
        .skip_while(|line| !line.contains("<!-- layering -->"))
        .take_while(|line| !line.contains("<!-- /layering -->"))
        .filter_map(|line| {
            let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
            let name = quoted(cells.first()?).next()?;
            Some((name, quoted(cells.last()?).collect()))
        })
        .collect()
}

/// The words of `text` in backticks.
fn quoted(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(String::from)
}

/// For every member of the workspace, the members that it depends on outside tests.
fn workspace_dependencies(root: &Path) -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root)
        .output()
        .context("cannot start cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let members: BTreeSet<String> = packages.iter().map(|package| text(&package["name"])).collect();
    Ok(packages
        .iter()
        .map(|package| {
            let uses = package["dependencies"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|dependency| dependency["kind"].as_str() != Some("dev"))
                .map(|dependency| text(&dependency["name"]))
                .filter(|name| members.contains(name))
                .collect();
            (text(&package["name"]), uses)
        })
        .collect())
}

/// The sources of every crate in `crates`, by its name.
fn crate_sources(root: &Path) -> anyhow::Result<BTreeMap<String, Vec<SourceFile>>> {
    let mut crates = BTreeMap::new();
    for entry in fs::read_dir(root.join("crates")).context("cannot list crates")? {
        let entry = entry?;
        let folder = entry.path().join("src");
        if folder.is_dir() {
            crates.insert(entry.file_name().to_string_lossy().into_owned(), crate_files(&folder)?);
        }
    }
    Ok(crates)
}

/// Unknown circles, and known ones that are gone or have changed.
fn circles_of_modules(crates: &BTreeMap<String, Vec<SourceFile>>, known: &[KnownCircle], findings: &mut Vec<String>) {
    for (name, files) in crates {
        let known: Vec<&KnownCircle> = known.iter().filter(|circle| circle.crate_name == name).collect();
        let found = circles(files);
        for Circle { modules, shown } in &found {
            if !known.iter().any(|known| known.modules == modules.as_slice()) {
                let all = modules.join(", ");
                findings.push(format!("modules of {name} import each other in a circle: {shown} (of {all})"));
            }
        }
    }
    for KnownCircle { crate_name, modules, reason } in known {
        let of_crate = crates.get(*crate_name).map_or_else(Vec::new, |files| circles(files));
        if !of_crate.iter().any(|circle| circle.modules == *modules) {
            let all = modules.join(", ");
            findings.push(format!(
                "the circle of {all} in {crate_name} ({reason}) is gone or another one: see xtask/src/tidy/known.rs"
            ));
        }
    }
}

fn source_file(root: &Path, file: &Path, findings: &mut Vec<String>) -> anyhow::Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let shown = file.strip_prefix(root).unwrap_or(file).display();
    let in_unsafe_crate = file.starts_with(root.join("crates").join(UNSAFE_CRATE));

    if text.lines().count() > MAX_LINES {
        findings.push(format!("{shown} has more than {MAX_LINES} lines: which two things does it do?"));
    }
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
        if is_wide_comment(line) {
            findings.push(format!("{shown}:{number}: a comment of more than {MAX_COMMENT_COLUMNS} columns"));
        }
        let code = line.split("//").next().unwrap_or_default();
        if !in_unsafe_crate && opens_unsafe(code) {
            findings.push(format!("{shown}:{number}: unsafe outside {UNSAFE_CRATE}"));
        }
        for macro_name in ["todo", "unimplemented", "dbg"] {
            if code.contains(&format!("{macro_name}!(")) {
                findings.push(format!("{shown}:{number}: {macro_name}! in committed code"));
            }
        }
    }
    let is_crate_root = file.ends_with("src/lib.rs") || file.ends_with("src/main.rs");
    if is_crate_root && !in_unsafe_crate && !text.contains("#![forbid(unsafe_code)]") {
        findings.push(format!("{shown} does not forbid unsafe code"));
    }
    if file.ends_with("src/lib.rs") && file.starts_with(root.join("crates")) && !text.contains("#![deny(missing_docs)]")
    {
        findings.push(format!("{shown} does not deny missing documentation"));
    }
    Ok(())
}

/// Whether a line is a comment that is too wide, and no row of a table.
fn is_wide_comment(line: &str) -> bool {
    let text = line.trim_start().strip_prefix("//").map(|text| text.trim_start_matches(['/', '!', ' ']));
    text.is_some_and(|text| !text.starts_with('|')) && line.chars().count() > MAX_COMMENT_COLUMNS
}

/// Whether a line of code opens an unsafe block, function, implementation or trait.
fn opens_unsafe(code: &str) -> bool {
    ["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait", "unsafe extern"]
        .iter()
        .any(|form| code.split('"').step_by(2).any(|part| part.contains(form)))
}

/// Every Rust source file below a folder, in order of path.
fn rust_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_gives_each_crate_what_it_may_import() {
        let page = "text\n<!-- layering -->\n| crate | what | imports |\n|---|---|---|\n\
                    | `a` | uses `x` inside | – |\n| `b` | top | `a`, `c` |\n<!-- /layering -->\n| `d` | | `a` |";
        let table = layering_table(page);
        assert_eq!(table.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert!(table["a"].is_empty());
        assert_eq!(table["b"].iter().collect::<Vec<_>>(), ["a", "c"]);
    }

    #[test]
    fn comments_are_as_wide_as_code_but_for_tables() {
        let wide = "é".repeat(MAX_COMMENT_COLUMNS);
        assert!(is_wide_comment(&format!("/// {wide}")));
        assert!(is_wide_comment(&format!("    //! {wide}")));
        assert!(!is_wide_comment(&format!("//! | {wide} |")));
        assert!(!is_wide_comment(&format!("// {}", "é".repeat(MAX_COMMENT_COLUMNS - 3))));
        assert!(!is_wide_comment(&format!("let address = \"https://{wide}\";")));
    }

    #[test]
    fn unsafe_in_text_is_not_unsafe_code() {
        assert!(opens_unsafe("    unsafe { f() }"));
        assert!(opens_unsafe("pub unsafe fn f()"));
        assert!(!opens_unsafe("let x = \u{22}unsafe { }\u{22};"));
        assert!(!opens_unsafe("#![forbid(unsafe_code)]"));
    }

    #[test]
    fn circles_are_findings_but_for_the_known_ones_which_have_to_be_there() {
        let file = |module: &str, text: &str| SourceFile {
            module: if module.is_empty() { Vec::new() } else { vec![module.to_owned()] },
            tokens: source::tokens(text),
        };
        let round = vec![file("", "mod a; mod b;"), file("a", "use crate::b::B;"), file("b", "use crate::a::A;")];
        let crates = BTreeMap::from([("x".to_owned(), round)]);
        let check = |known: &[KnownCircle], expected: &[&str]| {
            let mut findings = Vec::new();
            circles_of_modules(&crates, known, &mut findings);
            assert_eq!(findings, expected);
        };
        let of = |modules| KnownCircle { crate_name: "x", modules, reason: "why" };
        check(&[], &["modules of x import each other in a circle: a -> b -> a (of a, b)"]);
        check(&[of(&["a", "b"])], &[]);
        let gone = "the circle of a, c in x (why) is gone or another one: see xtask/src/tidy/known.rs";
        check(&[of(&["a", "b"]), of(&["a", "c"])], &[gone]);
    }

    #[test]
    fn this_workspace_is_listed() {
        let members = workspace_dependencies(workspace_root()).unwrap();
        assert!(members["nomaly-scorers"].contains("nomaly-kernels"));
    }
}
