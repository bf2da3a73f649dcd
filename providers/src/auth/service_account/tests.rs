//! The key file's faults by name, and one assertion against OpenSSL's.

use serde_json::{Value, json};

use super::ServiceAccount;
use crate::Secret;

/// Made for these tests with `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048`.
const RSA_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIIEvAIBADANBgkqhkiG9w0BAQEFAASCBKYwggSiAgEAAoIBAQDHE5n5vC5hUehJ
WrNbVdsmcUxS4MD2bxv5jIJ/Hw3uebtFKyIu/3GHlJdIwKrrgAOowBHa5cmtZvWd
lnRzPMux2qF0vIMNTQvLscOoZ1byEecyvMXhqIzq3XbwWqhVo1jVwcDHyWBrKjqf
bLWcR/H9gV9Pnz8cx8wW1qFnnTRU3UVy8s2mD+brlS06+Gh+ZDphjTIZ9T3fIKlR
rN9x8RpHQxuwMLkRq0r0mx/gZ/P50lopCk9T6/lHcMcLrkhjP79tsfokCAbFRIQr
jA6gg4H5ztE6HCH2Dsn7Igk+W7yDI41u9Gv2xtMQsOM1vHE+D860SfY/KWiefVpX
817jKFdVAgMBAAECggEADULxRClkxo9kA7Ty00AIKgqsnK3DtPboXGqfi9PYA/2g
e8ZYj9xs5e0AWfSZvjfoJn7rAZPCqFY+QOnzpnSTliy8CjB/o2xxP3e/UrHVoSkP
p3nbTcHCZ2fq4y6K3a+UvKKcUsLHtUPaJWIiw/8n7+0FGiL/2400u4W/OU2H3apE
tS952YZHik+LTCiXw0nSbyC1i/C9Qfi5B6I7rpwGJzVEwihZMrBMdPkNl80LuwKu
BXcjIiPJPMdDwsoKIxVPAN3ZW/2fc9M6Ml+Yr/wWzNGgSdy7Jc7UiKX4SxHvq91i
9TFuq4RwvZwg02gfqrpS3wEL8olORh6aAQmLhUoI6QKBgQDuo2sFa6xms5t38KG/
43jrQtTNL/scSYsc6crV2rqLxQBrmT7Dpxe6DAb10S9RV4kWmkPbEeU0ubi1iV05
Tu5bYTCxL+8d9ky0SETsiyTwSR+rvaO5WwNyF7K1nRdpwIdG5Vs5chhs3hPvCFKg
0Vmi0aHbcYPdRdOhQ/WDZxfLbQKBgQDVj1rN9b65OXN6lOOKqaHlRCcFC9ps85Fb
EfKklLG5wW7jboegawBy4mvROyXXAl7IQyMgSU1j3raG3tDHAXgLAtLd6zMyhRLB
S65GNuxxPUJSeiNpcF8hy76q7OHTf10Wq1nnxakfDUhqdqBMqJTycdOpPtU+Nksp
WPoHHwgiiQKBgCy/ZfUJQLWtXiy6aYoy3Fy5FnA3XA3s2HIegNNjBXHqCe8jODq1
3WQclz2G8Sl+kY00dh7hFyqw3KrlzB5P57Ao5FmFVIA4zB9OIeZ9HPsVqyOoFshO
AbJmMTOO9nH1ESjBHz8BXwUjC3faBqxzNSyrxH8CpShbzJhDxwjRzwttAoGAMDOT
AzmcOqJE9j30va9b4ytmwzTRsBWpkSyT36HQG2UVai/gXMzJ5SRFwYvgFo9qZTkC
DJ9+4DO8buSLqt8iARo6DeywOY7flNFIHID5DPYOqh73Ly01y6L4/gtJTTtJ/3vd
ZvquGVweJClyNNs4AyC97U1JRCls/YAfrsvKQkECgYA1dHDEmOb92UTO51HKt8Q4
1Ees4VprtYnx0DS+wBtplUSTt+NRpV19ctFJOG78xaCk4U2h0u3ptbHtW5y3l4KV
y1TaVk9Z8iJDdfCu5pc1q5IXt8BWHCgcYG4U9yLuAG3iqvQvmXGWixBVrbaGERN8
Dqx/nQhdQFVcD4JGWJRr+g==
-----END PRIVATE KEY-----
";

/// Made for these tests with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`.
const EC_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgmC+JzU2aV3/+P7Sg
q96I/Xdqqd6E0vWTZ1RxbTEDmXyhRANCAAQs8fjS9hiTnA8qLKhhIyTbCktjKIWN
qJsWdntz1QyrDsFA4zg7+cQwC/0ydZdezO8c80B8exi6PUv5pg/mIkUe
-----END PRIVATE KEY-----
";

const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";

