//! A configuration that cannot be run: `check` and `serve` name file, line, key and
//! remedy, exit with 1, and no secret is shown.

use std::fs;
use std::net::TcpListener;

use super::harness::{Router, World, run};

#[tokio::test]
async fn check_tells_what_would_run() {
    let world = World::new().await;
    let config = world.config();
    let (code, stdout, stderr) = run(&["check", "--config", config.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{stderr}");
    for word in ["apns", "fcm", "default", "data", "unsettled"] {
        assert!(stdout.contains(word), "{word} is not in\n{stdout}");
    }
}

#[tokio::test]
async fn five_mistakes_are_told_at_once_each_with_its_line() {
    let world = World::new().await;
    let text = r#"[server]
listne = "127.0.0.1:0"
[[providers]]
id = "apns"
kind = "apns"
team_id = "TEAMID1234"
key_id = "KEYID12345"
key = { file = "missing.p8" }
app = "com.example"
[[providers]]
id = "fcm"
kind = "fcm"
service_account = { env = "PUSHYARD_TEST_UNSET" }
timeout = 10
[[routes]]
name = "default"
tiers = [["apns", "fmc"]]
"#;
    let path = world.dir.path().join("five.toml");
    fs::write(&path, text).unwrap();
    let (code, _, stderr) = run(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    for (line, says) in [
        (2, "did you mean"),
        (8, "missing.p8"),
        (13, "PUSHYARD_TEST_UNSET"),
        (14, "timeout"),
        (17, "fmc"),
    ] {
        let place = format!("five.toml:{line}:");
        let told = stderr.lines().any(|l| l.contains(&place) && l.contains(says));
        assert!(told, "{place} … {says} is not in\n{stderr}");
    }
    let (code, _, stderr) = run(&["serve", "--config", path.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("five.toml:17:"), "{stderr}");
}

#[tokio::test]
async fn credentials_that_cannot_be_used_are_named_and_not_shown() {
    let world = World::new().await;
    let original = fs::read_to_string(world.config()).unwrap();
    let p8 = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0LXNlY3JldA==\n-----END PRIVATE KEY-----\n";
    for (file, content, says) in [
        ("AuthKey_SIMKEY0001.p8", p8, "key"),
        ("AuthKey_SIMKEY0001.p8", "secret-secret", "BEGIN PRIVATE KEY"),
        ("service-account.json", "secret-secret", "JSON"),
        ("service-account.json", r#"{"type":"secret-secret"}"#, "service_account"),
    ] {
        let path = world.dir.path().join(format!("bad-{file}"));
        fs::write(&path, content).unwrap();
        let text = original.replace(file, &format!("bad-{file}"));
        let config = world.dir.path().join("bad.toml");
        fs::write(&config, text).unwrap();
        let (code, stdout, stderr) = run(&["check", "--config", config.to_str().unwrap()]);
        assert_eq!(code, Some(1), "{file}: {stdout}");
        assert!(stderr.contains("bad.toml:") && stderr.contains(says), "{says}: {stderr}");
        assert!(!format!("{stdout}{stderr}").contains("secret-secret"), "{stderr}");
        assert!(!stderr.contains("c2VjcmV0"), "{stderr}");
    }
}

#[tokio::test]
async fn duplicate_ids_and_a_listener_open_to_all_without_a_key_are_refused() {
    let world = World::new().await;
    let original = fs::read_to_string(world.config()).unwrap();
    for (from, to, says) in [
        ("id = \"fcm\"", "id = \"apns\"", "apns"),
        ("[server]\nlisten = \"127.0.0.1:0\"", "[server]\nlisten = \"0.0.0.0:0\"", "clients"),
        ("[admin]\nlisten = \"127.0.0.1:0\"", "[admin]\nlisten = \"0.0.0.0:0\"", "admin"),
    ] {
        assert!(original.contains(from));
        let config = world.dir.path().join("refused.toml");
        fs::write(&config, original.replace(from, to)).unwrap();
        let (code, _, stderr) = run(&["check", "--config", config.to_str().unwrap()]);
        assert_eq!(code, Some(1), "{to}");
        assert!(stderr.contains("refused.toml:") && stderr.contains(says), "{says}: {stderr}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let world = World::new().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text = fs::read_to_string(world.config()).unwrap().replacen("127.0.0.1:0", &address, 1);
    fs::write(world.config(), text).unwrap();
    let (code, _, stderr) = run(&["serve", "--config", world.config().to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains(&address) && stderr.contains("in use"), "{stderr}");
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_used_is_named() {
    let world = World::new().await;
    let config = world.config();
    let serve = || run(&["serve", "--config", config.to_str().unwrap()]);

    let router = Router::start(&config);
    let (code, _, stderr) = serve();
    assert_eq!(code, Some(1));
    let pid = router.pid().to_string();
    assert!(stderr.contains(&pid), "the holder {pid} is not in {stderr}");
    router.kill();

    let file = world.dir.path().join("data/pushyard.redb");
    let good = fs::read(&file).unwrap();
    fs::write(&file, b"some other file, not ours at all").unwrap();
    let (code, _, stderr) = serve();
    assert_eq!(code, Some(1));
    assert!(stderr.contains("pushyard.redb"), "{stderr}");
    fs::write(&file, &good[..good.len() / 2]).unwrap();
    let (code, _, stderr) = serve();
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("pushyard.redb"), "{stderr}");

    fs::remove_dir_all(world.dir.path().join("data")).unwrap();
    fs::write(world.dir.path().join("data"), "a file where the directory should be").unwrap();
    let (code, _, stderr) = serve();
    assert_eq!(code, Some(1));
    assert!(stderr.contains("data"), "{stderr}");
}
