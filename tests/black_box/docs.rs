//! The documents, checked against the program: a reader copies what stands there.
//!
//! Each `toml` block of `README.md`, `docs/` and `docs/providers/` is read as `check`
//! reads a file, with made-up secrets and key files, and must give neither an error
//! nor a warning about itself. A block need not repeat what its page has shown: words
//! after `toml` in the fence say what stands before it,
//!
//! - `apns`, `fcm`, `ntfy`: a plain provider of that kind and id, from [`BASES`];
//! - `scenario`: no configuration but a game day, which the command line reads.
//!
//! `/metrics` of a running router is compared with `docs/metrics.md`, names and labels.
//! Links between documents, and sections that code comments cite, must be there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pushyard::config::{self, Sources};
use pushyard_providers::clock::Clock;
use serde_json::json;

use super::harness::{World, apns, fcm, message, run};
use crate::house::rust_files;

/// What a block may continue, by the word in its fence.
const BASES: [(&str, &str); 3] = [
    (
        "apns",
        r#"[[providers]]
id = "apns"
kind = "apns"
team_id = "TEAMID1234"
key_id = "KEYID12345"
key = { file = "AuthKey_KEYID12345.p8" }
app = "com.example.shop"
"#,
    ),
    (
        "fcm",
        r#"[[providers]]
id = "fcm"
kind = "fcm"
service_account = { file = "service-account.json" }
"#,
    ),
    (
        "ntfy",
        r#"[[providers]]
id = "ntfy"
kind = "ntfy"
endpoint = "https://ntfy.example.com"
token = { env = "NTFY_TOKEN" }
"#,
    ),
];

/// Warnings about what a block leaves out, and not about what it says.
const NO_FAULT_OF_A_BLOCK: [&str; 2] =
    ["no client is configured", "no provider is configured: every message"];

static P8: LazyLock<String> = LazyLock::new(|| {
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
    pem("PRIVATE KEY", key.unwrap().as_ref())
});

static SERVICE_ACCOUNT: LazyLock<String> = LazyLock::new(|| {
    let key = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
    json!({
        "type": "service_account",
        "project_id": "my-project",
        "private_key_id": "1",
        "client_email": "pusher@my-project.iam.gserviceaccount.com",
        "private_key": pem("PRIVATE KEY", key.as_der().unwrap().as_ref()),
        "token_uri": "https://oauth2.googleapis.com/token",
    })
    .to_string()
});

/// A certificate and its key, PEM.
static CERTIFICATE: LazyLock<(String, String)> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
});

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// A world in which whatever a document refers to is there: what a file or a
/// variable holds follows from its name.
struct Imagined<'a>(&'a str);

impl Sources for Imagined<'_> {
    fn env(&self, name: &str) -> Option<String> {
        let text = STANDARD.encode(digest(&SHA256, name.as_bytes()));
        Some(if name.contains("SECRET") { format!("whsec_{text}") } else { text })
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let content = match name {
            "pushyard.toml" => self.0,
            _ if name.ends_with(".p8") => &P8,
            _ if name.starts_with("service-account") && name.ends_with(".json") => &SERVICE_ACCOUNT,
            _ if name.ends_with("key.pem") => &CERTIFICATE.1,
            _ if name.ends_with(".pem") => &CERTIFICATE.0,
            _ => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(content.as_bytes().to_vec())
    }
}

/// 2026-11-01, so that dates in documents neither pass nor come near.
struct Fixed;

impl Clock for Fixed {
    fn unix_ms(&self) -> u64 {
        1_793_491_200_000
    }
}

/// A fenced block of a document.
struct Block {
    /// `file:line` of its fence.
    place: String,
    /// The words after `toml`.
    marks: Vec<String>,
    text: String,
}

/// The `toml` blocks of a document, also those that are indented in a list.
fn blocks(file: &str, document: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut lines = document.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```") else { continue };
        let inside = lines.by_ref().map(|(_, line)| line).take_while(|l| l.trim() != "```");
        let text = inside.fold(String::new(), |text, line| text + line + "\n");
        let mut words = info.split_whitespace();
        if words.next() == Some("toml") {
            let marks = words.map(str::to_owned).collect();
            found.push(Block { place: format!("{file}:{}", at + 1), marks, text });
        }
    }
    found
}

