//! The device plugin's configuration, in its own format and in those of the plugins that it
//! replaces.

use std::path::{Path, PathBuf};

use oci_hotplug::kubernetes::config::{
    Configuration, Definition, Group, MAX_UNITS, RemoteEntry, Texts, read,
};
use oci_hotplug::kubernetes::resources::names::ResourceName;
use oci_hotplug::model::request::class::Classes;

const FILE: &str = "/config/config.yaml";

/// What is understood has valid names, counts and requests. What is not is refused with the place,
/// and not much more than the text's own words.
pub fn hold(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let file = || Some((PathBuf::from(FILE), text.to_owned()));
    let classes = Classes::none(Path::new("/etc/oci-hotplug/config.toml"));
    let of = |texts: Texts| match read(&texts, &classes) {
        Ok(configuration) => is_valid(&configuration),
        Err(error) => {
            let message = error.to_string();
            assert!(
                !message.is_empty() && message.len() <= 16 * text.len() + 2000,
                "{message}"
            );
        }
    };
    of(Texts {
        devs: Some(text.to_owned()),
        ..Texts::default()
    });
    of(Texts {
        smarter: file(),
        ..Texts::default()
    });
    of(Texts {
        devices: vec![text.to_owned()],
        ..Texts::default()
    });
    of(Texts {
        own: file(),
        ..Texts::default()
    });
    of(Texts {
        usbip: file(),
        domain: Some("example.com".to_owned()),
        ..Texts::default()
    });
}

fn is_valid(configuration: &Configuration) {
    for definition in &configuration.definitions {
        match definition {
            Definition::Path { path, count, .. } => {
                assert!(path.is_absolute(), "{path:?}");
                is_a_count(*count);
            }
            Definition::Pattern { pattern, count } => {
                let _ = pattern.is_match("snd/controlC0");
                // Without `nummaxdevices` a resource has no unit, as in smarter-device-manager.
                assert!(*count <= MAX_UNITS, "{count}");
            }
            Definition::NvidiaGpu { count } => assert!(*count <= MAX_UNITS, "{count}"),
            Definition::Groups { name, groups } => {
                is_a_name(name);
                groups.iter().for_each(is_a_group);
            }
            Definition::Remote { name, entries } => {
                is_a_name(name);
                entries.iter().for_each(is_an_entry);
            }
            Definition::Requested(requested) => {
                is_a_name(&requested.name);
                is_a_count(requested.count);
            }
        }
    }
}

fn is_a_name(name: &ResourceName) {
    assert_eq!(name.as_str().parse().as_ref(), Ok(name));
}

fn is_a_count(count: u32) {
    assert!((1..=MAX_UNITS).contains(&count), "{count}");
}

fn is_a_group(group: &Group) {
    match group {
        Group::Paths { paths, count } => {
            is_a_count(*count);
            for path in paths {
                if let Some(only) = path.pattern.literal() {
                    assert!(path.pattern.is_match(&only), "{only:?}");
                }
                let _ = path.pattern.is_match(Path::new("/dev/serial/by-id/usb-FTDI"));
            }
        }
        Group::Usb { devices, count } => {
            is_a_count(*count);
            assert!(!devices.is_empty());
        }
    }
}

fn is_an_entry(entry: &RemoteEntry) {
    assert!(!entry.requests.is_empty());
    for request in &entry.requests {
        let text = request.to_string();
        assert_eq!(text.parse().as_ref(), Ok(request), "{text}");
    }
    for extra in &entry.extras {
        assert!(
            extra.host.is_absolute() && extra.container.is_absolute(),
            "{extra:?}"
        );
    }
}
