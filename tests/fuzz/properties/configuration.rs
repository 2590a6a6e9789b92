//! config.toml: settings, classes, and the policy's rules.

use std::path::Path;

use oci_hotplug::host::config::{Config, ConfigError};
use oci_hotplug::model::device::inventory::Inventory;
use oci_hotplug::model::policy::{ContainerTraits, HostUse, Policy, PolicyContext, Verdict};
use oci_hotplug::model::request::entry::{Origin, RequestEntry};
use oci_hotplug::model::request::parse_request_list;

use super::devices;

const FILE: &str = "/etc/oci-hotplug/config.toml";

/// A file that is understood gives classes and a policy, or is refused with its name and not much
/// more than its own words; what the policy denies to everybody stays denied, whatever else the
/// file says.
pub fn hold(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let config = match Config::parse(Path::new(FILE), text) {
        Ok(config) => config,
        Err(error) => return is_named(&error, text),
    };
    assert!(config.state_dir.is_absolute());
    assert!((1..=9).contains(&config.prestart_timeout.as_secs()));
    match config.classes() {
        Ok(classes) => {
            for (name, _) in classes.iter() {
                let asks = parse_request_list(&format!("class:{name}")).expect("a class can be requested");
                let expanded = classes.expand(Origin::Annotation, asks).expect("it is defined");
                assert!(!expanded.is_empty(), "class {name} is empty");
                assert!(expanded.entries.iter().all(RequestEntry::is_trusted));
            }
        }
        Err(error) => is_named(&error, text),
    }
    match config.policy() {
        Ok(policy) => judges(&policy),
        Err(error) => is_named(&error, text),
    }
}

fn is_named(error: &ConfigError, text: &str) {
    let message = error.to_string();
    assert!(message.contains(FILE), "{message}");
    assert!(
        message.len() <= 16 * text.len() + 2000,
        "{} bytes of {}",
        message.len(),
        text.len()
    );
}

/// Whatever is allowed: a policy with no rule that allows, and no default that does, gives an
/// untrusted request nothing.
fn judges(policy: &Policy) {
    let samples = devices::samples();
    let inventory = Inventory::new(samples.clone());
    let traits = ContainerTraits::default();
    let host_use = HostUse::unknown();
    let context = PolicyContext {
        traits: &traits,
        inventory: &inventory,
        host_use: &host_use,
    };
    let request = "glob:/dev/**".parse().expect("a request");
    let asked = RequestEntry::new(Origin::Annotation, request);
    let started = policy.authorise(&traits, &asked);
    assert!(!policy.classes_only || started.is_err());
    for device in &samples {
        let verdict = policy.judge(&asked, device, &context);
        if policy.allow.is_empty() && device.subsystem.as_deref() == Some("block") && is_default(policy) {
            assert!(
                !matches!(verdict, Verdict::Allowed(_)),
                "a disk on no USB was given away"
            );
        }
    }
}

fn is_default(policy: &Policy) -> bool {
    policy.fallback != oci_hotplug::model::policy::Fallback::Anything
}
