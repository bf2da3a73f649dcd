//! A batch against a router that does as it is told.

use std::io::Write;
use std::net::Ipv4Addr;

use axum::Router;
use axum::body::{Body as AxumBody, Bytes};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response as AxumResponse};
use axum::routing::post;
use futures_util::StreamExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;
use crate::cli::client::base_url;

/// Sends `lines` to a router that answers with `answer`.
async fn batch<A, F>(lines: &str, answer: A) -> Result<Exchange, Failure>
where
    A: Fn(AxumBody) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = AxumResponse> + Send,
{
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let router = Router::new()
        .route("/v1/messages/batch", post(async move |body: AxumBody| answer(body).await));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = base_url(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    // Dropped with the test, the server with it.
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, router).await });

    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(lines.as_bytes()).unwrap();
    let input = Input::open(file.path()).await.unwrap();
    let client = Client::new(&url, None, "the API").unwrap();
    let progress = Progress::new(input.bytes());
    exchange(&client, input, &progress, &ui::without_terminal()).await
}

async fn whole(body: AxumBody) -> String {
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

const REFUSED: &str =
    r#"{"line":3,"problem":{"code":"invalid","status":422,"title":"Invalid","detail":"no"}}"#;

#[tokio::test]
async fn each_line_is_passed_on_as_it_is_and_each_answer_counted() {
    let lines = "{\"a\":1}\n\n  nonsense\n{\"b\":2}";
    let ended = batch(lines, move |body| async move {
        assert_eq!(whole(body).await, lines);
        format!("{{\"line\":1,\"id\":\"x\"}}\n{REFUSED}\n{{\"line\":4,\"id\":\"y\"}}")
            .into_response()
    });
    let Exchange { tally, fed, broken } = ended.await.unwrap();
    assert_eq!(tally, Tally { accepted: 2, refused: 1, last_line: 4 });
    assert_eq!((fed.messages, fed.all), (3, true));
    assert!(broken.is_none());
}

#[tokio::test]
async fn answers_are_read_while_lines_are_still_sent() {
    // More than all buffers on the way hold: who does not read answers stands still.
    let messages: u64 = 200_000;
    let lines = "{\"to\":[{\"user\":\"bob\"}],\"data\":{}}\n".repeat(200_000);
    let ended = batch(&lines, async |body| {
        let mut line = 0_u64;
        let answers = body.into_data_stream().map(move |piece| {
            let mut answers = String::new();
            for _ in piece.unwrap().iter().filter(|byte| **byte == b'\n') {
                line += 1;
                answers.push_str(&format!("{{\"line\":{line},\"id\":\"0197\"}}\n"));
            }
            Ok::<_, std::convert::Infallible>(Bytes::from(answers))
        });
        AxumBody::from_stream(answers).into_response()
    });
    let Exchange { tally, fed, .. } = ended.await.unwrap();
    assert_eq!(tally, Tally { accepted: messages, refused: 0, last_line: messages });
    assert_eq!((fed.messages, fed.all), (messages, true));
}

#[tokio::test]
async fn a_batch_that_is_refused_as_a_whole_ends_as_that_refusal() {
    let lines = "{}\n".repeat(1_000_000);
    let ended = batch(&lines, async |_body| {
        (StatusCode::UNAUTHORIZED, r#"{"title":"No key","status":401}"#).into_response()
    });
    assert!(matches!(ended.await, Err(Failure::Refused(_))));
}

#[tokio::test]
async fn lines_without_an_answer_are_not_taken_for_accepted() {
    let ended = batch("{}\n{}\n{}\n", async |body| {
        whole(body).await;
        "{\"line\":1,\"id\":\"x\"}\n".into_response()
    });
    let Exchange { tally, fed, .. } = ended.await.unwrap();
    assert_eq!((tally.accepted, fed.messages), (1, 3));
}

#[tokio::test]
async fn a_router_that_is_not_there_leaves_nothing_in_doubt() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = base_url(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    drop(listener);
    let client = Client::new(&url, None, "the API").unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let input = Input::open(file.path()).await.unwrap();
    let ended = exchange(&client, input, &Progress::new(None), &ui::without_terminal()).await;
    assert!(matches!(ended, Err(Failure::Unreachable(_))));
}
