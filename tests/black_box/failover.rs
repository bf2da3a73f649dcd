//! A vendor fails: the other one gets it, at once.

use std::time::Duration;

use pushyard_simulator::{Behaviour, Mode};
use serde_json::json;

use super::harness::{World, apns, fcm, message, only};

#[tokio::test]
async fn a_vendor_that_answers_500_is_failed_over_within_the_round() {
    let world = World::new().await;
    let router = world.router();
    world.simulator.control().set_mode("apns", Mode::Failing).unwrap();
    let view = router.settle(&message(&[apns("phone"), fcm("phone")])).await;
    let delivery = only(&view);
    assert_eq!((&delivery["state"], &delivery["provider"]), (&json!("sent"), &json!("fcm")));
    let outcomes: Vec<_> =
        delivery["attempts"].as_array().unwrap().iter().map(|a| &a["outcome"]).collect();
    assert_eq!(outcomes, ["Unavailable", "Accepted"], "{view}");
    let metrics = router.get("/metrics").await;
    let line = "pushyard_failovers_total{from=\"apns\",reason=\"Unavailable\",route=\"default\",to=\"fcm\"} 1";
    assert!(metrics.as_str().unwrap().contains(line), "{metrics}");
}

#[tokio::test]
async fn a_dead_vendor_is_ejected_and_comes_back_by_canaries() {
    let world = World::new().await;
    world.configure(
        "[[providers]]\nid = \"unused\"\nkind = \"fcm\"\nservice_account = { file = \"service-account.json\" }\n",
    );
    let router = world.router();
    let control = world.simulator.control();
    control.set_mode("apns", Mode::Refusing).unwrap();
    for n in 0..10 {
        let view =
            router.settle(&message(&[apns(&format!("p-{n}")), fcm(&format!("p-{n}"))])).await;
        assert_eq!(only(&view)["provider"], "fcm", "{view}");
    }
    let apns_view =
        router.until("/admin/v1/providers/apns", |view| view["state"] == "ejected").await;
    assert_eq!(apns_view["reason"], "consecutive");
    // Only APNs can reach these: they wait, and canaries go on although the
    // ejection has not ended.
    for n in 0..20 {
        router.accept(&message(&[apns(&format!("only-{n}"))])).await;
    }
    control.set_mode("apns", Mode::Healthy).unwrap();
    router.until("/admin/v1/providers/apns", |view| view["state"] == "healthy").await;
    router.until("/admin/v1/providers/apns", |view| view["parked"] == 0).await;
    let log = router.log();
    assert!(log.contains("ejected") && log.contains("failover"), "{log}");
}

#[tokio::test]
async fn a_vendor_that_falls_silent_is_ejected_and_its_messages_go_to_the_other() {
    let world = World::new().await;
    let router = world.router();
    let to_both = |n: u32| message(&[apns(&format!("s-{n}")), fcm(&format!("s-{n}"))]);
    assert_eq!(only(&router.settle(&to_both(0)).await)["provider"], "apns");
    world.simulator.control().set_mode("apns", Mode::Blackhole).unwrap();
    let messages = [to_both(1), to_both(2), to_both(3)];
    let (first, second, third) = tokio::join!(
        router.settle(&messages[0]),
        router.settle(&messages[1]),
        router.settle(&messages[2]),
    );
    for view in [first, second, third] {
        let delivery = only(&view);
        assert_eq!((&delivery["state"], &delivery["provider"]), (&json!("sent"), &json!("fcm")));
        let cut = &delivery["attempts"][0];
        assert_eq!((&cut["outcome"], &cut["code"]), (&json!("Ambiguous"), &json!("stall")));
        let waited_ms = cut["latency_ms"].as_u64().unwrap();
        assert!((2000..3500).contains(&waited_ms), "{view}");
    }
    let view = router.get("/admin/v1/providers/apns").await;
    assert_eq!((&view["state"], &view["reason"]), (&json!("ejected"), &json!("stall")), "{view}");
    // Its connections are not used again: a canary goes out on a fresh one.
    world.simulator.control().set_mode("apns", Mode::Healthy).unwrap();
    let view = router.settle(&message(&[apns("only-1")])).await;
    assert_eq!(only(&view)["state"], "sent", "{view}");
}

