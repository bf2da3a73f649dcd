//! The edges of the listeners, met by peers that no HTTP client library plays: one
//! that sends its body byte by byte, and one with headers beyond the bounds. Both
//! get an answer that names their request, and the next one is served.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::harness::{PATIENCE, Router, World};

const ID: &str = "x-request-id: edge-1\r\n";

/// Sends `head`, then a byte of a body again and again until there is an answer
/// or the connection ends; the answer.
fn talk(router: &Router, head: &str, drip: bool) -> String {
    let address = router.api().strip_prefix("http://").unwrap();
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
