//! The source against an API server, with everything that may go wrong between the two.

use super::*;
use crate::source::{Event, Notices, Object, ObjectKey};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Instant;
use xtask::api::{ApiServer, Effect, Fault, Options};

const NODE: &str = "node-a";
/// Far longer than anything takes that has to happen.
const LIMIT: Duration = Duration::from_secs(60);

/// A server, a source that follows it, and what has come of that.
struct Play {
    server: ApiServer,
    source: Option<ApiSource>,
    events: mpsc::Receiver<Delivery>,
    events_in: mpsc::Sender<Delivery>,
    watches: Vec<Watch>,
    seen: Seen,
}

/// What the events add up to.
#[derive(Debug, Default)]
struct Seen {
    objects: BTreeMap<String, Object>,
    synced: usize,
    deleted: Vec<String>,
    problems: BTreeMap<String, Vec<String>>,
    /// Everything that was ever said to be wrong.
    complaints: BTreeSet<String>,
}

impl Seen {
    fn take(&mut self, event: Event) {
        match event {
            Event::Apply(object) => {
                self.objects.insert(object.key().to_string(), object);
            }
            Event::Delete(key) => {
                let key: ObjectKey = key;
                self.objects.remove(&key.to_string());
                self.deleted.push(key.to_string());
            }
            Event::Synced => self.synced += 1,
            Event::Problems { origin, problems } => {
                self.complaints.extend(problems.iter().cloned());
                if problems.is_empty() {
                    self.problems.remove(&origin);
                } else {
                    self.problems.insert(origin, problems);
                }
            }
        }
    }

    fn port(&self, name: &str) -> Option<i32> {
        match self.objects.get(&format!("Service default/{name}"))? {
            Object::Service(service) => Some(service.spec.as_ref()?.ports.as_ref()?[0].port),
            _ => None,
        }
    }

    fn has_complaint(&self, text: &str) -> bool {
        self.complaints.iter().any(|it| it.contains(text))
    }
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ferrule-kube-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }
}

fn no_notices() -> mpsc::Receiver<Notice> {
    mpsc::channel(1).1
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Play {
    /// A server with one Service and its slice, not followed yet.
    async fn prepare(folder: &Folder, options: Options, silence: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = ApiServer::start(listener, options).unwrap();
        server
            .apply_all([service("web", 80), slice("web")])
            .unwrap();
        server.write_kubeconfig(&folder.file()).unwrap();
        let settings = ApiSettings {
            kubeconfig: Some(folder.file()),
            ..ApiSettings::default()
        };
        let connection = Connection::open(settings, NODE).await.unwrap();
        Self::with(server, connection, silence)
    }

    fn with(server: ApiServer, connection: Connection, silence: Duration) -> Self {
        let source = ApiSource::new(connection, NODE, silence);
        let (events_in, events) = mpsc::channel(16);
        Self {
            watches: source.watches(),
            server,
            source: Some(source),
            events,
            events_in,
            seen: Seen::default(),
        }
    }

    fn follow(&mut self) {
        let source = self.source.take().unwrap();
        tokio::spawn(source.run(self.events_in.clone(), no_notices()));
    }

    async fn start(folder: &Folder, options: Options) -> Self {
        let mut play = Self::prepare(folder, options, LIMIT).await;
        play.follow();
        play.until("it is synced", |seen| seen.synced == 1).await;
        play
    }

    /// Takes events until they add up to this.
    async fn until(&mut self, what: &str, is_so: impl Fn(&Seen) -> bool) {
        let deadline = tokio::time::Instant::now() + LIMIT;
        while !is_so(&self.seen) {
            let batch = tokio::time::timeout_at(deadline, self.events.recv()).await;
            let Ok(batch) = batch else {
                panic!("not seen that {what}: {:#?}", self.seen);
            };
            batch
                .unwrap()
                .events
                .into_iter()
                .for_each(|event| self.seen.take(event));
        }
    }

    /// Whatever is wrong now, the next change is seen, and nothing of what there is gets lost.
    async fn goes_on(&mut self, port: i32) {
        self.server.apply(service("web", port)).unwrap();
        self.until("the change comes", |seen| seen.port("web") == Some(port))
            .await;
        assert_eq!(self.seen.deleted, [""; 0], "what is there stays");
        assert!(self.seen.objects.contains_key("EndpointSlice default/web"));
        assert_eq!(self.seen.synced, 1);
    }

    /// Waits until the server knows that nobody watches Services any more.
    async fn unwatched(&self) {
        while self.server.open_watches("services") > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn until_listed(&self, kind: &str, times: u64) {
        let deadline = Instant::now() + LIMIT;
        while self.report(kind).lists < times {
            assert!(Instant::now() < deadline, "{kind} is not listed again");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn report(&self, kind: &str) -> WatchReport {
        let mut reports = self.watches.iter().map(Watch::report);
        reports.find(|report| report.kind == kind).unwrap()
    }
}

/// What a source says until it has all.
async fn first_lists(source: ApiSource) -> Seen {
    let (events_in, mut events) = mpsc::channel(16);
    tokio::spawn(source.run(events_in, no_notices()));
    let mut seen = Seen::default();
    while seen.synced == 0 {
        let delivery = tokio::time::timeout(LIMIT, events.recv()).await.unwrap();
        let events = delivery.unwrap().events.into_iter();
        events.for_each(|event| seen.take(event));
    }
    seen
}

fn service(name: &str, port: i32) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
           "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": port}]}})
}

