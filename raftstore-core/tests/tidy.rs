//! House rules that no compiler checks, over every file of the workspace: length, opening
//! line, import layers, leftovers, and that what docs/hazards.md calls covered has a test.
//!
//! Exceptions are lists in this file; their numbers may only fall.

#![expect(
    clippy::disallowed_methods,
    clippy::panic,
    reason = "the test reads the tree, and says what it found by failing"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Longest file, in lines before its tests.
const LINES_MAX: usize = 600;

/// Files that are longer, with the length they may not exceed. Entries may only shrink.
const LONG_FILES: &[(&str, usize)] = &[];

/// Every hazard, raft fact and rule has a number; these are the last of each letter.
const NUMBERS: &[(char, u32)] = &[('H', 78), ('R', 42), ('W', 16)];

struct Source {
    /// Relative to the workspace, with slashes.
    path: String,
    text: String,
}

impl Source {
    /// Everything before the unit tests at the end of the file.
    fn code(&self) -> &str {
        self.text.find("\n#[cfg(test)]\nmod ").map_or(&self.text, |at| &self.text[..at])
    }

    /// The unit tests at the end, or the whole of a file that is made of tests.
    fn tests(&self) -> &str {
        let is_test = self.path.contains("/tests/")
            || self.path.ends_with("tests.rs")
            || self.path.contains("/conformance/")
            || self.path.starts_with("raftstore-sim/");
        if is_test { &self.text } else { &self.text[self.code().len()..] }
    }

    fn is_code(&self) -> bool {
        self.path.contains("/src/") && !self.path.ends_with("tests.rs") && !self.is_in_tests()
    }

