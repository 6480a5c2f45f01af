/** The rows of the dashboard: what an operator looks at, from the question whether all is well down to the process. */
import type { Color, PanelSpec, Series, States, Words } from './panels.ts';
import { EACH_DB, happened, increase, max, of, ofProcess, quantile, rate, sum, which } from './queries.ts';

export interface RowSpec {
  readonly title: string;
  readonly panels: readonly PanelSpec[];
}

/** Values of a label, and their colours. */
type Colors = Readonly<Record<string, Color>>;

const STATES: Colors = { ok: 'green', degraded: 'yellow', space: 'orange', failed: 'red', closing: 'blue' };

const STALLS: Colors = {
  transient: 'orange',
  space: 'red',
  reopen: 'red',
  config: 'red',
  breaker: 'red',
  'queue-full': 'red',
};

/** Which value of a label is 1, by its place in the list, and what each place stands for; `none` where it is at no value. */
function states(metric: string, label: string, colors: Colors, none?: Words[number]): Pick<States, 'expr' | 'words'> {
  const words = Object.fromEntries(Object.entries(colors).map((word, i) => [i + 1, word]));
  return { expr: which(metric, label, Object.keys(colors)), words: none === undefined ? words : { 0: none, ...words } };
}

/** Half of all, and all but the worst of a hundred. */
function quantiles(name: string): Series[] {
  return [
    { expr: quantile(0.5, name), legend: `p50 ${EACH_DB}` },
    { expr: quantile(0.99, name), legend: `p99 ${EACH_DB}` },
  ];
}

/** The fullest of the databases that are looked at. */
const share = (used: string, limit: string): string => max(`${of(used)} / ${of(limit)}`);

const overview: RowSpec = {
  title: 'Overview',
  panels: [
    {
      kind: 'stat',
      title: 'Accepted',
      description: 'Writes accepted in the time range that is chosen above.',
      unit: 'short',
      width: 4,
      expr: `round(${sum(increase(of('writes_accepted_total'), '$__range'))})`,
    },
    {
      kind: 'stat',
      title: 'Applied',
      description:
        'Writes that took effect in SQLite in the time range. Where keys are often overwritten it is far below what was accepted: a write that a newer one of its key replaces is not applied.',
      unit: 'short',
      width: 4,
      expr: `round(${sum(increase(of('writes_applied_total'), '$__range'))})`,
    },
    {
      kind: 'stat',
      title: 'Dead letters',
      description:
        'Writes that SQLite refused for good and that wait for somebody. It should be 0: see what they are with "sluice dlq summary", mend the cause, and retry or clear them.',
      unit: 'short',
      width: 4,
      curve: true,
      limit: 1,
      expr: sum(of('dlq_entries')),
    },
    {
      kind: 'states',
      title: 'State',
      description:
        'How each database is; one that is closed has no band. "degraded" for a moment is harmless, "space" waits for room on the disk. "failed" takes no more writes and has to be opened again.',
      unit: 'none',
      width: 12,
      ...states('state', 'state', STATES),
    },
    {
      kind: 'graph',
      title: 'Accepted, and what became of it',
      description:
        'The stack is how writes end: applied, replaced by a newer write of their key, or dead. It follows the dashed line; where it stays below, writes are piling up.',
      unit: 'wps',
      width: 12,
      stacked: true,
      series: [
        { expr: sum(rate(of('writes_accepted_total'))), legend: 'accepted', reference: true },
        { expr: sum(rate(of('writes_applied_total'))), legend: 'applied' },
        { expr: sum(rate(of('writes_coalesced_total'))), legend: 'coalesced' },
        { expr: sum(rate(of('writes_dead_lettered_total'))), legend: 'dead letters' },
      ],
    },
    {
      kind: 'graph',
      title: 'How full it is',
      description:
        'Use of each limit, in the database that is closest to it. At 100 % of staging or log, writes wait or are refused; at 100 % of the dead letters, nothing is applied any more or the oldest are dropped.',
      unit: 'percentunit',
      width: 12,
      limit: 1,
      series: [
        { expr: share('staging_bytes', 'staging_max_bytes'), legend: 'staging, bytes' },
        { expr: share('pending_writes', 'staging_max_writes'), legend: 'staging, writes' },
        { expr: share('log_size_bytes', 'log_max_bytes'), legend: 'log' },
        { expr: share('dlq_entries', 'dlq_max_entries'), legend: 'dead letters, entries' },
        { expr: share('dlq_size_bytes', 'dlq_max_bytes'), legend: 'dead letters, bytes' },
      ],
    },
    {
      kind: 'graph',
      title: 'Pending writes',
      description:
        'Writes that are accepted and not yet in SQLite, and their bytes in memory. It goes up and down with each flush; a steady rise means that SQLite does not keep up or stands still.',
      unit: 'short',
      width: 12,
      series: [
        { expr: of('pending_writes'), legend: EACH_DB },
        { expr: of('staging_bytes'), legend: `bytes ${EACH_DB}`, unit: 'bytes' },
      ],
    },
    {
      kind: 'graph',
      title: 'Oldest pending write',
      description:
        'How long the oldest write has waited for SQLite. The dashed line is three flush intervals, which it crosses only for a moment; if it stays above, look at the rows Flush and SQLite.',
      unit: 's',
      width: 12,
      series: [
        { expr: of('oldest_pending_age_seconds'), legend: EACH_DB },
        { expr: `3 * ${of('flush_interval_seconds')}`, legend: `3 intervals ${EACH_DB}`, reference: true },
      ],
    },
  ],
};

