//! A simulated kubelet: its registration service, its calls to a plugin that registers, and its
//! pod-resources service.
//!
//! Like the real kubelet it dials back and gets the options before it answers Register, then reads
//! one ListAndWatch stream per registration and does not open it again when it ended. A start
//! removes all sockets from the directory.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oci_hotplug::kubernetes::kubelet::api;
use oci_hotplug::kubernetes::kubelet::grpc::{self, Client};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};
use tonic::Status;

/// The timeout of what should be quick. Generous: the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A kubelet process.
pub struct Kubelet {
    registered: mpsc::UnboundedReceiver<Registered>,
    /// Registrations that no test has taken yet.
    waiting: Vec<Registered>,
    attempts: Arc<Mutex<Vec<Instant>>>,
    _server: JoinSet<()>,
}

/// Its pod-resources service.
pub struct PodResources {
    response: Arc<Mutex<api::pod_resources::ListPodResourcesResponse>>,
    lists: watch::Receiver<usize>,
    _server: JoinSet<()>,
}

/// What it does with registrations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Follows the protocol.
    Normal,
    /// Rejects the first ones.
    Rejecting(usize),
    /// Never answers.
    Hanging,
}

/// A plugin's resource that kubelet has taken.
pub struct Registered {
    pub request: api::RegisterRequest,
    /// The options from the call; kubelet ignores those in the request.
    pub options: api::DevicePluginOptions,
    pub client: Client,
    lists: mpsc::UnboundedReceiver<api::ListAndWatchResponse>,
    stream: JoinHandle<()>,
    /// The names of the CDI specs that were there when it registered.
    pub specs: Vec<String>,
}

impl Kubelet {
    /// Starts: removes old sockets and creates its own.
    pub fn start(dir: &Path, cdi: &Path, behaviour: Behaviour) -> Self {
        fs::create_dir_all(dir).expect("make kubelet's directory");
        for entry in fs::read_dir(dir).expect("list kubelet's directory").flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_socket()) {
                fs::remove_file(entry.path()).expect("remove a socket");
            }
        }
        let listener = UnixListener::bind(dir.join(api::KUBELET_SOCKET)).expect("listen as kubelet");
        let (sender, registered) = mpsc::unbounded_channel();
        let attempts = Arc::new(Mutex::new(Vec::new()));
        let (seen, path, cdi) = (Arc::clone(&attempts), dir.to_owned(), cdi.to_owned());
        let mut server = JoinSet::new();
        server.spawn(async move {
            let answer = move |request: hyper::Request<hyper::body::Incoming>| {
                let (sender, seen, path, cdi) =
                    (sender.clone(), Arc::clone(&seen), path.clone(), cdi.clone());
                async move {
                    assert_eq!(request.uri().path(), api::REGISTER);
                    grpc::unary(request, move |registration: api::RegisterRequest| {
                        let attempt = {
                            let mut seen = seen.lock().expect("no thread panicked");
                            seen.push(Instant::now());
                            seen.len()
                        };
                        register(
                            registration,
                            attempt,
                            behaviour,
                            path.clone(),
                            cdi.clone(),
                            sender.clone(),
                        )
                    })
                    .await
                }
            };
            let Err(error) = grpc::serve_grpc(listener, answer).await;
            panic!("kubelet can't listen: {error}");
        });
        Self {
            registered,
            waiting: Vec::new(),
            attempts,
            _server: server,
        }
    }

    /// The next registration of a resource.
    pub async fn registered(&mut self, resource: &str) -> Registered {
        if let Some(index) = self
            .waiting
            .iter()
            .position(|known| known.request.resource_name == resource)
        {
            return self.waiting.remove(index);
        }
        let next = async {
            loop {
                let next = self.registered.recv().await.expect("kubelet runs");
                if next.request.resource_name == resource {
                    return next;
                }
                self.waiting.push(next);
            }
        };
        let registered = timeout(DEADLINE, next).await;
        registered.unwrap_or_else(|_| panic!("{resource} was not registered within {DEADLINE:?}"))
    }

    /// The resource that registers within a time in which none should.
    pub async fn registers_within(&mut self, limit: Duration) -> Option<String> {
        let next = timeout(limit, self.registered.recv()).await.ok()??;
        Some(next.request.resource_name)
    }

    /// When each registration was received.
    pub fn attempts(&self) -> Vec<Instant> {
        self.attempts.lock().expect("no thread panicked").clone()
    }

    /// Ends as a process does: the socket's file stays.
    pub fn stop(self) {}
}

async fn register(
    registration: api::RegisterRequest,
    attempt: usize,
    behaviour: Behaviour,
    dir: PathBuf,
    cdi: PathBuf,
    sender: mpsc::UnboundedSender<Registered>,
) -> Result<api::Empty, Status> {
    match behaviour {
        Behaviour::Hanging => std::future::pending::<()>().await,
        Behaviour::Rejecting(times) if attempt <= times => {
            return Err(Status::invalid_argument("the ResourceName is invalid"));
        }
        _ => {}
    }
    if registration.version != api::VERSION {
        return Err(Status::invalid_argument("unsupported version"));
    }
    let dial_error = |error: grpc::CallError| Status::internal(format!("dialling back: {error}"));
    let client = Client::connect(&dir.join(&registration.endpoint))
        .await
        .map_err(dial_error)?;
    let options = client
        .unary(api::GET_DEVICE_PLUGIN_OPTIONS, api::Empty {})
        .await
        .map_err(dial_error)?;
    let (lists, received) = mpsc::unbounded_channel();
    let listener = client.clone();
    let stream = tokio::spawn(async move {
        let Ok(mut stream) = listener
            .server_streaming::<_, api::ListAndWatchResponse>(api::LIST_AND_WATCH, api::Empty {})
            .await
        else {
            return;
        };
        while let Ok(Some(list)) = stream.message().await {
            if lists.send(list).is_err() {
                return;
            }
        }
    });
    let specs = fs::read_dir(cdi).into_iter().flatten().flatten();
    let _ = sender.send(Registered {
        request: registration,
        options,
        client,
        lists: received,
        stream,
        specs: specs
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect(),
    });
    Ok(api::Empty {})
}

