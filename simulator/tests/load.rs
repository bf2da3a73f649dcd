//! Many pushes at once: nothing is lost, and what one costs is printed.

use futures_util::StreamExt as _;
use futures_util::stream;

use crate::harness::{Sim, soon, until};

/// Raise `PUSHYARD_LOAD` in a release build for a figure that means something.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_arrives_complete() {
    let count: u64 =
        std::env::var("PUSHYARD_LOAD").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000);
    let sim = Sim::start().await;
    let client = sim.apns().await;
    client.answer(&sim.push("0011")).await;
    until("the limit is raised", || client.stream_limit() == 1000).await;
    let pushes = stream::iter(0..count).map(|n| {
        let id = uuid::Uuid::from_u128(n.into()).to_string();
        client.start(&sim.push("00112233445566778899aabbccddeeff").delivery(&id))
    });
    let good = soon(
        pushes
            .buffer_unordered(200)
            .filter(|answer| std::future::ready(answer.as_ref().is_ok_and(|a| a.status == 200)))
            .count(),
    )
    .await;
    assert_eq!(good as u64, count);
    assert_eq!(sim.control().summary().unique, count + 1);
    assert_eq!(sim.vendor("apns").breaches, 0);
}