const writePath: RowSpec = {
  title: 'Write path',
  panels: [
    {
      kind: 'graph',
      title: 'Accepted by operation',
      description:
        'What the application writes: puts, deletes, rows, statements. The mix is a property of the application; a sudden change is news from there.',
      unit: 'wps',
      width: 8,
      stacked: true,
      series: [{ expr: sum(rate(of('writes_accepted_total')), 'op'), legend: '{{op}}' }],
    },
    {
      kind: 'graph',
      title: 'Rejected calls by reason',
      description:
        'Calls that were turned away with an error before anything was accepted; for many writes at once, one. Normally none: "full" and "timeout" mean that writes come faster than they can be applied, "invalid" and "too_large" are mistakes of the caller.',
      unit: 'ops',
      width: 8,
      stacked: true,
      series: [{ expr: sum(rate(of('writes_rejected_total')), 'reason'), legend: '{{reason}}' }],
    },
    {
      kind: 'graph',
      title: 'Bytes in, logged and out',
      description:
        'What comes into staging, what is written to the log, and what leaves staging again. Where less leaves than comes in, staging fills up; the log differs from both, since it has headers and staging also counts what a write costs in memory.',
      unit: 'binBps',
      width: 8,
      series: [
        { expr: sum(rate(of('bytes_accepted_total'))), legend: 'in' },
        { expr: sum(rate(of('log_bytes_written_total'))), legend: 'log' },
        { expr: sum(rate(of('bytes_applied_total'))), legend: 'out' },
      ],
    },
    {
      kind: 'graph',
      title: 'Time to acknowledge',
      description:
        'From the first write of a group commit to its acknowledgement: what an awaited write costs its caller. At the durability "sync" it is a little more than a sync of the disk; at "memory" and "applied" there is nothing to show.',
      unit: 's',
      width: 12,
      series: quantiles('write_ack_duration_seconds'),
    },
    {
      kind: 'graph',
      title: 'Time to apply',
      description:
        'From the oldest write of a batch to its commit in SQLite: how old the data is that other readers of the file see. Normally a flush interval and the duration of a batch.',
      unit: 's',
      width: 12,
      series: quantiles('write_apply_latency_seconds'),
    },
    {
      kind: 'graph',
      title: 'Reads and direct statements',
      description:
        'Key reads by where the answer came from (writes still in memory, the read cache, SQLite, or nowhere), and statements run directly by aexecute. Direct statements hold up the flush while they run.',
      unit: 'ops',
      width: 6,
      series: [
        { expr: sum(rate(of('reads_total')), 'source'), legend: 'read: {{source}}' },
        { expr: sum(rate(of('direct_statements_total'))), legend: 'direct statement' },
      ],
    },
    {
      kind: 'graph',
      title: 'Read cache',
      description:
        'Size of the values in the read caches of all tables, how many there are, and how many had to go for others. It is empty where no table has the option "cache"; many evictions with few reads from the cache mean that it is too small to be of use.',
      unit: 'bytes',
      width: 6,
      series: [
        { expr: of('cache_size_bytes'), legend: EACH_DB },
        { expr: of('cache_entries'), legend: `values ${EACH_DB}`, unit: 'short' },
        { expr: rate(of('cache_evictions_total')), legend: `evicted ${EACH_DB}`, unit: 'ops' },
      ],
    },
    {
      kind: 'states',
      title: 'Back-pressure',
      description:
        'Whether writers are asked to wait: from the high mark of staging on, until it is half empty. Short periods under load are how it is meant to work; if it does not go away, SQLite is too slow for what is written, or the flush stands still.',
      unit: 'none',
      width: 6,
      expr: of('backpressure_active'),
      words: { 0: ['no', 'green'], 1: ['yes', 'orange'] },
    },
    {
      kind: 'graph',
      title: 'Writes that wait for room',
      description:
        'Awaitable writes that wait now because staging or the log is full, and the mean time of those whose wait has ended. Both are 0 as long as there is room.',
      unit: 'short',
      width: 6,
      series: [
        { expr: of('waiting_producers'), legend: `waiting ${EACH_DB}` },
        {
          // Seconds that all of them waited by waits. Without waits it is 0 and not 0/0.
          expr: `${rate(of('backpressure_wait_seconds_total'))} / clamp_min(${rate(of('backpressure_waits_total'))}, 1e-9)`,
          legend: `mean wait ${EACH_DB}`,
          unit: 's',
        },
      ],
    },
  ],
};

