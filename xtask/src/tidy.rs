//! `cargo xtask tidy`: the rules of the workspace that no compiler knows.
//!
//! * Layering: a crate imports only what its row in `docs/ARCHITECTURE.md` allows, and every crate has a row.
//! * `unsafe` stands only in `nomaly-kernels`; every other crate forbids it.
//! * Library crates deny missing documentation.
//! * No unfinished code, no file that outgrew one purpose.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::workspace_root;

/// A file longer than this does more than one thing.
const MAX_LINES: usize = 700;
/// The only crate that may contain `unsafe`.
const UNSAFE_CRATE: &str = "nomaly-kernels";
/// Crates that stand above the layering: they may use everything.
const UNLAYERED: [&str; 2] = ["xtask", "nomaly-bench"];

pub(crate) fn run() -> anyhow::Result<()> {
    let root = workspace_root();
    let mut findings = Vec::new();
    layering(root, &mut findings)?;
    for file in rust_files(root)? {
        source_file(root, &file, &mut findings)?;
    }
    if findings.is_empty() {
        eprintln!("tidy: nothing to mend");
        return Ok(());
    }
    for finding in &findings {
        eprintln!("tidy: {finding}");
    }
    bail!("{} finding(s)", findings.len());
}

/// Holds the workspace's real dependencies against the table in `docs/ARCHITECTURE.md`.
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

/// The words of `text` that stand in backticks.
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

fn source_file(root: &Path, file: &Path, findings: &mut Vec<String>) -> anyhow::Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let shown = file.strip_prefix(root).unwrap_or(file).display();
    let in_unsafe_crate = file.starts_with(root.join("crates").join(UNSAFE_CRATE));

    if text.lines().count() > MAX_LINES {
        findings.push(format!("{shown} has more than {MAX_LINES} lines: which two things does it do?"));
    }
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
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

/// Whether a line of code opens an unsafe block, function, implementation or trait.
fn opens_unsafe(code: &str) -> bool {
    ["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait", "unsafe extern"]
        .iter()
        .any(|form| code.split('"').step_by(2).any(|part| part.contains(form)))
}

/// Every Rust source file of the workspace, in order of path.
fn rust_files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = ["crates", "xtask", "benches"].iter().map(|name| root.join(name)).collect();
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
    fn unsafe_in_text_is_not_unsafe_code() {
        assert!(opens_unsafe("    unsafe { f() }"));
        assert!(opens_unsafe("pub unsafe fn f()"));
        assert!(!opens_unsafe("let x = \u{22}unsafe { }\u{22};"));
        assert!(!opens_unsafe("#![forbid(unsafe_code)]"));
    }

    #[test]
    fn this_workspace_is_listed() {
        let members = workspace_dependencies(workspace_root()).unwrap();
        assert!(members["nomaly-scorers"].contains("nomaly-kernels"));
    }
}
