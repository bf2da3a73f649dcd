//! Another configuration while messages flow: what is wrong changes nothing, what
//! is right is taken up at once, and nothing is lost or cut.

use std::fs;
use std::process::Command;

use reqwest::Method;
use serde_json::json;

use super::harness::{World, apns, fcm, message, only};

#[tokio::test]
async fn a_broken_file_changes_nothing_and_is_told_with_its_lines() {
    let world = World::new().await;
    let router = world.router();
    let before = router.get("/admin/v1/config").await;
    let good = fs::read_to_string(world.config()).unwrap();
    fs::write(world.config(), good.replace("tiers", "teirs")).unwrap();
    let (status, told) = router.call(Method::POST, "/admin/v1/reload", None).await;
    assert_eq!((status.as_u16(), &told["code"]), (422, &json!("invalid_config")), "{told}");
    let errors = told["errors"].as_array().unwrap();
    assert!(errors.iter().all(|error| error["line"].as_u64().unwrap() > 0), "{told}");
    let nearest = "unknown key; did you mean \"tiers\"?";
    assert!(errors.iter().any(|error| error["detail"] == nearest), "{told}");
    assert_eq!(router.get("/admin/v1/config").await, before);
    let metrics = router.get("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("pushyard_config_last_reload_success 0"), "{metrics}");
    assert!(metrics.contains("pushyard_config_reloads_total{result=\"invalid\"} 1"), "{metrics}");
    // SIGHUP is refused as well, and the process lives.
    hang_up(router.pid());
    router.settle(&message(&[apns("still-here")])).await;
    fs::write(world.config(), good).unwrap();
    let (status, told) = router.call(Method::POST, "/admin/v1/reload", None).await;
    assert_eq!((status.as_u16(), &told["unchanged"]), (200, &json!(true)), "{told}");
}

#[tokio::test]
async fn what_waits_for_a_provider_goes_out_when_a_reload_brings_one() {
    let world = World::new().await;
    world.configure("[[routes]]\nname = \"late\"\ntiers = [[\"apns\"]]\n");
    let router = world.router();
    world.simulator.control().set_mode("apns", pushyard_simulator::Mode::Refusing).unwrap();
    let mut late = message(&[apns("late"), fcm("late")]);
    late["route"] = json!("late");
    let accepted = router.accept(&late).await;
    let path = format!("/v1/messages/{}", accepted["id"].as_str().unwrap());
    router.until(&path, |view| view["deliveries"]["items"][0]["attempts"][0].is_object()).await;

    let file = fs::read_to_string(world.config()).unwrap();
    let with_fcm = file.replace(
        "name = \"late\"\ntiers = [[\"apns\"]]",
        "name = \"late\"\ntiers = [[\"apns\"], [\"fcm\"]]",
    );
    assert_ne!(file, with_fcm);
    fs::write(world.config(), with_fcm).unwrap();
    hang_up(router.pid());
    let view = router.until(&path, |view| view["state"] == "sent").await;
    assert_eq!(only(&view)["provider"], "fcm", "{view}");
}

#[tokio::test]
async fn a_provider_that_is_gone_from_the_file_gets_nothing_more() {
    let world = World::new().await;
    let router = world.router();
    let file = fs::read_to_string(world.config()).unwrap();
    let (settings, rest) = file.split_once("[[routes]]").unwrap();
    let sections: Vec<&str> = settings.split("[[providers]]").collect();
    let kept: Vec<&str> =
        sections.into_iter().filter(|section| !section.contains("kind = \"apns\"")).collect();
    let routes = rest.replace("\"apns\", ", "").replace("[\"apns\"], ", "");
    fs::write(world.config(), format!("{}[[routes]]{routes}", kept.join("[[providers]]"))).unwrap();
    let (status, told) = router.call(Method::POST, "/admin/v1/reload", None).await;
    assert_eq!(status.as_u16(), 200, "{told}");
    assert!(told["changed"].to_string().contains("providers.apns"), "{told}");
    let audit = router.get("/admin/v1/audit").await;
    assert_eq!(audit["items"][0]["what"], "reload", "{audit}");
    assert!(audit["items"][0]["why"].to_string().contains("providers.apns"), "{audit}");
    let view = router.settle(&message(&[apns("a"), fcm("a")])).await;
    assert_eq!(only(&view)["provider"], "fcm", "{view}");
    let page = router.get("/admin/v1/providers").await;
    assert!(!page.to_string().contains("\"apns\""), "{page}");
}

fn hang_up(pid: u32) {
    let sent = Command::new("kill").args(["-HUP", &pid.to_string()]).status();
    assert!(sent.unwrap().success());
}
