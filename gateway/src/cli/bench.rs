//! `forebay bench`: a load generator against this program or any other broker that speaks the protocol.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Subcommand, ValueEnum};

use super::Usage;
use super::bootstrap::BootstrapArgs;
use crate::bench::{FetchBench, KafkaAcks, KafkaBench, Load, MqttBench, Payload, Report, RoadKind, Show, Verify};
use crate::client::mqtt::Trust;
use crate::config::{TimeUnit, parse_time};
use crate::mqtt::packet::{Qos, Version};

/// Clients of one run: their numbers have six digits.
const MAX_CLIENTS: u64 = 999_999;
/// Bytes of a topic before the clients' names are put in; with them it must stay below 64 KiB (MQTT section 1.5.4).
const MAX_TOPIC: usize = 16 << 10;
/// How long a run is warmed up that is measured by time.
const WARMUP: Duration = Duration::from_secs(1);
/// How long a run takes if neither time nor count is given.
const DURATION: Duration = Duration::from_secs(10);

/// Arguments of `forebay bench`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    protocol: Protocol,
}

#[derive(Debug, Subcommand)]
enum Protocol {
    /// Publish over MQTT, on TCP or TLS
    Mqtt(MqttArgs),
    /// Publish over MQTT over QUIC
    Quic(QuicArgs),
    /// Produce or fetch over the Kafka protocol
    Kafka(KafkaArgs),
}

#[derive(Debug, clap::Args)]
struct LoadArgs {
    /// Connections [default: 100, Kafka 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_CLIENTS))]
    clients: Option<u64>,
    /// Messages (Kafka: requests) of one client that may be unacknowledged [default: 20, Kafka 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    inflight: Option<u16>,
    /// Messages a second of all clients together, on a schedule that does not wait for the broker: latency counts from the time
    /// at which a message was due [default: as fast as acks come]
    #[arg(long, value_name = "N", value_parser = positive)]
    rate: Option<f64>,
    /// How long is measured, after the warm-up [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = time)]
    duration: Option<Duration>,
    /// Stop after so many messages of all clients together
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Time that is not measured before [default: 1s, and none with --count]
    #[arg(long, value_name = "TIME", value_parser = time)]
    warmup: Option<Duration>,
    /// Threads that share the clients
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// What is sent: a template in which {client}, {seq}, {time} and {value} are replaced, @FILE with one (of a .csv or .csv.zst its
    /// readings), or "readings" for the real ones in the program [default: JSON readings of --size]
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "size")]
    payload: Option<String>,
    /// Bytes of a payload [default: 200, Kafka 1024]
    #[arg(long, value_name = "BYTES")]
    size: Option<usize>,
    /// Read back by Kafka what was sent and compare: each acknowledged message there once, in its client's order
    #[arg(long)]
    verify: bool,
    /// Print the figures as one JSON object
    #[arg(long)]
    json: bool,
    /// Print a line a second on stderr [default: a bar if stderr is a terminal, else nothing]
    #[arg(long)]
    progress: bool,
}

#[derive(Debug, clap::Args)]
struct PublishArgs {
    /// Host of the broker
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Version of MQTT
    #[arg(long, value_enum, default_value_t = VersionArg::V311)]
    mqtt_version: VersionArg,
    /// Quality of service: 0, 1 or 2
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// Topic of the messages
    #[arg(long, default_value = "meters/{client}/readings")]
    topic: String,
    /// User name for the broker
    #[arg(long)]
    username: Option<String>,
    /// Password for the broker
    #[arg(long, requires = "username")]
    password: Option<String>,
    /// PEM file of the authorities that may have signed the broker's certificate
    #[arg(long, value_name = "FILE")]
    cafile: Option<PathBuf>,
    /// Kafka listener for --verify, HOST:PORT
    #[arg(long, default_value = "127.0.0.1:9092", value_name = "HOST:PORT")]
    bootstrap: String,
    /// Log topic that --verify reads: where the broker's routes put the messages
    #[arg(long, default_value = "mqtt", value_name = "TOPIC")]
    log_topic: String,
    #[command(flatten)]
    load: LoadArgs,
}

#[derive(Debug, clap::Args)]
struct MqttArgs {
    /// Port of the broker [default: 1883, with TLS 8883]
    #[arg(long)]
    port: Option<u16>,
    /// Connect over TLS; needs --cafile or --insecure
    #[arg(long)]
    tls: bool,
    /// Accept any certificate
    #[arg(long)]
    insecure: bool,
    #[command(flatten)]
    publish: PublishArgs,
}

