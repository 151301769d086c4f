//! A meter in Rust: publishes readings over MQTT with QoS 1 and counts the PUBACKs.
//!
//! `cargo run -p forebay-examples --bin meter -- [HOST:PORT] [METER] [COUNT]`

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:1883".to_owned());
    let meter = args.next().unwrap_or_else(|| "m1".to_owned());
    let count: u32 = args.next().as_deref().unwrap_or("10").parse().context("COUNT is a number")?;
    let (host, port) = address.rsplit_once(':').context("the address is HOST:PORT")?;

    let mut options = MqttOptions::new(meter.clone(), host, port.parse().context("the port is a number")?);
    options.set_keep_alive(Duration::from_secs(30));
    let (client, mut events) = AsyncClient::new(options, 100);
    let topic = format!("meters/{meter}/readings");
    let publisher = tokio::spawn(async move {
        for minute in 0..count {
            let reading = serde_json::json!({
                "meter": meter,
                "ts": format!("2026-01-01T{:02}:{:02}:00Z", minute / 60 % 24, minute % 60),
                "voltage": 230.0 + f64::from(minute % 7),
            });
            client.publish(&topic, QoS::AtLeastOnce, false, reading.to_string()).await?;
        }
        // The client is handed back: dropped here, it would end the connection before the last ack.
        Ok::<_, rumqttc::ClientError>(client)
    });

    let mut acked = 0;
    while acked < count {
        match tokio::time::timeout(Duration::from_secs(10), events.poll()).await {
            Ok(Ok(Event::Incoming(Packet::PubAck(_)))) => acked += 1,
            Ok(Ok(_)) => {}
            Ok(Err(error)) => bail!("{address}: {error}"),
            Err(_) => bail!("{address}: no ack within 10 s"),
        }
    }
    publisher.await??;
    println!("{acked} readings are durable");
    Ok(())
}
