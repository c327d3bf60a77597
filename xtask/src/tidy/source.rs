//! Tokenized Rust sources without comments, strings and test code, and the modules of a crate.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Context;

use super::rust_files;

/// A source file of a crate, without test files.
pub(super) struct SourceFile {
    /// The path of the file's module, from the root of the crate; empty for the root itself.
    pub(super) module: Vec<String>,
    /// Its tokens, without those of test code.
    pub(super) tokens: Vec<String>,
}

/// The source files of the library or the program whose sources are in `folder`, in order of path, without test
/// modules.
pub(super) fn crate_files(folder: &Path) -> anyhow::Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    let mut tests = BTreeSet::new();
    for path in rust_files(folder)? {
        let Some(module) = module_of(path.strip_prefix(folder)?) else { continue };
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let (tokens, test_modules) = without_tests(&tokens(&text));
        tests.extend(test_modules.into_iter().map(|name| [module.as_slice(), &[name]].concat()));
        files.push(SourceFile { module, tokens });
    }
    files.retain(|file| !(1..=file.module.len()).any(|length| tests.contains(&file.module[..length])));
    Ok(files)
}

/// The module of a file by its path below `src`; `None` for programs next to the library.
fn module_of(path: &Path) -> Option<Vec<String>> {
    let mut parts: Vec<String> = path.with_extension("").iter().map(|part| part.to_string_lossy().into()).collect();
    match parts.last().map(String::as_str) {
        Some("mod") => drop(parts.pop()),
        Some("lib" | "main") if parts.len() == 1 => parts.clear(),
        _ => {}
    }
    (parts.first().map(String::as_str) != Some("bin")).then_some(parts)
}

/// Splits source text into identifiers, `::` and single characters; comments, strings and numbers are skipped.
pub(super) fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(&sign) = chars.get(at) {
        let next = chars.get(at + 1).copied();
        match sign {
            '/' if next == Some('/') => at = position(&chars, at, |sign| sign == '\n'),
            '/' if next == Some('*') => at = after_block_comment(&chars, at),
            '"' => at = after_text(&chars, at),
            '\'' => at = after_quote(&chars, at),
            ':' if next == Some(':') => {
                found.push("::".to_owned());
                at += 2;
            }
            _ if is_word(sign) => {
                let end = position(&chars, at, |sign| !is_word(sign));
                let word: String = chars[at..end].iter().collect();
                at = match (word.as_str(), chars.get(end)) {
                    ("r" | "br" | "cr", Some('"' | '#')) => after_raw_text(&chars, end),
                    ("b" | "c", Some('"')) => after_text(&chars, end),
                    ("b", Some('\'')) => after_quote(&chars, end),
                    _ => {
                        if !sign.is_ascii_digit() {
                            found.push(word);
                        }
                        end
                    }
                };
            }
            _ => {
                if !sign.is_whitespace() {
                    found.push(sign.to_string());
                }
                at += 1;
            }
        }
    }
    found
}

fn is_word(sign: char) -> bool {
    sign.is_alphanumeric() || sign == '_'
}

/// The first index from `at` on whose character is wanted, or the end.
fn position(chars: &[char], at: usize, wanted: impl Fn(char) -> bool) -> usize {
    (at..chars.len()).find(|&place| wanted(chars[place])).unwrap_or(chars.len())
}

fn after_block_comment(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The index after the string whose opening quote is at `at`.
fn after_text(chars: &[char], at: usize) -> usize {
    let mut at = at + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// The index after the raw string whose first `#` or quote is at `at`; a raw identifier ends at once.
fn after_raw_text(chars: &[char], at: usize) -> usize {
    let open = position(chars, at, |sign| sign != '#');
    if chars.get(open) != Some(&'"') {
        return open;
    }
    let hashes = open - at;
    let closes =
        |place: &usize| chars[*place] == '"' && (1..=hashes).all(|offset| chars.get(place + offset) == Some(&'#'));
    (open + 1..chars.len()).find(closes).map_or(chars.len(), |place| place + 1 + hashes)
}

/// The index after the character or lifetime whose quote is at `at`.
fn after_quote(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => position(chars, at + 3, |sign| sign == '\'') + 1,
        (Some(_), Some('\'')) => at + 3,
        _ => position(chars, at + 1, |sign| !is_word(sign)),
    }
}

/// The tokens outside test code, and the names of test modules in files.
pub(super) fn without_tests(tokens: &[String]) -> (Vec<String>, Vec<String>) {
    let (mut kept, mut modules) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        let Some((end, of_tests)) = attribute(tokens, at) else {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        };
        if !of_tests {
            kept.extend_from_slice(&tokens[at..end]);
            at = end;
            continue;
        }
        at = end;
        while let Some((end, _)) = attribute(tokens, at) {
            at = end;
        }
        let item = at;
        at = after_item(tokens, item);
        let words = &tokens[item..at];
        if let Some(place) = words.iter().position(|word| word == "mod").filter(|_| words.ends_with(&[";".to_owned()]))
        {
            modules.extend(words.get(place + 1).cloned());
        }
    }
    (kept, modules)
}