#[tokio::test]
async fn a_vendor_that_is_slow_but_alive_is_not_cut() {
    let world = World::new().await;
    let router = world.router();
    world.simulator.control().set_mode("apns", Mode::Slow).unwrap();
    let messages = [1, 2, 3, 4].map(|n| message(&[apns(&format!("slow-{n}")), fcm("phone")]));
    let views = tokio::join!(
        router.settle(&messages[0]),
        router.settle(&messages[1]),
        router.settle(&messages[2]),
        router.settle(&messages[3]),
    );
    for view in [views.0, views.1, views.2, views.3] {
        let delivery = only(&view);
        assert_eq!((&delivery["state"], &delivery["provider"]), (&json!("sent"), &json!("apns")));
        assert_eq!(delivery["attempts"].as_array().unwrap().len(), 1, "{view}");
        assert!(delivery["attempts"][0]["latency_ms"].as_u64().unwrap() >= 3000, "{view}");
    }
    let view = router.get("/admin/v1/providers/apns").await;
    assert_ne!(view["state"], "ejected", "{view}");
}

#[tokio::test]
async fn a_vendor_that_throttles_gets_no_call_before_its_time() {
    let world = World::new().await;
    world.configure("[[routes]]\nname = \"fcm-first\"\ntiers = [[\"fcm\"], [\"apns\"]]\n");
    let router = world.router();
    let control = world.simulator.control();
    let behaviour = Behaviour { retry_after_s: Some(60), ..Behaviour::of(Mode::Throttling) };
    control.set("fcm", behaviour).unwrap();
    let to_both = |n: u32| {
        let mut both = message(&[apns(&format!("t-{n}")), fcm(&format!("t-{n}"))]);
        both["route"] = json!("fcm-first");
        both
    };
    let view = router.settle(&to_both(0)).await;
    assert_eq!(only(&view)["attempts"][0]["outcome"], "Throttled", "{view}");
    control.set_mode("fcm", Mode::Healthy).unwrap();
    let before = control.vendor("fcm").unwrap().requests;
    for n in 1..20 {
        let view = router.settle(&to_both(n)).await;
        assert_eq!(only(&view)["provider"], "apns", "{view}");
    }
    assert_eq!(control.vendor("fcm").unwrap().requests, before);
    router.until("/admin/v1/providers/fcm", |view| view["paused_until"].is_string()).await;
}

#[tokio::test]
async fn a_broadcast_goes_to_all_of_its_tier_at_once_and_is_sent_if_one_takes_it() {
    let world = World::new().await;
    let route =
        "[[routes]]\nname = \"alarm\"\ntiers = [[\"apns\", \"fcm\"]]\nbalance = \"broadcast\"\n";
    world.configure(route);
    let router = world.router();
    let control = world.simulator.control();
    let alarm = |n: u32| {
        let mut both = message(&[apns(&format!("t-{n}")), fcm(&format!("t-{n}"))]);
        both["route"] = json!("alarm");
        both
    };
    let view = router.settle(&alarm(0)).await;
    let delivery = only(&view);
    assert_eq!(delivery["state"], "sent", "{view}");
    let mut providers: Vec<_> =
        delivery["attempts"].as_array().unwrap().iter().map(|a| a["provider"].as_str()).collect();
    providers.sort_unstable();
    assert_eq!(providers, [Some("apns"), Some("fcm")], "{view}");
    // A slow one holds up nobody, and one that fails does not undo what the other took.
    control.set_mode("apns", Mode::Failing).unwrap();
    control.set_mode("fcm", Mode::Slow).unwrap();
    let view = router.settle(&alarm(1)).await;
    let delivery = only(&view);
    assert_eq!((&delivery["state"], &delivery["provider"]), (&json!("sent"), &json!("fcm")));
    let outcomes: Vec<_> =
        delivery["attempts"].as_array().unwrap().iter().map(|a| a["outcome"].as_str()).collect();
    assert_eq!(outcomes, [Some("Unavailable"), Some("Accepted")], "{view}");
}

#[tokio::test]
async fn a_revoked_key_ejects_at_once_and_nothing_is_lost() {
    let world = World::new().await;
    let router = world.router();
    world.simulator.control().set_mode("apns", Mode::Unauthorised).unwrap();
    let view = router.settle(&message(&[apns("phone"), fcm("phone")])).await;
    assert_eq!(only(&view)["attempts"][0]["outcome"], "AuthFailed");
    assert_eq!(only(&view)["provider"], "fcm");
    let view = router.until("/admin/v1/providers/apns", |view| view["state"] == "ejected").await;
    assert_eq!(view["reason"], "auth");
}

