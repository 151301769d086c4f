//! Compares what was read back with what was sent: each acknowledged message there once, unchanged, in its client's order. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Names;
use super::fleet::Account;
use super::payload::Deck;

/// Mistakes that are told one by one.
const EXAMPLES: usize = 10;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Records of this run.
    pub(super) records: u64,
    /// Messages that should be there and are not.
    pub(super) missing: u64,
    pub(super) duplicates: u64,
    pub(super) out_of_order: u64,
    /// Records that are not what was sent.
    pub(super) altered: u64,
    /// At QoS 0 nobody promised anything: these are no fault.
    pub(super) lost_unpromised: u64,
    pub(super) examples: Vec<String>,
}

impl Verdict {
    pub(super) fn is_good(&self) -> bool {
        self.missing + self.duplicates + self.out_of_order + self.altered == 0
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "ok": self.is_good(),
            "records": self.records,
            "missing": self.missing,
            "duplicates": self.duplicates,
            "out_of_order": self.out_of_order,
            "altered": self.altered,
            "lost_without_ack": self.lost_unpromised,
            "examples": self.examples,
        })
    }

    fn example(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(text());
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Verdict { records, missing, duplicates, out_of_order, altered, .. } = self;
        write!(f, "{records} records read back, {missing} missing, {duplicates} duplicates, ")?;
        write!(f, "{out_of_order} out of order, {altered} altered")?;
        if self.lost_unpromised > 0 {
            write!(f, ", {} lost that nobody had acknowledged", self.lost_unpromised)?;
        }
        Ok(())
    }
}

/// Takes records in, one partition's in its order, and judges at the end.
pub(super) struct Check<'a> {
    deck: &'a Deck,
    names: &'a Names,
    accounts: &'a [Account],
    /// By client: a bit for each message.
    seen: Vec<Vec<u64>>,
    /// The highest number so far, by client and partition.
    highest: BTreeMap<(usize, i32), u64>,
    verdict: Verdict,
}

