//! Finding marks in the sources.

use std::path::Path;

/// Where a mark stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Beside code.
    Code,
    /// Beside a test.
    Test,
}

/// One section named by a mark.
#[derive(Debug)]
pub(crate) struct Mark {
    pub(crate) rfc: u32,
    pub(crate) section: String,
    pub(crate) place: Place,
    /// File and the function or type, in Markdown.
    pub(crate) at: String,
}

/// Folders with our sources.
const FOLDERS: [&str; 4] = ["daemon", "plugins", "swanctl-compat", "integration"];
/// What a mark begins with.
const SIGN: &str = "//= RFC ";

/// All marks of the workspace, in the order of files and lines.
pub(crate) fn all(root: &Path) -> Vec<Mark> {
    let mut files = Vec::new();
    FOLDERS.iter().for_each(|folder| collect(&root.join(folder), &mut files));
    files.sort();
    let mut marks = Vec::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        // This program speaks of marks without being one.
        if !name.contains("tests/conformance") {
            read(&name, &std::fs::read_to_string(&file).unwrap(), &mut marks);
        }
    }
    marks
}

fn collect(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn read(file: &str, text: &str, marks: &mut Vec<Mark>) {
    // The conformance kit of backends is a test, wherever it lives.
    let test_folder = ["/tests/", "/conformance/"].iter().any(|folder| file.contains(folder));
    let test_file = test_folder || file.ends_with("tests.rs") || file.starts_with("integration/");
    let lines: Vec<&str> = text.lines().collect();
    let tests_from = lines.iter().position(|line| line.starts_with("#[cfg(test)]")).unwrap_or(lines.len());
    for (at, line) in lines.iter().enumerate() {
        let Some(rest) = line.trim_start().strip_prefix(SIGN) else { continue };
        let in_tests = test_file || at > tests_from;
        let place = if in_tests { Place::Test } else { Place::Code };
        let name = function(&lines, at).unwrap_or_default();
        let file = short(file);
        let at = if name.is_empty() { format!("`{file}`") } else { format!("`{file}` {name}") };
        for (rfc, section) in named(rest) {
            marks.push(Mark { rfc, section, place, at: at.clone() });
        }
    }
}

/// The path without what all have in common.
fn short(file: &str) -> String {
    let file = file.replace("/src/", "/").replace("integration/scenarios/tests/scenarios/", "scenarios/");
    let file = file.replace("integration/interop/tests/interop/", "interop/");
    file.trim_start_matches("daemon/").to_owned()
}

/// Sections named before the colon: `7296 §2.8.1, §2.8.2, RFC 4555 §3.5: text`.
fn named(rest: &str) -> Vec<(u32, String)> {
    let names = rest.split(": ").next().unwrap_or(rest);
    let (mut rfc, mut found) = (0, Vec::new());
    for word in names.split([' ', ',']).filter(|word| !word.is_empty() && *word != "RFC") {
        match word.strip_prefix('§') {
            Some(section) => found.push((rfc, section.trim_end_matches([':', '.']).to_owned())),
            None => rfc = word.parse().unwrap_or(rfc),
        }
    }
    found
}

/// The function or type that a mark stands in front of, or else in.
fn function(lines: &[&str], at: usize) -> Option<String> {
    let attached = |line: &&&str| {
        let line = line.trim_start();
        line.starts_with("//") || line.starts_with("#[")
    };
    let next = lines[at + 1..].iter().find(|line| !attached(line)).and_then(|line| declared(line));
    next.or_else(|| lines[..at].iter().rev().find_map(|line| declared(line)))
}

fn declared(line: &str) -> Option<String> {
    let line = line.trim_start();
    let words = ["pub ", "pub(crate) ", "pub(super) ", "const ", "async ", "unsafe "];
    let mut rest = line;
    while let Some(stripped) = words.iter().find_map(|word| rest.strip_prefix(word)) {
        rest = stripped;
    }
    let name = ["fn ", "struct ", "enum "].iter().find_map(|kind| rest.strip_prefix(kind))?;
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    Some(name[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_before_the_colon() {
        let all = named("7296 §2.25.1, §2.25.2, RFC 4555 §3.5: not §9");
        let shown: Vec<_> = all.iter().map(|(rfc, section)| format!("{rfc} {section}")).collect();
        assert_eq!(shown, ["7296 2.25.1", "7296 2.25.2", "4555 3.5"]);
    }

    #[test]
    fn the_function_is_the_next_or_the_enclosing_one() {
        let text = "fn outer() {\n    //= RFC 1 §2: inside\n    go();\n}\n\n//= RFC 1 §3: before\n#[test]\nfn inner() {}\n\n#[cfg(test)]\nmod tests {\n    //= RFC 1 §4: test\n    fn check() {}\n}\n";
        let mut marks = Vec::new();
        read("daemon/x/src/y.rs", text, &mut marks);
        let shown: Vec<_> = marks.iter().map(|mark| format!("{} {} {:?}", mark.section, mark.at, mark.place)).collect();
        assert_eq!(shown, ["2 `x/y.rs` outer Code", "3 `x/y.rs` inner Code", "4 `x/y.rs` check Test"]);
    }
}
