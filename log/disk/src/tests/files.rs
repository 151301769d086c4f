//! Files of our own with any content: a start is refused with a reason or goes on, and never panics or takes memory without end.

use std::path::Path;
use std::sync::Arc;

use forebay_log::TopicConfig;

use crate::files::replace_file;
use crate::log::{Log, LogOptions};
use crate::sealed::seal;
use crate::sim::{Random, SimFiles};

/// Each file, its heading when it is sealed, and lines as it holds them: `#` stands for a number, `ID` for the topic's id.
const FILES: [(&str, Option<&str>, &[&str]); 4] = [
    (
        "metadata",
        Some("forebay-metadata 1"),
        &[
            "cluster c",
            "topic t ID # online",
            "topic ../../t ID 1 online",
            "topic t ID 1 deleting segment.bytes=# retention.ms=# max.message.bytes=#",
        ],
    ),
    ("log/recovery-point-offset-checkpoint", Some("forebay-recovery-points 1"), &["ID # #", "ID 0 #"]),
    ("log/t-0/partition.state", Some("forebay-partition-state 1"), &["log_start #", "tiered #", "cold # # #"]),
    ("log/t-0/leader-epoch-checkpoint", None, &["0", "1", "# #", "#"]),
];
const NUMBERS: [&str; 10] = [
    "0",
    "1",
    "7",
    "-1",
    "2147483647",
    "4294967295",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "x",
];

/// A node's directory with one topic in it, and the id of that topic.
fn made() -> (SimFiles, String) {
    let files = SimFiles::new(1);
    let log = Log::open(Arc::new(files.clone()), LogOptions { shards: 1, fsync: true, alone: true }).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let topic = runtime.block_on(log.create_topic("t", 1, TopicConfig::default())).unwrap();
    log.shutdown();
    (files, topic.id.to_string())
}

fn body(random: &mut Random, lines: &[&str], id: &str) -> String {
    let mut text = String::new();
    for n in 0..random.below(5) {
        // In the order of the file now and then, so that what is whole is met too.
        let at = if random.chance(500) { n } else { random.below(lines.len() as u64) };
        for part in lines[at as usize % lines.len()].replace("ID", id).split_inclusive('#') {
            text.push_str(&part.replace('#', NUMBERS[random.below(NUMBERS.len() as u64) as usize]));
        }
        text.push('\n');
    }
    text
}

#[test]
fn a_start_over_files_of_any_content_is_refused_or_goes_on() {
    for seed in 250..320 {
        let (files, id) = made();
        let mut random = Random::new(seed);
        let (name, heading, lines) = FILES[random.below(4) as usize];
        let body = body(&mut random, lines, &id);
        let text = heading.map_or_else(|| body.clone(), |heading| seal(heading, &body));
        replace_file(&files, Path::new(name), text.as_bytes()).unwrap();
        let Ok(log) = Log::open(Arc::new(files.clone()), LogOptions { shards: 1, fsync: true, alone: true }) else {
            continue;
        };
        for topic in log.topics().values() {
            for partition in &topic.partitions {
                let marks = partition.watermarks();
                assert!(marks.log_start.0 >= 0 && marks.log_start <= marks.log_end, "seed {seed}: {name} {body:?}");
                let _ = partition.read(marks.log_start, 1000);
            }
        }
        log.shutdown();
    }
}