    fn is_in_tests(&self) -> bool {
        self.path.contains("/tests/") || self.path.contains("/fuzz/")
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace")
        .to_path_buf()
}

/// Files with one of these endings, outside of what git ignores, in order of path.
fn files(endings: &[&str]) -> Vec<Source> {
    fn walk(folder: &Path, root: &Path, endings: &[&str], out: &mut Vec<Source>) {
        let mut entries: Vec<_> = fs::read_dir(folder)
            .expect("folder can be read")
            .map(|entry| entry.expect("entry can be read").path())
            .collect();
        entries.sort();
        for path in entries {
            let name = path.file_name().and_then(|name| name.to_str()).expect("names are text");
            if path.is_dir() {
                if !["target", ".git", "raftkv-demo"].contains(&name) {
                    walk(&path, root, endings, out);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let relative = path.strip_prefix(root).expect("below the root");
                let text = fs::read(&path).expect("file can be read");
                out.push(Source {
                    path: relative.to_string_lossy().replace('\\', "/"),
                    text: String::from_utf8_lossy(&text).into_owned(),
                });
            }
        }
    }
    let root = workspace();
    let mut out = Vec::new();
    walk(&root, &root, endings, &mut out);
    assert!(!out.is_empty(), "no files below {}", root.display());
    out
}

/// Fails with every finding, so that one run shows them all.
fn none(findings: Vec<String>) {
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

/// Lines that hold `needle`, as `path:line: text`.
fn lines_with(source: &Source, text: &str, needle: &str) -> Vec<String> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| line.contains(needle))
        .map(|(number, line)| format!("{}:{}: {}", source.path, number + 1, line.trim()))
        .collect()
}

#[test]
fn files_are_short() {
    let mut findings = Vec::new();
    let mut allowed: BTreeMap<&str, usize> = LONG_FILES.iter().copied().collect();
    for source in files(&[".rs"]).iter().filter(|source| source.is_code()) {
        let lines = source.code().lines().count();
        let max = allowed.remove(source.path.as_str()).unwrap_or(LINES_MAX);
        if lines > max {
            findings
                .push(format!("{}: {lines} lines before its tests, {max} allowed", source.path));
        } else if max > LINES_MAX && lines <= LINES_MAX {
            findings.push(format!("{}: short enough now, take it off the list", source.path));
        }
    }
    findings.extend(allowed.keys().map(|path| format!("{path}: listed, but not there")));
    none(findings);
}

#[test]
fn files_say_first_what_they_decide() {
    let sources = files(&[".rs"]);
    let sources = sources.iter().filter(|source| source.path.contains("/src/"));
    none(
        sources
            .filter(|source| !source.text.starts_with("//! "))
            .map(|source| format!("{}: does not open with `//! `", source.path))
            .collect(),
    );
}

#[test]
fn exceptions_from_lints_give_a_reason() {
    let allow = concat!("#", "[allow(");
    let allow_all = concat!("#!", "[allow(");
    let expect = concat!("#", "[expect(");
    let mut findings = Vec::new();
    for source in files(&[".rs"]) {
        findings.extend(lines_with(&source, &source.text, allow));
        findings.extend(lines_with(&source, &source.text, allow_all));
        for (at, _) in source.text.match_indices(expect) {
            let attribute = &source.text[at..];
            let end = attribute.find(")]").unwrap_or(attribute.len());
            if !attribute[..end].contains("reason") {
                let line = source.text[..at].lines().count();
                findings.push(format!("{}:{line}: no reason", source.path));
            }
        }
    }
    none(findings);
}

#[test]
fn nothing_is_left_over() {
    let mut findings = Vec::new();
    for source in files(&[".rs", ".sh", "scripts/test", "scripts/setup"]) {
        for mark in [
            concat!("FIX", "ME"),
            concat!("X", "XX"),
            concat!("HA", "CK"),
            concat!("#[", "ignore"),
            concat!("dbg", "!("),
            concat!("todo", "!("),
            concat!("unimplemented", "!("),
        ] {
            findings.extend(lines_with(&source, &source.text, mark));
        }
        let todo = concat!("TO", "DO");
        findings.extend(
            lines_with(&source, &source.text, todo)
                .into_iter()
                .filter(|line| !line.contains(concat!("TO", "DO(#"))),
        );
    }
    none(findings);
}

#[test]
fn sources_are_ascii_and_name_no_machine() {
    /// Roots of paths that exist on somebody's machine only.
    const ROOTS: &[&str] = &["/home/", "/root/", "/work/", "/Users/", "/farm/"];
    let mut findings = Vec::new();
    for source in files(&[".rs", ".toml", ".md", ".proto", ".txt", ".tsv"]) {
        for (number, line) in source.text.lines().enumerate() {
            let place = || format!("{}:{}: {}", source.path, number + 1, line.trim());
            if !line.is_ascii() {
                findings.push(format!("{} (not ASCII)", place()));
            }
            let named = ROOTS.iter().any(|root| {
                line.match_indices(root).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    before.is_none_or(|before| !before.is_ascii_alphanumeric() && before != '.')
                })
            });
            // This very list is the one place that must spell them.
            if named && !line.contains("const ROOTS") {
                findings.push(format!("{} (a path of one machine)", place()));
            }
        }
    }
    none(findings);
}

#[test]
fn the_repository_stands_alone() {
    let outside = concat!("../", "shared");
    let texts = [
        outside,
        concat!("behaviour", ".md"),
        concat!("scenarios", ".md"),
        concat!("reliability", ".md"),
        concat!("style", ".md"),
        concat!("dependencies", ".md"),
        concat!("performance", ".md"),
    ];
    let mut findings = Vec::new();
    for source in files(&[".rs", ".toml", ".md", ".proto", "scripts/test", "scripts/setup"]) {
        for text in texts {
            findings.extend(lines_with(&source, &source.text, text));
        }
    }
    let checks = fs::read_to_string(workspace().join(".ci/run")).expect(".ci/run can be read");
    let lines = checks.lines().filter(|line| line.contains(outside)).count();
    if lines > 1 {
        findings.push(format!(".ci/run: {lines} lines point outside, one may"));
    }
    none(findings);
}

/// How high a module of the core stands; it may use its own height and what is below.
fn height(module: &str) -> Option<u32> {
    Some(match module {
        "runtime" => 6,
        "store" | "read" => 5,
        "peer" | "apply" => 4,
        "snap" | "split_check" | "consistency" => 3,
        "ready" | "event" | "context" | "command" | "meta" | "metrics" | "store_report"
        | "view" => 2,
        "keys" | "error" | "config" | "time" | "hooks" | "hash" | "sync" | "observe" => 1,
        _ => return None,
    })
}

