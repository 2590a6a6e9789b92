//! The structure of `src`: no import points to a higher layer, and no files import each other in a
//! circle.
//!
//! An import is a path to an item of another file, in a `use` declaration or inline. Two things are
//! not:
//! * `mod x;` and `pub use x::Item;` in the file that declares `x`: they say where an item is
//!   found. A path through such a re-export is an import of the file that defines the item.
//! * whatever is compiled for tests only (`#[cfg(test)]`).
//!
//! A file of a folder may use what the folder's own file (`x.rs` or `x/mod.rs` of `x/`) defines, or
//! be used by it, but not both: parents are files like all others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// From the top to the bottom. A file imports from its own layer and the layers below it.
const LAYERS: [&[&str]; 5] = [
    &["bin"],
    &["cli", "hook", "kubernetes", "watcher"],
    &["cdi", "command_line", "exit", "usbip"],
    &["host"],
    &["model", "sys"],
];

/// The layer whose modules import nothing from each other: each stands alone.
const LOWEST: usize = LAYERS.len() - 1;

/// The path of a module below the crate; empty for the crate itself.
type Module = Vec<String>;

/// What one file of `src` says.
#[derive(Default)]
struct SourceFile {
    /// The paths of what it imports.
    imports: BTreeSet<Module>,
    /// What it re-exports: the item's path here and the path that it stands for.
    reexports: Vec<(Module, Module)>,
    /// Modules that are compiled for tests only.
    test_modules: Vec<Module>,
}

