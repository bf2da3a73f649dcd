//! What is wrong with a file, to the letter.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::sync::Arc;

use pushyard_providers::Kind;
use pushyard_providers::registry::KINDS;
use pushyard_providers::settings::{Setting, SettingError, Shape};

use super::super::{Sources, SystemSources, load_with};
use super::{APNS, FCM, Noon, load, load_asking};

/// What each text gives.
fn errors(texts: &[&str]) -> String {
    let one = |text: &&str| match load(text) {
        Ok(_) => format!("nothing is wrong with {text:?}"),
        Err(errors) => errors.to_string().replace("conf/pushyard.toml:", ""),
    };
    texts.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// What these further lines of a working provider give.
fn apns(lines: &[&str]) -> String {
    let texts: Vec<_> = lines.iter().map(|line| format!("{APNS}{line}")).collect();
    errors(&texts.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn five_mistakes_are_told_at_once_each_with_its_place() {
    let text = r#"[server]
listn = "127.0.0.1:8080"

[[providers]]
id = "fcm"
kind = "fcm"
  timeout = 10
service_account = { env = "NO_SUCH_VARIABLE" }

[[routes]]
name = "default"
tiers = [["fcm", "apsn"]]
balance = "least_latancy"
"#;
    let errors = load(text).unwrap_err();
    insta::assert_snapshot!(errors, @r##"
    conf/pushyard.toml:2:1: server.listn: unknown key; did you mean "listen"?
    conf/pushyard.toml:7:13: providers[0].timeout: must be a text with a unit, as in "30s", not a whole number
    conf/pushyard.toml:8:19: providers[0].service_account: environment variable NO_SUCH_VARIABLE is not set; set it for this process
    conf/pushyard.toml:12:18: routes[0].tiers[0][1]: no provider has the id "apsn"
    conf/pushyard.toml:13:11: routes[0].balance: "least_latancy" is not known; did you mean "least_latency"?
    "##);
    insta::assert_json_snapshot!(errors.errors[1], @r##"
    {
      "file": "conf/pushyard.toml",
      "line": 7,
      "column": 13,
      "key": "providers[0].timeout",
      "detail": "must be a text with a unit, as in \"30s\", not a whole number"
    }
    "##);
}

#[test]
fn columns_count_characters() {
    insta::assert_snapshot!(errors(&["log = { level = \"info\", 'ä' = 1, formt = \"x\" }"]), @r##"
    1:25: log.ä: unknown key
    1:34: log.formt: unknown key; did you mean "format"?
    "##);
}

#[test]
fn a_file_that_cannot_be_read_is_one_error() {
    struct Failing(io::ErrorKind);
    impl Sources for Failing {
        fn env(&self, _: &str) -> Option<String> {
            None
        }
        fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
            Err(self.0.into())
        }
    }
    let kinds = [
        io::ErrorKind::NotFound,
        io::ErrorKind::IsADirectory,
        io::ErrorKind::PermissionDenied,
        io::ErrorKind::TimedOut,
    ];
    let told = kinds.map(|kind| {
        let path = Path::new("pushyard.toml");
        load_with(path, &Failing(kind), Arc::new(Noon), KINDS, &RefCell::default())
            .unwrap_err()
            .to_string()
    });
    insta::assert_snapshot!(told.join("\n"), @r##"
    pushyard.toml: does not exist; name the file with --config
    pushyard.toml: is a directory; name a file
    pushyard.toml: may not be read by this user; change its owner or mode
    pushyard.toml: cannot be read: timed out
    "##);
    let mut fake = super::Fake::default();
    fake.file("pushyard.toml", b"[server]\n\xff");
    let error =
        load_with(Path::new(super::PATH), &fake, Arc::new(Noon), KINDS, &RefCell::default());
    insta::assert_snapshot!(error.unwrap_err(), @r##"
    conf/pushyard.toml: is not UTF-8 text (byte 9); save it as UTF-8
    "##);
}

#[test]
fn a_syntax_error_is_one_error_with_its_place() {
    insta::assert_snapshot!(errors(&[
        "[server]\nlisten = ",
        "[server\nlisten = 1",
        "[server]\nlisten = \"a\"\nlisten = \"b\"",
        "[server]\n[server]",
        "key = \"unclosed secret\n",
    ]), @r##"
    2:10: string values must be quoted, expected literal string
    1:8: unclosed table, expected `]`
    3:1: duplicate key
    2:2: duplicate key
    1:23: invalid basic string, expected `"`
    "##);
}

#[test]
fn unknown_keys_come_with_the_nearest_known_one() {
    insta::assert_snapshot!(errors(&[
        "[servr]",
        "[server]\nport = 8080",
        "[limits]\nmax_body_size = \"1MiB\"",
        "[[routes]]\nname = \"a\"\ntiers = []\ntier = []",
    ]), @r##"
    1:2: servr: unknown key; did you mean "server"?
    2:1: server.port: unknown key
    2:1: limits.max_body_size: unknown key; did you mean "max_body"?
    3:9: routes[0].tiers: names no provider; write tiers = [["apns", "fcm"]]
    4:1: routes[0].tier: unknown key; did you mean "tiers"?
    "##);
    insta::assert_snapshot!(apns(&["tem_id = \"x\"", "health = { windw = \"1s\" }", "project_id = \"x\""]), @r##"
    8:1: providers[0].tem_id: unknown key; did you mean "team_id"?
    8:12: providers[0].health.windw: unknown key; did you mean "window"?
    8:1: providers[0].project_id: unknown key
    "##);
}

#[test]
fn a_certificate_that_cannot_be_used_is_told_with_its_file() {
    let tls = |section: &str, cert: &str, key: &str| {
        format!("[{section}]\ntls = {{ cert = \"{cert}\", key = \"{key}\" }}")
    };
    let texts = [
        tls("server", "cert.pem", "other-key.pem"),
        tls("server", "key.pem", "cert.pem"),
        tls("admin", "empty", "words"),
        tls("admin", "words", "gone.pem"),
        tls("admin", "broken.pem", "key.pem"),
        tls("stream", "cert.pem", "other-key.pem"),
        "[server]\ntls = {}\n[admin]\ntls = true".to_owned(),
        "[server]\ntls = { cert = \"cert.pem\", keys = \"key.pem\" }".to_owned(),
    ];
    insta::assert_snapshot!(errors(&texts.each_ref().map(String::as_str)), @r##"
    2:34: server.tls.key: file conf/other-key.pem: is not the key of the first certificate in cert
    2:16: server.tls.cert: file conf/key.pem: no certificate in it; expected PEM (BEGIN CERTIFICATE)
    2:16: admin.tls.cert: file conf/empty is empty
    2:31: admin.tls.key: file conf/gone.pem does not exist; relative paths begin at the configuration file
    2:16: admin.tls.cert: file conf/broken.pem: the first certificate in it cannot be read
    2:34: stream.tls.key: file conf/other-key.pem: is not the key of the first certificate in cert
    2:7: server.tls.cert: is required
    2:7: server.tls.key: is required
    4:7: admin.tls: must be a table, not true or false
    2:7: server.tls.key: is required
    2:28: server.tls.keys: unknown key; did you mean "key"?
    "##);
}

#[test]
fn keys_of_later_releases_are_named_as_such() {
    insta::assert_snapshot!(errors(&[
        "[egress]\nallow_networks = []",
        "[egress]\nallow_networks = []",
        "[store]\nengine = \"jetstream\"",
        "[[providers]]\nid = \"n\"\nkind = \"mqtt\"\nendpoint = \"https://mqtt.example.com\"",
        "[[routes]]\nname = \"a\"\ntiers = [[]]\nbalance = \"fastest\"",
    ]), @r##"
    1:2: egress: is not part of this release; remove it
    1:2: egress: is not part of this release; remove it
    2:10: store.engine: "jetstream" is not part of this release; it must be "embedded"
    3:8: providers[0].kind: "mqtt" is not part of this release; it must be "apns", "fcm", "ntfy", "gotify", "webhook" or "stream"
    3:10: routes[0].tiers[0]: is empty; name a provider or remove the tier
    4:11: routes[0].balance: "fastest" is not known; it must be "weighted", "round_robin", "least_latency", "cheapest" or "broadcast"
    "##);
}

#[test]
fn a_value_of_the_wrong_shape_says_which_is_right() {
    insta::assert_snapshot!(errors(&[
        "server = 1",
        "[server]\nlisten = 8080",
        "[server]\nlisten = \"localhost:8080\"",
        "[admin]\nopen_metrics = \"yes\"",
        "[store]\nretention = 24",
        "[store]\nretention = \"24\"",
        "[store]\nretention = \"0s\"",
        "[store]\nretention = \"20000d\"",
        "[store]\nmax_bytes = 10",
        "[store]\nmax_bytes = \"10 gigs\"",
        "[store]\nmax_bytes = \"1MiB\"",
        "[store]\ncommit_delay = \"1m\"",
        "[dispatch]\nmax_attempts = 0",
        "[dispatch]\nmax_attempts = 2.5",
        "[limits]\nmax_json_depth = 1000",
        "[limits]\nmax_header_bytes = \"1KiB\"",
        "[log]\nlevel = \"inof\"",
        "[log]\nlevel = \"a=b=c\"",
        "[log]\nformat = \"xml\"",
        "[providers]\nid = \"x\"",
        "providers = [1]",
    ]), @r##"
    1:10: server: must be a table, not a whole number
    2:10: server.listen: must be a string, not a whole number
    2:10: server.listen: "localhost:8080" is no IP address with a port; write it as in "127.0.0.1:8080" or "[::1]:8080"
    2:16: admin.open_metrics: must be true or false, not a string
    2:13: store.retention: must be a text with a unit, as in "30s", not a whole number
    2:13: store.retention: "24" is no duration; write a number and a unit (ms, s, m, h, d), as in "30s"
    2:13: store.retention: must be longer than 0
    2:13: store.retention: "20000d" is too long; at most 3660d
    2:13: store.max_bytes: must be a text with a unit, as in "256MiB", not a whole number
    2:13: store.max_bytes: "10 gigs" is no size; write a whole number and a unit (B, KiB, MiB, GiB, TiB), as in "256MiB"
    2:13: store.max_bytes: must be at least 64MiB
    2:16: store.commit_delay: must be at most 1s: every accepted message waits this long
    2:16: dispatch.max_attempts: must be between 1 and 10000
    2:16: dispatch.max_attempts: must be a whole number, not a decimal number
    2:18: limits.max_json_depth: must be between 1 and 127
    2:20: limits.max_header_bytes: must be between 8KiB and 1MiB
    2:9: log.level: "inof" is no level; did you mean "info"?
    2:9: log.level: "a=b=c" is no log filter; write it as in "info,pushyard=debug"
    2:10: log.format: "xml" is not known; it must be "auto", "json" or "text"
    1:1: providers: must be a list of tables; write [[providers]]
    1:14: providers[0]: must be a table, not a whole number
    "##);
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    insta::assert_snapshot!(errors(&[
        "[dispatch]\nbackoff = \"10m\"",
        "[limits]\nmax_unsettled = 10\nmax_client_unsettled = 11",
        "[server]\nlisten = \"127.0.0.1:9090\"",
        "[stream]\nlisten = \"[::]:8080\"",
        "[server]\nlisten = \"0.0.0.0:8080\"\n[admin]\nlisten = \"0.0.0.0:9090\"",
    ]), @r##"
    1:1: dispatch: must have backoff ≤ max_backoff; they are 10m and 5m
    3:24: limits.max_client_unsettled: must not be above max_unsettled, which is 10
    2:10: server.listen: is where the admin listener is, 127.0.0.1:9090; use another port
    2:10: stream.listen: is where the server listener is, 127.0.0.1:8080; use another port
    2:10: server.listen: can be reached from other machines and no client is configured; add [[clients]] with a key, or listen on 127.0.0.1
    4:10: admin.listen: can be reached from other machines and no client has admin = true; add one to [[clients]], or listen on 127.0.0.1
    "##);
    insta::assert_snapshot!(apns(&[
        "timeout = \"1s\"\nconnect_timeout = \"2s\"",
        "rate = { burst = 5 }",
        "rate = { per_second = 0 }",
        "rate = { per_second = nan, burst = 0.5 }",
        "budget = { hard = true }",
        "budget = { per_day = 1, per_month = 1 }",
        "budget = { per_day = -1 }",
        "probe = \"off\"",
        "health = { eject_below = 0.9 }",
        "health = { recover_above = 1.5 }",
        "health = { base_ejection = \"10m\", window = \"10ms\" }",
    ]), @r##"
    9:19: providers[0].connect_timeout: must not be longer than timeout, which is 1s
    8:8: providers[0].rate: needs per_second, as in { per_second = 500, burst = 1000 }
    8:23: providers[0].rate.per_second: must be above 0
    8:23: providers[0].rate.per_second: must be finite
    8:36: providers[0].rate.burst: must be at least 1
    8:10: providers[0].budget: needs either per_day or per_month, as in { per_day = 10.0, hard = false }
    8:10: providers[0].budget: needs either per_day or per_month, as in { per_day = 10.0, hard = false }
    8:22: providers[0].budget.per_day: must not be below 0
    8:9: providers[0].probe: must be a table, or false, not a string
    8:10: providers[0].health: must have eject_below < degraded_below < recover_above; they are 0.9, 0.9 and 0.95
    8:28: providers[0].health.recover_above: must be between 0 and 1
    8:10: providers[0].health: must have base_ejection ≤ max_ejection; they are 10m and 5m
    8:44: providers[0].health.window: must be at least 1s: it is counted in ten parts
    "##);
}

#[test]
fn names_are_unique_and_exist() {
    let twice = format!("{APNS}{FCM}{APNS}");
    let route = |rest: &str| format!("{APNS}{FCM}[[routes]]\nname = \"default\"\n{rest}");
    insta::assert_snapshot!(errors(&[
        &twice,
        &route("tiers = [[\"apns\"], [\"apn\", \"hook\"]]"),
        &route("tiers = [[\"apns\"], [\"apns\"]]"),
        &route("tiers = [\"apns\"]"),
        &route("tiers = \"apns\""),
        &route("tiers = []"),
        &route("tiers = [[]]"),
        &route("tiers = [[\"apns\"]]\nweights = { fcm = 1, apns = -1 }"),
        &route("tiers = [[\"apns\"]]\nweights = { fmc = 1, apnss = 1 }"),
        &route("tiers = [[\"apns\"], [\"fcm\"]]\nweights = { fcm = 0 }"),
        &route("tiers = [[\"apns\"]]\n[[routes]]\nname = \"default\"\ntiers = [[\"fcm\"]]"),
        "[[routes]]\nname = \"two words\"",
        "[[providers]]\nid = \"../x\"\nkind = \"apn\"",
        "[[providers]]",
    ]), @r##"
    13:6: providers[2].id: "apns" is taken by providers[0]; each provider needs its own
    14:21: routes[0].tiers[1][0]: no provider has the id "apn"; did you mean "apns"?
    14:28: routes[0].tiers[1][1]: no provider has the id "hook"
    14:21: routes[0].tiers[1][0]: "apns" stands in this route already; name it once
    14:10: routes[0].tiers[0]: must be a list, as in [["apns", "fcm"], ["backup"]], not a string
    14:9: routes[0].tiers: must be a list of lists, as in [["apns", "fcm"], ["backup"]], not a string
    14:9: routes[0].tiers: names no provider; write tiers = [["apns", "fcm"]]
    14:10: routes[0].tiers[0]: is empty; name a provider or remove the tier
    15:29: routes[0].weights.apns: must not be below 0
    15:19: routes[0].weights.fmc: "fmc" is in no tier of this route
    15:30: routes[0].weights.apnss: "apnss" is in no tier of this route; did you mean "apns"?
    14:20: routes[0].tiers[1]: has only members of weight 0; give one of them a weight above 0
    16:8: routes[1].name: "default" is taken by routes[0]; each route needs its own
    1:1: routes[0].tiers: is required
    2:8: routes[0].name: must be 1 to 64 letters, digits or any of . _ -, and begin with a letter or digit
    2:6: providers[0].id: must be 1 to 64 letters, digits or any of . _ -, and begin with a letter or digit
    3:8: providers[0].kind: "apn" is not known; did you mean "apns"?
    1:1: providers[0].id: is required
    1:1: providers[0].kind: is required; it must be "apns", "fcm", "ntfy", "gotify", "webhook" or "stream"
    "##);
}

#[test]
fn each_of_a_clients_keys_is_one_key_that_stands_once() {
    let client = |keys: &str| format!("[[clients]]\nname = \"a\"\nkeys = {keys}");
    let hash = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752";
    let texts = [
        client("[]"),
        client("\"k\""),
        client("[{}]"),
        client(&format!("[{{ key = \"k-0123456789abcdef\", key_sha256 = \"{hash}\" }}]")),
        client("[{ key_sha256 = \"abc\" }, { key = { env = \"EMPTY\" } }]"),
        client("[{ key = \"k-0123456789abcdef\", expires = \"tomorrow\" }]"),
        client("[{ key = \"k-0123456789abcdef\", expires = 2026-12-01T00:00:00 }]"),
        client("[{ key = \"k-0123456789abcdef\", expires = 7, expire = 7 }]"),
        client("[{ key = \"k-0123456789abcdef\" }, { key = \"k-0123456789abcdef\" }]"),
        format!(
            "{}\n[[clients]]\nname = \"b\"\nkey = \"k-0123456789abcdef\"",
            client("[{ key = \"k-0123456789abcdef\", expires = \"2020-01-01T00:00:00Z\" }]")
        ),
    ];
    insta::assert_snapshot!(errors(&texts.each_ref().map(String::as_str)), @r##"
    1:1: clients[0]: needs a key: key = { env = "NAME" }, or key_sha256 = "<64 hex digits>"
    1:1: clients[0]: needs a key: key = { env = "NAME" }, or key_sha256 = "<64 hex digits>"
    3:8: clients[0].keys: must be a list of tables; write keys = [{ … }, { … }]
    3:9: clients[0].keys[0]: needs key or key_sha256
    3:9: clients[0].keys[0]: has key and key_sha256; write an entry for each
    3:24: clients[0].keys[0].key_sha256: must be 64 hexadecimal digits, as `printf %s KEY | sha256sum` prints them
    3:41: clients[0].keys[1].key: environment variable EMPTY is empty; give it a value
    3:49: clients[0].keys[0].expires: is no time of RFC 3339 with its offset; write it as in "2026-12-01T00:00:00Z"
    3:49: clients[0].keys[0].expires: is no time of RFC 3339 with its offset; write it as in "2026-12-01T00:00:00Z"
    3:49: clients[0].keys[0].expires: must be a time, as in "2026-12-01T00:00:00Z", not a whole number
    3:52: clients[0].keys[0].expire: unknown key; did you mean "expires"?
    3:49: clients[0].keys[1].key: is a key of this client already; remove one of them
    6:7: clients[1].key: is a key of client "a", too; give each client its own
    "##);
}

#[test]
fn clients_need_names_and_keys_of_their_own() {
    insta::assert_snapshot!(errors(&[
        "[[clients]]",
        "[[clients]]\nname = \"a\"\nkey_sha256 = \"abc\"",
        "[[clients]]\nname = \"a\"\nkey = \"two words, one of them secret\"",
        "[[clients]]\nname = \"a\"\nkey = 12345",
        "[[clients]]\nname = \"a\"\nkey = \"k-0123456789abcdef\"\n[[clients]]\nname = \"b\"\nkey = \"k-0123456789abcdef\"",
        "[[clients]]\nname = \"a\"\nkey = \"k\"\n[[clients]]\nname = \"a\"\nkey = \"l\"",
        "[[clients]]\nname = \"a\"\nkey = \"k\"\nroutes = [\"defualt\"]",
        "[[clients]]\nname = \"a\"\nkey = \"k\"\nroutes = []",
    ]), @r##"
    1:1: clients[0]: needs a key: key = { env = "NAME" }, or key_sha256 = "<64 hex digits>"
    1:1: clients[0].name: is required
    3:14: clients[0].key_sha256: must be 64 hexadecimal digits, as `printf %s KEY | sha256sum` prints them
    3:7: clients[0].key: must be visible ASCII without spaces: it is sent in a header
    3:7: clients[0].key: must be a string, { env = "NAME" } or { file = "path" }, not a whole number
    6:7: clients[1].key: is a key of client "a", too; give each client its own
    5:8: clients[1].name: "a" is taken by clients[0]; each client needs its own
    4:11: clients[0].routes[0]: no route has the name "defualt"; did you mean "default"?
    4:10: clients[0].routes: names no route, so that this client could send nothing; name one, or remove the key to allow all
    "##);
}

#[test]
fn secrets_that_are_not_there_are_named_by_where_they_should_be() {
    let key = |value: &str| format!("[[clients]]\nname = \"a\"\nkey = {value}");
    insta::assert_snapshot!(errors(&[
        &key("{ env = \"NO_SUCH_VARIABLE\" }"),
        &key("{ env = \"EMPTY\" }"),
        &key("{ env = \"not a name\" }"),
        &key("{ file = \"no-such-file\" }"),
        &key("{ file = \"empty\" }"),
        &key("{ file = \"latin1\" }"),
        &key("{ file = \"-----BEGIN KEY-----\\nabc\" }"),
        &key("{ file = \"a\", env = \"B\" }"),
        &key("{ evn = \"B\" }"),
        &key("{}"),
        &key("\"\""),
    ]), @r##"
    3:7: clients[0].key: environment variable NO_SUCH_VARIABLE is not set; set it for this process
    3:7: clients[0].key: environment variable EMPTY is empty; give it a value
    3:7: clients[0].key: env must be the name of an environment variable
    3:7: clients[0].key: file conf/no-such-file does not exist; relative paths begin at the configuration file
    3:7: clients[0].key: file conf/empty is empty
    3:7: clients[0].key: file conf/latin1 is not UTF-8 text
    3:7: clients[0].key: must be the path of a file, not its content
    3:7: clients[0].key: must be a string, { env = "NAME" } or { file = "path" }
    3:9: clients[0].key.evn: unknown key; did you mean "env"?
    3:7: clients[0].key: must be a string, { env = "NAME" } or { file = "path" }
    3:7: clients[0].key: must not be empty
    "##);
}

#[test]
fn what_a_vendor_cannot_use_is_told_at_its_key() {
    let bad_key = APNS.replace("{ file = \"AuthKey_KEYID12345.p8\" }", "{ file = \"words\" }");
    let bad_account = FCM.replace("{ file = \"service-account.json\" }", "{ file = \"words\" }");
    let no_account = FCM.replace("service_account", "# ");
    insta::assert_snapshot!(errors(&[&bad_key, &bad_account, &no_account]), @r##"
    6:7: providers[0].key: is not readable as PEM; expected PKCS#8 PEM (BEGIN PRIVATE KEY), the .p8 file as Apple hands it out
    4:19: providers[0].service_account: is no JSON object; download a new key: Firebase console, project settings, service accounts, "generate new private key"
    1:1: providers[0].service_account: is required for kind "fcm"; or credentials = "metadata" inside Google Cloud
    "##);
    insta::assert_snapshot!(apns(&[
        "environment = \"prod\"",
        "endpoint = \"api.push.apple.com\"",
        "endpoint = \"http://api.push.apple.com\"",
        "endpoint = \"https://user:secret@example.com\"",
        "endpoint = \"https://example.com/?a=b\"",
        "endpoint = \"ftp://example.com\"",
        "ca_file = \"words\"",
        "ca_file = \"no-such-file\"",
    ]), @r##"
    8:15: providers[0].environment: "prod" is not known; did you mean "production"?
    8:12: providers[0].endpoint: is no URL (relative URL without a base); write it as in "https://push.example.com"
    8:12: providers[0].endpoint: must be https: plain http is allowed towards this machine only
    8:12: providers[0].endpoint: must not hold a user or password; credentials have keys of their own
    8:12: providers[0].endpoint: must not have a query or fragment; write it as in "https://push.example.com"
    8:12: providers[0].endpoint: must be an https URL, as in "https://push.example.com"
    8:11: providers[0].ca_file: conf/words: no certificate in it; expected PEM (BEGIN CERTIFICATE)
    8:11: providers[0].ca_file: file conf/no-such-file does not exist; relative paths begin at the configuration file
    "##);
}

#[test]
fn a_kinds_faults_are_mapped_to_its_keys_and_to_the_table_where_the_key_is_absent() {
    static ACME: Kind = Kind {
        name: "acme",
        fields: &[],
        check_address: |_| Ok(()),
        settings: &[
            Setting { name: "token", shape: Shape::Secret, required: true },
            Setting { name: "mode", shape: Shape::Choice(&["a", "b"]), required: false },
            Setting { name: "tags", shape: Shape::List, required: false },
            Setting { name: "loud", shape: Shape::Flag, required: false },
            Setting { name: "title", shape: Shape::Text, required: false },
        ],
        build: |context| {
            let seen = format!("{:?}", context.values);
            Err(vec![SettingError::new("token", seen), SettingError::new("ca_file", "is needed")])
        },
    };
    let text = "[[providers]]\nid = \"a\"\nkind = \"acme\"\ntoken = \"s3cret\"\nmode = \"b\"\n\
                tags = [\"x\"]\nloud = true\ntitle = \"t\"";
    let told = load_asking(text, &[&ACME], &RefCell::default()).unwrap_err();
    insta::assert_snapshot!(told, @r##"
    conf/pushyard.toml:1:1: providers[0].ca_file: is needed
    conf/pushyard.toml:4:9: providers[0].token: Values({"loud": Flag(true), "mode": Text("b"), "tags": List(["x"]), "title": Text("t"), "token": Secret(***)})
    "##);
    let text = "[[providers]]\nid = \"a\"\nkind = \"acme\"\nmode = \"c\"\ntags = [1]\nloud = 1\ntitle = \"\"";
    let told = load_asking(text, &[&ACME], &RefCell::default()).unwrap_err();
    insta::assert_snapshot!(told, @r##"
    conf/pushyard.toml:1:1: providers[0].token: is required for kind "acme"
    conf/pushyard.toml:4:8: providers[0].mode: "c" is not known; it must be "a" or "b"
    conf/pushyard.toml:5:9: providers[0].tags[0]: must be a string, not a whole number
    conf/pushyard.toml:6:8: providers[0].loud: must be true or false, not a whole number
    conf/pushyard.toml:7:9: providers[0].title: must not be empty
    "##);
}

#[test]
fn no_error_shows_a_secret() {
    const SECRET: &str = "s3cret";
    let texts = [
        "[[clients]]\nname = \"a\"\nkey = \"s3cret s3cret\"".to_owned(),
        "[[clients]]\nname = \"a\"\nkey = [\"s3cret\"]".to_owned(),
        "[[clients]]\nname = \"a\"\nkey = \"s3cret".to_owned(),
        "[[clients]]\nname = \"a\"\nkey = s3cret".to_owned(),
        "[[clients]]\nname = \"a\"\nkey = { env = \"s3cret/\" }".to_owned(),
        "[[clients]]\nname = \"a\"\nkey_sha256 = \"s3cret\"".to_owned(),
        format!("{APNS}endpoint = \"https://u:s3cret@h\""),
        format!("{APNS}endpoint = \"s3cret\""),
        APNS.replace("{ file = \"AuthKey_KEYID12345.p8\" }", "\"s3cret\""),
        APNS.replace("{ file = \"AuthKey_KEYID12345.p8\" }", "{ file = \"\\ns3cret\" }"),
        FCM.replace("{ file = \"service-account.json\" }", "\"s3cret\""),
        FCM.replace("{ file = \"service-account.json\" }", "'{\"type\": \"s3cret\"}'"),
    ];
    for text in texts {
        let errors = load(&text).unwrap_err();
        assert!(!format!("{errors}{errors:?}").contains(SECRET), "{errors}");
    }
}

#[test]
fn the_file_system_tells_missing_files_from_directories() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("there"), "x").unwrap();
    let kind = |name: &str| SystemSources.read(&folder.path().join(name)).map_err(|e| e.kind());
    assert_eq!(kind("there"), Ok(b"x".to_vec()));
    assert_eq!(kind("not-there"), Err(io::ErrorKind::NotFound));
    assert_eq!(kind(""), Err(io::ErrorKind::IsADirectory));
    assert_eq!(kind("there/below"), Err(io::ErrorKind::NotADirectory));
}

#[test]
fn one_mistake_is_one_error() {
    // A broken client still is one, a broken route still has its name, and a
    // provider whose credential is missing may still stand in a route.
    let text = r#"[server]
listen = "0.0.0.0:8080"
[[clients]]
name = "two words"
key = "k-0123456789abcdef"
routes = ["bulk"]
[[providers]]
id = "fcm"
kind = "fcm"
service_account = { env = "NO_SUCH_VARIABLE" }
[[routes]]
name = "bulk"
tiers = [["fcm"]]
weights = { fcm = "much" }
"#;
    insta::assert_snapshot!(load(text).unwrap_err(), @r##"
    conf/pushyard.toml:4:8: clients[0].name: must be 1 to 64 letters, digits or any of . _ -, and begin with a letter or digit
    conf/pushyard.toml:10:19: providers[0].service_account: environment variable NO_SUCH_VARIABLE is not set; set it for this process
    conf/pushyard.toml:14:19: routes[0].weights.fcm: must be a number, not a string
    "##);
}

#[test]
fn self_hosted_servers_want_an_endpoint_and_a_whole_login() {
    let provider =
        |kind: &str, more: &str| format!("[[providers]]\nid = \"p\"\nkind = \"{kind}\"\n{more}");
    let files = [
        provider("ntfy", ""),
        provider("gotify", "endpoint = \"http://gotify.example.com\""),
        provider("ntfy", "endpoint = \"https://n.example\"\nusername = \"phil\""),
        provider(
            "ntfy",
            "endpoint = \"https://n.example\"\ntoken = \"tk_1\"\nusername = \"phil\"\npassword = \"x\"",
        ),
        provider("webhook", "endpoint = \"https://w.example\""),
        provider("webhook", "endpoint = \"https://w.example\"\nsecret = \"hunter2\""),
        provider("webhook", "endpoint = \"https://w.example\"\nsecret = [{ env = \"EMPTY\" }, 7]"),
    ];
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    insta::assert_snapshot!(errors(&files), @r##"
    1:1: providers[0].endpoint: is required for this kind, as in "https://ntfy.example.com"
    4:12: providers[0].endpoint: must be https: plain http is allowed towards this machine only, or anywhere with insecure_http = true
    1:1: providers[0].password: is required beside username
    5:9: providers[0].token: cannot stand beside username and password; keep one of the two
    1:1: providers[0].secret: is required for kind "webhook"
    5:10: providers[0].secret: must begin with whsec_ (or whsk_ for Ed25519); make one with: echo "whsec_$(openssl rand -base64 32)", and give it to the receiver too
    5:30: providers[0].secret[1]: must be a string, { env = "NAME" } or { file = "path" }, not a whole number
    "##);
}

#[test]
fn plain_http_and_a_list_of_secrets_are_taken_where_they_are_allowed() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let settings = load(&format!(
        "[[providers]]\nid = \"w\"\nkind = \"webhook\"\nendpoint = \"http://hooks.example.com/push\"\n\
         insecure_http = true\nsecret = [\"{secret}\", \"{secret}\"]"
    ))
    .unwrap();
    let masked = settings.masked();
    assert_eq!(masked["providers"][0]["secret"], serde_json::json!(["***", "***"]));
}

#[test]
fn events_need_a_url_a_secret_and_types_that_exist() {
    let client = |events: &str| {
        format!(
            "[[clients]]\nname = \"shop\"\nkey = {{ env = \"PUSHYARD_SHOP_KEY\" }}\nevents = {events}"
        )
    };
    let secret = "secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"";
    insta::assert_snapshot!(errors(&[
        "[admin]\nevents = {}",
        &client(&format!("{{ url = \"http://example.com/\", {secret}, types = [\"delivery.send\"] }}")),
        &client("{ url = \"https://example.com/\", secret = \"guessme\", types = [] }"),
    ]), @r##"
    2:10: admin.events.secret: is required
    2:10: admin.events.url: is required
    4:18: clients[0].events.url: must begin with https:// (http:// only towards this machine, or with insecure_http = true)
    4:101: clients[0].events.types[0]: no event is called "delivery.send"; did you mean "delivery.sent"?
    4:51: clients[0].events.secret: must begin with whsec_ (or whsk_ for Ed25519); make one with: echo "whsec_$(openssl rand -base64 32)", and give it to the receiver too
    4:70: clients[0].events.types: names no event; name one, or remove the key to get all
    "##);
}
