//! The program as a person uses it: small runs, a second run over the same directory, and
//! what it says to bad input.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

fn demo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_raftkv"))
        .arg("demo")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

/// A field of the JSON that `output` printed.
fn figure(output: &Output, name: &str) -> String {
    let json = String::from_utf8_lossy(&output.stdout);
    let prefix = format!("\"{name}\": ");
    let line = json.lines().find_map(|line| line.trim().strip_prefix(prefix.as_str()));
    assert!(line.is_some(), "{name} is not in {json}{output:?}");
    line.unwrap_or_default().trim_end_matches(',').to_owned()
}

fn count(output: &Output, name: &str) -> u64 {
    figure(output, name).parse().expect("a number")
}

fn assert_good(output: &Output) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{error}", output.status);
    assert_eq!(figure(output, "missing"), "0");
    assert_eq!(figure(output, "replicas_equal"), "true");
}

/// The one line that a refusal says.
fn refusal(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(output.stdout.is_empty());
    error
}

/// Everything below a folder, with contents.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut out = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("it can be listed") {
            let path = entry.expect("it can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::read(&path).expect("it can be read");
                out.push((path, bytes));
            }
        }
    }
    out.sort();
    out
}

#[test]
fn a_run_survives_a_power_cut_and_the_next_one_finds_its_data() {
    let folder = tempfile::tempdir().unwrap();
    let dir = text(folder.path());
    let first = demo(&["--records", "400", "--dir", dir, "--json"]);
    assert_good(&first);
    assert_eq!(figure(&first, "records_acknowledged"), "400");
    assert_eq!(figure(&first, "old_records_verified"), "0");
    assert_ne!(figure(&first, "outage_us"), "0");
    // The region came from one replica to three, and then it was cut.
    assert_ne!(figure(&first, "snapshots_installed"), "0");
    let regions = count(&first, "regions");
    assert!(regions >= 4, "{first:?}");
    assert_eq!(count(&first, "splits"), regions - 1);
    assert!(figure(&first, "regions_before_outage").contains("\"region\": "));
    // Data and log of the store whose power was cut were checked when it came back, and all
    // files are swept.
    assert_eq!(figure(&first, "checked_files"), "2");
    assert_ne!(figure(&first, "swept_pages"), "0");
    assert_eq!(figure(&first, "damaged_pages"), "0");

    // It finds all regions, and keeps them: the same data makes no more of them.
    let second = demo(&["--records", "600", "--dir", dir, "--sweep", "0", "--json"]);
    assert_good(&second);
    assert_eq!(figure(&second, "swept_pages"), "0");
    assert_eq!(figure(&second, "old_records_verified"), "400");
    assert_eq!(figure(&second, "lease_reads"), "600");
    assert_eq!(count(&second, "regions") - count(&second, "splits"), regions);
    assert_eq!(figure(&second, "snapshots_installed"), "0");

    // Other settings over the same directory are refused, and nothing is touched.
    let before = contents(folder.path());
    let other = demo(&["--records", "1", "--dir", dir, "--stores", "5"]);
    assert!(refusal(&other).contains("--stores 3"));
    assert_eq!(before, contents(folder.path()));
}

#[test]
fn a_run_that_is_killed_loses_nothing_it_had_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let dir = text(folder.path());
    let mut killed = Command::new(env!("CARGO_BIN_EXE_raftkv"))
        .args(["demo", "--records", "1000000", "--dir", dir])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    // Some thousand notes on writes that were sent and acknowledged.
    let manifest = folder.path().join("acknowledged");
    let deadline = Instant::now() + Duration::from_secs(120);
    while fs::metadata(&manifest).map_or(0, |meta| meta.len()) < 200_000 {
        assert!(Instant::now() < deadline, "the load does not get on");
        thread::yield_now();
    }
    killed.kill().unwrap();
    killed.wait().unwrap();

    let next = demo(&["--records", "300", "--dir", dir, "--json"]);
    assert_good(&next);
    let verified: u64 = figure(&next, "old_records_verified").parse().unwrap();
    assert!(verified >= 500, "{verified}");
}

/// What is written of the regions' stores is spread over all of them, and stays so.
#[test]
fn five_stores_share_regions_and_leaders() {
    let folder = tempfile::tempdir().unwrap();
    let dir = text(folder.path());
    let run = |records| {
        let given = ["--records", records, "--stores", "5", "--regions", "10"];
        let output = demo(&[&given[..], &["--dir", dir, "--json"]].concat());
        assert_good(&output);
        assert!(count(&output, "regions") >= 5, "{output:?}");
        let map = figure(&output, "regions_at_end");
        let lists: Vec<Vec<u64>> = map
            .split("\"stores\": [")
            .skip(1)
            .map(|rest| rest.split(']').next().unwrap_or_default().split(", "))
            .map(|numbers| numbers.map(|number| number.parse().expect("a number")).collect())
            .collect();
        assert!(lists.iter().all(|list| list.len() == 3), "{map}");
        for store in 1..=5 {
            let replicas = lists.iter().filter(|list| list.contains(&store)).count();
            assert!(replicas >= 2, "store {store} has {replicas} replicas of {map}");
            let leads = map.matches(&format!("\"leader\": {store}, ")).count();
            assert!(leads < lists.len() / 2, "store {store} leads {leads} of {map}");
        }
        output
    };
    let first = run("500");
    // A learner comes, becomes a voter, and the former member goes.
    assert!(count(&first, "membership_changes") >= 4 + 3 * 4, "{first:?}");
    let second = run("700");
    assert_eq!(figure(&second, "old_records_verified"), "500");
}