const log: RowSpec = {
  title: 'Log',
  panels: [
    {
      kind: 'graph',
      title: 'Log write and sync, p99',
      description:
        'The slowest of a hundred group commits: handing it to the operating system, and syncing it to the disk. A sync takes some ms on an SSD; over 1 s the disk is overloaded or broken.',
      unit: 's',
      width: 8,
      series: [
        { expr: quantile(0.99, 'log_write_duration_seconds'), legend: `write ${EACH_DB}` },
        { expr: quantile(0.99, 'log_fsync_duration_seconds'), legend: `sync ${EACH_DB}` },
      ],
    },
    {
      kind: 'heatmap',
      title: 'Syncs by duration',
      description:
        'How many syncs took how long: the darker, the more. One narrow band is a quiet disk; a second band above it is a disk that is shared, or a cache that fills up.',
      unit: 's',
      width: 8,
      expr: sum(increase(of('log_fsync_duration_seconds_bucket')), 'le'),
    },
    {
      kind: 'graph',
      title: 'Group commit',
      description:
        'Writes that go to the log together, and syncs per second. Large groups mean that many writes share one sync; groups of 1 mean that each caller waits for its own.',
      unit: 'short',
      width: 8,
      series: [
        ...quantiles('log_group_size_writes'),
        { expr: rate(of('log_fsyncs_total')), legend: `syncs ${EACH_DB}`, unit: 'ops' },
      ],
    },
    {
      kind: 'graph',
      title: 'Not synced yet',
      description:
        'What a power cut could take now: bytes that are neither synced nor applied, and the age of the oldest. A moment at the durability "sync", the sync interval at "interval"; at "memory" it is all that is pending.',
      unit: 'bytes',
      width: 8,
      series: [
        { expr: of('unsynced_bytes'), legend: `bytes ${EACH_DB}` },
        { expr: of('unsynced_age_seconds'), legend: `age ${EACH_DB}`, unit: 's' },
      ],
    },
    {
      kind: 'graph',
      title: 'Writes not on the disk',
      description:
        'How many of the newest writes are on the disk neither in the log nor in SQLite: those that a power cut would take. At the durability "sync" none of them is acknowledged.',
      unit: 'short',
      width: 8,
      series: [{ expr: `${of('last_accepted_seq')} - ${of('last_durable_seq')}`, legend: EACH_DB }],
    },
    {
      kind: 'graph',
      title: 'Log size',
      description:
        'Size and files of the log. Files are deleted when all that is in them is safe in SQLite; if the log only grows, the flush stands still or a reader holds up the checkpoint.',
      unit: 'bytes',
      width: 8,
      series: [
        { expr: of('log_size_bytes'), legend: EACH_DB },
        { expr: of('log_segments'), legend: `files ${EACH_DB}`, unit: 'short' },
      ],
    },
    {
      kind: 'graph',
      title: 'Log errors',
      description:
        'What the disk refused, by operation and kind of error. Normally none. "space" goes away when there is room again; a failed sync is never repeated on the same file.',
      unit: 'short',
      width: 12,
      series: [
        {
          expr: happened(sum(increase(of('log_errors_total')), 'op', 'class'), { op: 'no', class: 'errors' }),
          legend: '{{op}} {{class}}',
        },
      ],
    },
    {
      kind: 'graph',
      title: 'Free disk space',
      description:
        'Room on the disk of the database. Without room the state becomes "space": nothing is lost, but writes are refused once the log cannot grow. Make room, and it goes on by itself.',
      unit: 'bytes',
      width: 12,
      series: [{ expr: of('disk_free_bytes'), legend: EACH_DB }],
    },
  ],
};

