//! The rules of this repository that neither the compiler nor clippy knows. `make tidy` runs only these.
//!
//! Each rule lists everything that breaks it and what to do, so that one run is enough to put it right.

mod code;
mod documents;

use std::path::{Path, PathBuf};

/// Directories that hold what was built, fetched or found, and nothing that anybody wrote.
const NOT_OURS: [&str; 5] = ["target", "node_modules", "artifacts", "corpus-found", "dist"];

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A file of the repository.
struct Source {
    /// From the root, with `/`.
    name: String,
    text: String,
}

/// Every file with one of these endings, in the order of their names.
fn sources(endings: &[&str]) -> Vec<Source> {
    let root = root();
    let mut sources = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                // A build directory of any name is marked by cargo.
                let built = NOT_OURS.contains(&name) || path.join("CACHEDIR.TAG").exists();
                let hidden = name.starts_with('.') && name != ".github";
                if !built && !hidden {
                    directories.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                sources.push(Source { name, text: std::fs::read_to_string(&path).unwrap() });
            }
        }
    }
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    sources
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

/// Fails with everything that breaks a rule.
#[track_caller]
fn check(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}