/// Uses that go up, with the reason why they may. Entries may only go.
const UPWARD: &[(&str, &str)] = &[
    // Plain data: an apply task is one of the effects, its result one of the events.
    ("event", "apply"),
];

/// The modules of the core that a file names after `crate::`, in and out of `use` lists.
fn modules_used(code: &str) -> BTreeSet<String> {
    let word = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|letter| letter.is_ascii_lowercase() || *letter == '_')
            .collect()
    };
    let mut used = BTreeSet::new();
    for (at, found) in code.match_indices("crate::") {
        let line = code[..at].rfind('\n').map_or(0, |start| start + 1);
        if code[line..at].trim_start().starts_with("//") {
            continue;
        }
        let rest = &code[at + found.len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 1;
            let mut item = String::new();
            for letter in list.chars() {
                match letter {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 || (depth == 1 && letter == ',') {
                    used.insert(word(&item));
                    item.clear();
                } else {
                    item.push(letter);
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            used.insert(word(rest));
        }
    }
    used
}

#[test]
fn the_core_imports_downward_only() {
    let prefix = "raftstore-core/src/";
    let mut findings = Vec::new();
    for source in files(&[".rs"]) {
        let Some(inside) = source.path.strip_prefix(prefix) else { continue };
        let module = inside.split(['/', '.']).next().expect("split gives one part at least");
        if module == "lib" || module == "bin" {
            continue;
        }
        let Some(own) = height(module) else {
            findings.push(format!("{}: its layer is not in this test", source.path));
            continue;
        };
        for used in modules_used(source.code()) {
            let Some(other) = height(&used) else { continue };
            let excepted = UPWARD.contains(&(module, used.as_str()));
            if other > own && !excepted {
                findings.push(format!("{}: uses {used}, which is above it", source.path));
            }
            if module == "apply" && (used == "peer" || used == "store") {
                findings.push(format!("{}: apply must not know {used}", source.path));
            }
        }
    }
    none(findings);
}

#[test]
fn modules_used_reads_lists_and_paths() {
    let code = "use crate::{\n    Effects, keys,\n    snap::{self, Build},\n};\n\
                fn f() { crate::peer::g() }\n// crate::store is only mentioned\n";
    let used = modules_used(code);
    let used: Vec<&str> = used.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    assert_eq!(used, ["keys", "peer", "snap"]);
}

#[test]
fn threads_files_and_clocks_live_in_the_runtime() {
    let mut findings = Vec::new();
    for source in files(&[".rs"]) {
        let Some(inside) = source.path.strip_prefix("raftstore-core/src/") else { continue };
        if inside.starts_with("runtime/") {
            continue;
        }
        let shared_by_threads = inside == "meta.rs" || inside == "view.rs";
        if modules_used(source.code()).contains("sync") && !shared_by_threads {
            findings.push(format!("{}: uses locks, which two files may", source.path));
        }
        for mark in ["std::thread", "std::fs", "std::net", "crossbeam_channel", "std::sync::mpsc"] {
            findings.extend(lines_with(&source, source.code(), mark));
        }
        if inside != "sync.rs" {
            findings.extend(lines_with(&source, source.code(), "parking_lot"));
        }
    }
    none(findings);
}

/// What docs/hazards.md says of one number.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Standing {
    /// A test names the number.
    Covered,
    /// These tests and planted bugs guard it.
    By(Vec<String>),
    Impossible,
    Later,
    Untested,
}

/// Numbers whose code is written and whose test is not.
const UNTESTED_MAX: usize = 0;

fn hazards() -> BTreeMap<String, Standing> {
    let text = fs::read_to_string(workspace().join("docs/hazards.md")).expect("docs/hazards.md");
    let mut out = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let numbered = cells[0].chars().nth(1).is_some_and(|digit| digit.is_ascii_digit());
        if !numbered {
            continue;
        }
        assert_eq!(cells.len(), 3, "three cells: number, hazard, standing: {line}");
        let standing = if cells[2] == "covered" {
            Standing::Covered
        } else if let Some(names) = cells[2].strip_prefix("covered: ") {
            let names: Vec<_> = names.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            assert!(!names.is_empty(), "{}: no name in backticks", cells[0]);
            Standing::By(names)
        } else if cells[2].starts_with("cannot occur: ") {
            Standing::Impossible
        } else if cells[2].starts_with("comes with: ") {
            Standing::Later
        } else if cells[2].starts_with("untested: ") {
            Standing::Untested
        } else {
            panic!("{}: no standing of the four: {}", cells[0], cells[2]);
        };
        let before = out.insert(cells[0].to_owned(), standing);
        assert!(before.is_none(), "{} is there twice", cells[0]);
    }
    out
}

