//! The log on disk, tested from outside.

mod commit;
mod common;
mod damage;
mod files;
mod full_disk;
mod log;
mod producers;
mod recovery;
