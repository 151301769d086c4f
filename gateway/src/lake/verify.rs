//! Proves that manifest, objects, table and log agree, by reading all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use forebay_cluster::{Partition, Topic};
use forebay_log::record::{Batches, RecordReader};
use forebay_log::{Offset, ReadError};
use forebay_tiering::manifest::{Entry, Lost, State};
use forebay_tiering::table::{DeltaLake, Table, TableFile};
use object_store::path::Path;

use super::{Shared, VerifyReport, status};

/// Bytes of local log read at once.
const READ_BYTES: usize = 1 << 20;
/// Problems listed; more are only counted.
const MAX_PROBLEMS: usize = 100;

/// Runs in the topic's worker, so that of what this node leads no offload goes on meanwhile; that of other nodes may.
pub(super) async fn verify(shared: &Shared, topic: &Arc<Topic>) -> VerifyReport {
    let mut report =
        VerifyReport { topic: topic.name.clone(), files: 0, rows: 0, problems: Vec::new(), lost: Vec::new() };
    let (entries, totals) = (shared.manifest.all(topic.id), shared.manifest.totals(topic.id, status::settled(topic)));
    for partition in &topic.partitions {
        let own: Vec<_> = entries
            .iter()
            .filter(|entry| {
                entry.partition == partition.index() && entry.readable() && entry.state != State::DeleteStarted
            })
            .collect();
        check_ranges(partition, &own, totals.end(partition.index()), &mut report);
        for entry in own {
            check_object(shared, partition, entry, &mut report).await;
        }
    }
    if status::settled(topic) == State::Committed {
        check_table(shared, topic, &entries, &mut report).await;
    }
    for list in [&mut report.problems, &mut report.lost] {
        let found = list.len();
        if found > MAX_PROBLEMS {
            list.truncate(MAX_PROBLEMS);
            list.push(format!("and {} more", found - MAX_PROBLEMS));
        }
    }
    report
}

/// The ranges follow one another without gap or overlap, from the log start on, and meet the local log.
fn check_ranges(partition: &Partition, own: &[&Arc<Entry>], end: Offset, report: &mut VerifyReport) {
    if !partition.is_here() {
        return;
    }
    let (index, marks) = (partition.index(), partition.watermarks());
    let mut next: Option<Offset> = None;
    for entry in own {
        let expected = next.unwrap_or(entry.base);
        if entry.base != expected && entry.base > marks.log_start {
            let what = if entry.base > expected { "a gap" } else { "an overlap" };
            report.problems.push(format!("partition {index}: {what} between offsets {expected} and {}", entry.base));
        }
        next = Some(entry.end);
    }
    if let Some(first) = own.first().filter(|first| first.base > marks.log_start) {
        let (start, base) = (marks.log_start, first.base);
        report.problems.push(format!("partition {index}: the log starts at {start}, the lake only at {base}"));
    }
    let end = end.max(marks.log_start);
    if end < marks.local_start {
        report.problems.push(format!(
            "partition {index}: offsets {end} to {} are neither in the lake nor in the local log",
            marks.local_start
        ));
    }
}

/// The object has the rows that the manifest says, and as many as the local log where that still has them.
async fn check_object(shared: &Shared, partition: &Arc<Partition>, entry: &Entry, report: &mut VerifyReport) {
    let check = match shared.reader.check(&Path::from(entry.path.as_str())).await {
        Ok(check) => check,
        Err(error) => return report.problems.push(format!("object {}: {error}", entry.path)),
    };
    report.files += 1;
    report.rows += check.rows;
    let promised = entry.facts.as_ref().map_or(0, |facts| facts.rows);
    if check.rows != promised {
        report.problems.push(format!("object {}: {} rows, the manifest says {promised}", entry.path, check.rows));
    }
    let lost = entry.facts.as_ref().map(|facts| &facts.lost).filter(|lost| lost.offsets > 0);
    report.lost.extend(lost.map(|lost| format!("partition {}: {lost}", entry.partition)));
    let inside = check.first.is_none_or(|first| first >= entry.base) && check.last.is_none_or(|last| last < entry.end);
    if !inside || !check.ascending {
        report.problems.push(format!(
            "object {}: offsets {:?} to {:?} are not the ascending range {}..{}",
            entry.path, check.first, check.last, entry.base, entry.end
        ));
    }
    let marks = partition.watermarks();
    if !partition.is_here() || entry.base < marks.local_start || entry.end > marks.high_watermark {
        return;
    }
    let (source, base, end) = (partition.clone(), entry.base, entry.end);
    let counted = tokio::task::spawn_blocking(move || count_local(&source, base, end)).await;
    match counted.unwrap_or_else(|error| Err(error.to_string())) {
        Ok((rows, _)) if rows == check.rows => {}
        Ok((rows, lost)) => {
            let damage = if lost.offsets > 0 { format!(" and has lost {lost}") } else { String::new() };
            report
                .problems
                .push(format!("object {}: {} rows, the local log has {rows}{damage}", entry.path, check.rows));
        }
        // Local retention may let the segment go at any time.
        Err(_) if entry.base < partition.watermarks().local_start => {}
        Err(error) => report.problems.push(format!("partition {}, offset {base}: {error}", partition.index())),
    }
}