#[test]
fn no_import_points_to_a_higher_layer() {
    let mut faults = Vec::new();
    for (file, imported) in imports() {
        for other in imported {
            let (Some(from), Some(to)) = (layer(&file), layer(&other)) else {
                continue;
            };
            let is_allowed = if from == LOWEST {
                file[0] == other[0]
            } else {
                from <= to
            };
            if !is_allowed {
                faults.push(format!("{} imports {}", file.join("::"), other.join("::")));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let imports = imports();
    let mut circles = Vec::new();
    let mut seen = BTreeSet::new();
    for file in imports.keys() {
        if seen.contains(file) {
            continue;
        }
        let mut circle = reachable(&imports, file);
        circle.retain(|other| reachable(&imports, other).contains(file));
        seen.extend(circle.iter().copied());
        if !circle.is_empty() {
            circles.push(circle);
        }
    }
    let edges: Vec<String> = circles
        .iter()
        .flat_map(|circle| circle.iter().map(move |file| (circle, *file)))
        .map(|(circle, file)| {
            let inside = imports[file].iter().filter(|other| circle.contains(other));
            format!(
                "{} imports {}",
                file.join("::"),
                inside
                    .map(|other| other.join("::"))
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        })
        .collect();
    assert!(circles.is_empty(), "{edges:#?}");
}

/// Each file with the files that it imports from.
fn imports() -> BTreeMap<Module, BTreeSet<Module>> {
    let mut files = BTreeMap::new();
    read_folder(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &[],
        &mut files,
    );
    let test_modules: Vec<Module> = files
        .values()
        .flat_map(|file| file.test_modules.clone())
        .collect();
    files.retain(|module, _| !test_modules.iter().any(|test| module.starts_with(test)));
    assert!(files.len() > 100, "{} files", files.len());
    let resolve_all = |(module, file): (&Module, &SourceFile)| {
        let resolved = file.imports.iter().map(|path| defining_file(&files, path));
        let others = resolved.filter(|other| other != module && !other.is_empty());
        (module.clone(), others.collect())
    };
    files.iter().map(resolve_all).collect()
}

/// The file that defines the item of this path, behind re-exports.
fn defining_file(files: &BTreeMap<Module, SourceFile>, path: &[String]) -> Module {
    let is_file = |length: &usize| files.contains_key(&path[..*length]);
    let length = (0..=path.len()).rev().find(is_file).unwrap_or(0);
    let module = &path[..length];
    let reexport = files[module]
        .reexports
        .iter()
        .find(|(name, _)| path.starts_with(name));
    match reexport {
        Some((name, target)) => defining_file(files, &[target, &path[name.len()..]].concat()),
        None => module.to_vec(),
    }
}

fn reachable<'a>(imports: &'a BTreeMap<Module, BTreeSet<Module>>, file: &Module) -> BTreeSet<&'a Module> {
    let mut found = BTreeSet::new();
    let mut next: Vec<&Module> = imports[file].iter().collect();
    while let Some(file) = next.pop() {
        if found.insert(file) {
            next.extend(&imports[file]);
        }
    }
    found
}

fn layer(module: &[String]) -> Option<usize> {
    let top = module.first()?;
    let position = LAYERS.iter().position(|layer| layer.contains(&top.as_str()));
    assert!(position.is_some(), "{top} is not in the list of layers");
    position
}

fn read_folder(folder: &Path, module: &[String], files: &mut BTreeMap<Module, SourceFile>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let inner = [module, std::slice::from_ref(&stem)].concat();
        if path.is_dir() {
            read_folder(&path, &inner, files);
            continue;
        }
        let is_folders_own = ["mod", "lib"].contains(&stem.as_str());
        let module = if is_folders_own { module.to_vec() } else { inner };
        let text = fs::read_to_string(&path).unwrap();
        files.insert(module.clone(), Reader::new(&module, &text).read());
    }
}

/// Goes through the tokens of one file.
struct Reader {
    tokens: Vec<String>,
    position: usize,
    /// The module at the position: that of the file, or one with its body in it.
    module: Module,
    /// The depth of braces at the position, and the one at which each module with its body here
    /// begins.
    depth: usize,
    bodies: Vec<usize>,
    /// The names that `mod` and `use` declare, and what they stand for.
    names: BTreeMap<String, Module>,
    file: SourceFile,
}

impl Reader {
    fn new(module: &[String], text: &str) -> Self {
        let tokens = tokens(text);
        let mut names = BTreeMap::new();
        for declaration in tokens.windows(3) {
            if declaration[0] == "mod" && [";", "{"].contains(&declaration[2].as_str()) {
                let name = &declaration[1];
                names.insert(name.clone(), [module, std::slice::from_ref(name)].concat());
            }
        }
        names.insert("oci_hotplug".to_owned(), Vec::new());
        Self {
            tokens,
            position: 0,
            module: module.to_vec(),
            depth: 0,
            bodies: Vec::new(),
            names,
            file: SourceFile::default(),
        }
    }

    fn read(mut self) -> SourceFile {
        let is_for_tests = |tokens: &[String]| tokens == ["#", "[", "cfg", "(", "test", ")", "]"];
        while self.position < self.tokens.len() {
            if self.tokens[self.position..].get(..7).is_some_and(is_for_tests) {
                self.position += 7;
                self.skip_item();
                continue;
            }
            match self.token(0) {
                // The path of a visibility is not an import.
                "pub" if self.token(1) == "(" => {
                    let rest = &self.tokens[self.position..];
                    self.position += rest.iter().position(|token| token == ")").unwrap_or(rest.len());
                }
                "use" => self.read_use(),
                "mod" if self.token(2) == "{" => {
                    self.bodies.push(self.depth);
                    self.module.push(self.token(1).to_owned());
                    self.position += 2;
                }
                "{" => {
                    self.depth += 1;
                    self.position += 1;
                }
                "}" => {
                    self.depth -= 1;
                    self.position += 1;
                    if self.bodies.last() == Some(&self.depth) {
                        self.bodies.pop();
                        self.module.pop();
                    }
                }
                _ => self.read_path(),
            }
        }
        self.file
    }

    /// The token so far behind the position; empty behind the end.
    fn token(&self, offset: usize) -> &str {
        self.tokens.get(self.position + offset).map_or("", |token| token)
    }

    /// Passes over an item, a field or a statement.
    fn skip_item(&mut self) {
        let mut depth = 0;
        while self.position < self.tokens.len() {
            let token = self.token(0);
            if token == "mod" && depth == 0 {
                let name = self.token(1).to_owned();
                self.file.test_modules.push([&self.module[..], &[name]].concat());
            }
            match self.token(0) {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth -= 1,
                _ => {}
            }
            let ends = depth == 0 && [";", ",", "}"].contains(&self.token(0));
            self.position += 1;
            if ends {
                return;
            }
        }
    }

    /// A `use` declaration: its leaves are imports or re-exports, and names.
    fn read_use(&mut self) {
        let before = self
            .position
            .checked_sub(1)
            .map(|index| self.tokens[index].as_str());
        let is_public = matches!(before, Some("pub" | ")"));
        self.position += 1;
        let mut leaves = Vec::new();
        self.read_tree(&[], &mut leaves);
        for (path, name) in leaves {
            let Some(path) = self.resolve(&path) else { continue };
            let is_declared_here = path.starts_with(&self.module);
            if is_public {
                let here = [&self.module[..], std::slice::from_ref(&name)].concat();
                self.file.reexports.push((here, path.clone()));
            }
            if !(is_public && is_declared_here) {
                self.file.imports.insert(path.clone());
            }
            self.names.insert(name, path);
        }
    }

    /// A branch of a `use` declaration: its paths, each with the name that it gets here.
    fn read_tree(&mut self, prefix: &[String], leaves: &mut Vec<(Module, String)>) {
        let mut path = prefix.to_vec();
        loop {
            match self.token(0).to_owned().as_str() {
                "::" => self.position += 1,
                "{" => {
                    while !["}", ""].contains(&self.token(0)) {
                        self.position += 1;
                        if !["}", ""].contains(&self.token(0)) {
                            self.read_tree(&path, leaves);
                        }
                    }
                    self.position += 1;
                    return;
                }
                "as" => {
                    leaves.push((path, self.token(1).to_owned()));
                    self.position += 2;
                    return;
                }
                "," | "}" | ";" | "" => {
                    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
                        path.pop();
                    }
                    let name = path.last().cloned().unwrap_or_default();
                    leaves.push((path, name));
                    return;
                }
                segment => {
                    path.push(segment.to_owned());
                    self.position += 1;
                }
            }
        }
    }

    /// A path outside a `use` declaration, or any other token.
    fn read_path(&mut self) {
        let mut path = vec![self.token(0).to_owned()];
        self.position += 1;
        while self.token(0) == "::" && is_word(self.token(1)) {
            path.push(self.token(1).to_owned());
            self.position += 2;
        }
        if path.len() > 1 && is_word(&path[0]) {
            self.file.imports.extend(self.resolve(&path));
        }
    }

    /// The path from the crate on; `None` when it leads to another crate, or does not begin with a
    /// module.
    fn resolve(&self, path: &[String]) -> Option<Module> {
        let above = path.iter().take_while(|segment| *segment == "super").count();
        let (start, rest) = match path[0].as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (self.module.clone(), &path[1..]),
            "super" => (self.module[..self.module.len() - above].to_vec(), &path[above..]),
            name => (self.names.get(name)?.clone(), &path[1..]),
        };
        Some([&start[..], rest].concat())
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// The tokens of Rust source, without comments and literals. `::` is one token.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_in_word = |character: char| character.is_alphanumeric() || character == '_';
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(length) = literal_length(rest) {
            length
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else if is_in_word(first) {
            let end = rest
                .find(|character| !is_in_word(character))
                .unwrap_or(rest.len());
            tokens.push(rest[..end].to_owned());
            end
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

/// The length of the literal text or character that the source begins with.
fn literal_length(source: &str) -> Option<usize> {
    let raw = source.strip_prefix('b').unwrap_or(source);
    if let Some(raw) = raw.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if let Some(content) = raw[hashes..].strip_prefix('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let content_length = content.find(&end)? + end.len();
            return Some(source.len() - content.len() + content_length);
        }
    }
    let content = raw.strip_prefix(['"', '\''])?;
    let quote = &raw[..1];
    let mut escaped = false;
    for (index, character) in content.char_indices() {
        if escaped {
            escaped = false;
        } else if character == '\\' {
            escaped = true;
        } else if content[index..].starts_with(quote) {
            return Some(source.len() - content.len() + index + 1);
        } else if quote == "'" && index > 0 && !content.starts_with('\\') {
            // More than one character: a lifetime.
            return None;
        }
    }
    None
}

#[test]
fn imports_are_read_from_source() {
    let source = r##"
        use crate::a::{self, b::{C as D, E}};
        use super::f;
        pub use inner::G;
        mod inner;
        fn h<'a>(_: &'a str) -> char { f::i(); std::mem::drop(1); crate::j::K; "crate::l::M"; '"' } // crate::n::O
        mod body { fn p() { super::q::R; } }
        #[cfg(test)]
        mod tests { use crate::s::T; }
        #[cfg(test)]
        mod more_tests;
        fn u() { crate::v::W; }
    "##;
    let module = ["x", "y"].map(str::to_owned);
    let file = Reader::new(&module, source).read();
    let imports: Vec<String> = file.imports.iter().map(|path| path.join("::")).collect();
    let expected = [
        "a",
        "a::b::C",
        "a::b::E",
        "j::K",
        "v::W",
        "x::f",
        "x::f::i",
        "x::y::q::R",
    ];
    assert_eq!(imports, expected);
    let path = |text: &str| text.split("::").map(str::to_owned).collect::<Module>();
    assert_eq!(file.reexports, [(path("x::y::G"), path("x::y::inner::G"))]);
    assert_eq!(file.test_modules, [path("x::y::tests"), path("x::y::more_tests")]);
}
