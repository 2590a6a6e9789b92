//! Generates Rust messages from the .proto files of kubelet and the container runtime interface.
//!
//! Arguments: the directory of the Go module k8s.io/kubelet, that of k8s.io/cri-api, and the
//! repository. Only messages that the listed calls need are generated, without the comments of the
//! .proto files.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use prost_build::{Config, Module, Service, ServiceGenerator};
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};

/// A protocol, and where its code goes.
struct Protocol {
    /// The directory of the Go module.
    module: PathBuf,
    proto: &'static str,
    /// `Service.Call`; all calls if it is empty.
    calls: &'static [&'static str],
    output: &'static str,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let mut next = || arguments.next().ok_or("usage: KUBELET-MODULE CRI-MODULE REPOSITORY");
    let (kubelet, cri, repository) = (next()?, next()?, next()?);
    let protocols = [
        Protocol {
            module: kubelet.clone(),
            proto: "pkg/apis/deviceplugin/v1beta1/api.proto",
            calls: &[],
            output: "src/kubernetes/kubelet/api/device_plugin.rs",
        },
        Protocol {
            module: kubelet,
            proto: "pkg/apis/podresources/v1/api.proto",
            calls: &["PodResourcesLister.List"],
            output: "src/kubernetes/kubelet/api/pod_resources.rs",
        },
        Protocol {
            module: cri,
            proto: "pkg/apis/runtime/v1/api.proto",
            calls: &["RuntimeService.Version", "RuntimeService.Status"],
            output: "src/kubernetes/engine/cri.rs",
        },
    ];
    for protocol in &protocols {
        generate(protocol, &repository)?;
    }
    Ok(())
}

fn generate(protocol: &Protocol, repository: &Path) -> Result<(), Box<dyn Error>> {
    let mut set = protox::compile([protocol.module.join(protocol.proto)], [&protocol.module])?;
    for file in &mut set.file {
        keep_calls(file, protocol.calls);
        rename_ids(file);
    }
    let mut config = Config::new();
    config.disable_comments(["."]).service_generator(Box::new(CallNames));
    let header = format!(
        "//! Generated from {} by tests/kubernetes/generate-api.sh.\n\n",
        protocol.proto
    );
    fs::write(repository.join(protocol.output), header + &code(config, set)?)?;
    Ok(())
}

fn code(mut config: Config, set: FileDescriptorSet) -> Result<String, Box<dyn Error>> {
    let module = Module::from_parts(["api"]);
    let requests = set.file.into_iter().map(|file| (module.clone(), file)).collect();
    let mut code = config.generate(requests)?;
    code.remove(&module).ok_or_else(|| "nothing was generated".into())
}

/// Removes all calls but these, and all messages that they do not need.
fn keep_calls(file: &mut FileDescriptorProto, calls: &[&str]) {
    if calls.is_empty() {
        return;
    }
    let package = format!(".{}.", file.package());
    let mut needed = Vec::new();
    for service in &mut file.service {
        let name = service.name().to_owned();
        service.method.retain(|method| calls.contains(&format!("{name}.{}", method.name()).as_str()));
        for method in &service.method {
            needed.extend([method.input_type().to_owned(), method.output_type().to_owned()]);
        }
    }
    let mut kept = BTreeSet::new();
    while let Some(name) = needed.pop() {
        let name = name.trim_start_matches(&package).split('.').next().unwrap_or_default().to_owned();
        if let Some(message) = file.message_type.iter().find(|message| message.name() == name) {
            if kept.insert(name) {
                needed.extend(types_of(message));
            }
        } else {
            kept.insert(name);
        }
    }
    file.service.retain(|service| !service.method.is_empty());
    file.message_type.retain(|message| kept.contains(message.name()));
    file.enum_type.retain(|kind| kept.contains(kind.name()));
}

/// The types of a message's fields, and of those of the messages in it (the entries of maps).
fn types_of(message: &DescriptorProto) -> Vec<String> {
    let fields = message.field.iter().map(|field| field.type_name().to_owned());
    let nested = message.nested_type.iter().flat_map(types_of);
    fields.chain(nested).collect()
}

/// prost makes `device_i_ds` of `deviceIDs`. The names of fields are not sent.
fn rename_ids(file: &mut FileDescriptorProto) {
    for field in file.message_type.iter_mut().flat_map(|message| &mut message.field) {
        field.name = field.name.take().map(|name| name.replace("IDs", "_ids"));
    }
}

/// Generates the paths of calls.
struct CallNames;

impl ServiceGenerator for CallNames {
    fn generate(&mut self, service: Service, code: &mut String) {
        for method in service.methods {
            // Writing to a String cannot fail.
            let _ = writeln!(
                code,
                "pub const {}: &str = \"/{}.{}/{}\";",
                method.name.to_uppercase(),
                service.package,
                service.proto_name,
                method.proto_name
            );
        }
    }
}