impl PodResources {
    /// Starts without pods.
    pub fn start(socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).expect("listen as kubelet's pod-resources");
        let response = Arc::<Mutex<api::pod_resources::ListPodResourcesResponse>>::default();
        let (count, lists) = watch::channel(0);
        let current = Arc::clone(&response);
        let mut server = JoinSet::new();
        server.spawn(async move {
            let answer = move |request: hyper::Request<hyper::body::Incoming>| {
                let (current, count) = (Arc::clone(&current), count.clone());
                async move {
                    assert_eq!(request.uri().path(), api::pod_resources::LIST);
                    grpc::unary(request, move |_: api::pod_resources::ListPodResourcesRequest| {
                        let response = current.lock().expect("no thread panicked").clone();
                        count.send_modify(|count| *count += 1);
                        std::future::ready(Ok(response))
                    })
                    .await
                }
            };
            let Err(error) = grpc::serve_grpc(listener, answer).await;
            panic!("pod-resources can't listen: {error}");
        });
        Self {
            response,
            lists,
            _server: server,
        }
    }

    /// From now on only the container `app` of this pod has units: these.
    pub fn holds(&self, pod: &str, resource: &str, ids: &[String]) {
        let device = api::pod_resources::ContainerDevices {
            resource_name: resource.to_owned(),
            device_ids: ids.to_vec(),
            ..Default::default()
        };
        let container = api::pod_resources::ContainerResources {
            name: "app".to_owned(),
            devices: vec![device],
            ..Default::default()
        };
        let pod = api::pod_resources::PodResources {
            name: pod.to_owned(),
            namespace: "default".to_owned(),
            containers: vec![container],
        };
        self.response.lock().expect("no thread panicked").pod_resources = vec![pod];
    }

    /// From now on no container has units.
    pub fn clear(&self) {
        self.response
            .lock()
            .expect("no thread panicked")
            .pod_resources
            .clear();
    }

    /// Waits until the plugin has listed the pods so many times more.
    pub async fn wait_for_lists(&mut self, times: usize) {
        let end = *self.lists.borrow() + times;
        let listed = timeout(DEADLINE, self.lists.wait_for(|count| *count >= end)).await;
        listed.expect("the plugin lists pods").expect("kubelet runs");
    }
}

impl Registered {
    /// The next list.
    pub async fn list(&mut self) -> Vec<api::Device> {
        let next = timeout(DEADLINE, self.lists.recv()).await;
        let list =
            next.unwrap_or_else(|_| panic!("no list of {} within {DEADLINE:?}", self.request.resource_name));
        list.expect("the stream goes on").devices
    }

    /// The next list that matches, and how many came before it.
    pub async fn list_where(
        &mut self,
        matches: impl Fn(&[api::Device]) -> bool,
    ) -> (Vec<api::Device>, usize) {
        let mut others = VecDeque::new();
        loop {
            let list = self.list().await;
            if matches(&list) {
                return (list, others.len());
            }
            others.push_back(list);
        }
    }

    /// How many lists come within a time.
    pub async fn lists_within(&mut self, limit: Duration) -> usize {
        let end = Instant::now() + limit;
        let mut count = 0;
        while let Ok(Some(_)) = tokio::time::timeout_at(end, self.lists.recv()).await {
            count += 1;
        }
        count
    }

    /// Waits until the plugin ends the stream.
    pub async fn ended(&mut self) {
        let end = async { while self.lists.recv().await.is_some() {} };
        timeout(DEADLINE, end).await.expect("the stream ends");
    }

    /// Closes the stream, as kubelet does with a client that it has forgotten.
    pub fn close_stream(&self) {
        self.stream.abort();
    }

    /// Allocates units.
    pub async fn allocate(&self, ids: &[String]) -> Result<api::ContainerAllocateResponse, grpc::CallError> {
        let request = api::AllocateRequest {
            container_requests: vec![api::ContainerAllocateRequest {
                devices_ids: ids.to_vec(),
            }],
        };
        let response: api::AllocateResponse = self.client.unary(api::ALLOCATE, request).await?;
        assert_eq!(response.container_responses.len(), 1, "kubelet uses the first");
        Ok(response
            .container_responses
            .into_iter()
            .next()
            .expect("there is one"))
    }

    /// Announces the start of a container.
    pub async fn pre_start(&self, ids: &[String]) -> Result<api::PreStartContainerResponse, grpc::CallError> {
        let request = api::PreStartContainerRequest {
            devices_ids: ids.to_vec(),
        };
        self.client.unary(api::PRE_START_CONTAINER, request).await
    }
}
