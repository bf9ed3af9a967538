//! How RocksDB is set up: what must never change for safety, and what an operator may tune.

use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, Cache, ColumnFamilyDescriptor, CompactOptions, DBCompressionType,
    DBRecoveryMode, LruCacheOptions, Options, SliceTransform, WriteBufferManager,
};
use serde::{Deserialize, Serialize};

use super::{
    TABLES, feed,
    forget::{ForgetSeen, ForgetVersions, SharedHorizon},
    keys, meta, seen, version,
};
use crate::planted::planted;

/// The hint goes by the first bytes of a row's key, which are those of its tenant and user: enough of them to tell the users of
/// a tenant apart, and few enough that not every key has a hint of its own, which takes 200 bytes of the memtable.
pub(super) const HINTED_BY: &str = "memtable_insert_with_hint_prefix_extractor=capped:24";

/// What an operator may tune.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreSettings {
    /// What block cache and write buffers may take together, in MiB.
    pub memory_mib: usize,
    /// How many of RocksDB's files may be open at once.
    pub open_files: i32,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self { memory_mib: 128, open_files: 512 }
    }
}

impl StoreSettings {
    /// Enough for a look at a few rows.
    pub(super) fn smallest() -> Self {
        Self { memory_mib: 8, open_files: 64 }
    }
}

/// The options of the database and of each table.
pub(super) struct Tables {
    pub(super) database: Options,
    pub(super) families: Vec<ColumnFamilyDescriptor>,
}

pub(super) fn tables(settings: &StoreSettings, horizon: &SharedHorizon) -> Tables {
    let bytes = settings.memory_mib * 1024 * 1024;
    let cache = shared_cache(bytes);
    // Write buffers are charged to the cache, so that both share one bound; at half of it they are flushed.
    let buffers = WriteBufferManager::new_write_buffer_manager_with_cache(bytes / 2, false, cache.clone());
    let family =
        |name: &str, table: &str| ColumnFamilyDescriptor::new(name, table_options(table, &cache, bytes, horizon));
    let mut families: Vec<_> = TABLES.iter().map(|table| family(table, table)).collect();
    families.push(family("default", meta::TABLE));
    Tables { database: database_options(settings, &buffers), families }
}

/// Few large parts: write buffers are charged in lumps of 256 KiB to parts by chance, and of the 64 parts that are the
/// default some would hold nothing else, so that what belongs there is read from disk each time.
fn shared_cache(bytes: usize) -> Cache {
    let mut options = LruCacheOptions::default();
    options.set_capacity(bytes);
    options.set_num_shard_bits(2);
    Cache::new_lru_cache_opts(&options)
}

fn database_options(settings: &StoreSettings, buffers: &WriteBufferManager) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // A torn tail was never acknowledged. Anything else that does not read is damage: the default mode would open
    // silently with half of the data (measured with RocksDB 11.8), this one refuses.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    if planted("damage-tolerated") {
        options.set_wal_recovery_mode(DBRecoveryMode::SkipAnyCorruptedRecord);
    }
    options.set_paranoid_checks(true);
    // A log that is gone, or shorter than it was, refuses too.
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_write_buffer_manager(buffers);
    options.set_max_open_files(settings.open_files);
    options.set_max_background_jobs(2);
    // There is one writer. Its inserts into the memtable then need no atomics, and go on from where the last one was.
    options.set_allow_concurrent_memtable_write(false);
    options.set_max_total_wal_size(256 * 1024 * 1024);
    options.set_bytes_per_sync(1024 * 1024);
    // The list of files names keys at their edges. It is written anew at this size (or at six times what it has to hold),
    // and at each start: no longer than that does it remember files that are gone.
    options.set_max_manifest_file_size(64 * 1024);
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(8 * 1024 * 1024);
    options
}

fn table_options(table: &str, cache: &Cache, memory: usize, horizon: &SharedHorizon) -> Options {
    let mut options = match table {
        version::TABLE | feed::TABLE | seen::TABLE => near_the_last(),
        _ => Options::default(),
    };
    options.set_block_based_table_factory(&block_options(table, cache));
    // Three tables are written with each change: together they may take what all write buffers may.
    options.set_write_buffer_size((memory * 3 / 16).clamp(4 << 20, 64 << 20));
    options.set_max_write_buffer_number(3);
    // The more of the young are merged at once, the less often is written anew what they are merged into. A third less work, and no slower
    // a search, than with half as many and two thirds of the write buffer (measured, docs/performance.md).
    options.set_level_zero_file_num_compaction_trigger(8);
    options.set_level_compaction_dynamic_level_bytes(true);
    // The young levels are rewritten soon: compressing them costs 2 us a change and saves little (measured).
    let (fast, dense) = (DBCompressionType::Lz4, DBCompressionType::Zstd);
    let none = DBCompressionType::None;
    options.set_compression_per_level(&[none, none, none, fast, fast, fast, fast]);
    options.set_bottommost_compression_type(dense);
    match table {
        version::TABLE => {
            options.set_compaction_filter_factory(ForgetVersions(horizon.clone()));
            options.set_prefix_extractor(SliceTransform::create("roam.key.1", key_prefix, Some(has_key_prefix)));
            options.set_memtable_prefix_bloom_ratio(0.05);
        }
        feed::TABLE => {
            // Moving a record leaves a tombstone behind: files full of them are compacted before a scan stumbles
            // over them (200,000 under one prefix took a seek from 54 us to 40 ms, measured).
            options.add_compact_on_deletion_collector_factory(1024, 512, 0.5);
        }
        seen::TABLE => {
            options.set_compaction_filter_factory(ForgetSeen(horizon.clone()));
            options.set_memtable_prefix_bloom_ratio(0.05);
            options.set_memtable_whole_key_filtering(true);
        }
        _ => {}
    }
    options
}

/// Rows of a user are written near one another: the list of the memtable then goes on from where the last one of the same
/// beginning was put, instead of from its head. A third less work in it than without (measured, docs/performance.md).
fn near_the_last() -> Options {
    // There is no function for this option. Its text is a constant of ours, and a test opens a store with it.
    let described = Options::default().get_options_from_string(HINTED_BY);
    described.unwrap_or_default()
}

fn block_options(table: &str, cache: &Cache) -> BlockBasedOptions {
    let mut options = BlockBasedOptions::default();
    options.set_block_cache(cache);
    // A record that is not in memory costs reading a block: 3 us less a change than with 16 KiB (measured).
    options.set_block_size(8 * 1024);
    options.set_format_version(5);
    options.set_cache_index_and_filter_blocks(true);
    options.set_cache_index_and_filter_blocks_with_high_priority(true);
    options.set_pin_l0_filter_and_index_blocks_in_cache(true);
    if table != feed::TABLE {
        options.set_bloom_filter(10.0, false);
        options.set_optimize_filters_for_memory(true);
    }
    // Versions are looked for by the prefix that ends at the key; the other tables by whole keys.
    options.set_whole_key_filtering(table != version::TABLE);
    options
}

fn key_prefix(row_key: &[u8]) -> &[u8] {
    keys::parts_len(row_key, version::PREFIX_PARTS).map_or(row_key, |len| &row_key[..len])
}

fn has_key_prefix(row_key: &[u8]) -> bool {
    keys::parts_len(row_key, version::PREFIX_PARTS).is_some()
}

/// How a whole table is compacted on request.
pub(super) fn compaction() -> CompactOptions {
    let mut options = CompactOptions::default();
    options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
    options
}
