//! kill -9 under load: what was answered 202 is never lost, and copies are made
//! only where an answer was truly unknown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::harness::{PATIENCE, World, client, fcm, message};

#[tokio::test]
async fn kill_9_under_load_loses_nothing_that_was_accepted() {
    let world = World::new().await;
    let mut accepted: Vec<String> = Vec::new();
    for round in 0..3 {
        let router = world.router();
        let (api, stop) = (router.api().to_owned(), Arc::new(AtomicBool::new(false)));
        let mut load = tokio::task::JoinSet::new();
        for worker in 0..8 {
            let (api, stop, client) = (api.clone(), stop.clone(), client());
            load.spawn(async move {
                let mut accepted = Vec::new();
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let body = message(&[fcm(&format!("slow50-{round}-{worker}-{n}"))]);
                    let sent = client.post(format!("{api}/v1/messages")).json(&body).send().await;
                    let Ok(answer) = sent else { break };
                    if answer.status() == 202
                        && let Ok(value) = answer.json::<Value>().await
                    {
                        accepted.push(value["deliveries"][0]["id"].as_str().unwrap().to_owned());
                    }
                }
                accepted
            });
        }
        router
            .until("/metrics", |metrics| {
                let text = metrics.as_str().unwrap_or_default();
                let sent = text.lines().find_map(|line| {
                    line.strip_prefix(
                        "pushyard_deliveries_total{route=\"default\",state=\"sent\"} ",
                    )
                });
                sent.is_some_and(|count| count.parse::<u64>().unwrap_or(0) > 200)
            })
            .await;
        router.kill();
        stop.store(true, Ordering::Relaxed);
        while let Some(done) = load.join_next().await {
            accepted.extend(done.unwrap());
        }
    }
    assert!(accepted.len() > 600);
    let control = world.simulator.control();
    control.expect(accepted.iter().map(String::as_str));
    let _router = world.router();
    let arrived = async {
        while control.summary().lost > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, arrived)
        .await
        .unwrap_or_else(|_| panic!("lost: {:?}", control.summary()));
}

#[tokio::test]
async fn the_same_idempotency_key_is_the_same_message_after_a_crash() {
    let world = World::new().await;
    let mut body = message(&[fcm("phone")]);
    body["idempotency_key"] = serde_json::json!("order-7");
    let router = world.router();
    let first = router.accept(&body).await;
    router.kill();
    let router = world.router();
    assert_eq!(router.accept(&body).await, first);
}
