//! Alert rules on a running node: event time, `_alerts`, webhook and MQTT receivers, restart in the middle.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use forebay_tests::mqtt::{Client, Options};
use forebay_tests::process::{Node, eventually};
use forebay_tests::{http, kafka};
use serde_json::Value;

/// A webhook that refuses the first `refusals` requests; yields (idempotency key, JSON) of those it took.
fn webhook(refusals: usize) -> Result<(SocketAddr, Receiver<(String, Value)>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (send, receive) = sync_channel(1000);
    std::thread::spawn(move || {
        for (index, socket) in listener.incoming().filter_map(Result::ok).enumerate() {
            let _ = answer(socket, index < refusals, &send);
        }
    });
    Ok((address, receive))
}

fn answer(
    mut socket: std::net::TcpStream,
    refuse: bool,
    send: &std::sync::mpsc::SyncSender<(String, Value)>,
) -> Result<()> {
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut bytes = Vec::new();
    let mut chunk = [0u8; 4096];
    loop {
        let read = socket.read(&mut chunk)?;
        ensure!(read > 0, "closed early");
        bytes.extend(&chunk[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let field = |name: &str| {
            head.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        let length: usize = field("content-length").context("no length")?.parse()?;
        if body.len() < length {
            continue;
        }
        let status = if refuse { "503 Service Unavailable" } else { "200 OK" };
        write!(socket, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        if !refuse {
            send.send((field("idempotency-key").context("no Idempotency-Key")?, serde_json::from_str(body)?))?;
        }
        return Ok(());
    }
}

fn alerts(node: &Node) -> Result<Vec<Value>> {
    let mut client = kafka::Client::connect(node.address("kafka"))?;
    let mut all = Vec::new();
    for partition in 0..*client.topics()?.get("_alerts").context("no topic _alerts")? {
        for record in client.read_all("_alerts", partition as i32)? {
            all.push(serde_json::from_slice(&record.value.context("no value")?)?);
        }
    }
    Ok(all)
}

#[test]
fn an_alert_goes_from_pending_over_firing_to_resolved_and_survives_a_kill() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (hook, delivered) = webhook(2)?;
    let rules = dir.path().join("rules.yaml");
    std::fs::write(
        &rules,
        format!(
            r#"groups:
- name: voltage
  source: readings
  key: [meter]
  time: {{field: ts, lateness: 10m}}
  rules:
  - alert: Overvoltage
    expr: voltage > 250
    clear: voltage < 245
    for: 3m
    labels: {{severity: major}}
    annotations: {{summary: "{{{{ meter }}}} at {{{{ voltage }}}} V"}}
receivers:
- webhook: {{url: "http://{hook}/hook"}}
- mqtt: {{topic: "alerts/{{{{ alertname }}}}/{{{{ meter }}}}"}}
"#
        ),
    )?;
    let config = dir.path().join("forebay.toml");
    std::fs::write(
        &config,
        "[topics.readings]\nnum.partitions = 2\n[[routes]]\nfilter = \"meters/+/readings\"\ntopic = \"readings\"\nkey = \"{1}\"\n[alerts]\nrules = [\"rules.yaml\"]\n",
    )?;
    let mut node = Node::start(dir.path(), &["--config", &config.display().to_string()])?;
    let (mut operator, _) = Client::connect(node.address("mqtt"), Options::v4("operator"))?;
    operator.subscribe("alerts/#", 0)?;

    let publish = |meter: &mut Client, minute: u32, voltage: f64| -> Result<()> {
        let payload = format!("{{\"meter\":\"m1\",\"ts\":\"2020-01-01T00:{minute:02}:00Z\",\"voltage\":{voltage}}}");
        assert_eq!(meter.publish("meters/m1/readings", 1, minute as u16 + 1, payload.as_bytes())?, 0);
        Ok(())
    };
    let (mut meter, _) = Client::connect(node.address("mqtt"), Options::v4("m1"))?;
    publish(&mut meter, 0, 251.0)?;
    publish(&mut meter, 1, 252.0)?;
    eventually(Duration::from_secs(10), || {
        ensure!(alerts(&node)?.len() == 1, "one pending");
        Ok(())
    })?;
    // Killed while pending: the state comes back with the log.
    node.kill()?;
    node.restart()?;
    let (mut operator, _) = Client::connect(node.address("mqtt"), Options::v4("operator"))?;
    operator.subscribe("alerts/#", 0)?;
    let (mut meter, _) = Client::connect(node.address("mqtt"), Options::v4("m1"))?;
    publish(&mut meter, 2, 251.5)?;
    publish(&mut meter, 3, 251.5)?;
    publish(&mut meter, 4, 247.0)?;
    publish(&mut meter, 5, 240.0)?;
    let transitions = eventually(Duration::from_secs(10), || {
        let transitions = alerts(&node)?;
        ensure!(transitions.len() == 3, "{transitions:?}");
        Ok(transitions)
    })?;
    let states: Vec<&str> = transitions.iter().filter_map(|alert| alert["state"].as_str()).collect();
    assert_eq!(states, ["pending", "firing", "resolved"]);
    let firing = &transitions[1];
    assert_eq!(firing["alert"], "Overvoltage");
    assert_eq!(firing["labels"]["meter"], "m1");
    assert_eq!(firing["labels"]["severity"], "major");
    assert_eq!(firing["annotations"]["summary"], "m1 at 251.5 V");
    assert!(firing["active_at"].as_str().is_some_and(|t| t.starts_with("2020-01-01T00:00:00")), "{firing}");
    assert!(firing["starts_at"].as_str().is_some_and(|t| t.starts_with("2020-01-01T00:03:00")), "{firing}");
    assert_eq!(firing["source"]["topic"], "readings");
    assert!(transitions[2]["ends_at"].as_str().is_some_and(|t| t.starts_with("2020-01-01T00:05:00")));

    let mut hooked = Vec::new();
    while hooked.len() < 2 {
        hooked.push(delivered.recv_timeout(Duration::from_secs(30)).context("the webhook was not told")?);
    }
    let states: Vec<&str> = hooked.iter().filter_map(|(_, alert)| alert["state"].as_str()).collect();
    assert_eq!(states, ["firing", "resolved"], "refused deliveries are tried again, in order");
    assert!(hooked.iter().all(|(key, alert)| alert["id"] == key.as_str()), "{hooked:?}");
    let told = operator.receive()?.publish(false);
    assert_eq!(told.0, "alerts/Overvoltage/m1");
    assert_eq!(serde_json::from_slice::<Value>(&told.2)?["state"], "firing");

    node.kill()?;
    node.restart()?;
    publish_after_restart(&node)?;
    assert_eq!(alerts(&node)?.len(), 3, "a restart repeats nothing");
    let active = http::get_json(node.address("http"), "/api/v1/alerts")?;
    assert!(!active.to_string().contains("firing"), "{active}");
    Ok(())
}

/// A reading of another meter, and the wait until it has been evaluated.
fn publish_after_restart(node: &Node) -> Result<()> {
    let (mut meter, _) = Client::connect(node.address("mqtt"), Options::v4("m2"))?;
    meter.publish("meters/m2/readings", 1, 1, b"{\"meter\":\"m2\",\"ts\":\"2020-01-01T00:00:00Z\",\"voltage\":230}")?;
    std::thread::sleep(Duration::from_millis(500));
    Ok(())
}

#[test]
fn a_bad_rule_file_names_line_and_column() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("bad.yaml");
    std::fs::write(
        &file,
        "groups:\n- name: g\n  source: readings\n  key: [meter]\n  rules:\n  - alert: A\n    exprr: voltage > 1\n",
    )?;
    let output = forebay_tests::process::forebay()?.args(["rules", "check"]).arg(&file).output()?;
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(error.contains("bad.yaml:7:5"), "{error}");
    assert!(error.contains("exprr") && error.contains("expr"), "{error}");
    Ok(())
}
