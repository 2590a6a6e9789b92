//! The operator's tool from outside, where no container is needed. (With containers:
//! tests/privileged.)

mod completion;
mod fake_watcher;
mod golden;
mod hostile;
#[path = "../support/json_schema.rs"]
mod json_schema;
mod listing;
mod policy;
#[path = "../support/record.rs"]
mod record;
mod recover;
mod scene;
mod schema;
