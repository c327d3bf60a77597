//! Checks of public items: re-exported crates, and public types with the same name.

use std::collections::{BTreeMap, BTreeSet};

use super::known;
use super::source::SourceFile;

/// Unknown re-exports of whole crates, and known ones that are gone.
pub(super) fn re_exports(crates: &BTreeMap<String, Vec<SourceFile>>, findings: &mut Vec<String>) {
    re_exports_but(crates, known::RE_EXPORTS, findings);
}

fn re_exports_but(crates: &BTreeMap<String, Vec<SourceFile>>, known: &[(&str, &str)], findings: &mut Vec<String>) {
    let mut found = BTreeSet::new();
    for (name, files) in crates {
        for file in files {
            let shown = crates_in(&file.tokens).into_iter().filter(|shown| crates.contains_key(shown));
            found.extend(shown.map(|shown| (name.clone(), shown)));
        }
    }
    for (name, shown) in &found {
        if !known.contains(&(name.as_str(), shown.as_str())) {
            findings.push(format!("{name} re-exports the whole crate {shown}; name the items that users need"));
        }
    }
    for (name, shown) in known {
        if !found.contains(&((*name).to_owned(), (*shown).to_owned())) {
            findings.push(format!("{name} does not re-export {shown}: take it off xtask/src/tidy/known.rs"));
        }
    }
}

/// The crates that a file re-exports as a whole, by package name.
fn crates_in(tokens: &[String]) -> Vec<String> {
    let word = |at: usize| tokens.get(at).map_or("", String::as_str);
    (0..tokens.len())
        .filter(|&at| word(at) == "pub" && word(at + 1) == "use" && [";", "as"].contains(&word(at + 3)))
        .map(|at| word(at + 2).replace('_', "-"))
        .collect()
}

/// Unknown public types with the same name in several crates, and known ones that are gone.
pub(super) fn type_names(crates: &BTreeMap<String, Vec<SourceFile>>, findings: &mut Vec<String>) {
    type_names_but(crates, known::TYPE_NAMES, findings);
}

fn type_names_but(crates: &BTreeMap<String, Vec<SourceFile>>, known: &[&str], findings: &mut Vec<String>) {
    let mut owners: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, files) in crates {
        for file in files {
            types_in(&file.tokens).for_each(|defined| owners.entry(defined).or_default().extend([name.as_str()]));
        }
    }
    owners.retain(|_, crates| crates.len() > 1);
    for (name, crates) in &owners {
        if !known.contains(name) {
            let crates: Vec<&str> = crates.iter().copied().collect();
            findings.push(format!("{} each have a public type `{name}`: which one is meant?", crates.join(" and ")));
        }
    }
    for name in known.iter().filter(|name| !owners.contains_key(**name)) {
        findings.push(format!("no two crates have a type `{name}`: take it off xtask/src/tidy/known.rs"));
    }
}

/// The public types and traits that a file defines.
fn types_in(tokens: &[String]) -> impl Iterator<Item = &str> {
    let kinds = ["struct", "enum", "union", "trait", "type"];
    tokens
        .windows(3)
        .filter(move |words| words[0] == "pub" && kinds.contains(&words[1].as_str()))
        .map(|words| words[2].as_str())
}

#[cfg(test)]
mod tests {
    use super::super::source::tokens;
    use super::*;

    fn crates(sources: &[(&str, &str)]) -> BTreeMap<String, Vec<SourceFile>> {
        let files = |text: &str| vec![SourceFile { module: Vec::new(), tokens: tokens(text) }];
        sources.iter().map(|(name, text)| ((*name).to_owned(), files(text))).collect()
    }

    #[test]
    fn whole_crates_are_re_exported_by_the_list_alone() {
        let crates = crates(&[
            ("nomaly-a", ""),
            ("nomaly-b", "pub use nomaly_a as a; pub use nomaly_a::X; pub use serde; pub(crate) use nomaly_a;"),
        ]);
        let check = |known: &[(&str, &str)], expected: &[&str]| {
            let mut findings = Vec::new();
            re_exports_but(&crates, known, &mut findings);
            assert_eq!(findings, expected, "{known:?}");
        };
        check(&[("nomaly-b", "nomaly-a")], &[]);
        check(&[], &["nomaly-b re-exports the whole crate nomaly-a; name the items that users need"]);
        check(
            &[("nomaly-b", "nomaly-a"), ("nomaly-a", "nomaly-b")],
            &["nomaly-a does not re-export nomaly-b: take it off xtask/src/tidy/known.rs"],
        );
    }

    #[test]
    fn types_of_one_name_are_found() {
        let crates =
            crates(&[("a", "pub struct X; pub(crate) enum Y {} pub fn z() {}"), ("b", "pub trait X {} pub enum Y {}")]);
        let check = |known: &[&str], expected: &[&str]| {
            let mut findings = Vec::new();
            type_names_but(&crates, known, &mut findings);
            assert_eq!(findings, expected, "{known:?}");
        };
        check(&["X"], &[]);
        check(&[], &["a and b each have a public type `X`: which one is meant?"]);
        check(&["X", "Y"], &["no two crates have a type `Y`: take it off xtask/src/tidy/known.rs"]);
    }
}
