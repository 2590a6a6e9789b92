//! kubelet's device plugin calls for one resource: its list and each change of it, the preferred
//! units, and what a container gets.
//!
//! Must not know how the resource is registered or where it comes from.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::ready;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;
use tonic::body::Body;
use tracing::{info, warn};

use super::api;
use super::grpc;
use crate::kubernetes::cdi_specs::CdiSpecs;
use crate::kubernetes::metrics::Metrics;
use crate::kubernetes::resources::resource::{Format, Resource};
use crate::kubernetes::resources::unit::{MountSpec, NodeSpec, Unit};

/// Answers kubelet's calls for one resource.
pub(crate) struct Plugin {
    resource: watch::Receiver<Arc<Resource>>,
    cdi_specs: CdiSpecs,
    /// The units that containers have, as far as known, each with the time of its allocation or
    /// first listing.
    allocated: Mutex<BTreeMap<String, Instant>>,
    /// The number of open `ListAndWatch` streams.
    streams: watch::Sender<usize>,
    metrics: Arc<Metrics>,
}

impl Plugin {
    /// A plugin for the current and future values of `resource`.
    pub(crate) fn new(
        resource: watch::Receiver<Arc<Resource>>,
        cdi_specs: CdiSpecs,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            resource,
            cdi_specs,
            allocated: Mutex::default(),
            streams: watch::Sender::new(0),
            metrics,
        }
    }

    /// The number of open `ListAndWatch` streams, and each change of it.
    pub(crate) fn streams(&self) -> watch::Receiver<usize> {
        self.streams.subscribe()
    }

    pub(crate) fn format(&self) -> Format {
        self.resource.borrow().format
    }

    /// The units that containers have, as far as known.
    pub(crate) fn allocated(&self) -> BTreeSet<String> {
        let allocated = self.allocated.lock().unwrap_or_else(PoisonError::into_inner);
        allocated.keys().cloned().collect()
    }

    /// The units that were allocated, or first listed, less than `limit` ago.
    pub(crate) fn allocated_within(&self, limit: Duration) -> BTreeSet<String> {
        let allocated = self.allocated.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = allocated.iter().filter(|(_, since)| since.elapsed() < limit);
        recent.map(|(id, _)| id.clone()).collect()
    }

    /// Marks units as free, without a grace period.
    pub(crate) fn release(&self, ids: &BTreeSet<String>) {
        let mut allocated = self.allocated.lock().unwrap_or_else(PoisonError::into_inner);
        allocated.retain(|id, _| !ids.contains(id));
    }

    /// Applies the units in use: a unit that was allocated more than `grace` ago and is not in use
    /// becomes free. Returns whether anything changed.
    pub(crate) fn update_in_use(&self, in_use: &BTreeSet<String>, grace: Duration) -> bool {
        let mut allocated = self.allocated.lock().unwrap_or_else(PoisonError::into_inner);
        let before: BTreeSet<String> = allocated.keys().cloned().collect();
        allocated.retain(|id, since| in_use.contains(id) || since.elapsed() < grace);
        for id in in_use {
            allocated.entry(id.clone()).or_insert_with(Instant::now);
        }
        !allocated.keys().eq(&before)
    }

    /// Answers one call.
    pub(crate) async fn respond(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let plugin = Arc::clone(&self);
        match request.uri().path() {
            api::GET_DEVICE_PLUGIN_OPTIONS => {
                grpc::unary(request, move |_: api::Empty| ready(Ok(plugin.options()))).await
            }
            api::LIST_AND_WATCH => grpc::server_streaming(request, move |_: api::Empty| plugin.lists()).await,
            api::GET_PREFERRED_ALLOCATION => {
                grpc::unary(request, move |request| ready(Ok(plugin.preferred(&request)))).await
            }
            api::ALLOCATE => grpc::unary(request, move |request| ready(plugin.allocate(&request))).await,
            api::PRE_START_CONTAINER => {
                grpc::unary(request, move |request| ready(plugin.pre_start(&request))).await
            }
            other => grpc::unknown_call(other),
        }
    }

    /// The optional calls that the plugin answers.
    pub(crate) fn options(&self) -> api::DevicePluginOptions {
        let resource = self.resource.borrow();
        api::DevicePluginOptions {
            // kubelet makes this call at every start of a container, even if it still has the
            // result of Allocate: the plugin restores specs that were removed in the meantime.
            pre_start_required: self.cdi_specs.enabled && !resource.cdi_devices.is_empty(),
            get_preferred_allocation_available: true,
        }
    }

    fn lists(&self) -> Lists {
        let metrics = Arc::clone(&self.metrics);
        let mut sent = None;
        // kubelet's list has only ids and health; other changes of a unit are not sent.
        let lists = WatchStream::new(self.resource.clone()).filter_map(move |resource| {
            let list = list(&resource);
            if sent.as_ref() == Some(&list) {
                return None;
            }
            metrics.count_list(resource.name.as_str());
            sent = Some(list.clone());
            Some(Ok(list))
        });
        self.streams.send_modify(|open| *open += 1);
        Lists {
            lists: Box::pin(lists),
            open: self.streams.clone(),
        }
    }

    fn preferred(&self, request: &api::PreferredAllocationRequest) -> api::PreferredAllocationResponse {
        let resource = self.resource.borrow().clone();
        let responses = request.container_requests.iter().map(|request| {
            let size = usize::try_from(request.allocation_size).unwrap_or(0);
            api::ContainerPreferredAllocationResponse {
                device_ids: resource.preferred(
                    &request.available_device_ids,
                    &request.must_include_device_ids,
                    size,
                ),
            }
        });
        api::PreferredAllocationResponse {
            container_responses: responses.collect(),
        }
    }

    fn allocate(&self, request: &api::AllocateRequest) -> Result<api::AllocateResponse, Status> {
        let resource = self.resource.borrow().clone();
        let mut responses = Vec::new();
        for container in &request.container_requests {
            responses.push(self.allocate_container(&resource, &container.devices_ids)?);
        }
        let ids = request
            .container_requests
            .iter()
            .flat_map(|container| &container.devices_ids);
        let mut allocated = self.allocated.lock().unwrap_or_else(PoisonError::into_inner);
        allocated.extend(ids.map(|id| (id.clone(), Instant::now())));
        self.metrics
            .count_allocation(resource.name.as_str(), resource.format);
        Ok(api::AllocateResponse {
            container_responses: responses,
        })
    }

    fn allocate_container(
        &self,
        resource: &Resource,
        ids: &[String],
    ) -> Result<api::ContainerAllocateResponse, Status> {
        let units = self.units(resource, ids)?;
        self.write_specs(resource)?;
        let response = self.response(&units);
        if resource.hotplug && response.cdi_devices.is_empty() {
            warn!(
                "{}: CDI is off: the container gets the {} nodes that exist now, and no hotplug (switch CDI on in \
                 the container engine, and start the plugin with --cdi on)",
                resource.name,
                response.devices.len()
            );
        }
        info!("{}: allocated {}", resource.name, ids.join(", "));
        Ok(response)
    }

    /// What a container gets with these units. Units of one resource often share nodes and mounts;
    /// each is given once.
    fn response(&self, units: &[&Unit]) -> api::ContainerAllocateResponse {
        let (mut devices, mut nodes, mut mounts) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        let mut envs: HashMap<String, String> = HashMap::new();
        for unit in units {
            for (key, value) in &unit.offer.env {
                let values = envs.entry(key.clone()).or_default();
                let separator = if values.is_empty() { "" } else { "," };
                *values = format!("{values}{separator}{value}");
            }
            mounts.extend(unit.offer.mounts.iter().map(|mount| (&mount.container, mount)));
            match self.cdi_specs.device_name(&unit.offer) {
                Some(device) => devices.extend([device]),
                None => nodes.extend(unit.offer.nodes.iter().map(|node| (&node.container, node))),
            }
            nodes.extend(unit.offer.extra_nodes.iter().map(|node| (&node.container, node)));
        }
        api::ContainerAllocateResponse {
            envs,
            mounts: mounts.into_values().map(mount).collect(),
            devices: nodes.into_values().map(device_spec).collect(),
            cdi_devices: devices.into_iter().map(|name| api::CdiDevice { name }).collect(),
            ..Default::default()
        }
    }

    fn pre_start(
        &self,
        request: &api::PreStartContainerRequest,
    ) -> Result<api::PreStartContainerResponse, Status> {
        let resource = self.resource.borrow().clone();
        self.write_specs(&resource)?;
        info!(
            "{}: a container with {} starts",
            resource.name,
            request.devices_ids.join(", ")
        );
        Ok(api::PreStartContainerResponse {})
    }

    fn write_specs(&self, resource: &Resource) -> Result<(), Status> {
        let written = self.cdi_specs.write(resource).map_err(|error| {
            warn!("{}: {error}", resource.name);
            Status::internal(error.to_string())
        })?;
        if written > 0 {
            warn!(
                "{}: {written} CDI specs were missing or changed; wrote them again",
                resource.name
            );
        }
        Ok(())
    }

    fn units<'r>(&self, resource: &'r Resource, ids: &[String]) -> Result<Vec<&'r Unit>, Status> {
        let unit = |id: &String| {
            resource.units.get(id).ok_or_else(|| {
                Status::not_found(format!(
                    "{} has no unit {id:?} (it disappeared after kubelet chose it; kubelet retries the pod)",
                    resource.name
                ))
            })
        };
        ids.iter().map(unit).collect()
    }
}

