//! Game days: a scenario is played, judged, and told.

use std::process::{Command, Output};

use serde_json::Value;

const SCENARIO: &str = r#"
about = "APNs fails at once."
duration = "2s"

[[traffic]]
rate = 40

[[timeline]]
at = "0s"
vendor = "apns"
set = { mode = "failing", status = 503 }

[[expect]]
figure = "lost"
at_most = 0

[[expect]]
figure = "ejected_after_s"
of = "apns"
reason = "consecutive"
at_most = 2

[[expect]]
figure = "taken_per_s"
of = "apns"
at_least = 1
"#;

fn failover(more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pushyard"))
        .args(["bench", "failover"])
        .args(more)
        .output()
        .unwrap()
}

#[test]
fn expectations_are_judged_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("scenario.toml");
    std::fs::write(&file, SCENARIO).unwrap();
    let output = failover(&["--json", "--scenario", file.to_str().unwrap()]);
    let told = String::from_utf8(output.stderr).unwrap();
    let figures: Value = serde_json::from_slice(&output.stdout).expect(&told);
    let judged: Vec<_> = figures["expectations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["figure"].as_str().unwrap(), one["met"].as_bool().unwrap()))
        .collect();
    // The last one is what no router can do, so that a tool that only nods fails.
    let expected = [("lost", true), ("ejected_after_s", true), ("taken_per_s", false)];
    assert_eq!(judged, expected, "{figures}");
    assert_eq!(figures["sent"]["fcm"], figures["accepted"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(told.contains("1 of 3 expectations were not met"), "{told}");
}

#[test]
fn faulty_scenario_is_told_with_its_line_and_starts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("scenario.toml");
    std::fs::write(&file, SCENARIO.replace("failing", "falling")).unwrap();
    let output = failover(&["--scenario", file.to_str().unwrap()]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("scenario.toml:11: unknown mode \"falling\""), "{told}");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
}

#[test]
fn shipped_scenarios_are_listed() {
    let listed = String::from_utf8(failover(&["--list"]).stdout).unwrap();
    for name in ["failing-500", "blackhole", "throttled", "flapping"] {
        assert!(listed.lines().any(|line| line.starts_with(name)), "{listed}");
    }
}
