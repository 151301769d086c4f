//! What the controller keeps of rule files gives them back, whoever offered what in between.

use forebay_log::cluster::controller::{Controller, Limits, SettingChange};
use forebay_log::cluster::{LevelRange, Record, Request};
use forebay_log::{Incarnation, Level, Millis};
use proptest::prelude::*;

use super::*;

/// The controller of a cluster of three, as it decides; with it, the image that nodes get.
struct Held {
    controller: Controller,
}

impl Held {
    fn new() -> Held {
        let nodes: Vec<NodeId> = [1, 2, 3].map(NodeId).to_vec();
        let mut image = Image::default();
        image.apply(&Record::ClusterCreated { id: Uuid::from_u128(1), level: Level(1), nodes: nodes.clone() });
        for id in &nodes {
            image.apply(&registered(*id, u128::from(id.0.unsigned_abs())));
        }
        let voters = nodes.into_iter().collect();
        Held { controller: Controller::new(image, Limits::default(), voters, Millis(0)) }
    }

    fn image(&self) -> Image {
        self.controller.image().clone()
    }

    /// Makes a change; how many records it takes, and how many bytes of settings are in them.
    fn put(&mut self, Change { expected, changes }: Change) -> Option<(usize, usize)> {
        let setting = |(key, value): Entry| SettingChange { namespace: NAMESPACE.to_owned(), key, value };
        let settings = |entries: Vec<Entry>| entries.into_iter().map(setting).collect();
        let request = Request::PutSettings { changes: settings(changes), expected: settings(expected) };
        let mut records = Vec::new();
        self.controller.handle(Millis(0), request, &mut records).ok()?;
        let bytes = |record: &Record| match record {
            Record::Setting { value: Some(value), .. } => value.len(),
            _ => 0,
        };
        Some((records.len(), records.iter().map(bytes).sum()))
    }

    fn sources(&self) -> Option<(RuleStamp, Sources)> {
        let image = self.image();
        let listed = Listed::read(&image).unwrap()?;
        let sources = listed.sources(&image).unwrap();
        Some((listed.stamp, sources))
    }
}

fn registered(id: NodeId, directory: u128) -> Record {
    Record::NodeRegistered {
        id,
        incarnation: Incarnation(1),
        directory: Uuid::from_u128(directory),
        addresses: BTreeMap::new(),
        rack: None,
        levels: LevelRange::OURS,
        process: Uuid::nil(),
    }
}

fn offered(image: &Image, node: NodeId, own: &Sources) -> Result<Change, Unkept> {
    offer(image, node, own, &own.digest())
}

/// A rule file and its tables.
type Texts<'a> = (&'a str, &'a [(&'a str, &'a str)]);

