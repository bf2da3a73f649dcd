//! Our APNs and FCM adapters against the crates that others use.
//!
//! Each case is a message for us and the same one made with `a2`'s builders, or with
//! `fcm_v1`'s types. The JSON must be the same but for differences that are named
//! here, each with its reason. Reasons: every one that `a2` knows is answered by a
//! stand-in over TLS, and our outcome compared with what Apple says of it. The
//! program tells each difference and ends with 1 if there is any.

mod apns;
mod fcm;
mod ours;
mod reasons;

use std::process::ExitCode;

use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut report = Report::default();
    apns::compare(&mut report);
    fcm::compare(&mut report);
    reasons::compare(&mut report).await;
    println!("{} comparisons, {} differences", report.made, report.different);
    ExitCode::from(u8::from(report.different > 0 || report.made == 0))
}

/// What was compared, and how much of it differs.
#[derive(Default)]
pub struct Report {
    made: u32,
    different: u32,
}

impl Report {
    /// Compares, and tells a difference.
    pub fn same(&mut self, what: &str, ours: &Value, theirs: &Value) {
        self.made += 1;
        if ours != theirs {
            self.different += 1;
            println!("{what}\n  ours   {ours}\n  theirs {theirs}");
        }
    }
}
