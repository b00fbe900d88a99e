//! The guide shows all of the engine, as it is, and says how long it is.

const GUIDE: &str = include_str!("../../../docs/write-an-engine.md");
const ENGINE: &str = include_str!("../src/lib.rs");
const FIXTURE: &str = include_str!("conformance.rs");

/// Lines of the guide's blocks of Rust that say something.
fn shown() -> Vec<&'static str> {
    let blocks = GUIDE.split("```rust\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    blocks.flat_map(str::lines).filter(|line| !line.is_empty()).collect()
}

#[test]
fn guide_shows_the_engine_line_by_line() {
    let code = ENGINE.lines().chain(FIXTURE.lines()).filter(|line| !line.is_empty());
    let code: Vec<_> = code.collect();
    let shown = shown();
    let apart = code.iter().zip(&shown).find(|(code, shown)| code != shown);
    assert_eq!(apart, None, "docs/write-an-engine.md differs from the code here first");
    assert_eq!(code.len(), shown.len());
}

#[test]
fn guide_says_how_long_the_engine_is() {
    let lines = ENGINE.lines().count();
    assert!(lines < 350, "{lines} lines take more than an afternoon");
    assert!(GUIDE.contains(&format!("The engine has {lines} lines")), "it has {lines}");
}