/// What is wrong with a block, if anything.
fn fault(block: &Block) -> Option<String> {
    if block.marks.iter().any(|mark| mark == "scenario") {
        return scenario_fault(&block.text).map(|fault| format!("{}: {fault}", block.place));
    }
    let mut text = String::new();
    for mark in &block.marks {
        let Some((_, base)) = BASES.iter().find(|(name, _)| name == mark) else {
            return Some(format!("{}: the fence says {mark:?}, which is no base", block.place));
        };
        text.push_str(base);
    }
    // Lines of the block come last: a key before its first table would go astray.
    let before = text.lines().count();
    text.push_str(&block.text);
    let faults: Vec<String> =
        match config::load(Path::new("pushyard.toml"), &Imagined(&text), Arc::new(Fixed)) {
            Err(errors) => errors
                .errors
                .iter()
                .map(|e| {
                    format!("line {} of it: {}: {}", e.line.saturating_sub(before), e.key, e.detail)
                })
                .collect(),
            Ok(settings) => {
                let own = |warning: &String| {
                    !NO_FAULT_OF_A_BLOCK.iter().any(|other| warning.starts_with(other))
                };
                settings.warnings.into_iter().filter(own).collect()
            }
        };
    (!faults.is_empty()).then(|| format!("{}: {}", block.place, faults.join("; ")))
}

/// What the command line says of a scenario file; it is read before anything starts.
fn scenario_fault(text: &str) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("scenario.toml");
    fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let (code, _, stderr) = run(&["simulate", "--scenario", file, "--for", "1ms"]);
    (code != Some(0)).then_some(stderr)
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// `README.md` and the pages under `docs/`, by name.
fn documents() -> Vec<(String, String)> {
    let mut paths = vec![root().join("README.md")];
    for folder in ["docs", "docs/providers"] {
        let entries = fs::read_dir(root().join(folder)).unwrap();
        paths.extend(entries.map(|entry| entry.unwrap().path()));
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(path).unwrap())
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn every_toml_block_of_the_documents_is_accepted() {
    let documents = documents();
    let blocks: Vec<Block> = documents.iter().flat_map(|(file, text)| blocks(file, text)).collect();
    assert!(blocks.len() > 15, "only {} blocks were found", blocks.len());
    let faults: Vec<String> = blocks.iter().filter_map(fault).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_wrong_block_is_told_with_its_place() {
    let page = "Text.\n\n```json\n{}\n```\n\n1. In a list:\n\n   ```toml apns\n   [[routes]]\n   \
                name = \"default\"\n   tiers = [[\"apns\"], [\"fmc\"]]\n   ```\n\n\
                ```toml fcm apns\n[[routes]]\nname = \"only\"\ntiers = [[\"fcm\"]]\n```\n\n\
                ```toml later\n```\n\n```toml scenario\nabout = 1\n```\n";
    let blocks = blocks("page.md", page);
    let places: Vec<&str> = blocks.iter().map(|block| &*block.place).collect();
    assert_eq!(places, ["page.md:9", "page.md:15", "page.md:21", "page.md:24"]);
    let told = |at: usize| fault(&blocks[at]).unwrap();
    assert_eq!(
        told(0),
        "page.md:9: line 3 of it: routes[0].tiers[1][0]: no provider has the id \"fmc\""
    );
    assert_eq!(told(1), "page.md:15: providers.apns: is in no route and will get nothing");
    assert_eq!(told(2), "page.md:21: the fence says \"later\", which is no base");
    assert!(told(3).contains("expected a string"), "{}", told(3));
}

/// A heading as links name it: lower case, words joined, the rest left out.
fn anchors(document: &str) -> Vec<String> {
    let headings = document.lines().filter_map(|line| line.strip_prefix('#'));
    let slug = |heading: &str| {
        let kept = heading.trim_start_matches('#').trim().to_lowercase();
        kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>()
    };
    headings.map(|heading| slug(heading).replace(' ', "-")).collect()
}

/// What links of a document lead nowhere.
fn dead_links(file: &str, document: &str) -> Vec<String> {
    let targets = document.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let inner = targets.filter(|target| !target.contains("://"));
    let dead = inner.filter(|target| {
        let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
        let path = match path {
            "" => root().join(file),
            path => root().join(file).parent().unwrap().join(path),
        };
        let Ok(text) = fs::read_to_string(path) else { return true };
        !anchor.is_empty() && !anchors(&text).iter().any(|known| known == anchor)
    });
    dead.map(|target| format!("{file}: {target} leads nowhere")).collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut documents = documents();
    for name in ["ARCHITECTURE.md", "CHANGELOG.md"] {
        documents.push((name.to_owned(), fs::read_to_string(root().join(name)).unwrap()));
    }
    let dead: Vec<String> =
        documents.iter().flat_map(|(file, text)| dead_links(file, text)).collect();
    assert!(dead.is_empty(), "{}", dead.join("\n"));
    let told = dead_links(
        "docs/metrics.md",
        "[a](runbook.md#network) [b](gone.md) [c](#metrics) [d](#no)",
    );
    assert_eq!(
        told,
        ["docs/metrics.md: gone.md leads nowhere", "docs/metrics.md: #no leads nowhere"]
    );
}

#[test]
fn sections_that_the_code_cites_are_there() {
    const CITED: &str = "docs/semantics.md, \"";
    let semantics = fs::read_to_string(root().join("docs/semantics.md")).unwrap();
    let known =
        |title: &str| semantics.lines().any(|line| line.trim_start_matches('#').trim() == title);
    let mut cited = 0;
    for (file, text) in ["src", "providers/src", "simulator/src", "tests"].map(rust_files).concat()
    {
        for rest in text.split(CITED).skip(1) {
            // One that is broken over two lines cannot be compared.
            let Some((title, _)) = rest.split_once('"').filter(|(title, _)| !title.contains('\n'))
            else {
                continue;
            };
            cited += 1;
            assert!(known(title), "{file} cites {title:?}, which docs/semantics.md has not");
        }
    }
    assert!(cited > 10, "{cited}");
}

/// Metrics and their labels as `docs/metrics.md` has them.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let name = cells.next()?.trim_matches('`').to_owned();
        let labels = cells.next()?.split(',').map(|label| label.trim().to_owned());
        Some((name, labels.filter(|label| !label.is_empty()).collect()))
    });
    rows.collect()
}

