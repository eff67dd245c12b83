"""What the engine may take of the machine, what its readers and its writer may do, and which refusals pass by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monitor.facts import cluster

# Engine-wide, and read from the first handle of the process only. The memory cap is above what all readers together
# may take, or inserts are refused while people look at charts.
ENGINE = {
    "max_server_memory_usage": 600_000_000,
    "merges_mutations_memory_usage_soft_limit": 200_000_000,
    "mark_cache_size": 33_554_432,
    "primary_index_cache_size": 33_554_432,
    "index_mark_cache_size": 8_388_608,
    "query_condition_cache_size": 8_388_608,
    "compiled_expression_cache_size": 8_388_608,
    "max_thread_pool_size": 128,
    "max_thread_pool_free_size": 8,
    "max_parts_cleaning_thread_pool_size": 2,  # the default of 128 threads takes some 400 descriptors
    "max_active_parts_loading_thread_pool_size": 2,
    "max_outdated_parts_loading_thread_pool_size": 1,
    "async_insert": 0,  # tokens need it off
    "max_insert_threads": 1,
    "max_threads": 2,
    "local_filesystem_read_method": "pread",
}
READ = {
    "max_memory_usage": 80_000_000,
    "max_bytes_before_external_group_by": 30_000_000,
    "max_bytes_ratio_before_external_group_by": 0,
    "max_bytes_before_external_sort": 30_000_000,
    "max_execution_time": 20,
    "max_result_rows": 500_000,  # a result lies outside of the memory limits
    "max_result_bytes": 100_000_000,
    "result_overflow_mode": "throw",
    "readonly": 2,
    **cluster.READ,
}
UNBOUND = {"max_result_rows": 0, "max_result_bytes": 0, "max_execution_time": 0}  # a stream is never held whole
INSERT = {
    "async_insert": 0,
    # A block has no two rows of one key when it comes: to merge it within itself before it is written is work for
    # nothing, and most of an insert's time (26.9, November 2026).
    "optimize_on_insert": 0,
    **cluster.INSERT,
}
# Of a server. Longer than a reader's query may take, and than a statement on a cluster waits for its nodes.
NETWORK: Mapping[str, Any] = {
    "connect_timeout": 5,
    "send_receive_timeout": 200,
    "query_retries": 1,
    "autogenerate_session_id": False,
}
OUT_OF_MEMORY, DISK_FULL, TOO_MANY_PARTS = 241, 243, 252
NO_SUCH_DATABASE = 81
REFUSED = frozenset({192, 193, 194, 497, 516})  # unknown user, wrong or missing password, no right to it
# Nothing is wrong with the rows: the same rows go in when memory, disk, merges, the network or people allow.
PASSING = frozenset({
    OUT_OF_MEMORY, DISK_FULL, TOO_MANY_PARTS,
    74, 75, 76, 77, 88, 95, 96, 99,  # reading, writing, opening, closing, syncing files
    159, 173, 202, 236, 242, 394, 425, 439, 1001,  # time, allocation, queries at once, abort, read-only, kill, threads
    3, 32, 33, 198, 203, 209, 210, 225, 279, 285, 286, 289, 319, 999,  # network, Keeper, replicas, shards
})  # fmt: skip
