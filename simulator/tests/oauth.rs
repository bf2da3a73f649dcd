//! The token endpoint.

use crate::harness::{Claims, Push, Sim, now, reqwest_client, soon};

#[tokio::test]
async fn good_assertion_gets_a_token_that_counts() {
    let sim = Sim::with(|settings| settings.token_expires_in = 600).await;
    let (client, first) = sim.fcm().await;
    let answer = client.token(&sim, &Claims::good(&sim)).await.json();
    assert_eq!((&answer["expires_in"], &answer["token_type"]), (&600.into(), &"Bearer".into()));
    let second = format!("Bearer {}", answer["access_token"].as_str().unwrap());
    assert_ne!(first, second);
    for bearer in [first, second] {
        assert_eq!(client.answer(&Push::fcm(&bearer, "t")).await.status, 200, "both count");
    }
    assert_eq!(sim.vendor("fcm-oauth").requests, 2);
}

#[tokio::test]
async fn ordinary_client_gets_a_token() {
    let sim = Sim::start().await;
    let url = sim.account()["token_uri"].as_str().unwrap().to_owned();
    assert_eq!(url, format!("{}/token", sim.origin("fcm")));
    let request = reqwest_client(&sim)
        .post(url)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Claims::good(&sim).form(&sim));
    let answer = soon(request.send()).await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn assertion_is_checked() {
    let sim = Sim::start().await;
    let (client, _) = sim.fcm().await;
    let good = || Claims::good(&sim);
    let table = [
        (good().with("aud", "https://oauth2.googleapis.com/token"), "invalid_grant"),
        (good().with("iss", "someone@else"), "invalid_grant"),
        (good().with("exp", now() - 1), "invalid_grant"),
        (good().with("exp", now() + 3700), "invalid_grant"),
        (good().with("iat", now() + 1000), "invalid_grant"),
        (good().with("scope", "https://www.googleapis.com/auth/drive"), "invalid_scope"),
    ];
    for (claims, error) in table {
        let answer = client.token(&sim, &claims).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["error"]),
            (400, &error.into()),
            "{:?}",
            claims.0
        );
    }
}

#[tokio::test]
async fn forged_signature_and_wrong_form_are_refused() {
    let sim = Sim::start().await;
    let (client, _) = sim.fcm().await;
    let form = Claims::good(&sim).form(&sim);
    let push = Push { path: "/token".into(), ..Push::default() }
        .header("content-type", "application/x-www-form-urlencoded");
    let forged = format!("{}AAAA", &form[..form.len() - 4]);
    let table = [
        (push.clone().body(forged), "invalid_grant"),
        (push.clone().body("grant_type=password"), "unsupported_grant_type"),
        (push.clone().body(form.split('&').next().unwrap()), "invalid_request"),
        (
            push.clone().header("content-type", "application/json").body(form.clone()),
            "invalid_request",
        ),
    ];
    for (push, error) in table {
        let answer = client.answer(&push).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (400, &error.into()));
    }
    assert_eq!(client.answer(&push.method("GET")).await.status, 405);
}

#[tokio::test]
async fn metadata_server_gives_tokens_to_those_who_name_its_flavor() {
    let sim = Sim::start().await;
    let (client, _) = sim.fcm().await;
    let push = Push {
        method: "GET",
        path: "/computeMetadata/v1/instance/service-accounts/default/token?scopes=x".into(),
        headers: Vec::new(),
        body: String::new(),
    };
    assert_eq!(client.answer(&push).await.status, 403);
    let answer = client.answer(&push.header("metadata-flavor", "Google")).await;
    assert_eq!((answer.status.as_u16(), answer.header("metadata-flavor")), (200, "Google"));
    let bearer = format!("Bearer {}", answer.json()["access_token"].as_str().unwrap());
    assert_eq!(client.answer(&Push::fcm(&bearer, "t")).await.status, 200);
}
