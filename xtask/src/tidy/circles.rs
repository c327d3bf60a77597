//! Modules of a crate that import each other in circles.
//!
//! The modules of one folder are compared: the files and folders of `src`, and below them the files of each folder. A
//! folder is one module with all its files. Imports between a child and the `mod.rs` of its folder make no circle. A
//! name that `lib.rs` or a `mod.rs` re-exports is imported from where it is defined. Test code and comments do not
//! count.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::source::SourceFile;

/// A path of modules or items, from the root of the crate.
type Name = Vec<String>;

/// For each module of one folder, the siblings that it imports.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// Modules of one folder that import each other, directly or through others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Circle {
    /// All of them, as paths from the root of the crate, in alphabetical order.
    pub(super) modules: Vec<String>,
    /// A shortest circle among them: `a -> b -> a`.
    pub(super) shown: String,
}

/// The names that the files of a crate define, declare and import.
struct Crate<'a> {
    files: BTreeMap<&'a [String], FileNames>,
}

/// The names of one file.
#[derive(Default)]
struct FileNames {
    /// Imports by `use`, under their local names.
    uses: BTreeMap<String, Name>,
    /// Glob imports.
    globs: Vec<Name>,
    /// All paths in it that start with `crate`, `self`, `super` or a child.
    paths: BTreeSet<Name>,
    /// The names that it defines.
    defines: BTreeSet<String>,
}

/// The circles among the modules of a crate, in order of their names.
pub(super) fn circles(files: &[SourceFile]) -> Vec<Circle> {
    let mut found: Vec<Circle> = graphs(files).iter().flat_map(|(folder, graph)| circles_of(folder, graph)).collect();
    found.sort_by(|a, b| a.modules.cmp(&b.modules));
    found
}

/// For each folder with modules, their imports of each other.
fn graphs(files: &[SourceFile]) -> BTreeMap<Name, Graph> {
    let modules: BTreeSet<&[String]> = files.iter().map(|file| file.module.as_slice()).collect();
    let names = |file: &SourceFile| {
        let is_child = |name: &str| modules.contains(&*[file.module.as_slice(), &[name.to_owned()]].concat());
        FileNames::read(&file.module, &file.tokens, &is_child)
    };
    let known = Crate { files: files.iter().map(|file| (file.module.as_slice(), names(file))).collect() };
    let mut graphs: BTreeMap<Name, Graph> = BTreeMap::new();
    for (module, names) in &known.files {
        for path in &names.paths {
            let target = known.defining_module(path, 0);
            let common = module.iter().zip(&target).take_while(|(a, b)| a == b).count();
            if let (Some(from), Some(to)) = (module.get(common), target.get(common)) {
                let graph = graphs.entry(module[..common].to_vec()).or_default();
                graph.entry(from.clone()).or_default().insert(to.clone());
            }
        }
    }
    graphs
}

impl Crate<'_> {
    /// The module that defines the item at `path`, following re-exports.
    fn defining_module(&self, path: &[String], depth: usize) -> Name {
        let length = (0..=path.len()).rev().find(|&length| self.files.contains_key(&path[..length])).unwrap_or(0);
        let module = &path[..length];
        let (Some(name), true) = (path.get(length), depth < 16) else { return module.to_vec() };
        let Some(names) = self.files.get(module) else { return module.to_vec() };
        if let Some(target) = names.uses.get(name) {
            return self.defining_module(&[target.as_slice(), &path[length + 1..]].concat(), depth + 1);
        }
        if !names.defines.contains(name) {
            let through = names.globs.iter().map(|glob| [glob.as_slice(), &path[length..]].concat());
            for path in through {
                let target = self.defining_module(&path, depth + 1);
                if self.files.get(target.as_slice()).is_some_and(|names| names.defines.contains(name)) {
                    return target;
                }
            }
        }
        module.to_vec()
    }
}

