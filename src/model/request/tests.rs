//! Every option, list and message of the request grammar, and which recorded devices a request
//! selects.

mod container_hotplug;
mod devices;
mod lists;
mod options;
mod properties;

use super::*;

fn request(text: &str) -> Request {
    text.parse()
        .unwrap_or_else(|error| panic!("{text:?} should be a request: {error}"))
}

fn fault(text: &str) -> String {
    match text.parse::<Request>() {
        Err(RequestError::Malformed { fault, .. }) => fault.to_string(),
        other => panic!("{text:?} should be malformed: {other:?}"),
    }
}
