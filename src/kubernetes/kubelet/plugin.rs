//! What kubelet asks of one resource: its list and each change of it, which units to take, and what a container gets.
//!
//! Must not know how it is registered, nor where the list comes from.

use std::collections::{BTreeMap, BTreeSet};
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
use crate::kubernetes::resources::resource::{Metrics, Resource};
use crate::kubernetes::resources::unit::Unit;
use crate::kubernetes::status::Counters;

/// One resource, as kubelet sees it.
pub struct Plugin {
    resource: watch::Receiver<Arc<Resource>>,
    cdi_specs: CdiSpecs,
    /// Ids that a container has, as far as known: when each was given, or seen with one.
    allocated: Mutex<BTreeMap<String, Instant>>,
    /// How many `ListAndWatch` streams are open.
    streams: watch::Sender<usize>,
    counters: Arc<Counters>,
}

impl Plugin {
    /// The plugin of a resource that is told of through `resource`.
    pub fn new(
        resource: watch::Receiver<Arc<Resource>>,
        cdi_specs: CdiSpecs,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            resource,
            cdi_specs,
            allocated: Mutex::default(),
            streams: watch::Sender::new(0),
            counters,
        }
    }

    /// The number of open `ListAndWatch` streams, and each change of it.
    pub fn streams(&self) -> watch::Receiver<usize> {
        self.streams.subscribe()
    }

    /// Whose metrics the resource has beside ours.
    pub fn metrics(&self) -> Metrics {
        self.resource.borrow().metrics
    }

    /// The ids that a container has, as far as known.
    pub fn allocated(&self) -> BTreeSet<String> {
        let allocated = self.allocated.lock().unwrap_or_else(PoisonError::into_inner);
        allocated.keys().cloned().collect()
    }

    /// The ids that were given, or first seen with a container, less than so long ago.
    pub fn given_within(&self, limit: Duration) -> BTreeSet<String> {
        let allocated = self.allocated.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = allocated.iter().filter(|(_, given)| given.elapsed() < limit);
        lately.map(|(id, _)| id.clone()).collect()
    }

    /// These are no container's any more, whatever the grace period.
    pub fn free(&self, ids: &BTreeSet<String>) {
        let mut allocated = self.allocated.lock().unwrap_or_else(PoisonError::into_inner);
        allocated.retain(|id, _| !ids.contains(id));
    }

    /// Takes in which ids kubelet says are held. What was given longer than `grace` ago and is not, is free; whether
    /// that changed anything.
    pub fn take_held(&self, held: &BTreeSet<String>, grace: Duration) -> bool {
        let mut allocated = self.allocated.lock().unwrap_or_else(PoisonError::into_inner);
        let before: BTreeSet<String> = allocated.keys().cloned().collect();
        allocated.retain(|id, given| held.contains(id) || given.elapsed() < grace);
        for id in held {
            allocated.entry(id.clone()).or_insert_with(Instant::now);
        }
        !allocated.keys().eq(&before)
    }

    /// Answers one call of kubelet's.
    pub async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let plugin = Arc::clone(&self);
        match request.uri().path() {
            api::OPTIONS => grpc::unary(request, move |_: api::Empty| ready(Ok(plugin.options()))).await,
            api::LIST_AND_WATCH => grpc::server_streaming(request, move |_: api::Empty| plugin.lists()).await,
            api::PREFERRED => grpc::unary(request, move |asked| ready(Ok(plugin.preferred(&asked)))).await,
            api::ALLOCATE => grpc::unary(request, move |asked| ready(plugin.allocate(&asked))).await,
            api::PRE_START => grpc::unary(request, move |asked| ready(plugin.pre_start(&asked))).await,
            other => grpc::unknown_call(other),
        }
    }

    /// What kubelet may ask of us.
    pub fn options(&self) -> api::DevicePluginOptions {
        let resource = self.resource.borrow();
        api::DevicePluginOptions {
            // RequestEntry at every start of a container, also where kubelet answers Allocate from its memory: the moment to
            // put a spec back that somebody removed.
            pre_start_required: self.cdi_specs.enabled && !resource.wishes.is_empty(),
            get_preferred_allocation_available: true,
        }
    }

    fn lists(&self) -> Lists {
        let counters = Arc::clone(&self.counters);
        let mut told = None;
        // What a unit offers may change without a word to kubelet, whose list has but ids and health.
        let lists = WatchStream::new(self.resource.clone()).filter_map(move |resource| {
            let list = list(&resource);
            if told.as_ref() == Some(&list) {
                return None;
            }
            counters.add("lists_total", resource.name.as_str());
            told = Some(list.clone());
            Some(Ok(list))
        });
        self.streams.send_modify(|open| *open += 1);
        Lists {
            lists: Box::pin(lists),
            open: self.streams.clone(),
        }
    }

    fn preferred(&self, asked: &api::PreferredAllocationRequest) -> api::PreferredAllocationResponse {
        let resource = self.resource.borrow().clone();
        let answers = asked.container_requests.iter().map(|asked| {
            let size = usize::try_from(asked.allocation_size).unwrap_or(0);
            api::ContainerPreferredAllocationResponse {
                device_ids: resource.preferred(
                    &asked.available_device_ids,
                    &asked.must_include_device_ids,
                    size,
                ),
            }
        });
        api::PreferredAllocationResponse {
            container_responses: answers.collect(),
        }
    }

    fn allocate(&self, asked: &api::AllocateRequest) -> Result<api::AllocateResponse, Status> {
        let resource = self.resource.borrow().clone();
        let mut answers = Vec::new();
        for container in &asked.container_requests {
            answers.push(self.give(&resource, &container.devices_ids)?);
        }
        let ids = asked
            .container_requests
            .iter()
            .flat_map(|asked| &asked.devices_ids);
        let mut allocated = self.allocated.lock().unwrap_or_else(PoisonError::into_inner);
        allocated.extend(ids.map(|id| (id.clone(), Instant::now())));
        self.counters.add("allocations_total", resource.name.as_str());
        if let Some(metric) = resource.metrics.allocations() {
            self.counters.add(metric, resource.name.as_str());
        }
        Ok(api::AllocateResponse {
            container_responses: answers,
        })
    }

    fn give(&self, resource: &Resource, ids: &[String]) -> Result<api::ContainerAllocateResponse, Status> {
        let units = self.units(resource, ids)?;
        self.write_specs(resource)?;
        let mut answer = api::ContainerAllocateResponse::default();
        // Units of one resource often offer the same: each thing once.
        let (mut devices, mut nodes, mut mounts) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        for unit in units {
            for (key, value) in &unit.offer.env {
                let values = answer.envs.entry(key.clone()).or_default();
                *values = if values.is_empty() {
                    value.clone()
                } else {
                    format!("{values},{value}")
                };
            }
            for mount in &unit.offer.mounts {
                mounts.insert(&mount.container, mount);
            }
            match self.cdi_specs.device_name(&unit.offer) {
                Some(device) => devices.extend([device]),
                None => nodes.extend(unit.offer.nodes.iter().map(|node| (&node.container, node))),
            }
            nodes.extend(unit.offer.beside.iter().map(|node| (&node.container, node)));
        }
        if resource.hotplug && devices.is_empty() {
            warn!(
                "{}: CDI is off: the container gets the {} nodes that are there now, and no hotplug (switch CDI on in \
                 the container engine, and start the plugin with --cdi on)",
                resource.name,
                nodes.len()
            );
        }
        answer.cdi_devices = devices.into_iter().map(|name| api::CdiDevice { name }).collect();
        answer.devices = nodes
            .values()
            .map(|node| api::DeviceSpec {
                container_path: node.container.display().to_string(),
                host_path: node.host.display().to_string(),
                permissions: node.access.to_string(),
            })
            .collect();
        answer.mounts = mounts
            .values()
            .map(|mount| api::Mount {
                container_path: mount.container.display().to_string(),
                host_path: mount.host.display().to_string(),
                read_only: mount.read_only,
            })
            .collect();
        info!("{}: gave {}", resource.name, ids.join(", "));
        Ok(answer)
    }

    fn pre_start(&self, asked: &api::PreStartContainerRequest) -> Result<api::Empty, Status> {
        let resource = self.resource.borrow().clone();
        self.write_specs(&resource)?;
        info!(
            "{}: a container with {} starts",
            resource.name,
            asked.devices_ids.join(", ")
        );
        Ok(api::Empty {})
    }

    fn write_specs(&self, resource: &Resource) -> Result<(), Status> {
        let written = self.cdi_specs.write(resource).map_err(|error| {
            warn!("{}: {error}", resource.name);
            Status::internal(error.to_string())
        })?;
        if written > 0 {
            warn!(
                "{}: {written} CDI specs had gone, and are written anew",
                resource.name
            );
        }
        Ok(())
    }

    fn units<'r>(&self, resource: &'r Resource, ids: &[String]) -> Result<Vec<&'r Unit>, Status> {
        let unit = |id: &String| {
            resource.units.get(id).ok_or_else(|| {
                Status::not_found(format!(
                    "{} has no unit {id:?} (it went after kubelet chose it: the pod is tried again)",
                    resource.name
                ))
            })
        };
        ids.iter().map(unit).collect()
    }
}

/// The whole list, as every message has it.
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

/// The stream of lists; who waits for its end is told when it is dropped.
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