/// Numbers that a text names: `H17` anywhere, `h17` in the name of a function only, since
/// short variables look the same. A range such as H9-H12 names its ends only.
fn numbers_in(text: &str) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for line in text.lines() {
        let in_name = line.trim_start().starts_with("fn ");
        for word in line.split(|letter: char| !letter.is_ascii_alphanumeric()) {
            let mut letters = word.chars();
            let Some(first) = letters.next() else { continue };
            let digits = letters.as_str();
            let letter = first.to_ascii_uppercase();
            let known = NUMBERS.iter().any(|(known, _)| *known == letter);
            let is_number = !digits.is_empty() && digits.chars().all(|d| d.is_ascii_digit());
            if known && is_number && (in_name || first == letter) {
                out.insert(format!("{letter}{digits}"));
            }
        }
    }
    out
}

#[test]
fn numbers_are_found_in_names_and_comments() {
    let text = "// H17: the range waits\nfn w4_numbers_count_up() {}\nlet r2 = 1; // not X9\n";
    let found: Vec<_> = numbers_in(text).into_iter().collect();
    assert_eq!(found, ["H17", "W4"]);
}

#[test]
fn every_hazard_has_a_line() {
    let listed = hazards();
    let mut findings = Vec::new();
    let mut expected = BTreeSet::new();
    for (letter, last) in NUMBERS {
        expected.extend((1..=*last).map(|number| format!("{letter}{number}")));
    }
    findings.extend(
        expected
            .iter()
            .filter(|number| !listed.contains_key(*number))
            .map(|n| format!("{n}: no line")),
    );
    findings.extend(
        listed.keys().filter(|number| !expected.contains(*number)).map(|n| format!("{n}: unknown")),
    );
    none(findings);
}

#[test]
fn untested_hazards_become_fewer() {
    let listed = hazards();
    let untested: Vec<&String> = listed
        .iter()
        .filter(|(_, standing)| **standing == Standing::Untested)
        .map(|(number, _)| number)
        .collect();
    assert!(
        untested.len() == UNTESTED_MAX,
        "{} untested, the constant says {UNTESTED_MAX}: {untested:?}",
        untested.len()
    );
}

#[test]
fn every_covered_hazard_is_named_by_a_test() {
    let sources = files(&[".rs"]);
    let sources = sources.iter().filter(|source| !source.path.ends_with("tests/tidy.rs"));
    let mut named = BTreeSet::new();
    let mut tests = String::new();
    for source in sources {
        named.extend(numbers_in(source.tests()));
        tests += source.tests();
    }
    // A planted bug is listed as text, a test is a function.
    let exists = |name: &String| {
        let is_bug = name.contains('-');
        let form = if is_bug { format!("\"{name}\"") } else { format!("fn {name}()") };
        tests.contains(&form)
    };
    let mut findings = Vec::new();
    for (number, standing) in hazards() {
        match standing {
            Standing::Covered if !named.contains(&number) => {
                findings.push(format!("{number}: called covered, but no test names it"));
            }
            Standing::By(names) => findings.extend(
                names
                    .iter()
                    .filter(|name| !exists(name))
                    .map(|name| format!("{number}: there is no test or planted bug {name}")),
            ),
            Standing::Covered | Standing::Impossible | Standing::Later | Standing::Untested => {}
        }
    }
    none(findings);
}