/// Metrics and their labels as a scrape has them.
fn scraped(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut seen: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        if let Some(header) = line.strip_prefix("# TYPE ") {
            name = header.split(' ').next().unwrap().to_owned();
            seen.entry(name.clone()).or_default();
        } else if let Some((_, rest)) = line.split_once('{') {
            let labels = rest.rsplit_once('}').unwrap().0.split("\",").filter(|l| !l.is_empty());
            let labels = labels.map(|label| label.split('=').next().unwrap().to_owned());
            seen.get_mut(&name).unwrap().extend(labels.filter(|label| label != "le"));
        }
    }
    seen
}

/// With traffic, a failover and a reload behind it a router shows all that it counts,
/// but for what needs another world: a credential that ends, a client that is told.
#[tokio::test]
async fn metrics_of_a_running_router_are_those_of_the_document() {
    const ELSEWHERE: [&str; 2] =
        ["pushyard_client_events_total", "pushyard_provider_credential_expiry_timestamp_seconds"];
    let world = World::new().await;
    let ntfy = &world.simulator.announcement().vendors["ntfy"];
    // Probed often, so that nobody waits for a probe.
    world.configure(&format!(
        "[[providers]]\nid = \"ntfy\"\nkind = \"ntfy\"\nendpoint = \"{ntfy}\"\nca_file = \"ca.pem\"\n\
         probe = {{ interval = \"100ms\" }}\n"
    ));
    let router = world.router();
    router.settle(&message(&[apns("503-once"), fcm("phone")])).await;
    let mut lost = message(&[fcm("lost-once")]);
    lost["on_ambiguous"] = "stop".into();
    router.settle(&lost).await;
    router.settle(&message(&[fcm("gone-once")])).await;
    router.accept(&message(&[fcm("503-always")])).await;
    let _ = router.call(reqwest::Method::POST, "/admin/v1/reload", None).await;
    let documented = documented();
    let complete = |value: &serde_json::Value| {
        let seen = scraped(value.as_str().unwrap_or_default());
        documented.keys().all(|name| seen.contains_key(name) || ELSEWHERE.contains(&&**name))
    };
    let text = router.until("/metrics", complete).await;
    for (name, labels) in scraped(text.as_str().unwrap()) {
        assert_eq!(documented.get(&name), Some(&labels), "the labels of {name}");
    }
}
