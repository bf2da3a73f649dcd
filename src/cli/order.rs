//! Orders to the router, as `providers drain`, `routes pause` and the like give
//! them: what happens, why, and for how long (admin API).

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{ANSWER_TIMEOUT, Client};
use super::failure::Failure;
use super::ui::{self, Ui};

/// What every order takes.
#[derive(Debug, Args)]
pub(super) struct Order {
    /// Which
    #[arg(value_name = "NAME")]
    pub(super) name: String,
    /// Why, for the audit list
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
}

/// How long it is to hold.
#[derive(Debug, Args)]
pub(super) struct Lasting {
    #[command(flatten)]
    pub(super) order: Order,
    /// It ends by itself after this time, as in 30m
    #[arg(long, value_name = "TIME")]
    pub(super) expires_in: Option<String>,
}

impl Lasting {
    /// The body of the call.
    pub(super) fn body(&self) -> Value {
        let mut body = self.order.body();
        if let (Some(time), Some(body)) = (&self.expires_in, body.as_object_mut()) {
            body.insert("expires_in".to_owned(), json!(time));
        }
        body
    }
}

impl Order {
    /// The body of the call.
    pub(super) fn body(&self) -> Value {
        self.reason.as_ref().map_or_else(|| json!({}), |reason| json!({"reason": reason}))
    }
}

/// Gives it, and shows what the router says then.
pub(super) async fn give(
    client: &Client,
    ui: &Ui,
    method: Method,
    path: &[&str],
    body: Option<&Value>,
    done: &str,
) -> Result<(), Failure> {
    let path = [&["admin", "v1"], path].concat();
    let mut call = client.call(method, &path, &[]).timeout(ANSWER_TIMEOUT);
    if let Some(body) = body {
        call = call.json(body);
    }
    let reply = client.fetch(call).await?;
    if ui.json { ui::say_json(&reply.body) } else { ui::say(done) }
}
