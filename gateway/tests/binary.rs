//! The binary itself: it starts, explains itself, and refuses wrong usage with exit code 2.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

fn forebay(args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_forebay")).args(args).output().expect("the binary runs")
}

#[test]
fn help_lists_the_commands() {
    let output = forebay(&["--help"]);
    assert!(output.status.success());
    let help = String::from_utf8_lossy(&output.stdout);
    for command in ["serve", "demo", "topic", "produce", "consume", "rules", "lake", "bench", "config"] {
        assert!(help.contains(command), "{command} is missing in\n{help}");
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    for args in [&["serve", "--no-such-flag"][..], &["nonsense"], &[]] {
        assert_eq!(forebay(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn a_bad_config_names_file_line_and_key_and_exits_with_2() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("forebay.toml");
    std::fs::write(&file, "[listeners]\nmqtt = \"127.0.0.1:0\"\nkafak = \"127.0.0.1:0\"\n").expect("written");
    let output = forebay(&["serve", "--config", &file.display().to_string()]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.starts_with("error: "), "{error}");
    for part in ["forebay.toml", "3", "kafak", "kafka"] {
        assert!(error.contains(part), "{part:?} is missing in: {error}");
    }
}

#[test]
fn an_open_listener_without_authentication_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().display().to_string();
    let output = forebay(&["serve", "--data-dir", &data, "--set", "listeners.mqtt=0.0.0.0:0"]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("allow_anonymous"), "{error}");
}

#[test]
fn a_benchmark_whose_broker_vanishes_says_why_and_exits_with_1() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("its address").port().to_string();
    let broker = std::thread::spawn(move || {
        // CONNECT, CONNACK, publishes, one PUBACK, and the connection is gone.
        let (mut stream, _) = listener.accept()?;
        let mut bytes = [0; 4096];
        assert!(stream.read(&mut bytes)? > 0);
        stream.write_all(&[0x20, 2, 0, 0])?;
        assert!(stream.read(&mut bytes)? > 0);
        stream.write_all(&[0x40, 2, 0, 1])
    });
    let output = forebay(&["bench", "mqtt", "--clients", "1", "--count", "10", "--port", &port, "--json"]);
    broker.join().expect("the broker ends").expect("the broker served");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("9 messages were never acknowledged") && error.contains("connection"), "{error}");
    let figures = String::from_utf8_lossy(&output.stdout);
    assert!(figures.contains("\"acked\":1,") && figures.contains("\"never_acked\":9"), "{figures}");
}