impl FileNames {
    fn read(module: &[String], tokens: &[String], is_child: &dyn Fn(&str) -> bool) -> Self {
        let mut names = Self::default();
        let mut at = 0;
        while at < tokens.len() {
            let word = tokens[at].as_str();
            let before = at.checked_sub(1).map(|before| tokens[before].as_str());
            if ["fn", "struct", "enum", "trait", "type", "const", "static", "union"].contains(&word) {
                names.defines.extend(tokens.get(at + 1).cloned());
            }
            let begins = tokens.get(at + 1).is_some_and(|next| next == "::") && before != Some("::");
            let rooted = ["crate", "self", "super"].contains(&word) && before != Some("in");
            if word == "use" && tokens.get(at + 1).is_some_and(|next| next != "<") {
                let mut leaves = Vec::new();
                at = use_tree(tokens, at + 1, &[], &mut leaves);
                leaves.into_iter().for_each(|(path, name)| names.add_use(module, path, name, is_child));
                continue;
            }
            if begins && (rooted || is_child(word)) {
                let mut path = vec![word.to_owned()];
                while tokens.get(at + 1).is_some_and(|next| next == "::")
                    && tokens.get(at + 2).is_some_and(|next| is_name(next))
                {
                    path.push(tokens[at + 2].clone());
                    at += 2;
                }
                names.paths.extend(absolute(module, &path, is_child));
            }
            at += 1;
        }
        names
    }

    fn add_use(&mut self, module: &[String], path: Name, name: String, is_child: &dyn Fn(&str) -> bool) {
        let Some(path) = absolute(module, &path, is_child) else { return };
        self.paths.insert(path.clone());
        if name == "*" {
            self.globs.push(path);
        } else {
            self.uses.insert(name, path);
        }
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|sign: char| sign.is_alphabetic() || sign == '_')
}

/// Parses a `use` tree at `at`, adds each of its leaves with its local name (`*` for globs), and returns the end of the
/// tree.
fn use_tree(tokens: &[String], mut at: usize, prefix: &[String], leaves: &mut Vec<(Name, String)>) -> usize {
    let mut path = prefix.to_vec();
    while let Some(token) = tokens.get(at) {
        match token.as_str() {
            "::" => at += 1,
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    at = use_tree(tokens, at, &path, leaves);
                    if tokens.get(at).is_some_and(|token| token == ",") {
                        at += 1;
                    }
                }
                return at + 1;
            }
            "*" => {
                leaves.push((path, "*".to_owned()));
                return at + 1;
            }
            "as" => {
                let name = tokens.get(at + 1).cloned().unwrap_or_default();
                leaves.push((path, name));
                return at + 2;
            }
            "self" if path.len() > prefix.len() || !prefix.is_empty() => at += 1,
            token if is_name(token) => {
                path.push(token.to_owned());
                at += 1;
            }
            _ => break,
        }
    }
    let name = path.last().cloned().unwrap_or_default();
    leaves.push((path, name));
    at
}

/// A path from the root of the crate; `None` for a path outside the crate.
fn absolute(module: &[String], path: &[String], is_child: &dyn Fn(&str) -> bool) -> Option<Name> {
    let first = path.first()?;
    let (mut base, mut rest) = match first.as_str() {
        "crate" => (Vec::new(), &path[1..]),
        "self" => (module.to_vec(), &path[1..]),
        "super" => (module.to_vec(), path),
        name if is_child(name) => (module.to_vec(), path),
        _ => return None,
    };
    while let [first, tail @ ..] = rest
        && first == "super"
    {
        base.pop();
        rest = tail;
    }
    Some([base, rest.to_vec()].concat())
}

/// The circles in the graph of one folder.
fn circles_of(folder: &[String], graph: &Graph) -> Vec<Circle> {
    let reachable: BTreeMap<&String, BTreeSet<&String>> =
        graph.keys().map(|module| (module, reached_from(graph, module))).collect();
    let mut placed = BTreeSet::new();
    let mut found = Vec::new();
    for (module, reached) in &reachable {
        if placed.contains(module) || !reached.contains(module) {
            continue;
        }
        let back = |other: &&&String| reachable.get(*other).is_some_and(|reached| reached.contains(module));
        let modules: Vec<&String> = reached.iter().filter(back).copied().collect();
        placed.extend(modules.iter().copied());
        let full = |name: &String| [folder, std::slice::from_ref(name)].concat().join("::");
        let shown = shortest_circle(graph, &modules).into_iter().map(full).collect::<Vec<_>>().join(" -> ");
        found.push(Circle { modules: modules.into_iter().map(full).collect(), shown });
    }
    found
}