/// The rows of a range in the local log, and what is damaged there.
fn count_local(partition: &Partition, base: Offset, end: Offset) -> Result<(u64, Lost), String> {
    let (mut rows, mut lost, mut next) = (0, Lost::default(), base);
    while next < end {
        let before = next;
        let fetched = match partition.read(next, READ_BYTES) {
            Ok(fetched) => fetched,
            Err(error @ ReadError::Corrupt { next: behind, .. }) if behind > next => {
                lost.add(next, behind.min(end), &error.to_string());
                next = behind;
                continue;
            }
            Err(error) => return Err(error.to_string()),
        };
        for batch in Batches::new(fetched.batches) {
            let (header, batch) = batch.map_err(|problem| problem.to_string())?;
            next = header.next_offset().max(next);
            if header.is_control() || header.base_offset >= end {
                continue;
            }
            for record in RecordReader::new(&header, &batch).map_err(|problem| problem.to_string())? {
                let offset = record.map_err(|problem| problem.to_string())?.offset;
                rows += u64::from(offset >= base && offset < end);
            }
        }
        if next == before {
            return Err(format!("the local log ends at offset {next}"));
        }
    }
    Ok((rows, lost))
}

/// The table lists the committed objects and ends where the manifest says.
async fn check_table(shared: &Shared, topic: &Topic, entries: &[Arc<Entry>], report: &mut VerifyReport) {
    let mut table = DeltaLake::new(shared.store.clone(), &topic.name, topic.id);
    let contents = match table.contents().await {
        Ok(contents) => contents,
        Err(error) => return report.problems.push(format!("table: {error}")),
    };
    // Other nodes may have gone on meanwhile: what was there before must be listed unless it is on its way out by now.
    let now = shared.manifest.all(topic.id);
    let staying: BTreeSet<_> =
        now.iter().filter(|entry| entry.state == State::Committed).map(|entry| entry.id).collect();
    let committed = entries.iter().filter(|entry| entry.state == State::Committed && staying.contains(&entry.id));
    let expected: BTreeMap<&str, &Arc<Entry>> = committed.map(|entry| (entry.path.as_str(), entry)).collect();
    let listed: BTreeSet<&str> = contents.files.iter().map(|file| file.path.as_str()).collect();
    // Finished copies may be in the table already if a crash came between commit and manifest.
    let known: BTreeSet<&str> = entries.iter().chain(&now).map(|entry| entry.path.as_str()).collect();
    check_listing(&expected, &listed, &known, &contents.files, report);
    for file in &contents.files {
        let facts = expected.get(file.path.as_str()).and_then(|entry| entry.facts.as_ref());
        if let Some(facts) = facts.filter(|facts| file.rows != Some(facts.rows) || file.bytes != facts.bytes) {
            report.problems.push(format!(
                "the table says {} rows and {} bytes of {}, the manifest {} and {}",
                file.rows.map_or("unknown".to_owned(), |rows| rows.to_string()),
                file.bytes,
                file.path,
                facts.rows,
                facts.bytes
            ));
        }
    }
    for partition in &topic.partitions {
        let index = partition.index();
        let own = entries.iter().filter(|entry| entry.partition == index && entry.state == State::Committed);
        let Some(end) = own.map(|entry| entry.end).max() else { continue };
        match table.committed_end(index).await {
            Ok(Some(table_end)) if table_end >= end.0 => {}
            Ok(table_end) => report.problems.push(format!(
                "partition {index}: the table's transaction ends at {}, the manifest at {end}",
                table_end.map_or("nothing".to_owned(), |end| end.to_string())
            )),
            Err(error) => report.problems.push(format!("table: {error}")),
        }
    }
}

/// Files may be missing only if another writer's OPTIMIZE has put as many rows into files of its own.
fn check_listing(
    expected: &BTreeMap<&str, &Arc<Entry>>,
    listed: &BTreeSet<&str>,
    known: &BTreeSet<&str>,
    files: &[TableFile],
    report: &mut VerifyReport,
) {
    let missing: Vec<_> = expected.iter().filter(|(path, _)| !listed.contains(*path)).collect();
    let foreign: Vec<_> = files.iter().filter(|file| !known.contains(file.path.as_str())).collect();
    let lost: u64 = missing.iter().filter_map(|(_, entry)| entry.facts.as_ref()).map(|facts| facts.rows).sum();
    let gained: Option<u64> = foreign.iter().map(|file| file.rows).sum();
    if gained == Some(lost) {
        return;
    }
    for (path, _) in missing {
        report.problems.push(format!("object {path} is committed but not in the table"));
    }
    for file in foreign {
        report.problems.push(format!("the table lists {}, which the manifest does not know", file.path));
    }
}