fn mount(mount: &MountSpec) -> api::Mount {
    api::Mount {
        container_path: mount.container.display().to_string(),
        host_path: mount.host.display().to_string(),
        read_only: mount.read_only,
    }
}

fn device_spec(node: &NodeSpec) -> api::DeviceSpec {
    api::DeviceSpec {
        container_path: node.container.display().to_string(),
        host_path: node.host.display().to_string(),
        permissions: node.access.to_string(),
    }
}

/// The list of all units.
fn list(resource: &Resource) -> api::ListAndWatchResponse {
    let device = |(id, unit): (&String, &Unit)| api::Device {
        id: id.clone(),
        health: if unit.healthy {
            api::HEALTHY
        } else {
            api::UNHEALTHY
        }
        .to_owned(),
        topology: unit.numa.map(|id| api::TopologyInfo {
            nodes: vec![api::NumaNode { id }],
        }),
    };
    api::ListAndWatchResponse {
        devices: resource.units.iter().map(device).collect(),
    }
}

/// A stream of lists, counted in `open` until it is dropped.
struct Lists {
    lists: Pin<Box<dyn Stream<Item = Result<api::ListAndWatchResponse, Status>> + Send>>,
    open: watch::Sender<usize>,
}

impl Stream for Lists {
    type Item = Result<api::ListAndWatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.lists.as_mut().poll_next(context)
    }
}

impl Drop for Lists {
    fn drop(&mut self) {
        self.open.send_modify(|open| *open -= 1);
    }
}