#[tokio::test]
async fn a_dead_token_moves_on_to_the_next_address_and_fails_when_none_is_left() {
    let world = World::new().await;
    let router = world.router();
    let view = router.settle(&message(&[apns("gone-1"), fcm("phone")])).await;
    assert_eq!(only(&view)["provider"], "fcm", "{view}");
    let view = router.settle(&message(&[apns("gone-2"), fcm("gone-2")])).await;
    assert_eq!(
        (&only(&view)["state"], &only(&view)["reason"]),
        (&json!("failed"), &json!("unreachable"))
    );
}

#[tokio::test]
async fn a_lost_answer_is_resent_or_stopped_as_the_message_says() {
    let world = World::new().await;
    let router = world.router();
    let mut stop = message(&[apns("lost-1"), fcm("phone")]);
    stop["on_ambiguous"] = json!("stop");
    let view = router.settle(&stop).await;
    assert_eq!(
        (&only(&view)["state"], &only(&view)["reason"]),
        (&json!("unknown"), &json!("ambiguous"))
    );
    let view = router.settle(&message(&[apns("lost-2"), fcm("phone")])).await;
    assert_eq!(only(&view)["state"], "sent", "{view}");
    let summary = world.simulator.control().summary();
    assert_eq!(
        (summary.unique, summary.duplicates),
        (2, 1),
        "one copy more, for one ambiguous attempt"
    );
}

#[tokio::test]
async fn vendor_answers_that_are_garbage_are_classified() {
    let world = World::new().await;
    let router = world.router();
    let view = router.settle(&message(&[apns("html502-1"), fcm("phone")])).await;
    assert_eq!(only(&view)["attempts"][0]["outcome"], "Ambiguous", "{view}");
    let view = router.settle(&message(&[fcm("html502-1"), apns("phone")])).await;
    assert_eq!(only(&view)["state"], "sent", "{view}");
    let mut never = message(&[fcm("html502-2")]);
    never["ttl"] = json!("0s");
    let view = router.settle(&never).await;
    assert_eq!((&only(&view)["state"], &only(&view)["reason"]), (&json!("expired"), &json!("ttl")));
}

#[tokio::test]
async fn connections_that_a_vendor_drains_cost_no_message() {
    let world = World::new().await;
    let router = world.router();
    let view = router.settle(&message(&[apns("goaway-1"), fcm("phone")])).await;
    assert_eq!(only(&view)["state"], "sent", "{view}");
    let behaviour =
        Behaviour { lasts: Some(Duration::from_millis(300)), ..Behaviour::of(Mode::Goaway) };
    world.simulator.control().set("apns", behaviour).unwrap();
    for n in 0..20 {
        let view =
            router.settle(&message(&[apns(&format!("g-{n}")), fcm(&format!("g-{n}"))])).await;
        assert_eq!(only(&view)["state"], "sent", "{view}");
    }
    assert_eq!(world.simulator.control().summary().duplicates, 0);
}

#[tokio::test]
async fn a_broadcast_reaches_its_channel_and_a_channel_that_is_gone_is_listed() {
    let world = World::new().await;
    let router = world.router();
    // In base64 as Apple gives channels out: "sim-match", and one that nobody made.
    let broadcast = |channel: &str| {
        json!({"to": [{"addresses": [{"kind": "apns", "channel": channel}]}],
               "data": {"match": "7"},
               "overrides": {"apns": {"aps": {"timestamp": 1, "event": "update",
                                              "content-state": {"score": "1:0"}}}}})
    };
    let view = router.settle(&broadcast("c2ltLW1hdGNo")).await;
    assert_eq!(only(&view)["state"], "sent", "{view}");
    let request = world.simulator.control().requests(Some("apns"), 1).unwrap().remove(0);
    assert_eq!(request.path, "/4/broadcasts/apps/com.example.app");
    assert_eq!(request.headers["apns-channel-id"], "c2ltLW1hdGNo");
    let view = router.settle(&broadcast("bm9ib2R5")).await;
    let delivery = only(&view);
    assert_eq!(
        (&delivery["state"], &delivery["reason"]),
        (&json!("failed"), &json!("unreachable"))
    );
    assert_eq!(delivery["attempts"][0]["code"], "ChannelNotRegistered", "{view}");
    // What is not for Live Activities is for no channel.
    let alert = json!({"to": [{"addresses": [{"kind": "apns", "channel": "c2ltLW1hdGNo"}]}],
                       "notification": {"body": "hi"}});
    let view = router.settle(&alert).await;
    assert_eq!(only(&view)["reason"], "invalid", "{view}");
    let log = router.log();
    assert!(!log.contains("c2ltLW1hdGNo") && !log.contains("bm9ib2R5"), "{log}");
}
