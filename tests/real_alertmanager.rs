//! Debian's Alertmanager receives, groups and resolves what the daemon tells it.
//!
//! In: alerts in the outbox. Out: what Alertmanager lists, and the webhook that it calls. Invariant: without it the test passes and says
//! `left out`; the server is ended by its own id.

#[path = "support/alerts.rs"]
mod alerts;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/fault.rs"]
mod fault;
#[path = "support/tools.rs"]
mod tools;

use std::{
    fs,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use fault::FaultServer;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use trailwarden::{
    alert::{Alert, Level},
    deliver::order::Order,
};

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn get(address: &str, path: &str) -> Option<Value> {
    let mut socket = TcpStream::connect(address).await.ok()?;
    socket.write_all(format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n").as_bytes()).await.ok()?;
    let mut text = String::new();
    socket.read_to_string(&mut text).await.ok()?;
    serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()
}

async fn until(what: &str, mut probe: impl AsyncFnMut() -> bool) {
    for _ in 0..200 {
        if probe().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no {what} within 20 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_alertmanager_receives_groups_and_resolves() {
    let Some(binary) = tools::tool("prometheus-alertmanager") else { return };
    let receiver = FaultServer::always(200, "").await;
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "route: {{ receiver: hook, group_by: [alertname, account], group_wait: 500ms, group_interval: 1s, repeat_interval: 1h }}\n\
         receivers: [{{ name: hook, webhook_configs: [{{ url: '{}/hook', send_resolved: true }}] }}]\n",
        receiver.url
    );
    fs::write(folder.path().join("am.yml"), config).unwrap();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let child = Command::new(binary)
        .args(["--config.file=am.yml", "--storage.path=data", "--cluster.listen-address="])
        .arg(format!("--web.listen-address={address}"))
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _ended = Ended(child);
    until("Alertmanager", async || get(&address, "/api/v2/status").await.is_some()).await;

    let am = ("am", format!("alertmanager: {{ urls: ['http://{address}'], reassert_seconds: 1 }}"));
    let daemon = daemon::start(&[am], "{}").await;
    let of = |n: u64, user: &str| Alert { group: vec![("userIdentity.arn".into(), user.into())], ..alerts::alert(n, Level::Critical) };
    let mut rate = of(3, "arn:rate");
    let info = Arc::make_mut(&mut rate.rule);
    (info.id, info.title, info.resolve_after_ms) = ("rate-rule".into(), "Too many denials".into(), Some(3_000));
    daemon.put(&[of(1, "arn:mallory\u{202e}\n\"}"), of(2, "arn:eve"), rate]);

    let active = async || get(&address, "/api/v2/alerts?active=true").await.and_then(|a| a.as_array().cloned()).unwrap_or_default();
    until("three alerts", async || active().await.len() == 3).await;
    let listed = active().await;
    let eve = listed.iter().find(|a| a["labels"]["group_userIdentity_arn"] == "arn:eve").unwrap();
    assert_eq!((&eve["labels"]["severity"], &eve["labels"]["pillar"]), (&"critical".into(), &"backup".into()));
    assert!(eve["annotations"]["summary"].as_str().unwrap().contains("mallory deleted 12 snapshots"));
    until("a grouped notification", async || {
        receiver.seen().iter().any(|s| s.json()["alerts"].as_array().is_some_and(|a| a.len() == 2 && a.iter().all(|x| x["status"] == "firing")))
    })
    .await;
    until("the resolved rate", async || {
        receiver.seen().iter().any(|s| {
            let said = s.json();
            said["status"] == "resolved" && said["alerts"][0]["labels"]["alertname"] == "Too many denials"
        })
    })
    .await;
    // Told again every second, the deeds stay.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(active().await.len(), 2);
    // A person resolves one; the group's other stays.
    assert!(daemon.desk.carry_out(&Order::Resolve(format!("{:032x}", 2)), daemon::now_ms()).unwrap().is_done());
    until("one alert left", async || active().await.len() == 1).await;
    println!("Alertmanager got 3 alerts, grouped 2 of them, resolved the rate by itself and one deed by hand");
}