/// The end of the outer attribute at `at`, and whether it marks test code; `None` if there is no attribute.
fn attribute(tokens: &[String], at: usize) -> Option<(usize, bool)> {
    if tokens.get(at)? != "#" || tokens.get(at + 1)? != "[" {
        return None;
    }
    let end = after_brackets(tokens, at + 1);
    let words = &tokens[at + 2..end];
    let has = |wanted: &str| words.iter().any(|word| word == wanted);
    Some((end, has("cfg") && has("test") && !has("not")))
}

/// The index after the bracket that closes the one at `at`.
fn after_brackets(tokens: &[String], mut at: usize) -> usize {
    let mut depth = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            break;
        }
    }
    at
}

/// The index after the item at `at`: after its `;` or its block.
fn after_item(tokens: &[String], mut at: usize) -> usize {
    let mut ends_in_semicolon = false;
    while at < tokens.len() {
        match tokens[at].as_str() {
            ";" => return at + 1,
            "use" | "static" | "let" | "type" => ends_in_semicolon = true,
            "const" => ends_in_semicolon = tokens.get(at + 1).is_none_or(|next| next != "fn"),
            "(" | "[" => {
                at = after_brackets(tokens, at);
                continue;
            }
            "{" => {
                at = after_brackets(tokens, at);
                if ends_in_semicolon {
                    continue;
                }
                return at;
            }
            _ => {}
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(text: &str) -> String {
        tokens(text).join(" ")
    }

    #[test]
    fn comments_text_and_numbers_are_no_words() {
        let check = |text: &str, expected: &str| assert_eq!(joined(text), expected, "{text}");
        check("use a::b; // crate::c", "use a :: b ;");
        check("/* x /* y */ crate::z */ fn f() {}", "fn f ( ) { }");
        check(r#"let s = "crate::a \" b"; x"#, "let s = ; x");
        check(r###"let s = r#"a " b"#; y"###, "let s = ; y");
        check(r"let c = '\''; let d = 'x'; fn f<'a>(x: &'a str)", "let c = ; let d = ; fn f < > ( x : & str )");
        check("b\"x\" b'y' 12u8 a1", "a1");
    }

    #[test]
    fn test_code_is_left_out() {
        let check = |text: &str, expected: &str, modules: &[&str]| {
            let (kept, found) = without_tests(&tokens(text));
            assert_eq!((kept.join(" ").as_str(), found.as_slice()), (expected, modules.map_to_strings().as_slice()));
        };
        check("a; #[cfg(test)] mod tests { use crate::x; } b;", "a ; b ;", &[]);
        check("#[cfg(test)] mod tests; b;", "b ;", &["tests"]);
        check("#[cfg(test)] use crate::{a, b}; c;", "c ;", &[]);
        check("#[cfg(test)] #[allow(dead)] pub(crate) fn f(x: [u8; 3]) -> u8 { x[0] } d", "d", &[]);
        check("#[cfg(test)] const X: A = A { b: c }; e", "e", &[]);
        check("#[cfg(not(test))] f", "# [ cfg ( not ( test ) ) ] f", &[]);
    }

    trait ToStrings {
        fn map_to_strings(&self) -> Vec<String>;
    }

    impl ToStrings for [&str] {
        fn map_to_strings(&self) -> Vec<String> {
            self.iter().map(|name| (*name).to_owned()).collect()
        }
    }

    #[test]
    fn a_file_is_a_module_by_its_path() {
        let check = |path: &str, expected: Option<&str>| {
            assert_eq!(module_of(Path::new(path)).map(|module| module.join("::")).as_deref(), expected, "{path}");
        };
        check("lib.rs", Some(""));
        check("a.rs", Some("a"));
        check("a/mod.rs", Some("a"));
        check("a/b.rs", Some("a::b"));
        check("bin/tool.rs", None);
    }
}