const flush: RowSpec = {
  title: 'Flush',
  panels: [
    {
      kind: 'graph',
      title: 'Batches',
      description:
        'Batches committed in SQLite, and how often one was run again to find the write that spoils it. Reruns are normally 0; they cost throughput, and what they find becomes a dead letter.',
      unit: 'ops',
      width: 8,
      series: [
        { expr: rate(of('flushes_total')), legend: `committed ${EACH_DB}` },
        { expr: rate(of('batch_splits_total')), legend: `rerun ${EACH_DB}` },
      ],
    },
    {
      kind: 'graph',
      title: 'Duration of a batch',
      description:
        'Time of a batch on the writer thread, to its commit. It grows with the batch and with the number of indexes; a rise at the same batch size is the disk, or a lock that another process holds.',
      unit: 's',
      width: 8,
      series: quantiles('flush_duration_seconds'),
    },
    {
      kind: 'graph',
      title: 'Size of a batch',
      description:
        'Writes and bytes of a batch. Large batches are cheap per write; batches that stay at their upper limit mean that SQLite is the bottleneck.',
      unit: 'short',
      width: 8,
      series: [
        ...quantiles('flush_batch_writes'),
        { expr: quantile(0.99, 'flush_batch_bytes'), legend: `p99 bytes ${EACH_DB}`, unit: 'bytes' },
      ],
    },
    {
      kind: 'graph',
      title: 'Writer thread busy',
      description:
        'Share of the time that the writer thread works on batches. Above 90 % it is saturated: pending writes grow, and soon writes have to wait. Write less, or drop indexes.',
      unit: 'percentunit',
      width: 12,
      limit: 0.9,
      series: [{ expr: rate(of('flush_busy_seconds_total')), legend: EACH_DB }],
    },
    {
      kind: 'graph',
      title: 'Current batch and last success',
      description:
        'How long the batch now on the writer thread has been there, and the time since the last commit. Without writes the second one just grows; with pending writes both should stay near the flush interval.',
      unit: 's',
      width: 12,
      series: [
        { expr: of('flush_running_seconds'), legend: `running ${EACH_DB}` },
        {
          // It is 0 before the first.
          expr: `time() - (${of('flush_last_success_timestamp_seconds')} > 0)`,
          legend: `since success ${EACH_DB}`,
        },
      ],
    },
    {
      kind: 'graph',
      title: 'Failed attempts',
      description:
        'Attempts at a batch that failed and were repeated, by kind of error, and how many in a row. Normally none; "transient" is mostly a lock held by another process. Nothing is lost, but nothing is applied meanwhile.',
      unit: 'short',
      width: 12,
      series: [
        { expr: sum(increase(of('flush_retries_total')), 'class'), legend: '{{class}}' },
        { expr: of('flush_consecutive_failures'), legend: `in a row ${EACH_DB}`, reference: true },
      ],
    },
    {
      kind: 'states',
      title: 'Flush stalled',
      description:
        'Whether the flush stands still, and why. Anything but "no" needs somebody: "space" wants room, "config" a mended schema, "breaker" and "queue-full" a look at the dead letters.',
      unit: 'none',
      width: 12,
      ...states('flush_stalled', 'reason', STALLS, ['no', 'green']),
    },
  ],
};