/// The modules that `module` imports, directly or through others.
fn reached_from<'a>(graph: &'a Graph, module: &String) -> BTreeSet<&'a String> {
    let mut reached = BTreeSet::new();
    let mut waiting: Vec<&String> = graph.get(module).into_iter().flatten().collect();
    while let Some(next) = waiting.pop() {
        if reached.insert(next) {
            waiting.extend(graph.get(next).into_iter().flatten());
        }
    }
    reached
}

/// The shortest circle among modules that all reach each other, ending with its first module.
fn shortest_circle<'a>(graph: &'a Graph, modules: &[&'a String]) -> Vec<&'a String> {
    let from = |start: &'a String| {
        let mut before: BTreeMap<&String, &String> = BTreeMap::new();
        let mut waiting = VecDeque::from([start]);
        while let Some(module) = waiting.pop_front() {
            for next in graph.get(module).into_iter().flatten() {
                if next == start {
                    let mut circle = vec![start, module];
                    while circle[circle.len() - 1] != start {
                        circle.push(before[circle[circle.len() - 1]]);
                    }
                    circle.reverse();
                    return circle;
                }
                if !before.contains_key(next) {
                    before.insert(next, module);
                    waiting.push_back(next);
                }
            }
        }
        Vec::new()
    };
    modules.iter().map(|module| from(module)).min_by_key(Vec::len).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::source::{tokens, without_tests};
    use super::*;

    /// The circles of a crate of these files: module and text.
    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let file = |(module, text): &(&str, &str)| SourceFile {
            module: module.split("::").filter(|part| !part.is_empty()).map(String::from).collect(),
            tokens: without_tests(&tokens(text)).0,
        };
        circles(&files.iter().map(file).collect::<Vec<_>>()).into_iter().map(|circle| circle.shown).collect()
    }

    #[test]
    fn imports_that_run_down_are_no_circle() {
        let files = [
            ("", "mod a; mod b; mod c; pub use a::A;"),
            ("a", "use crate::b::{self, B}; use crate::c::*; fn f() { crate::c::g() }"),
            ("b", "use super::c::C;"),
            ("c", "//! See [`A`](crate::A).\n#[cfg(test)] mod tests { use crate::a::A; }"),
        ];
        assert_eq!(found(&files), [""; 0]);
    }

    #[test]
    fn circles_are_named_by_the_shortest_way_around() {
        let files = [
            ("", "mod a; mod b; mod c;"),
            ("a", "use crate::{b, std::x};"),
            ("b", "fn f() -> crate::c::C { }"),
            ("c", "use super::{a::A, b as d};"),
        ];
        assert_eq!(found(&files), ["b -> c -> b"]);
    }

    #[test]
    fn a_re_export_is_imported_from_where_it_is_defined() {
        let root = "mod a; mod b; pub use b::B; pub use self::a::{A as Renamed};";
        assert_eq!(found(&[("", root), ("a", "use crate::B;"), ("b", "use crate::Renamed;")]), ["a -> b -> a"]);
        assert_eq!(found(&[("", root), ("a", "use crate::B;"), ("b", "use crate::Other;")]), [""; 0]);
        let glob = "mod a; mod b; pub use a::*;";
        let files = [("", glob), ("a", "use crate::b::B; pub struct A;"), ("b", "use crate::A;")];
        assert_eq!(found(&files), ["a -> b -> a"]);
    }

    #[test]
    fn a_child_and_its_parent_make_no_circle_and_siblings_do() {
        let parent = "mod x; mod y; pub use x::X; use y::Y; struct P;";
        let files = [("", "mod a;"), ("a", parent), ("a::x", "use super::P;"), ("a::y", "use super::{P, X};")];
        assert_eq!(found(&files), [""; 0]);
        let files = [("", "mod a;"), ("a", parent), ("a::x", "use crate::a::Y;"), ("a::y", "use super::X;")];
        assert_eq!(found(&files), ["a::x -> a::y -> a::x"]);
    }

    #[test]
    fn a_folder_is_one_module_with_all_its_files() {
        let files = [
            ("", "mod a; mod b;"),
            ("a", "mod x; mod y;"),
            ("a::x", "use crate::b::B;"),
            ("a::y", ""),
            ("b", "use crate::a::y::Y;"),
        ];
        assert_eq!(found(&files), ["a -> b -> a"]);
    }
}