#[test]
fn lost_data_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let dir = text(folder.path());
    assert_good(&demo(&["--records", "200", "--dir", dir, "--json"]));
    // The stores forget everything; the manifest does not.
    for number in 1..=3 {
        fs::remove_dir_all(folder.path().join(format!("store-{number}"))).unwrap();
    }
    let second = demo(&["--records", "200", "--dir", dir, "--json"]);
    assert_eq!(second.status.code(), Some(1));
    assert_eq!(figure(&second, "missing"), "200");
    assert!(String::from_utf8_lossy(&second.stderr).contains("was acknowledged"));
}

#[test]
fn a_directory_tree_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("input");
    fs::create_dir_all(input.join("deep/er")).unwrap();
    fs::create_dir(input.join("hollow")).unwrap();
    for number in 0..60 {
        fs::write(input.join(format!("deep/{number}.txt")), vec![b'x'; number * 100]).unwrap();
    }
    fs::write(input.join("deep/er/large"), vec![7; 700 << 10]).unwrap();
    let dir = folder.path().join("data");
    let output = demo(&["--input", text(&input), "--dir", text(&dir), "--json"]);
    assert_good(&output);
    assert_eq!(figure(&output, "records_acknowledged"), "63");
    assert!(String::from_utf8_lossy(&output.stderr).contains("1 empty directories"));
}

#[test]
fn a_file_of_lines_is_loaded_and_the_last_line_of_a_key_counts() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("records");
    let lines: String = (0..300).map(|n| format!("key-{}\tvalue {n}\n", n % 7)).collect();
    fs::write(&input, lines).unwrap();
    let output = demo(&["--input", text(&input), "--engine", "mem", "--json"]);
    assert_good(&output);
    assert_eq!(figure(&output, "records_acknowledged"), "300");
    assert_eq!(figure(&output, "lease_reads"), "7");
}

#[test]
fn nothing_to_load_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("empty");
    fs::write(&input, "").unwrap();
    let output = demo(&["--input", text(&input), "--engine", "mem", "--json"]);
    assert_good(&output);
    assert_eq!(figure(&output, "records_acknowledged"), "0");
}

#[test]
fn one_store_alone_serves_and_recovers() {
    let output = demo(&["--records", "200", "--stores", "1", "--engine", "mem", "--json"]);
    assert_good(&output);
    assert_eq!(figure(&output, "records_acknowledged"), "200");
    assert!(count(&output, "regions") >= 4, "{output:?}");
}

#[test]
fn the_table_shows_the_regions() {
    let given = ["--records", "400", "--stores", "1", "--engine", "mem", "--regions", "3"];
    let output = demo(&given);
    assert!(output.status.success(), "{output:?}");
    let table = String::from_utf8_lossy(&output.stdout);
    for part in ["regions before the power cut", "regions at the end", "the first key", "splits"] {
        assert!(table.contains(part), "{part} is not in\n{table}");
    }
}

#[test]
fn bad_input_is_told_in_one_line_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let dir = at("data");
    let refused = |input: &Path| {
        let said = refusal(&demo(&["--input", text(input), "--dir", text(&dir)]));
        assert!(!dir.exists(), "{said}");
        said
    };

    let said = refused(&at("nowhere"));
    assert!(said.contains("nowhere") && said.contains("does not exist"), "{said}");

    fs::write(at("no-tab"), "key\tvalue\nkey value\n").unwrap();
    let said = refused(&at("no-tab"));
    assert!(said.contains("no-tab, line 2: no tab"), "{said}");

    let mut long = b"key\t".to_vec();
    long.resize((1 << 20) + 5, b'v');
    fs::write(at("long"), long).unwrap();
    let said = refused(&at("long"));
    assert!(said.contains("long, line 1: the value is longer than 1048576 bytes"), "{said}");

    let said = refusal(&demo(&["--input", dir.parent().map_or("", text), "--dir", text(&dir)]));
    assert!(said.contains("lie in each other"), "{said}");
    assert!(!dir.exists());
}

#[test]
fn a_directory_of_others_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("letter.txt"), "dear").unwrap();
    let before = contents(folder.path());
    let said = refusal(&demo(&["--records", "1", "--dir", text(folder.path())]));
    assert!(said.contains("not this program's"), "{said}");
    let file = folder.path().join("letter.txt");
    let said = refusal(&demo(&["--records", "1", "--dir", text(&file)]));
    assert!(said.contains("is not a directory"), "{said}");
    assert_eq!(before, contents(folder.path()));
}

#[test]
fn a_directory_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dir = text(folder.path());
    assert_good(&demo(&["--records", "100", "--dir", dir, "--json"]));
    let lock = fs::File::options().write(true).open(folder.path().join("lock")).unwrap();
    lock.try_lock().unwrap();
    let said = refusal(&demo(&["--records", "1", "--dir", dir]));
    assert!(said.contains("is in use"), "{said}");
    drop(lock);
    let after = demo(&["--records", "100", "--dir", dir, "--json"]);
    assert_good(&after);
    assert_eq!(figure(&after, "old_records_verified"), "100");
}