const sqlite: RowSpec = {
  title: 'SQLite and WAL',
  panels: [
    {
      kind: 'graph',
      title: 'WAL',
      description:
        "Size of SQLite's write-ahead log, and its frames that the last checkpoint left behind. Frames that stay high mean that a reader holds an old snapshot, and that the file grows until it lets go.",
      unit: 'bytes',
      width: 8,
      series: [
        { expr: of('sqlite_wal_size_bytes'), legend: EACH_DB },
        {
          expr: `${of('sqlite_wal_frames')} - ${of('sqlite_wal_frames_checkpointed')}`,
          legend: `frames left ${EACH_DB}`,
          unit: 'short',
        },
      ],
    },
    {
      kind: 'graph',
      title: 'Checkpoints by result',
      description:
        'Attempts to carry the WAL into the database file. "complete" is normal, "partial" is a reader in the way, "failed" the disk or files that were moved.',
      unit: 'ops',
      width: 8,
      stacked: true,
      series: [{ expr: sum(rate(of('checkpoints_total')), 'result'), legend: '{{result}}' }],
    },
    {
      kind: 'graph',
      title: 'Duration of a checkpoint',
      description:
        'Time of a checkpoint on the writer thread, during which nothing is applied. It is mostly syncs of the database file; a rise is a slow disk or a WAL that has grown.',
      unit: 's',
      width: 8,
      series: quantiles('checkpoint_duration_seconds'),
    },
    {
      kind: 'graph',
      title: 'SQLite errors by code',
      description:
        'Attempts at a batch that SQLite refused. SQLITE_BUSY is a lock of another process, SQLITE_FULL and SQLITE_IOERR are the disk. At SQLITE_CORRUPT and SQLITE_NOTADB stop, and look at the file with "sluice verify".',
      unit: 'short',
      width: 8,
      series: [
        { expr: happened(sum(increase(of('sqlite_errors_total')), 'code'), { code: 'no errors' }), legend: '{{code}}' },
      ],
    },
    {
      kind: 'graph',
      title: 'Restarts of the writer thread',
      description:
        'The thread died and was replaced ("death"), or opened its connection anew after an error of the disk ("reopen"). Both are repaired without loss, but neither is normal: the event writer-restart has the error.',
      unit: 'short',
      width: 8,
      series: [{ expr: sum(increase(of('worker_restarts_total')), 'reason'), legend: '{{reason}}' }],
    },
    {
      kind: 'graph',
      title: 'Rows deleted because they had expired',
      description:
        'Rows of tables with a time to live. They are deleted in the gaps of the writer thread, which reads do not wait for: that it falls behind shows in the size of the file alone.',
      unit: 'wps',
      width: 8,
      series: [{ expr: rate(of('rows_expired_total')), legend: EACH_DB }],
    },
  ],
};

const deadLetters: RowSpec = {
  title: 'Dead letters',
  panels: [
    {
      kind: 'graph',
      title: 'New dead letters by reason',
      description:
        'Writes that SQLite refused for good. Normally none: "constraint" and "type" are data that does not fit the schema, "statement" is SQL that cannot run.',
      unit: 'wps',
      width: 12,
      stacked: true,
      series: [{ expr: sum(rate(of('writes_dead_lettered_total')), 'reason'), legend: '{{reason}}' }],
    },
    {
      kind: 'graph',
      title: 'Size of the queue',
      description: 'Entries in the dead-letter queue and their bytes. It shrinks when they are retried or cleared.',
      unit: 'short',
      width: 12,
      series: [
        { expr: of('dlq_entries'), legend: EACH_DB },
        { expr: of('dlq_size_bytes'), legend: `bytes ${EACH_DB}`, unit: 'bytes' },
      ],
    },
    {
      kind: 'graph',
      title: 'Oldest dead letter',
      description:
        'Time since the oldest entry was first refused; 0 for an empty queue. More than ten minutes means that nobody has looked.',
      unit: 's',
      width: 12,
      series: [{ expr: of('dlq_oldest_entry_age_seconds'), legend: EACH_DB }],
    },
    {
      kind: 'graph',
      title: 'What was done with dead letters',
      description:
        'Retried with success or again in vain, superseded by newer writes, cleared, imported. "evicted" are entries dropped because the queue was full: they are lost, and should be 0.',
      unit: 'short',
      width: 12,
      series: (
        [
          ['dlq_retried_total', 'retried'],
          ['dlq_retry_failures_total', 'retry failed'],
          ['dlq_superseded_total', 'superseded'],
          ['dlq_cleared_total', 'cleared'],
          ['dlq_imported_total', 'imported'],
          ['dlq_evicted_total', 'evicted'],
        ] as const
      ).map(([name, legend]) => ({ expr: sum(increase(of(name))), legend })),
    },
  ],
};