/// Signed over the same text by `openssl dgst -sha256 -sign`.
const GOLDEN: &str = "\
    eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiIsImtpZCI6IjBhMWIyYzNkNGU1ZjYwNzE4MjkzYTRiNWM2ZDdlOGY5MD\
    EyMzQ1NjcifQ.eyJpc3MiOiJwdXNoeWFyZEBteS1wcm9qZWN0LmlhbS5nc2VydmljZWFjY291bnQuY29tIiwic2Nvc\
    GUiOiJodHRwczovL3d3dy5nb29nbGVhcGlzLmNvbS9hdXRoL2ZpcmViYXNlLm1lc3NhZ2luZyIsImF1ZCI6Imh0dHB\
    zOi8vb2F1dGgyLmdvb2dsZWFwaXMuY29tL3Rva2VuIiwiaWF0IjoxNjk5OTk5OTkwLCJleHAiOjE3MDAwMDM1OTB9.\
    GJ7fUg_1mYwzYSukSUNH7Gqqv8AquVMnV-hR7bZSI0si4HhhdsZfK36LFhGZEi73nq08iZ9iqzhP3K5LxgCxIr2Kpd\
    CaSP7TesIWQWyfZd_EizEDxNSl6EvwsspBHtJo8tLn6fnWfGscYMDDlkm7-cTt0nOgO7aahb8I_n5OxAFY4ZwVvnQa\
    uHNcttCH3Z7-EsTY5LJLQ59h6CJVm7aNjKVrXB1_YJxh8ehUbT7nWgd6S6N8UTmS5t3tz-TU06-mJb0wQaiSKIKFkQ\
    GZc10mQul2inllm-TZ0vfQLpzj2AtjI8NG_aLhESrKmTj8aNekKka1YddumlXHIkdSTHtyXw";

/// A whole key file whose assertions go to `token_uri`; other tests use it too.
pub(crate) fn key_file(token_uri: &str) -> Value {
    json!({
        "type": "service_account",
        "project_id": "my-project",
        "private_key_id": "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567",
        "private_key": RSA_KEY,
        "client_email": "pushyard@my-project.iam.gserviceaccount.com",
        "token_uri": token_uri,
    })
}

fn google() -> Value {
    key_file("https://oauth2.googleapis.com/token")
}

fn faults(file: &str) -> Vec<String> {
    match ServiceAccount::parse(&Secret::new(file.to_owned())) {
        Ok(_) => Vec::new(),
        Err(errors) => {
            assert!(errors.iter().all(|error| error.key == "service_account"));
            errors.into_iter().map(|error| error.detail).collect()
        }
    }
}

#[test]
fn an_assertion_is_the_one_that_openssl_signs() {
    let account = ServiceAccount::parse(&Secret::new(google().to_string())).ok().unwrap();
    assert_eq!(account.project_id, "my-project");
    assert_eq!(account.assertion(SCOPE, 1_700_000_000).unwrap().expose(), GOLDEN);
}

#[test]
fn the_audience_is_the_token_uri_letter_by_letter() {
    let file = key_file("https://tokens.example").to_string();
    let account = ServiceAccount::parse(&Secret::new(file)).ok().unwrap();
    assert_eq!(account.audience, "https://tokens.example");
}

#[test]
fn each_missing_or_wrong_field_is_named() {
    for field in ["project_id", "private_key_id", "private_key", "client_email", "token_uri"] {
        for value in [None, Some(json!("")), Some(json!(7))] {
            let mut file = google();
            let fields = file.as_object_mut().unwrap();
            match value {
                Some(value) => fields.insert(field.to_owned(), value),
                None => fields.remove(field),
            };
            let faults = faults(&file.to_string());
            assert_eq!(faults.len(), 1, "{field}");
            assert!(faults[0].contains(&format!("`{field}`")), "{faults:?}");
            assert!(faults[0].contains("generate new private key"), "{faults:?}");
        }
    }
}

#[test]
fn all_faults_are_told_at_once() {
    assert_eq!(faults(r#"{"type":"service_account"}"#).len(), 5);
}

#[test]
fn files_of_another_sort_are_recognised() {
    for (file, told) in [
        ("", "no JSON object"),
        ("AIzaSomething", "no JSON object"),
        ("[]", "no JSON object"),
        (r#"{"installed":{"client_secret":"hidden"}}"#, "client_secret.json"),
        (r#"{"web":{"client_secret":"hidden"}}"#, "client_secret.json"),
        (r#"{"project_info":{"project_id":"hidden"},"client":[]}"#, "google-services.json"),
        (r#"{"type":"authorized_user","refresh_token":"hidden"}"#, "another type"),
        (r#"{"type":"hidden"}"#, "a `type` other than"),
        (r#"{"apiKey":"hidden"}"#, "no `type`"),
    ] {
        let faults = faults(file);
        assert!(faults.len() == 1 && faults[0].contains(told), "{file}: {faults:?}");
        assert!(!faults[0].contains("hidden"), "{faults:?}");
    }
}

#[test]
fn a_key_that_cannot_sign_is_refused_without_being_shown() {
    let damaged = RSA_KEY.replace("MIIE", "AAAA");
    for (key, told) in [
        (EC_KEY.to_owned(), "no RSA key"),
        (damaged, "damaged"),
        (RSA_KEY.replace("PRIVATE KEY", "RSA PRIVATE KEY"), "PKCS#8"),
        (RSA_KEY.replace('\n', ""), "line breaks"),
        (RSA_KEY.replace('\n', "\\n"), "line breaks"),
        ("hidden".to_owned(), "PKCS#8"),
    ] {
        let mut file = google();
        file["private_key"] = key.into();
        let faults = faults(&file.to_string());
        assert!(faults.len() == 1 && faults[0].contains(told), "{told}: {faults:?}");
        assert!(!faults[0].contains("hidden") && !faults[0].contains("MII"), "{faults:?}");
    }
}

#[test]
fn assertions_go_over_tls_or_to_this_machine() {
    for (uri, taken) in [
        ("https://oauth2.googleapis.com/token", true),
        ("http://127.0.0.1:8080/token", true),
        ("http://[::1]:8080/token", true),
        ("http://localhost/token", true),
        ("http://oauth2.googleapis.com/token", false),
        ("ftp://127.0.0.1/token", false),
        ("oauth2.googleapis.com/token", false),
    ] {
        let faults = faults(&key_file(uri).to_string());
        assert_eq!(faults.is_empty(), taken, "{uri}: {faults:?}");
    }
}