fn labelled(name: &str, label: &str) -> Value {
    let mut object = service(name, 80);
    object["metadata"]["labels"] = json!({label: ""});
    object
}

fn slice(name: &str) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
           "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
           "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": [{"addresses": ["10.244.1.1"]}]})
}

fn pod(name: &str, node: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
           "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}})
}

fn node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_selected_comes_and_goes() {
    let folder = Folder::new("selection");
    let options = Options {
        managed_fields: true,
        ..Options::default()
    };
    let mut play = Play::prepare(&folder, options, LIMIT).await;
    let mut headless = service("headless", 80);
    headless["spec"]["clusterIP"] = "None".into();
    let mut sliced = slice("unwanted");
    sliced["metadata"]["labels"]["service.kubernetes.io/headless"] = "".into();
    let range = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
                       "metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/12"]}});
    play.server
        .apply_all([
            headless,
            sliced,
            range,
            labelled("foreign", "service.kubernetes.io/service-proxy-name"),
            pod("here", NODE),
            pod("there", "node-b"),
            node(NODE),
            node("node-b"),
        ])
        .unwrap();
    play.follow();
    play.until("it is synced", |seen| seen.synced == 1).await;
    let known: Vec<&str> = play.seen.objects.keys().map(String::as_str).collect();
    assert_eq!(
        known,
        [
            "EndpointSlice default/web",
            "Node node-a",
            "Pod default/here",
            "Service default/web",
            "ServiceCIDR kubernetes",
        ]
    );
    let requests = play.server.requests();
    let asked = requests.iter().filter(|request| request.method == "GET");
    let asked: BTreeSet<&str> = asked
        .filter_map(|request| request.path.rsplit('/').next())
        .collect();
    let allowed = watched();
    let allowed: BTreeSet<&str> = allowed.iter().map(|(_, plural)| plural.as_str()).collect();
    assert_eq!(asked, allowed, "what roles have to allow");
    let trimmed = play.seen.objects["Service default/web"].metadata();
    assert_eq!(
        (&trimmed.managed_fields, &trimmed.resource_version),
        (&None, &None)
    );
    // It leaves the selection, and comes back.
    play.server
        .apply(labelled("web", "service.kubernetes.io/service-proxy-name"))
        .unwrap();
    play.until("it is gone", |seen| seen.port("web").is_none())
        .await;
    play.server.apply(service("web", 81)).unwrap();
    play.until("it is back", |seen| seen.port("web") == Some(81))
        .await;
    play.server.delete("Pod", "default", "here").unwrap();
    play.until("the pod is gone", |seen| {
        seen.deleted == ["Service default/web", "Pod default/here"]
    })
    .await;
    assert_eq!(play.report("Pod").objects, 0);
    assert_eq!(play.report("Service").objects, 1);
    assert!(play.report("Service").is_synced);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_streamed_where_the_server_does_that() {
    for streaming_lists in [true, false] {
        let folder = Folder::new(&format!("streaming-{streaming_lists}"));
        let options = Options {
            streaming_lists,
            ..Options::default()
        };
        let mut play = Play::start(&folder, options).await;
        play.goes_on(81).await;
        let requests = play.server.requests();
        let lists = requests
            .iter()
            .filter(|request| request.method == "GET" && !request.is_watch());
        assert_eq!(lists.count() == 0, streaming_lists);
        assert_eq!(play.seen.complaints, BTreeSet::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_breaks_is_resumed() {
    let effects = [
        Effect::Cut,
        Effect::Close,
        Effect::Garbage,
        Effect::Replay,
        Effect::Duplicate,
        Effect::Reorder,
        Effect::Trickle(Duration::from_millis(1)),
        Effect::Status {
            code: 500,
            retry_after: None,
        },
        Effect::Status {
            code: 503,
            retry_after: Some(1),
        },
        Effect::Status {
            code: 429,
            retry_after: Some(1),
        },
    ];
    let rounds = effects.map(|effect| {
        tokio::spawn(async move {
            let folder =
                Folder::new(&format!("break-{effect:?}").replace([' ', '{', '}', ':', ','], ""));
            let mut play = Play::start(&folder, Options::default()).await;
            play.server
                .fault(Fault::new(effect).on("services").watches().times(2));
            if !matches!(
                effect,
                Effect::Cut | Effect::Garbage | Effect::Duplicate | Effect::Reorder
            ) {
                play.server.close_watches();
            }
            for port in 81..=84 {
                play.goes_on(port).await;
            }
        })
    });
    for round in rounds {
        round.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_point_that_is_too_old_all_is_listed_again() {
    for streaming_lists in [true, false] {
        let folder = Folder::new(&format!("expired-{streaming_lists}"));
        let options = Options {
            streaming_lists,
            ..Options::default()
        };
        let mut play = Play::start(&folder, options).await;
        play.server.outage();
        play.unwatched().await;
        play.server.apply(service("web", 81)).unwrap();
        play.server.compact();
        play.server.heal();
        play.goes_on(82).await;
        play.until_listed("Service", 2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_fails_is_tried_again() {
    let effects = [
        Effect::Cut,
        Effect::Garbage,
        Effect::Status {
            code: 500,
            retry_after: None,
        },
        Effect::Status {
            code: 429,
            retry_after: Some(1),
        },
    ];
    let rounds = effects.map(|effect| {
        tokio::spawn(async move {
            let folder =
                Folder::new(&format!("list-{effect:?}").replace([' ', '{', '}', ':', ','], ""));
            let options = Options {
                streaming_lists: false,
                ..Options::default()
            };
            let mut play = Play::prepare(&folder, options, LIMIT).await;
            play.server
                .fault(Fault::new(effect).on("services").lists().times(2));
            play.follow();
            play.until("it is synced", |seen| seen.synced == 1).await;
            assert!(play.report("Service").failures >= 2, "{effect:?}");
            play.goes_on(81).await;
            let all_well = play.seen.problems.is_empty();
            if !all_well {
                play.until("all is well again", |seen| seen.problems.is_empty())
                    .await;
            }
        })
    });
    for round in rounds {
        round.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_only_what_has_changed_changes() {
    let folder = Folder::new("outage");
    let mut play = Play::start(&folder, Options::default()).await;
    play.server.apply(service("other", 90)).unwrap();
    play.until("the other comes", |seen| seen.port("other").is_some())
        .await;
    play.server.outage();
    play.until("the outage is told of", |seen| !seen.problems.is_empty())
        .await;
    assert!(
        play.watches
            .iter()
            .any(|watch| watch.report().problem.is_some())
    );
    play.server.delete("Service", "default", "other").unwrap();
    play.server.apply(service("web", 81)).unwrap();
    // As after an hour: nobody knows any more what has happened since.
    play.server.compact();
    play.server.heal();
    play.until("all is as it should be", |seen| {
        seen.port("web") == Some(81) && seen.port("other").is_none() && seen.problems.is_empty()
    })
    .await;
    assert_eq!(play.seen.deleted, ["Service default/other"]);
    assert_eq!(play.seen.synced, 1, "it is said once");
    let origin = play.seen.complaints.iter().next().unwrap();
    assert!(
        origin.starts_with("API server https://127.0.0.1:"),
        "{origin}"
    );
    assert!(
        play.watches
            .iter()
            .all(|watch| watch.report().problem.is_none())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_falls_silent_is_made_anew() {
    for effect in [Effect::Silence, Effect::Stall] {
        let folder = Folder::new(&format!("silence-{effect:?}"));
        let options = Options {
            bookmark_interval: Duration::from_millis(200),
            ..Options::default()
        };
        let mut play = Play::prepare(&folder, options, Duration::from_secs(2)).await;
        play.follow();
        play.until("it is synced", |seen| seen.synced == 1).await;
        play.server
            .fault(Fault::new(effect).on("services").watches().times(1));
        if effect == Effect::Stall {
            play.server.close_watches();
            play.unwatched().await;
        }
        let start = Instant::now();
        play.goes_on(81).await;
        assert!(start.elapsed() >= Duration::from_secs(1), "it was silent");
        play.until_listed("Service", 2).await;
        assert_eq!(
            play.report("EndpointSlice").lists,
            1,
            "bookmarks are no silence"
        );
        assert!(play.report("EndpointSlice").age_seconds < 2.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_is_found_where_the_old_one_was() {
    let folder = Folder::new("token");
    let mut play = Play::start(&folder, Options::default()).await;
    play.server.set_token("another");
    play.server.close_watches();
    play.until("it is refused", |seen| seen.has_complaint("401"))
        .await;
    play.server.write_kubeconfig(&folder.file()).unwrap();
    play.goes_on(81).await;
    play.until("all is well again", |seen| seen.problems.is_empty())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_a_wrong_shape_harms_no_other() {
    for streaming_lists in [true, false] {
        let folder = Folder::new(&format!("shape-{streaming_lists}"));
        let options = Options {
            streaming_lists,
            ..Options::default()
        };
        let mut play = Play::prepare(&folder, options, LIMIT).await;
        let mut broken = service("broken", 80);
        broken["spec"]["ports"] = "none".into();
        play.server.apply(broken).unwrap();
        play.follow();
        play.until("it is synced", |seen| seen.synced == 1).await;
        let wrong = &play.seen.problems["Service default/broken"][0];
        assert!(
            wrong.starts_with("Service default/broken: spec.ports: "),
            "{wrong}"
        );
        play.goes_on(81).await;
        play.server.apply(service("broken", 82)).unwrap();
        play.until("it is mended", |seen| seen.port("broken") == Some(82))
            .await;
        assert_eq!(play.seen.problems, BTreeMap::new());
        // One that was good once stays what it was.
        let mut broken = service("web", 83);
        broken["spec"]["ports"] = "none".into();
        play.server.apply(broken).unwrap();
        play.until("it is told of", |seen| !seen.problems.is_empty())
            .await;
        assert_eq!(play.seen.port("web"), Some(81));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_said_to_be_complete_before_all_kinds_are_there() {
    let folder = Folder::new("forbidden");
    let mut play = Play::prepare(&folder, Options::default(), LIMIT).await;
    play.server.forbid(&["pods"]);
    play.follow();
    play.until("it is refused", |seen| seen.has_complaint("403 Forbidden"))
        .await;
    play.until("the rest comes", |seen| seen.objects.len() >= 2)
        .await;
    let named = play
        .seen
        .complaints
        .iter()
        .all(|it| it.contains(": Pod: 403 Forbidden"));
    assert!(named, "{:?}", play.seen.complaints);
    assert_eq!(play.seen.synced, 0);
    play.server.forbid(&[]);
    play.until("it is synced", |seen| seen.synced == 1).await;
    play.until("all is well again", |seen| seen.problems.is_empty())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_the_server_does_not_know_is_not_waited_for() {
    let folder = Folder::new("unknown");
    let mut play = Play::prepare(&folder, Options::default(), LIMIT).await;
    let unknown = Effect::Status {
        code: 404,
        retry_after: None,
    };
    play.server.fault(Fault::new(unknown).on("servicecidrs"));
    play.follow();
    play.until("it is synced", |seen| seen.synced == 1).await;
    assert_eq!(play.seen.complaints, BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_servers_one_that_answers_is_asked() {
    let folder = Folder::new("several");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = ApiServer::start(listener, Options::default()).unwrap();
    server.apply(service("web", 80)).unwrap();
    server.write_kubeconfig(&folder.file()).unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [nobody.local_addr().unwrap(), server.address()];
    drop(nobody);
    // The first one to be asked depends on the node's name: with two, each is the first of one.
    for node in ["node-a", "node-b", "node-c", "node-d"] {
        let settings = ApiSettings {
            kubeconfig: Some(folder.file()),
            // Nobody listens there; certificates are this host's all the same.
            master: Some("https://kubernetes.default.svc:1".parse().unwrap()),
            api_servers: addresses.map(|it| it.to_string().parse().unwrap()).into(),
        };
        let connection = Connection::open(settings, node).await.unwrap();
        let source = ApiSource::new(connection, node, LIMIT);
        assert_eq!(first_lists(source).await.port("web"), Some(80));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_is_left() {
    let folder = Folder::new("stalled");
    let servers = [(); 2].map(|()| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        ApiServer::start(listener, Options::plain()).unwrap()
    });
    servers[0].fault(Fault::new(Effect::Stall));
    servers[1].apply(service("web", 80)).unwrap();
    servers[1].write_kubeconfig(&folder.file()).unwrap();
    for node in ["node-a", "node-b", "node-c"] {
        let settings = ApiSettings {
            kubeconfig: Some(folder.file()),
            api_servers: servers
                .iter()
                .map(|it| it.address().to_string().parse().unwrap())
                .collect(),
            ..ApiSettings::default()
        };
        let connection = Connection::open(settings, node).await.unwrap();
        let source = ApiSource::new(connection, node, Duration::from_secs(1));
        assert_eq!(first_lists(source).await.port("web"), Some(80));
    }
}

#[tokio::test]
async fn a_url_without_a_scheme_is_one_of_https() {
    let open = async |master: &str| {
        let settings = ApiSettings {
            master: Some(master.parse().unwrap()),
            ..ApiSettings::default()
        };
        Connection::open(settings, NODE).await
    };
    let connection = open("192.0.2.1:6443").await.unwrap();
    assert_eq!(connection.to_string(), "API server https://192.0.2.1:6443");
    let error = open("/api").await.unwrap_err();
    assert_eq!(error.to_string(), "'/api' is not the URL of an API server");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_is_told_to_the_cluster() {
    let folder = Folder::new("events");
    let play = Play::start(&folder, Options::default()).await;
    let deadline = Instant::now() + LIMIT;
    while play.server.events().is_empty() {
        assert!(Instant::now() < deadline, "no Event");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let event = &play.server.events()[0];
    assert_eq!(
        (&event["reason"], &event["regarding"]["name"]),
        (&json!("Starting"), &json!(NODE))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_become_events_about_their_objects_and_the_same_again_a_series() {
    let folder = Folder::new("notices");
    let mut play = Play::prepare(&folder, Options::default(), LIMIT).await;
    let (notices, waiting) = Notices::channel();
    let source = play.source.take().unwrap();
    tokio::spawn(source.run(play.events_in.clone(), waiting));
    let warnings = |server: &ApiServer| {
        let events = server.events().into_iter();
        events
            .filter(|event| event["type"] == "Warning")
            .collect::<Vec<_>>()
    };
    let notice = Notice {
        object: ObjectKey {
            kind: Kind::Service,
            namespace: "default".to_owned(),
            name: "web".to_owned(),
        },
        uid: "0-1-2".to_owned(),
        reason: "Failed",
        action: "Listen",
        note: "the port is taken".to_owned(),
    };
    for _ in 0..2 {
        notices.tell(notice.clone());
    }
    let deadline = Instant::now() + LIMIT;
    while warnings(&play.server)
        .last()
        .is_none_or(|event| event["series"]["count"] != 2)
    {
        assert!(Instant::now() < deadline, "{:?}", warnings(&play.server));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let event = warnings(&play.server).remove(0);
    assert_eq!(
        event["regarding"],
        json!({"apiVersion": "v1", "kind": "Service", "namespace": "default", "name": "web", "uid": "0-1-2"})
    );
    assert_eq!(event["metadata"]["namespace"], "default");
    assert_eq!(event["note"], "the port is taken");
    // Where nobody takes them they keep nobody waiting.
    Notices::default().tell(notice);
}

#[tokio::test]
async fn settings_that_cannot_be_read_are_named() {
    let folder = Folder::new("broken");
    let open = async |text: Option<&str>| {
        match text {
            Some(text) => std::fs::write(folder.file(), text).unwrap(),
            None => drop(std::fs::remove_file(folder.file())),
        }
        let settings = ApiSettings {
            kubeconfig: Some(folder.file()),
            ..ApiSettings::default()
        };
        let error = Connection::open(settings, NODE).await.unwrap_err();
        format!("{error:#}")
    };
    let path = folder.file().display().to_string();
    for text in [
        None,
        Some("{"),
        Some("[]"),
        Some("apiVersion: v1\nkind: Config\ncurrent-context: a\n"),
    ] {
        let error = open(text).await;
        assert!(error.contains(&path), "{error}");
    }
}
