//! A kubelet of our own making: its registration service, what it does with a plugin that registers, and its word of
//! which container has what.
//!
//! As the real one: dials back and asks for the options before it answers Register, then listens to one list per
//! registration and does not come back to a stream that ended; a start removes all sockets from the directory.

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

/// How long anything may take that should be quick. Generous: the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// kubelet, from a start to its end.
pub struct Kubelet {
    registered: mpsc::UnboundedReceiver<Registered>,
    /// Registrations of resources that nobody has asked for yet.
    waiting: Vec<Registered>,
    attempts: Arc<Mutex<Vec<Instant>>>,
    _server: JoinSet<()>,
}

/// Its pod-resources service.
pub struct PodResources {
    answer: Arc<Mutex<api::pod_resources::ListPodResourcesResponse>>,
    asked: watch::Receiver<usize>,
    _server: JoinSet<()>,
}

/// What it is told to do with the next registrations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// As the protocol has it.
    Willing,
    /// Refuses so many.
    Refusing(usize),
    /// Never answers.
    Hanging,
}

/// A plugin's resource that kubelet has taken.
pub struct Registered {
    pub request: api::RegisterRequest,
    /// What the call said, which counts, and not what stands in the request.
    pub options: api::DevicePluginOptions,
    pub client: Client,
    lists: mpsc::UnboundedReceiver<api::ListAndWatchResponse>,
    stream: JoinHandle<()>,
    /// The names of the CDI specs that were there when it registered.
    pub specs: Vec<String>,
}

impl Kubelet {
    /// Starts: sockets of before go, then there is a new one of its own.
    pub fn start(dir: &Path, cdi: &Path, mood: Mood) -> Self {
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
                    grpc::unary(request, move |asked: api::RegisterRequest| {
                        let attempt = {
                            let mut seen = seen.lock().expect("nobody panicked");
                            seen.push(Instant::now());
                            seen.len()
                        };
                        register(asked, attempt, mood, path.clone(), cdi.clone(), sender.clone())
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

    /// Whether anything registers within a time in which it should not.
    pub async fn registers_within(&mut self, limit: Duration) -> Option<String> {
        let next = timeout(limit, self.registered.recv()).await.ok()??;
        Some(next.request.resource_name)
    }

    /// When each registration was asked for.
    pub fn attempts(&self) -> Vec<Instant> {
        self.attempts.lock().expect("nobody panicked").clone()
    }

    /// Ends as a process does: the socket's file stays.
    pub fn stop(self) {}
}

async fn register(
    asked: api::RegisterRequest,
    attempt: usize,
    mood: Mood,
    dir: PathBuf,
    cdi: PathBuf,
    sender: mpsc::UnboundedSender<Registered>,
) -> Result<api::Empty, Status> {
    match mood {
        Mood::Hanging => std::future::pending::<()>().await,
        Mood::Refusing(times) if attempt <= times => {
            return Err(Status::invalid_argument("the ResourceName is invalid"));
        }
        _ => {}
    }
    if asked.version != api::VERSION {
        return Err(Status::invalid_argument("unsupported version"));
    }
    let fault = |error: grpc::CallError| Status::internal(format!("dialling back: {error}"));
    let client = Client::connect(&dir.join(&asked.endpoint)).await.map_err(fault)?;
    let options = client
        .unary(api::GET_DEVICE_PLUGIN_OPTIONS, api::Empty {})
        .await
        .map_err(fault)?;
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
        request: asked,
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
    /// Starts: no pod has anything.
    pub fn start(socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).expect("listen as kubelet's pod-resources");
        let answer = Arc::<Mutex<api::pod_resources::ListPodResourcesResponse>>::default();
        let (count, asked) = watch::channel(0);
        let told = Arc::clone(&answer);
        let mut server = JoinSet::new();
        server.spawn(async move {
            let answer = move |request: hyper::Request<hyper::body::Incoming>| {
                let (told, count) = (Arc::clone(&told), count.clone());
                async move {
                    assert_eq!(request.uri().path(), api::pod_resources::LIST);
                    grpc::unary(request, move |_: api::pod_resources::ListPodResourcesRequest| {
                        let answer = told.lock().expect("nobody panicked").clone();
                        count.send_modify(|count| *count += 1);
                        std::future::ready(Ok(answer))
                    })
                    .await
                }
            };
            let Err(error) = grpc::serve_grpc(listener, answer).await;
            panic!("pod-resources can't listen: {error}");
        });
        Self {
            answer,
            asked,
            _server: server,
        }
    }

    /// From now on the container `app` of this pod has these units, and no other has anything.
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
        self.answer.lock().expect("nobody panicked").pod_resources = vec![pod];
    }

    /// From now on nobody has anything.
    pub fn ends(&self) {
        self.answer.lock().expect("nobody panicked").pod_resources.clear();
    }

    /// Waits until it was asked so many times more.
    pub async fn asked(&mut self, times: usize) {
        let end = *self.asked.borrow() + times;
        let asked = timeout(DEADLINE, self.asked.wait_for(|count| *count >= end)).await;
        asked.expect("the plugin asks").expect("kubelet runs");
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

    /// The next list of which something is true; how many came before it.
    pub async fn list_where(
        &mut self,
        is_meant: impl Fn(&[api::Device]) -> bool,
    ) -> (Vec<api::Device>, usize) {
        let mut others = VecDeque::new();
        loop {
            let list = self.list().await;
            if is_meant(&list) {
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

    /// Ends the stream, as kubelet does with a client that it has forgotten.
    pub fn cut(&self) {
        self.stream.abort();
    }

    /// Requests for units.
    pub async fn allocate(&self, ids: &[String]) -> Result<api::ContainerAllocateResponse, grpc::CallError> {
        let asked = api::AllocateRequest {
            container_requests: vec![api::ContainerAllocateRequest {
                devices_ids: ids.to_vec(),
            }],
        };
        let answer: api::AllocateResponse = self.client.unary(api::ALLOCATE, asked).await?;
        assert_eq!(answer.container_responses.len(), 1, "kubelet takes the first");
        Ok(answer
            .container_responses
            .into_iter()
            .next()
            .expect("there is one"))
    }

    /// Tells that a container starts.
    pub async fn pre_start(&self, ids: &[String]) -> Result<api::PreStartContainerResponse, grpc::CallError> {
        let asked = api::PreStartContainerRequest {
            devices_ids: ids.to_vec(),
        };
        self.client.unary(api::PRE_START_CONTAINER, asked).await
    }
}
