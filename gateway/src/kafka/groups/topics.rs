//! The topics that there are, as groups need them: read again when there are others.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use forebay_cluster::Log;
use forebay_log::group::Name;
use forebay_log::group::consumer::{Catalog, Shape, TopicId};

/// The last catalog.
pub(super) struct Topics {
    last: ArcSwapOption<Catalog>,
}

impl Topics {
    pub(super) fn new() -> Topics {
        Topics { last: ArcSwapOption::empty() }
    }

    pub(super) fn catalog(&self, log: &Log) -> Arc<Catalog> {
        // Before the topics are read: they are at least as new.
        let version = *log.topics_changed().borrow();
        if let Some(last) = self.last.load_full().filter(|last| last.version == version) {
            return last;
        }
        let mut catalog = Catalog { version, ..Catalog::default() };
        for (name, topic) in log.topics().iter() {
            let name = Name::from(&**name);
            if topic.is_internal() {
                catalog.hidden.insert(name.clone());
            }
            let partitions = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
            catalog.topics.insert(name, Shape { id: TopicId(topic.id.into_bytes()), partitions });
        }
        let catalog = Arc::new(catalog);
        self.last.store(Some(Arc::clone(&catalog)));
        catalog
    }
}
