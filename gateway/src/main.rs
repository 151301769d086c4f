//! The program `forebay`: its exit code; everything else is in the library.

use std::process::ExitCode;

/// Nearly a tenth more messages a second than with glibc's, and what a thread leaves behind serves the next (BENCHMARKS.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Huge pages, which some systems give unasked, make a node no faster and more than double what it has resident
    // (BENCHMARKS.md, Footprint). Where the system cannot be told, only memory is lost.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    forebay::cli::main()
}
