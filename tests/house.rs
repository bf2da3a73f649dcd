//! The rules of the house, checked: modules depend one way, the core stays pure,
//! every file says what it is for, and the names of the contract are there. A
//! failure names file, line and rule.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms from the top to the bottom; a room uses only what stands below it.
/// Rooms of one row are strangers to each other, but for the pairs of `MAY`.
const ROWS: &[&[&str]] = &[
    &["cli"],
    &["server"],
    &["config"],
    &["api", "admin", "stream"],
    &["intake", "dispatch"],
    &["feedback", "stack"],
    &["routing"],
    &["store"],
    &["telemetry"],
    &["model"],
    &["clock"],
];

/// Uses that the rows do not allow, each with its reason.
const MAY: &[(&str, &str)] = &[
    // The admin listener speaks the same problem JSON, pages and keys.
    ("admin", "api"),
    // The devices' listener takes receipts and counts requests as the api listener does.
    ("stream", "api"),
];

/// Pure files: no runtime, no clock, no log.
const PURE: &[&str] = &[
    "src/routing/",
    "src/dispatch/delivery.rs",
    "src/dispatch/deliveries.rs",
    "src/dispatch/fair.rs",
    "src/dispatch/collapse.rs",
    "src/dispatch/retry.rs",
    "src/dispatch/gone.rs",
    "src/dispatch/engine/",
];

const IMPURE: &[&str] =
    &["async ", ".await", "tokio", "tracing", "Instant::now", "SystemTime", "std::fs", "std::net"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn rust_files(folder: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(&root().join(folder), &mut paths);
    paths.sort();
    assert!(!paths.is_empty(), "no Rust files under {folder}");
    let text = |path: PathBuf| {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(path).unwrap())
    };
    paths.into_iter().map(text).collect()
}

fn row(room: &str) -> Option<usize> {
    ROWS.iter().position(|rooms| rooms.contains(&room))
}

fn room_of(file: &str) -> Option<&str> {
    let first = file.strip_prefix("src/")?.split('/').next()?;
    Some(first.strip_suffix(".rs").unwrap_or(first))
}

/// The code of a file, without its tests.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line))
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[test]
fn house_modules_use_only_what_stands_below_them() {
    let mut faults = Vec::new();
    for (file, text) in rust_files("src") {
        let Some(room) = room_of(&file) else { continue };
        if ["lib", "main"].contains(&room) {
            continue;
        }
        let Some(own) = row(room) else {
            faults.push(format!("{file}: room `{room}` stands in no row of tests/house.rs"));
            continue;
        };
        for (line, code) in code(&text) {
            for used in code.split("crate::").skip(1) {
                let used: String =
                    used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let Some(other) = row(&used) else { continue };
                let allowed = used == room || other > own || MAY.contains(&(room, &used));
                if !allowed {
                    faults.push(format!("{file}:{line}: `{room}` must not use `{used}`"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn house_the_core_is_pure() {
    let mut faults = Vec::new();
    for (file, text) in rust_files("src") {
        if !PURE.iter().any(|pure| file.starts_with(pure)) || file.ends_with("_tests.rs") {
            continue;
        }
        for (line, code) in code(&text) {
            for word in IMPURE.iter().filter(|word| code.contains(**word)) {
                faults.push(format!("{file}:{line}: a pure file must not contain `{word}`"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn house_every_file_begins_with_what_it_is_for() {
    let folders = ["src", "providers/src", "simulator/src", "tests"];
    let faults: Vec<_> = folders
        .into_iter()
        .flat_map(rust_files)
        .filter(|(file, text)| !text.starts_with("//!") && !file.ends_with("_tests.rs"))
        .map(|(file, _)| format!("{file}:1: begin with `//!`: what it decides, and why this way"))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn house_providers_know_nothing_of_the_router_and_the_simulator_nothing_of_providers() {
    let mut faults = Vec::new();
    for (file, text) in rust_files("providers/src") {
        if text.contains("pushyard::") {
            faults.push(format!("{file}: providers must not use the router"));
        }
    }
    for (file, text) in rust_files("simulator/src") {
        if text.contains("pushyard_providers") {
            faults
                .push(format!("{file}: the simulator judges the providers and must not use them"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn house_only_one_file_names_metrics_and_the_contracts_names_are_all_there() {
    let metrics = fs::read_to_string(root().join("src/telemetry/metrics.rs")).unwrap();
    let documented = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let names: Vec<String> = documented
        .lines()
        .filter_map(|line| line.strip_prefix("| `pushyard_"))
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .collect();
    assert!(names.len() > 25, "docs/metrics.md lists every metric: {names:?}");
    for name in &names {
        assert!(metrics.contains(&format!("\"{name}\"")), "{name} is documented and not made");
    }
    for name in metrics.split('"').skip(1).step_by(2).filter(|text| text.contains('_')) {
        let is_name = name.ends_with("_total") || name.ends_with("_seconds");
        assert!(!is_name || names.iter().any(|n| n == name), "{name} is made and not documented");
    }
}