const each = (name: string): string => max(of(name), 'instance', 'db');

const recovery: RowSpec = {
  title: 'Recovery',
  panels: [
    {
      kind: 'table',
      title: 'Last open',
      description:
        'What each database runs, and what it found when it was opened. Recovered writes after a crash are normal, and so is a torn end of a few bytes. Damage or files set aside mean that part of the log could not be read: see "sluice inspect".',
      unit: 'none',
      width: 24,
      labels: {
        db: 'Database',
        instance: 'Instance',
        version: 'Sluice',
        sqlite_version: 'SQLite',
        durability: 'Durability',
      },
      columns: [
        { name: 'Build', expr: max(of('build_info'), 'instance', 'db', 'version', 'sqlite_version', 'durability') },
        { name: 'Took', expr: each('recovery_duration_seconds'), unit: 's' },
        { name: 'Writes recovered', expr: each('writes_recovered_total'), unit: 'short' },
        { name: 'Log files found', expr: each('recovery_segments'), unit: 'short' },
        { name: 'Torn end', expr: each('recovery_torn_bytes'), unit: 'bytes' },
        { name: 'Files set aside', expr: each('recovery_set_aside_files'), unit: 'short' },
        {
          name: 'Damaged',
          expr: each('recovery_damaged'),
          unit: 'none',
          words: { 0: ['no', 'green'], 1: ['yes', 'red'] },
        },
        { name: 'Dead letters found', expr: each('dlq_entries_at_open'), unit: 'short' },
      ],
    },
  ],
};

const EACH_PROCESS = '{{instance}}';

const processRow: RowSpec = {
  title: 'Process',
  panels: [
    {
      kind: 'graph',
      title: 'CPU',
      description:
        'Processor time of the whole process, all threads; 100 % is one core. The main thread and the writer thread can each use one: if the event loop lags as well, the main thread is the bottleneck.',
      unit: 'percentunit',
      width: 8,
      series: [{ expr: rate(ofProcess('process_cpu_seconds_total')), legend: EACH_PROCESS }],
    },
    {
      kind: 'graph',
      title: 'Memory',
      description:
        'Resident memory and the part of it that is JavaScript objects. It follows staging up and down; a heap that only grows is a leak in the application.',
      unit: 'bytes',
      width: 8,
      series: [
        { expr: ofProcess('process_resident_memory_bytes'), legend: `resident ${EACH_PROCESS}` },
        { expr: ofProcess('nodejs_heap_size_used_bytes'), legend: `heap ${EACH_PROCESS}` },
      ],
    },
    {
      kind: 'graph',
      title: 'Delay of the event loop',
      description:
        'How late timers come, on average and at p99; 10 ms is a process at rest, for that is how fine it is measured. Over 100 ms something computes for long on the main thread, and all writes and reads wait for it.',
      unit: 's',
      width: 8,
      series: [
        { expr: ofProcess('nodejs_eventloop_lag_mean_seconds'), legend: `mean ${EACH_PROCESS}` },
        { expr: ofProcess('nodejs_eventloop_lag_p99_seconds'), legend: `p99 ${EACH_PROCESS}` },
      ],
    },
    {
      kind: 'graph',
      title: 'Time in garbage collection',
      description:
        'Share of the time that the main thread collects garbage, by kind. A few percent are normal; a lot of "major" means that the heap is nearly full.',
      unit: 'percentunit',
      width: 12,
      stacked: true,
      series: [
        {
          expr: sum(rate(ofProcess('nodejs_gc_duration_seconds_sum')), 'instance', 'kind'),
          legend: `{{kind}} ${EACH_PROCESS}`,
        },
      ],
    },
    {
      kind: 'graph',
      title: 'File descriptors in use',
      description:
        'Share of the open files that the process may have. A steady rise is a leak; near 100 % the log cannot start new files. Raise the limit (ulimit -n) or close what is left open.',
      unit: 'percentunit',
      width: 12,
      series: [{ expr: `${ofProcess('process_open_fds')} / ${ofProcess('process_max_fds')}`, legend: EACH_PROCESS }],
    },
  ],
};

export const ROWS: readonly RowSpec[] = [overview, writePath, log, flush, sqlite, deadLetters, recovery, processRow];