fn sources(texts: &[Texts<'_>]) -> Sources {
    let source = |(number, (text, tables)): (usize, &Texts<'_>)| Source {
        name: format!("/rules/{number}.yaml"),
        text: (*text).to_owned(),
        tables: tables.iter().map(|(path, table)| ((*path).to_owned(), (*table).to_owned())).collect(),
    };
    Sources { files: texts.iter().enumerate().map(source).collect() }
}

#[test]
fn a_change_brings_along_only_what_it_changes() {
    let mut held = Held::new();
    let (rules, table) = ("r".repeat(10_000), "t".repeat(500_000));
    let first = sources(&[(&rules, &[("a.csv", &table)]), ("b", &[("b.csv", &table)])]);
    held.put(offered(&held.image(), NodeId(1), &first).unwrap()).unwrap();
    assert_eq!(held.sources().unwrap().1, first);
    assert_eq!(held.image().settings_bytes() / 100_000, 5, "the table is there once");

    let second = sources(&[("other", &[("a.csv", &table)]), ("b", &[("b.csv", &table)])]);
    let (_, bytes) = held.put(offered(&held.image(), NodeId(2), &second).unwrap()).unwrap();
    assert!(bytes < 2000, "{bytes} bytes");
    let (stamp, now) = held.sources().unwrap();
    assert_eq!((stamp.revision, stamp.node, now), (2, 2, second.clone()));
    // The same again, from wherever it lies: nothing but that the node has it.
    let mut elsewhere = second;
    elsewhere.files.iter_mut().for_each(|file| file.name.insert_str(0, "/elsewhere"));
    let (records, _) = held.put(offered(&held.image(), NodeId(3), &elsewhere).unwrap()).unwrap();
    assert_eq!((records, held.sources().unwrap().0), (1, stamp));

    let none = sources(&[("groups: []", &[])]);
    held.put(offered(&held.image(), NodeId(1), &none).unwrap()).unwrap();
    assert!(held.image().settings_bytes() < 2000, "nobody needs the texts any more");
}

#[test]
fn of_two_offers_at_once_one_holds_whole() {
    let mut held = Held::new();
    let image = held.image();
    let (one, other) = (sources(&[("one", &[("x", "1")])]), sources(&[("other", &[("x", "2")])]));
    assert!(held.put(offered(&image, NodeId(1), &one).unwrap()).is_some());
    assert!(held.put(offered(&image, NodeId(2), &other).unwrap()).is_none());
    assert_eq!(held.sources().unwrap().1, one);
    assert_eq!((noted(&held.image(), NodeId(1)), noted(&held.image(), NodeId(2))), (Some(one.digest()), None));
}

#[test]
fn what_a_node_had_is_forgotten_with_its_directory() {
    let mut held = Held::new();
    held.put(note(&held.image(), NodeId(2), "d")).unwrap();
    let mut image = held.image();
    assert_eq!(noted(&image, NodeId(2)).as_deref(), Some("d"));
    image.apply(&registered(NodeId(2), 99));
    assert_eq!(noted(&image, NodeId(2)), None);
}

#[test]
fn too_much_is_refused_with_the_bound() {
    let image = Held::new().image();
    let error = offered(&image, NodeId(1), &sources(&[(&"x".repeat(MAX_KEPT_BYTES), &[])])).unwrap_err().to_string();
    assert!(error.contains("keeps 1048576 bytes in 256 files at most"), "{error}");
    let many = vec![("", &[][..]); MAX_KEPT_FILES + 1];
    assert!(matches!(offered(&image, NodeId(1), &sources(&many)), Err(Unkept::TooMuch { files: 257, .. })));
    // All that is allowed goes into one change.
    let (text, mut held) = ("\n".repeat(MAX_KEPT_BYTES / MAX_KEPT_FILES - 64), Held::new());
    let texts: Vec<String> = (0..MAX_KEPT_FILES).map(|number| format!("{number}{text}")).collect();
    let most: Vec<_> = texts.iter().map(|text| (text.as_str(), &[][..])).collect();
    held.put(offered(&held.image(), NodeId(1), &sources(&most)).unwrap()).unwrap();
    assert_eq!(held.sources().unwrap().1, sources(&most));
}

#[test]
fn a_set_of_a_later_release_is_not_read_and_not_replaced() {
    let mut held = Held::new();
    let later = r#"{"version":2,"revision":7,"node":1,"digest":"d","files":{"in":"another form"}}"#;
    held.put(Change { expected: Vec::new(), changes: vec![(SET.to_owned(), Some(later.to_owned()))] }).unwrap();
    let error = Listed::read(&held.image()).unwrap_err();
    assert!(error.to_string().contains("version 2; this release reads 1"), "{error}");
    assert_eq!(offered(&held.image(), NodeId(2), &sources(&[("mine", &[])])).unwrap_err(), error);
    assert_eq!((is_held(&held.image()), held_stamp(&held.image())), (true, None));
}

proptest! {
    /// Whoever offers what, on metadata of now or of before: what is held is what the last one offered whose offer was taken.
    #[test]
    fn what_is_held_is_the_last_offer_that_was_taken(
        offers in prop::collection::vec((1i32..4, prop::collection::vec((0u8..6, prop::collection::vec(0u8..6, 0..3)), 0..4), any::<bool>()), 1..12),
    ) {
        let mut held = Held::new();
        let mut expected = None;
        let mut before = held.image();
        for (node, files, late) in offers {
            let now = held.image();
            let texts: Vec<String> = (0..6).map(|number| format!("text {number}")).collect();
            let tables: Vec<Vec<(&str, &str)>> = files.iter()
                .map(|(_, tables)| tables.iter().map(|t| (&*texts[usize::from(*t)], &*texts[usize::from(5 - *t)])).collect())
                .collect();
            let files: Vec<_> = files.iter().zip(&tables).map(|((text, _), tables)| (&*texts[usize::from(*text)], &**tables)).collect();
            let own = sources(&files);
            let change = offered(if late { &before } else { &now }, NodeId(node), &own).unwrap();
            if held.put(change).is_some() {
                prop_assert_eq!(noted(&held.image(), NodeId(node)), Some(own.digest()));
                expected = Some(own);
            } else {
                prop_assert!(late);
            }
            let (stamp, sources) = held.sources().expect("something was taken");
            prop_assert_eq!(Some(&sources), expected.as_ref());
            prop_assert_eq!(&stamp.digest, &sources.digest());
            before = now;
        }
    }
}