#[derive(Debug, clap::Args)]
struct QuicArgs {
    /// UDP port of the broker
    #[arg(long, default_value_t = 14567)]
    port: u16,
    /// Accept any certificate [default without --cafile]
    #[arg(long)]
    insecure: bool,
    #[command(flatten)]
    publish: PublishArgs,
}

#[derive(Debug, clap::Args)]
struct KafkaArgs {
    #[command(flatten)]
    bootstrap: BootstrapArgs,
    /// Topic to produce to (made if it is missing) or to fetch from
    #[arg(long, default_value = "bench")]
    topic: String,
    /// What an acknowledgement waits for
    #[arg(long, value_enum, default_value_t = AcksArg::All)]
    acks: AcksArg,
    /// Bytes of a batch before compression
    #[arg(long, default_value_t = 65_536, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=64 << 20))]
    batch_bytes: u32,
    /// Codec of the batches
    #[arg(long, value_enum, default_value_t)]
    compression: super::produce::Codec,
    /// Read the topic from its beginning, again and again, instead of producing
    #[arg(long, conflicts_with_all = ["verify", "rate", "payload", "size"])]
    fetch: bool,
    #[command(flatten)]
    load: LoadArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum VersionArg {
    #[value(name = "3.1.1")]
    V311,
    #[value(name = "5")]
    V5,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AcksArg {
    #[value(name = "0")]
    None,
    #[value(name = "1")]
    Leader,
    All,
}

/// Runs the command.
///
/// # Errors
/// Wrong usage, a broker that cannot be reached, a message without ack, or a failed verification.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let (report, json) = match args.protocol {
        Protocol::Mqtt(args) => {
            let json = args.publish.load.json;
            (mqtt(args)?.run().await?, json)
        }
        Protocol::Quic(args) => {
            let json = args.publish.load.json;
            let trust = trust(args.publish.cafile.as_ref(), args.insecure || args.publish.cafile.is_none())?;
            (publish(args.publish, RoadKind::Quic(trust), args.port)?.run().await?, json)
        }
        Protocol::Kafka(args) => {
            let json = args.load.json;
            (kafka(args).await?, json)
        }
    };
    if json {
        println!("{}", report.json());
    } else {
        print!("{}", report.text());
    }
    report.failure().map_or(Ok(()), |why| Err(anyhow::anyhow!(why).context("not everything went well")))
}

fn mqtt(args: MqttArgs) -> anyhow::Result<MqttBench> {
    let tls = args.tls || args.publish.cafile.is_some();
    let road = if tls { RoadKind::Tls(trust(args.publish.cafile.as_ref(), args.insecure)?) } else { RoadKind::Tcp };
    publish(args.publish, road, args.port.unwrap_or(if tls { 8883 } else { 1883 }))
}

fn trust(cafile: Option<&PathBuf>, insecure: bool) -> anyhow::Result<Trust> {
    match (cafile, insecure) {
        (_, true) => Ok(Trust::Anything),
        (Some(path), false) => Ok(Trust::CaFile(path.clone())),
        (None, false) => {
            Err(Usage("--tls needs --cafile FILE, or --insecure to trust any certificate".to_owned()).into())
        }
    }
}

fn publish(args: PublishArgs, road: RoadKind, port: u16) -> anyhow::Result<MqttBench> {
    if args.topic.contains(['+', '#', '\0']) || args.topic.is_empty() || args.topic.len() > MAX_TOPIC {
        return Err(Usage(format!("--topic {:?} is no topic to publish to", args.topic)).into());
    }
    Ok(MqttBench {
        host: args.host,
        port,
        road,
        version: if args.mqtt_version == VersionArg::V5 { Version::V5 } else { Version::V4 },
        qos: [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][usize::from(args.qos.min(2))],
        topic: args.topic,
        username: args.username,
        password: args.password,
        load: args.load.load(100, 20),
        payload: args.load.payload(200)?,
        verify: args.load.verify.then_some(Verify { bootstrap: args.bootstrap.as_str().into(), topic: args.log_topic }),
        show: args.load.show(),
    })
}

