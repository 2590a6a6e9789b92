//! A bundle's config.json, and the annotations in it.

use std::path::Path;

use oci_hotplug::model::oci::BundleConfig;
use oci_hotplug::model::policy::{ContainerTraits, Policy};
use oci_hotplug::model::request::annotations::{self, LowriscLifecycle};
use oci_hotplug::model::request::class::Classes;

use super::{is_fit_for_a_log, is_no_larger_than};

/// What is understood has an absolute root file system; its annotations are read, judged and
/// remembered in bounds.
pub fn hold(input: &[u8]) {
    let config = match BundleConfig::parse(Path::new("/bundle"), input) {
        Ok(config) => config,
        Err(error) => return is_fit_for_a_log(&error),
    };
    assert!(config.rootfs.is_absolute(), "{:?}", config.rootfs);
    assert_ne!(config.cgroups_path.as_deref(), Some(""));
    // As runc, it stops at the end of the document.
    let followed = [input, b" and more"].concat();
    assert_eq!(
        BundleConfig::parse(Path::new("/bundle"), &followed).ok().as_ref(),
        Some(&config)
    );
    let traits = ContainerTraits::new(
        config.annotations.clone(),
        config.user_namespace,
        config.allows_every_device,
    );
    let remembered = serde_json::to_vec(&traits).expect("strings and bools are JSON");
    is_no_larger_than(remembered.len(), input.len());
    let no_classes = Classes::none("/etc/oci-hotplug/config.toml".as_ref());
    match annotations::read(&config.annotations, &LowriscLifecycle::default(), &no_classes) {
        Ok(asks) => {
            for asked in &asks.entries {
                if let Err(denial) = Policy::default().authorise(&traits, asked) {
                    assert!(!denial.to_string().is_empty());
                }
            }
        }
        Err(error) => is_fit_for_a_log(&error),
    }
}
