//! The edges of the listeners, met by peers that no HTTP client library plays: one
//! that sends its body byte by byte, and one with headers beyond the bounds. Both
//! get an answer that names their request, and the next one is served. And TLS:
//! who comes with it, who comes without, and who is connected while a certificate
//! is exchanged.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use reqwest::{StatusCode, Version};
use serde_json::{Value, json};

use super::harness::{PATIENCE, Router, World, apns, client_builder, message};

const ID: &str = "x-request-id: edge-1\r\n";

/// Sends `head`, then a byte of a body again and again until there is an answer
/// or the connection ends; the answer.
fn talk(router: &Router, head: &str, drip: bool) -> String {
    let address = router.api().split_once("//").unwrap().1;
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    // Paces the drops; each read also looks for the answer.
    stream
        .set_read_timeout(Some(if drip { Duration::from_millis(100) } else { PATIENCE }))
        .unwrap();
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(many) => answer.extend_from_slice(&buffer[..many]),
            Err(error) if drip && error.kind() == std::io::ErrorKind::WouldBlock => {
                if stream.write_all(b" ").is_err() {
                    break;
                }
            }
            // A reset after the answer is an end as well.
            Err(_) => break,
        }
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_dripping_body_is_408_and_large_headers_are_431_each_with_its_request_id() {
    let world = World::new().await;
    let router = world.router();
    let drip = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: a\r\n{ID}content-type: application/json\r\n\
         content-length: 100000\r\n\r\n"
    );
    let many = "x: y\r\n".repeat(120);
    let large = format!("x: {}\r\n", "y".repeat(20_000));
    let close = "connection: close\r\n";
    let get = move |path: &str, headers: &str| {
        format!("GET {path} HTTP/1.1\r\nhost: a\r\n{ID}{close}{headers}\r\n")
    };
    tokio::task::spawn_blocking(move || {
        for (head, dripping, status) in [
            (drip, true, 408),
            (get("/openapi.json", &many), false, 431),
            (get("/openapi.json", &large), false, 431),
            (get("/nowhere", ""), false, 404),
        ] {
            let answer = talk(&router, &head, dripping);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
            assert!(answer.contains(ID), "{answer}");
            if status != 404 {
                assert!(answer.ends_with("\r\n\r\n"), "no body: {answer}");
            }
        }
    })
    .await
    .unwrap();
}

/// A certificate for the listeners, written where the configuration names it.
pub(super) fn certify(world: &World) -> String {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    fs::write(world.dir.path().join("cert.pem"), made.cert.pem()).unwrap();
    fs::write(world.dir.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    made.cert.pem()
}

/// A router with TLS on both listeners, and a client that trusts its certificate.
fn with_tls(world: &World) -> Router {
    let certificate = certify(world);
    let text = fs::read_to_string(world.config()).unwrap();
    let listen = "listen = \"127.0.0.1:0\"\n";
    let tls = format!("{listen}tls = {{ cert = \"cert.pem\", key = \"key.pem\" }}\n");
    fs::write(world.config(), text.replace(listen, &tls)).unwrap();
    world.router().with_tls(&certificate)
}

#[tokio::test]
async fn both_listeners_speak_http2_and_http1_over_tls() {
    let world = World::new().await;
    let router = with_tls(&world);
    router.settle(&message(&[apns("a")])).await;
    let root = fs::read(world.dir.path().join("cert.pem")).unwrap();
    let builder = || {
        let root = reqwest::Certificate::from_pem(&root).unwrap();
        client_builder().tls_certs_only([root])
    };
    for (client, version) in
        [(builder(), Version::HTTP_2), (builder().http1_only(), Version::HTTP_11)]
    {
        let client = client.build().unwrap();
        for url in [format!("{}/openapi.json", router.api()), format!("{}/livez", router.admin())] {
            let answer = client.get(&url).send().await.unwrap();
            assert_eq!((answer.status(), answer.version()), (StatusCode::OK, version), "{url}");
        }
    }
    // Who does not trust it is not served.
    assert!(client_builder().build().unwrap().get(router.api()).send().await.is_err());
}

#[tokio::test]
async fn a_certificate_is_exchanged_by_a_reload_and_connections_stay() {
    let world = World::new().await;
    let router = with_tls(&world);
    router.settle(&message(&[apns("before")])).await;
    let renewed = certify(&world);
    let hung_up = Command::new("kill").args(["-HUP", &router.pid().to_string()]).status();
    assert!(hung_up.unwrap().success());

    let root = reqwest::Certificate::from_pem(renewed.as_bytes()).unwrap();
    let newcomer = client_builder().tls_certs_only([root]).build().unwrap();
    let url = format!("{}/livez", router.admin());
    let trusted = async {
        // Trusted as soon as the reload is through.
        while newcomer.get(&url).send().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, trusted).await.unwrap();
    // This client trusts the first certificate alone: its connections live on.
    router.settle(&message(&[apns("after")])).await;
    assert!(router.log().contains("server.tls"), "{}", router.log());

    // A key that does not fit changes nothing.
    let other = rcgen::KeyPair::generate().unwrap();
    fs::write(world.dir.path().join("key.pem"), other.serialize_pem()).unwrap();
    let reload = format!("{}/admin/v1/reload", router.admin());
    let answer = newcomer.post(reload).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let told: Value = answer.json().await.unwrap();
    assert_eq!(told["errors"][0]["key"], json!("server.tls.key"), "{told}");
    assert_eq!(newcomer.get(&url).send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn plain_http_to_a_listener_with_tls_is_told_so_and_the_next_is_served() {
    let world = World::new().await;
    let router = with_tls(&world);
    let router = tokio::task::spawn_blocking(move || {
        let answer = talk(&router, "GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n", false);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("https://"), "{answer}");
        router
    })
    .await
    .unwrap();
    router.settle(&message(&[apns("a")])).await;
}