async fn kafka(args: KafkaArgs) -> anyhow::Result<Report> {
    let (load, show) = (args.load.load(4, 5), args.load.show());
    let bootstrap = args.bootstrap.read()?;
    if args.fetch {
        return FetchBench { bootstrap, topic: args.topic, load, show }.run().await;
    }
    let bench = KafkaBench {
        payload: args.load.payload(1024)?,
        acks: match args.acks {
            AcksArg::None => KafkaAcks::None,
            AcksArg::Leader => KafkaAcks::Leader,
            AcksArg::All => KafkaAcks::All,
        },
        batch_bytes: usize::try_from(args.batch_bytes)?,
        compression: args.compression.into(),
        verify: args.load.verify,
        bootstrap,
        topic: args.topic,
        load,
        show,
    };
    bench.run().await
}

impl LoadArgs {
    fn load(&self, clients: u64, inflight: u16) -> Load {
        let by_time = self.duration.or(self.count.is_none().then_some(DURATION));
        Load {
            clients: usize::try_from(self.clients.unwrap_or(clients)).unwrap_or(1),
            inflight: self.inflight.unwrap_or(inflight),
            rate: self.rate,
            duration: by_time,
            count: self.count,
            warmup: self.warmup.unwrap_or(if self.count.is_some() { Duration::ZERO } else { WARMUP }),
            threads: usize::from(self.threads),
        }
    }

    fn payload(&self, size: usize) -> anyhow::Result<Payload> {
        let Some(payload) = &self.payload else { return Ok(Payload::Reading { size: self.size.unwrap_or(size) }) };
        Ok(match payload.strip_prefix('@') {
            None if payload == "readings" => Payload::Readings(None),
            None => Payload::Template(payload.clone()),
            Some(file) if file.ends_with(".csv") || file.ends_with(".csv.zst") => Payload::Readings(Some(file.into())),
            Some(file) => Payload::Template(
                std::fs::read_to_string(file).with_context(|| format!("--payload: cannot read {file}"))?,
            ),
        })
    }

    fn show(&self) -> Show {
        if self.progress { Show::Lines } else { Show::Auto }
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let ms = parse_time(text, TimeUnit::Milliseconds)?;
    u64::try_from(ms).map(Duration::from_millis).map_err(|_| "a time cannot be below zero".to_owned())
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate: &f64| rate.is_finite() && *rate > 0.0)
        .ok_or_else(|| "expected a number above 0".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches};

    use super::*;

    fn parse(line: &str) -> Result<Protocol, String> {
        let command = Args::augment_args(clap::Command::new("bench"));
        let matches = command.try_get_matches_from(std::iter::once("bench").chain(line.split(' ')));
        let args = matches.and_then(|matches| Args::from_arg_matches(&matches));
        args.map(|args| args.protocol).map_err(|error| error.to_string())
    }

    fn mqtt_bench(line: &str) -> anyhow::Result<MqttBench> {
        match parse(line).map_err(anyhow::Error::msg)? {
            Protocol::Mqtt(args) => mqtt(args),
            other => Err(anyhow::anyhow!("{other:?}")),
        }
    }

    #[test]
    fn without_options_a_local_node_is_loaded_as_by_a_hundred_meters() {
        let bench = mqtt_bench("mqtt").unwrap();
        assert_eq!((bench.host.as_str(), bench.port, bench.qos), ("127.0.0.1", 1883, Qos::AtLeastOnce));
        assert_eq!((bench.load.clients, bench.load.inflight), (100, 20));
        assert_eq!((bench.load.duration, bench.load.warmup), (Some(DURATION), WARMUP));
        assert!(matches!(bench.payload, Payload::Reading { size: 200 }) && bench.verify.is_none());
    }

    #[test]
    fn a_count_replaces_the_time_unless_both_are_given() {
        let load = |line: &str| mqtt_bench(line).unwrap().load;
        assert_eq!((load("mqtt --count 5").duration, load("mqtt --count 5").warmup), (None, Duration::ZERO));
        assert_eq!(load("mqtt --count 5 --duration 2s").duration, Some(Duration::from_secs(2)));
    }

    #[test]
    fn what_cannot_be_meant_is_wrong_usage() {
        for (line, what) in [
            ("mqtt --qos 3", "3 is not in 0..=2"),
            ("mqtt --rate 0", "above 0"),
            ("mqtt --clients 0", "0 is not in"),
            ("mqtt --mqtt-version 4", "3.1.1, 5"),
            ("mqtt --tls", "--cafile"),
            ("mqtt --topic a/+", "no topic to publish to"),
            ("mqtt --payload x --size 5", "cannot be used with"),
        ] {
            let error = mqtt_bench(line).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(what), "{line}: {error}");
        }
        assert!(parse("kafka --fetch --verify").is_err());
        assert_eq!(mqtt_bench("mqtt --tls --insecure").unwrap().port, 8883);
    }
}