impl<'a> Check<'a> {
    pub(super) fn new(deck: &'a Deck, names: &'a Names, accounts: &'a [Account]) -> Check<'a> {
        let seen = accounts.iter().map(|account| vec![0; words(account.sent)]).collect();
        Check { deck, names, accounts, seen, highest: BTreeMap::new(), verdict: Verdict::default() }
    }

    /// One record: the client it names, and its payload. Those of others are passed over.
    pub(super) fn record(&mut self, partition: i32, client: &[u8], payload: &[u8]) {
        let Some(number) = self.names.number(client).filter(|number| *number < self.accounts.len()) else { return };
        self.verdict.records += 1;
        let name = || String::from_utf8_lossy(client).into_owned();
        let seq = self.deck.seq(payload).filter(|seq| *seq < self.accounts[number].sent);
        let Some(seq) = seq.filter(|seq| self.deck.is_intact(payload, number, &self.names.name(number), *seq)) else {
            self.verdict.altered += 1;
            let text = || format!("{}: a record that was not sent so: {:?}", name(), String::from_utf8_lossy(payload));
            return self.verdict.example(text);
        };
        let (word, bit) = place(seq);
        let seen = &mut self.seen[number][word];
        if *seen & bit != 0 {
            self.verdict.duplicates += 1;
            return self.verdict.example(|| format!("{}: message {seq} is there twice", name()));
        }
        *seen |= bit;
        let highest = self.highest.entry((number, partition)).or_insert(seq);
        if seq < *highest {
            self.verdict.out_of_order += 1;
            let highest = *highest;
            return self.verdict.example(|| format!("{}: message {seq} comes after {highest}", name()));
        }
        *highest = seq;
    }

    /// Everything has been read. `promised`: an ack was asked for.
    pub(super) fn end(mut self, promised: bool) -> Verdict {
        for (number, account) in self.accounts.iter().enumerate() {
            let mut unacked = account.unacked.iter().copied().peekable();
            for seq in 0..account.sent {
                let (word, bit) = place(seq);
                let is_unacked = unacked.next_if_eq(&seq).is_some();
                if self.seen[number][word] & bit != 0 || is_unacked {
                    continue;
                }
                if !promised {
                    self.verdict.lost_unpromised += 1;
                    continue;
                }
                self.verdict.missing += 1;
                let name = self.names.name(number);
                let text =
                    || format!("{}: message {seq} was acknowledged and is not there", String::from_utf8_lossy(&name));
                self.verdict.example(text);
            }
        }
        self.verdict
    }
}

fn words(bits: u64) -> usize {
    usize::try_from(bits.div_ceil(64)).unwrap_or(usize::MAX)
}

fn place(seq: u64) -> (usize, u64) {
    (usize::try_from(seq / 64).unwrap_or(usize::MAX), 1 << (seq % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(counts: &[u64]) -> Vec<Account> {
        counts.iter().map(|sent| Account { sent: *sent, unacked: Vec::new() }).collect()
    }

    fn payload(deck: &Deck, names: &Names, client: usize, seq: u64) -> Vec<u8> {
        let mut payload = deck.card(client, seq).to_vec();
        deck.fill(&mut payload, &names.name(client), seq, b"2026-01-02T03:04:05.678Z");
        payload
    }

    /// What the check says of these records (client and number) in one partition.
    fn judge(accounts: &[Account], records: &[(usize, u64)]) -> Verdict {
        let (deck, names) = (Deck::reading(200).unwrap(), Names::new());
        let mut check = Check::new(&deck, &names, accounts);
        for (client, seq) in records {
            check.record(0, &names.name(*client), &payload(&deck, &names, *client, *seq));
        }
        check.end(true)
    }

    #[test]
    fn what_is_there_once_and_in_order_is_good() {
        let verdict = judge(&sent(&[3, 1]), &[(0, 0), (1, 0), (0, 1), (0, 2)]);
        assert!(verdict.is_good() && verdict.records == 4, "{verdict}");
    }

    #[test]
    fn each_kind_of_fault_is_told_by_name() {
        let faults = |records: &[(usize, u64)]| {
            let verdict = judge(&sent(&[3]), records);
            (verdict.missing, verdict.duplicates, verdict.out_of_order, verdict.altered)
        };
        assert_eq!(faults(&[(0, 0), (0, 2)]), (1, 0, 0, 0));
        assert_eq!(faults(&[(0, 0), (0, 1), (0, 1), (0, 2)]), (0, 1, 0, 0));
        assert_eq!(faults(&[(0, 0), (0, 2), (0, 1)]), (0, 0, 1, 0));
        assert_eq!(faults(&[(0, 0), (0, 1), (0, 2), (0, 3)]), (0, 0, 0, 1), "never sent");
        assert!(
            judge(&sent(&[3]), &[(0, 0), (0, 2)]).examples[0].contains("message 1 was acknowledged and is not there")
        );
    }

    #[test]
    fn what_was_not_acknowledged_may_be_there_or_not() {
        let accounts = [Account { sent: 4, unacked: vec![1, 3] }];
        assert!(judge(&accounts, &[(0, 0), (0, 2)]).is_good());
        assert!(judge(&accounts, &[(0, 0), (0, 1), (0, 2), (0, 3)]).is_good());
        assert_eq!(judge(&accounts, &[(0, 0), (0, 1)]).missing, 1);
    }

    #[test]
    fn a_changed_payload_is_seen_and_strangers_are_passed_over() {
        let (deck, names, accounts) = (Deck::reading(200).unwrap(), Names::new(), sent(&[1]));
        let mut check = Check::new(&deck, &names, &accounts);
        let mut changed = payload(&deck, &names, 0, 0);
        changed[199] = b']';
        check.record(0, &names.name(0), &changed);
        check.record(0, b"meter-1", b"{}");
        check.record(0, &names.name(7), b"of no client of this run");
        let verdict = check.end(false);
        assert_eq!((verdict.records, verdict.altered, verdict.missing, verdict.lost_unpromised), (1, 1, 0, 1));
    }
}
