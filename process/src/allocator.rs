//! What every process of ours allocates by, RocksDB in it included: a third of the work of an answer, and of applying a change,
//! was glibc's malloc and free. Nothing else here names it, and nothing depends on which one it is.
//! Measured in docs/decisions/0034-mimalloc.md.

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;
